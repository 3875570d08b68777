//! Commands of a batch. A command is a header of 8 bytes and a fixed number of 8-byte words.
//!
//! Header bits: 0-7 the opcode, 8-15 the length of the whole command in words (header included),
//! 16-31 flags, 32-63 `imm`. A wrong length, an unknown opcode or flag, or a command that crosses
//! the end of the batch is a fault of kind `COMMAND`; the job fails and its queue is banned.
//!
//! A job has 16 registers of 64 bits, zero at its start. Widths are 4 or 8 bytes; addresses of
//! stores, loads, atomics and semaphores must be multiples of the width (else a fault of kind
//! `ADDRESS`). Every access goes through the GPU page tables of the queue's VM.

/// One opcode: its number, its length in words, the flags it may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opcode {
    /// Number in bits 0-7 of the header.
    pub code: u8,
    /// Length in 8-byte words with the header.
    pub words: u8,
    /// Flags it may carry.
    pub flags: u16,
    /// Name in dumps and documents.
    pub name: &'static str,
    /// Words after the header, and what it does.
    pub doc: &'static str,
}

/// Accesses are 8 bytes wide, not 4.
pub const WIDE: u16 = 1;
/// Atomics: ordered against the CPU and other devices, not only within the device.
pub const SYSTEM_SCOPE: u16 = 2;
/// The old or loaded value goes to register `imm` & 15 (bits 32-35).
pub const RESULT: u16 = 4;
/// Semaphore wait: succeed when (value & mask) >= operand rather than ==.
pub const GREATER_EQUAL: u16 = 8;

macro_rules! opcodes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $words:literal, $flags:expr;)+) => {
        $($(#[doc = $doc])+ pub const $name: Opcode = Opcode {
            code: $code, words: $words, flags: $flags, name: stringify!($name),
            doc: concat!($($doc, "\n"),+),
        };)+
        /// Every opcode.
        pub const OPCODES: &[Opcode] = &[$($name,)+];
    };
}
opcodes! {
    /// Nothing.
    NOP = 0, 1, 0;
    /// End of the batch; running off its end is the same.
    END = 1, 1, 0;
    /// `addr`, `value`: store the value.
    STORE = 2, 3, WIDE;
    /// `addr`: load into register `imm`.
    LOAD = 3, 2, WIDE;
    /// `addr`: store register `imm`.
    STORE_REG = 4, 2, WIDE;
    /// `src`, `dst`, `bytes`: copy, any alignment, ascending; at most 2 GiB.
    COPY = 5, 4, 0;
    /// `dst`, `bytes`, `value`: fill with the value's 4 or 8 bytes; `bytes` a multiple of that.
    FILL = 6, 4, WIDE;
    /// `addr`, `operand`, `compare`: atomic operation `imm` bits 8-15 (`ATOMIC_*`); the old value
    /// to register `imm` & 15 with `RESULT`.
    ATOMIC = 7, 4, WIDE | SYSTEM_SCOPE | RESULT;
    /// All earlier accesses of the job are visible before any later one.
    FENCE = 8, 1, SYSTEM_SCOPE;
    /// `addr`, `value`, `mask`: wait until the word at `addr` and'ed with the mask compares.
    SEMAPHORE_WAIT = 9, 4, WIDE | GREATER_EQUAL;
    /// `addr`, `value`: store with release ordering.
    SEMAPHORE_RELEASE = 10, 3, WIDE;
    /// `addr`: store the device's time (8 bytes, nanoseconds).
    TIMESTAMP = 11, 2, 0;
    /// Repeat the commands up to the matching `LOOP_END` `imm` times (1 to 1 << 20); nested 4 deep.
    LOOP = 12, 1, 0;
    /// End of the body of the innermost loop.
    LOOP_END = 13, 1, 0;
    /// `value`: add to register `imm`.
    ADD_REG = 14, 2, 0;
}

/// Atomic add.
pub const ATOMIC_ADD: u8 = 0;
/// Atomic exchange.
pub const ATOMIC_EXCHANGE: u8 = 1;
/// Atomic compare-exchange: store `operand` if the old value equals `compare`.
pub const ATOMIC_COMPARE_EXCHANGE: u8 = 2;
/// Atomic and.
pub const ATOMIC_AND: u8 = 3;
/// Atomic or.
pub const ATOMIC_OR: u8 = 4;
/// Atomic exclusive or.
pub const ATOMIC_XOR: u8 = 5;
/// Atomic unsigned minimum.
pub const ATOMIC_MIN: u8 = 6;
/// Atomic unsigned maximum.
pub const ATOMIC_MAX: u8 = 7;
/// Number of atomic operations.
pub const ATOMICS: u8 = 8;

/// Builds a header.
#[must_use]
pub const fn header(op: Opcode, flags: u16, imm: u32) -> u64 {
    op.code as u64 | (op.words as u64) << 8 | (flags as u64) << 16 | (imm as u64) << 32
}
