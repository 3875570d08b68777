//! Random bind calls against a naive model: a list of mappings, scanned from end to end.

use super::{Changes, Obj, Op, Short, Space, Span, Unmap};
use crate::gpuva::Removed;
use crate::seed::{for_seeds, Random};

/// The naive model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    mappings: Vec<Short>,
    regions: Vec<(u64, u64)>,
    dirty: Vec<(u64, u64)>,
}

fn overlap(a: (u64, u64), b: (u64, u64)) -> bool {
    a.0 < b.1 && b.0 < a.1
}

impl Model {
    fn unmap(&mut self, start: u64, end: u64) {
        let old = std::mem::take(&mut self.mappings);
        for (name, from, to, offset) in old {
            if from < start {
                self.mappings.push((name, from, to.min(start), offset));
            }
            if to > end {
                let first = from.max(end);
                let delta = if name == '0' { 0 } else { first - from };
                self.mappings.push((name, first, to, offset + delta));
            }
        }
        self.mappings.sort_by_key(|mapping| mapping.1);
    }

    /// Whether a mapping may go there, by the regions.
    fn accepts(&self, span: (u64, u64)) -> bool {
        let all = self.regions.iter().chain(&self.dirty);
        let Some(first) = all.filter(|r| overlap(**r, span)).min() else { return true };
        !self.dirty.contains(first) && first.0 <= span.0 && span.1 <= first.1
    }

    fn map(&mut self, map: Short) -> bool {
        let accepted = self.accepts((map.1, map.2));
        if accepted {
            self.unmap(map.1, map.2);
            self.mappings.push(map);
            self.mappings.sort_by_key(|mapping| mapping.1);
        }
        accepted
    }

    fn map_sparse(&mut self, span: (u64, u64)) -> bool {
        let mut all = self.regions.iter().chain(&self.dirty);
        if all.any(|r| overlap(*r, span)) || self.mappings.iter().any(|m| overlap((m.1, m.2), span))
        {
            return false;
        }
        self.regions.push(span);
        self.regions.sort_unstable();
        true
    }

    fn unmap_sparse(&mut self, span: (u64, u64)) -> bool {
        let Some(at) = self.regions.iter().position(|r| *r == span) else { return false };
        self.dirty.push(self.regions.remove(at));
        self.unmap(span.0, span.1);
        true
    }
}

/// A range outside the hole of [`Space`], of a random size class.
fn range(random: &mut Random, end: u64) -> (u64, u64) {
    let most = random.pick(&[2, 10, 100, end]);
    let start = random.below(end);
    let len = 1 + random.below(most.min(end - start));
    (start, start + len)
}

/// The laws of the operations that one request is cut into: applied to what was mapped they give
/// what is mapped then; U and R ascend, at most two R, M last; `keep` is right for each.
fn obey_laws(before: &[Short], ops: &[Op<Obj>], map: Option<Short>, after: &[Short]) {
    let mut mapped = before.to_vec();
    let take = |unmap: &Unmap<Obj>, mapped: &mut Vec<Short>| {
        let old = super::short(&unmap.mapping.as_ref());
        let at = mapped.iter().position(|m| *m == old).expect("what is unmapped was mapped");
        mapped.remove(at);
        let kept = map.is_some_and(|map| {
            let same = old.0 == map.0 && old.0 != '0';
            same && i128::from(old.1) - i128::from(map.1) == i128::from(old.3) - i128::from(map.3)
        });
        assert_eq!(unmap.keep, kept, "{old:?} under {map:?}");
        old.1
    };
    let (mut starts, mut remaps) = (Vec::new(), 0);
    for (index, op) in ops.iter().enumerate() {
        match op {
            Op::Unmap(unmap) => starts.push(take(unmap, &mut mapped)),
            Op::Remap { prev, next, unmap } => {
                remaps += 1;
                starts.push(take(unmap, &mut mapped));
                let pieces = [prev, next].into_iter().flatten();
                mapped.extend(pieces.map(|piece| super::short(&piece.as_ref())));
            }
            Op::Map(new) => {
                assert_eq!((index + 1, Some(super::short(&new.as_ref()))), (ops.len(), map));
                mapped.push(super::short(&new.as_ref()));
            }
            Op::Prefetch(_) | Op::Madvise(_) => panic!("not an operation of a map or unmap"),
        }
    }
    mapped.sort_by_key(|mapping| mapping.1);
    assert_eq!(mapped, after, "the operations say what happens");
    assert!(remaps <= 2 && starts.is_sorted(), "at most two R, ascending");
}

