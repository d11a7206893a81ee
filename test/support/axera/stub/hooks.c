/* Hooks of the tests: counters, options, what computes. No vendor has these.
 * Nothing here knows the other files, which all stand on this one. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stub.h"

Flows flows;
Levels levels;
#define DEFAULTS {.cmm_bytes = (uint64_t)4 << 30, .runs_left = UINT64_MAX, .cards = 1}
Options options = DEFAULTS;
Compute compute;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

void stub_lock(void) { pthread_mutex_lock(&mutex); }
void stub_unlock(void) { pthread_mutex_unlock(&mutex); }

int32_t refuse(enum error code) {
    flows.refused++;
    if (getenv("AX_STUB_VERBOSE")) fprintf(stderr, "ax_stub: refused, code %d\n", code);
    return code;
}

typedef struct {
    const char *name;
    uint64_t *value;
} Entry;

#define FLOW(name) {#name, &flows.name},
#define LEVEL(name) {#name, &levels.name},
#define OPTION(name) {#name, &options.name},
static const Entry counters[] = {FUNCTIONS(FLOW) FLOWS(FLOW) LEVELS(LEVEL){NULL, NULL}};
static const Entry settable[] = {OPTIONS(OPTION){NULL, NULL}};

static uint64_t *find(const Entry *entries, const char *name) {
    for (; entries->name; entries++)
        if (strcmp(entries->name, name) == 0) return entries->value;
    return NULL;
}

/* The counter's value; UINT64_MAX if there is none of that name. */
uint64_t ax_stub_count(const char *name) {
    stub_lock();
    const uint64_t *found = find(counters, name);
    uint64_t value = found ? *found : UINT64_MAX;
    stub_unlock();
    return value;
}

/* Flows start at zero again; levels stay, but for the peak, which starts at what is. */
void ax_stub_reset_counts(void) {
    stub_lock();
    memset(&flows, 0, sizeof flows);
    levels.peak_bytes = levels.bytes;
    stub_unlock();
}

/* 0, or -1 if there is no option of that name. */
int32_t ax_stub_set(const char *name, uint64_t value) {
    stub_lock();
    uint64_t *found = find(settable, name);
    if (found) *found = value;
    stub_unlock();
    return found ? 0 : -1;
}

void ax_stub_reset_options(void) {
    stub_lock();
    options = (Options)DEFAULTS;
    stub_unlock();
}

/* Who computes: called outside the lock, on the thread that opens, runs or destroys. */
void ax_stub_set_compute(Compute callbacks) { compute = callbacks; }
