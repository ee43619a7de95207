// SPDX-License-Identifier: Apache-2.0
// checkmoe: a table of verbs. The only file that ends the program.
#include "harness/commands.h"
#include "harness/expect.h"
#include "harness/registry.h"

#include <stdio.h>
#include <string.h>

static int run_report(int argc, char **argv)
{
    return cm_cmd_report(argc, argv, cm_registry_reports());
}

static const struct verb {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *meaning;
} verbs[] = {
    {"run", cm_cmd_run, "run the checks on kernels and cases, or on a model's layer"},
    {"bench", cm_cmd_bench, "measure kernels side by side, on cold weights, outputs verified"},
    {"report", run_report, "render records again"},
    {"repro", cm_cmd_repro, "run one failure again"},
    {"list", cm_cmd_list, "what would run; ops, kernels, checks, words, faults"},
    {"inspect", cm_cmd_inspect, "what a safetensors file, a model or an adapter holds"},
    {"new-plugin", cm_cmd_new_plugin, "write a skeleton of a kernel of your own"},
    {"doctor", cm_cmd_doctor, "what this machine has and lacks"},
};

static void usage(FILE *out)
{
    fprintf(out, "usage: checkmoe VERB [OPTION...]\n\n");
    for (size_t n = 0; n < sizeof verbs / sizeof *verbs; n++)
        fprintf(out, "  %-10s %s\n", verbs[n].name, verbs[n].meaning);
    fprintf(out, "\n\"checkmoe VERB --help\" tells more.\n");
}

int main(int argc, char **argv)
{
    if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help"))) {
        usage(stdout);
        return CM_EXIT_OK;
    }
    for (size_t n = 0; argc > 1 && n < sizeof verbs / sizeof *verbs; n++)
        if (!strcmp(verbs[n].name, argv[1]))
            return verbs[n].run(argc - 1, argv + 1);
    if (argc > 1)
        fprintf(stderr, "checkmoe: there is no verb \"%s\"\n", argv[1]);
    usage(stderr);
    return CM_EXIT_USAGE;
}
