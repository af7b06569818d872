// SPDX-License-Identifier: MIT
//
// Adds device memory to the page tables. Firecracker maps the first GiB and enters with that; the
// registers of its devices and of the interrupt controllers are all in the fourth.
#include "guest.h"

#define PAGE_PRESENT       0x01ull
#define PAGE_WRITE         0x02ull
#define PAGE_WRITE_THROUGH 0x08ull
#define PAGE_NO_CACHE      0x10ull
#define PAGE_LARGE         0x80ull
#define PAGE_ADDRESS       0x000ffffffffff000ull
#define LARGE_PAGE_SHIFT   21
#define GIB_SHIFT          30

static uint64_t window_directory[512] __attribute__((aligned(4096)));

void mapping_start(void)
{
    uint64_t root;

    __asm__ volatile("mov %%cr3, %0" : "=r"(root));
    const uint64_t *top = (const uint64_t *)(root & PAGE_ADDRESS);
    uint64_t *gibs = (uint64_t *)(top[0] & PAGE_ADDRESS);
    gibs[MMIO_WINDOW_START >> GIB_SHIFT] = (uint64_t)(uintptr_t)window_directory | PAGE_PRESENT |
                                           PAGE_WRITE;
}

// Page by page, as the few pages in use cost less than filling in 512 entries where a hypervisor
// interprets every instruction. Nothing to flush: processors do not remember what was not there.
void mapping_add(uint64_t address)
{
    uint64_t page = address >> LARGE_PAGE_SHIFT;

    window_directory[page % 512] = page << LARGE_PAGE_SHIFT | PAGE_PRESENT | PAGE_WRITE |
                                   PAGE_WRITE_THROUGH | PAGE_NO_CACHE | PAGE_LARGE;
    __asm__ volatile("" : : : "memory");
}
