// SPDX-License-Identifier: Apache-2.0
// The contract: everything that harness, reference, kernels and plug-ins agree on, and no code.
// An op is a table (arguments, indices, rounding points, terms, symmetries, counts, reference); a kernel is
// one implementation of one op. The header compiles alone as C11, C++17 and CUDA C++.
#ifndef CHECKMOE_H
#define CHECKMOE_H

#include <dlpack/dlpack.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Grows by one whenever a struct or a meaning below changes; a plug-in for another version is refused.
#define CM_ABI_VERSION 1

// Dimension letters, used in shapes, case names, records and reports:
//   T tokens, k experts per token, E experts, H hidden, I expert width, D width of the shared expert,
//   L adapters, r largest rank of the call, K and N of a single product, S slices,
//   G elements per quantisation group along a summed dimension (0: the whole row).
#define CM_DIM_LETTERS "TkEHIDLrKNSG"
enum {
    CM_DIM_COUNT = 12,
    CM_MAX_RANK = 6,
    CM_MAX_ARGUMENTS = 48,
    CM_MAX_ATTRIBUTES = 12,
    CM_MAX_PATHS = 16,
};

typedef enum cm_status {
    CM_OK = 0,
    CM_BAD_SHAPE,   // an argument's shape contradicts the op's table or another argument
    CM_BAD_DTYPE,   // a dtype that the op's table does not allow here
    CM_BAD_DEVICE,  // an argument lies on the wrong side
    CM_BAD_ID,      // an index argument points outside its dimension
    CM_BAD_VALUE,   // a missing argument, or an attribute or scalar out of range
    CM_BAD_STATE,   // a call out of order, e.g. run before prepare
    CM_UNSUPPORTED, // legal for the op, not implemented by this kernel
    CM_NO_MEMORY,
    CM_DEVICE_FAULT, // a launch failed, or the emulated device found a fault in the kernel
    CM_BAD_FILE,     // loaders: the file is not what it claims to be
} cm_status;

typedef enum cm_dtype {
    CM_F64,
    CM_F32,
    CM_F16,
    CM_BF16,
    CM_I32,
    CM_I8,
    CM_I4, // two signed nibbles a byte, element 2n in the low one; rows start at a byte
    CM_DTYPE_COUNT,
} cm_dtype;

#define CM_DTYPE_BIT(dtype) (1u << (dtype))

typedef enum cm_role {
    CM_INPUT,   // of one run
    CM_WEIGHT,  // valid from prepare to release
    CM_ADAPTER, // valid until the next update
    CM_OUTPUT,  // every element is written, none is read
    CM_INOUT,   // read and written (an accumulating output)
} cm_role;

typedef enum cm_compare {
    CM_COMPARE_NONE,        // not an output
    CM_COMPARE_BOUNDED,     // |got - want| within the bound that the reference derives
    CM_COMPARE_EXACT,       // equal values
    CM_COMPARE_SET,         // rows are sets; members closer than the tie margin may be exchanged
    CM_COMPARE_PERMUTATION, // a permutation; positions with equal keys may be exchanged
    CM_COMPARE_SCALAR,      // a single bounded number
} cm_compare;

// A row that is quantised to int8 by its largest value is exact if that is 127 times a power of two. One
// column of x has such values; in one row of up it is all that there is, so that the same row of h has them.
typedef enum cm_peak {
    CM_PEAK_NONE,   // knows nothing of it
    CM_PEAK_SOURCE, // x: has the value in that column
    CM_PEAK_BRIDGE, // up: has its only non-zero of that row in that column, and no other in that column
    CM_PEAK_GATE,   // gate: 0 in that column, one non-zero in that row
    CM_PEAK_COLUMN, // 0 in that column
    CM_PEAK_ROW,    // 0 in that row
} cm_peak;

// How the values of an argument are made (fixtures/values.c reads this; `kind` names its generator).
typedef struct cm_fill {
    const char *kind;       // "dense", "matrix", "power", "routing", "router_weight", "assign", "rank", ...
    char fan_in;            // letter of the summed dimension: random values get a s.d. of 2^gain/sqrt(fan_in)
    int gain;               // log2 of that gain
    const char *divided_by; // argument [L] by which adapter a's values are divided, so that s cancels
    bool within_rank;       // non-zeros stay below the adapter's rank in dimension r
    char aligned;           // letter whose position alone decides the sign, so that products agree in sign
    int exact_scale;        // exact data: log2 of the magnitude
    int exact_nonzeros;     // exact data: most non-zeros in a row of a matrix
    const char *words;      // words of a case, blank between, that an optional argument needs; NULL: none
    cm_peak peak;           // exact data: its part in rows whose largest value is 127 times a power of two
} cm_fill;

