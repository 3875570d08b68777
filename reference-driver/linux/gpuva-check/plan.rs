//! What a round does: a VA space of random shape, and random requests on it.
//!
//! Owns the drawing. Everything follows from seed and round; nothing looks at what is mapped, so
//! that any part of a round can be done alone.

use crate::gpuvm;
use crate::random::Random;
use core::fmt;

/// The shape of a round's VA space, in bytes (or whatever the unit is).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) span: (u64, u64),
    /// Empty: none.
    pub(crate) hole: (u64, u64),
    pub(crate) objects: u64,
}

/// A request. Ranges are start and length, as a driver gets them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request {
    Map(gpuvm::Request),
    Unmap { start: u64, range: u64 },
    UnmapObject { object: u64 },
    Prefetch { start: u64, range: u64 },
    Madvise { start: u64, range: u64 },
    MapSparse { start: u64, range: u64 },
    UnmapSparse { start: u64, range: u64 },
    Find { addr: u64 },
}

/// A request of a round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) request: Request,
    /// Core does it and undoes it first, as for a call that is refused later.
    pub(crate) rehearse: bool,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, start, range) = match self.request {
            Request::Map(gpuvm::Request { start, range, object, offset }) => {
                write!(f, "map start {start:#x} range {range:#x} ")?;
                match object {
                    0 => f.write_str("null")?,
                    _ => write!(f, "object {object} offset {offset:#x}")?,
                }
                return f.write_str(if self.rehearse { " (undone once)" } else { "" });
            }
            Request::UnmapObject { object } => return write!(f, "unmap-object {object}"),
            Request::Find { addr } => return write!(f, "find {addr:#x}"),
            Request::Unmap { start, range } => ("unmap", start, range),
            Request::Prefetch { start, range } => ("prefetch", start, range),
            Request::Madvise { start, range } => ("madvise", start, range),
            Request::MapSparse { start, range } => ("map-sparse", start, range),
            Request::UnmapSparse { start, range } => ("unmap-sparse", start, range),
        };
        write!(f, "{name} start {start:#x} range {range:#x}")?;
        f.write_str(if self.rehearse { " (undone once)" } else { "" })
    }
}

/// Draws the requests of one round.
pub(crate) struct Plan {
    random: Random,
    pub(crate) shape: Shape,
    /// Bytes in a unit, in which all ranges are drawn, and number of units.
    unit: u64,
    units: u64,
    /// Weights of map, unmap, unmap-object, prefetch, madvise, sparse, find.
    weights: [u64; 7],
    /// Regions proposed last, of which one is removed now and then.
    proposed: [(u64, u64); 4],
}

impl Plan {
    pub(crate) fn new(seed: u64, round: u64) -> Self {
        let mut random = Random::new(seed, round);
        let unit = random.pick(&[1, 0x1000, 0x1_0000]);
        let units = random.pick(&[24, 64, 64, 256, 2048]);
        let size = units * unit;
        // The last one ends at the last address that a range can end at.
        let start = random.pick(&[0, 0, 0x1000, 1 << 40, u64::MAX - size]);
        let hole = if random.one_in(2) {
            (0, 0)
        } else {
            let at = random.pick(&[0, units / 2, units - units / 8]);
            (start + at * unit, start + (at + units / 8) * unit)
        };
        let objects = 1 + random.below(4);
        let weights = random.pick(&[
            [60, 20, 2, 4, 8, 0, 4],
            [60, 20, 2, 4, 8, 12, 4],
            [80, 5, 0, 2, 4, 0, 2],
            [40, 40, 1, 4, 2, 0, 4],
            [50, 5, 1, 4, 40, 0, 4],
        ]);
        let shape = Shape { span: (start, start + size), hole, objects };
        Self { random, shape, unit, units, weights, proposed: [(start, size); 4] }
    }

    /// A range, mostly a good one: short, long, as one before, or wrong at one end.
    fn range(&mut self) -> (u64, u64) {
        let most = self.random.pick(&[1, 2, 4, 4, 8, 16, self.units]);
        let at = self.random.below(self.units);
        let units = 1 + self.random.below(most.min(self.units - at));
        let (start, range) = (self.shape.span.0 + at * self.unit, units * self.unit);
        match self.random.below(200) {
            0 => (start, 0),
            1 => (start, self.units * self.unit),
            2 => (start.wrapping_sub(self.units * self.unit), range),
            3 => (start, u64::MAX - self.random.below(self.units)),
            4 => (self.random.next_u64(), self.random.next_u64()),
            5 => (self.shape.span.0, self.units * self.unit),
            // Just beyond either end.
            6 => {
                (start, (self.shape.span.1 - start).wrapping_add(self.random.pick(&[1, self.unit])))
            }
            7 => (self.shape.span.0.wrapping_sub(1), range),
            _ => (start, range),
        }
    }

    /// Often contiguous with what other requests map of the object, so that `keep` is seen.
    fn offset(&mut self, start: u64) -> u64 {
        let contiguous = start.wrapping_sub(self.shape.span.0);
        match self.random.below(40) {
            0..=29 => contiguous,
            30..=35 => contiguous.wrapping_add(self.unit),
            36..=38 => self.random.below(self.units) * self.unit,
            _ => u64::MAX - self.random.below(4) * self.unit,
        }
    }

    fn request(&mut self) -> Request {
        let mut left = self.random.below(self.weights.iter().sum());
        let kind = self.weights.iter().position(|weight| {
            let found = left < *weight;
            left = left.wrapping_sub(*weight);
            found
        });
        let (start, range) = self.range();
        match kind.unwrap_or(0) {
            0 => {
                let object = self.random.below(self.shape.objects + 1);
                let offset = if object == 0 { 0 } else { self.offset(start) };
                Request::Map(gpuvm::Request { start, range, object, offset })
            }
            1 => Request::Unmap { start, range },
            2 => Request::UnmapObject { object: 1 + self.random.below(self.shape.objects) },
            3 => Request::Prefetch { start, range },
            4 => Request::Madvise { start, range },
            5 if self.random.one_in(2) => {
                self.proposed.rotate_right(1);
                self.proposed[0] = (start, range);
                Request::MapSparse { start, range }
            }
            5 => {
                let (start, range) = self.random.pick(&self.proposed);
                Request::UnmapSparse { start, range }
            }
            _ => Request::Find { addr: start },
        }
    }

    pub(crate) fn next(&mut self) -> Step {
        Step { request: self.request(), rehearse: self.random.one_in(8) }
    }
}
