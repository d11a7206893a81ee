/* libaxcl_rt: a card's memory, models and runs, refusing what a card refuses.
 *
 * Device addresses are numbers that no processor can follow; bytes cross by axclrtMemcpy alone, and are
 * counted by direction. Functions and their arguments are those that pyaxengine 0.1.3 declares.
 */
#ifdef STUB_CARD
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "stub.h"

enum { PAGE = 4096, MAX_DEVICES = 256, MAX_RANK = 32, TRIPLE_CORE_CARD = 0 };
enum { HOST_TO_HOST, HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE };
static const uint64_t FIRST_ADDRESS = 0x2140000000;
static const int32_t CARD = 7; /* what the device list calls the first card */
static const int64_t AWAKE_NS = 150000;

typedef struct {
    uint32_t num;
    int32_t devices[MAX_DEVICES];
} DeviceList;

typedef struct {
    int32_t count;
    int32_t dims[MAX_RANK];
} Dims;

typedef struct {
    uint64_t address, size;
} Bound;

typedef struct CardIo {
    Model *model;
    Bound tensors[2][MAX_TENSORS], latched[2][MAX_TENSORS];
    uint32_t group; /* of its first run, + 1 */
    struct CardIo *next;
} CardIo;

typedef struct CardModel {
    Model *model;
    uint8_t *snapshots; /* with the option stale: inputs of each group's last run, one after another */
    struct CardModel *next;
} CardModel;

static Block *blocks;
static size_t block_count, block_room;
static uint64_t next_address = FIRST_ADDRESS;
static CardModel *models;
static CardIo *ios;
static __thread const void *current; /* the thread's context */
static const char context_of_card;

/* Enter a function: count it and lock; each leaves through `done`. */
#define ENTER(name) (stub_lock(), flows.name++)
static int32_t done(int32_t code) {
    stub_unlock();
    return code;
}

/* What every call on a device wants: initialised, and a context in this thread. */
static int32_t ready(void) {
    if (!levels.sys_ready) return refuse(ERR_NOT_READY);
    return current ? 0 : refuse(ERR_NO_CONTEXT);
}

static int32_t ready_engine(void) {
    int32_t code = ready();
    return code ? code : levels.engine_ready ? 0 : refuse(ERR_NOT_READY);
}

/* ---- start and stop, device and context ------------------------------------------------------- */

int32_t axclInit(const char *config) {
    (void)config;
    ENTER(axclInit);
    levels.sys_ready = 1;
    return done(0);
}

int32_t axclFinalize(void) {
    ENTER(axclFinalize);
    levels.sys_ready = 0;
    return done(0);
}

int32_t axclrtGetVersion(int32_t *major, int32_t *minor, int32_t *patch) {
    ENTER(axclrtGetVersion);
    *major = 3, *minor = 10, *patch = 2;
    return done(0);
}

const char *axclrtGetSocName(void) {
    ENTER(axclrtGetSocName);
    done(0);
    return "AX650N";
}

int32_t axclrtGetDeviceList(DeviceList *list) {
    ENTER(axclrtGetDeviceList);
    list->num = (uint32_t)options.cards;
    for (uint32_t i = 0; i < list->num; i++) list->devices[i] = CARD + (int32_t)i;
    return done(0);
}

int32_t axclrtSetDevice(int32_t device) {
    ENTER(axclrtSetDevice);
    bool known = device >= CARD && device < CARD + (int32_t)options.cards;
    if (!levels.sys_ready || !known) return done(refuse(ERR_NOT_READY));
    current = &context_of_card;
    return done(0);
}

int32_t axclrtResetDevice(int32_t device) {
    (void)device;
    ENTER(axclrtResetDevice);
    current = NULL;
    return done(0);
}

int32_t axclrtGetCurrentContext(const void **context) {
    ENTER(axclrtGetCurrentContext);
    if (!current) return done(refuse(ERR_NO_CONTEXT));
    *context = current;
    return done(0);
}

