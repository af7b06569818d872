// SPDX-License-Identifier: MIT
//
// Waits for Ctrl-Alt-Del, which is all that Firecracker's keyboard ever sends, and resets the
// machine on it. The command line can make the guest ignore it, or not listen for a while.
#include "guest.h"

#define I8042_DATA     0x60
#define I8042_STATUS   0x64
#define I8042_HAS_DATA 0x01

// Scan codes, set 2.
#define SCAN_CTRL     0x14
#define SCAN_ALT      0x11
#define SCAN_EXTENDED 0xe0
#define SCAN_DELETE   0x71
#define SCAN_RELEASE  0xf0

static bool has_ctrl, has_alt, is_extended, is_release;
static bool is_deaf;
static uint64_t deaf_ms;

static void keyboard_answer(void)
{
    has_ctrl = has_alt = false;
    if (cmdline_has("fcproc.ignore_cad")) {
        console_say("ctrl-alt-del, ignored");
        return;
    }
    console_say("ctrl-alt-del, resetting");
    machine_reset();
}

static void keyboard_follow(uint8_t code)
{
    if (code == SCAN_EXTENDED) {
        is_extended = true;
        return;
    }
    if (code == SCAN_RELEASE) {
        is_release = true;
        return;
    }
    if (code == SCAN_CTRL)
        has_ctrl = !is_release;
    else if (code == SCAN_ALT)
        has_alt = !is_release;
    else if (code == SCAN_DELETE && is_extended && !is_release && has_ctrl && has_alt)
        keyboard_answer();
    is_extended = is_release = false;
}

static void keyboard_wait_on(void)
{
    uint32_t milliseconds = deaf_ms < TIMER_LONGEST_MS ? (uint32_t)deaf_ms : TIMER_LONGEST_MS;

    deaf_ms -= milliseconds;
    interrupt_arm_timer(milliseconds);
}

static void keyboard_hear_again(void)
{
    if (deaf_ms) {
        keyboard_wait_on();
        return;
    }
    while (port_read(I8042_STATUS) & I8042_HAS_DATA)
        port_read(I8042_DATA);
    is_deaf = false;
    console_say("listening");
}

void keyboard_start(void)
{
    const char *deaf = cmdline_value("fcproc.deaf", 0);

    interrupt_enable(IRQ_KEYBOARD);
    if (deaf && text_read_number(&deaf, &deaf_ms) && deaf_ms) {
        is_deaf = true;
        keyboard_wait_on();
    }
}

void keyboard_serve(uint64_t irqs)
{
    if (irqs & IRQ_BIT(IRQ_TIMER))
        keyboard_hear_again();
    if (is_deaf || !(irqs & IRQ_BIT(IRQ_KEYBOARD)))
        return;
    while (port_read(I8042_STATUS) & I8042_HAS_DATA)
        keyboard_follow(port_read(I8042_DATA));
}
