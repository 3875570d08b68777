//! Loops of plain accesses, handed to the world as a whole, so that each access costs what it costs there
//! and not a way to it as well.
//!
//! Owns the choice of loops and the account of what was done. Translations are used only under the MMU's
//! lock, which is held from the first one to the end of the burst; whatever is out of the ordinary, a fault
//! or a command that is no access, is left to the executor.

use fencepost_uapi::command as c;

use super::access::Port;
use super::{Header, Progress};
use crate::host::{Atomic, Host, Phys, Step, Width};
use crate::vm::mmu::{Access, Mmu};
use fencepost_uapi::fencepost::Batch;

/// Longest body in steps.
const MAX_STEPS: usize = 16;
/// Steps of one burst, which bounds for how long an invalidation waits.
const MAX_DONE: u32 = 4096;

/// A body.
struct Body {
    steps: [Step; MAX_STEPS],
    /// Where each step's command begins in the batch.
    places: [u32; MAX_STEPS],
    count: usize,
    /// Behind the end of the loop.
    end: u32,
}

/// Why a body cannot be had.
enum Not {
    /// For now: a translation is missing.
    Now,
    /// It is none for a burst.
    Ever,
}

/// Runs iterations of the innermost loop, if its body begins here; gives the number of commands done.
pub(super) fn run<H: Host>(
    port: &Port<'_, H>,
    batch: &Batch,
    progress: &mut Progress,
) -> Option<u32> {
    let innermost = progress.depth.checked_sub(1)?;
    let (start, left) = progress.loops[innermost];
    let here = progress.at == start && progress.plain != Some(start);
    if !here || left < 2 || !port.dev.host.runs_loops() {
        return None;
    }
    let mut mmu = port.vm.mmu();
    let body = match read(port, &mut mmu, batch, start) {
        Ok(body) => body,
        Err(Not::Now) => return None,
        Err(Not::Ever) => {
            progress.plain = Some(start);
            return None;
        }
    };
    let count = body.count as u32;
    let repeat = left.min(MAX_DONE / count);
    let steps = &body.steps[..body.count];
    let Some(done) = port.dev.host.gpu_loop(steps, repeat, &mut progress.registers) else {
        progress.plain = Some(start);
        return None;
    };
    drop(mmu);
    let (rounds, rest) = ((done / u64::from(count)) as u32, (done % u64::from(count)) as usize);
    account(progress, innermost, rounds, &body);
    if rounds < repeat {
        // The next step is the executor's, which finds what is wrong with it.
        progress.plain = Some(start);
        progress.at = body.places[rest];
    }
    Some(done as u32 + rounds)
}

/// So many rounds are over.
fn account(progress: &mut Progress, innermost: usize, rounds: u32, body: &Body) {
    let (start, left) = &mut progress.loops[innermost];
    *left -= rounds;
    if *left == 0 {
        (progress.depth, progress.at) = (innermost, body.end);
    } else {
        progress.at = *start;
    }
}

/// Reads a body up to its end and translates it.
fn read<H: Host>(
    port: &Port<'_, H>,
    mmu: &mut Mmu,
    batch: &Batch,
    start: u32,
) -> Result<Body, Not> {
    let mut body =
        Body { steps: [Step::Fence; MAX_STEPS], places: [0; MAX_STEPS], count: 0, end: 0 };
    let mut at = start;
    loop {
        if at >= batch.length {
            return Err(Not::Ever);
        }
        let addr = batch.addr.wrapping_add(at.into());
        let mut words = [fetch(port, mmu, addr)?; 4];
        let header = Header::decode(words[0]).ok_or(Not::Ever)?;
        let next = at + u32::from(header.op.words) * 8;
        if next > batch.length {
            return Err(Not::Ever);
        }
        for index in 1..usize::from(header.op.words) {
            words[index] = fetch(port, mmu, addr.wrapping_add(index as u64 * 8))?;
        }
        if header.op == c::LOOP_END {
            body.end = next;
            return if body.count > 0 { Ok(body) } else { Err(Not::Ever) };
        }
        let step = step(port, mmu, header, [words[1], words[2], words[3]])?;
        let place = body.steps.get_mut(body.count).ok_or(Not::Ever)?;
        *place = step;
        body.places[body.count] = at;
        body.count += 1;
        at = next;
    }
}

fn fetch<H: Host>(port: &Port<'_, H>, mmu: &mut Mmu, addr: u64) -> Result<u64, Not> {
    let at = translate(port, mmu, addr, Width::Eight, Access::Fetch)?;
    port.dev.host.gpu_load(at, Width::Eight).map_err(|_| Not::Ever)
}

fn step<H: Host>(
    port: &Port<'_, H>,
    mmu: &mut Mmu,
    header: Header,
    [a, b, d]: [u64; 3],
) -> Result<Step, Not> {
    let width = header.width();
    let register = header.register() as u8;
    let mut at = |access| translate(port, mmu, a, width, access);
    Ok(match header.op {
        c::STORE | c::SEMAPHORE_RELEASE => Step::Store { at: at(Access::Write)?, width, value: b },
        c::LOAD => Step::Load { at: at(Access::Read)?, width, register },
        c::STORE_REG => Step::StoreRegister { at: at(Access::Write)?, width, register },
        c::ATOMIC => {
            let op = (header.imm >> 8) as u8;
            if op >= c::ATOMICS {
                return Err(Not::Ever);
            }
            let atomic = Atomic { op, operand: b, compare: d };
            let result = (header.flags & c::RESULT != 0).then_some(register);
            Step::Atomic { at: at(Access::Atomic)?, width, atomic, result }
        }
        c::ADD_REG => Step::AddRegister { register, value: a },
        c::FENCE => Step::Fence,
        _ => return Err(Not::Ever),
    })
}

fn translate<H: Host>(
    port: &Port<'_, H>,
    mmu: &mut Mmu,
    addr: u64,
    width: Width,
    access: Access,
) -> Result<Phys, Not> {
    if addr % width.bytes() != 0 || addr >= port.vm.span.end {
        return Err(Not::Ever);
    }
    let entry = mmu.translate(port.dev, port.engine, addr, access).map_err(|_| Not::Now)?;
    entry.phys(addr).ok_or(Not::Ever)
}
