// SPDX-License-Identifier: Apache-2.0
// Lines of JSON to records. What a reader needs (check, kernel, case, verdict) must be there and be of its
// type; everything else may be missing, and keys of a later version are passed over.
#include "harness/record.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    const char *path;
    size_t line;
    cm_records *records;
    size_t space;
    json_int_t promised; // records that the end line counts
    cm_error *error;
};

static cm_status malformed(const struct reader *reader, const char *what, const char *key)
{
    return cm_fail(reader->error, CM_BAD_FILE, "%s:%zu: %s%s%s; is it a file of records, unedited?",
                   reader->path, reader->line, what, key ? " " : "", key ? key : "");
}

static char *text_at(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? cm_text("%s", text) : NULL;
}

static char *text_always(const json_t *object, const char *key)
{
    char *text = text_at(object, key);
    return text ? text : cm_text("%s", "");
}

static double number_of(const json_t *value)
{
    const char *text = json_string_value(value);
    if (!text)
        return json_number_value(value);
    if (!strcmp(text, "Inf"))
        return INFINITY;
    return !strcmp(text, "-Inf") ? -INFINITY : NAN;
}

static double number_at(const json_t *object, const char *key)
{
    return number_of(json_object_get(object, key));
}

static int64_t integer_at(const json_t *object, const char *key)
{
    return (int64_t)json_integer_value(json_object_get(object, key));
}

static void copy_text(char *to, size_t size, const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    snprintf(to, size, "%s", text ? text : "");
}

static void read_first_bad(const json_t *object, cm_first_bad *bad)
{
    const char *key;
    json_t *value;
    copy_text(bad->argument, sizeof bad->argument, object, "arg");
    json_object_foreach(json_object_get(object, "index"), key, value)
    {
        if (bad->ndim == CM_MAX_RANK)
            break;
        bad->letters[bad->ndim] = key[0];
        bad->index[bad->ndim++] = (int64_t)json_integer_value(value);
    }
    bad->got = number_at(object, "got");
    bad->want = number_at(object, "want");
    bad->bound = number_at(object, "bound");
}

// A number as the writer has them: NaN and infinities are words.
static bool is_number(const json_t *value)
{
    const char *text = json_string_value(value);
    return json_is_number(value) ||
           (text && (!strcmp(text, "NaN") || !strcmp(text, "Inf") || !strcmp(text, "-Inf")));
}

// A text of at most size - 1 bytes.
static bool take_text(const json_t *value, char *to, size_t size)
{
    const char *text = json_string_value(value);
    if (!text || strlen(text) >= size)
        return false;
    snprintf(to, size, "%s", text);
    return true;
}

static cm_status read_gains(const struct reader *reader, const json_t *rows, cm_outcome *outcome)
{
    if (!rows)
        return CM_OK;
    if (!json_is_array(rows) || json_array_size(rows) > CM_MAX_GAIN_ROWS)
        return malformed(reader, "\"gains\" is no list, or one with too many rows", NULL);
    if (json_array_size(rows) == 0)
        return CM_OK;
    outcome->gains = cm_new(json_array_size(rows), sizeof *outcome->gains);
    for (size_t n = 0; n < json_array_size(rows); n++) {
        const json_t *row = json_array_get(rows, n), *off = json_object_get(row, "off");
        const json_t *value = json_object_get(row, "gain"), *scatter = json_object_get(row, "error");
        cm_gain *gain = &outcome->gains[outcome->gain_count++];
        if (!take_text(json_object_get(row, "term"), gain->term, sizeof gain->term) ||
            !take_text(json_object_get(row, "part"), gain->part, sizeof gain->part) || !is_number(value) ||
            !is_number(scatter) || !json_is_boolean(off))
            return malformed(reader, "a row of \"gains\" lacks its term, part, gain, error or off", NULL);
        gain->gain = number_of(value);
        gain->error = number_of(scatter);
        gain->off = json_is_true(off);
    }
    return CM_OK;
}

// Two whole numbers from 1 to `most`.
static bool take_pair(const json_t *pair, int64_t most, int64_t *numbers)
{
    if (json_array_size(pair) != 2)
        return false;
    for (size_t n = 0; n < 2; n++) {
        const json_t *number = json_array_get(pair, n);
        numbers[n] = (int64_t)json_integer_value(number);
        if (!json_is_integer(number) || numbers[n] < 1 || numbers[n] > most)
            return false;
    }
    return true;
}

