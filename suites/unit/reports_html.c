// SPDX-License-Identifier: Apache-2.0
// The page: what stands on it, that hostile records stay text, and that it comes without gnuplot, too.
#include "reports/plot.h"
#include "reports/reports.h"
#include "suites/unit/records.h"

#include "harness/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static cm_details *details; // of one record

// A failure with gains and tiles.
static cm_record detailed(const char *kernel)
{
    cm_record record = cm_unit_record("numerics", "t2-h8", CM_FAIL, "`y` is wrong");
    if (!details)
        details = cm_new(1, sizeof *details);
    record.kernel = (char *)(uintptr_t)kernel;
    record.outcome.bad_count = 3;
    record.outcome.first_bad = (cm_first_bad){.argument = "y",
                                              .ndim = 2,
                                              .letters = {'T', 'H'},
                                              .index = {3, 0},
                                              .got = 0.8828125,
                                              .want = (double)NAN,
                                              .bound = 0.0117};
    cm_outcome_use(&record.outcome, details);
    cm_outcome_gain(&record.outcome, &(cm_gain){"lora_down", "E=3", 0, 0.125, true});
    cm_outcome_gain(&record.outcome, &(cm_gain){"lora_up", "", 1, 0.25, false});
    cm_outcome_metric(&record.outcome, "rms_z", 12.5);
    cm_outcome_metric(&record.outcome, "rms_z_limit", 1.75);
    cm_outcome_metric(&record.outcome, "error_over_bound", (double)INFINITY);
    details->tiles = (cm_tiles){.letters = {'T', 'H'},
                                .extents = {6, 8},
                                .steps = {4, 4},
                                .counts = {2, 2},
                                .worst = {0, 1.0625F, (float)INFINITY, 200}};
    return record;
}

static void begin(void)
{
    details = NULL;
}

static void end(void)
{
    free(details);
}

static size_t occurrences(const char *text, const char *part)
{
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at += strlen(part))
        count++;
    return count;
}

// Well-formed; every link leads to one place of the page; nothing runs and nothing is loaded.
static char *page_of(const cm_record *items, size_t count, bool interrupted)
{
    char *text = cm_unit_render(&cm_report_html, items, count, interrupted);
    ck_assert_int_eq(system("xmllint --noout out.xml"), 0);
    ck_assert_uint_eq(occurrences(text, "http"), occurrences(text, "http-equiv"));
    static const char *const banned[] = {"<script", " src=", "url(", "@import", "<img", "<link", "<iframe"};
    for (size_t n = 0; n < sizeof banned / sizeof *banned; n++)
        ck_assert_msg(!strstr(text, banned[n]), "%s", banned[n]);
    for (const char *at = text; (at = strstr(at, "href=")) != NULL; at += 6) {
        const char *target = at + 6;
        if (!strncmp(target, "data:image/png;base64,", 22))
            continue;
        ck_assert_msg(target[0] == '#', "%.60s", at);
        char *place = cm_text("id=\"%.*s\"", (int)strcspn(target + 1, "\"'"), target + 1);
        ck_assert_msg(occurrences(text, place) == 1, "%s", place);
        free(place);
    }
    for (const char *at = text; (at = strstr(at, " id=\"")) != NULL; at++) {
        char *place = cm_text("%.*s\"", (int)(5 + strcspn(at + 5, "\"")), at);
        ck_assert_msg(occurrences(text, place) == 1, "%s is there twice", place);
        free(place);
    }
    return text;
}