int32_t axclrtSetCurrentContext(const void *context) {
    ENTER(axclrtSetCurrentContext);
    if (context != &context_of_card) return done(refuse(ERR_NO_CONTEXT));
    current = context;
    return done(0);
}

int32_t axclrtEngineInit(int32_t kind) {
    ENTER(axclrtEngineInit);
    int32_t code = ready();
    if (!code && options.npu_kind) code = refuse(ERR_REFUSED); /* another program was first */
    if (!code) levels.engine_ready = 1;
    (void)kind;
    return done(code);
}

int32_t axclrtEngineGetVNpuKind(int32_t *kind) {
    ENTER(axclrtEngineGetVNpuKind);
    *kind = (int32_t)options.npu_kind;
    return done(levels.engine_ready || options.npu_kind ? 0 : refuse(ERR_NOT_READY));
}

int32_t axclrtEngineFinalize(void) {
    ENTER(axclrtEngineFinalize);
    levels.engine_ready = 0;
    return done(0);
}

/* ---- memory ----------------------------------------------------------------------------------- */

Block *block_at(uint64_t address, uint64_t bytes) {
    for (size_t i = 0; i < block_count; i++) {
        Block *block = &blocks[i];
        uint64_t at = address - block->phy;
        if (address >= block->phy && at <= block->size && bytes <= block->size - at) return block;
    }
    return NULL;
}

static uint8_t *device_at(uint64_t address, uint64_t bytes) {
    Block *block = block_at(address, bytes);
    return block ? block->device + (address - block->phy) : NULL;
}

static int32_t add_block(uint64_t *address, size_t size) {
    if (block_count == block_room) {
        size_t room = block_room ? 2 * block_room : 64;
        Block *more = realloc(blocks, room * sizeof *blocks);
        if (!more) return refuse(ERR_NO_MEMORY);
        blocks = more;
        block_room = room;
    }
    uint8_t *memory = malloc(size);
    if (!memory) return refuse(ERR_NO_MEMORY);
    memset(memory, 0xFF, size); /* NaN as bfloat16 and as float32 */
    blocks[block_count++] =
        (Block){.phy = next_address, .size = (uint32_t)size, .device = memory};
    *address = next_address;
    next_address += (size + PAGE - 1) / PAGE * PAGE + PAGE; /* an unused page between blocks */
    flows.blocks_allocated++;
    levels.blocks = block_count;
    levels.bytes += size;
    if (levels.bytes > levels.peak_bytes) levels.peak_bytes = levels.bytes;
    return 0;
}

int32_t axclrtMalloc(uint64_t *address, size_t size, int32_t policy) {
    (void)policy;
    ENTER(axclrtMalloc);
    int32_t code = ready();
    if (!code && (!address || !size)) code = refuse(ERR_NULL);
    if (!code && levels.bytes + size > options.cmm_bytes) code = refuse(ERR_NO_MEMORY);
    return done(code ? code : add_block(address, size));
}

int32_t axclrtFree(uint64_t address) {
    ENTER(axclrtFree);
    int32_t code = ready();
    Block *block = code ? NULL : block_at(address, 0);
    if (!code && (!block || block->phy != address)) code = refuse(ERR_BAD_ADDRESS);
    if (code) return done(code);
    levels.bytes -= block->size;
    free(block->device);
    memmove(block, block + 1, (size_t)(blocks + block_count - (block + 1)) * sizeof *block);
    levels.blocks = --block_count;
    flows.blocks_freed++;
    return done(0);
}

