//! Map and unmap one mapping among n live ones, against insert and remove of an entry in a
//! `BTreeMap` of as many.
//!
//! Run by `cargo bench -p fencepost-core`. Both sides do the same random sequence, taking turns, so
//! that what counts is the ratio within one run; the best of several turns is taken on either side.
//! Both need a logarithmic number of steps, each of which costs more once it misses the caches: so
//! growth is compared with the BTreeMap's, too.

use fencepost_core::gpuva::{Attrs, Changes, Manager, Mapping, Object, Span};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// The bound of the project's promise: times a BTreeMap's cost.
const MOST: f64 = 3.0;
/// Map and unmap pairs in one turn: short, so that some turns of each side run undisturbed.
const PAIRS: usize = 1_000;
const TURNS: usize = 300;
/// Each live mapping has a slot of its own, of which it takes one page.
const SLOT: u64 = 1 << 16;
const PAGE: u64 = 1 << 12;
/// Objects that the mappings are of.
const OBJECTS: usize = 64;

#[derive(Clone)]
struct Bo(Arc<u64>);

impl Object for Bo {
    fn id(&self) -> u64 {
        *self.0
    }
}

/// What a driver would keep for a mapping.
#[derive(Clone)]
#[expect(dead_code, reason = "stored only, so that both sides store the same")]
struct Stored {
    end: u64,
    offset: u64,
    attrs: Attrs,
    object: Bo,
}

struct Ours {
    manager: Manager<Bo>,
    objects: Vec<Bo>,
}

impl Ours {
    fn map(&mut self, slot: u64) {
        let start = slot * SLOT;
        let mapping = Mapping {
            span: Span::new(start, start + PAGE),
            object: Some(&self.objects[slot as usize % OBJECTS]),
            offset: 0,
            attrs: Attrs::default(),
        };
        let mut changes = Changes::new();
        let mapped = self.manager.map(&mapping, &mut changes, |op| {
            black_box(op);
        });
        assert!(mapped.is_ok(), "there is memory");
        let removed = self.manager.seal(changes);
        self.manager.release(removed, drop);
    }

    fn unmap(&mut self, slot: u64) {
        let start = slot * SLOT;
        let mut changes = Changes::new();
        let unmapped = self.manager.unmap(Span::new(start, start + PAGE), &mut changes, |op| {
            black_box(op);
        });
        assert!(unmapped.is_ok(), "an unmap does not fail");
        let removed = self.manager.seal(changes);
        self.manager.release(removed, drop);
    }
}

/// Nanoseconds for each pair.
fn timed(slots: &[u64], mut pair: impl FnMut(u64)) -> f64 {
    let start = Instant::now();
    slots.iter().for_each(|slot| pair(*slot));
    start.elapsed().as_nanos() as f64 / slots.len() as f64
}

/// Best times of both sides with `live` mappings.
fn measure(live: usize) -> (f64, f64) {
    let mut random = ChaCha8Rng::seed_from_u64(live as u64);
    let objects: Vec<Bo> = (0..OBJECTS as u64).map(|id| Bo(Arc::new(id))).collect();
    let manager = Manager::new(Span::new(0, 1 << 48), Span::new(0, 0)).expect("memory");
    let mut ours = Ours { manager, objects };
    let mut theirs = BTreeMap::new();
    let stored = |slot: u64, objects: &[Bo]| Stored {
        end: slot * SLOT + PAGE,
        offset: 0,
        attrs: Attrs::default(),
        object: objects[slot as usize % OBJECTS].clone(),
    };
    // Every other slot of twice as many is live, in random order; the pairs use the others.
    let mut order: Vec<u64> = (0..live as u64).map(|i| 2 * i).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, ((u128::from(random.next_u64()) * (i as u128 + 1)) >> 64) as usize);
    }
    for slot in order {
        ours.map(slot);
        theirs.insert(slot * SLOT, stored(slot, &ours.objects));
    }
    let free = |random: &mut ChaCha8Rng| {
        2 * ((u128::from(random.next_u64()) * live as u128) >> 64) as u64 + 1
    };
    let mut best = (f64::MAX, f64::MAX);
    for _ in 0..TURNS {
        let slots: Vec<u64> = (0..PAIRS).map(|_| free(&mut random)).collect();
        let objects = ours.objects.clone();
        best.1 = best.1.min(timed(&slots, |slot| {
            theirs.insert(slot * SLOT, stored(slot, &objects));
            black_box(theirs.remove(&(slot * SLOT)));
        }));
        best.0 = best.0.min(timed(&slots, |slot| {
            ours.map(slot);
            ours.unmap(slot);
        }));
    }
    ours.manager.assert_consistent();
    best
}

fn main() {
    let mut worst: f64 = 0.0;
    let mut first = None;
    println!(
        "{:>9} {:>8} {:>12} {:>6} {:>17}",
        "live", "ours ns", "BTreeMap ns", "ratio", "growth of either"
    );
    for live in [1_000, 10_000, 100_000, 1_000_000] {
        let (ours, theirs) = measure(live);
        let (ours_first, theirs_first) = *first.get_or_insert((ours, theirs));
        let (ratio, growth) = (ours / theirs, (ours / ours_first, theirs / theirs_first));
        worst = worst.max(ratio);
        println!(
            "{live:>9} {ours:>8.0} {theirs:>12.0} {ratio:>6.2} {:>8.2} {:>8.2}",
            growth.0, growth.1
        );
    }
    println!(
        "worst ratio {worst:.2}, bound {MOST}: {}",
        if worst <= MOST { "ok" } else { "MISSED" }
    );
}
