// SPDX-License-Identifier: Apache-2.0
#include "harness/bench_cpus.h"
#include "harness/bench_session.h"
#include "harness/commands.h"
#include "harness/expect.h"

#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    KEY_TOKENS = 256,
    KEY_THREADS,
    KEY_ROUNDS,
    KEY_SECONDS,
    KEY_COLD,
    KEY_LEAST,
    KEY_SEED,
    KEY_TIMEOUT,
    KEY_PLUGIN,
    KEY_LAYER,
    KEY_FORMAT,
    KEY_RANK,
    KEY_WITHOUT,
    KEY_MEMORY,
    KEY_TABLE,
    KEY_RECORDS,
    KEY_JSON,
    KEY_QUIET,
    KEY_FAIL_IF_SLOWER,
    KEY_STRICT,
};

static const struct argp_option options[] = {
    {"tokens", KEY_TOKENS, "T,...", 0, "in place of the case's T, one after the other", 1},
    {"threads", KEY_THREADS, "N,...", 0,
     "most threads of a kernel, and CPUs of its process (default: all CPUs that this process may use)", 1},
    {"plugin", KEY_PLUGIN, "FILE", 0, "a shared library with kernels (repeatable)", 1},
    {"layer", KEY_LAYER, "NAME,...", 0,
     "layers of models in place of a CASE, e.g. ds,qw,Mixtral-8x7B; T is 1, 4, 16, 64 and 256 unless "
     "--tokens "
     "says otherwise",
     1},
    {"format", KEY_FORMAT, "NAME,...", 0,
     "formats of their weights: bf16 (default), int8, int4, int4g32, int4g128", 1},
    {"rank", KEY_RANK, "R", 0, "rank of their adapter (default 16; 0: no adapter)", 1},
    {"without-adapters", KEY_WITHOUT, NULL, 0, "each kernel also against itself without adapters", 1},
    {"rounds", KEY_ROUNDS, "N", 0, "pairs of samples (default 60; fewer than 8 give no interval)", 2},
    {"seconds", KEY_SECONDS, "S", 0, "after which a pair of kernels gets no further sample (default 20)", 2},
    {"cold-mib", KEY_COLD, "N", 0,
     "MiB of distinct weights that are read before one is read again (default 400, or twice the last-level "
     "caches if that is more; 0: warm)",
     2},
    {"memory-gib", KEY_MEMORY, "N", 0,
     "GiB that weights, their copies and what kernels pack of them may take (default 20, and never more than "
     "6/10 of what is free)",
     2},
    {"least", KEY_LEAST, "PERCENT", 0, "smallest change that counts, if the machine resolves it (default 1)",
     2},
    {"seed", KEY_SEED, "N", 0, "of the order within pairs (default: from the clock)", 2},
    {"timeout", KEY_TIMEOUT, "SECONDS", 0, "for each answer of a timed process (default 120)", 2},
    {"records", KEY_RECORDS, "FILE", 0, "keep the records (JSON lines, check \"perf\")", 3},
    {"table", KEY_TABLE, NULL, 0, "all results once more at the end, as a table in Markdown", 3},
    {"json", KEY_JSON, NULL, 0, "records on stdout in place of the tables", 3},
    {"quiet", KEY_QUIET, NULL, 0, "no progress", 3},
    {"fail-if-slower", KEY_FAIL_IF_SLOWER, NULL, 0, "exit status 6 if a kernel is slower than the first", 4},
    {"strict-perf", KEY_STRICT, NULL, 0, "exit status 7 if nothing can be said about one", 4},
    {0},
};

static double number(const char *name, const char *text, double least, double most, struct argp_state *state)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (!text[0] || *end || errno || !(value >= least && value <= most))
        argp_error(state, "--%s: \"%s\" is no number from %g to %.10g", name, text, least, most);
    return value;
}

static int64_t whole(const char *name, const char *text, int64_t least, int64_t most,
                     struct argp_state *state)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (!text[0] || *end || errno || value < least || value > most)
        argp_error(state, "--%s: \"%s\" is no whole number from %lld to %lld", name, text, (long long)least,
                   (long long)most);
    return value;
}

static int list(const char *name, const char *text, int64_t most, int64_t numbers[CM_BENCH_NUMBERS],
                struct argp_state *state)
{
    int count = 0;
    char *copy = cm_text("%s", text), *rest = copy;
    for (char *word; (word = strsep(&rest, ","));) {
        if (count == CM_BENCH_NUMBERS)
            argp_error(state, "--%s: more than %d numbers", name, CM_BENCH_NUMBERS);
        numbers[count++] = whole(name, word, 1, most, state);
    }
    free(copy);
    return count;
}