START_TEST(whole_page)
{
    cm_record items[16];
    size_t count = cm_unit_mixture(items);
    items[count++] = detailed("sgmv_expand/wide");
    char *text = page_of(items, count, false);
    static const char *const parts[] = {
        "<html lang=\"en\">",
        "<title>FAILED - checkmoe 2026-11-21T10:00:00Z</title>",
        "<strong>FAILED</strong>: <span>3 FAIL, 0 ERROR, 1 CRASH, 0 TIMEOUT, 1 VACUOUS, 2 PASS, 1 SKIP, "
        "1 known, 1 unexpected; faults: 1 killed, 1 survived, 0 skipped; 1200 elements compared</span>",
        "Exit status 1: something failed",
        "dirty tree",
        // the matrix
        "scope=\"row\" role=\"rowheader\">sgmv_shrink/avx512 ",
        "scope=\"row\" role=\"rowheader\">sgmv_expand/wide ",
        "class=\"bad\" data-check=\"numerics\"><a href=\"#card-1\"><span>FAIL 2/3</span></a></td>",
        "data-check=\"bounds\"><a href=\"#card-2\"><span>CRASH 1/2</span></a> <span class=\"minor\">SKIP 1",
        "class=\"good\" data-check=\"mutation\"><a href=\"#card-4\"><span>PASS 1</span></a>",
        "class=\"none\" data-check=\"isolation\"><span>-</span>",
        // cards
        "<span class=\"badge bad\">UNEXPECTED PASS</span> <span>mutation</span>",
        "<code>y[T=3, H=0]</code>",
        "<th scope=\"row\">want</th><td><code>0x1.1p+0</code></td><td class=\"number\">1.0625</td>",
        "<th scope=\"row\">got</th><td><code>0x1.c4p-1</code></td><td class=\"number\">0.8828125</td>",
        "<th scope=\"row\">|got - want|</th><td><code>0x1.7p-3</code></td><td "
        "class=\"number\">0.1796875</td>",
        "<th scope=\"row\">want</th><td><code>NaN</code>",
        "<dd>12 of 100 elements; columns 8..15</dd>",
        "1 more case, e.g. t4-h8",
        "<pre><code>checkmoe repro sgmv_shrink/avx512/x</code></pre>",
        "optimized/avx512/sgmv_shrink.c:88",
        "<tr class=\"off\"><td>lora_down</td><td>E=3</td><td class=\"number\">0</td><td class=\"number\">"
        "\302\261 0.12</td><td><strong>off</strong></td></tr>",
        "<td>lora_up</td><td>all</td><td class=\"number\">1</td>",
        // the map
        "Heat map of the error by tile",
        "T 0..5, 4 a tile",
        "H 0..7, 4 a tile",
        "up to 0.1: 1 of 4",
        "up to 3: 1 of 4",
        "up to 10 000: 1 of 4",
        "where the value is certain: 1 of 4",
        // faults
        "<span class=\"badge bad\">SURVIVED</span> <span>gate_swapped</span>",
        "class=\"good\" data-check=\"effect\"><span>killed</span>",
        "class=\"bad\" data-check=\"effect\"><span>SURVIVED</span>",
        "class=\"also\" data-check=\"numerics\"><span>FAIL</span>",
        // the rest
        "Strips of the values by kernel",
        "limit 1.75",
        "max 12.5",
        "max inf",
        "<td class=\"number\">1</td><td>no AMX on this machine</td>",
        "<span class=\"badge known\">FAIL</span> issue 12",
        "<td class=\"number\">1.5</td><td>numerics</td>",
        "<th scope=\"row\">version</th><td>0.1.0</td>",
        "<th scope=\"row\">dirty</th><td>yes</td>",
        "checkmoe report --html index.html records.jsonl",
    };
    for (size_t n = 0; n < sizeof parts / sizeof *parts; n++)
        cm_unit_expect_part(text, parts[n]);
    ck_assert_uint_eq(occurrences(text, "<svg"), 3);
    free(text);
}
END_TEST

