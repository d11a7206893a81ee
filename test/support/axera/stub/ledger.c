/* A ledger of the chip's memory that outlives processes, as that of a driver which takes nothing
 * back from a process that is gone; and what makes a process easy to end at a chosen moment.
 *
 * All of it is chosen by the environment, read once a process:
 *   AX_STUB_LEDGER     a file: every handle, block and start that is not undone stays on record there
 *   AX_STUB_CMM_INFO   a file: what the driver would report in /proc/ax_proc/mem_cmm_info
 *   AX_STUB_CMM_BYTES  size of the CMM
 *   AX_STUB_LOAD_US    how long each file takes to load
 *   AX_STUB_HANG       while this file exists, runs do not come to their end
 *
 * With a ledger a handle takes as much memory as its file has bytes, and memory of dead processes
 * counts. `support.ledger` reads the records: int32 pid (0 = free), uint32 kind, uint64 bytes,
 * uint64 key, uint64 unused.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "stub.h"

enum { RECORDS = 4096 };

typedef struct {
    int32_t pid;
    uint32_t kind;
    uint64_t bytes, key, unused;
} Record;

_Static_assert(sizeof(Record) == 32, "support.ledger reads records of 32 bytes");

static Record *records;
static bool is_read;

static void read_environment(void) {
    if (is_read) return;
    is_read = true;
    const char *path = getenv("AX_STUB_LEDGER"), *size = getenv("AX_STUB_CMM_BYTES");
    if (size) options.cmm_bytes = strtoull(size, NULL, 10);
    if (!path) return;
    int file = open(path, O_RDWR | O_CREAT, 0600);
    size_t bytes = RECORDS * sizeof(Record);
    if (file < 0 || ftruncate(file, (off_t)bytes) != 0) abort();
    records = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (records == MAP_FAILED) abort();
    close(file);
}

static uint64_t sum(void) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < RECORDS; i++)
        if (__atomic_load_n(&records[i].pid, __ATOMIC_ACQUIRE)) bytes += records[i].bytes;
    return bytes;
}

bool ledger_has_room(uint64_t bytes) {
    read_environment();
    return !records || sum() + bytes <= options.cmm_bytes;
}

/* In one step: whoever reads it sees the whole of it. */
static void publish(void) {
    const char *path = getenv("AX_STUB_CMM_INFO");
    if (!path) return;
    char part[4096];
    snprintf(part, sizeof part, "%s.%d", path, getpid());
    FILE *file = fopen(part, "w");
    if (!file) abort();
    uint64_t total = options.cmm_bytes >> 10, used = sum() >> 10;
    fprintf(file,
            "---CMM_USE_INFO:\n total size=%" PRIu64 "KB(%" PRIu64 "MB),used=%" PRIu64
            "KB(%" PRIu64 "MB + 0KB),remain=%" PRIu64 "KB(%" PRIu64 "MB + 0KB)\n",
            total, total >> 10, used, used >> 10, total - used, (total - used) >> 10);
    fclose(file);
    if (rename(part, path) != 0) abort();
}

void ledger_add(enum ledger_kind kind, uint64_t key, uint64_t bytes) {
    read_environment();
    if (!records) return;
    for (size_t i = 0; i < RECORDS; i++) {
        int32_t nobody = 0;
        if (!__atomic_compare_exchange_n(&records[i].pid, &nobody, -1, false, __ATOMIC_ACQ_REL,
                                         __ATOMIC_ACQUIRE))
            continue;
        records[i].kind = kind;
        records[i].bytes = bytes;
        records[i].key = key;
        __atomic_store_n(&records[i].pid, getpid(), __ATOMIC_RELEASE);
        publish();
        return;
    }
    abort(); /* no record is free: the test loads more than the ledger was made for */
}

void ledger_remove(enum ledger_kind kind, uint64_t key) {
    if (!records) return;
    for (size_t i = 0; i < RECORDS; i++) {
        if (records[i].pid != getpid() || records[i].kind != kind || records[i].key != key)
            continue;
        records[i].bytes = 0;
        __atomic_store_n(&records[i].pid, 0, __ATOMIC_RELEASE);
        publish();
        return;
    }
}

static void sleep_us(uint64_t us) {
    struct timespec left = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    while (nanosleep(&left, &left) != 0) {}
}

void load_slowly(void) {
    const char *us = getenv("AX_STUB_LOAD_US");
    if (us) sleep_us(strtoull(us, NULL, 10));
}

void hang_while_told(void) {
    const char *path = getenv("AX_STUB_HANG");
    while (path && access(path, F_OK) == 0) sleep_us(10000);
}