/* Bytes cross in the direction that is named, or not at all. */
int32_t axclrtMemcpy(uint64_t to, uint64_t from, size_t size, int32_t kind) {
    ENTER(axclrtMemcpy);
    int32_t code = ready();
    if (code) return done(code);
    bool to_device = kind == HOST_TO_DEVICE || kind == DEVICE_TO_DEVICE;
    bool from_device = kind == DEVICE_TO_HOST || kind == DEVICE_TO_DEVICE;
    uint8_t *target = to_device ? device_at(to, size) : (uint8_t *)to;
    const uint8_t *source = from_device ? device_at(from, size) : (uint8_t *)from;
    bool is_host_device = (!to_device && block_at(to, 0)) || (!from_device && block_at(from, 0));
    if (!target || !source || is_host_device || kind == HOST_TO_HOST)
        return done(refuse(ERR_BAD_ADDRESS));
    if (kind == DEVICE_TO_DEVICE && options.refuse_on_device) return done(refuse(ERR_REFUSED));
    memmove(target, source, size);
    *(kind == HOST_TO_DEVICE   ? &flows.bytes_to_device
      : kind == DEVICE_TO_HOST ? &flows.bytes_to_host
                               : &flows.bytes_on_device) += size;
    return done(0);
}

/* A hook of the tests: what the card has at an address; NULL if it is not allocated. */
void *ax_stub_device_memory(uint64_t address, uint64_t bytes) {
    stub_lock();
    void *found = device_at(address, bytes);
    stub_unlock();
    return found;
}

/* ---- models ----------------------------------------------------------------------------------- */

static CardModel **find(uint64_t id) {
    CardModel **link = &models;
    while (*link && (*link)->model->id != id) link = &(*link)->next;
    return link;
}

static void forget(uint64_t id) {
    CardModel **link = find(id), *gone = *link;
    *link = gone->next;
    for (CardIo *io = ios; io; io = io->next)
        if (io->model == gone->model) io->model = NULL;
    model_free(gone->model);
    free(gone->snapshots);
    free(gone);
    flows.handles_destroyed++;
    levels.handles--;
}

static uint8_t *read_file(const char *path, uint32_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    fseek(file, 0, SEEK_END);
    *size = (uint32_t)ftell(file);
    rewind(file);
    uint8_t *content = malloc(*size + 1);
    if (content && fread(content, 1, *size, file) != *size) {
        free(content);
        content = NULL;
    }
    fclose(file);
    return content;
}

static int32_t load(const void *content, uint32_t size, uint64_t *id) {
    CardModel *kept = calloc(1, sizeof *kept);
    int32_t code = content ? model_open(content, size, &kept->model) : ERR_BAD_MODEL;
    if (code) {
        free(kept);
        return refuse(code);
    }
    kept->next = models;
    models = kept;
    *id = kept->model->id;
    flows.handles_created++;
    levels.handles++;
    return 0;
}

int32_t axclrtEngineLoadFromFile(const char *path, uint64_t *id) {
    uint32_t size = 0;
    uint8_t *content = read_file(path, &size);
    ENTER(axclrtEngineLoadFromFile);
    int32_t code = ready_engine();
    if (!code) code = load(content, size, id);
    done(code);
    if (!code && compute.open && compute.open(*id, content, size)) {
        stub_lock();
        forget(*id);
        code = done(refuse(ERR_BAD_MODEL));
    }
    free(content);
    return code;
}

int32_t axclrtEngineLoadFromMem(uint64_t content, uint64_t size, uint64_t *id) {
    ENTER(axclrtEngineLoadFromMem);
    int32_t code = ready_engine();
    const uint8_t *bytes = code ? NULL : device_at(content, size);
    if (!code) code = load(bytes, (uint32_t)size, id);
    return done(code);
}

int32_t axclrtEngineUnload(uint64_t id) {
    ENTER(axclrtEngineUnload);
    int32_t code = ready_engine();
    if (!code && !*find(id)) code = refuse(ERR_BAD_HANDLE);
    if (!code) forget(id);
    done(code);
    if (!code && compute.close) compute.close(id);
    return code;
}