START_TEST(hostile_records)
{
    static const char evil[] = "</style></title>--><script>alert(1)</script>\"'&amp;\x1b]]>";
    cm_record items[3] = {detailed(evil), detailed("a`touch pwned`'; system('touch pwned');'"),
                          cm_unit_fault_record(evil, evil, CM_SKIP, evil)};
    items[0].check = items[0].case_name = items[0].mode = items[0].repro = (char *)(uintptr_t)evil;
    items[0].source_file = items[0].suite = (char *)(uintptr_t)evil;
    snprintf(items[0].outcome.reason, sizeof items[0].outcome.reason, "%s", evil);
    snprintf(items[0].outcome.bad_pattern, sizeof items[0].outcome.bad_pattern, "%s", evil);
    strcpy(items[0].outcome.first_bad.argument, "<b onload='</code>\"");
    strcpy(details->gains[0].term, "<script>\"'&");
    snprintf(items[0].outcome.metrics[0].name, sizeof items[0].outcome.metrics[0].name, "<\"'&%%n");
    details->tiles.letters[0] = '\'';
    details->tiles.letters[1] = '<';
    free(page_of(items, 3, false));
    ck_assert_int_eq(access("pwned", F_OK), -1);
    cm_unit_write_text("r.jsonl",
                       "{\"schema\":\"checkmoe.env/1\",\"start\":\"<script>\",\"<script>\":{\"<b>\":"
                       "[\"</td>\",{\"<i>\":1.5}]},\"argv\":[\"<b>\",\"--records\",\"it's\\n<i>\"]}\n");
    cm_records records = cm_unit_read_records();
    FILE *out = fopen("out.xml", "w");
    ck_assert_int_eq(cm_report_html.write(&records, out, NULL), CM_OK);
    ck_assert_int_eq(fclose(out), 0);
    cm_records_close(&records);
    char *text = cm_unit_read_text("out.xml");
    ck_assert_int_eq(system("xmllint --noout out.xml"), 0);
    ck_assert(!strstr(text, "<script") && !strstr(text, "<i>"));
    cm_unit_expect_part(text, "--html index.html 'it'\\''s\n&lt;i&gt;'");
    free(text);
}
END_TEST

START_TEST(empty_and_cut_off)
{
    cm_record pass = cm_unit_record("numerics", "x", CM_PASS, "");
    char *text = page_of(NULL, 0, false);
    cm_unit_expect_part(text, "<strong>NOTHING RAN</strong>: <span>0 FAIL");
    cm_unit_expect_part(text, "Exit status 5: nothing was selected");
    cm_unit_expect_part(text, "No kernel was checked.");
    ck_assert_ptr_null(strstr(text, "id=\"failures\""));
    free(text);
    text = page_of(&pass, 1, true);
    cm_unit_expect_part(text, "<strong>CUT OFF</strong>: <span>0 FAIL");
    cm_unit_expect_part(text, "Exit status 2: interrupted or cut off");
    cm_unit_expect_part(text, "the records end without their last line");
    ck_assert_ptr_null(strstr(text, "PASSED"));
    free(text);
    cm_record survivor = cm_unit_fault_record("f1", "effect", CM_PASS, "");
    text = page_of(&survivor, 1, false);
    cm_unit_expect_part(text, "these records are of faults");
    cm_unit_expect_part(text, "<strong>FAILED</strong>");
    free(text);
    cm_unit_write_text("r.jsonl", "{\"schema\":\"checkmoe.end/1\",\"counts\":{}}\n");
    cm_records records = cm_unit_read_records();
    FILE *out = fopen("out.xml", "w");
    ck_assert_int_eq(cm_report_html.write(&records, out, NULL), CM_OK);
    ck_assert_int_eq(fclose(out), 0);
    cm_records_close(&records);
    text = cm_unit_read_text("out.xml");
    cm_unit_expect_part(text, "The records do not begin with their environment");
    free(text);
}
END_TEST

