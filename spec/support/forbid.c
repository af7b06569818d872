/* SPDX-License-Identifier: MIT
 *
 * Runs a command in which a system call fails: what a kernel does only when memory ends.
 * forbid NUMBER ERRNO COMMAND...
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    uint32_t number = argc > 3 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0;
    uint32_t sys_errno = argc > 3 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0;
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | sys_errno),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { .len = sizeof(code) / sizeof(code[0]), .filter = code };

    if (argc < 4 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0) {
        perror("forbid");
        return 127;
    }
    (void)execvp(argv[3], argv + 3);
    perror(argv[3]);
    return 127;
}
