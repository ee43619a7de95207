// SPDX-License-Identifier: Apache-2.0
// What the parts of the check state share: scenes (a call and the bits that a fresh state gives it) and
// handles (a kernel's state, with the memory that it may refer to).
#ifndef CM_STATE_H
#define CM_STATE_H

#include "harness/stage.h"

typedef enum cm_scene_kind {
    CM_SCENE_FIRST,    // the case itself
    CM_SCENE_INPUTS,   // other inputs
    CM_SCENE_ADAPTERS, // other adapters
    CM_SCENE_UNLOADED, // no adapters: absent where they may be, else no token has one
    CM_SCENE_TOKENS,   // half as many tokens (one more, if there is only one)
    CM_SCENE_SMALL,    // one token, half of the adapters, half of the rank
    CM_SCENE_SHAPE,    // another T, H, I, D, K and N, with weights of their own
    // Of the same sizes, for kernels whose runs can be captured in a graph:
    CM_SCENE_NULL,   // no token has an adapter
    CM_SCENE_LAST,   // one adapter: few segments
    CM_SCENE_EVERY,  // all adapters in turn: many segments
    CM_SCENE_ROUTED, // other experts: any, or with half of them idle
    CM_SCENE_COUNT
} cm_scene_kind;

typedef struct cm_scene {
    bool open;  // false: the case can't have it, or the kernel does not support it
    bool mixed; // arguments of two cases
    cm_pristine values;
    cm_tensor results[CM_MAX_ARGUMENTS]; // outputs of a fresh state
    char *memory;                        // of the results: a mapping that a forked process can fill
    size_t mapped;
} cm_scene;

typedef struct cm_scenes {
    const cm_trial *trial;
    cm_source source; // gives a scene the weights and adapters of the case
    cm_scene list[CM_SCENE_COUNT];
} cm_scenes;

// Makes the values and runs each on a fresh state, in a process of its own. Nothing of the kernel may have
// run in this process before: OpenMP does not survive a fork. The outcome lies in a shared mapping. Otherwise
// than PASS: the trial's outcome says why.
cm_verdict cm_scenes_open(const cm_trial *trial, cm_scenes *scenes);
void cm_scenes_close(cm_scenes *scenes);
// Whether the kernel promises that its runs can be captured, and its device here can do so.
bool cm_scenes_have_graphs(const cm_trial *trial);

typedef struct cm_handle {
    const cm_trial *trial;
    void *state;
    cm_stage *packed;   // the call that prepare saw: its weights are valid until release
    cm_stage *adapters; // the call of the last update: its adapters are valid until the next
    cm_stage *call;     // the last call
    int yields;         // in each call, so often host services give way to other threads
} cm_handle;

// A spoiled call: one argument is NULL. -1: none.
enum { CM_NOT_SPOILED = -1 };

// prepare. Otherwise than CM_OK there is a sentence in handle->call; close it all the same.
cm_status cm_handle_open(const cm_trial *trial, const cm_scene *scene, int spoiled, cm_handle *handle);
// update (if asked) and run.
cm_status cm_handle_call(cm_handle *handle, const cm_scene *scene, bool update, int spoiled);
// The same, and the bits are those of a fresh state. `when` begins the sentence of the finding.
cm_verdict cm_handle_step(cm_handle *handle, const cm_scene *scene, bool update, const char *when);
// Lays the scene's values over those of the last call, at the same addresses; outputs are poisoned again.
// Weights stay as they are: they must be those of the last call. Nothing may be larger than there.
void cm_handle_rewrite(cm_handle *handle, const cm_scene *scene);
// update (if asked) and run, on the arguments as they lie there.
cm_status cm_handle_repeat(cm_handle *handle, bool update, const char *when);
// Only the comparison, after a call that was accepted.
cm_verdict cm_handle_compare(const cm_handle *handle, const cm_scene *scene, const char *when);
// PASS for a refusal; a fault of the device is none: FAIL with its sentence.
cm_verdict cm_handle_refusal(const cm_handle *handle, cm_status status);
const char *cm_handle_sentence(const cm_handle *handle); // of the last refusal
void cm_handle_close(cm_handle *handle);                 // release; accepts a zeroed one

// The parts of the check.
cm_verdict cm_state_sequence(const cm_scenes *scenes); // one state, many calls
cm_verdict cm_state_place(const cm_scenes *scenes);    // other values at the same addresses
cm_verdict cm_state_capacity(const cm_scenes *scenes); // prepare saw fewer and smaller adapters
cm_verdict cm_state_handles(const cm_scenes *scenes);  // two states, of one shape and of two
cm_verdict cm_state_order(const cm_scenes *scenes);    // calls out of order, and after a refusal
cm_verdict cm_state_threads(const cm_scenes *scenes);  // two states, two threads
cm_verdict cm_state_graph(const cm_scenes *scenes);    // captured in a graph, replayed on other values

#endif