START_TEST(limits)
{
    enum { KERNELS = 250 };
    cm_record *items = cm_new(KERNELS, sizeof *items);
    char names[KERNELS][16];
    for (int n = 0; n < KERNELS; n++) {
        snprintf(names[n], sizeof names[n], "op/k%03d", n);
        items[n] = detailed(names[n]);
        items[n].outcome.gain_count = 2;
    }
    char *text = page_of(items, KERNELS, false);
    ck_assert_uint_eq(occurrences(text, "<article "), 200);
    ck_assert_uint_eq(occurrences(text, "Heat map of the error by tile"), 24);
    cm_unit_expect_part(text, "No picture: only the first 24 cards have one.");
    cm_unit_expect_part(text, "50 more kinds are left out here");
    cm_unit_expect_part(text, "190 cases of more kernels are left out");
    cm_unit_expect_part(text, "role=\"rowheader\">op/k249 ");
    free(text);
    free(items);
}
END_TEST

// gnuplot as a script of this directory, the only one in PATH but for the shell's own.
static void fake_gnuplot(const char *script)
{
    cm_unit_write_text("gnuplot", script);
    ck_assert_int_eq(chmod("gnuplot", 0755), 0);
    setenv("PATH", ".:/usr/bin:/bin", 1);
}

START_TEST(without_gnuplot)
{
    cm_record record = detailed("op/k");
    char *path = cm_text("%s", getenv("PATH"));
    setenv("PATH", "/nonexistent", 1);
    char *text = cm_unit_render(&cm_report_html, &record, 1, false);
    setenv("PATH", path, 1);
    ck_assert_int_eq(system("xmllint --noout out.xml"), 0);
    ck_assert_uint_eq(occurrences(text, "<svg"), 0);
    ck_assert_uint_eq(occurrences(text, "No picture: gnuplot cannot be started (No such file or directory); "
                                        "Debian has it in gnuplot-nox."),
                      3);
    cm_unit_expect_part(text, "up to 3: 1 of 4"); // the legend still counts
    free(text);
    fake_gnuplot("#!/bin/sh\necho 'line 3: <b>no</b>' >&2\nexit 1\n");
    text = page_of(&record, 1, false);
    ck_assert_uint_eq(occurrences(text, "No picture: gnuplot failed: line 3: &lt;b&gt;no&lt;/b&gt;."), 3);
    free(text);
    fake_gnuplot("#!/bin/sh\necho '<html/>'\n");
    text = page_of(&record, 1, false);
    cm_unit_expect_part(text, "No picture: gnuplot did not draw an SVG that is known here.");
    free(text);
    fake_gnuplot("#!/bin/sh\nsleep 100 & wait\n");
    cm_plotter plotter = {.seconds = 0.3};
    ck_assert_ptr_null(cm_plot(&plotter, 100, 100, "plot 0"));
    ck_assert(plotter.gone && strstr(plotter.why_not, "more than 0.3 s"));
    ck_assert_ptr_null(cm_plot(&plotter, 100, 100, "plot 0"));
    fake_gnuplot("#!/bin/sh\nexec head -c 3000000 /dev/zero\n");
    plotter = (cm_plotter){0};
    ck_assert_ptr_null(cm_plot(&plotter, 100, 100, "plot 0"));
    setenv("PATH", path, 1);
    free(path);
}
END_TEST

