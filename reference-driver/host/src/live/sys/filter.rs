//! Builds the seccomp program that decides which system calls of a client go to the host. Owns the
//! choice of calls; installing the program is [`super::notify`]'s.
//!
//! Trapped: every call that opens a path (a filter cannot read the path), ioctls of type `d` (DRM),
//! `>` (sync files) and `H` (test_hmm), and `mmap` of a file that is shared or has an offset at or above 4 GiB. Private
//! file mappings below that, as the dynamic linker makes them, cannot be of a buffer object and
//! stay at native speed.
//!
//! Where address spaces can be mirrored, calls that change mappings are trapped as well, and actions
//! for the signals of bad accesses. Calls of the agent, known by where they are made, never are.

use super::super::agent::layout::CODE;
use super::number::ARCH;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const AUDIT: u32 = 4;
const IP: u32 = 8;
const ARGS: u32 = 16;

/// Ioctl types that are served.
pub(crate) const TYPES: [u32; 3] = [b'd' as u32, b'>' as u32, b'H' as u32];

/// The low half of an argument.
const fn low(arg: u32) -> u32 {
    ARGS + 8 * arg + if cfg!(target_endian = "big") { 4 } else { 0 }
}

/// The high half of an argument.
const fn high(arg: u32) -> u32 {
    ARGS + 8 * arg + if cfg!(target_endian = "big") { 0 } else { 4 }
}