int32_t axclrtEngineCreateContext(uint64_t id, uint64_t *context) {
    ENTER(axclrtEngineCreateContext);
    int32_t code = ready_engine();
    if (!code && !*find(id)) code = refuse(ERR_BAD_HANDLE);
    if (!code) *context = id + 1000;
    return done(code);
}

const char *axclrtEngineGetModelCompilerVersion(uint64_t id) {
    ENTER(axclrtEngineGetModelCompilerVersion);
    const char *version = *find(id) ? "stub" : NULL;
    done(0);
    return version;
}

/* ---- what a model says of itself ---------------------------------------------------------------- */

/* The info is the model: its first group tells names and types, as the runtime's calls, which take no
 * group, can tell one for all. */
int32_t axclrtEngineGetIOInfo(uint64_t id, Model **info) {
    ENTER(axclrtEngineGetIOInfo);
    CardModel *found = *find(id);
    if (!found) return done(refuse(ERR_BAD_HANDLE));
    *info = found->model;
    return done(0);
}

int32_t axclrtEngineGetShapeGroupsCount(Model *info, int32_t *count) {
    ENTER(axclrtEngineGetShapeGroupsCount);
    *count = (int32_t)info->group_count;
    return done(0);
}

uint32_t axclrtEngineGetNumInputs(Model *info) { return info->groups[0].info.input_count; }
uint32_t axclrtEngineGetNumOutputs(Model *info) { return info->groups[0].info.output_count; }

static const IoMeta *tensor(const Model *info, uint32_t group, uint32_t index, bool is_output) {
    if (group >= info->group_count) return NULL;
    const IoInfo *one = &info->groups[group].info;
    if (index >= (is_output ? one->output_count : one->input_count)) return NULL;
    return is_output ? &one->outputs[index] : &one->inputs[index];
}

static int32_t tell_dims(const IoMeta *meta, Dims *dims) {
    if (!meta) return refuse(ERR_BAD_GROUP);
    dims->count = meta->rank;
    memcpy(dims->dims, meta->shape, meta->rank * sizeof *meta->shape);
    return 0;
}

/* axclrtEngineDataType by AX_ENGINE_DATA_TYPE_T: u8, u16, f32, s16, s8, s32, u32, f64, bf16. */
static int32_t tell_type(const IoMeta *meta, int32_t *type) {
    static const int32_t TYPES[] = {0, 4, 6, 15, 5, 3, 7, 8, 16, 14};
    if (!meta) return refuse(ERR_BAD_GROUP);
    *type = TYPES[meta->data_type];
    return 0;
}

#define DESCRIBE(Side, is_output)                                                                  \
    uint64_t axclrtEngineGet##Side##SizeByIndex(Model *info, uint32_t group, uint32_t index) {     \
        const IoMeta *meta = tensor(info, group, index, is_output);                                \
        return meta ? meta->size : 0;                                                              \
    }                                                                                              \
    int32_t axclrtEngineGet##Side##Dims(Model *info, uint32_t group, uint32_t index, Dims *dims) { \
        stub_lock();                                                                               \
        return done(tell_dims(tensor(info, group, index, is_output), dims));                       \
    }                                                                                              \
    const char *axclrtEngineGet##Side##NameByIndex(Model *info, uint32_t index) {                  \
        const IoMeta *meta = tensor(info, 0, index, is_output);                                    \
        return meta ? meta->name : NULL;                                                           \
    }                                                                                              \
    int32_t axclrtEngineGet##Side##DataType(Model *info, uint32_t index, int32_t *type) {          \
        stub_lock();                                                                               \
        return done(tell_type(tensor(info, 0, index, is_output), type));                           \
    }
DESCRIBE(Input, false)
DESCRIBE(Output, true)

/* ---- buffers ------------------------------------------------------------------------------------ */

static CardIo *known(CardIo *io) {
    CardIo *each = ios;
    while (each && each != io) each = each->next;
    return each && each->model ? each : NULL;
}

