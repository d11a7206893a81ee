/* What the parts of the stub share: the vendor's ABI, memory blocks, models, counters, options.
 *
 * The ABI (structs, sizes, byte offsets, data types) is that of the public headers of the vendor's
 * SDK for 64-bit chips, as pyaxengine 0.1.3 declares it. Everything else is ours.
 */
#ifndef EDGE_VLM_AX_STUB_H
#define EDGE_VLM_AX_STUB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CACHE_LINE = 64, MAX_TENSORS = 16, MAX_DIMS = 8, NAME_BYTES = 64 };

/* Return codes; 0 = ok. The vendor's own values are not imitated, only that they are negative. */
enum error {
    ERR_NOT_READY = -0x1001,   /* Init has not been called, or Deinit has */
    ERR_NULL = -0x1002,        /* a NULL argument */
    ERR_NO_MEMORY = -0x1003,   /* the CMM is full */
    ERR_BAD_ADDRESS = -0x1004, /* not in an allocated block, or past its end */
    ERR_BAD_MODEL = -0x1005,   /* no model, or a damaged one */
    ERR_WRONG_CHIP = -0x1006,  /* a model of another chip */
    ERR_BAD_HANDLE = -0x1007,  /* unknown or destroyed */
    ERR_BAD_GROUP = -0x1008,   /* no such shape group, or the other run call is meant */
    ERR_BAD_IO = -0x1009,      /* wrong number of buffers, or one too small */
    ERR_REFUSED = -0x100a,     /* an option says so */
    ERR_COMPUTE = -0x100b,     /* the compute callback failed */
    ERR_NO_CONTEXT = -0x100c,  /* this thread has no context of a card */
};

/* ---- the vendor's ABI ---------------------------------------------------------------------- */

typedef struct {
    int32_t hard_mode;
    uint32_t reserve[8];
} NpuAttr;

typedef struct {
    uint32_t npu_set;
    const char *name;
    uint32_t reserve[8];
} HandleExtra;

typedef struct {
    char *name;
    int32_t *shape;
    uint8_t rank;
    int32_t layout;
    int32_t memory_type;
    int32_t data_type;
    void *extra;
    uint32_t size;
    uint32_t quantization;
    int32_t *stride;
    uint64_t reserved[9];
} IoMeta;

typedef struct {
    IoMeta *inputs;
    uint32_t input_count;
    IoMeta *outputs;
    uint32_t output_count;
    uint32_t max_batch;
    int32_t dynamic_batch;
    uint64_t reserved[11];
} IoInfo;

typedef struct {
    uint64_t phy;
    void *vir;
    uint32_t size;
    int32_t *stride;
    uint8_t stride_rank;
    uint64_t reserved[11];
} IoBuffer;

typedef struct {
    IoBuffer *inputs;
    uint32_t input_count;
    IoBuffer *outputs;
    uint32_t output_count;
    uint32_t batch;
    void *setting;
    uint64_t reserved[10];
} Io;

_Static_assert(sizeof(NpuAttr) == 36, "NPU_ATTR");
_Static_assert(sizeof(HandleExtra) == 48, "HANDLE_EXTRA");
_Static_assert(sizeof(IoMeta) == 128, "IO_META");
_Static_assert(sizeof(IoInfo) == 128, "IO_INFO");
_Static_assert(sizeof(IoBuffer) == 128, "IO_BUFFER");
_Static_assert(sizeof(Io) == 120, "IO");
_Static_assert(offsetof(IoMeta, data_type) == 28 && offsetof(IoMeta, size) == 40, "IO_META");

/* ---- counters and options ------------------------------------------------------------------ */

#ifdef STUB_CARD
#define FUNCTIONS(X) \
    X(axclInit) X(axclFinalize) X(axclrtGetVersion) X(axclrtGetSocName) X(axclrtGetDeviceList) \
    X(axclrtSetDevice) X(axclrtResetDevice) X(axclrtGetCurrentContext) X(axclrtSetCurrentContext) \
    X(axclrtEngineInit) X(axclrtEngineGetVNpuKind) X(axclrtEngineFinalize) X(axclrtMalloc) \
    X(axclrtFree) X(axclrtMemcpy) X(axclrtEngineLoadFromFile) X(axclrtEngineLoadFromMem) \
    X(axclrtEngineUnload) X(axclrtEngineCreateContext) X(axclrtEngineGetModelCompilerVersion) \
    X(axclrtEngineGetIOInfo) X(axclrtEngineGetShapeGroupsCount) X(axclrtEngineCreateIO) \
    X(axclrtEngineDestroyIO) X(axclrtEngineSetInputBufferByIndex) \
    X(axclrtEngineSetOutputBufferByIndex) X(axclrtEngineGetInputBufferByIndex) \
    X(axclrtEngineGetOutputBufferByIndex) X(axclrtEngineExecute)