static cm_status read_worst(const struct reader *reader, const json_t *rows, cm_tiles *tiles)
{
    if (json_array_size(rows) != (size_t)tiles->counts[0])
        return malformed(reader, "\"tiles\" has not as many rows as it counts", NULL);
    for (int row = 0; row < tiles->counts[0]; row++) {
        const json_t *cells = json_array_get(rows, (size_t)row);
        if (json_array_size(cells) != (size_t)tiles->counts[1])
            return malformed(reader, "a row of \"tiles\" is not as long as it counts", NULL);
        for (int n = 0; n < tiles->counts[1]; n++) {
            const json_t *cell = json_array_get(cells, (size_t)n);
            double worst = json_is_null(cell) ? (double)INFINITY : json_number_value(cell);
            if (!(json_is_null(cell) || json_is_number(cell)) || worst < 0)
                return malformed(reader, "a tile is neither null nor a number from 0 up", NULL);
            tiles->worst[row * tiles->counts[1] + n] = (float)worst;
        }
    }
    return CM_OK;
}

static cm_status read_tiles(const struct reader *reader, const json_t *object, cm_outcome *outcome)
{
    char letters[3];
    int64_t counts[2];
    if (!object)
        return CM_OK;
    cm_tiles *tiles = outcome->tiles = cm_new(1, sizeof *tiles);
    if (!take_text(json_object_get(object, "letters"), letters, sizeof letters) || strlen(letters) != 2 ||
        !take_pair(json_object_get(object, "extents"), INT64_MAX, tiles->extents) ||
        !take_pair(json_object_get(object, "steps"), INT64_MAX, tiles->steps) ||
        !take_pair(json_object_get(object, "counts"), CM_MAX_TILES, counts))
        return malformed(reader, "\"tiles\" lacks its letters, extents, steps or counts", NULL);
    for (int d = 0; d < 2; d++) {
        tiles->letters[d] = letters[d];
        tiles->counts[d] = (int)counts[d];
        if ((tiles->extents[d] - 1) / tiles->steps[d] + 1 != counts[d])
            return malformed(reader, "the counts of \"tiles\" don't cover its extents", NULL);
    }
    return read_worst(reader, json_object_get(object, "worst"), tiles);
}

static cm_status read_outcome(const struct reader *reader, const json_t *object, cm_outcome *outcome)
{
    const char *key;
    json_t *value;
    outcome->compared = integer_at(object, "compared");
    copy_text(outcome->reason, sizeof outcome->reason, object, "reason");
    json_object_foreach(json_object_get(object, "metric"), key, value)
    {
        if (outcome->metric_count == CM_MAX_METRICS)
            break;
        cm_metric *metric = &outcome->metrics[outcome->metric_count++];
        snprintf(metric->name, sizeof metric->name, "%s", key);
        metric->value = number_of(value);
    }
    read_first_bad(json_object_get(object, "first_bad"), &outcome->first_bad);
    outcome->bad_count = integer_at(object, "bad_count");
    copy_text(outcome->bad_pattern, sizeof outcome->bad_pattern, object, "bad_pattern");
    cm_status status = read_gains(reader, json_object_get(object, "gains"), outcome);
    return status == CM_OK ? read_tiles(reader, json_object_get(object, "tiles"), outcome) : status;
}

static bool read_paths(const json_t *object, cm_record *record)
{
    const char *key;
    json_t *taken;
    int count = 0;
    if (!object)
        return true;
    if (!json_is_object(object) || json_object_size(object) > CM_MAX_PATHS)
        return false;
    json_object_foreach((json_t *)(uintptr_t)object, key, taken)
    {
        char *before = record->path_names;
        if (!json_is_boolean(taken) || !key[0] || strchr(key, ' '))
            return false;
        record->path_names = cm_text("%s%s%s", before ? before : "", before ? " " : "", key);
        record->outcome.paths |= (uint32_t)json_is_true(taken) << count++;
        free(before);
    }
    return true;
}

