/* libax_engine: handles, contexts and runs, refusing what the chip refuses. */
#ifndef STUB_CARD
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "stub.h"

#ifdef STUB_AX630C
static const int32_t MODEL_TYPE = 1; /* full core */
#else
static const int32_t MODEL_TYPE = 2; /* triple core */
#endif

/* A sleep ends late; the last stretch is spent awake. */
static const int64_t AWAKE_NS = 150000;

static Model *models; /* open ones */

/* ---- start and stop ------------------------------------------------------------------------- */

const char *AX_ENGINE_GetVersion(void) {
    stub_lock();
    flows.AX_ENGINE_GetVersion++;
    stub_unlock();
    return "stub";
}

void AX_ENGINE_NPUReset(void) {
    stub_lock();
    flows.AX_ENGINE_NPUReset++;
    stub_unlock();
}

int32_t AX_ENGINE_Init(NpuAttr *attr) {
    int32_t code = 0;
    stub_lock();
    flows.AX_ENGINE_Init++;
    if (!attr) code = refuse(ERR_NULL);
    else if (!levels.sys_ready) code = refuse(ERR_NOT_READY);
    else {
        if (!levels.engine_ready) ledger_add(LEDGER_ENGINE, 0, 0);
        levels.engine_ready = 1;
    }
    stub_unlock();
    return code;
}

/* Fails before Init, as on the chip: callers take that for "not initialised yet". Where another
 * program has shared the NPU out, it has initialised it. */
int32_t AX_ENGINE_GetVNPUAttr(NpuAttr *attr) {
    stub_lock();
    flows.AX_ENGINE_GetVNPUAttr++;
    int32_t mode = stub_vnpu();
    int32_t code = !attr ? ERR_NULL : levels.engine_ready || mode ? 0 : ERR_NOT_READY;
    if (!code) memset(attr, 0, sizeof *attr);
    if (!code) attr->hard_mode = mode;
    stub_unlock();
    return code;
}

int32_t AX_ENGINE_Deinit(void) {
    stub_lock();
    flows.AX_ENGINE_Deinit++;
    int32_t code = levels.engine_ready ? 0 : refuse(ERR_NOT_READY);
    levels.engine_ready = 0;
    ledger_remove(LEDGER_ENGINE, 0);
    stub_unlock();
    return code;
}

/* ---- handles -------------------------------------------------------------------------------- */

static Model *model_of(const void *handle) {
    for (Model *model = models; model; model = model->next)
        if ((const void *)model == handle) return model;
    return NULL;
}

int32_t AX_ENGINE_GetModelType(const void *data, uint32_t bytes, int32_t *type) {
    int32_t code = 0;
    stub_lock();
    flows.AX_ENGINE_GetModelType++;
    if (!data || !type) code = refuse(ERR_NULL);
    else if (!levels.engine_ready) code = refuse(ERR_NOT_READY);
    else if (model_check(data, bytes)) code = refuse(model_check(data, bytes));
    else *type = MODEL_TYPE;
    stub_unlock();
    return code;
}

static int32_t create(void **handle, const void *data, uint32_t bytes, const HandleExtra *extra) {
    Model *model = NULL;
    if (!handle || !data || !extra) return refuse(ERR_NULL);
    if (!levels.engine_ready) return refuse(ERR_NOT_READY);
    if (!ledger_has_room(bytes)) return refuse(ERR_NO_MEMORY);
    enum error code = model_open(data, bytes, &model);
    if (code) return refuse(code);
    ledger_add(LEDGER_HANDLE, model->id, bytes);
    model->next = models;
    models = model;
    flows.handles_created++;
    levels.handles++;
    *handle = model;
    return 0;
}

static int32_t destroy(Model *model) {
    Model **link = &models;
    while (*link && *link != model) link = &(*link)->next;
    if (!*link) return refuse(ERR_BAD_HANDLE);
    *link = model->next;
    ledger_remove(LEDGER_HANDLE, model->id);
    model_free(model);
    flows.handles_destroyed++;
    levels.handles--;
    return 0;
}

int32_t AX_ENGINE_CreateHandleV2(void **handle, const void *data, uint32_t bytes,
                                 HandleExtra *extra) {
    load_slowly();
    stub_lock();
    flows.AX_ENGINE_CreateHandleV2++;
    int32_t code = create(handle, data, bytes, extra);
    stub_unlock();
    if (code || !compute.open) return code;
    if (compute.open(((Model *)*handle)->id, data, bytes) == 0) return 0;
    stub_lock();
    destroy(*handle);
    code = refuse(ERR_BAD_MODEL);
    stub_unlock();
    return code;
}

