// SPDX-License-Identifier: MIT
//
// The serial console: a 16550 at port 0x3f8, written to one whole line at a time, and read only when
// that is asked for. Only the main
// flow and the exception handler (which never returns) print, so lines cannot mix.
#include "guest.h"

#include <stdarg.h>

#define SERIAL_DATA         0x3f8
#define SERIAL_INTERRUPTS   0x3f9
#define SERIAL_FIFO         0x3fa
#define SERIAL_LINE_CONTROL 0x3fb
#define SERIAL_LINE_STATUS  0x3fd
#define SERIAL_HAS_DATA     0x01
#define SERIAL_CAN_SEND     0x20
#define SERIAL_FIFO_SIZE    16

static unsigned fifo_room;
static char heard[128];
static size_t heard_size;

static void console_put(char byte)
{
    // An empty FIFO takes 16 bytes, so ask only every 16: each port access costs an exit.
    if (!fifo_room) {
        while (!(port_read(SERIAL_LINE_STATUS) & SERIAL_CAN_SEND))
            __builtin_ia32_pause();
        fifo_room = SERIAL_FIFO_SIZE;
    }
    fifo_room--;
    port_write(SERIAL_DATA, (uint8_t)byte);
}

static void console_put_text(const char *text)
{
    while (*text)
        console_put(*text++);
}

static void console_put_number(uint64_t number, unsigned base, unsigned width)
{
    char digits[20];
    unsigned count = 0;

    do
        digits[count++] = "0123456789abcdef"[number % base];
    while (number /= base);
    for (unsigned i = count; i < width; i++)
        console_put('0');
    while (count)
        console_put(digits[--count]);
}

void console_start(void)
{
    port_write(SERIAL_INTERRUPTS, 0);
    port_write(SERIAL_LINE_CONTROL, 3); // 8 bits, no parity, 1 stop bit
    port_write(SERIAL_FIFO, 7);         // on, and emptied
}

void console_line(const char *text)
{
    console_put_text(text);
    console_put_text("\r\n");
}

void console_say(const char *format, ...)
{
    va_list values;

    va_start(values, format);
    console_put_text("fcproc guest: ");
    while (*format) {
        if (*format != '%') {
            console_put(*format++);
            continue;
        }
        format++;
        unsigned width = 0;
        while (*format >= '0' && *format <= '9')
            width = width * 10 + (unsigned)(*format++ - '0');
        bool is_long = *format == 'l';
        if (is_long)
            format++;
        char kind = *format++;
        if (kind == 's') {
            console_put_text(va_arg(values, const char *));
        } else if (kind == 'u' || kind == 'x') {
            uint64_t number = is_long ? va_arg(values, uint64_t) : va_arg(values, unsigned);
            console_put_number(number, kind == 'u' ? 10 : 16, width);
        } else {
            console_put(kind);
        }
    }
    console_put_text("\r\n");
    va_end(values);
}

void console_listen(void)
{
    interrupt_enable(IRQ_SERIAL);
    port_write(SERIAL_INTERRUPTS, 1); // for each byte that comes
}

static void console_hear(char byte)
{
    char shown[4 * sizeof(heard) + 1];

    if (byte != '\r' && byte != '\n') {
        if (heard_size < sizeof(heard))
            heard[heard_size++] = byte;
        return;
    }
    text_escape(shown, heard, heard_size);
    heard_size = 0;
    console_say("heard '%s'", shown);
}

void console_serve(uint64_t irqs)
{
    if (!(irqs & IRQ_BIT(IRQ_SERIAL)))
        return;
    while (port_read(SERIAL_LINE_STATUS) & SERIAL_HAS_DATA)
        console_hear((char)port_read(SERIAL_DATA));
}
