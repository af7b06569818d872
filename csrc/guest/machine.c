// SPDX-License-Identifier: MIT
//
// The ways to stop: a reset, which ends Firecracker; a halt, which does not; and a triple fault,
// the way a broken kernel goes.
#include "guest.h"

#define I8042_COMMAND 0x64
#define I8042_RESET   0xfe

void machine_reset(void)
{
    port_write(I8042_COMMAND, I8042_RESET);
    machine_halt();
}

void machine_halt(void)
{
    for (;;)
        __asm__ volatile("cli\n\thlt" : : : "memory");
}

void machine_triple_fault(void)
{
    // Without an interrupt table the exception has no handler, nor has the fault about that.
    static const struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) no_table = { 0, 0 };

    __asm__ volatile("lidt %0\n\tud2" : : "m"(no_table));
    machine_halt();
}