int32_t axclrtEngineCreateIO(Model *info, CardIo **io) {
    ENTER(axclrtEngineCreateIO);
    int32_t code = ready_engine();
    if (code) return done(code);
    CardIo *made = calloc(1, sizeof *made);
    made->model = info;
    made->next = ios;
    ios = *io = made;
    levels.ios++;
    return done(0);
}

int32_t axclrtEngineDestroyIO(CardIo *io) {
    ENTER(axclrtEngineDestroyIO);
    CardIo **link = &ios;
    while (*link && *link != io) link = &(*link)->next;
    if (!*link) return done(refuse(ERR_BAD_HANDLE));
    *link = io->next;
    free(io);
    levels.ios--;
    return done(0);
}

static int32_t set_buffer(CardIo *io, int side, uint32_t index, uint64_t address, uint64_t size) {
    if (!known(io) || index >= MAX_TENSORS) return refuse(ERR_BAD_IO);
    const Block *block = block_at(address, size);
    if (!block || !size) return refuse(ERR_BAD_ADDRESS);
    if (options.refuse_inside && block->phy != address) return refuse(ERR_REFUSED);
    io->tensors[side][index] = (Bound){address, size};
    return 0;
}

static int32_t get_buffer(CardIo *io, int side, uint32_t index, uint64_t *address, uint64_t *size) {
    if (!known(io) || index >= MAX_TENSORS) return refuse(ERR_BAD_IO);
    *address = io->tensors[side][index].address;
    *size = io->tensors[side][index].size;
    return 0;
}