int32_t AX_ENGINE_DestroyHandle(void *handle) {
    stub_lock();
    flows.AX_ENGINE_DestroyHandle++;
    if (!levels.engine_ready) flows.destroyed_after_deinit++;
    Model *model = model_of(handle);
    uint64_t id = model ? model->id : 0;
    int32_t code = model ? destroy(model) : refuse(ERR_BAD_HANDLE);
    stub_unlock();
    if (!code && compute.close) compute.close(id);
    return code;
}

int32_t AX_ENGINE_CreateContextV2(void *handle, void **context) {
    int32_t code = 0;
    stub_lock();
    flows.AX_ENGINE_CreateContextV2++;
    Model *model = model_of(handle);
    if (!context) code = refuse(ERR_NULL);
    else if (!model) code = refuse(ERR_BAD_HANDLE);
    else *context = &model->context;
    stub_unlock();
    return code;
}

/* ---- what a model says of itself ------------------------------------------------------------- */

int32_t AX_ENGINE_GetGroupIOInfoCount(void *handle, uint32_t *count) {
    int32_t code = 0;
    stub_lock();
    flows.AX_ENGINE_GetGroupIOInfoCount++;
    const Model *model = model_of(handle);
    if (!count) code = refuse(ERR_NULL);
    else if (!model) code = refuse(ERR_BAD_HANDLE);
    else *count = model->group_count;
    stub_unlock();
    return code;
}

static int32_t describe(void *handle, uint32_t group, IoInfo **info) {
    Model *model = model_of(handle);
    if (!info) return refuse(ERR_NULL);
    if (!model) return refuse(ERR_BAD_HANDLE);
    if (group >= model->group_count) return refuse(ERR_BAD_GROUP);
    *info = &model->groups[group].info;
    return 0;
}

int32_t AX_ENGINE_GetGroupIOInfo(void *handle, uint32_t group, IoInfo **info) {
    stub_lock();
    flows.AX_ENGINE_GetGroupIOInfo++;
    int32_t code = describe(handle, group, info);
    stub_unlock();
    return code;
}

int32_t AX_ENGINE_GetIOInfo(void *handle, IoInfo **info) {
    stub_lock();
    flows.AX_ENGINE_GetIOInfo++;
    int32_t code = describe(handle, 0, info);
    stub_unlock();
    return code;
}

int32_t AX_ENGINE_GetHandleModelType(void *handle, int32_t *type) {
    int32_t code = 0;
    stub_lock();
    flows.AX_ENGINE_GetHandleModelType++;
    if (!type) code = refuse(ERR_NULL);
    else if (!model_of(handle)) code = refuse(ERR_BAD_HANDLE);
    else *type = MODEL_TYPE;
    stub_unlock();
    return code;
}

const char *AX_ENGINE_GetModelToolsVersion(void *handle) {
    stub_lock();
    flows.AX_ENGINE_GetModelToolsVersion++;
    const Model *model = model_of(handle);
    stub_unlock();
    return model ? "stub" : NULL;
}

int32_t AX_ENGINE_SetAffinity(void *handle, uint32_t set) {
    (void)set;
    stub_lock();
    flows.AX_ENGINE_SetAffinity++;
    int32_t code = model_of(handle) ? 0 : refuse(ERR_BAD_HANDLE);
    stub_unlock();
    return code;
}

int32_t AX_ENGINE_GetAffinity(void *handle, uint32_t *set) {
    int32_t code = 0;
    stub_lock();
    flows.AX_ENGINE_GetAffinity++;
    if (!set) code = refuse(ERR_NULL);
    else if (!model_of(handle)) code = refuse(ERR_BAD_HANDLE);
    else *set = 0;
    stub_unlock();
    return code;
}

int32_t AX_ENGINE_GetCMMUsage(void *handle, uint32_t *bytes) {
    int32_t code = 0;
    stub_lock();
    flows.AX_ENGINE_GetCMMUsage++;
    if (!bytes) code = refuse(ERR_NULL);
    else if (!model_of(handle)) code = refuse(ERR_BAD_HANDLE);
    else *bytes = 0;
    stub_unlock();
    return code;
}

#ifdef STUB_AX630C
/* Only there on AX630C and AX620E: callers tell the chips apart by it. */
int32_t AX_ENGINE_GetTotalOps(void) {
    stub_lock();
    flows.AX_ENGINE_GetTotalOps++;
    stub_unlock();
    return 0;
}
#endif

/* ---- runs ------------------------------------------------------------------------------------ */

typedef struct {
    void *inputs[MAX_TENSORS], *outputs[MAX_TENSORS];
} Addresses;

/* The address that is used: with the option latch, that of the group's or model's first run. */
static uint64_t latched(Model *model, Group *group, size_t tensor, uint64_t phy) {
    if (!options.latch) return phy;
    uint64_t *kept = &(options.latch == 1 ? group : model->groups)->latched[tensor];
    if (!*kept) *kept = phy;
    return *kept;
}

