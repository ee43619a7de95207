// SPDX-License-Identifier: Apache-2.0
// Bad files on the command line: exit status 4, one line that names the file, the tensor and what to do, and
// nothing left behind. And the listing of good ones: all of it, fast and small.
#include "suites/unit/command.h"
#include "suites/unit/loaders.h"
#include "suites/unit/tiny_layer.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

Suite *cm_unit_bad_input(void);

#define WEIGHTS "model/model.safetensors"
#define RUN     "checkmoe run --model model --layer 1 --records r.jsonl --junit j.xml"
#define ADAPTED RUN " --adapter adapter"
#define INSPECT "checkmoe inspect "

static void good_files(void)
{
    cm_tiny_model(&cm_tiny_families[QWEN3], &cm_tiny_no_change);
    cm_tiny_adapter("", CM_F32, cm_tiny_pattern);
}

static void truncated(void)
{
    struct stat file;
    ck_assert(stat(WEIGHTS, &file) == 0 && truncate(WEIGHTS, file.st_size - 5) == 0);
}

static void cut_in_the_header(void)
{
    ck_assert_int_eq(truncate(WEIGHTS, 100), 0);
}

#define ENTRY(name, begin, end)                                                                              \
    "\"" name "\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[" #begin "," #end "]}"

static void hole(void)
{
    static const char header[] = "{" ENTRY("first", 0, 16) "," ENTRY("second", 20, 36) "}";
    cm_write_header(WEIGHTS, header, sizeof header - 1, 36);
}

static void overlap(void)
{
    static const char header[] = "{" ENTRY("first", 0, 16) "," ENTRY("second", 12, 28) "}";
    cm_write_header(WEIGHTS, header, sizeof header - 1, 28);
}

static void torch_zip(void)
{
    static const char zip[200] =
        "PK\3\4\0\0\10\10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\20\0\0\0archive/data.pkl";
    cm_write_bytes(WEIGHTS, zip, sizeof zip);
}

static void torch_adapter(void)
{
    ck_assert_int_eq(rename("adapter/adapter_model.safetensors", "adapter/adapter_model.bin"), 0);
}

static void config_without_keys(void)
{
    cm_write_text("model/config.json", "{\"model_type\":\"qwen3_moe\",\"num_experts\":4,\"hidden_size\":6}");
}

static void config_is_no_json(void)
{
    cm_write_text("model/config.json", "{\"model_type\":");
}

static void no_config(void)
{
    ck_assert_int_eq(unlink("model/config.json"), 0);
}

static void one_tensor_less(void)
{
    cm_tiny_model(&cm_tiny_families[QWEN3],
                  &(cm_tiny_change){.skip = "model.layers.1.mlp.experts.2.up_proj.weight"});
}

static void adapter_of_another_model(void)
{
    cm_writer writer = {0};
    cm_tiny_add_pair(&writer, "transformer.h.1.mlp.c_fc", 4, H, I, CM_F32, cm_tiny_pattern, 1);
    cm_tiny_save_adapter(&writer, "");
}

static void half_a_pair(void)
{
    cm_writer writer = {0};
    cm_tiny_add_pair(&writer, "model.layers.1.mlp.experts.0.up_proj", 4, H, I, CM_F32, cm_tiny_pattern, 1);
    cm_writer_add(&writer, "base_model.model.model.layers.1.mlp.experts.0.gate_proj.lora_A.weight", CM_F32, 2,
                  (int64_t[]){4, H}, cm_tiny_pattern, 2);
    cm_tiny_save_adapter(&writer, "");
}

static void missing_shard(void)
{
    ck_assert_int_eq(rename(WEIGHTS, "model/model-00001-of-00002.safetensors"), 0);
    cm_write_text("model/model.safetensors.index.json",
                  "{\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\","
                  "\"b\":\"model-00002-of-00002.safetensors\"}}");
}

