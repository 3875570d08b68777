//! What is refused, and that a refused request changes nothing.

use super::{Changes, Manager, Obj, Space, Span};
use fencepost_uapi::Errno;

#[test]
fn bad_ranges_are_refused_by_every_call() {
    let mut space = Space::with(&[('a', 0, 2, 0), ('0', 890, 900, 0)]);
    let before = space.list();
    let bad = [
        (5, 5, "empty"),
        (6, 5, "reversed"),
        (999, 1001, "beyond the end"),
        (1000, 1001, "behind the end"),
        (u64::MAX - 1, u64::MAX, "far away"),
        (890, 901, "into the hole"),
        (905, 906, "in the hole"),
        (909, 920, "out of the hole"),
        (0, 1000, "over the hole"),
    ];
    for (start, end, what) in bad {
        let span = Span::new(start, end);
        let request = space.request(('a', start, end, 0));
        let mut changes = Changes::new();
        let manager = &mut space.manager;
        let errors = [
            manager.map(&request.as_ref(), &mut changes, |_| {}).err(),
            manager.map_ops(&request.as_ref()).err(),
            manager.unmap(span, &mut changes, |_| {}).err(),
            manager.unmap_ops(span).err(),
            manager.map_sparse(span, &mut changes).err(),
            manager.unmap_sparse(span, &mut changes, |_| {}).err(),
            manager.madvise(span, 1, &mut changes, |_| {}).err(),
            manager.madvise_ops(span).err(),
            manager.prefetch_ops(span).err(),
        ];
        assert_eq!(errors, [Some(Errno::INVAL); 9], "{what}");
        assert!(changes.is_empty(), "{what}: nothing was changed");
        space.check();
        assert_eq!(space.list(), before, "{what}");
        space.finish(changes);
    }
    // The edges of the hole are not in it.
    space.map(('b', 890, 900, 0));
    space.map(('b', 910, 1000, 0));
}

#[test]
fn ranges_that_wrap_have_no_span() {
    assert_eq!(Span::sized(0, 0), None);
    assert_eq!(Span::sized(u64::MAX, 2), None);
    assert_eq!(Span::sized(u64::MAX - 1, 1), Some(Span::new(u64::MAX - 1, u64::MAX)));
}

#[test]
fn an_offset_that_wraps_is_refused() {
    let mut space = Space::new();
    let request = space.request(('a', 0, 10, u64::MAX - 9));
    let mut changes = Changes::new();
    let result = space.manager.map(&request.as_ref(), &mut changes, |_| {});
    assert_eq!(result.err(), Some(Errno::INVAL));
    space.finish(changes);
}

#[test]
fn a_space_must_hold_its_hole() {
    let new = |start, end, from, to| {
        Manager::<Obj>::new(Span::new(start, end), Span::new(from, to)).map(|_| ()).err()
    };
    let rows = [
        (new(0, 10, 0, 0), None),
        (new(0, 10, 0, 10), None),
        (new(0, 10, 9, 10), None),
        (new(0, 0, 0, 0), Some(Errno::INVAL)),
        (new(0, 10, 9, 11), Some(Errno::INVAL)),
        (new(5, 10, 4, 6), Some(Errno::INVAL)),
    ];
    for (row, (seen, expected)) in rows.into_iter().enumerate() {
        assert_eq!(seen, expected, "row {row}");
    }
}

#[test]
fn iteration_and_find_see_what_overlaps() {
    let space = Space::with(&[('a', 0, 2, 0), ('b', 4, 6, 0), ('c', 6, 9, 0)]);
    let names = |start, end| -> Vec<char> {
        space.manager.iter(Span::new(start, end)).map(|m| super::short(&m).0).collect()
    };
    assert_eq!(names(0, 1000), ['a', 'b', 'c']);
    assert_eq!(names(1, 5), ['a', 'b']);
    assert_eq!(names(2, 4), []);
    assert_eq!(names(5, 7), ['b', 'c']);
    assert_eq!(names(9, 1000), []);
    let found = |addr| space.manager.find(addr).map(|m| super::short(&m).0);
    let seen: Vec<_> = [0, 1, 2, 3, 4, 5, 6, 8, 9].map(found).into();
    let all = [Some('a'), Some('a'), None, None, Some('b'), Some('b'), Some('c'), Some('c'), None];
    assert_eq!(seen, all);
}
