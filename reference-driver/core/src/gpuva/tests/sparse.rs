//! Sparse regions: what may go where, and the life of a region that is being removed.

use super::{Changes, Obj, Op, Space, Span};
use fencepost_uapi::Errno;

fn sparse(space: &mut Space, start: u64, end: u64) -> Result<(), Errno> {
    let mut changes = Changes::new();
    let result = space.manager.map_sparse(Span::new(start, end), &mut changes);
    space.finish(changes);
    result
}

fn regions(space: &Space) -> Vec<(u64, u64)> {
    space.manager.regions(Span::new(0, 1000)).map(|r| (r.start, r.end)).collect()
}

/// One region [10, 20) and one mapping [30, 40); where may what go?
#[test]
fn rules_of_overlap() {
    let new_space = || {
        let mut space = Space::with(&[('a', 30, 40, 0)]);
        sparse(&mut space, 10, 20).expect("free");
        space
    };
    let maps = [
        (10, 20, Ok(true)),
        (12, 15, Ok(true)),
        (0, 10, Ok(false)),
        (20, 50, Ok(false)),
        (9, 11, Err(Errno::NOSPC)),
        (19, 21, Err(Errno::NOSPC)),
        (5, 25, Err(Errno::NOSPC)),
    ];
    for (start, end, expected) in maps {
        let mut space = new_space();
        let request = space.request(('b', start, end, 0));
        let mut changes = Changes::new();
        let result = space.manager.map(&request.as_ref(), &mut changes, |_| {});
        assert_eq!(result.map(|mapped| mapped.in_sparse), expected, "map [{start},{end})");
        space.finish(changes);
        assert_eq!(
            space.manager.in_sparse(Span::new(start, end)),
            (start, end) != (0, 10) && start < 20
        );
    }
    let regions = [
        (0, 10, Ok(())),
        (20, 30, Ok(())),
        (10, 20, Err(Errno::EXIST)),
        (12, 15, Err(Errno::EXIST)),
        (5, 11, Err(Errno::EXIST)),
        (35, 36, Err(Errno::NOSPC)),
        (25, 31, Err(Errno::NOSPC)),
        (15, 35, Err(Errno::EXIST)),
    ];
    for (start, end, expected) in regions {
        assert_eq!(sparse(&mut new_space(), start, end), expected, "region [{start},{end})");
    }
    let removals = [
        (10, 20, Ok(())),
        (10, 19, Err(Errno::NOENT)),
        (11, 20, Err(Errno::NOENT)),
        (9, 20, Err(Errno::NOENT)),
        (30, 40, Err(Errno::NOENT)),
        (50, 60, Err(Errno::NOENT)),
    ];
    for (start, end, expected) in removals {
        let mut space = new_space();
        let mut changes = Changes::new();
        let result = space.manager.unmap_sparse(Span::new(start, end), &mut changes, |_| {});
        assert_eq!(result, expected, "remove [{start},{end})");
        space.finish(changes);
    }
}

#[test]
fn unmapping_within_a_region_keeps_it() {
    let mut space = Space::new();
    sparse(&mut space, 10, 20).expect("free");
    space.map(('a', 10, 20, 0));
    space.unmap(12, 15);
    assert_eq!(space.list(), [('a', 10, 12, 0), ('a', 15, 20, 5)]);
    // A plain unmap may cross the edges of the region, too.
    space.unmap(5, 30);
    assert_eq!((space.list(), regions(&space)), (Vec::new(), [(10, 20)].into()));
}

#[test]
fn a_region_goes_with_its_mappings_and_is_dirty_meanwhile() {
    let mut space = Space::new();
    sparse(&mut space, 10, 20).expect("free");
    space.map(('a', 12, 14, 0));
    space.map(('0', 16, 20, 0));
    let span = Span::new(10, 20);
    let mut changes = Changes::new();
    let mut told = Vec::new();
    let each = |op: &Op<&Obj>| told.push(super::op_shown(op));
    space.manager.unmap_sparse(span, &mut changes, each).expect("exact");
    assert_eq!(told, ["U a[12,14)+0", "U 0[16,20)+0"]);
    assert_eq!((space.list(), regions(&space)), (Vec::new(), Vec::new()));

    let inside = space.request(('b', 12, 13, 0));
    let outside = space.request(('b', 5, 25, 0));
    let manager = &mut space.manager;
    let refused = [
        manager.map(&inside.as_ref(), &mut changes, |_| {}).err(),
        manager.map(&outside.as_ref(), &mut changes, |_| {}).err(),
        manager.unmap_sparse(span, &mut changes, |_| {}).err(),
        manager.map_sparse(span, &mut changes).err(),
    ];
    let expected = [Errno::INVAL, Errno::INVAL, Errno::NOENT, Errno::EXIST].map(Some);
    assert_eq!(refused, expected, "a dirty region takes nothing");
    assert_eq!(manager.unmap(Span::new(5, 25), &mut changes, |_| {}), Ok(()), "unmap is fine");

    let removed = space.manager.seal(changes);
    assert_eq!(sparse(&mut space, 10, 20), Err(Errno::EXIST), "until it is released");
    space.manager.release(removed, drop);
    space.check();
    assert_eq!(sparse(&mut space, 10, 20), Ok(()));
}

#[test]
fn a_refused_call_leaves_regions_as_they_were() {
    let mut space = Space::new();
    sparse(&mut space, 10, 20).expect("free");
    space.map(('a', 12, 14, 3));
    let mut changes = Changes::new();
    let manager = &mut space.manager;
    manager.map_sparse(Span::new(40, 50), &mut changes).expect("free");
    manager.unmap_sparse(Span::new(10, 20), &mut changes, |_| {}).expect("exact");
    manager.unmap_sparse(Span::new(40, 50), &mut changes, |_| {}).expect("made in this call");
    manager.revert(changes, drop);
    space.check();
    assert_eq!((space.list(), regions(&space)), ([('a', 12, 14, 3)].into(), [(10, 20)].into()));
    space.map(('b', 15, 16, 0));
}

/// Removing the mappings of a region needs no memory, so a region without any, too.
#[test]
fn clear_takes_everything() {
    let mut space = Space::with(&[('a', 0, 5, 0), ('0', 30, 40, 0)]);
    sparse(&mut space, 10, 20).expect("free");
    let mut dropped = Vec::new();
    space.manager.clear(|object| dropped.push(object.name));
    space.check();
    assert_eq!((space.list(), regions(&space), dropped), (Vec::new(), Vec::new(), ['a'].into()));
    assert_eq!(space.manager.retained(), 0);
}