static const struct bad {
    void (*spoil)(void); // NULL: the files are good
    const char *line;
    const char *file, *tensor, *remedy; // parts of the message
} bad[] = {
    {truncated, RUN, WEIGHTS, NULL, "truncated; download it again"},
    {truncated, INSPECT WEIGHTS, WEIGHTS, NULL, "truncated; download it again"},
    {cut_in_the_header, RUN, WEIGHTS, NULL, "download it again"},
    {hole, RUN, WEIGHTS, "\"second\" begins at 20, expected 16", "hole"},
    {hole, INSPECT "model", WEIGHTS, "\"second\"", "hole"},
    {overlap, RUN, WEIGHTS, "\"second\" begins at 12, expected 16", "overlap"},
    {overlap, INSPECT "model", WEIGHTS, "\"second\"", "overlap"},
    {torch_zip, RUN, WEIGHTS, NULL, "convert it with safetensors.torch.save_file"},
    {torch_zip, INSPECT WEIGHTS, WEIGHTS, NULL, "convert it with safetensors.torch.save_file"},
    {torch_adapter, ADAPTED, "adapter", NULL, "convert it"},
    {config_without_keys, RUN, "model/config.json", "\"num_experts_per_tok\" is missing",
     "give the model's own config.json"},
    {config_is_no_json, RUN, "model/config.json", "line 1", "correct it or download it again"},
    {no_config, RUN, "model/config.json", "cannot be opened", "give a model directory"},
    {one_tensor_less, RUN, "model", "model.layers.1.mlp.experts.2.up_proj.weight", NULL},
    {adapter_of_another_model, ADAPTED, "adapter", "base_model.model.transformer.h.1.mlp.c_fc",
     "adapter matches no tensor of the model"},
    {half_a_pair, ADAPTED, "adapter_model.safetensors", "model.layers.1.mlp.experts.0.gate_proj",
     "lora_A without lora_B"},
    {half_a_pair, INSPECT "adapter", "adapter_model.safetensors", "model.layers.1.mlp.experts.0.gate_proj",
     "lora_A without lora_B"},
    {missing_shard, RUN, "model/model-00002-of-00002.safetensors", "cannot be opened",
     "give a file that exists"},
    {NULL, "checkmoe run --model nowhere --records r.jsonl", "nowhere", NULL,
     "give the one with config.json"},
    {NULL, RUN " --adapter nowhere", "nowhere", NULL, "give"},
    {NULL, RUN " --recorded nowhere", "nowhere", NULL, "give a file that exists"},
    {NULL, "checkmoe run --model model --layer 99 --records r.jsonl", "model", "layer 99",
     "the model has layers 0-2"},
    {NULL, INSPECT "nowhere", "nowhere", "no such file", "give a .safetensors file"},
    {NULL, "checkmoe report nowhere", "nowhere", "cannot be opened", "give the file that --records wrote"},
    {NULL, "checkmoe repro moe_forward/naive/t4-nonsense --records r.jsonl", "nonsense", NULL, NULL},
    {NULL, "checkmoe repro moe_forward/nobody/t4-k2-e4-h48-i40-bf16-random-s1 --records r.jsonl",
     "\"moe_forward/nobody\"", NULL, "\"checkmoe list --kernels\" shows them"},
};