typedef struct cm_argument {
    const char *name;
    cm_role role;
    uint32_t dtypes;         // CM_DTYPE_BIT of each allowed dtype
    char dtype_variable;     // arguments with the same letter share a dtype; 0: only one is allowed
    const char *shape;       // "L E r H"; an item is a letter or number, then "+n" or "/G" (rounded up)
    bool optional;           // may be absent (NULL)
    char index_into;         // values point into this dimension; 0: not an index
    int64_t index_min;       // -1 where "none" is a value
    char shareable;          // dimension that may have stride 0 (shared-outer LoRA); 0: none
    char offset_into;        // values rise from 0 to this dimension; 0: not offsets
    bool self_map;           // [X] of indices into X: whoever reorders X moves the entries, too
    bool is_rank;            // values are ranks, 0..r
    const char *with;        // where it is present, these are, too: names, blank between
    const char *scales;      // the argument that these scale: present exactly if that has integers
    cm_compare compare;      // outputs only
    const char *compare_key; // PERMUTATION: the argument whose values are the keys; SET: the scores
    cm_fill fill;
    const char *meaning;
} cm_argument;

typedef struct cm_attribute {
    const char *name;
    double fallback, minimum, maximum;
    const char *const *words; // NULL-terminated names of the values 0, 1, ...; NULL: a number
    const char *meaning;
} cm_attribute;

// Where the op itself allows a result to be rounded. A kernel of accuracy MODEL may use all of them,
// one of accuracy SINGLE only those that are marked `always`.
typedef struct cm_rounding {
    const char *name;
    char dtype_variable; // rounded to the dtype of this variable; 0: fp32
    bool always;
    const char *meaning;
} cm_rounding;

// A part of the result that the reference can leave out: for gains, hypotheses and relations.
typedef struct cm_term {
    const char *name;
    const char *meaning;
    const char *arguments; // setting these to 0 leaves the term out; names, blank between; NULL: nothing does
    bool effect;           // the term is an adapter's: the effect check demands a gain of 1
} cm_term;

typedef enum cm_symmetry_kind {
    CM_SYMMETRY_PERMUTE, // reorder dimension `letter` and map the indices into it; a list of such indices
                         // along the dimension itself keeps its order, unless it is a self_map
    CM_SYMMETRY_SCALE,   // multiply the listed arguments by 2 (integers stay): every output doubles,
                         // integers stay
    CM_SYMMETRY_OMIT,    // set the listed arguments to 0: the same as leaving out `terms`, and as all indices
                         // into `letter` being -1 (0: there is no such index)
    CM_SYMMETRY_BALANCE, // multiply the listed arguments by 2 and `halved` by 1/2: nothing changes
    CM_SYMMETRY_LINEAR,  // the outputs are affine in the listed arguments taken together
    CM_SYMMETRY_NONE,    // set all indices into `letter` to -1: what was -1 before stays as it is
    CM_SYMMETRY_SPLIT,   // cut the call in two along `letter`, which leads the shapes: the rows stay the same
} cm_symmetry_kind;

typedef struct cm_symmetry {
    const char *name;
    cm_symmetry_kind kind;
    char letter;           // PERMUTE, OMIT, NONE, SPLIT
    const char *arguments; // SCALE, OMIT, BALANCE, LINEAR: names, blank between
    uint64_t terms;        // OMIT: bit n is op->terms[n]
    const char *halved;    // BALANCE: names, blank between
} cm_symmetry;

// Least work of a call, from its values: each addressed element moved once.
typedef struct cm_counts {
    double operations; // additions and multiplications
    double bytes_read, bytes_written;
} cm_counts;

typedef enum cm_accuracy {
    CM_ACCURACY_MODEL = 0, // intermediates may be rounded at every rounding point of the op
    CM_ACCURACY_SINGLE,    // intermediates are kept in fp32
} cm_accuracy;

struct cm_op;
struct cm_host;
struct cm_kernel;

// One invocation. Arguments stand in the order of op->arguments; an absent one is NULL. The harness owns
// everything; a kernel may write to the data of OUTPUT and INOUT arguments only. Every argument has strides
// (not negative), contiguous rows in its last dimension, a byte_offset of 0 (data points at the first
// element) and device number 0. What is written overlaps nothing else between its first and its last byte;
// inputs may share memory with each other.
typedef struct cm_call {
    size_t size; // sizeof(cm_call) of the caller
    const struct cm_op *op;
    const struct cm_host *host;
    const DLTensor *const *arguments;
    const double *attributes; // in the order of op->attributes
    const int64_t *dims;      // values of CM_DIM_LETTERS, 0 where the op has no such dimension
    DLDeviceType device;      // where the kernel's arguments lie
    void *stream;             // of the device, on which to launch (cudaStream_t on a GPU); NULL: its default
    int threads;              // most threads that the kernel may use; 0: as many as it likes
} cm_call;