static error_t parse_output(int key, char *argument, cm_bench_request *request)
{
    switch (key) {
    case KEY_RECORDS:
        request->records_path = argument;
        break;
    case KEY_JSON:
        request->json = true;
        break;
    case KEY_TABLE:
        request->table = true;
        break;
    case KEY_QUIET:
        request->quiet = true;
        break;
    case KEY_FAIL_IF_SLOWER:
        request->fail_if_slower = true;
        break;
    case KEY_STRICT:
        request->strict = true;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static error_t parse_layers(int key, char *argument, struct argp_state *state)
{
    static const int64_t tokens[] = {1, 4, 16, 64, 256};
    cm_bench_request *request = state->input;
    switch (key) {
    case KEY_LAYER:
        request->layers = argument;
        break;
    case KEY_FORMAT:
        request->formats = argument;
        break;
    case KEY_RANK:
        request->rank = whole("rank", argument, 0, 1024, state);
        break;
    case KEY_WITHOUT:
        request->without = true;
        break;
    case ARGP_KEY_END:
        if (request->path_count == 0)
            argp_error(state, "at least one OP/TARGET[,TARGET...]/CASE is needed");
        if (request->formats && !request->layers)
            argp_error(state, "--format goes with --layer; in a CASE the format is a word, e.g. int8");
        if (request->layers && request->token_count == 0) {
            request->token_count = sizeof tokens / sizeof *tokens;
            memcpy(request->tokens, tokens, sizeof tokens);
        }
        break;
    default:
        return parse_output(key, argument, request);
    }
    return 0;
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    cm_bench_request *request = state->input;
    switch (key) {
    case KEY_TOKENS:
        request->token_count = list("tokens", argument, 1 << 20, request->tokens, state);
        break;
    case KEY_THREADS:
        request->thread_count = list("threads", argument, 1024, request->threads, state);
        break;
    case KEY_ROUNDS:
        request->rounds = (int)whole("rounds", argument, 1, 100000, state);
        break;
    case KEY_SECONDS:
        request->seconds = number("seconds", argument, 0, 86400, state);
        break;
    case KEY_COLD:
        request->cold = (size_t)whole("cold-mib", argument, 0, 1 << 20, state) << 20;
        break;
    case KEY_LEAST:
        request->least = number("least", argument, 0, 1000, state) / 100;
        break;
    case KEY_SEED:
        request->seed = (uint64_t)whole("seed", argument, 0, INT64_MAX, state);
        break;
    case KEY_TIMEOUT:
        request->timeout = number("timeout", argument, 0.001, 86400, state);
        break;
    case KEY_PLUGIN:
        if (request->plugin_count == CM_MAX_PLUGINS)
            argp_error(state, "more than %d plug-ins", CM_MAX_PLUGINS);
        request->plugins[request->plugin_count++] = argument;
        break;
    case ARGP_KEY_ARG:
        if (request->path_count == CM_BENCH_PATHS)
            argp_error(state, "more than %d selections", CM_BENCH_PATHS);
        request->paths[request->path_count++] = argument;
        break;
    case KEY_MEMORY:
        request->memory = (size_t)whole("memory-gib", argument, 1, 1 << 20, state) << 30;
        break;
    default:
        return parse_layers(key, argument, state);
    }
    return 0;
}

int cm_cmd_bench(int argc, char **argv)
{
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "OP/TARGET[,TARGET...]/CASE...",
        .doc = "Measures kernels against the first of them: pairs of samples in random order, on cold "
               "weights, every output verified. The ratio of times is by pair, with a 99 % interval; nothing "
               "below the smallest change that the first shows against itself is judged."};
    static char name[] = "checkmoe bench";
    const size_t cold = (size_t)400 << 20;
    cm_bench_request request = {.rounds = 60,
                                .seconds = 20,
                                .timeout = 120,
                                .least = 0.01,
                                .cold = cold > 2 * cm_cache_size() ? cold : 2 * cm_cache_size(),
                                .memory = (size_t)20 << 30,
                                .rank = 16,
                                .seed = (uint64_t)time(NULL),
                                .argc = argc,
                                .argv = argv};
    argv[0] = name;
    argp_err_exit_status = CM_EXIT_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, &request);
    return cm_bench_run(&request);
}
