/* SPDX-License-Identifier: MIT
 *
 * The kernel's command line, split as the kernel's own next_arg() does: a quoted word may hold blanks,
 * quotes around a value are no part of it, and "--" ends what is the kernel's.
 */
#include <string.h>
#include "init.h"

static bool is_blank(char letter)
{
    return letter == ' ' || (letter >= '\t' && letter <= '\r') || letter == (char)0xa0;
}

/* Ends the word at `at` in place, and returns where the next one is looked for. */
static char *split_word(char *at, struct word *word)
{
    bool quoted = *at == '"', in_quotes = quoted;
    char *equals = NULL, *end;

    if (quoted)
        at++;
    for (end = at; *end && (in_quotes || !is_blank(*end)); end++) {
        if (*end == '=' && !equals)
            equals = end;
        if (*end == '"')
            in_quotes = !in_quotes;
    }
    bool more = *end != 0;
    *end = 0;
    bool ends_in_quote = end > at && end[-1] == '"';
    word->name = at;
    word->value = NULL;
    if (equals) {
        *equals = 0;
        word->value = equals + 1;
        if (*word->value == '"') {
            word->value++;
            if (ends_in_quote && end > word->value)
                end[-1] = 0;
        }
    }
    if (quoted && ends_in_quote)
        end[-1] = 0;
    return more ? end + 1 : end;
}

void cmdline_split(struct cmdline *line, size_t size)
{
    char *at = line->text;

    line->count = 0;
    line->cut = size > CMDLINE_MOST;
    if (line->cut) { /* a word that is cut would say something else */
        for (size = CMDLINE_MOST; size && !is_blank(line->text[size - 1]);)
            size--;
    }
    line->text[size] = 0;
    while (line->count < WORDS_MOST) {
        struct word *word = &line->words[line->count];
        while (is_blank(*at))
            at++;
        if (!*at)
            return;
        at = split_word(at, word);
        if (!word->value && strcmp(word->name, "--") == 0)
            return;
        line->count++;
    }
    line->cut = true;
}

const char *cmdline_value(const struct cmdline *line, const char *name)
{
    for (size_t i = line->count; i-- > 0;) {
        if (strcmp(line->words[i].name, name) == 0)
            return line->words[i].value ? line->words[i].value : "";
    }
    return NULL;
}

int cmdline_which(const struct cmdline *line, const char *first, const char *second)
{
    for (size_t i = line->count; i-- > 0;) {
        if (line->words[i].value)
            continue;
        if (strcmp(line->words[i].name, first) == 0)
            return 1;
        if (strcmp(line->words[i].name, second) == 0)
            return 2;
    }
    return 0;
}

int cmdline_seconds(const struct cmdline *line, const char *name, int without)
{
    const char *value = cmdline_value(line, name);
    int seconds = 0;

    if (!value || !*value)
        return without;
    for (; *value; value++) {
        if (*value < '0' || *value > '9')
            return without;
        seconds = seconds * 10 + (*value - '0');
        if (seconds > 3600)
            return 3600;
    }
    return seconds;
}

/* The kernel takes '-' and '_' in a module's name for the same. Returns what follows "MODULE.". */
static const char *parameter_of(const char *name, const char *module)
{
    for (; *module; name++, module++) {
        char a = *name == '-' ? '_' : *name, b = *module == '-' ? '_' : *module;
        if (a != b)
            return NULL;
    }
    return *name == '.' && name[1] ? name + 1 : NULL;
}

/* Returns whether it was appended. */
static bool append(char *to, size_t size, size_t *used, const char *text)
{
    size_t length = strlen(text);

    if (length >= size - *used)
        return false;
    memcpy(to + *used, text, length + 1);
    *used += length;
    return true;
}

bool cmdline_parameters(const struct cmdline *line, const char *module, char *to, size_t size)
{
    bool all = true;
    size_t used = 0;

    *to = 0;
    for (size_t i = 0; i < line->count; i++) {
        const struct word *word = &line->words[i];
        const char *name = parameter_of(word->name, module);
        size_t before = used;
        if (!name)
            continue;
        const char *quote = word->value && strpbrk(word->value, " \t\n\v\f\r") ? "\"" : "";
        bool fits = (!used || append(to, size, &used, " ")) && append(to, size, &used, name);
        if (fits && word->value) {
            fits = append(to, size, &used, "=") && append(to, size, &used, quote) &&
                   append(to, size, &used, word->value) && append(to, size, &used, quote);
        }
        if (!fits) {
            used = before;
            to[used] = 0;
            all = false;
        }
    }
    return all;
}
