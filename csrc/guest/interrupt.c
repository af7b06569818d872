// SPDX-License-Identifier: MIT
//
// Exceptions, interrupts and sleep. Interrupt handlers only note that an interrupt came; the main
// flow takes the notes and does the work, so nothing else in the guest needs to care about being
// interrupted. Between notes the processor is in hlt, which costs the host nothing.
#include "guest.h"

#define VECTOR_COUNT 64
#define VECTOR_IRQS  32
#define VECTOR_TIMER (VECTOR_IRQS + IRQ_TIMER)
// Some processors force the low four bits of this one to ones.
#define VECTOR_SPURIOUS 63
#define STUB_SIZE       16

#define PIC_MASTER_MASK 0x21
#define PIC_SLAVE_MASK  0xa1

#define IOAPIC_SELECT           0xfec00000ull
#define IOAPIC_WINDOW           0xfec00010ull
#define IOAPIC_REDIRECTION(irq) (0x10 + 2 * (irq))

#define LAPIC_ID               0xfee00020ull
#define LAPIC_TASK_PRIORITY    0xfee00080ull
#define LAPIC_END_OF_INTERRUPT 0xfee000b0ull
#define LAPIC_SPURIOUS         0xfee000f0ull
#define LAPIC_TIMER            0xfee00320ull
#define LAPIC_LINT0            0xfee00350ull
#define LAPIC_TIMER_COUNT      0xfee00380ull
#define LAPIC_TIMER_DIVIDER    0xfee003e0ull
#define LAPIC_ENABLED          0x100
#define LAPIC_MASKED           0x10000
#define LAPIC_DIVIDE_BY_16     3
// KVM's local APIC counts nanoseconds, whatever the processor, so there is nothing to calibrate.
#define TIMER_COUNTS_PER_MS (1000000 / 16)

// What start.S leaves on the stack.
struct interrupt_frame {
    uint64_t saved[9];
    uint64_t vector;
    uint64_t error;
    uint64_t rip;
    uint64_t cs;
    uint64_t flags;
    uint64_t rsp;
    uint64_t ss;
};

// A gate's first word has the handler's address in two pieces, the code segment and the kind.
struct interrupt_gate {
    uint64_t low;
    uint64_t high;
};

#define GATE_INTERRUPT    0x8e0000000000ull // present, ring 0, interrupts off on entry
#define GATE_CODE_SEGMENT 0x00080000ull     // of start.S

struct interrupt_table {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

extern const uint8_t interrupt_stubs[];
void interrupt_handle(const struct interrupt_frame *frame);

static struct interrupt_gate gates[VECTOR_COUNT] __attribute__((aligned(16))) GUEST_UNCLEARED;
static volatile uint64_t pending;

void interrupt_handle(const struct interrupt_frame *frame)
{
    if (frame->vector < VECTOR_IRQS) {
        console_say("exception %lu at 0x%lx", frame->vector, frame->rip);
        machine_halt();
    }
    // A spurious interrupt is not in service, so it must not be ended either.
    if (frame->vector == VECTOR_SPURIOUS)
        return;
    pending |= IRQ_BIT(frame->vector - VECTOR_IRQS);
    mmio_write32(LAPIC_END_OF_INTERRUPT, 0);
}

static void interrupt_fill_table(void)
{
    struct interrupt_table table = { sizeof(gates) - 1, (uintptr_t)gates };

    for (unsigned i = 0; i < VECTOR_COUNT; i++) {
        uintptr_t stub = (uintptr_t)interrupt_stubs + i * STUB_SIZE;
        gates[i].low = (stub & 0xffff0000) << 32 | GATE_INTERRUPT | GATE_CODE_SEGMENT |
                       (stub & 0xffff);
        gates[i].high = stub >> 32;
    }
    __asm__ volatile("lidt %0" : : "m"(table));
}

void interrupt_start(void)
{
    interrupt_fill_table();
    mapping_add(IOAPIC_SELECT);
    mapping_add(LAPIC_ID);

    // The old interrupt controller would send the same interrupts a second time, as exceptions.
    port_write(PIC_MASTER_MASK, 0xff);
    port_write(PIC_SLAVE_MASK, 0xff);
    mmio_write32(LAPIC_LINT0, LAPIC_MASKED);

    mmio_write32(LAPIC_TASK_PRIORITY, 0);
    mmio_write32(LAPIC_SPURIOUS, LAPIC_ENABLED | VECTOR_SPURIOUS);
    mmio_write32(LAPIC_TIMER_DIVIDER, LAPIC_DIVIDE_BY_16);
    mmio_write32(LAPIC_TIMER, VECTOR_TIMER);
    __asm__ volatile("sti" : : : "memory");
}

void interrupt_enable(unsigned irq)
{
    // Edge-triggered and active high: Firecracker pulses its lines.
    mmio_write32(IOAPIC_SELECT, IOAPIC_REDIRECTION(irq) + 1);
    mmio_write32(IOAPIC_WINDOW, mmio_read32(LAPIC_ID));
    mmio_write32(IOAPIC_SELECT, IOAPIC_REDIRECTION(irq));
    mmio_write32(IOAPIC_WINDOW, VECTOR_IRQS + irq);
}

uint64_t interrupt_take(uint64_t wanted)
{
    __asm__ volatile("cli" : : : "memory");
    uint64_t taken = pending & wanted;
    pending &= ~taken;
    __asm__ volatile("sti" : : : "memory");
    return taken;
}

uint64_t interrupt_wait(uint64_t wanted)
{
    for (;;) {
        __asm__ volatile("cli" : : : "memory");
        uint64_t taken = pending & wanted;
        if (taken) {
            pending &= ~taken;
            __asm__ volatile("sti" : : : "memory");
            return taken;
        }
        // sti takes effect once hlt has begun, so no interrupt can slip in before the sleep.
        __asm__ volatile("sti\n\thlt" : : : "memory");
    }
}

void interrupt_arm_timer(uint32_t milliseconds)
{
    mmio_write32(LAPIC_TIMER_COUNT, milliseconds * TIMER_COUNTS_PER_MS);
}