static cm_status read_record(struct reader *reader, const json_t *object)
{
    static const char *const needed[] = {"check", "kernel", "case", "verdict"};
    cm_records *records = reader->records;
    cm_verdict verdict;
    for (size_t n = 0; n < sizeof needed / sizeof *needed; n++)
        if (!json_is_string(json_object_get(object, needed[n])))
            return malformed(reader, "a record without the text", needed[n]);
    const char *word = json_string_value(json_object_get(object, "verdict"));
    if (!cm_verdict_parse(word, &verdict))
        return malformed(reader, "unknown verdict", word);
    if (records->count == reader->space) {
        reader->space = reader->space ? 2 * reader->space : 256;
        records->items = realloc(records->items, reader->space * sizeof *records->items);
        if (!records->items)
            cm_broken("out of memory for %zu records", reader->space);
    }
    const char *seed = json_string_value(json_object_get(object, "seed"));
    const json_t *expected = json_object_get(object, "expected"), *source = json_object_get(object, "source");
    cm_record *record = &records->items[records->count++];
    *record = (cm_record){
        .run = text_always(object, "run"),
        .suite = text_always(object, "suite"),
        .check = text_always(object, "check"),
        .op = text_always(object, "op"),
        .kernel = text_always(object, "kernel"),
        .target = text_always(object, "target"),
        .mode = text_always(object, "mode"),
        .case_name = text_always(object, "case"),
        .seed = seed ? strtoull(seed, NULL, 0) : 0,
        .ms = number_at(object, "ms"),
        .fault = text_at(object, "fault"),
        .expected_check = text_at(expected, "check"),
        .expected_finding = text_at(expected, "finding"),
        .known = text_at(object, "known"),
        .known_differs = json_is_true(json_object_get(object, "known_differs")),
        .repro = text_at(object, "repro"),
        .source_file = text_at(source, "file"),
        .source_line = (int)integer_at(source, "line"),
    };
    record->outcome.verdict = verdict;
    if (!read_paths(json_object_get(object, "paths"), record))
        return malformed(reader, "\"paths\" is no object of at most 16 names, each true or false", NULL);
    return read_outcome(reader, object, &record->outcome);
}

static cm_status read_line(struct reader *reader, const char *line, size_t length)
{
    json_error_t why;
    json_t *object = json_loadb(line, length, JSON_REJECT_DUPLICATES, &why);
    if (!object)
        return malformed(reader, why.text, NULL);
    cm_status status = CM_OK;
    const char *schema = json_string_value(json_object_get(object, "schema"));
    if (!schema) {
        status = malformed(reader, "a line without a schema", NULL);
    } else if (!strcmp(schema, CM_SCHEMA_RECORD)) {
        status = read_record(reader, object);
    } else if (!strcmp(schema, CM_SCHEMA_ENV)) {
        if (!reader->records->environment)
            reader->records->environment = cm_text("%.*s", (int)length, line);
    } else if (!strcmp(schema, CM_SCHEMA_END)) {
        const char *key;
        json_t *value;
        json_object_foreach(json_object_get(object, "counts"), key, value) reader->promised +=
            json_integer_value(value);
        reader->records->complete = true;
    }
    json_decref(object);
    return status;
}

cm_status cm_records_read(const char *path, cm_records *records, cm_error *error)
{
    struct reader reader = {.path = path, .records = records, .error = error};
    cm_status status = CM_OK;
    char *line = NULL;
    size_t space = 0;
    ssize_t length;
    *records = (cm_records){0};
    FILE *file = fopen(path, "r");
    if (!file) {
        status = cm_fail(error, CM_BAD_FILE,
                         "%s: cannot be opened (%s); give the file that --records wrote, e.g. records.jsonl",
                         path, strerror(errno));
        goto done;
    }
    errno = 0;
    while ((length = getline(&line, &space, file)) > 0) {
        reader.line++;
        if (line[length - 1] != '\n') { // a write that was cut off
            records->complete = false;
            break;
        }
        CM_TRY(read_line(&reader, line, (size_t)length - 1));
    }
    if (ferror(file)) {
        status = cm_fail(error, CM_BAD_FILE, "%s: cannot be read (%s)", path, strerror(errno));
        goto done;
    }
    if (reader.line == 0)
        status = cm_fail(error, CM_BAD_FILE, "%s: is empty; give the file that --records wrote", path);
    records->complete = records->complete && reader.promised == (json_int_t)records->count;

done:
    free(line);
    if (file)
        fclose(file);
    if (status != CM_OK)
        cm_records_close(records);
    return status;
}

void cm_records_close(cm_records *records)
{
    for (size_t n = 0; n < records->count; n++)
        cm_record_close(&records->items[n]);
    free(records->items);
    free(records->environment);
    *records = (cm_records){0};
}