/// One operation on both; they must agree on whether it is accepted.
fn step(random: &mut Random, space: &mut Space, model: &mut Model, changes: &mut Changes) {
    let (start, end) = range(random, 900);
    let span = Span::new(start, end);
    let (seen, expected) = match random.below(12) {
        0..6 => {
            let name = random.pick(&['a', 'b', 'c', '0']);
            // Often contiguous with what may be there, so that keep is seen.
            let offset = if name == '0' { 0 } else { random.pick(&[start, start, 1000]) };
            let map = (name, start, end, offset);
            let request = space.request(map);
            let (before, listed) = (space.list(), space.manager.map_ops(&request.as_ref()));
            let mut told = Vec::new();
            let each = |op: &Op<&Obj>| told.push(op.cloned());
            let result = space.manager.map(&request.as_ref(), changes, each);
            if result.is_ok() {
                obey_laws(&before, &told, Some(map), &space.list());
                let listed = listed.expect("both forms accept");
                assert_eq!(super::ops_shown(&listed), super::ops_shown(&told), "both forms agree");
            }
            (result.is_ok(), model.map(map))
        }
        6..9 => {
            model.unmap(start, end);
            let before = space.list();
            let mut told = Vec::new();
            let each = |op: &Op<&Obj>| told.push(op.cloned());
            let result = space.manager.unmap(span, changes, each);
            obey_laws(&before, &told, None, &space.list());
            (result.is_ok(), true)
        }
        9 => (space.manager.map_sparse(span, changes).is_ok(), model.map_sparse((start, end))),
        10 => {
            let known = model.regions.get(random.below(4) as usize).copied();
            let (start, end) = known.unwrap_or((start, end));
            let result = space.manager.unmap_sparse(Span::new(start, end), changes, |_| {});
            (result.is_ok(), model.unmap_sparse((start, end)))
        }
        _ => {
            let name = random.pick(&['a', 'b', 'c']);
            model.mappings.retain(|mapping| mapping.0 != name);
            space.manager.unmap_object(u64::from(u32::from(name)), changes, |_| {});
            (true, true)
        }
    };
    assert_eq!(seen, expected, "both agree on [{start},{end})");
}

fn agree(space: &Space, model: &Model) {
    space.check();
    assert_eq!(space.list(), model.mappings);
    let regions: Vec<_> =
        space.manager.regions(Span::new(0, 1000)).map(|r| (r.start, r.end)).collect();
    assert_eq!(regions, model.regions);
}

#[test]
fn random_calls_agree_with_the_model() {
    for_seeds(40, |mut random| {
        let mut space = Space::new();
        let mut model = Model::default();
        let mut pending: Vec<(Removed, Vec<(u64, u64)>)> = Vec::new();
        for _ in 0..150 {
            let before = model.clone();
            let mut changes = Changes::new();
            for _ in 0..=random.below(6) {
                step(&mut random, &mut space, &mut model, &mut changes);
            }
            agree(&space, &model);
            if random.one_in(3) {
                space.manager.revert(changes, drop);
                model = before;
            } else {
                let dirtied = model.dirty.iter().filter(|r| !before.dirty.contains(r)).copied();
                pending.push((space.manager.seal(changes), dirtied.collect()));
            }
            while pending.len() > random.below(5) as usize {
                let at = random.below(pending.len() as u64) as usize;
                let (removed, dirtied) = pending.swap_remove(at);
                space.manager.release(removed, drop);
                model.dirty.retain(|region| !dirtied.contains(region));
            }
            agree(&space, &model);
        }
        for (removed, _) in pending {
            space.manager.release(removed, drop);
        }
        space.manager.clear(drop);
        assert_eq!((space.list(), space.manager.retained()), (Vec::new(), 0));
        space.check();
    });
}

/// Thousands of mappings, so that the tree has several levels: filled, emptied at random, cut,
/// undone.
#[test]
fn large_spaces_agree_with_the_model() {
    use std::collections::BTreeMap;
    for_seeds(3, |mut random| {
        let size = 1 << 20;
        let span = Span::new(0, size);
        let mut manager = super::Manager::new(span, Span::new(0, 0)).expect("memory");
        let object = Obj::new('a');
        let mut model = BTreeMap::new();
        for round in 0..6 {
            let mut changes = Changes::new();
            let before = model.clone();
            for _ in 0..8000 {
                // Slots of 16, so that mappings replace each other whole or by a part.
                let start = random.below(size / 16) * 16 + random.below(8);
                let end = start + 1 + random.below(8);
                let last = |model: &BTreeMap<u64, u64>| {
                    let last = model.range(..end).next_back().filter(|(_, old)| **old > start);
                    last.map(|(start, end)| (*start, *end))
                };
                while let Some((from, to)) = last(&model) {
                    model.remove(&from);
                    if from < start {
                        model.insert(from, start);
                    }
                    if to > end {
                        model.insert(end, to);
                    }
                }
                let span = Span::new(start, end);
                if round % 2 == 0 || random.one_in(10) {
                    let mapping = super::Mapping {
                        span,
                        object: Some(&object),
                        offset: start,
                        attrs: super::Attrs::default(),
                    };
                    manager.map(&mapping, &mut changes, |_| {}).expect("memory");
                    model.insert(start, end);
                } else {
                    manager.unmap(span, &mut changes, |_| {}).expect("memory");
                }
            }
            manager.assert_consistent();
            if round % 3 == 2 {
                manager.revert(changes, drop);
                model = before;
            } else {
                let removed = manager.seal(changes);
                manager.release(removed, drop);
            }
            manager.assert_consistent();
            let seen = manager.iter(span).map(|m| (m.span.start, m.span.end));
            assert!(seen.eq(model.iter().map(|(start, end)| (*start, *end))), "round {round}");
            assert!(manager.iter(span).all(|m| m.offset == m.span.start), "offsets follow");
            assert_eq!(object.linked.get() as usize, manager.len());
        }
        manager.clear(drop);
        manager.assert_consistent();
    });
}
