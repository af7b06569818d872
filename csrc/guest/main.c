// SPDX-License-Identifier: MIT
//
// The guest's life: bring the machine up, show what it has, say "ready", then answer pings and
// Ctrl-Alt-Del for ever. The words on the command line that begin with "fcproc." make it misbehave
// in the ways that the project's specs need.
#include "guest.h"

void guest_main(const uint8_t *boot_params) __attribute__((noreturn));

static void guest_start_device(const struct virtio_device *device)
{
    static bool has_net, has_block;

    if (device->id == VIRTIO_ID_NET) {
        console_say("device net at 0x%lx irq %u", device->base, device->irq);
        if (!has_net)
            net_start(device);
        has_net = true;
    } else if (device->id == VIRTIO_ID_BLOCK) {
        console_say("device block at 0x%lx irq %u", device->base, device->irq);
        if (!has_block)
            block_show(device);
        has_block = true;
    } else {
        console_say("device type %u at 0x%lx irq %u", device->id, device->base, device->irq);
    }
}

// A device is announced as 4K@0xd0000000:5, for size, address and interrupt.
static bool guest_parse_device(const char *text, uint64_t *base, uint64_t *irq)
{
    uint64_t size;

    // The size is always one page; only its unit has to be got past.
    if (!text_read_number(&text, &size) || *text++ != 'K' || *text++ != '@')
        return false;
    if (!text_read_number(&text, base) || *text++ != ':')
        return false;
    return text_read_number(&text, irq);
}

static void guest_start_devices(void)
{
    const char *announcement;

    for (unsigned i = 0; (announcement = cmdline_value("virtio_mmio.device", i)); i++) {
        struct virtio_device device;
        uint64_t base, irq;

        if (!guest_parse_device(announcement, &base, &irq))
            console_say("a virtio_mmio.device that makes no sense");
        else if (virtio_open(&device, base, irq))
            guest_start_device(&device);
    }
}

static void guest_misbehave(void)
{
    if (cmdline_has("fcproc.triple_fault"))
        machine_triple_fault();
    if (cmdline_has("fcproc.halt"))
        machine_halt();
    if (cmdline_has("fcproc.panic")) {
        // As a Linux with panic=1 ends.
        console_line("[    0.001000] Kernel panic - not syncing: fcproc.panic");
        console_line("[    0.002000] ---[ end Kernel panic - not syncing: fcproc.panic ]---");
        machine_reset();
    }
    if (cmdline_has("fcproc.reset"))
        machine_reset();
}

void guest_main(const uint8_t *boot_params)
{
    console_start();
    cmdline_start(boot_params);
    console_say("hello");
    console_say("command line: %s", cmdline_text());
    mapping_start();
    interrupt_start();
    keyboard_start();
    guest_start_devices();
    console_say("ready");
    guest_misbehave();

    bool is_printing = cmdline_has("fcproc.print");
    // What came before a line was connected has made no interrupt.
    uint64_t irqs = IRQ_BIT(IRQ_KEYBOARD);
    if (cmdline_has("fcproc.echo")) {
        console_listen();
        irqs |= IRQ_BIT(IRQ_SERIAL);
    }
    for (uint64_t line = 1;; line++) {
        net_serve(irqs);
        keyboard_serve(irqs);
        console_serve(irqs);
        if (is_printing)
            console_say("line %lu", line);
        irqs = is_printing ? interrupt_take(IRQ_ANY) : interrupt_wait(IRQ_ANY);
    }
}