// Services for kernels, so that a plug-in needs nothing but this header.
typedef struct cm_host {
    uint32_t abi_version;
    const DLTensor *(*argument)(const cm_call *call, const char *name); // NULL if absent or unknown
    double (*attribute)(const cm_call *call, const char *name);         // 0 if unknown
    int64_t (*dim)(const cm_call *call, char letter);
    // Sets the sentence that goes with the status to be returned; returns that status.
    cm_status (*fail)(const cm_call *call, cm_status status, const char *format, ...);
    // Holds the call against the op's table: presence, shapes, dtypes, devices, overlaps, ids, ranks,
    // offsets. Also a call that a kernel makes of its own, with its own services, to another kernel.
    cm_status (*validate)(const cm_call *call);
    // Memory until the function returns, where the arguments lie; poisoned and fenced. What a run gets that
    // is captured in a graph stays until the graph is gone. NULL when there is none.
    void *(*scratch)(const cm_call *call, size_t bytes, size_t alignment);
    // For a launch on an emulated device, around what runs there: in between, device memory can be touched
    // and the arguments in host memory can't. NULL: there is no fence.
    void (*enter_device)(const cm_call *call);
    void (*leave_device)(const cm_call *call);
    // This call takes the kernel's path of that number (see cm_path). Any thread of the host may say so, as
    // often as it likes: it costs a load, and a store the first time.
    void (*path)(const cm_call *call, int number);
} cm_host;

// The memory of a kernel's device, and its graphs. Arguments on an emulated device lie in the harness's own
// memory, which the host can't touch outside a launch; a real one has all functions for memory, an emulated
// one has them for kernels of the host that use it beside. They return CM_OK, or a status with `reason` set.
// A device without `capture` has no graphs.
typedef struct cm_side {
    size_t size;   // sizeof(cm_side)
    bool emulated; // launches run on this machine's processor: they take no time worth measuring
    // Whether there is such a device; if not, `reason` says why. Called in the process that runs the kernel.
    bool (*available)(char *reason, size_t reason_size);
    cm_status (*allocate)(size_t bytes, void **memory, char *reason, size_t reason_size);
    void (*release)(void *memory); // accepts NULL
    cm_status (*copy_in)(void *device, const void *host, size_t bytes, char *reason, size_t reason_size);
    cm_status (*copy_out)(void *host, const void *device, size_t bytes, char *reason, size_t reason_size);
    // Waits for all launches, and says whether one of them failed; CM_BAD_ID: one found a bad value and wrote
    // nothing.
    cm_status (*synchronize)(char *reason, size_t reason_size);
    // From here to `conclude` what this thread launches on *stream is recorded with its arguments in place of
    // being run. What waits for the device, allocates there, or launches elsewhere, fails meanwhile, and
    // spoils the graph.
    cm_status (*capture)(void **stream, char *reason, size_t reason_size);
    // Ends what `capture` began, in any case. *graph is NULL unless CM_OK is returned.
    cm_status (*conclude)(void *stream, void **graph, char *reason, size_t reason_size);
    // Launches all that was recorded, in its order; the sentence of a failure is set in the call.
    cm_status (*replay)(const cm_call *call, void *graph);
    void (*forget)(void *graph); // accepts NULL
    // Where the device's runtime says that a pointer lies: kDLCPU for memory that it does not know. NULL: it
    // can't say.
    cm_status (*locate)(const void *pointer, DLDevice *device, char *reason, size_t reason_size);
    // Of an emulated device: whether the address lies in memory of `allocate` or its guards. NULL: can't be
    // told. Async-signal-safe.
    bool (*owns)(const void *address);
} cm_side;

// What the reference says about one output, row-major and contiguous. Unused arrays are NULL.
typedef struct cm_want {
    int64_t count;
    double *value;
    double *sigma;     // s.d. of the error that the rounding points allow, without the output's own rounding
    double *order;     // the part of sigma that depends on the order in which sums are formed
    double *worst;     // worst-case bound of the same
    double *magnitude; // sum of |terms|
} cm_want;

#define CM_READS  1
#define CM_WRITES 2

typedef struct cm_op {
    const char *name;
    const char *formula;
    const cm_argument *arguments; // ends with a NULL name, like the tables below
    const cm_attribute *attributes;
    const cm_rounding *roundings;
    const cm_term *terms;
    const cm_symmetry *symmetries;
    // Naive computation in double; `want` is indexed like the arguments. `omit` leaves out terms by bit.
    cm_status (*reference)(const cm_call *call, uint64_t omit, cm_accuracy accuracy, cm_want *want);
    // Proves that every admissible order of summation and every rounding point is exact on these values.
    cm_status (*exact)(const cm_call *call);
    // mask[n] = CM_READS where this call may read element n (row-major) of `argument`, CM_WRITES where it
    // must write it, both, or 0.
    cm_status (*addressed)(const cm_call *call, int argument, uint8_t *mask);
    void (*counts)(const cm_call *call, cm_counts *counts);
} cm_op;

