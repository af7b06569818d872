/* SPDX-License-Identifier: MIT
 *
 * Loads the kernel's modules in the order of the list that stands beside them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "init.h"

#define FOLDER "/modules/"

/* Until it is loaded twice, a module fills memory: the file goes at once. */
static void load(const struct cmdline *line, const char *file)
{
    char path[256], name[64], parameters[CMDLINE_MOST];

    if (snprintf(path, sizeof path, FOLDER "%s", file) >= (int)sizeof path)
        return say("module %s: its name is too long", file);
    size_t size = strcspn(file, ".");
    snprintf(name, sizeof name, "%.*s", (int)size, file);
    if (!cmdline_parameters(line, name, parameters, sizeof parameters))
        say("module %s: not all of its parameters find room", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return say("open %s: %s", path, strerror(errno));
    /* EEXIST: the kernel has it; ENODEV: a driver for a processor or a device that is not here. */
    if (syscall(SYS_finit_module, fd, parameters, 0) < 0 && errno != EEXIST && errno != ENODEV)
        say("load module %s: %s", name, strerror(errno));
    close(fd);
    unlink(path);
}

void modules_load(const struct cmdline *line)
{
    static char list[65536];
    char *rest = list;
    long size = read_file(FOLDER "list", list, sizeof list - 1);

    if (size < 0) {
        if (errno != ENOENT) /* a kernel with all drivers built in */
            say("read " FOLDER "list: %s", strerror(errno));
        return;
    }
    list[size] = 0;
    for (char *file; (file = strsep(&rest, "\n"));) {
        if (*file)
            load(line, file);
    }
    unlink(FOLDER "list");
    rmdir(FOLDER);
}
