// SPDX-License-Identifier: Apache-2.0
// checkmoe: a table of verbs. The only file that ends the program.
#include "harness/commands.h"
#include "harness/expect.h"
#include "harness/registry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int run_report(int argc, char **argv)
{
    return cm_cmd_report(argc, argv, cm_registry_reports());
}

static const struct verb {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *meaning;
    bool many; // processes run kernels, not for their speed
} verbs[] = {
    {"run", cm_cmd_run, "run the checks on kernels and cases, or on a model's layer", true},
    {"bench", cm_cmd_bench, "measure kernels side by side, on cold weights, outputs verified", false},
    {"report", run_report, "render records again", false},
    {"repro", cm_cmd_repro, "run one failure again", true},
    {"list", cm_cmd_list, "what would run; ops, kernels, checks, words, faults", false},
    {"inspect", cm_cmd_inspect, "what a safetensors file, a model or an adapter holds", false},
    {"new-plugin", cm_cmd_new_plugin, "write a skeleton of a kernel of your own", false},
    {"doctor", cm_cmd_doctor, "what this machine has and lacks", false},
};

static void usage(FILE *out)
{
    fprintf(out, "usage: checkmoe VERB [OPTION...]\n\n");
    for (size_t n = 0; n < sizeof verbs / sizeof *verbs; n++)
        fprintf(out, "  %-10s %s\n", verbs[n].name, verbs[n].meaning);
    fprintf(out, "\n\"checkmoe VERB --help\" tells more.\n");
}

// OpenMP's idle threads spin unless told otherwise before the library is loaded: with kernels in several
// processes at a time that costs many times the work itself. The program begins again with the wish set.
static void wait_without_spinning(char **argv)
{
    if (getenv("OMP_WAIT_POLICY") || setenv("OMP_WAIT_POLICY", "passive", 0) != 0)
        return;
    execv("/proc/self/exe", argv); // if that fails, it is only slower
}

int main(int argc, char **argv)
{
    if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help"))) {
        usage(stdout);
        return CM_EXIT_OK;
    }
    for (size_t n = 0; argc > 1 && n < sizeof verbs / sizeof *verbs; n++)
        if (!strcmp(verbs[n].name, argv[1])) {
            if (verbs[n].many)
                wait_without_spinning(argv);
            return verbs[n].run(argc - 1, argv + 1);
        }
    if (argc > 1)
        fprintf(stderr, "checkmoe: there is no verb \"%s\"\n", argv[1]);
    usage(stderr);
    return CM_EXIT_USAGE;
}
