//! A map from disjoint ranges of addresses to values: what a byte of an object may hold, what an
//! address of a VM is translated to.
//!
//! Values mean the same at each address of their range (a mapping holds object offset minus
//! address, a pattern its origin), so that a range can be cut without touching its value.

use std::collections::BTreeMap;

/// Disjoint half-open ranges in ascending order, each with a value.
#[derive(Clone, Debug)]
pub struct RangeMap<T> {
    ranges: BTreeMap<u64, (u64, T)>,
}

impl<T> Default for RangeMap<T> {
    fn default() -> Self {
        Self { ranges: BTreeMap::new() }
    }
}

impl<T: Clone> RangeMap<T> {
    /// Ends a range at `at` and begins another there, if one spans it.
    pub fn cut(&mut self, at: u64) {
        let Some((_, (end, value))) = self.ranges.range_mut(..at).next_back() else { return };
        if *end > at {
            let tail = (std::mem::replace(end, at), value.clone());
            self.ranges.insert(at, tail);
        }
    }

    /// The ranges that overlap [`start`, `end`), whole.
    pub fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64, &T)> {
        let first = match self.ranges.range(..=start).next_back() {
            Some((from, (to, _))) if *to > start => *from,
            _ => start,
        };
        self.ranges.range(first..end.max(first)).map(|(from, (to, value))| (*from, *to, value))
    }

    /// The ranges that overlap [`start`, `end`), clipped to it.
    pub fn within(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64, &T)> {
        self.overlapping(start, end).map(move |(a, b, value)| (a.max(start), b.min(end), value))
    }

    /// Like [`Self::within`], with what lies between the ranges as `None`.
    pub fn tiling(&self, start: u64, end: u64) -> Vec<(u64, u64, Option<&T>)> {
        let mut tiles = Vec::new();
        let mut at = start;
        for (a, b, value) in self.within(start, end) {
            if at < a {
                tiles.push((at, a, None));
            }
            tiles.push((a, b, Some(value)));
            at = b;
        }
        if at < end {
            tiles.push((at, end, None));
        }
        tiles
    }

    /// The values in [`start`, `end`), cut at its edges so that only they change.
    pub fn within_mut(&mut self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64, &mut T)> {
        self.cut(start);
        self.cut(end);
        self.ranges.range_mut(start..end.max(start)).map(|(a, (b, value))| (*a, *b, value))
    }

    /// Removes what lies in [`start`, `end`) and returns it.
    pub fn remove(&mut self, start: u64, end: u64) -> Vec<(u64, u64, T)> {
        self.cut(start);
        self.cut(end);
        let starts: Vec<u64> = self.ranges.range(start..end.max(start)).map(|(a, _)| *a).collect();
        let take = |a| self.ranges.remove(&a).map(|(b, value)| (a, b, value));
        starts.into_iter().filter_map(take).collect()
    }

    /// Puts a value at [`start`, `end`), replacing what was there.
    pub fn insert(&mut self, start: u64, end: u64, value: T) {
        if start < end {
            self.remove(start, end);
            self.ranges.insert(start, (end, value));
        }
    }

    /// The range around `at`.
    #[must_use]
    pub fn get(&self, at: u64) -> Option<(u64, u64, &T)> {
        let (start, (end, value)) = self.ranges.range(..=at).next_back()?;
        (*end > at).then_some((*start, *end, value))
    }

    /// All ranges.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, &T)> {
        self.ranges.iter().map(|(start, (end, value))| (*start, *end, value))
    }

    /// Number of ranges.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(ranges: &[(u64, u64, char)]) -> RangeMap<char> {
        let mut map = RangeMap::default();
        ranges.iter().for_each(|(a, b, c)| map.insert(*a, *b, *c));
        map
    }

    fn list(map: &RangeMap<char>) -> String {
        map.iter().map(|(a, b, c)| format!("{a}-{b}{c}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn inserting_replaces_exactly_the_overlap() {
        for (start, end, expected) in [
            (0, 10, "0-10x 10-20a 30-40b"),
            (5, 12, "5-12x 12-20a 30-40b"),
            (12, 15, "10-12a 12-15x 15-20a 30-40b"),
            (10, 20, "10-20x 30-40b"),
            (15, 35, "10-15a 15-35x 35-40b"),
            (5, 45, "5-45x"),
            (20, 30, "10-20a 20-30x 30-40b"),
            (15, 15, "10-20a 30-40b"),
        ] {
            let mut subject = map(&[(10, 20, 'a'), (30, 40, 'b')]);
            subject.insert(start, end, 'x');
            assert_eq!(list(&subject), expected, "inserting {start}..{end}");
        }
    }

    #[test]
    fn walks_see_every_overlap_once() {
        let subject = map(&[(10, 20, 'a'), (30, 40, 'b')]);
        let within = |a, b| subject.within(a, b).map(|(a, b, _)| (a, b)).collect::<Vec<_>>();
        assert_eq!(within(0, 10), []);
        assert_eq!(within(20, 30), []);
        assert_eq!(within(19, 31), [(19, 20), (30, 31)]);
        assert_eq!(within(12, 13), [(12, 13)]);
        let tiles: Vec<_> =
            subject.tiling(15, 50).iter().map(|(a, b, c)| (*a, *b, c.is_some())).collect();
        assert_eq!(tiles, [(15, 20, true), (20, 30, false), (30, 40, true), (40, 50, false)]);
        assert_eq!(subject.get(39).map(|(a, ..)| a), Some(30));
        assert!(subject.get(40).is_none() && subject.get(9).is_none());
    }

    #[test]
    fn changing_a_part_leaves_the_rest() {
        let mut subject = map(&[(10, 20, 'a')]);
        subject.within_mut(12, 14).for_each(|(.., value)| *value = 'z');
        assert_eq!(list(&subject), "10-12a 12-14z 14-20a");
        assert_eq!(subject.remove(13, 19).len(), 2);
        assert_eq!(list(&subject), "10-12a 12-13z 19-20a");
    }
}
