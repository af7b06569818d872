// SPDX-License-Identifier: MIT
//
// The little of the C library that the guest needs: bytes, numbers and escapes.
#include "guest.h"

// String instructions, as a loop here would be turned into a call of the function itself.
void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
    void *cursor = to;
    __asm__ volatile("rep movsb" : "+D"(cursor), "+S"(from), "+c"(size) : : "memory");
    return to;
}

void *memset(void *to, int byte, size_t size)
{
    void *cursor = to;
    __asm__ volatile("rep stosb" : "+D"(cursor), "+c"(size) : "a"(byte) : "memory");
    return to;
}

void text_escape(char *buffer, const char *text, size_t size)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)text[i];
        if (byte >= ' ' && byte <= '~' && byte != '"' && byte != '\\') {
            *buffer++ = (char)byte;
            continue;
        }
        *buffer++ = '\\';
        *buffer++ = 'x';
        *buffer++ = digits[byte >> 4];
        *buffer++ = digits[byte & 15];
    }
    *buffer = 0;
}

static bool text_read_digit(char byte, unsigned base, unsigned *digit)
{
    if (byte >= '0' && byte <= '9')
        *digit = (unsigned)(byte - '0');
    else if (byte >= 'a' && byte <= 'f')
        *digit = (unsigned)(byte - 'a') + 10;
    else if (byte >= 'A' && byte <= 'F')
        *digit = (unsigned)(byte - 'A') + 10;
    else
        return false;
    return *digit < base;
}

bool text_read_number(const char **text, uint64_t *number)
{
    const char *cursor = *text;
    unsigned base = 10, digit;

    if (cursor[0] == '0' && (cursor[1] == 'x' || cursor[1] == 'X')) {
        base = 16;
        cursor += 2;
    }
    if (!text_read_digit(*cursor, base, &digit))
        return false;
    *number = 0;
    while (text_read_digit(*cursor, base, &digit)) {
        // Too many digits must not wrap around into something that looks sensible.
        if (*number > (UINT64_MAX - digit) / base)
            *number = UINT64_MAX;
        else
            *number = *number * base + digit;
        cursor++;
    }
    *text = cursor;
    return true;
}
