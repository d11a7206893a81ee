/* libax_sys: CMM blocks whose CPU copy and device copy only flush and invalidate join.
 *
 * A real CPU cache may write a line back early or drop it by luck; here it never does, so that
 * whatever a program forgets shows every time. Whole lines are moved, as caches do: a flush takes
 * stale neighbours along.
 */
#ifndef STUB_CARD
#include <stdlib.h>
#include <string.h>

#include "stub.h"

enum { PAGE = 4096 };
static const uint64_t FIRST_PHY = 0x140000000;

static Block *blocks; /* by address: new ones get the highest, so that a freed address stays unknown */
static size_t block_count, block_room;
static uint64_t next_phy = FIRST_PHY;

/* The last block that starts at or before phy. */
static Block *block_before(uint64_t phy) {
    size_t low = 0, high = block_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (blocks[middle].phy <= phy) low = middle + 1;
        else high = middle;
    }
    return low ? &blocks[low - 1] : NULL;
}

Block *block_at(uint64_t phy, uint64_t bytes) {
    Block *block = block_before(phy);
    if (!block || bytes > block->size || phy - block->phy > block->size - bytes) return NULL;
    return block;
}

static uint8_t *fresh(size_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, PAGE, bytes) != 0) return NULL;
    return memset(memory, 0xFF, bytes); /* NaN as bfloat16 and as float32 */
}

static size_t whole_lines(size_t bytes) {
    return (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
}

static Block *add_block(uint32_t size) {
    if (block_count == block_room) {
        size_t room = block_room ? 2 * block_room : 64;
        Block *more = realloc(blocks, room * sizeof *blocks);
        if (!more) return NULL;
        blocks = more;
        block_room = room;
    }
    Block block = {.phy = next_phy, .size = size};
    block.cpu = fresh(whole_lines(size));
    block.device = fresh(whole_lines(size));
    if (!block.cpu || !block.device) {
        free(block.cpu);
        free(block.device);
        return NULL;
    }
    blocks[block_count] = block;
    next_phy += (size + PAGE - 1) / PAGE * PAGE + PAGE; /* an unused page between blocks */
    return &blocks[block_count++];
}

static void remove_block(Block *block) {
    levels.bytes -= block->size;
    ledger_remove(LEDGER_BLOCK, block->phy);
    free(block->cpu);
    free(block->device);
    memmove(block, block + 1, (size_t)(blocks + block_count - (block + 1)) * sizeof *block);
    levels.blocks = --block_count;
}

int32_t AX_SYS_Init(void) {
    stub_start();
    stub_lock();
    flows.AX_SYS_Init++;
    if (!levels.sys_ready) ledger_add(LEDGER_SYS, 0, 0);
    levels.sys_ready = 1;
    stub_unlock();
    return 0;
}

int32_t AX_SYS_Deinit(void) {
    stub_lock();
    flows.AX_SYS_Deinit++;
    int32_t code = levels.sys_ready ? 0 : refuse(ERR_NOT_READY);
    levels.sys_ready = 0;
    ledger_remove(LEDGER_SYS, 0);
    stub_unlock();
    return code;
}

static int32_t allocate(uint64_t *phy, void **vir, uint32_t size, uint32_t align) {
    if (!levels.sys_ready) return refuse(ERR_NOT_READY);
    if (!phy || !vir || !size) return refuse(ERR_NULL);
    if (align > PAGE || (align & (align - 1))) return refuse(ERR_BAD_ADDRESS);
    if (levels.bytes + size > options.cmm_bytes || !ledger_has_room(size)) return refuse(ERR_NO_MEMORY);
    Block *block = add_block(size);
    if (!block) return refuse(ERR_NO_MEMORY);
    *phy = block->phy;
    *vir = block->cpu;
    ledger_add(LEDGER_BLOCK, block->phy, size);
    flows.blocks_allocated++;
    levels.blocks = block_count;
    levels.bytes += size;
    if (levels.bytes > levels.peak_bytes) levels.peak_bytes = levels.bytes;
    return 0;
}

int32_t AX_SYS_MemAllocCached(uint64_t *phy, void **vir, uint32_t size, uint32_t align,
                              const int8_t *token) {
    (void)token;
    stub_lock();
    flows.AX_SYS_MemAllocCached++;
    int32_t code = allocate(phy, vir, size, align);
    stub_unlock();
    return code;
}

int32_t AX_SYS_MemFree(uint64_t phy, void *vir) {
    int32_t code = 0;
    stub_lock();
    flows.AX_SYS_MemFree++;
    Block *block = block_before(phy);
    if (!levels.sys_ready) {
        flows.freed_after_deinit++;
        code = refuse(ERR_NOT_READY);
    } else if (!block || block->phy != phy || block->cpu != vir) {
        code = refuse(ERR_BAD_ADDRESS);
    } else {
        remove_block(block);
        flows.blocks_freed++;
    }
    stub_unlock();
    return code;
}

/* The lines of [phy, phy + size) in a block, or NULL. */
static Block *lines_of(uint64_t phy, const void *vir, uint32_t size, size_t *from, size_t *to) {
    Block *block = block_at(phy, size);
    if (!block || block->cpu + (phy - block->phy) != vir) return NULL;
    size_t offset = phy - block->phy;
    if (offset % CACHE_LINE || size % CACHE_LINE) flows.partial_lines++;
    *from = offset / CACHE_LINE * CACHE_LINE;
    *to = whole_lines(offset + size);
    return block;
}

int32_t AX_SYS_MflushCache(uint64_t phy, void *vir, uint32_t size) {
    size_t from, to;
    int32_t code = 0;
    stub_lock();
    flows.AX_SYS_MflushCache++;
    const Block *block = lines_of(phy, vir, size, &from, &to);
    if (!block) {
        code = refuse(ERR_BAD_ADDRESS);
    } else {
        memcpy(block->device + from, block->cpu + from, to - from);
        flows.bytes_flushed += size;
    }
    stub_unlock();
    return code;
}

int32_t AX_SYS_MinvalidateCache(uint64_t phy, void *vir, uint32_t size) {
    size_t from, to;
    int32_t code = 0;
    stub_lock();
    flows.AX_SYS_MinvalidateCache++;
    const Block *block = lines_of(phy, vir, size, &from, &to);
    if (!block) {
        code = refuse(ERR_BAD_ADDRESS);
    } else {
        memcpy(block->cpu + from, block->device + from, to - from);
        flows.bytes_invalidated += size;
    }
    stub_unlock();
    return code;
}

/* A hook of the tests, which no vendor has: the device's copy at a physical address; NULL if it is
 * not allocated. */
void *ax_stub_device_memory(uint64_t phy, uint64_t bytes) {
    stub_lock();
    const Block *block = block_at(phy, bytes);
    void *found = block ? block->device + (phy - block->phy) : NULL;
    stub_unlock();
    return found;
}
#endif