// Entries of this directory, but for those that begin with a dot.
static int count_entries(void)
{
    DIR *directory = opendir(".");
    int count = 0;
    ck_assert_ptr_nonnull(directory);
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

START_TEST(one_line_and_nothing_left)
{
    const struct bad *row = &bad[_i];
    good_files();
    if (row->spoil)
        row->spoil();
    cm_command run = cm_unit_command("%s", row->line);
    const char *end = strchr(run.err, '\n');
    ck_assert_msg(run.code == 4, "%s: exit status %d\n%s%s", row->line, run.code, run.out, run.err);
    ck_assert_msg(!strncmp(run.err, "checkmoe", 8) && end && !end[1], "%s: not one line\n%s", row->line,
                  run.err);
    ck_assert_msg(!run.out[0], "%s: on stdout: %s", row->line, run.out);
    const char *const parts[] = {row->file, row->tensor, row->remedy};
    for (size_t n = 0; n < sizeof parts / sizeof *parts; n++)
        ck_assert_msg(!parts[n] || strstr(run.err, parts[n]), "%s: no \"%s\" in %s", row->line, parts[n],
                      run.err);
    ck_assert_msg(count_entries() == 2, "%s: left something behind", row->line); // model and adapter
    cm_unit_forget(&run);
}
END_TEST

START_TEST(lists_what_is_there)
{
    good_files();
    cm_unit_expect_command(0, "model qwen3_moe: H 6, I 5, E 4, k 2; MoE layers 0-2 of 3\n", NULL,
                           INSPECT "model");
    cm_unit_expect_command(0, "39 tensors, ", NULL, INSPECT WEIGHTS);
    cm_command list = cm_unit_command(INSPECT "adapter");
    ck_assert_int_eq(list.code, 0);
    ck_assert_msg(strstr(list.out, "PEFT adapter: r 4, alpha 8, 6 modules\n") != NULL, "%s", list.out);
    ck_assert_msg(strstr(list.out, "model.layers.1.mlp.experts.0.gate_proj     2") != NULL, "%s", list.out);
    ck_assert_msg(strstr(list.out, "12 tensors, ") != NULL, "%s", list.out);
    cm_unit_forget(&list);
    cm_unit_expect_command(4, NULL, "name a .safetensors file", INSPECT);
    cm_unit_expect_command(4, NULL, "one path at a time", INSPECT "model adapter");
    cm_write_text("model/config.json", "{\"model_type\":\"llama\",\"hidden_size\":6}");
    cm_unit_expect_command(0, "no layer of it can be run: ", NULL, INSPECT "model");
}
END_TEST

// What a terminal would take for a command stays in the file; cm_unit_finish sees to it.
START_TEST(names_do_not_steer_the_terminal)
{
    static const char header[] = "{" ENTRY("red \\u001b[31m \\n", 0, 16) "}";
    cm_write_header("x.safetensors", header, sizeof header - 1, 16);
    cm_unit_expect_command(0, "red ?[31m ?", NULL, INSPECT "x.safetensors");
}
END_TEST

// A sparse file of 1 GiB.
static void write_gibibyte(const char *path, int count)
{
    const long long each = (1ll << 30) / count / 4096 * 4096;
    char *header = NULL;
    size_t size = 0;
    unsigned char head[8];
    FILE *text = open_memstream(&header, &size), *file = fopen(path, "wb");
    ck_assert(text && file);
    for (int n = 0; n < count; n++)
        fprintf(
            text,
            "%s\"model.layers.%d.mlp.experts.%d.%s_proj.weight\":{\"dtype\":\"BF16\",\"shape\":[%lld,2048],"
            "\"data_offsets\":[%lld,%lld]}",
            n ? "," : "{", n / 192, n / 3 % 64, (const char *[]){"gate", "up", "down"}[n % 3], each / 4096,
            n * each, (n + 1) * each);
    fprintf(text, "}");
    ck_assert_int_eq(fclose(text), 0);
    for (int n = 0; n < 8; n++)
        head[n] = (unsigned char)((uint64_t)size >> (8 * n));
    ck_assert(fwrite(head, 1, 8, file) == 8 && fwrite(header, 1, size, file) == size && fclose(file) == 0);
    ck_assert_int_eq(truncate(path, (off_t)(8 + (long long)size + count * each)), 0);
    free(header);
}

static double seconds_since(struct timespec begin)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - begin.tv_sec) + (double)(now.tv_nsec - begin.tv_nsec) * 1e-9;
}

// Limits on time are for a machine that does other things; the figure itself is printed.
START_TEST(gibibyte_is_listed_at_once)
{
    static const int counts[] = {500, 5000};
    struct timespec begin;
    struct rusage use;
    double best = 1e9;
    write_gibibyte("g.safetensors", counts[_i]);
    for (int n = 0; n < 5; n++) {
        clock_gettime(CLOCK_MONOTONIC, &begin);
        cm_command list = cm_unit_command(INSPECT "g.safetensors");
        double seconds = seconds_since(begin);
        best = seconds < best ? seconds : best;
        ck_assert_msg(list.code == 0, "%s", list.err);
        ck_assert_ptr_nonnull(strstr(list.out, "model.layers.0.mlp.experts.63.down_proj.weight"));
        cm_unit_forget(&list);
    }
    ck_assert_int_eq(getrusage(RUSAGE_CHILDREN, &use), 0); // largest of the processes
    if (getenv("CM_VERBOSE"))
        printf("1 GiB of %d tensors: listed in %.1f ms, %ld KiB resident\n", counts[_i], best * 1e3,
               use.ru_maxrss);
    ck_assert_msg(best < 0.5, "%g s", best);
#ifndef __SANITIZE_ADDRESS__
    ck_assert_msg(use.ru_maxrss < 50 << 10, "%ld KiB", use.ru_maxrss);
#endif
}
END_TEST

Suite *cm_unit_bad_input(void)
{
    Suite *suite = suite_create("bad_input");
    TCase *tcase = tcase_create("files");
    cm_unit_find_binary();
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, cm_unit_enter_directory, cm_unit_leave_directory);
    tcase_add_loop_test(tcase, one_line_and_nothing_left, 0, sizeof bad / sizeof *bad);
    tcase_add_test(tcase, lists_what_is_there);
    tcase_add_test(tcase, names_do_not_steer_the_terminal);
    tcase_add_loop_test(tcase, gibibyte_is_listed_at_once, 0, 2);
    suite_add_tcase(suite, tcase);
    return suite;
}
