/* The vendor's chip emulator, which waits without burning cores or sleeping for nothing.
 *
 * Preloaded (LD_PRELOAD) into processes with the emulator; changes how its libraries wait, not what
 * they compute:
 *   - BM1684X: seven threads poll their queues under a lock, without a pause. After SPINS polls in a
 *     row with nothing between them, a thread naps; so the few that have work get the cores.
 *   - BM1688: the driver looks every 200 ms whether a launch is done. It looks every millisecond.
 *   - both: at its end a device waits 1 s until a core has taken its message to quit. It waits until
 *     the core's thread has ended.
 * Only calls out of these libraries are changed: everything else in the process waits as ever.
 *
 * Seen in tpu_mlir 1.30.2; where another release waits otherwise, nothing here applies and it is
 * slow again (test_emulator_waits.py notices it).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
    SPINS = 400,         /* polls in a row before the first nap */
    POLLS_A_NAP = 10,    /* polls between naps */
    POLL_NS = 3000,      /* longest time between polls: whoever took longer had work */
    FIRST_NAP_NS = 20000,
    LONGEST_NAP_NS = 1000000, /* naps grow by a quarter, up to this */
    LOOK_US = 1000,      /* between looks of the BM1688's driver, and at a core that is to quit */
};

typedef int Lock(pthread_mutex_t *);
typedef int Create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

static Lock *real_lock;
static Create *real_create;
static atomic_int cores_ended, cores_told;

/* How often each kind of wait was changed, for tests. */
atomic_long edge_vlm_naps, edge_vlm_looks;

__attribute__((constructor)) static void find_real_functions(void) {
    real_lock = (Lock *)dlsym(RTLD_NEXT, "pthread_mutex_lock");
    real_create = (Create *)dlsym(RTLD_NEXT, "pthread_create");
}

static bool is_of(const char *library, const void *caller) {
    Dl_info info;
    return dladdr(caller, &info) && info.dli_fname && strstr(info.dli_fname, library);
}

static void nap(long ns) {
    struct timespec time = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    nanosleep(&time, NULL);
}

static int64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* What a thread has locked of late: an idle one takes the same two locks in turn. */
static __thread struct {
    pthread_mutex_t *last, *before;
    int64_t at_ns;
    long polls, nap_ns;
} mine;

int pthread_mutex_lock(pthread_mutex_t *mutex) {
    if (!real_lock) find_real_functions();
    int64_t at_ns = now_ns();
    bool is_poll = mutex == mine.last || mutex == mine.before;
    if (!is_poll || at_ns - mine.at_ns > POLL_NS) {
        mine.polls = 0;
        mine.nap_ns = FIRST_NAP_NS;
    } else if (++mine.polls > SPINS) {
        mine.polls = SPINS - POLLS_A_NAP;
        if (is_of("libcmodel", __builtin_return_address(0))) {
            prctl(PR_SET_TIMERSLACK, 1000UL); /* naps are as short as they are asked for */
            nap(mine.nap_ns);
            ++edge_vlm_naps;
            if (mine.nap_ns < LONGEST_NAP_NS) mine.nap_ns += mine.nap_ns / 4;
            at_ns = now_ns();
        }
    }
    if (mutex != mine.last) {
        mine.before = mine.last;
        mine.last = mutex;
    }
    mine.at_ns = at_ns;
    return real_lock(mutex);
}

int usleep(useconds_t us) {
    bool is_look = us > LOOK_US && is_of("libbmlib", __builtin_return_address(0));
    edge_vlm_looks += is_look;
    nap((is_look ? LOOK_US : us) * 1000L);
    return 0;
}

unsigned sleep(unsigned seconds) {
    if (!is_of("libbmlib", __builtin_return_address(0))) {
        struct timespec rest, time = {.tv_sec = seconds};
        return nanosleep(&time, &rest) ? (unsigned)rest.tv_sec + 1 : 0;
    }
    int told = ++cores_told;
    int64_t until_ns = now_ns() + seconds * 1000000000LL;
    while (cores_ended < told && now_ns() < until_ns) nap(LOOK_US * 1000L);
    return 0;
}

typedef struct {
    void *(*run)(void *);
    void *argument;
} Core;

static void count_end(void *unused) {
    (void)unused;
    ++cores_ended;
}

static void *run_core(void *given) {
    Core core = *(Core *)given;
    void *result;
    free(given);
    pthread_cleanup_push(count_end, NULL);
    result = core.run(core.argument);
    pthread_cleanup_pop(1);
    return result;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                   void *argument) {
    Dl_info info;
    if (!real_create) find_real_functions();
    bool is_core = dladdr((void *)run, &info) && info.dli_sname &&
                   strcmp(info.dli_sname, "firmware_main") == 0;
    Core *core = is_core ? malloc(sizeof *core) : NULL;
    if (!core) return real_create(thread, attributes, run, argument);
    *core = (Core){run, argument};
    return real_create(thread, attributes, run_core, core);
}
