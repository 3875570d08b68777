//! The command executor: what an engine does with a batch.
//!
//! Owns the decoding of commands, their order, loops and registers, and the length of a slice of
//! time. How they reach memory is [`access`]'s. Runs in the fence path.

pub mod access;
mod burst;

use fencepost_uapi::command as c;
use fencepost_uapi::command::Opcode;
use fencepost_uapi::fencepost as fp;
use fencepost_uapi::fencepost::Batch;

use crate::counters::Counter;
use crate::device::Device;
use crate::host::{Atomic, Host, Width};
use crate::vm::mmu::Access;
use crate::vm::Vm;
use access::{Port, Stop};

pub use access::Fault;

/// Commands in one slice.
const SLICE_COMMANDS: u32 = 256;
/// Bytes copied or filled in one slice.
const SLICE_BYTES: u64 = 4 << 20;
/// Nesting of loops.
const LOOPS: usize = 4;
/// Most repetitions of one loop.
const MAX_REPEAT: u32 = 1 << 20;
/// Longest copy.
const MAX_COPY: u64 = 2 << 30;
/// Most words of a command.
const MAX_WORDS: usize = 4;

/// How far a job is.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    batch: usize,
    /// Offset of the next command in the batch, in bytes.
    at: u32,
    registers: [u64; 16],
    /// Open loops: where the body begins and how often it runs still.
    loops: [(u32, u32); LOOPS],
    depth: usize,
    /// Bytes that the current command has done already.
    done: u64,
    /// A loop whose body is not one for a burst, by where that begins.
    plain: Option<u32>,
}

/// How a slice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    /// There is more to do.
    Over,
    /// Nothing can be done until memory changes or the VM goes on.
    Stalled,
    /// All batches ran.
    Done,
    /// A command faulted.
    Fault(Fault),
    /// A command waits for a translation.
    Missing(Fault),
}

/// What one command came to.
enum Flow {
    Next,
    Jump(u32),
    EndOfBatch,
    /// Not finished: come again.
    Again,
    /// Its condition does not hold yet.
    Wait,
}

/// Runs a slice of a job.
pub fn run<H: Host>(
    dev: &Device<H>,
    vm: &Vm<H>,
    engine: u32,
    batches: &[Batch],
    progress: &mut Progress,
) -> Slice {
    let port = Port { dev, vm, engine };
    let mut budget = SLICE_BYTES;
    let mut executed = 0;
    let mut slice = Slice::Over;
    while executed < SLICE_COMMANDS && budget > 0 {
        let Some(batch) = batches.get(progress.batch) else {
            slice = Slice::Done;
            break;
        };
        if let Some(done) = burst::run(&port, batch, progress) {
            executed += done;
            continue;
        }
        match command(&port, batch, progress, &mut budget) {
            Ok(Flow::Again) => break,
            Ok(Flow::Wait) => {
                // What ran before the wait was progress.
                slice = if executed == 0 { Slice::Stalled } else { Slice::Over };
                break;
            }
            Ok(_) => executed += 1,
            Err(Stop::Fault(fault)) => {
                slice = Slice::Fault(fault);
                break;
            }
            Err(Stop::Missing(fault)) => {
                slice = Slice::Missing(fault);
                break;
            }
            Err(Stop::Paused) => {
                slice = Slice::Stalled;
                break;
            }
        }
    }
    dev.counters.add(Counter::Commands, u64::from(executed));
    slice
}

/// Stores the value of a user fence.
///
/// # Errors
/// [`Stop`] when it cannot be written.
pub fn store<H: Host>(
    dev: &Device<H>,
    vm: &Vm<H>,
    engine: u32,
    addr: u64,
    value: u64,
) -> Result<(), Stop> {
    Port { dev, vm, engine }.store(addr, Width::Eight, value)
}

/// Fetches, checks and does one command.
fn command<H: Host>(
    port: &Port<'_, H>,
    batch: &Batch,
    progress: &mut Progress,
    budget: &mut u64,
) -> Result<Flow, Stop> {
    if progress.at >= batch.length {
        next_batch(progress);
        return Ok(Flow::EndOfBatch);
    }
    let addr = batch.addr.wrapping_add(u64::from(progress.at));
    let malformed =
        Stop::Fault(Fault { addr, access: Access::Fetch, kind: fp::FAULT_KIND_COMMAND });
    let mut words = [0; MAX_WORDS];
    words[0] = port.fetch(addr)?;
    let header = Header::decode(words[0]).ok_or(malformed)?;
    let length = u32::from(header.op.words) * 8;
    if progress.at + length > batch.length {
        return Err(malformed);
    }
    for (index, word) in words.iter_mut().enumerate().take(usize::from(header.op.words)).skip(1) {
        *word = port.fetch(addr.wrapping_add(index as u64 * 8))?;
    }
    let operands = [words[1], words[2], words[3]];
    let next = progress.at + length;
    let flow = execute(port, header, operands, progress, budget, next)?.ok_or(malformed)?;
    match flow {
        Flow::Next => progress.at = next,
        Flow::Jump(to) => progress.at = to,
        Flow::EndOfBatch => next_batch(progress),
        Flow::Again | Flow::Wait => return Ok(flow),
    }
    progress.done = 0;
    Ok(flow)
}

