/* SPDX-License-Identifier: MIT
 *
 * Stands in the place of a VMM, as one that was broken into: tries what a jail is to prevent, and writes
 * a line for each, "NAME RESULT", on its console. What it is to attack its configuration's boot_args
 * name: secret=PATH socket=PATH manager=PID victim=PID child=PID bridge=NAME tap=NAME address=NUMBER.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

static char config[65536];

static const char *wanted(const char *name, char *buf, size_t size)
{
    char key[32];
    const char *at;
    size_t len;

    (void)snprintf(key, sizeof(key), " %s=", name);
    at = strstr(config, key);
    at = at ? at + strlen(key) : "";
    len = strcspn(at, " \"");
    (void)snprintf(buf, size, "%.*s", (int)len, at);
    return buf;
}

static void tell(const char *name, long r)
{
    printf("%s %s\n", name, r < 0 ? strerrorname_np(errno) : "done");
}

static void attack_files(void)
{
    char path[4096];

    tell("passwd", open("/etc/passwd", O_RDONLY));
    tell("secret", open(wanted("secret", path, sizeof(path)), O_RDONLY));
    tell("journal", open("../vm.json", O_RDWR));
    tell("write-root", mkdir("/new", 0755));
    tell("write-binary", open("/proc/self/exe", O_WRONLY));
    tell("proc", mount("proc", ".", "proc", 0, NULL));
    tell("remount", mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL));
    tell("mknod", mknod("disk", S_IFBLK | 0600, 0x800));
    tell("user-namespace", unshare(CLONE_NEWUSER));
}

static void attack_socket(void)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    wanted("socket", a.sun_path, sizeof(a.sun_path));
    tell("socket", connect(fd, (struct sockaddr *)&a, sizeof(a)));
}

static void attack_process(const char *name)
{
    char text[64], address[64], what[64], byte = 'x';
    pid_t pid = atoi(wanted(name, text, sizeof(text)));
    struct iovec here = { .iov_base = &byte, .iov_len = 1 }, there = { .iov_len = 1 };

    there.iov_base = (void *)strtoul(wanted("address", address, sizeof(address)), NULL, 0);
    (void)snprintf(what, sizeof(what), "read-%s", name);
    tell(what, process_vm_readv(pid, &here, 1, &there, 1, 0));
    (void)snprintf(what, sizeof(what), "write-%s", name);
    tell(what, process_vm_writev(pid, &here, 1, &there, 1, 0));
    (void)snprintf(what, sizeof(what), "trace-%s", name);
    tell(what, ptrace(PTRACE_SEIZE, pid, 0, 0));
    (void)snprintf(what, sizeof(what), "/proc/%d/mem", pid);
    (void)printf("mem-%s %s\n", name, open(what, O_RDWR) < 0 ? strerrorname_np(errno) : "done");
    (void)snprintf(what, sizeof(what), "signal-%s", name);
    tell(what, kill(pid, 0));
}

static void attack_network(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0), tun = open("/dev/net/tun", O_RDWR);
    struct ifreq bridge = { 0 }, tap = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR },
                 new = tap;
    char name[64];

    (void)snprintf(bridge.ifr_name, IFNAMSIZ, "%s", wanted("bridge", name, sizeof(name)));
    tell("bridge-down", ioctl(fd, SIOCSIFFLAGS, &bridge));
    tell("raw", socket(AF_PACKET, SOCK_RAW, 0));
    (void)snprintf(tap.ifr_name, IFNAMSIZ, "%s", wanted("tap", name, sizeof(name)));
    tell("tap", ioctl(tun, TUNSETIFF, &tap));
    (void)snprintf(new.ifr_name, IFNAMSIZ, "fcnew0");
    tell("new-tap", ioctl(tun, TUNSETIFF, &new));
}

static void attack_rights(void)
{
    tell("new-privileges", prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
    tell("securebits", prctl(PR_SET_SECUREBITS, 0, 0, 0, 0));
    tell("ambient", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 12, 0, 0));
    (void)printf("bounding %s\n", prctl(PR_CAPBSET_READ, 12, 0, 0, 0) ? "done" : "EPERM");
}

/* After this no path leads anywhere. */
static void attack_roots(void)
{
    tell("mount-namespace", unshare(CLONE_NEWNS));
    tell("chroot", chroot("."));
}

int main(void)
{
    FILE *file = fopen("config.json", "r");

    if (!file)
        return 1;
    (void)!fread(config, 1, sizeof(config) - 1, file);
    (void)fclose(file);
    attack_files();
    attack_socket();
    attack_process("manager");
    attack_process("victim");
    attack_process("child");
    attack_network();
    attack_rights();
    attack_roots();
    printf("end done\n");
    return 3;
}
