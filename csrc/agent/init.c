/* SPDX-License-Identifier: MIT
 *
 * /init of fcproc's initrd: what a stock kernel needs before its root can be.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include "init.h"

#define ROOT "/root"

static void mount_at(const char *path, const char *type, unsigned long flags, const char *data)
{
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        fail("make the folder %s: %s", path, strerror(errno));
    /* EBUSY: the kernel itself has mounted it. */
    if (mount(type, path, type, flags, data) < 0 && errno != EBUSY)
        fail("mount %s on %s: %s", type, path, strerror(errno));
}

/* The kernel opens /dev/console of the initrd for us, if that holds one. */
static void open_console(void)
{
    if (fcntl(0, F_GETFD) >= 0)
        return;
    int fd = open("/dev/console", O_RDWR | O_NOCTTY);
    if (fd < 0) /* none: what we say is in the kernel's log */
        return;
    if (fd != 0)
        (void)dup2(fd, 0);
    (void)dup2(0, 1);
    (void)dup2(0, 2);
    if (fd > 2)
        close(fd);
}

int main(int argc, char **argv)
{
    static struct cmdline line;

    (void)argc;
    if (getpid() != 1)
        fail("this is the first process of a VM, and of no use elsewhere");
    umask(022);
    mount_at("/dev", "devtmpfs", MS_NOSUID, "mode=0755");
    open_console();
    mount_at("/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_at("/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_at("/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");

    long size = read_file("/proc/cmdline", line.text, sizeof line.text);
    if (size < 0)
        fail("read /proc/cmdline: %s", strerror(errno));
    cmdline_split(&line, (size_t)size);
    if (line.cut)
        say("the kernel's command line is longer than %d bytes: its end is not read", CMDLINE_MOST);
    devices_listen();
    modules_load(&line);
    network_start(&line);
    root_mount(&line, ROOT);
    root_enter(&line, ROOT, argv);
}
