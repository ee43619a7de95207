// SPDX-License-Identifier: Apache-2.0
// new-plugin: writes a skeleton of a kernel from its op's table: it builds, runs, and says what is missing.
#include "harness/commands.h"
#include "harness/dtype.h"
#include "harness/expect.h"
#include "harness/op.h"
#include "harness/registry.h"

#include <argp.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct skeleton {
    const char *name;
    const cm_op *op;
    char header[512]; // folder of checkmoe.h beside this program; "": unknown
};

// The one with the most arguments: a skeleton helps there most.
static const cm_op *largest_op(void)
{
    const cm_op *largest = NULL;
    for (const cm_op *const *op = cm_registry_ops(); *op; op++)
        if (!largest || cm_op_argument_count(*op) > cm_op_argument_count(largest))
            largest = *op;
    return largest;
}

static bool is_name(const char *name)
{
    size_t length = strlen(name);
    for (const char *c = name; *c; c++)
        if (!islower((unsigned char)*c) && !(c > name && (isdigit((unsigned char)*c) || *c == '_')))
            return false;
    return length > 0 && length <= 32;
}

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct skeleton *skeleton = state->input;
    switch (key) {
    case 'o':
        skeleton->op = cm_registry_find_op(argument, strlen(argument));
        if (!skeleton->op)
            argp_error(state, "--op: there is no op \"%s\"; \"checkmoe list --ops\" shows them", argument);
        break;
    case ARGP_KEY_ARG:
        if (skeleton->name)
            argp_error(state, "one NAME, not \"%s\" as well", argument);
        if (!is_name(argument))
            argp_error(state, "\"%s\": NAME is up to 32 of a-z, 0-9 and _, a letter first", argument);
        skeleton->name = argument;
        break;
    case ARGP_KEY_END:
        if (!skeleton->name)
            argp_error(state, "a NAME is needed");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

// Folder of checkmoe.h: include/checkmoe beside bin/ of an installed program, or where the build has it.
static void find_header(char *folder, size_t size)
{
    static const char *const places[] = {"../include/checkmoe", "include/checkmoe"};
    char program[400];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    program[length > 0 ? length : 0] = 0;
    char *slash = strrchr(program, '/');
    for (size_t n = 0; slash && n < sizeof places / sizeof *places; n++) {
        char *path = cm_text("%.*s/%s/checkmoe.h", (int)(slash - program), program, places[n]);
        char *whole = realpath(path, NULL);
        free(path);
        if (!whole)
            continue;
        snprintf(folder, size, "%.*s", (int)(strrchr(whole, '/') - whole), whole);
        free(whole);
        return;
    }
}

static const char *role_word(cm_role role)
{
    static const char *const words[] = {[CM_INPUT] = "input",
                                        [CM_WEIGHT] = "weight",
                                        [CM_ADAPTER] = "adapter",
                                        [CM_OUTPUT] = "output",
                                        [CM_INOUT] = "input and output"};
    return words[role];
}

static void write_arguments(FILE *out, const cm_op *op)
{
    for (const cm_argument *argument = op->arguments; argument->name; argument++) {
        fprintf(out, "    // [%s] %s, ", argument->shape, role_word(argument->role));
        for (int dtype = 0, any = 0; dtype < CM_DTYPE_COUNT; dtype++)
            if (argument->dtypes & CM_DTYPE_BIT(dtype))
                fprintf(out, "%s%s", any++ ? " " : "", cm_dtype_name((cm_dtype)dtype));
        fprintf(out, "%s: %s\n    const DLTensor *%s;\n", argument->optional ? ", NULL if absent" : "",
                argument->meaning, argument->name);
    }
}

static bool has_dim(const cm_op *op, char letter)
{
    for (const cm_argument *argument = op->arguments; argument->name; argument++)
        if (strchr(argument->shape, letter))
            return true;
    return false;
}

static void write_attributes(FILE *out, const cm_op *op)
{
    for (const cm_attribute *attribute = op->attributes; attribute->name; attribute++) {
        fprintf(out, "    // %s", attribute->meaning);
        for (int n = 0; attribute->words && attribute->words[n]; n++)
            fprintf(out, "%s%d %s", n ? ", " : "; ", n, attribute->words[n]);
        fprintf(out, "\n    double %s;\n", attribute->name);
    }
}

static void write_code(FILE *out, const struct skeleton *skeleton)
{
    const cm_op *op = skeleton->op;
    fprintf(out,
            "// %s/%s: a kernel for checkmoe.\n"
            "//   %s\n"
            "// Build: sh build.sh   Run: checkmoe run --plugin %s.so\n"
            "#include <checkmoe.h>\n#include <stdio.h>\n\n"
            "// Tensors are row-major; `strides` count elements, and rows may have gaps between them.\n"
            "struct arguments {\n",
            op->name, skeleton->name, op->formula, skeleton->name);
    write_arguments(out, op);
    write_attributes(out, op);
    fprintf(out, "    // extents; checkmoe.h says what the letters stand for\n");
    for (const char *letter = CM_DIM_LETTERS; *letter; letter++)
        if (has_dim(op, *letter))
            fprintf(out, "    int64_t %c;\n", *letter);
    fprintf(out, "};\n\nstatic void open_arguments(const cm_call *call, struct arguments *arguments)\n{\n"
                 "    const cm_host *host = call->host;\n");
    for (const cm_argument *argument = op->arguments; argument->name; argument++)
        fprintf(out, "    arguments->%s = host->argument(call, \"%s\");\n", argument->name, argument->name);
    for (const cm_attribute *attribute = op->attributes; attribute->name; attribute++)
        fprintf(out, "    arguments->%s = host->attribute(call, \"%s\");\n", attribute->name,
                attribute->name);
    for (const char *letter = CM_DIM_LETTERS; *letter; letter++)
        if (has_dim(op, *letter))
            fprintf(out, "    arguments->%c = host->dim(call, '%c');\n", *letter, *letter);
    fprintf(out,
            "}\n\n"
            "// Shapes, dtypes and attributes, no values. A case that is refused here is a SKIP with this\n"
            "// reason.\n"
            "static bool supports(const cm_call *call, char *reason, size_t size)\n{\n"
            "    for (int n = 0; call->op->arguments[n].name; n++) {\n"
            "        const DLTensor *tensor = call->arguments[n];\n"
            "        if (tensor && (tensor->dtype.code == kDLFloat || tensor->dtype.code == kDLBfloat) &&\n"
            "            !(tensor->dtype.code == kDLFloat && tensor->dtype.bits == 32)) {\n"
            "            snprintf(reason, size, \"%%s is not f32\", call->op->arguments[n].name);\n"
            "            return false;\n"
            "        }\n"
            "    }\n"
            "    return true;\n}\n\n");
    fprintf(out, "// Writes every element that the op says, and nothing else; never prints, exits or keeps a "
                 "pointer.\n"
                 "// Memory for intermediates: call->host->scratch(call, bytes, alignment).\n"
                 "static cm_status run(const cm_call *call, void *state)\n{\n"
                 "    struct arguments arguments;\n"
                 "    (void)state; // what prepare made\n"
                 "    cm_status status = call->host->validate(call);\n"
                 "    if (status != CM_OK)\n"
                 "        return status;\n"
                 "    open_arguments(call, &arguments);\n"
                 "    return call->host->fail(call, CM_UNSUPPORTED, \"not written yet\");\n}\n\n");
    fprintf(
        out,
        "// prepare (pack weights), update (adapters changed) and release are optional.\n"
        "static const cm_kernel kernel = {\n"
        "    .size = sizeof(cm_kernel),\n"
        "    .name = \"%s/%s\",\n"
        "    .file = __FILE__,\n"
        "    .line = __LINE__,\n"
        "    .accuracy = CM_ACCURACY_SINGLE, // CM_ACCURACY_MODEL: intermediates are rounded to the model's "
        "dtype\n"
        "    .supports = supports,\n"
        "    .run = run,\n"
        "};\n\n"
        "const cm_kernel *const *%s(uint32_t abi_version);\n"
        "const cm_kernel *const *%s(uint32_t abi_version)\n{\n"
        "    static const cm_kernel *const kernels[] = {&kernel, NULL};\n"
        "    return abi_version == CM_ABI_VERSION ? kernels : NULL;\n}\n",
        op->name, skeleton->name, CM_PLUGIN_SYMBOL, CM_PLUGIN_SYMBOL);
}

static void write_build(FILE *out, const struct skeleton *skeleton)
{
    fprintf(out,
            "#!/bin/sh\n"
            "# Builds %s.so; needs checkmoe.h and dlpack/dlpack.h. CC and CFLAGS are taken from the "
            "environment.\n"
            "set -eu\n"
            "cd \"$(dirname \"$0\")\"\n"
            "flags=$(pkg-config --cflags checkmoe 2>/dev/null) || flags='%s%s'\n"
            "${CC:-cc} ${CFLAGS:--O2 -g -Wall -Wextra} $flags -fPIC -shared -o %s.so %s.c -lm\n",
            skeleton->name, skeleton->header[0] ? "-I" : "", skeleton->header, skeleton->name,
            skeleton->name);
}

static bool write_file(const struct skeleton *skeleton, const char *ending,
                       void (*write)(FILE *out, const struct skeleton *skeleton))
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", skeleton->name, ending);
    FILE *out = fopen(path, "wx");
    if (!out) {
        fprintf(stderr, "checkmoe: %s: cannot be written (%s)\n", path, strerror(errno));
        return false;
    }
    write(out, skeleton);
    bool failed = ferror(out) != 0;
    if (fclose(out) != 0 || failed) {
        fprintf(stderr, "checkmoe: %s: could not be written whole\n", path);
        return false;
    }
    return true;
}