fn next_batch(progress: &mut Progress) {
    progress.batch += 1;
    progress.at = 0;
    progress.depth = 0;
    progress.done = 0;
}

/// A command's header.
#[derive(Clone, Copy)]
struct Header {
    op: Opcode,
    flags: u16,
    imm: u32,
}

impl Header {
    /// `None`: unknown opcode, wrong length or unknown flag.
    fn decode(word: u64) -> Option<Self> {
        let [code, words, ..] = word.to_le_bytes();
        let op = *c::OPCODES.get(usize::from(code)).filter(|op| op.code == code)?;
        let flags = (word >> 16) as u16;
        let known = flags & !op.flags == 0 && words == op.words;
        known.then_some(Header { op, flags, imm: (word >> 32) as u32 })
    }

    fn width(self) -> Width {
        match self.flags & c::WIDE != 0 {
            true => Width::Eight,
            false => Width::Four,
        }
    }

    fn register(self) -> usize {
        (self.imm & 15) as usize
    }
}

/// Does a command. `None`: it is malformed.
fn execute<H: Host>(
    port: &Port<'_, H>,
    header: Header,
    [a, b, d]: [u64; 3],
    progress: &mut Progress,
    budget: &mut u64,
    next: u32,
) -> Result<Option<Flow>, Stop> {
    let width = header.width();
    match header.op {
        c::NOP => {}
        c::END => return Ok(Some(Flow::EndOfBatch)),
        c::STORE | c::SEMAPHORE_RELEASE => port.store(a, width, b)?,
        c::LOAD => progress.registers[header.register()] = port.load(a, width)?,
        c::STORE_REG => port.store(a, width, progress.registers[header.register()])?,
        c::COPY if d > MAX_COPY => return Ok(None),
        c::COPY => return port.copy(a, b, d, &mut progress.done, budget).map(finished),
        c::FILL if b % width.bytes() != 0 => return Ok(None),
        c::FILL => return port.fill(a, b, width, d, &mut progress.done, budget).map(finished),
        c::ATOMIC => {
            let op = (header.imm >> 8) as u8;
            if op >= c::ATOMICS {
                return Ok(None);
            }
            let atomic = Atomic { op, operand: b, compare: d };
            let old = port.atomic(a, width, atomic, header.flags & c::SYSTEM_SCOPE != 0)?;
            if header.flags & c::RESULT != 0 {
                progress.registers[header.register()] = old;
            }
        }
        c::FENCE => port.dev.host.gpu_fence(header.flags & c::SYSTEM_SCOPE != 0),
        c::SEMAPHORE_WAIT => {
            let masked = port.load(a, width)? & d;
            let passes = match header.flags & c::GREATER_EQUAL != 0 {
                true => masked >= b,
                false => masked == b,
            };
            return Ok(Some(if passes { Flow::Next } else { Flow::Wait }));
        }
        c::TIMESTAMP => port.store(a, Width::Eight, port.dev.host.now_ns())?,
        c::LOOP => return Ok(open_loop(header.imm, progress, next)),
        c::LOOP_END => return Ok(close_loop(progress)),
        _ => {
            let register = &mut progress.registers[header.register()];
            *register = register.wrapping_add(a);
        }
    }
    Ok(Some(Flow::Next))
}

fn finished(all: bool) -> Option<Flow> {
    Some(if all { Flow::Next } else { Flow::Again })
}

fn open_loop(repeat: u32, progress: &mut Progress, body: u32) -> Option<Flow> {
    if repeat == 0 || repeat > MAX_REPEAT {
        return None;
    }
    *progress.loops.get_mut(progress.depth)? = (body, repeat);
    progress.depth += 1;
    Some(Flow::Next)
}

fn close_loop(progress: &mut Progress) -> Option<Flow> {
    let innermost = progress.depth.checked_sub(1)?;
    let (body, left) = &mut progress.loops[innermost];
    *left -= 1;
    if *left > 0 {
        return Some(Flow::Jump(*body));
    }
    progress.depth = innermost;
    Some(Flow::Next)
}