const fn statement(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

/// Compares the accumulator with `k`; skips `yes` or `no` instructions.
const fn equal(k: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter { code: EQUAL, jt: yes, jf: no, k }
}

const ALLOW: libc::sock_filter = statement(RETURN, libc::SECCOMP_RET_ALLOW);
const NOTIFY: libc::sock_filter = statement(RETURN, libc::SECCOMP_RET_USER_NOTIF);

/// The program for this architecture; `mirror`: address spaces can be mirrored.
pub(crate) fn program(mirror: bool) -> Vec<libc::sock_filter> {
    let mut program = vec![statement(LOAD, AUDIT), equal(ARCH.audit, 1, 0), ALLOW];
    if mirror {
        program.extend(agent());
    }
    program.push(statement(LOAD, NR));
    for open in ARCH.opens {
        block(&mut program, open.nr, &[NOTIFY]);
    }
    block(&mut program, ARCH.ioctl, &ioctl());
    block(&mut program, ARCH.mmap, &mmap(mirror));
    if mirror {
        for nr in ARCH.mm {
            block(&mut program, *nr, &[NOTIFY]);
        }
        #[cfg(target_arch = "x86_64")]
        block(&mut program, libc::SYS_fork, &[NOTIFY]);
        block(&mut program, libc::SYS_clone, &clone());
        block(&mut program, libc::SYS_rt_sigaction, &sigaction());
    }
    program.push(ALLOW);
    program
}

/// A program that refuses calls with `EPERM`, or `ENOSYS` for `clone3`.
pub(crate) fn refusing(calls: &[i64]) -> Vec<libc::sock_filter> {
    let mut program = vec![statement(LOAD, NR)];
    for nr in calls {
        let errno = if *nr == libc::SYS_clone3 { libc::ENOSYS } else { libc::EPERM };
        let refuse = statement(RETURN, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned());
        block(&mut program, *nr, &[refuse]);
    }
    program.push(ALLOW);
    program
}

/// Appends `body`, which must return on every path, for one call; other calls skip it.
fn block(program: &mut Vec<libc::sock_filter>, nr: i64, body: &[libc::sock_filter]) {
    let skip = u8::try_from(body.len()).expect("a block of less than 256 instructions");
    program.push(equal(u32::try_from(nr).expect("a system-call number"), 0, skip));
    program.extend_from_slice(body);
}

fn ioctl() -> [libc::sock_filter; 7] {
    [
        statement(LOAD, low(1)),
        statement(AND, 0xff00),
        equal(TYPES[0] << 8, 3, 0),
        equal(TYPES[1] << 8, 2, 0),
        equal(TYPES[2] << 8, 1, 0),
        ALLOW,
        NOTIFY,
    ]
}

fn mmap(mirror: bool) -> Vec<libc::sock_filter> {
    const ANONYMOUS: u32 = libc::MAP_ANONYMOUS as u32;
    const PRIVATE: u32 = libc::MAP_PRIVATE as u32;
    const FIXED: u32 = libc::MAP_FIXED as u32;
    let mut program = Vec::new();
    if mirror {
        program.extend([
            statement(LOAD, low(3)),
            statement(AND, FIXED),
            equal(FIXED, 0, 1),
            NOTIFY,
        ]);
    }
    program.extend([
        statement(LOAD, low(3)),
        statement(AND, ANONYMOUS),
        equal(ANONYMOUS, 0, 1),
        ALLOW,
        statement(LOAD, low(3)),
        statement(AND, libc::MAP_TYPE as u32),
        equal(PRIVATE, 0, 3),
        statement(LOAD, high(5)),
        equal(0, 0, 1),
        ALLOW,
        NOTIFY,
    ]);
    program
}

/// Allows what the agent's page calls; goes on otherwise.
fn agent() -> [libc::sock_filter; 6] {
    let (low, high) = (IP, IP + 4);
    let (low, high) = if cfg!(target_endian = "big") { (high, low) } else { (low, high) };
    [
        statement(LOAD, high),
        equal((CODE >> 32) as u32, 0, 4),
        statement(LOAD, low),
        statement(AND, 0xffff_f000),
        equal(CODE as u32, 0, 1),
        ALLOW,
    ]
}

/// A new process, unless it shares the address space.
fn clone() -> [libc::sock_filter; 5] {
    const SHARED: u32 = libc::CLONE_VM as u32;
    [statement(LOAD, low(0)), statement(AND, SHARED), equal(SHARED, 0, 1), ALLOW, NOTIFY]
}

/// New actions for the signals that the agent's handler takes; who only asks is answered by the kernel.
fn sigaction() -> [libc::sock_filter; 10] {
    [
        statement(LOAD, low(0)),
        equal(libc::SIGSEGV.cast_unsigned(), 2, 0),
        equal(libc::SIGBUS.cast_unsigned(), 1, 0),
        ALLOW,
        statement(LOAD, low(1)),
        equal(0, 0, 2),
        statement(LOAD, high(1)),
        equal(0, 1, 0),
        NOTIFY,
        ALLOW,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel does.
    fn run(mirror: bool, from: u64, nr: i64, audit: u32, args: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend_from_slice(&u32::try_from(nr).unwrap().to_ne_bytes());
        data.extend_from_slice(&audit.to_ne_bytes());
        data.extend_from_slice(&from.to_ne_bytes());
        for arg in args {
            data.extend_from_slice(&arg.to_ne_bytes());
        }
        let (program, mut at, mut acc) = (program(mirror), 0, 0u32);
        loop {
            let step = program[at];
            at += 1;
            match step.code {
                LOAD => {
                    let from = step.k as usize;
                    acc = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
                }
                AND => acc &= step.k,
                EQUAL => at += usize::from(if acc == step.k { step.jt } else { step.jf }),
                RETURN => return step.k,
                other => panic!("unexpected instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn exactly_the_calls_that_can_reach_the_device_are_trapped() {
        let shared = libc::MAP_SHARED as u64;
        let private = libc::MAP_PRIVATE as u64;
        let anonymous = libc::MAP_ANONYMOUS as u64;
        let table: &[(&str, i64, [u64; 6], bool)] = &[
            ("openat", libc::SYS_openat, [0; 6], true),
            ("openat2", libc::SYS_openat2, [0; 6], true),
            ("read", libc::SYS_read, [0; 6], false),
            ("drm ioctl", libc::SYS_ioctl, [3, 0xc010_640c, 0, 0, 0, 0], true),
            ("sync ioctl", libc::SYS_ioctl, [3, 0xc038_3e04, 0, 0, 0, 0], true),
            ("tcgets", libc::SYS_ioctl, [3, 0x5401, 0, 0, 0, 0], false),
            ("type in the high half", libc::SYS_ioctl, [3, 0x6400_0000_0000, 0, 0, 0, 0], false),
            ("shared file", libc::SYS_mmap, [0, 4096, 3, shared, 3, 0], true),
            ("validated", libc::SYS_mmap, [0, 4096, 3, 3, 3, 0], true),
            ("shared at an offset", libc::SYS_mmap, [0, 4096, 3, shared, 3, 1 << 32], true),
            ("private file", libc::SYS_mmap, [0, 4096, 3, private, 3, 0], false),
            ("private at an offset", libc::SYS_mmap, [0, 4096, 3, private, 3, 1 << 32], true),
            ("anonymous", libc::SYS_mmap, [0, 4096, 3, private | anonymous, !0, 0], false),
            ("shared anonymous", libc::SYS_mmap, [0, 4096, 3, shared | anonymous, !0, 0], false),
        ];
        for (name, nr, args, trapped) in table {
            let want =
                if *trapped { libc::SECCOMP_RET_USER_NOTIF } else { libc::SECCOMP_RET_ALLOW };
            for mirror in [false, true] {
                assert_eq!(run(mirror, 0, *nr, ARCH.audit, *args), want, "{name}");
                let foreign = run(mirror, 0, *nr, 0x4000_0003, *args);
                assert_eq!(foreign, libc::SECCOMP_RET_ALLOW, "{name}, 32-bit");
            }
        }
    }

    #[test]
    fn changes_of_mappings_are_trapped_where_they_matter() {
        let fixed = (libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_ANONYMOUS) as u64;
        let vm = libc::CLONE_VM as u64;
        let table: &[(&str, i64, [u64; 6], bool)] = &[
            ("munmap", libc::SYS_munmap, [0; 6], true),
            ("brk", libc::SYS_brk, [0; 6], true),
            ("fixed", libc::SYS_mmap, [4096, 4096, 3, fixed, !0, 0], true),
            ("process", libc::SYS_clone, [0; 6], true),
            ("thread", libc::SYS_clone, [vm, 0, 0, 0, 0, 0], false),
            ("SIGSEGV", libc::SYS_rt_sigaction, [11, 1 << 32, 0, 8, 0, 0], true),
            ("SIGBUS", libc::SYS_rt_sigaction, [7, 4096, 0, 8, 0, 0], true),
            ("SIGSEGV?", libc::SYS_rt_sigaction, [11, 0, 4096, 8, 0, 0], false),
            ("SIGUSR1", libc::SYS_rt_sigaction, [10, 4096, 0, 8, 0, 0], false),
        ];
        for (name, nr, args, trapped) in table {
            let allow = libc::SECCOMP_RET_ALLOW;
            let want = if *trapped { libc::SECCOMP_RET_USER_NOTIF } else { allow };
            assert_eq!(run(true, 0x1234, *nr, ARCH.audit, *args), want, "{name}");
            assert_eq!(run(true, CODE + 2, *nr, ARCH.audit, *args), allow, "{name} by the agent");
            assert_eq!(run(false, 0x1234, *nr, ARCH.audit, *args), allow, "{name}, no mirror");
        }
        let ioctl = [u64::MAX, 0x64ff, 0, 0, 0, 0];
        let asked = run(true, CODE + 4096, libc::SYS_ioctl, ARCH.audit, ioctl);
        assert_eq!(asked, libc::SECCOMP_RET_USER_NOTIF, "what the agent asks the host");
    }
}
