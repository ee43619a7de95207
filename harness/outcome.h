// SPDX-License-Identifier: Apache-2.0
// What one check found out about one kernel on one case. Plain memory: it lies in a mapping that the runner
// shares with the child, so that it survives whatever the kernel does to its process.
#ifndef CM_OUTCOME_H
#define CM_OUTCOME_H

#include "harness/checkmoe.h"

typedef enum cm_verdict {
    CM_PASS,
    CM_FAIL,
    CM_SKIP,
    CM_ERROR, // the kernel refused a case that it claims to support
    CM_CRASH, // the kernel ended its process
    CM_TIMEOUT,
    CM_VACUOUS, // the check had no power on this case
    CM_VERDICT_COUNT,
} cm_verdict;

enum { CM_MAX_METRICS = 24 };

typedef struct cm_metric {
    char name[24];
    double value;
} cm_metric;

typedef struct cm_first_bad {
    char argument[32]; // "": there is none
    int ndim;
    char letters[CM_MAX_RANK]; // dimension letter of each index, '#' where the dimension has no letter
    int64_t index[CM_MAX_RANK];
    double got, want, bound; // bound: largest |got - want| that would have passed
} cm_first_bad;

// How much of one adapter term is in an output: 1 is right, 0 dropped, 2 doubled.
typedef struct cm_gain {
    char term[24]; // of the op
    char part[24]; // "": the whole output; else a dimension letter and its range: "E=3", "L=1", "H=64..127"
    double gain, error; // error: standard error of the gain
    bool off;           // beyond its tolerance
} cm_gain;

enum { CM_MAX_GAIN_ROWS = 96, CM_MAX_TILES = 32 };

// Worst |got - want| / bound by tile of a bad output, seen as a matrix: last dimension across, the others
// down. Rounded up, to sixteenths below 16 and to whole numbers above.
typedef struct cm_tiles {
    char letters[2];                          // of the rows (the first dimension's) and of the columns
    int64_t extents[2];                       // elements down and across; 0: there is no map
    int64_t steps[2];                         // elements of a tile, a power of two
    int counts[2];                            // tiles, each at most CM_MAX_TILES
    float worst[CM_MAX_TILES * CM_MAX_TILES]; // [row * counts[1] + column]; infinite: not finite, or wrong
                                              // where the bound is 0
} cm_tiles;

// Room for what only a few outcomes have.
typedef struct cm_details {
    cm_gain gains[CM_MAX_GAIN_ROWS];
    cm_tiles tiles;
} cm_details;

typedef struct cm_outcome {
    cm_verdict verdict;
    int64_t compared; // elements
    char reason[512]; // one sentence; "" for a PASS, but for one of the check perf: how it compares
    cm_metric metrics[CM_MAX_METRICS];
    int metric_count;
    cm_first_bad first_bad;
    int64_t bad_count;     // elements
    char bad_pattern[192]; // shape of the bad set in words, "" if unknown
    uint32_t paths;        // bit n: the kernel said that it took its n-th declared path
    int gain_count;
    cm_gain *gains;  // room for CM_MAX_GAIN_ROWS; a record has gain_count of them. NULL: no room
    cm_tiles *tiles; // NULL: no room
} cm_outcome;

// Gives the outcome, which does not own it, room for gains and tiles.
void cm_outcome_use(cm_outcome *outcome, cm_details *details);

const char *cm_verdict_name(cm_verdict verdict);
bool cm_verdict_parse(const char *name, cm_verdict *verdict);
bool cm_verdict_is_bad(cm_verdict verdict); // FAIL, ERROR, CRASH, TIMEOUT, VACUOUS

#endif