#define BUFFER(Side, side)                                                                          \
    int32_t axclrtEngineSet##Side##BufferByIndex(CardIo *io, uint32_t index, uint64_t address,      \
                                                 uint64_t size) {                                   \
        ENTER(axclrtEngineSet##Side##BufferByIndex);                                                \
        return done(set_buffer(io, side, index, address, size));                                    \
    }                                                                                               \
    int32_t axclrtEngineGet##Side##BufferByIndex(CardIo *io, uint32_t index, uint64_t *address,     \
                                                 uint64_t *size) {                                  \
        ENTER(axclrtEngineGet##Side##BufferByIndex);                                                \
        return done(get_buffer(io, side, index, address, size));                                    \
    }
BUFFER(Input, 0)
BUFFER(Output, 1)

/* ---- runs --------------------------------------------------------------------------------------- */

typedef struct {
    void *at[2][MAX_TENSORS];
} Places;

static int32_t place(const Model *model, CardIo *io, const IoInfo *info, Places *places) {
    for (int side = 0; side < 2; side++) {
        uint32_t count = side ? info->output_count : info->input_count;
        const IoMeta *metas = side ? info->outputs : info->inputs;
        for (uint32_t i = 0; i < count; i++) {
            Bound bound = io->tensors[side][i], *first = &io->latched[side][i];
            if (options.latch && first->address) bound = *first;
            *first = bound;
            if (bound.size < metas[i].size) return refuse(ERR_BAD_IO);
            Block *block = block_at(bound.address, metas[i].size);
            if (!block) return refuse(ERR_BAD_ADDRESS);
            if (!block->user) block->user = model;
            if (options.refuse_sharing && block->user != model) return refuse(ERR_REFUSED);
            places->at[side][i] = block->device + (bound.address - block->phy);
        }
    }
    return 0;
}

/* Whether buffers are as large as this group's tensors and no other group ran through them; with the
 * option 2, whether they are nothing but blocks of that size. */
static bool is_exact(const CardIo *io, const IoInfo *info, uint32_t group) {
    if (io->group != group + 1) return false;
    for (uint32_t i = 0; i < info->input_count; i++) {
        Bound bound = io->tensors[0][i];
        const Block *block = block_at(bound.address, bound.size);
        if (bound.size != info->inputs[i].size) return false;
        if (options.stale == 2 && (!block || block->size != bound.size)) return false;
    }
    return true;
}

static size_t input_bytes(const Model *model, uint32_t groups) {
    size_t sum = 0;
    for (uint32_t g = 0; g < groups; g++)
        for (uint32_t i = 0; i < model->groups[g].info.input_count; i++)
            sum += model->groups[g].info.inputs[i].size;
    return sum;
}

/* With the option stale, chunks run on what the inputs were at the group's last run (3 = always; 1, 2
 * = unless buffers are exact). Groups of one token do not. Gives memory to free, or NULL. */
static uint8_t *make_stale(CardModel *kept, const CardIo *io, uint32_t group, Places *places) {
    Model *model = kept->model;
    const IoInfo *info = &model->groups[group].info;
    if (!kept->snapshots) kept->snapshots = calloc(1, input_bytes(model, model->group_count));
    uint8_t *snapshot = kept->snapshots + input_bytes(model, group);
    size_t size = input_bytes(model, group + 1) - input_bytes(model, group);
    bool is_stale = options.stale == 3 || !is_exact(io, info, group);
    uint8_t *old = malloc(size), *at = old;
    memcpy(old, snapshot, size);
    for (uint32_t i = 0; i < info->input_count; i++) {
        memcpy(snapshot + (at - old), places->at[0][i], info->inputs[i].size);
        if (is_stale) places->at[0][i] = at;
        at += info->inputs[i].size;
    }
    return old;
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void take_time(uint64_t delay_us, int64_t started_ns, bool is_slept) {
    int64_t end_ns = started_ns + (int64_t)delay_us * 1000, early = end_ns - AWAKE_NS;
    struct timespec until = {.tv_sec = early / 1000000000, .tv_nsec = early % 1000000000};
    if (is_slept && early > now_ns())
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0) {}
    while (is_slept && now_ns() < end_ns) {}
    int64_t late_ns = is_slept ? now_ns() - end_ns : 0;
    stub_lock();
    flows.delay_us += delay_us;
    flows.overshoot_us += (uint64_t)late_ns / 1000;
    stub_unlock();
}

static int32_t execute(const Model *model, uint32_t group, Places *places) {
    const IoInfo *info = &model->groups[group].info;
    for (uint32_t i = 0; i < info->output_count; i++) /* 0x3F3F: finite, and not what will stand there */
        if (!compute.run || options.early_writes)
            memset(places->at[1][i], compute.run ? 0x3F : 0, info->outputs[i].size);
    if (!compute.run) return 0;
    return compute.run(model->id, group, places->at[0], places->at[1]) ? ERR_COMPUTE : 0;
}

int32_t axclrtEngineExecute(uint64_t id, uint64_t context, uint32_t group, CardIo *io) {
    int64_t started_ns = now_ns();
    Places places;
    ENTER(axclrtEngineExecute);
    int32_t code = ready_engine();
    CardModel *kept = *find(id);
    if (!code && (!kept || context != id + 1000)) code = refuse(ERR_BAD_HANDLE);
    if (!code && (!known(io) || io->model != kept->model)) code = refuse(ERR_BAD_IO);
    if (!code && group >= kept->model->group_count) code = refuse(ERR_BAD_GROUP);
    if (!code && !options.runs_left) code = refuse(ERR_REFUSED);
    if (!code && !io->group) io->group = group + 1;
    if (!code) code = place(kept->model, io, &kept->model->groups[group].info, &places);
    if (code) return done(code);
    options.runs_left--;
    flows.runs++;
    bool is_chunk = group && kept->model->groups[group].info.input_count > 1;
    uint8_t *old = options.stale && is_chunk ? make_stale(kept, io, group, &places) : NULL;
    uint64_t delays = options.delays;
    stub_unlock();
    code = execute(kept->model, group, &places);
    free(old);
    if (delays) take_time(kept->model->groups[group].delay_us, started_ns, delays != 2);
    return code;
}
#endif
