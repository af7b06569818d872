// SPDX-License-Identifier: MIT
//
// The kernel command line: copied out of the loader's memory and split into words once at start.
// Anything may be on it, so it is cut at a length and never trusted to be well-formed.
#include "guest.h"

// Where struct boot_params of the Linux boot protocol holds the command line's address.
#define BOOT_PARAMS_CMDLINE 0x228
#define CMDLINE_LONGEST     2048
#define WORDS_MOST          256
// What Firecracker's page tables map.
#define BOOT_MAPPING_END 0x40000000u

static char cmdline[CMDLINE_LONGEST + 1] GUEST_UNCLEARED;
static const char *words[WORDS_MOST] GUEST_UNCLEARED;
static unsigned word_count;

static const char *cmdline_source(const uint8_t *boot_params)
{
    uint32_t address = *(const uint32_t *)(boot_params + BOOT_PARAMS_CMDLINE);

    if (!address || address >= BOOT_MAPPING_END - CMDLINE_LONGEST)
        return "";
    return (const char *)(uintptr_t)address;
}

void cmdline_start(const uint8_t *boot_params)
{
    const char *source = cmdline_source(boot_params);
    char before = ' ';
    unsigned size = 0;

    while (size < CMDLINE_LONGEST && source[size]) {
        char byte = source[size];
        // It will be printed, so nothing in it may upset a terminal.
        if (byte < ' ' || byte > '~')
            byte = '?';
        if (byte != ' ' && before == ' ' && word_count < WORDS_MOST)
            words[word_count++] = &cmdline[size];
        cmdline[size++] = byte;
        before = byte;
    }
    cmdline[size] = 0;
}

const char *cmdline_text(void)
{
    return cmdline;
}

static const char *cmdline_match(const char *word, const char *key)
{
    while (*key && *word == *key)
        word++, key++;
    if (*key)
        return NULL;
    if (*word == '=')
        return word + 1;
    return *word == ' ' || !*word ? word : NULL;
}

const char *cmdline_value(const char *key, unsigned skip)
{
    for (unsigned i = 0; i < word_count; i++) {
        const char *value = cmdline_match(words[i], key);
        if (value && !skip--)
            return value;
    }
    return NULL;
}

bool cmdline_has(const char *key)
{
    return cmdline_value(key, 0) != NULL;
}
