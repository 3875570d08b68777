//! Where things stand in a client's address space, and what the agent and the host say to each other.
//! Owns the numbers; has no behaviour.
//!
//! All of it is far below where Linux places programs, heaps and libraries on x86-64, so that a
//! program does not come across it by chance; mirrored translations of it are refused.

/// Device memory of SVM, a window for each device: the page of frame `n` stands at `n * PAGE` there.
pub(crate) const WINDOW: u64 = 0x5000_0000_0000;
/// Size of a window in bytes.
pub(crate) const WINDOW_SIZE: u64 = 1 << 36;
/// Number of windows.
pub(crate) const WINDOWS: usize = 8;
/// Pages that are exclusive to the device.
pub(crate) const HELD: u64 = 0x5080_0000_0000;
/// Number of pages there.
pub(crate) const HELD_PAGES: u64 = 1 << 16;
/// Memory shared with the host: the lane, then the calls, then data.
pub(crate) const CONTROL: u64 = 0x5100_0000_0000;
/// Its size in bytes.
pub(crate) const CONTROL_SIZE: u64 = 512 << 10;
/// The agent's code: a page whose calls pass the filter, and one whose calls do not.
pub(crate) const CODE: u64 = 0x5100_1000_0000;
/// Size of the code in bytes.
pub(crate) const CODE_SIZE: u64 = 8192;
/// The agent's data and stack.
pub(crate) const DATA: u64 = CODE + CODE_SIZE;
/// Their size in bytes.
pub(crate) const DATA_SIZE: u64 = 64 << 10;
/// First and one past the last address that is taken.
pub(crate) const TAKEN: [u64; 2] = [WINDOW, 0x5200_0000_0000];

/// First word of the code.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"fpAgent1");
/// The signal handler's offset in the code.
pub(crate) const HANDLER: u64 = 0x10;

/// Offsets in the agent's data.
pub(crate) mod data {
    /// A word: not 0 when the next `SIGSEGV` by `tgkill` asks for the agent.
    pub(crate) const START: u64 = 0;
    /// A signal mask: all but `SIGSEGV` and `SIGBUS`.
    pub(crate) const MASK: u64 = 8;
    /// A thread's name.
    pub(crate) const NAME: u64 = 16;
    /// A `sigaction` of the kernel's layout: the default.
    pub(crate) const DEFAULT: u64 = 32;
    /// The program's own actions for `SIGSEGV` and `SIGBUS`, in the kernel's layout.
    pub(crate) const HANDLERS: u64 = 64;
    /// A word for the host to write and read.
    pub(crate) const SCRATCH: u64 = 192;
    /// Where the stack begins, which grows down.
    pub(crate) const STACK: u64 = super::DATA_SIZE - 64;
}

/// Size of the kernel's `struct sigaction`.
pub(crate) const SIGACTION: u64 = 32;

/// Requests of `ioctl(-1)`, of the type that is trapped: the agent is there; a fault.
pub(crate) const ASK_HELLO: u32 = 0x6400 | 0xfe;
/// A thread took a signal: `(address, error code, signal)`; 0: try again, else: not the host's.
pub(crate) const ASK_FAULT: u32 = 0x6400 | 0xff;

/// Offsets in the lane.
pub(crate) mod lane {
    /// Number of the last request.
    pub(crate) const REQUEST: u64 = 0;
    /// Number of the last request that is done.
    pub(crate) const RESPONSE: u64 = 4;
    /// Not 0: the agent sleeps on the request.
    pub(crate) const ASLEEP: u64 = 8;
    /// Not 0: the host sleeps on the response.
    pub(crate) const WAITING: u64 = 12;
    /// How often the agent looks before it sleeps.
    pub(crate) const LOOKS: u64 = 20;
    /// The command.
    pub(crate) const COMMAND: u64 = 24;
    /// Its four arguments.
    pub(crate) const ARGUMENTS: u64 = 32;
    /// Its result.
    pub(crate) const RESULT: u64 = 64;
    /// Not 0: it faulted.
    pub(crate) const FAULTED: u64 = 72;
    /// System calls, 64 bytes each.
    pub(crate) const CALLS: u64 = 4096;
    /// Their number at most.
    pub(crate) const MAX_CALLS: u64 = 1024;
    /// Data.
    pub(crate) const BUFFER: u64 = 128 << 10;
    /// Its size in bytes.
    pub(crate) const BUFFER_SIZE: u64 = super::CONTROL_SIZE - BUFFER;
}

/// Commands, in the order of the agent's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Command {
    /// System calls in turn, up to the first that fails.
    Calls = 1,
    /// Loads 4 bytes.
    Load4 = 2,
    /// Loads 8 bytes.
    Load8 = 3,
    /// Stores 4 bytes.
    Store4 = 4,
    /// Stores 8 bytes.
    Store8 = 5,
    /// Copies.
    Copy = 6,
    /// Fills.
    Fill = 7,
    /// An atomic operation on 4 bytes.
    Atomic4 = 8,
    /// An atomic operation on 8 bytes.
    Atomic8 = 9,
    /// Steps, again and again.
    Loop = 10,
}

/// What the agent's data begins with: offsets and words.
pub(crate) fn initial_data() -> [(u64, [u8; 8]); 3] {
    let faults = 1u64 << (libc::SIGSEGV - 1) | 1 << (libc::SIGBUS - 1);
    [(data::MASK, (!faults).to_ne_bytes()), (data::NAME, *b"fp-agent"), (data::NAME + 8, [0; 8])]
}
