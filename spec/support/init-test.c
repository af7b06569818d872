/* SPDX-License-Identifier: MIT
 *
 * What the guest's /init reads, as a program of the host: of the command line on the standard input.
 *
 *   words                   a line for each word: name, or name=value
 *   value NAME              the last value, "-" when it is not there
 *   which FIRST SECOND      1, 2 or 0
 *   seconds NAME WITHOUT    a number
 *   parameters MODULE SIZE  a module's parameters
 *   ip                      the input is the value of ip=
 *   random COUNT SEED       all of that with hostile input: what is read must lie within bounds
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "init.h"

static struct cmdline line;

static void print_ip(const char *value)
{
    struct address address;
    char part[32];
    const char *wrong = address_read(&address, value, part, sizeof part);

    if (wrong) {
        printf("'%s' %s\n", part, wrong);
        return;
    }
    if (address.off || address.asked) {
        printf("%s\n", address.off ? "off" : address.asked);
        return;
    }
    printf("client %s", inet_ntoa(address.client));
    printf(" netmask %s", inet_ntoa(address.netmask));
    if (address.has_gateway)
        printf(" gateway %s", inet_ntoa(address.gateway));
    printf(" host '%s' domain '%s' device '%s'", address.host, address.domain, address.device);
    for (size_t i = 0; i < address.server_count; i++)
        printf(" dns %s", inet_ntoa(address.servers[i]));
    printf("\n");
}

static void print_words(void)
{
    for (size_t i = 0; i < line.count; i++) {
        const struct word *word = &line.words[i];
        printf("%s%s%s\n", word->name, word->value ? "=" : "", word->value ? word->value : "");
    }
    if (line.cut)
        printf("(cut)\n");
}

/* Words of what the parsers look for, more often than chance would have it. */
static size_t fill_at_random(char *to, size_t most)
{
    static const char *parts[] = { "ip=",    "root=", "\"",       " ",
                                   "=",      ":",     ".",        "--",
                                   "mod.a=", "mod-x", "10.0.0.1", "255.255.255.0",
                                   "\n",     "\xff",  "eth0",     "rootwait=" };
    size_t size = 0, wanted = (size_t)rand() % most;

    while (size < wanted) {
        const char *part = parts[(size_t)rand() % (sizeof parts / sizeof *parts)];
        size_t more = strlen(part);
        if (more > wanted - size)
            more = wanted - size;
        memcpy(to + size, part, more);
        size += more;
    }
    return size;
}

static void try_at_random(long count, unsigned seed)
{
    srand(seed);
    for (long i = 0; i < count; i++) {
        char parameters[64], part[16];
        struct address address;
        size_t size = fill_at_random(line.text, rand() % 8 ? 200 : sizeof line.text + 1);
        cmdline_split(&line, size);
        for (size_t j = 0; j < line.count; j++) {
            const struct word *word = &line.words[j];
            size_t room = (size_t)rand() % (sizeof part - 1) + 1;
            if (word->value)
                (void)address_read(&address, word->value, part, room);
        }
        (void)cmdline_value(&line, "root");
        (void)cmdline_seconds(&line, "rootwait", 1);
        size_t room = (size_t)rand() % sizeof parameters + 1;
        (void)cmdline_parameters(&line, "mod", parameters, room);
        if (strlen(parameters) >= room)
            abort();
    }
    printf("%ld\n", count);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    char parameters[256];

    if (strcmp(what, "random") == 0 && argc == 4) {
        try_at_random(atol(argv[2]), (unsigned)atol(argv[3]));
        return 0;
    }
    size_t size = fread(line.text, 1, sizeof line.text, stdin);
    if (strcmp(what, "ip") == 0) {
        line.text[size < sizeof line.text ? size : sizeof line.text - 1] = 0;
        print_ip(line.text);
        return 0;
    }
    cmdline_split(&line, size);
    if (strcmp(what, "words") == 0) {
        print_words();
    } else if (strcmp(what, "value") == 0 && argc == 3) {
        const char *value = cmdline_value(&line, argv[2]);
        printf("%s\n", value ? value : "-");
    } else if (strcmp(what, "which") == 0 && argc == 4) {
        printf("%d\n", cmdline_which(&line, argv[2], argv[3]));
    } else if (strcmp(what, "seconds") == 0 && argc == 4) {
        printf("%d\n", cmdline_seconds(&line, argv[2], atoi(argv[3])));
    } else if (strcmp(what, "parameters") == 0 && argc == 4) {
        size_t room = (size_t)atoi(argv[3]);
        if (!room || room > sizeof parameters)
            return 2;
        bool all = cmdline_parameters(&line, argv[2], parameters, room);
        printf("%s%s\n", parameters, all ? "" : " (not all)");
    } else {
        return 2;
    }
    return 0;
}