// Time over tokens has a picture where there are two of them; one alone has only its row.
START_TEST(speed)
{
    static const char *const cases[] = {"t1-h8-s1", "t4-h8-s1", "t4-h16-s1"};
    cm_record items[6];
    for (int n = 0; n < 6; n++) {
        const struct {
            const char *name;
            double value;
        } metrics[] = {{"ns", 1e6 * (n + 1)},    {"threads", 2},
                       {"ratio", 0.5},           {"low", 0.25},
                       {"high", 0.75},           {"share_of_bandwidth", n % 2 ? 0.5 : 0.25},
                       {"share_of_compute", NAN}};
        items[n] = cm_unit_record("perf", cases[n / 2], CM_PASS, "FASTER against one");
        items[n].kernel = (char *)(n % 2 ? "sgmv_shrink/two" : "sgmv_shrink/one");
        for (size_t m = 0; m < sizeof metrics / sizeof *metrics; m++) {
            cm_metric *metric = &items[n].outcome.metrics[items[n].outcome.metric_count++];
            snprintf(metric->name, sizeof metric->name, "%s", metrics[m].name);
            metric->value = metrics[m].value;
        }
    }
    char *text = page_of(items, 6, false);
    ck_assert_uint_eq(occurrences(text, "<svg"), 1);
    cm_unit_expect_part(text, "roofline");
    cm_unit_expect_part(text, "h8-s1, 2 threads</h3>");
    cm_unit_expect_part(text, "<td class=\"number\">4</td><td>sgmv_shrink/two</td><td class=\"number\">4</td>"
                              "<td class=\"number\">0.500 [0.250, 0.750]</td><td class=\"number\">50 %</td>");
    cm_unit_expect_part(text, "<code>h16-s1</code>");
    free(text);
    text = page_of(items, 2, false);
    ck_assert_uint_eq(occurrences(text, "<svg"), 0);
    cm_unit_expect_part(text, "id=\"speed\"");
    free(text);
    items[0].outcome.metrics[0].value = INFINITY; // no time
    items[1].outcome.metrics[5].value = 0;        // no roofline there
    items[2].outcome.metrics[5].value = 1e-300;
    free(page_of(items, 6, false));
}
END_TEST

START_TEST(pictures)
{
    cm_plotter plotter = {0};
    char *picture = cm_plot(&plotter, 200, 100,
                            "set xlabel 'x < y & z'\nset border 1 lc rgb 'black'\n"
                            "plot x with lines title 'a'\n");
    ck_assert_msg(picture != NULL, "%s", plotter.why_not);
    char *document = cm_text("<svg>%s</svg>", picture);
    cm_unit_write_text("out.xml", document);
    ck_assert_int_eq(system("xmllint --noout out.xml"), 0);
    cm_unit_expect_part(picture, "currentColor");
    cm_unit_expect_part(picture, "x &lt; y &amp; z");
    static const char *const gone[] = {"black'", "black\"", "rgb(  0,   0,   0)", "rgb(0,0,0)", " id=",
                                       "<defs",  "<title",  "font-family",        "></g>\n"};
    for (size_t n = 0; n < sizeof gone / sizeof *gone; n++)
        ck_assert_msg(!strstr(picture, gone[n]), "%s is in %s", gone[n], picture);
    free(document);
    free(picture);
    ck_assert_ptr_null(cm_plot(&plotter, 200, 100, "plot nonsense(\n"));
    ck_assert(!plotter.gone && !strncmp(plotter.why_not, "gnuplot failed: ", 16));
    picture = cm_plot(&plotter, 200, 100, "plot x\n"); // one failure does not end the others
    ck_assert(picture && plotter.why_not[0] == 0);
    free(picture);
    static const char *const labels[][2] = {{"a_b/c [d] 1.5", "'a_b/c [d] 1.5'"},
                                            {"it's `x` \"y\" $z \\", "'it?s ?x? ?y? ?z ?'"},
                                            {"\xc3\xa9.\n.\xff", "'?.?.?'"},
                                            {"123456789012345678901", "'1234567890123456789~'"},
                                            {"12345678901234567890", "'12345678901234567890'"},
                                            {"", "''"}};
    for (size_t n = 0; n < sizeof labels / sizeof *labels; n++) {
        char *label = cm_plot_label(labels[n][0], 20);
        ck_assert_str_eq(label, labels[n][1]);
        free(label);
    }
}
END_TEST

TCase *cm_unit_reports_html(void)
{
    TCase *tcase = tcase_create("html");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, begin, end);
    tcase_add_test(tcase, whole_page);
    tcase_add_test(tcase, speed);
    tcase_add_test(tcase, hostile_records);
    tcase_add_test(tcase, empty_and_cut_off);
    tcase_add_test(tcase, limits);
    tcase_add_test(tcase, without_gnuplot);
    tcase_add_test(tcase, pictures);
    return tcase;
}
