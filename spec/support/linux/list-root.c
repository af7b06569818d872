/* SPDX-License-Identifier: MIT
 *
 * What is below a folder, a line for each name, in the order of their bytes: list-root FOLDER FILE. As the
 * first program of a guest, without arguments, it lists what is on /dev/vda to /dev/vdb, lets the guest's own
 * shell say something, and ends the VM. Static, so that it needs nothing of what it lists.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { MOST = 1 << 16 };

static FILE *out;
static char buffer[1 << 20];

static void fail(const char *what, const char *path)
{
    fprintf(stderr, "list-root: %s %s: %m\n", what, path);
    exit(1);
}

static uint64_t add(uint64_t hash, const char *data, size_t len)
{
    uint64_t word;
    size_t i;

    /* Eight bytes at once: the processor may be emulated twice. */
    for (i = 0; i + sizeof(word) <= len; i += sizeof(word)) {
        memcpy(&word, data + i, sizeof(word));
        hash = (hash ^ word) * 0x100000001b3;
        hash ^= hash >> 32;
    }
    for (; i < len; i++)
        hash = (hash ^ (unsigned char)data[i]) * 0x100000001b3;
    return hash;
}

static void put_name(const char *name)
{
    for (; *name; name++)
        if (*name > ' ' && *name < 127 && *name != '%')
            fputc(*name, out);
        else
            fprintf(out, "%%%02x", (unsigned char)*name);
}

static void put_content(const char *path)
{
    uint64_t hash = 0xcbf29ce484222325;
    int fd = open(path, O_RDONLY);
    ssize_t n;

    if (fd < 0)
        fail("can't open", path);
    while ((n = read(fd, buffer, sizeof(buffer))) > 0)
        hash = add(hash, buffer, (size_t)n);
    if (n < 0)
        fail("can't read", path);
    close(fd);
    fprintf(out, " %016llx", (unsigned long long)hash);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names of one inode have its first name. */
static void put_links(const struct stat *st, const char *name)
{
    static struct {
        ino_t ino;
        char *name;
    } first[MOST];
    static size_t count;
    size_t i = 0;

    fprintf(out, " %llu", (unsigned long long)st->st_nlink);
    if (st->st_nlink == 1)
        return;
    while (i < count && first[i].ino != st->st_ino)
        i++;
    if (i == MOST)
        fail("too many links:", name);
    if (i == count) {
        first[count].ino = st->st_ino;
        first[count++].name = strdup(name);
    }
    fputc('=', out);
    put_name(first[i].name);
}

static void put_xattrs(const char *path)
{
    char names[4096], value[MOST], *list[256] = { NULL };
    ssize_t len = llistxattr(path, names, sizeof(names));
    size_t count = 0;

    if (len < 0)
        fail("can't list the xattrs of", path);
    for (char *name = names; name < names + len && count < 256; name += strlen(name) + 1)
        list[count++] = name;
    qsort(list, count, sizeof(list[0]), by_name);
    for (size_t i = 0; i < count; i++) {
        ssize_t n = lgetxattr(path, list[i], value, sizeof(value));

        if (n < 0)
            fail("can't read an xattr of", path);
        fprintf(out, " %s=%016llx", list[i], (unsigned long long)add(1, value, (size_t)n));
    }
}

static void list(const char *path, size_t root)
{
    char target[4097], **names;
    struct dirent *entry;
    size_t count = 0;
    struct stat st;
    DIR *dir;

    if (lstat(path, &st) < 0)
        fail("can't look at", path);
    put_name(path[root] ? path + root : "/");
    fprintf(out, " %o %u:%u %lld.%09ld", st.st_mode, st.st_uid, st.st_gid, (long long)st.st_mtim.tv_sec,
            st.st_mtim.tv_nsec);
    if (!S_ISDIR(st.st_mode))
        put_links(&st, path + root);
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
        fprintf(out, " %u,%u", major(st.st_rdev), minor(st.st_rdev));
    if (S_ISLNK(st.st_mode)) {
        ssize_t n = readlink(path, target, sizeof(target) - 1);

        target[n < 0 ? 0 : n] = '\0';
        fputc(' ', out);
        put_name(target);
    }
    if (S_ISREG(st.st_mode)) {
        fprintf(out, " %llu", (unsigned long long)st.st_size);
        put_content(path);
    }
    put_xattrs(path);
    fputc('\n', out);
    if (!S_ISDIR(st.st_mode))
        return;
    dir = opendir(path);
    names = malloc(MOST * sizeof(*names));
    if (!dir || !names)
        fail("can't open", path);
    while ((entry = readdir(dir)) && count < MOST)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            (path[root] || strcmp(entry->d_name, "lost+found") != 0))
            names[count++] = strdup(entry->d_name);
    closedir(dir);
    qsort(names, count, sizeof(names[0]), by_name);
    for (size_t i = 0; i < count; i++) {
        char *below;

        if (asprintf(&below, "%s/%s", path, names[i]) < 0)
            fail("no memory for", path);
        list(below, root);
        free(below);
        free(names[i]);
    }
    free(names);
}

static void list_to(const char *folder, const char *file)
{
    out = fopen(file, "w");
    if (!out)
        fail("can't write", file);
    list(folder, strlen(folder));
    if (fputs("that is all\n", out) < 0 || fflush(out) != 0 || fsync(fileno(out)) < 0)
        fail("can't write", file);
}

int main(int argc, char **argv)
{
    if (argc == 3) {
        list_to(argv[1], argv[2]);
        return 0;
    }
    /* Once more, where nothing is mounted over what is in it. */
    if (mkdir("/run/root", 0755) < 0 ||
        mount("/dev/vda", "/run/root", "ext4", MS_RDONLY, NULL) < 0)
        fail("can't mount", "/dev/vda");
    list_to("/run/root", "/dev/vdb");
    printf("list-root: all is listed\n");
    fflush(stdout);
    if (fork() == 0) {
        execl("/bin/sh", "sh", "-c", ". /etc/os-release; echo \"$PRETTY_NAME says hello\"", (char *)NULL);
        fail("can't execute", "/bin/sh");
    }
    wait(NULL);
    sync();
    return reboot(RB_AUTOBOOT);
}
