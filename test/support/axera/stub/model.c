/* The model file of the tests: a text header, then bytes that only the compute callback reads.
 *
 *   AXSTUB 1 / kind <word> / chip <name>|any / then for each shape group
 *   group <delay_us> / in <name> <dtype> <dims...> / out <name> <dtype> <dims...> / and last: end
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stub.h"

#ifdef STUB_AX630C
static const char CHIP[] = "ax630c";
#else
static const char CHIP[] = "ax650";
#endif

enum { LINE_BYTES = 256 };

typedef struct {
    const char *name;
    int32_t code; /* AX_ENGINE_DATA_TYPE_T */
    uint32_t bytes;
} DataType;

static const DataType TYPES[] = {{"u8", 1, 1},  {"u16", 2, 2}, {"f32", 3, 4},
                                 {"s16", 4, 2}, {"s8", 5, 1},  {"s32", 6, 4},
                                 {"u32", 7, 4}, {"f64", 8, 8}, {"bf16", 9, 2}};

typedef struct {
    const char *at, *end;
    char line[LINE_BYTES];
} Lines;

/* Put the next line into lines->line; false if there is none or it is too long for a header. */
static bool next_line(Lines *lines) {
    size_t left = (size_t)(lines->end - lines->at);
    const char *stop = left ? memchr(lines->at, '\n', left) : NULL;
    if (!stop || stop - lines->at >= LINE_BYTES) return false;
    size_t bytes = (size_t)(stop - lines->at);
    memcpy(lines->line, lines->at, bytes);
    lines->line[bytes] = '\0';
    lines->at = stop + 1;
    return true;
}

/* Magic, kind and chip. */
static enum error read_head(Lines *lines) {
    char word[NAME_BYTES];
    if (!next_line(lines) || strcmp(lines->line, "AXSTUB 1") != 0) return ERR_BAD_MODEL;
    if (!next_line(lines) || sscanf(lines->line, "kind %63s", word) != 1) return ERR_BAD_MODEL;
    if (!next_line(lines) || sscanf(lines->line, "chip %63s", word) != 1) return ERR_BAD_MODEL;
    bool ours = strcmp(word, CHIP) == 0 || strcmp(word, "any") == 0;
    return ours ? 0 : ERR_WRONG_CHIP;
}

static const DataType *type_named(const char *name) {
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++)
        if (strcmp(TYPES[i].name, name) == 0) return &TYPES[i];
    return NULL;
}

/* Read the dims into the tensor, whose size they make; false if there is none or one is wrong. */
static bool read_dims(char *text, uint32_t item_bytes, IoMeta *meta) {
    uint64_t size = item_bytes;
    char *next = text;
    for (meta->rank = 0; meta->rank < MAX_DIMS; meta->rank++) {
        long dim = strtol(text, &next, 10);
        if (next == text) break;
        if (dim <= 0 || dim > INT32_MAX) return false;
        meta->shape[meta->rank] = (int32_t)dim;
        size *= (uint64_t)dim;
        if (size > UINT32_MAX) return false;
        text = next;
    }
    meta->size = (uint32_t)(size + options.pad_bytes);
    return meta->rank > 0 && text[strspn(text, " ")] == '\0';
}

static bool read_tensor(char *line, int skip, IoMeta *meta) {
    char name[NAME_BYTES], type_name[8];
    int used = 0;
    if (sscanf(line + skip, " %63s %7s%n", name, type_name, &used) != 2) return false;
    const DataType *type = type_named(type_name);
    if (!type) return false;
    meta->name = strdup(name);
    meta->shape = calloc(MAX_DIMS, sizeof *meta->shape);
    meta->data_type = type->code;
    return meta->name && meta->shape && read_dims(line + skip + used, type->bytes, meta);
}

static Group *add_group(Model *model, uint64_t delay_us) {
    Group *more = realloc(model->groups, (model->group_count + 1) * sizeof *more);
    if (!more) return NULL;
    model->groups = more;
    Group *group = &more[model->group_count++];
    memset(group, 0, sizeof *group);
    group->delay_us = delay_us;
    return group;
}

static bool read_line(Model *model, char *line) {
    unsigned long long delay_us;
    Group *group = model->group_count ? &model->groups[model->group_count - 1] : NULL;
    if (sscanf(line, "group %llu", &delay_us) == 1) return add_group(model, delay_us) != NULL;
    if (!group) return false;
    bool in = strncmp(line, "in ", 3) == 0;
    if (!in && strncmp(line, "out ", 4) != 0) return false;
    uint32_t *count = in ? &group->info.input_count : &group->info.output_count;
    if (*count == MAX_TENSORS) return false;
    IoMeta *metas = in ? group->inputs : group->outputs;
    return read_tensor(line, in ? 3 : 4, &metas[(*count)++]);
}

static enum error read_groups(Lines *lines, Model *model) {
    for (;;) {
        if (!next_line(lines)) return ERR_BAD_MODEL; /* cut off before 'end' */
        if (strcmp(lines->line, "end") == 0) return model->group_count ? 0 : ERR_BAD_MODEL;
        if (!read_line(model, lines->line)) return ERR_BAD_MODEL;
    }
}

enum error model_check(const void *data, uint32_t bytes) {
    Lines lines = {.at = data, .end = (const char *)data + bytes};
    return read_head(&lines);
}

void model_free(Model *model) {
    for (uint32_t g = 0; g < model->group_count; g++) {
        for (size_t i = 0; i < MAX_TENSORS; i++) {
            free(model->groups[g].inputs[i].name);
            free(model->groups[g].inputs[i].shape);
            free(model->groups[g].outputs[i].name);
            free(model->groups[g].outputs[i].shape);
        }
    }
    free(model->groups);
    free(model);
}

enum error model_open(const void *data, uint32_t bytes, Model **to) {
    static uint64_t last_id;
    Lines lines = {.at = data, .end = (const char *)data + bytes};
    enum error code = read_head(&lines);
    if (code) return code;
    Model *model = calloc(1, sizeof *model);
    if (!model) return ERR_NO_MEMORY;
    code = read_groups(&lines, model);
    if (code) {
        model_free(model);
        return code;
    }
    for (uint32_t g = 0; g < model->group_count; g++) { /* the groups no longer move */
        model->groups[g].info.inputs = model->groups[g].inputs;
        model->groups[g].info.outputs = model->groups[g].outputs;
        model->groups[g].info.max_batch = 1;
    }
    model->id = ++last_id;
    *to = model;
    return 0;
}
