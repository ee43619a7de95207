// SPDX-License-Identifier: Apache-2.0
// Records to lines of JSON. JSON knows no NaN and readers lose integers above 2^53, so NaN, infinities and
// seeds travel as strings; text that is not UTF-8 is repaired here, so that every line can be read again.
#include "harness/record.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int cm_utf8_length(const char *text)
{
    const unsigned char *c = (const unsigned char *)text;
    // Smallest and largest second byte: no overlong forms, no surrogates, nothing above U+10FFFF.
    unsigned char least = c[0] == 0xe0 ? 0xa0 : c[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char most = c[0] == 0xed ? 0x9f : c[0] == 0xf4 ? 0x8f : 0xbf;
    int length = c[0] < 0x80 ? 1 : c[0] < 0xc2 ? 0 : c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : c[0] < 0xf5 ? 4 : 0;
    if (c[0] == 0 || (length > 1 && (c[1] < least || c[1] > most)))
        return 0;
    for (int n = 2; n < length; n++)
        if (c[n] < 0x80 || c[n] > 0xbf)
            return 0;
    return length;
}

static json_t *text_value(const char *text)
{
    static const char replacement[] = "\xef\xbf\xbd"; // U+FFFD
    char *clean = cm_new(strlen(text) + 1, 3);
    size_t size = 0;
    while (*text) {
        int length = cm_utf8_length(text);
        memcpy(clean + size, length ? text : replacement, length ? (size_t)length : 3);
        size += length ? (size_t)length : 3;
        text += length ? length : 1;
    }
    json_t *value = json_stringn(clean, size);
    free(clean);
    return value;
}

static json_t *real_value(double value)
{
    if (isnan(value))
        return json_string("NaN");
    if (isinf(value))
        return json_string(value > 0 ? "Inf" : "-Inf");
    return json_real(value);
}

static json_t *hex_value(double value)
{
    char text[40];
    if (!isfinite(value))
        return real_value(value);
    snprintf(text, sizeof text, "%a", value);
    return json_string(text);
}

static void set(json_t *object, const char *key, json_t *value)
{
    if (!value || json_object_set_new(object, key, value))
        cm_broken("no memory or no valid value for the key \"%s\" of a record", key);
}

// Texts that a reader may rely on are "" when they are unknown; the others are left out.
static void set_always(json_t *object, const char *key, const char *text)
{
    set(object, key, text_value(text ? text : ""));
}

static void set_text(json_t *object, const char *key, const char *text)
{
    if (text && text[0])
        set(object, key, text_value(text));
}

static json_t *first_bad_value(const cm_first_bad *bad)
{
    json_t *object = json_object(), *index = json_object();
    set(object, "arg", text_value(bad->argument));
    for (int d = 0; d < bad->ndim && d < CM_MAX_RANK; d++) {
        char key[16] = {bad->letters[d] ? bad->letters[d] : '#'};
        if (json_object_get(index, key)) // a letter that repeats: its place makes the key unique
            snprintf(key + 1, sizeof key - 1, "%d", d);
        set(index, key, json_integer(bad->index[d]));
    }
    set(object, "index", index);
    set(object, "got", real_value(bad->got));
    set(object, "want", real_value(bad->want));
    set(object, "bound", real_value(bad->bound));
    set(object, "got_hex", hex_value(bad->got));
    set(object, "want_hex", hex_value(bad->want));
    return object;
}

static json_t *gains_value(const cm_outcome *outcome)
{
    json_t *rows = json_array();
    for (int n = 0; n < outcome->gain_count && n < CM_MAX_GAIN_ROWS; n++) {
        const cm_gain *gain = &outcome->gains[n];
        json_t *row = json_object();
        set(row, "term", text_value(gain->term));
        set(row, "part", text_value(gain->part));
        set(row, "gain", real_value(gain->gain));
        set(row, "error", real_value(gain->error));
        set(row, "off", json_boolean(gain->off));
        json_array_append_new(rows, row);
    }
    return rows;
}

static json_t *pair_value(int64_t down, int64_t across)
{
    return json_pack("[I,I]", (json_int_t)down, (json_int_t)across);
}

// null stands for infinite.
static json_t *tiles_value(const cm_tiles *tiles)
{
    char letters[3] = {tiles->letters[0] ? tiles->letters[0] : '#',
                       tiles->letters[1] ? tiles->letters[1] : '#'};
    json_t *object = json_object(), *rows = json_array();
    for (int row = 0; row < tiles->counts[0] && row < CM_MAX_TILES; row++) {
        json_t *cells = json_array();
        for (int n = 0; n < tiles->counts[1] && n < CM_MAX_TILES; n++) {
            double worst = (double)tiles->worst[row * tiles->counts[1] + n];
            bool whole = worst == floor(worst) && worst < 1e15;
            json_array_append_new(cells, !isfinite(worst) ? json_null()
                                         : whole          ? json_integer((json_int_t)worst)
                                                          : json_real(worst));
        }
        json_array_append_new(rows, cells);
    }
    set(object, "letters", text_value(letters));
    set(object, "extents", pair_value(tiles->extents[0], tiles->extents[1]));
    set(object, "steps", pair_value(tiles->steps[0], tiles->steps[1]));
    set(object, "counts", pair_value(tiles->counts[0], tiles->counts[1]));
    set(object, "worst", rows);
    return object;
}

// {name: whether it was taken} in the kernel's order.
static json_t *paths_value(const char *names, uint32_t taken)
{
    json_t *object = json_object();
    char *words = cm_text("%s", names), *rest = NULL;
    for (char *name = strtok_r(words, " ", &rest); name; name = strtok_r(NULL, " ", &rest), taken >>= 1)
        set(object, name, json_boolean(taken & 1));
    free(words);
    return object;
}

static void set_outcome(json_t *object, const cm_outcome *outcome)
{
    set(object, "compared", json_integer(outcome->compared));
    set_text(object, "reason", outcome->reason);
    if (outcome->metric_count > 0) {
        json_t *metrics = json_object();
        for (int n = 0; n < outcome->metric_count && n < CM_MAX_METRICS; n++) {
            json_t *name = text_value(outcome->metrics[n].name);
            set(metrics, json_string_value(name), real_value(outcome->metrics[n].value));
            json_decref(name);
        }
        set(object, "metric", metrics);
    }
    if (outcome->first_bad.argument[0])
        set(object, "first_bad", first_bad_value(&outcome->first_bad));
    if (outcome->bad_count)
        set(object, "bad_count", json_integer(outcome->bad_count));
    set_text(object, "bad_pattern", outcome->bad_pattern);
    if (outcome->gains && outcome->gain_count > 0)
        set(object, "gains", gains_value(outcome));
    if (outcome->tiles && outcome->tiles->extents[0] > 0)
        set(object, "tiles", tiles_value(outcome->tiles));
}

// One line with its newline; takes the object.
static char *line_of(json_t *object)
{
    char *text = json_dumps(object, JSON_COMPACT);
    if (!text)
        cm_broken("a record could not be written as JSON");
    char *line = cm_text("%s\n", text);
    free(text);
    json_decref(object);
    return line;
}

char *cm_record_line(const cm_record *record)
{
    json_t *object = json_object();
    char seed[32];
    snprintf(seed, sizeof seed, "0x%llx", (unsigned long long)record->seed);
    set(object, "schema", json_string(CM_SCHEMA_RECORD));
    set_always(object, "run", record->run);
    set_always(object, "suite", record->suite);
    set_always(object, "check", record->check);
    set_always(object, "op", record->op);
    set_always(object, "kernel", record->kernel);
    set_always(object, "target", record->target);
    set_always(object, "mode", record->mode);
    set_always(object, "case", record->case_name);
    set(object, "seed", json_string(seed));
    set(object, "verdict", json_string(cm_verdict_name(record->outcome.verdict)));
    set(object, "ms", real_value(record->ms));
    set_outcome(object, &record->outcome);
    set_text(object, "fault", record->fault);
    if (record->fault && record->fault[0]) {
        json_t *expected = json_object();
        set_always(expected, "check", record->expected_check);
        set_always(expected, "finding", record->expected_finding);
        set(object, "expected", expected);
    }
    set_text(object, "known", record->known);
    if (record->known_differs)
        set(object, "known_differs", json_true());
    if (record->path_names && record->path_names[0])
        set(object, "paths", paths_value(record->path_names, record->outcome.paths));
    set_text(object, "repro", record->repro);
    if (record->source_file && record->source_file[0]) {
        json_t *source = json_object();
        set(source, "file", text_value(record->source_file));
        set(source, "line", json_integer(record->source_line));
        set(object, "source", source);
    }
    return line_of(object);
}

void cm_record_close(cm_record *record)
{
    char *const texts[] = {record->run,
                           record->suite,
                           record->check,
                           record->op,
                           record->kernel,
                           record->target,
                           record->mode,
                           record->case_name,
                           record->fault,
                           record->expected_check,
                           record->expected_finding,
                           record->known,
                           record->path_names,
                           record->repro,
                           record->source_file};
    for (size_t n = 0; n < sizeof texts / sizeof *texts; n++)
        free(texts[n]);
    free(record->outcome.gains);
    free(record->outcome.tiles);
    *record = (cm_record){0};
}

// One write, so that lines of several processes don't mix.
static cm_status put_bytes(const cm_record_writer *writer, const char *line, size_t length, cm_error *error)
{
    ssize_t written;
    do
        written = write(writer->descriptor, line, length);
    while (written < 0 && errno == EINTR);
    if (written == (ssize_t)length)
        return CM_OK;
    return cm_fail(error, CM_BAD_FILE, "%s: cannot be written (%s); the records so far are in it",
                   writer->temporary, written < 0 ? strerror(errno) : "the disk is full?");
}

static cm_status put_line(const cm_record_writer *writer, const char *line, cm_error *error)
{
    return put_bytes(writer, line, strlen(line), error);
}

static cm_status put_environment(cm_record_writer *writer, const char *environment, cm_error *error)
{
    json_error_t why;
    json_t *object = json_loads(environment, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(object)) {
        json_decref(object);
        return cm_fail(error, CM_BAD_VALUE, "the environment is not a JSON object (%s)", why.text);
    }
    const char *run = json_string_value(json_object_get(object, "run"));
    writer->run = cm_text("%s", run ? run : "");
    char *line = line_of(object);
    cm_status status = put_line(writer, line, error);
    free(line);
    return status;
}

cm_status cm_record_writer_open(const char *path, const char *environment, cm_record_writer *writer,
                                cm_error *error)
{
    cm_status status = CM_OK;
    struct stat file;
    *writer = (cm_record_writer){0};

    if (lstat(path, &file) == 0 && !S_ISREG(file.st_mode)) { // a rename would replace a device, pipe or link
        status = cm_fail(error, CM_BAD_FILE,
                         "%s: is not a regular file; give --records a path that can be replaced", path);
        goto done;
    }
    writer->path = cm_text("%s", path);
    writer->temporary = cm_text("%s.part-%d", path, (int)getpid());
    int opened = open(writer->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
    if (opened == 0) { // stdin is closed; 0 means not open
        opened = fcntl(0, F_DUPFD_CLOEXEC, 3);
        close(0);
    }
    if (opened < 0) {
        status = cm_fail(error, CM_BAD_FILE,
                         "%s: cannot be written (%s); give --records a path in a folder that exists", path,
                         strerror(errno));
        goto done;
    }
    writer->descriptor = opened;
    status = put_environment(writer, environment, error);

done:
    if (status != CM_OK) {
        cm_record_writer_discard(writer);
    }
    return status;
}

void cm_record_writer_discard(cm_record_writer *writer)
{
    cm_error ignored = {{0}};
    if (writer->descriptor) {
        unlink(writer->temporary);
        free(writer->temporary);
        writer->temporary = NULL; // nothing to rename
    }
    cm_record_writer_close(writer, true, &ignored);
}

cm_status cm_record_write(cm_record_writer *writer, const cm_record *record, cm_error *error)
{
    if (!writer->descriptor)
        return cm_fail(error, CM_BAD_STATE, "a record is written to a file that is not open");
    char *line = cm_record_line(record);
    cm_status status = put_line(writer, line, error);
    if (status == CM_OK)
        writer->counts[record->outcome.verdict]++;
    free(line);
    return status;
}

cm_status cm_record_write_lines(cm_record_writer *writer, const char *lines, size_t bytes, cm_error *error)
{
    return put_bytes(writer, lines, bytes, error);
}

static cm_status put_end(const cm_record_writer *writer, cm_error *error)
{
    json_t *object = json_object(), *counts = json_object();
    for (int n = 0; n < CM_VERDICT_COUNT; n++)
        set(counts, cm_verdict_name((cm_verdict)n), json_integer((json_int_t)writer->counts[n]));
    set(object, "schema", json_string(CM_SCHEMA_END));
    set_always(object, "run", writer->run);
    set(object, "counts", counts);
    char *line = line_of(object);
    cm_status status = put_line(writer, line, error);
    free(line);
    return status;
}

cm_status cm_record_writer_close(cm_record_writer *writer, bool interrupted, cm_error *error)
{
    cm_status status = CM_OK;
    if (writer->descriptor) {
        if (!interrupted)
            status = put_end(writer, error);
        bool failed = close(writer->descriptor) != 0; // even without its end, the file is worth having
        if (writer->temporary && (rename(writer->temporary, writer->path) != 0 || failed))
            status = cm_fail(error, CM_BAD_FILE, "%s: cannot be written (%s)", writer->path, strerror(errno));
    }
    free(writer->path);
    free(writer->temporary);
    free(writer->run);
    *writer = (cm_record_writer){0};
    return status;
}
