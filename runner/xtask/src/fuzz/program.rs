//! Batches of the fuzzer: random commands about random addresses, put into a buffer object by the CPU.

use fencepost_host::sim::Sim;
use fencepost_uapi::command::{self, Opcode};
use fencepost_uapi::fencepost::Batch;

use super::client::Bo;
use super::random::Random;

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;

/// An address where something may be mapped: few enough that calls meet.
pub(crate) fn an_address(random: &mut Random) -> u64 {
    let base = match random.below(16) {
        0 => 0,
        1 => 64 * M - 64 * K,
        2 => 128 * M - 2 * M,
        3 => (1 << 48) - 2 * M,
        4 => 1 << 30,
        _ => random.below(8) * 2 * M,
    };
    let within = match random.below(4) {
        0 => 0,
        1 => random.below(32) * 64 * K,
        2 => random.below(8) * 4 * K,
        _ => random.below(512) * 4 * K,
    };
    base + within
}

/// Writes a batch somewhere into an object and names a place where that may be mapped.
pub(crate) fn place(sim: &Sim, random: &mut Random, bos: &[Bo]) -> Batch {
    let words = words(random);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    if !bos.is_empty() {
        // Into all of them: whichever is mapped there, it is found.
        for bo in bos {
            if bo.size >= bytes.len() as u64 && bo.mem.0 != 0 {
                sim.host().poke(bo.mem, 0, &bytes);
            }
        }
    }
    Batch { addr: an_address(random), length: bytes.len() as u32, flags: 0 }
}

fn words(random: &mut Random) -> Vec<u64> {
    let mut words = vec![];
    for _ in 0..random.below(12) {
        let op = command::OPCODES[random.index(command::OPCODES.len())];
        words.push(header(random, op));
        for _ in 1..op.words {
            words.push(operand(random));
        }
    }
    words.push(command::header(command::END, 0, 0));
    words
}

fn header(random: &mut Random, op: Opcode) -> u64 {
    let flags = random.any() as u16 & op.flags;
    let imm = match op {
        command::ATOMIC => (random.below(8) as u32) << 8,
        command::LOOP => 1 + random.below(6) as u32,
        _ => random.below(16) as u32,
    };
    match random.chance(1, 60) {
        true => random.any(),
        false => command::header(op, flags, imm),
    }
}

fn operand(random: &mut Random) -> u64 {
    match random.below(6) {
        0 => random.below(64) * 8,
        1 => random.below(4 * M),
        _ => an_address(random) + random.below(64) * 8,
    }
}
