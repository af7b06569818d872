// SPDX-License-Identifier: MIT
//
// The two places where the processor enters the guest: at boot, in long mode with interrupts off
// and the boot parameters' address in RSI, and at every exception and interrupt. Both get ready
// for C and call it.

    .section .text.entry, "ax"
    .globl guest_entry
guest_entry:
    cld
    lea     guest_stack_end(%rip), %rsp
    xor     %ebp, %ebp
    mov     %rsi, %rbx

    // A loader need not clear what the file does not hold.
    lea     guest_bss_start(%rip), %rdi
    lea     guest_bss_end(%rip), %rcx
    sub     %rdi, %rcx
    shr     $3, %rcx
    xor     %eax, %eax
    rep stosq

    // Our own segments, in memory that we know nobody reuses.
    lgdt    gdt_pointer(%rip)
    mov     $0x10, %eax
    mov     %eax, %ds
    mov     %eax, %es
    mov     %eax, %ss
    xor     %eax, %eax
    mov     %eax, %fs
    mov     %eax, %gs
    pushq   $0x08
    lea     1f(%rip), %rax
    push    %rax
    lretq
1:
    mov     %rbx, %rdi
    call    guest_main
    ud2

    // One stub per vector: each leaves its number, with a zero where the processor pushed no error
    // code, so that one routine can serve them all. Every stub has the same size, which is what
    // makes stub N findable as interrupt_stubs + N * 16.
    .text
    .globl interrupt_stubs
    .balign 16
interrupt_stubs:
    .set vector, 0
    .rept 64
    .balign 16
    .if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) \
        || (vector == 29) || (vector == 30)
    .else
    pushq   $0
    .endif
    pushq   $vector
    jmp     interrupt_common
    .set vector, vector + 1
    .endr

    // Saves what a C function may change; the stack here is the layout of struct interrupt_frame.
    .balign 16
interrupt_common:
    push    %rax
    push    %rcx
    push    %rdx
    push    %rsi
    push    %rdi
    push    %r8
    push    %r9
    push    %r10
    push    %r11
    cld
    mov     %rsp, %rdi
    // The processor aligned the stack and pushed 5 words; 2 + 9 more make an even number.
    call    interrupt_handle
    pop     %r11
    pop     %r10
    pop     %r9
    pop     %r8
    pop     %rdi
    pop     %rsi
    pop     %rdx
    pop     %rcx
    pop     %rax
    add     $16, %rsp
    iretq

    .section .rodata
    .balign 8
gdt:
    .quad   0
    .quad   0x00af9b000000ffff      // code, 64 bits, ring 0
    .quad   0x00cf93000000ffff      // data
gdt_end:
gdt_pointer:
    .word   gdt_end - gdt - 1
    .quad   gdt

    .section .bss.uncleared, "aw", @nobits
    .balign 16
    .skip   16384
guest_stack_end:

    .section .note.GNU-stack, "", @progbits