static int32_t check_buffer(const Model *model, const IoBuffer *buffer, const IoMeta *meta) {
    if (buffer->size < meta->size) return refuse(ERR_BAD_IO);
    Block *block = block_at(buffer->phy, meta->size);
    if (!block || block->cpu + (buffer->phy - block->phy) != buffer->vir)
        return refuse(ERR_BAD_ADDRESS);
    if (options.refuse_inside && buffer->phy != block->phy) return refuse(ERR_REFUSED);
    if (!block->user) block->user = model;
    if (options.refuse_sharing && block->user != model) return refuse(ERR_REFUSED);
    return 0;
}

static int32_t bind(Model *model, Group *group, const IoBuffer *buffers, const IoMeta *metas,
                    uint32_t count, size_t first, void **to) {
    for (uint32_t i = 0; i < count; i++) {
        int32_t code = check_buffer(model, &buffers[i], &metas[i]);
        if (code) return code;
        uint64_t phy = latched(model, group, first + i, buffers[i].phy);
        Block *block = block_at(phy, metas[i].size);
        if (!block) return refuse(ERR_BAD_ADDRESS);
        to[i] = block->device + (phy - block->phy);
    }
    return 0;
}

static int32_t prepare(Model *model, uint32_t index, const Io *io, Addresses *at) {
    Group *group = &model->groups[index];
    const IoInfo *info = &group->info;
    if (!options.runs_left) return refuse(ERR_REFUSED);
    if (!io || !io->inputs || !io->outputs) return refuse(ERR_NULL);
    if (io->input_count != info->input_count || io->output_count != info->output_count)
        return refuse(ERR_BAD_IO);
    int32_t code =
        bind(model, group, io->inputs, info->inputs, info->input_count, 0, at->inputs);
    if (code) return code;
    code = bind(model, group, io->outputs, info->outputs, info->output_count, MAX_TENSORS,
                at->outputs);
    if (code) return code;
    options.runs_left--;
    flows.runs++;
    return 0;
}

static void fill_outputs(const IoInfo *info, const Addresses *at, int byte) {
    for (uint32_t i = 0; i < info->output_count; i++)
        memset(at->outputs[i], byte, info->outputs[i].size);
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void wait_until(int64_t end_ns) {
    int64_t early = end_ns - AWAKE_NS;
    struct timespec until = {.tv_sec = early / 1000000000, .tv_nsec = early % 1000000000};
    if (early > now_ns())
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0) {}
    while (now_ns() < end_ns) {}
}

static void take_time(uint64_t delay_us, int64_t started_ns, bool is_slept) {
    int64_t end_ns = started_ns + (int64_t)delay_us * 1000;
    if (is_slept) wait_until(end_ns);
    int64_t late_ns = is_slept ? now_ns() - end_ns : 0;
    stub_lock();
    flows.delay_us += delay_us;
    flows.overshoot_us += (uint64_t)late_ns / 1000;
    stub_unlock();
}

static int32_t execute(const Model *model, uint32_t index, Addresses *at) {
    const IoInfo *info = &model->groups[index].info;
    if (!compute.run) fill_outputs(info, at, 0);
    else {
        /* 0x3F3F is 0.75 as bfloat16 and as float32: finite, and not what will stand there. */
        if (options.early_writes) fill_outputs(info, at, 0x3F);
        if (compute.run(model->id, index, at->inputs, at->outputs)) return ERR_COMPUTE;
    }
    return 0;
}

static int32_t run(void *handle, void *context, uint32_t index, const Io *io, bool grouped) {
    int64_t started_ns = now_ns();
    Addresses at;
    int32_t code = 0;
    stub_lock();
    Model *model = model_of(handle);
    if (!levels.engine_ready) code = refuse(ERR_NOT_READY);
    else if (!model || context != &model->context) code = refuse(ERR_BAD_HANDLE);
    else if (index >= model->group_count || grouped != (model->group_count > 1))
        code = refuse(ERR_BAD_GROUP);
    else code = prepare(model, index, io, &at);
    uint64_t delays = options.delays;
    stub_unlock();
    if (code) return code;
    hang_while_told();
    code = execute(model, index, &at);
    if (delays) take_time(model->groups[index].delay_us, started_ns, delays != 2);
    return code;
}

/* For models of one shape group, as pyaxengine runs them; what the chip does with others is not
 * known, so it is refused. */
int32_t AX_ENGINE_RunSyncV2(void *handle, void *context, Io *io) {
    stub_lock();
    flows.AX_ENGINE_RunSyncV2++;
    stub_unlock();
    return run(handle, context, 0, io, false);
}

/* For models of several shape groups. */
int32_t AX_ENGINE_RunGroupIOSync(void *handle, void *context, uint32_t group, Io *io) {
    stub_lock();
    flows.AX_ENGINE_RunGroupIOSync++;
    stub_unlock();
    return run(handle, context, group, io, true);
}
#endif
