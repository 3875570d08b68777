//! The agent's code: position-dependent machine code that is copied to [`super::layout::CODE`] of a
//! client. Owns the two pages of code; whoever copies them ([`super::hook`]) knows nothing of them.
//!
//! It runs where nothing may be assumed: a thread that no library knows, with the client's thread
//! pointer, in the middle of anything. So it calls nothing, keeps its data at fixed addresses, and
//! its system calls come from the first page, which the filter lets pass. Only what is for the
//! host comes from the second.
//!
//! Three entries: the handler of `SIGSEGV` and `SIGBUS`, the agent itself, and `sigreturn`.
#![cfg(target_arch = "x86_64")]

use std::arch::global_asm;

// Registers of the agent: r15 lane, r14 number of the request in hand. A command's work is done by
// the code between `access` and `access_end`, which uses no stack but its return address: a fault
// there goes on at `access_fault`.
global_asm!(
    r#"
    .pushsection .text.fencepost_agent, "ax", @progbits
    .balign 4096
    .globl fencepost_agent_code
fencepost_agent_code:
    .quad 0x31746e6567417066                # "fpAgent1"
    .org fencepost_agent_code + 0x10
    jmp 70f
    .org fencepost_agent_code + 0x20
    jmp 20f
    .org fencepost_agent_code + 0x30
    mov eax, 15                             # rt_sigreturn
    syscall

    # ---- the handler: rdi signal, rsi siginfo, rdx ucontext -------------------------------------
70: endbr64
    mov rax, [rdx + 168]                    # rip
    lea rcx, [rip + 50f]
    cmp rax, rcx
    jb 71f
    lea rcx, [rip + 59f]
    cmp rax, rcx
    jae 71f
    lea rcx, [rip + 60f]
    mov [rdx + 168], rcx
    ret
71: push rbx
    push r12
    push r13
    movabs rbx, {data}
    mov r12, rsi
    mov r13, rdx
    cmp dword ptr [rsi + 8], -6             # SI_TKILL
    jne 12f
    xor eax, eax
    xchg eax, [rbx + {start}]
    test eax, eax
    jz 14f
    # The host asks for the agent.
    mov eax, 56                             # clone
    mov edi, 0x50b00                        # VM, FS, SIGHAND, THREAD, SYSVSEM
    lea rsi, [rbx + {stack}]
    xor edx, edx
    xor r10d, r10d
    xor r8d, r8d
    xor r9d, r9d
    syscall
    test eax, eax
    jz 20f
    jmp 13f
12: # A fault: the host says whether it was one of its own.
    cmp dword ptr [rsi + 8], 0
    jle 14f
    push rdi
    mov eax, 16                             # ioctl
    mov rdx, [rsi + 16]                     # si_addr
    mov r10, [r13 + 192]                    # error code
    mov r8, rdi
    mov rdi, -1
    mov esi, {fault}
    call 40f
    pop rdi
    test eax, eax
    jnz 14f
13: pop r13
    pop r12
    pop rbx
    ret
14: # Not ours: what the program has installed.
    mov eax, edi
    xor ecx, ecx
    cmp eax, 11
    je 15f
    mov ecx, 32
15: mov rax, [rbx + rcx + {handlers}]
    cmp rax, 1
    jbe 16f
    mov rsi, r12
    mov rdx, r13
    pop r13
    pop r12
    pop rbx
    jmp rax
16: cmp rax, 1
    jne 17f
    cmp dword ptr [r12 + 8], 0
    jle 13b                                 # ignored, and nobody faulted
17: # The default: the program ends of it.
    push rdi
    mov eax, 13                             # rt_sigaction
    lea rsi, [rbx + {default}]
    xor edx, edx
    mov r10d, 8
    syscall
    mov eax, 39                             # getpid
    syscall
    mov r8, rax
    mov eax, 186                            # gettid
    syscall
    mov rdi, r8
    mov rsi, rax
    pop rdx
    mov eax, 234                            # tgkill
    syscall
    jmp 13b

    # ---- the agent -----------------------------------------------------------------------------
20: xor ebp, ebp
    movabs rbx, {data}
    mov eax, 436                            # close_range: the copy of the client's descriptors
    xor edi, edi
    mov esi, -1
    xor edx, edx
    syscall
    mov eax, 14                             # rt_sigprocmask: all but SIGSEGV and SIGBUS
    mov edi, 2
    lea rsi, [rbx + {mask}]
    xor edx, edx
    mov r10d, 8
    syscall
    mov eax, 157                            # prctl(PR_SET_NAME)
    mov edi, 15
    lea rsi, [rbx + {name}]
    syscall
    mov eax, 16                             # ioctl: the host gives the control page
    mov rdi, -1
    mov esi, {hello}
    xor edx, edx
    call 40f
    test eax, eax
    js 29f
    mov r12d, eax
    mov eax, 9                              # mmap
    movabs rdi, {control}
    mov esi, {control_size}
    mov edx, 3
    mov r10d, 0x11                          # SHARED, FIXED
    mov r8d, r12d
    xor r9d, r9d
    syscall
    cmp rax, -4096
    ja 29f
    mov r15, rax
    mov eax, 28                             # madvise(DONTFORK)
    mov rdi, r15
    mov esi, {control_size}
    mov edx, 10
    syscall
    mov eax, 3                              # close
    mov edi, r12d
    syscall
    xor r14d, r14d
21: # The next request: looked for a while, then slept for.
    mov ecx, [r15 + 20]
22: mov eax, [r15]
    cmp eax, r14d
    jne 25f
    test ecx, ecx
    jz 23f
    dec ecx
    pause
    jmp 22b
23: mov dword ptr [r15 + 8], 1
    mfence
    mov eax, [r15]
    cmp eax, r14d
    jne 24f
    mov eax, 202                            # futex(WAIT)
    mov rdi, r15
    xor esi, esi
    mov edx, r14d
    xor r10d, r10d
    syscall
24: mov dword ptr [r15 + 8], 0
    jmp 21b
25: mov r14d, eax
    mov rdi, [r15 + 32]
    mov rsi, [r15 + 40]
    mov rdx, [r15 + 48]
    mov r8, [r15 + 56]
    mov eax, [r15 + 24]
    cmp eax, 10
    ja 28f
    lea rcx, [rip + 30f]
    movsxd rax, dword ptr [rcx + rax * 4]
    add rcx, rax
    call rcx
26: mov [r15 + 64], rax
    mov [r15 + 72], rdx
    mov [r15 + 4], r14d
    mfence
    cmp dword ptr [r15 + 12], 0
    je 21b
    mov eax, 202                            # futex(WAKE)
    lea rdi, [r15 + 4]
    mov esi, 1
    mov edx, 1
    syscall
    jmp 21b
28: mov rax, -38
    xor edx, edx
    jmp 26b
29: mov eax, 60                             # exit
    xor edi, edi
    syscall

    .balign 4
30: .long 31f - 30b                         # 0 exit
    .long 32f - 30b                         # 1 system calls
    .long 51f - 30b                         # 2 load, 4 bytes
    .long 52f - 30b                         # 3 load, 8 bytes
    .long 53f - 30b                         # 4 store, 4 bytes
    .long 54f - 30b                         # 5 store, 8 bytes
    .long 55f - 30b                         # 6 copy
    .long 56f - 30b                         # 7 fill
    .long 57f - 30b                         # 8 atomic, 4 bytes
    .long 58f - 30b                         # 9 atomic, 8 bytes
    .long 62f - 30b                         # 10 loop

31: mov eax, 60                             # exit: of this thread
    xor edi, edi
    syscall

    # rdi array of (number, six arguments, result), rsi count: as far as they succeed.
32: mov rbx, rdi
    mov rbp, rsi
    xor r12d, r12d
33: cmp r12, rbp
    jae 34f
    mov rax, [rbx]
    mov rdi, [rbx + 8]
    mov rsi, [rbx + 16]
    mov rdx, [rbx + 24]
    mov r10, [rbx + 32]
    mov r8, [rbx + 40]
    mov r9, [rbx + 48]
    syscall
    mov [rbx + 56], rax
    cmp rax, -4096
    ja 34f
    add rbx, 64
    inc r12
    jmp 33b
34: mov rax, r12
    xor edx, edx
    ret

    # rdi steps, rsi their number, rdx how often, r8 registers; rax steps done. A step: kind, register,
    # whether it has a result, atomic operation, a byte each; address, operand, comparand. r10 counts;
    # r11 is at a step, rcx behind the last one, r12 rounds left, r13 registers, rbx the first step.
62: mov rbx, rdi
    mov r12, rdx
    mov r13, r8
    shl rsi, 5
    lea rcx, [rdi + rsi]
    xor r10d, r10d
63: test r12, r12
    jz 69f
    mov r11, rbx
64: movzx eax, byte ptr [r11]
    mov rdi, [r11 + 8]
    movzx esi, byte ptr [r11 + 1]
    cmp al, 1
    ja 65f
    test al, al
    jnz 72f
    call 51f
    jmp 73f
72: call 52f
73: test edx, edx
    jnz 69f
    movzx esi, byte ptr [r11 + 1]
    mov [r13 + rsi * 8], rax
    jmp 68f
65: cmp al, 5
    ja 66f
    cmp al, 3
    ja 74f
    mov rsi, [r11 + 16]
    jmp 75f
74: mov rsi, [r13 + rsi * 8]
75: test al, 1
    jnz 76f
    call 53f
    jmp 77f
76: call 54f
77: test edx, edx
    jnz 69f
    jmp 68f
66: cmp al, 7
    ja 67f
    movzx esi, byte ptr [r11 + 3]
    mov rdx, [r11 + 16]
    mov r8, [r11 + 24]
    test al, 1
    jnz 78f
    call 57f
    jmp 79f
78: call 58f
79: test edx, edx
    jnz 69f
    cmp byte ptr [r11 + 2], 0
    je 68f
    movzx esi, byte ptr [r11 + 1]
    mov [r13 + rsi * 8], rax
    jmp 68f
67: cmp al, 8
    jne 80f
    mov rax, [r11 + 16]
    add [r13 + rsi * 8], rax
    jmp 68f
80: mfence
68: inc r10
    add r11, 32
    cmp r11, rcx
    jb 64b
    dec r12
    jmp 63b
69: mov rax, r10
    xor edx, edx
    ret

    # ---- accesses: rdi address -----------------------------------------------------------------
50:
51: mov eax, [rdi]
    xor edx, edx
    ret
52: mov rax, [rdi]
    xor edx, edx
    ret
53: mov [rdi], esi
    xor edx, edx
    ret
54: mov [rdi], rsi
    xor edx, edx
    ret

    # rdi target, rsi source, rdx length: words where both are aligned alike.
55: mov rcx, rdi
    xor rcx, rsi
    test cl, 7
    jnz 4f
81:  test rdx, rdx
    jz 9f
    test dil, 3
    jz 2f
    mov al, [rsi]
    mov [rdi], al
    inc rsi
    inc rdi
    dec rdx
    jmp 81b
2:  cmp rdx, 4
    jb 4f
    test dil, 7
    jz 3f
    mov eax, [rsi]
    mov [rdi], eax
    add rsi, 4
    add rdi, 4
    sub rdx, 4
3:  cmp rdx, 8
    jb 5f
    mov rax, [rsi]
    mov [rdi], rax
    add rsi, 8
    add rdi, 8
    sub rdx, 8
    jmp 3b
5:  cmp rdx, 4
    jb 4f
    mov eax, [rsi]
    mov [rdi], eax
    add rsi, 4
    add rdi, 4
    sub rdx, 4
4:  test rdx, rdx
    jz 9f
    mov al, [rsi]
    mov [rdi], al
    inc rsi
    inc rdi
    dec rdx
    jmp 4b
9:  xor eax, eax
    xor edx, edx
    ret

    # rdi address, rsi length, rdx value, r8 width.
56: cmp r8d, 8
    je 2f
81:  cmp rsi, 4
    jb 9b
    mov [rdi], edx
    add rdi, 4
    sub rsi, 4
    jmp 81b
2:  cmp rsi, 8
    jb 9b
    mov [rdi], rdx
    add rdi, 8
    sub rsi, 8
    jmp 2b

    # rdi address, rsi operation, rdx operand, r8 comparand; rax the old value.
    .macro fencepost_atomic operand, scratch, comparand, acc
    cmp esi, 0
    jne 81f
    mov \acc, \operand
    lock xadd [rdi], \acc
    xor edx, edx
    ret
81:  cmp esi, 1
    jne 2f
    mov \acc, \operand
    xchg [rdi], \acc
    xor edx, edx
    ret
2:  cmp esi, 2
    jne 3f
    mov \acc, \comparand
    lock cmpxchg [rdi], \operand
    xor edx, edx
    ret
3:  mov \acc, [rdi]
4:  mov \scratch, \acc
    cmp esi, 3
    jne 5f
    and \scratch, \operand
    jmp 9f
5:  cmp esi, 4
    jne 6f
    or \scratch, \operand
    jmp 9f
6:  cmp esi, 5
    jne 7f
    xor \scratch, \operand
    jmp 9f
7:  cmp esi, 6
    jne 8f
    cmp \operand, \acc
    cmovb \scratch, \operand
    jmp 9f
8:  cmp \operand, \acc
    cmova \scratch, \operand
9:  lock cmpxchg [rdi], \scratch
    jne 4b
    xor edx, edx
    ret
    .endm
57: fencepost_atomic edx, r9d, r8d, eax
58: fencepost_atomic rdx, r9, r8, rax
59:
60: xor eax, eax
    mov edx, 1
    ret

    # ---- calls for the host, which the filter sends there --------------------------------------
    .org fencepost_agent_code + 4096
40: syscall
    ret
    .org fencepost_agent_code + 8192
    .popsection
    "#,
    data = const super::layout::DATA,
    control = const super::layout::CONTROL,
    control_size = const super::layout::CONTROL_SIZE,
    start = const super::layout::data::START,
    handlers = const super::layout::data::HANDLERS,
    default = const super::layout::data::DEFAULT,
    mask = const super::layout::data::MASK,
    name = const super::layout::data::NAME,
    stack = const super::layout::data::STACK,
    fault = const super::layout::ASK_FAULT,
    hello = const super::layout::ASK_HELLO,
);

unsafe extern "C" {
    /// First byte of the code.
    static fencepost_agent_code: [u8; super::layout::CODE_SIZE as usize];
}

/// The two pages of code.
pub(crate) fn code() -> &'static [u8] {
    // SAFETY: the label begins a block of exactly that size in a section that is never written.
    unsafe { &fencepost_agent_code }
}
