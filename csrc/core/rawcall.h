/* SPDX-License-Identifier: MIT
 *
 * System calls for a child that runs in our memory while our threads go on. It has no thread
 * control block of its own: whatever libc keeps there (errno, the state of cancellation, the stack
 * protector's value) is that of the thread which made it, who may be gone by now. So nothing of
 * libc is called, and nothing that a compiler or a sanitizer adds may call or look there either.
 */
#ifndef FCPROC_RAWCALL_H
#define FCPROC_RAWCALL_H

#include <stdint.h>
#include <sys/syscall.h>

#if defined(__has_attribute)
#if __has_attribute(no_stack_protector)
#define RAW_NO_STACK_PROTECTOR __attribute__((no_stack_protector))
#endif
#endif
#ifndef RAW_NO_STACK_PROTECTOR
#define RAW_NO_STACK_PROTECTOR __attribute__((optimize("no-stack-protector"))) /* gcc before 11 */
#endif

/* For every function that such a child runs. */
#define RAW_CODE           \
    RAW_NO_STACK_PROTECTOR \
    __attribute__((no_instrument_function, no_sanitize("address", "undefined", "thread")))

/* raw_call(number, up to five arguments): the result, or -errno. */
#define raw_call(...) RAW_CALL(__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define RAW_CALL(n, a, b, c, d, e, ...) \
    raw_call5((n), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))

/* What raw_clone starts: fn(arg) on its own stack. It must not return. */
typedef void raw_main(void *arg);

/* clone3(2) as of Linux 5.7; it names the stack by its lowest byte. */
struct raw_clone_args {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
    uint64_t set_tid, set_tid_size, cgroup;
};
#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP UINT64_C(0x200000000)
#endif

#if defined(__x86_64__) && defined(__LP64__)

RAW_CODE static inline long raw_call5(long number, long a, long b, long c, long d, long e)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    long r;

    __asm__ volatile("syscall"
                     : "=a"(r)
                     : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory", "cc");
    return r;
}

/* clone(2) with CLONE_PIDFD and a stack, whose top is a multiple of 16. The child keeps all our
 * registers but the stack pointer, so that fn and arg need no other way to it. */
RAW_CODE static inline long raw_clone(unsigned long flags, void *stack_top, int *ret_pidfd,
                                      raw_main *fn, void *arg)
{
    register long child_tid __asm__("r10") = 0;
    register long tls __asm__("r8") = 0;
    register raw_main *child_fn __asm__("r12") = fn;
    register void *child_arg __asm__("r13") = arg;
    long r;

    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t" /* the outermost frame */
                     "mov %%r13, %%rdi\n\t"
                     "call *%%r12\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(r)
                     : "0"((long)SYS_clone), "D"(flags), "S"(stack_top), "d"(ret_pidfd),
                       "r"(child_tid), "r"(tls), "r"(child_fn), "r"(child_arg)
                     : "rcx", "r11", "memory", "cc");
    return r;
}

/* The same by clone3(2). */
RAW_CODE static inline long raw_clone3(const struct raw_clone_args *args, raw_main *fn, void *arg)
{
    register raw_main *child_fn __asm__("r12") = fn;
    register void *child_arg __asm__("r13") = arg;
    long r;

    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "mov %%r13, %%rdi\n\t"
                     "call *%%r12\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(r)
                     : "0"((long)SYS_clone3), "D"(args), "S"(sizeof(*args)), "r"(child_fn),
                       "r"(child_arg)
                     : "rcx", "r11", "memory", "cc");
    return r;
}

#elif defined(__aarch64__) && defined(__LP64__)

RAW_CODE static inline long raw_call5(long number, long a, long b, long c, long d, long e)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;

    __asm__ volatile("svc #0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4)
                     : "memory", "cc");
    return x0;
}

RAW_CODE static inline long raw_clone(unsigned long flags, void *stack_top, int *ret_pidfd,
                                      raw_main *fn, void *arg)
{
    register long number __asm__("x8") = SYS_clone;
    register long x0 __asm__("x0") = (long)flags;
    register void *stack __asm__("x1") = stack_top;
    register int *pidfd __asm__("x2") = ret_pidfd;
    register long tls __asm__("x3") = 0;
    register long child_tid __asm__("x4") = 0;
    register raw_main *child_fn __asm__("x20") = fn;
    register void *child_arg __asm__("x21") = arg;

    __asm__ volatile("svc #0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, xzr\n\t" /* the outermost frame */
                     "mov x30, xzr\n\t"
                     "mov x0, x21\n\t"
                     "blr x20\n\t"
                     "brk #1\n"
                     "1:"
                     : "+r"(x0)
                     : "r"(number), "r"(stack), "r"(pidfd), "r"(tls), "r"(child_tid), "r"(child_fn),
                       "r"(child_arg)
                     : "memory", "cc");
    return x0;
}

RAW_CODE static inline long raw_clone3(const struct raw_clone_args *args, raw_main *fn, void *arg)
{
    register long number __asm__("x8") = SYS_clone3;
    register long x0 __asm__("x0") = (long)args;
    register long size __asm__("x1") = sizeof(*args);
    register raw_main *child_fn __asm__("x20") = fn;
    register void *child_arg __asm__("x21") = arg;

    __asm__ volatile("svc #0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, xzr\n\t"
                     "mov x30, xzr\n\t"
                     "mov x0, x21\n\t"
                     "blr x20\n\t"
                     "brk #1\n"
                     "1:"
                     : "+r"(x0)
                     : "r"(number), "r"(size), "r"(child_fn), "r"(child_arg)
                     : "memory", "cc");
    return x0;
}

#else
_Static_assert(0, "system calls without libc are written for x86-64 and aarch64 only");
#endif

#endif
