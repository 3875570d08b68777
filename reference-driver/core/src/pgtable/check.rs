//! The invariants of the page table, checked by walking all of it: for tests and the fuzzer.

use super::node::{Dir, Leaf, Slot, GROUP};
use super::{PageTable, ROOT, SIZE_4K};

impl PageTable {
    /// Panics if an invariant is broken: nodes count their entries and none is empty; groups are
    /// whole and map one run; only the upper levels hold pages without memory.
    pub fn assert_consistent(&self) {
        let mut nodes = 0;
        assert_dir(&self.root, ROOT, &mut nodes);
        assert_eq!(nodes, self.nodes(), "number of nodes");
    }
}

fn assert_dir(dir: &Dir, level: u32, nodes: &mut u64) {
    *nodes += 1;
    let used = dir.slots.iter().filter(|slot| !matches!(slot, Slot::Empty)).count();
    assert_eq!(dir.used as usize, used, "entries of a node at level {level}");
    for slot in dir.slots.iter() {
        match slot {
            Slot::Empty => {}
            Slot::Page(pte) => assert!(!pte.is_empty() && !pte.is_memory() && !pte.is_group()),
            Slot::Dir(below) => {
                assert!(level > 1 && below.used > 0, "a node is not empty");
                assert_dir(below, level - 1, nodes);
            }
            Slot::Folded(leaf) => {
                assert!(level == 1 && leaf.used == 1, "a folded leaf is one page");
                assert!(!leaf.entries[0].is_empty() && !leaf.entries[0].is_group());
            }
            Slot::Leaf(leaf) => {
                assert!(level == 1 && leaf.used > 0, "a node is not empty");
                *nodes += 1;
                assert_leaf(leaf);
            }
        }
    }
}

fn assert_leaf(leaf: &Leaf) {
    let used = leaf.entries.iter().filter(|pte| !pte.is_empty()).count();
    assert_eq!(leaf.used as usize, used, "entries of a leaf");
    for group in leaf.entries.chunks(GROUP) {
        let first = group[0];
        let marked = group.iter().filter(|pte| pte.is_group()).count();
        assert!(marked == 0 || marked == GROUP, "a group is whole");
        if marked == GROUP {
            let mut expected = (0..).map(|i| first.plus(i * SIZE_4K));
            assert!(group.iter().all(|pte| Some(*pte) == expected.next()), "a group is one run");
        }
    }
}