#else
#define FUNCTIONS(X) \
    X(AX_SYS_Init) X(AX_SYS_Deinit) X(AX_SYS_MemAllocCached) X(AX_SYS_MemFree) \
    X(AX_SYS_MflushCache) X(AX_SYS_MinvalidateCache) \
    X(AX_ENGINE_GetVersion) X(AX_ENGINE_NPUReset) X(AX_ENGINE_Init) X(AX_ENGINE_GetVNPUAttr) \
    X(AX_ENGINE_Deinit) X(AX_ENGINE_GetModelType) X(AX_ENGINE_CreateHandleV2) \
    X(AX_ENGINE_DestroyHandle) X(AX_ENGINE_GetIOInfo) X(AX_ENGINE_GetGroupIOInfoCount) \
    X(AX_ENGINE_GetGroupIOInfo) X(AX_ENGINE_GetHandleModelType) X(AX_ENGINE_CreateContextV2) \
    X(AX_ENGINE_RunSyncV2) X(AX_ENGINE_RunGroupIOSync) X(AX_ENGINE_SetAffinity) \
    X(AX_ENGINE_GetAffinity) X(AX_ENGINE_GetCMMUsage) X(AX_ENGINE_GetModelToolsVersion) \
    X(AX_ENGINE_GetTotalOps)
#endif

/* Flows start at zero again at ax_stub_reset_counts; levels are what is so now. */
#define FLOWS(X) \
    X(bytes_flushed) X(bytes_invalidated) X(partial_lines) X(runs) X(refused) X(delay_us) X(overshoot_us) \
    X(blocks_allocated) X(blocks_freed) X(handles_created) X(handles_destroyed) \
    X(destroyed_after_deinit) X(freed_after_deinit) \
    X(bytes_to_device) X(bytes_to_host) X(bytes_on_device) /* of a card, by axclrtMemcpy */
#define LEVELS(X) X(blocks) X(bytes) X(peak_bytes) X(handles) X(sys_ready) X(engine_ready) \
    X(ios) /* of a card */

#define OPTIONS(X) \
    X(cmm_bytes)      /* size of the CMM */ \
    X(delays)         /* 1 = a run lasts as long as its group's header line says; 2 = that is only */ \
                      /* counted (delay_us), for hours of virtual time */ \
    X(early_writes)   /* 1 = outputs hold other finite numbers while the inputs are read */ \
    X(latch)          /* 1 = a group keeps the addresses of its first run; 2 = a model does */ \
    X(pad_bytes)      /* bytes more than its shape has that every tensor wants */ \
    X(refuse_inside)  /* 1 = a buffer must start where a block starts */ \
    X(refuse_sharing) /* 1 = a block belongs to the first model that uses it */ \
    X(runs_left)      /* runs that succeed before all others fail */ \
    X(cards)          /* how many there are */ \
    X(npu_kind)       /* the virtual NPU that another program has set on the card */ \
    X(stale)          /* of a card: chunks run on the inputs of the run before; 1 = unless each */ \
                      /* buffer is as large as the tensor and its IO of one group; 2 = unless its */ \
                      /* block is as large, too; 3 = whatever is done */ \
    X(refuse_on_device) /* 1 = a card copies nothing from device to device */

#define FIELD(name) uint64_t name;
typedef struct {
    FUNCTIONS(FIELD) FLOWS(FIELD)
} Flows;
typedef struct {
    LEVELS(FIELD)
} Levels;
typedef struct {
    OPTIONS(FIELD)
} Options;
#undef FIELD

extern Flows flows;
extern Levels levels;
extern Options options;

void stub_lock(void);
void stub_unlock(void);
void stub_start(void);    /* what the environment wants to go wrong at the start (moods.c) */
int32_t stub_vnpu(void); /* the mode that another program has set; 0 = none */
int32_t refuse(enum error code); /* counts a refusal, says why on stderr if AX_STUB_VERBOSE is set */

/* ---- memory (memory.c); the caller holds the lock ------------------------------------------- */

typedef struct {
    uint64_t phy;
    uint32_t size;
    uint8_t *cpu;    /* what pVirAddr shows */
    uint8_t *device; /* what the NPU reads and writes */
    const void *user;
} Block;

Block *block_at(uint64_t phy, uint64_t bytes); /* NULL unless all of it lies in one block */

/* ---- what outlives a process (ledger.c); the caller holds the lock --------------------------- */

enum ledger_kind { LEDGER_HANDLE = 1, LEDGER_BLOCK = 2, LEDGER_SYS = 3, LEDGER_ENGINE = 4 };

void ledger_add(enum ledger_kind kind, uint64_t key, uint64_t bytes);
void ledger_remove(enum ledger_kind kind, uint64_t key); /* of this process */
bool ledger_has_room(uint64_t bytes); /* true without a ledger */
void load_slowly(void);      /* both without the lock */
void hang_while_told(void);

/* ---- models (model.c) ----------------------------------------------------------------------- */

typedef struct {
    uint64_t delay_us;
    IoInfo info;
    IoMeta inputs[MAX_TENSORS], outputs[MAX_TENSORS];
    uint64_t latched[2 * MAX_TENSORS]; /* physical addresses, 0 = none yet */
} Group;

typedef struct Model {
    uint64_t id;
    uint32_t group_count;
    Group *groups;
    uint64_t context; /* its address is the context */
    struct Model *next;
} Model;

enum error model_check(const void *data, uint32_t bytes);            /* 0 = a model of this chip */
enum error model_open(const void *data, uint32_t bytes, Model **to); /* 0 = opened */
void model_free(Model *model);

/* ---- compute (hooks.c) ----------------------------------------------------------------------- */

typedef struct {
    int32_t (*open)(uint64_t model, const void *data, uint64_t bytes);
    int32_t (*run)(uint64_t model, uint32_t group, void **inputs, void **outputs);
    void (*close)(uint64_t model);
} Compute;

extern Compute compute; /* all NULL: outputs become zeros */

#endif
