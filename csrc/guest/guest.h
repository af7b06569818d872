// SPDX-License-Identifier: MIT
//
// What the parts of the built-in guest share. The guest is a few files of one job each, so one
// header is enough: every section below is named after the file that implements it. Memory is
// mapped one to one, so a pointer is also the address that a device needs.
#ifndef FCPROC_GUEST_H
#define FCPROC_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Memory that start.S need not clear, as its user writes it before reading it.
#define GUEST_UNCLEARED __attribute__((section(".bss.uncleared")))

// Ports and memory-mapped registers. The mmio accessors are plain moves in assembly because a
// hypervisor has to decode the very instruction, and compilers like to fold loads into others.

static inline void port_write(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t port_read(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline void mmio_write32(uintptr_t address, uint32_t value)
{
    __asm__ volatile("movl %0, (%1)" : : "r"(value), "r"(address) : "memory");
}

static inline uint32_t mmio_read32(uintptr_t address)
{
    uint32_t value;
    __asm__ volatile("movl (%1), %0" : "=r"(value) : "r"(address) : "memory");
    return value;
}

static inline uint8_t mmio_read8(uintptr_t address)
{
    uint8_t value;
    __asm__ volatile("movb (%1), %0" : "=q"(value) : "r"(address) : "memory");
    return value;
}

// console.c: the serial console.

void console_start(void);
// Prints one line. Knows %s %u %x %lu %lx %%, with a zero-padded width.
void console_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
// Text as it is, as a line.
void console_line(const char *text);

// From now on each line that comes is said again, when it is served.
void console_listen(void);
void console_serve(uint64_t irqs);

// text.c: bytes and text. Compilers may call the mem* functions on their own account.

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memset(void *to, int byte, size_t size);
// Writes text to buffer with everything that would upset a terminal or a quote as \xNN. A buffer
// of 4 * size + 1 holds any text.
void text_escape(char *buffer, const char *text, size_t size);
// Reads digits (hexadecimal after 0x) and moves *text past them; false if there are none.
bool text_read_number(const char **text, uint64_t *number);

// cmdline.c: the kernel command line.

void cmdline_start(const uint8_t *boot_params);
const char *cmdline_text(void);
// Where the text after "key=" begins (after a bare "key": nothing); a space or the end of the
// command line ends it. Null if there is no such word, or none after skipping `skip` of them.
const char *cmdline_value(const char *key, unsigned skip);
bool cmdline_has(const char *key);

// mapping.c: the page tables.

// The window that holds every device register this guest touches: virtio, I/O APIC, local APIC.
#define MMIO_WINDOW_START 0xc0000000ull
#define MMIO_WINDOW_END   0x100000000ull

void mapping_start(void);
// Makes the registers around an address of the window accessible.
void mapping_add(uint64_t address);

// interrupt.c: exceptions, interrupts and sleep.

#define IRQ_KEYBOARD 1
#define IRQ_SERIAL   4
#define IRQ_COUNT    24
// The timer is not wired through the I/O APIC, it just takes the number behind the last line.
#define IRQ_TIMER    IRQ_COUNT
#define IRQ_ANY      UINT64_MAX
#define IRQ_BIT(irq) (1ull << (irq))

void interrupt_start(void);
void interrupt_enable(unsigned irq);
// Which of the wanted interrupts came since they were last asked for. The second one sleeps until
// at least one of them did.
uint64_t interrupt_take(uint64_t wanted);
uint64_t interrupt_wait(uint64_t wanted);
// Asks for IRQ_TIMER once, after at most TIMER_LONGEST_MS.
void interrupt_arm_timer(uint32_t milliseconds);
#define TIMER_LONGEST_MS 10000u

// machine.c: the ways to stop.

void machine_reset(void) __attribute__((noreturn));
void machine_halt(void) __attribute__((noreturn));
void machine_triple_fault(void) __attribute__((noreturn));

// virtio.c: virtio-mmio devices and their split queues.

#define VIRTIO_ID_NET      1
#define VIRTIO_ID_BLOCK    2
#define VIRTIO_QUEUE_SIZE  64
#define VIRTIO_F_VERSION_1 (1ull << 32)
#define VIRTIO_WRITES      2 // the device writes to the buffer
#define VIRTIO_NEXT        1 // the buffer goes on in the descriptor that follows

struct virtio_device {
    uintptr_t base;
    unsigned irq;
    uint32_t id;
};

struct virtio_descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
};

struct virtio_available {
    uint16_t flags;
    uint16_t index;
    uint16_t ring[VIRTIO_QUEUE_SIZE];
};

struct virtio_used {
    uint16_t flags;
    uint16_t index;
    struct {
        uint32_t descriptor;
        uint32_t length;
    } ring[VIRTIO_QUEUE_SIZE];
};

struct virtio_queue {
    struct virtio_descriptor descriptors[VIRTIO_QUEUE_SIZE] __attribute__((aligned(16)));
    volatile struct virtio_available available __attribute__((aligned(2)));
    volatile struct virtio_used used __attribute__((aligned(4)));
    uint32_t number;
    uint16_t used_seen;
};

// False, after saying so, if there is no virtio-mmio device at that address.
bool virtio_open(struct virtio_device *device, uint64_t base, uint64_t irq);
// The first half of starting a device; *features is what to ask for, then what both sides have.
bool virtio_negotiate(const struct virtio_device *device, uint64_t *features);
bool virtio_add_queue(const struct virtio_device *device, struct virtio_queue *queue,
                      uint32_t number);
// The second half: the device goes to work, its interrupts come.
void virtio_go(const struct virtio_device *device);
void virtio_acknowledge(const struct virtio_device *device);
void virtio_describe(struct virtio_queue *queue, uint16_t descriptor, void *buffer, uint32_t length,
                     uint16_t flags);
void virtio_submit(struct virtio_queue *queue, uint16_t descriptor);
void virtio_notify(const struct virtio_device *device, const struct virtio_queue *queue);
// How many finished buffers there are, and the next one of them.
unsigned virtio_finished(const struct virtio_queue *queue);
uint16_t virtio_take(struct virtio_queue *queue, uint32_t *length);
uint8_t virtio_config8(const struct virtio_device *device, unsigned offset);
uint32_t virtio_config32(const struct virtio_device *device, unsigned offset);

// net.c: answers ARP and ping.

void net_start(const struct virtio_device *device);
void net_serve(uint64_t irqs);

// block.c: reads one sector.

void block_show(const struct virtio_device *device);

// keyboard.c: waits for Ctrl-Alt-Del.

void keyboard_start(void);
void keyboard_serve(uint64_t irqs);

#endif