int cm_cmd_new_plugin(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"op", 'o', "OP", 0, "what the kernel computes (default: the op with the most arguments)", 0}, {0}};
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "NAME",
        .doc =
            "Writes NAME/NAME.c, a kernel \"OP/NAME\" that builds and runs and is still to be filled in, and "
            "NAME/build.sh. Overwrites nothing."};
    static char name[] = "checkmoe new-plugin";
    struct skeleton skeleton = {.op = largest_op()};
    argv[0] = name;
    argp_err_exit_status = CM_EXIT_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, &skeleton);
    find_header(skeleton.header, sizeof skeleton.header);
    if (mkdir(skeleton.name, 0777)) {
        fprintf(stderr, "checkmoe: %s: cannot be made (%s); new-plugin overwrites nothing\n", skeleton.name,
                strerror(errno));
        return CM_EXIT_USAGE;
    }
    char *code = cm_text("%s.c", skeleton.name);
    bool written = write_file(&skeleton, code, write_code) && write_file(&skeleton, "build.sh", write_build);
    free(code);
    if (!written)
        return CM_EXIT_USAGE;
    printf("sh %s/build.sh\ncheckmoe run --plugin %s/%s.so\n", skeleton.name, skeleton.name, skeleton.name);
    return CM_EXIT_OK;
}