// One of several ways to the same result, between which a kernel chooses by the size of its work. A run says
// VACUOUS for a path that none of its cases took. A kernel that streams weights for few rows has
//   enum { DECODE, TILES, TILE_ROWS = 16 };
//   static const cm_path paths[] = {{"decode", "weights are streamed, a row at a time"},
//                                   {"tiles", "weights are reused for 16 rows"}, {0}};
//   static const cm_switch_point points[] = {{"rows", TILE_ROWS, "from decode to tiles"}, {0}};
// in its file, `.paths = paths, .switch_points = points` in its descriptor, and where it chooses
//   call->host->path(call, rows < TILE_ROWS ? DECODE : TILES);
// Suites have cases on both sides of it: "t{@rows}-k1-e1-..." stands for t15 and t16.
typedef struct cm_path {
    const char *name;    // a word of letters, digits, '_', '.' and '+'; one of its kind in the kernel
    const char *meaning; // one line
} cm_path;

typedef struct cm_switch_point {
    const char *quantity; // a dimension letter, or what the suites of the op call it: "rows" are those of one
                          // expert or of one segment, none of whose adapters differ
    int64_t first;        // smallest value on the far side, 1 or more: the kernel's own constant
    const char *meaning;
} cm_switch_point;

// The calls of a kernel. prepare makes a state for the weights that it sees; update gives it adapters; run
// may follow as often as one likes, with other inputs and another T each time. What prepare saw stays valid
// until release, adapters until the next update; nothing else may be kept, and nothing outside the state.
// Other values, and other shapes, may lie at the same addresses in the next call.
// - An update may bring adapters, take them away, and change L, r and ranks. A kernel that fixed its capacity
//   in prepare refuses what exceeds it, in update or run, with CM_BAD_STATE or CM_UNSUPPORTED; it never
//   computes with less.
// - run and update without prepare (state NULL), and run before the first update of a kernel that needs one,
//   return CM_BAD_STATE. A prepare that fails leaves *state NULL.
// - After a refusal a state is what it was before, or refuses with CM_BAD_STATE until the next update.
// - Calls on one state follow each other; calls on two states may come from two threads at the same time.
typedef struct cm_kernel {
    size_t size;      // sizeof(cm_kernel)
    const char *name; // op/target or op/target-variant
    const char *file; // repository path
    int line;
    cm_accuracy accuracy;
    bool nondeterministic;    // declared: repeats may differ in bits
    bool threads_change_bits; // declared: so may runs with another limit on threads, but not repeats with the
                              // same
    bool trusts_caller;       // its caller validates; forbidden for built-in kernels
    bool row_invariant;       // promised: a token's bits depend neither on the other tokens nor on its place
    int alignment;            // bytes that arguments need; 0: their element's
    int device;               // DLDeviceType where its arguments must lie; 0: host memory
    // Whether this call (shapes, dtypes, attributes; no values) is implemented; if not, says why in `reason`.
    bool (*supports)(const cm_call *call, char *reason, size_t reason_size);
    cm_status (*prepare)(const cm_call *call, void **state); // pack weights; untimed; may be NULL
    cm_status (*update)(const cm_call *call, void *state);   // adapters are new or changed; may be NULL
    cm_status (*run)(const cm_call *call, void *state);
    void (*release)(void *state); // may be NULL; accepts NULL
    const cm_side *side;          // memory of `device`; NULL: host memory, or nobody can run it here. Of a
                                  // kernel of the host: memory that it uses beside
    bool (*emulated)(void);       // host kernels: whether its instructions are emulated; NULL: they are not
    // Promised: a run may be captured in a graph of its device. A replay computes what a run would on the
    // values that the same addresses then hold: inputs, adapters after an update, never other shapes.
    bool capturable;
    const cm_path *paths;                 // at most CM_MAX_PATHS, then a NULL name; NULL: there is only one
    const cm_switch_point *switch_points; // ends with a NULL quantity; NULL: none
    // Promised, of a device: indices and ranks are held against their ranges there, and a call with a bad one
    // is refused by run or synchronize before anything is written. Kernels of host memory always do so.
    bool checks_values;
} cm_kernel;

// The one symbol of a plug-in: returns its kernels (ends with NULL), or NULL if it cannot serve this version.
#define CM_PLUGIN_SYMBOL "checkmoe_plugin_1"
typedef const cm_kernel *const *(*cm_plugin_entry)(uint32_t abi_version);

#ifdef __cplusplus
}
#endif
#endif
