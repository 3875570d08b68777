//! The cases of `drm_gpuvm.c`, section DOC "Split and Merge", with its numbers, and those with
//! several mappings under one request. For each: the operations, as a list and as they are told;
//! what is mapped then; and that undoing brings back what was.

use super::{op_shown, ops_shown, Changes, Obj, Op, Short, Space, Span};

/// What happens to the space.
#[derive(Clone, Copy)]
enum Request {
    Map(Short),
    Unmap(u64, u64),
}
use Request::{Map, Unmap};

struct Case {
    name: &'static str,
    old: &'static [Short],
    request: Request,
    ops: &'static [&'static str],
    then: &'static [Short],
}

fn check(case: &Case) {
    let mut space = Space::with(case.old);
    let before = space.list();
    assert_eq!(before, case.old, "{}: start", case.name);

    let mut changes = Changes::new();
    let (listed, told) = request(&mut space, case.request, &mut changes);
    assert_eq!(listed, case.ops, "{}: operations", case.name);
    assert_eq!(told, case.ops, "{}: operations told", case.name);
    assert_eq!(space.list(), case.then, "{}: result", case.name);
    space.check();
    space.manager.revert(changes, drop);
    space.check();
    assert_eq!(space.list(), before, "{}: undone", case.name);
    assert_eq!(space.manager.retained(), 0, "{}: undoing keeps nothing", case.name);

    let mut changes = Changes::new();
    let (listed, _) = request(&mut space, case.request, &mut changes);
    assert_eq!(listed, case.ops, "{}: operations after undoing", case.name);
    space.finish(changes);
    assert_eq!(space.list(), case.then, "{}: final result", case.name);
    assert_eq!(space.manager.retained(), 0, "{}: all was released", case.name);
}

fn request(
    space: &mut Space,
    request: Request,
    changes: &mut Changes,
) -> (Vec<String>, Vec<String>) {
    let mut told = Vec::new();
    let listed = match request {
        Map(map) => {
            let request = space.request(map);
            let listed = space.manager.map_ops(&request.as_ref()).expect("valid");
            let each = |op: &Op<&Obj>| told.push(op_shown(op));
            space.manager.map(&request.as_ref(), changes, each).expect("accepted");
            listed
        }
        Unmap(start, end) => {
            let span = Span::new(start, end);
            let listed = space.manager.unmap_ops(span).expect("valid");
            space.manager.unmap(span, changes, |op| told.push(op_shown(op))).expect("accepted");
            listed
        }
    };
    (ops_shown(&listed), told)
}

/// Offsets n = 10, m = 50.
const DOCUMENTED: &[Case] = &[
    Case {
        name: "1: identical",
        old: &[('a', 0, 1, 10)],
        request: Map(('a', 0, 1, 10)),
        ops: &["U(k) a[0,1)+10", "M a[0,1)+10"],
        then: &[('a', 0, 1, 10)],
    },
    Case {
        name: "2: other offset",
        old: &[('a', 0, 1, 10)],
        request: Map(('a', 0, 1, 50)),
        ops: &["U a[0,1)+10", "M a[0,1)+50"],
        then: &[('a', 0, 1, 50)],
    },
    Case {
        name: "3: other object",
        old: &[('a', 0, 1, 10)],
        request: Map(('b', 0, 1, 10)),
        ops: &["U a[0,1)+10", "M b[0,1)+10"],
        then: &[('b', 0, 1, 10)],
    },
    Case {
        name: "4: old is left part of request",
        old: &[('a', 0, 1, 10)],
        request: Map(('a', 0, 2, 10)),
        ops: &["U(k) a[0,1)+10", "M a[0,2)+10"],
        then: &[('a', 0, 2, 10)],
    },
    Case {
        name: "4, other object",
        old: &[('a', 0, 1, 10)],
        request: Map(('b', 0, 2, 10)),
        ops: &["U a[0,1)+10", "M b[0,2)+10"],
        then: &[('b', 0, 2, 10)],
    },
    Case {
        name: "5: request is left part of old, other object",
        old: &[('a', 0, 2, 10)],
        request: Map(('b', 0, 1, 10)),
        ops: &["R(next a[1,2)+11) a[0,2)+10", "M b[0,1)+10"],
        then: &[('b', 0, 1, 10), ('a', 1, 2, 11)],
    },
    Case {
        name: "5, same object, other offset",
        old: &[('a', 0, 2, 10)],
        request: Map(('a', 0, 1, 50)),
        ops: &["R(next a[1,2)+11) a[0,2)+10", "M a[0,1)+50"],
        then: &[('a', 0, 1, 50), ('a', 1, 2, 11)],
    },
    Case {
        name: "6: request is left part of old, contiguous",
        old: &[('a', 0, 2, 10)],
        request: Map(('a', 0, 1, 10)),
        ops: &["R(next a[1,2)+11, k) a[0,2)+10", "M a[0,1)+10"],
        then: &[('a', 0, 1, 10), ('a', 1, 2, 11)],
    },
    Case {
        name: "7: request is right part of old, other object",
        old: &[('a', 0, 2, 10)],
        request: Map(('b', 1, 2, 50)),
        ops: &["R(prev a[0,1)+10) a[0,2)+10", "M b[1,2)+50"],
        then: &[('a', 0, 1, 10), ('b', 1, 2, 50)],
    },
    Case {
        name: "8: request is right part of old, contiguous",
        old: &[('a', 0, 2, 10)],
        request: Map(('a', 1, 2, 11)),
        ops: &["R(prev a[0,1)+10, k) a[0,2)+10", "M a[1,2)+11"],
        then: &[('a', 0, 1, 10), ('a', 1, 2, 11)],
    },
    Case {
        name: "9: request overlaps the end of old",
        old: &[('a', 0, 2, 10)],
        request: Map(('b', 1, 3, 50)),
        ops: &["R(prev a[0,1)+10) a[0,2)+10", "M b[1,3)+50"],
        then: &[('a', 0, 1, 10), ('b', 1, 3, 50)],
    },
    Case {
        name: "10: request overlaps the end of old, contiguous",
        old: &[('a', 0, 2, 10)],
        request: Map(('a', 1, 3, 11)),
        ops: &["R(prev a[0,1)+10, k) a[0,2)+10", "M a[1,3)+11"],
        then: &[('a', 0, 1, 10), ('a', 1, 3, 11)],
    },
    Case {
        name: "11: request is in the middle of old",
        old: &[('a', 0, 3, 10)],
        request: Map(('b', 1, 2, 50)),
        ops: &["R(prev a[0,1)+10, next a[2,3)+12) a[0,3)+10", "M b[1,2)+50"],
        then: &[('a', 0, 1, 10), ('b', 1, 2, 50), ('a', 2, 3, 12)],
    },
    Case {
        name: "12: request is in the middle of old, contiguous",
        old: &[('a', 0, 3, 10)],
        request: Map(('a', 1, 2, 11)),
        ops: &["R(prev a[0,1)+10, next a[2,3)+12, k) a[0,3)+10", "M a[1,2)+11"],
        then: &[('a', 0, 1, 10), ('a', 1, 2, 11), ('a', 2, 3, 12)],
    },
    Case {
        name: "13: old is right part of request",
        old: &[('a', 1, 2, 11)],
        request: Map(('a', 0, 2, 10)),
        ops: &["U(k) a[1,2)+11", "M a[0,2)+10"],
        then: &[('a', 0, 2, 10)],
    },
    Case {
        name: "13, other object",
        old: &[('a', 1, 2, 11)],
        request: Map(('b', 0, 2, 10)),
        ops: &["U a[1,2)+11", "M b[0,2)+10"],
        then: &[('b', 0, 2, 10)],
    },
    Case {
        name: "14: old is in the middle of request",
        old: &[('a', 1, 2, 11)],
        request: Map(('a', 0, 3, 10)),
        ops: &["U(k) a[1,2)+11", "M a[0,3)+10"],
        then: &[('a', 0, 3, 10)],
    },
    Case {
        name: "14, other object",
        old: &[('a', 1, 2, 11)],
        request: Map(('b', 0, 3, 10)),
        ops: &["U a[1,2)+11", "M b[0,3)+10"],
        then: &[('b', 0, 3, 10)],
    },
    Case {
        name: "15: request overlaps the beginning of old",
        old: &[('a', 1, 3, 10)],
        request: Map(('b', 0, 2, 50)),
        ops: &["R(next a[2,3)+11) a[1,3)+10", "M b[0,2)+50"],
        then: &[('b', 0, 2, 50), ('a', 2, 3, 11)],
    },
    Case {
        name: "15, same object, contiguous",
        old: &[('a', 1, 3, 11)],
        request: Map(('a', 0, 2, 10)),
        ops: &["R(next a[2,3)+12, k) a[1,3)+11", "M a[0,2)+10"],
        then: &[('a', 0, 2, 10), ('a', 2, 3, 12)],
    },
];

const SEVERAL: &[Case] = &[
    Case {
        name: "neighbours are left alone and not merged",
        old: &[('a', 0, 1, 10), ('a', 2, 3, 12)],
        request: Map(('a', 1, 2, 11)),
        ops: &["M a[1,2)+11"],
        then: &[('a', 0, 1, 10), ('a', 1, 2, 11), ('a', 2, 3, 12)],
    },
    Case {
        name: "ragged left, whole ones, ragged right",
        old: &[('a', 0, 3, 10), ('b', 3, 4, 0), ('a', 5, 6, 15), ('c', 6, 9, 0)],
        request: Map(('a', 1, 8, 11)),
        ops: &[
            "R(prev a[0,1)+10, k) a[0,3)+10",
            "U b[3,4)+0",
            "U(k) a[5,6)+15",
            "R(next c[8,9)+2) c[6,9)+0",
            "M a[1,8)+11",
        ],
        then: &[('a', 0, 1, 10), ('a', 1, 8, 11), ('c', 8, 9, 2)],
    },
    Case {
        name: "two ragged edges that touch",
        old: &[('a', 0, 2, 10), ('b', 2, 4, 20)],
        request: Map(('c', 1, 3, 0)),
        ops: &["R(prev a[0,1)+10) a[0,2)+10", "R(next b[3,4)+21) b[2,4)+20", "M c[1,3)+0"],
        then: &[('a', 0, 1, 10), ('c', 1, 3, 0), ('b', 3, 4, 21)],
    },
    Case {
        name: "each mapping keeps for itself",
        old: &[('a', 0, 1, 10), ('a', 1, 2, 50), ('b', 2, 3, 12), ('a', 3, 4, 13)],
        request: Map(('a', 0, 4, 10)),
        ops: &["U(k) a[0,1)+10", "U a[1,2)+50", "U b[2,3)+12", "U(k) a[3,4)+13", "M a[0,4)+10"],
        then: &[('a', 0, 4, 10)],
    },
    Case {
        name: "NULL is never kept, and its pieces have no offset",
        old: &[('0', 0, 9, 0)],
        request: Map(('0', 3, 6, 0)),
        ops: &["R(prev 0[0,3)+0, next 0[6,9)+0) 0[0,9)+0", "M 0[3,6)+0"],
        then: &[('0', 0, 3, 0), ('0', 3, 6, 0), ('0', 6, 9, 0)],
    },
    Case {
        name: "offsets wrap in the comparison, not in the result",
        old: &[('a', 5, 6, 0)],
        request: Map(('a', 0, 9, u64::MAX - 20)),
        ops: &["U a[5,6)+0", "M a[0,9)+18446744073709551595"],
        then: &[('a', 0, 9, u64::MAX - 20)],
    },
    Case {
        name: "the last unit",
        old: &[('a', 998, 1000, 0)],
        request: Map(('b', 999, 1000, 0)),
        ops: &["R(prev a[998,999)+0) a[998,1000)+0", "M b[999,1000)+0"],
        then: &[('a', 998, 999, 0), ('b', 999, 1000, 0)],
    },
];

const UNMAPS: &[Case] = &[
    Case {
        name: "hole",
        old: &[('a', 9, 10, 0)],
        request: Unmap(0, 9),
        ops: &[],
        then: &[('a', 9, 10, 0)],
    },
    Case { name: "empty space", old: &[], request: Unmap(0, 9), ops: &[], then: &[] },
    Case {
        name: "exact",
        old: &[('a', 0, 2, 10)],
        request: Unmap(0, 2),
        ops: &["U a[0,2)+10"],
        then: &[],
    },
    Case {
        name: "left part",
        old: &[('a', 0, 2, 10)],
        request: Unmap(0, 1),
        ops: &["R(next a[1,2)+11) a[0,2)+10"],
        then: &[('a', 1, 2, 11)],
    },
    Case {
        name: "right part",
        old: &[('a', 0, 2, 10)],
        request: Unmap(1, 2),
        ops: &["R(prev a[0,1)+10) a[0,2)+10"],
        then: &[('a', 0, 1, 10)],
    },
    Case {
        name: "middle",
        old: &[('a', 0, 3, 10)],
        request: Unmap(1, 2),
        ops: &["R(prev a[0,1)+10, next a[2,3)+12) a[0,3)+10"],
        then: &[('a', 0, 1, 10), ('a', 2, 3, 12)],
    },
    Case {
        name: "several, with holes between",
        old: &[('a', 0, 2, 10), ('b', 3, 4, 0), ('0', 6, 9, 0)],
        request: Unmap(1, 8),
        ops: &["R(prev a[0,1)+10) a[0,2)+10", "U b[3,4)+0", "R(next 0[8,9)+0) 0[6,9)+0"],
        then: &[('a', 0, 1, 10), ('0', 8, 9, 0)],
    },
];

#[test]
fn split_and_merge_as_documented() {
    DOCUMENTED.iter().for_each(check);
}

#[test]
fn several_mappings_under_one_request() {
    SEVERAL.iter().for_each(check);
}

#[test]
fn unmap_splits_and_ignores_holes() {
    UNMAPS.iter().for_each(check);
}

/// `keep` is about the bytes shown, not about how they are shown: flags and kind may differ.
#[test]
fn keep_says_nothing_of_flags_and_kind() {
    let mut space = Space::with(&[('a', 0, 2, 10)]);
    let mut request = space.request(('a', 0, 2, 10));
    request.attrs = super::Attrs { flags: 1, kind: 9, preferred: 0 };
    let mut changes = Changes::new();
    let mut told = Vec::new();
    let each = |op: &Op<&Obj>| told.push(op_shown(op));
    space.manager.map(&request.as_ref(), &mut changes, each).expect("accepted");
    assert_eq!(told, ["U(k) a[0,2)+10", "M a[0,2)+10"]);
    space.finish(changes);
    let now = space.manager.find(1).expect("mapped");
    assert_eq!((now.attrs.flags, now.attrs.kind), (1, 9), "the new attributes count");
}

/// Pieces carry the attributes of the mapping they were cut from.
#[test]
fn pieces_keep_their_attributes() {
    let mut space = Space::new();
    let mut request = space.request(('a', 0, 9, 10));
    request.attrs = super::Attrs { flags: 1, kind: 200, preferred: 0 };
    let mut changes = Changes::new();
    space.manager.map(&request.as_ref(), &mut changes, |_| {}).expect("accepted");
    space.finish(changes);
    space.unmap(3, 6);
    for mapping in space.manager.iter(Span::new(0, 9)) {
        assert_eq!(mapping.attrs, request.attrs, "{}", super::shown(&mapping));
    }
}

/// Prefetch names each mapping that the range touches, as a whole and in order.
#[test]
fn prefetch_names_whole_mappings() {
    let space = Space::with(&[('a', 0, 4, 10), ('0', 6, 8, 0), ('b', 8, 12, 0)]);
    let ops = space.manager.prefetch_ops(Span::new(3, 9)).expect("valid");
    assert_eq!(ops_shown(&ops), ["P a[0,4)+10", "P 0[6,8)+0", "P b[8,12)+0"]);
    assert!(space.manager.prefetch_ops(Span::new(20, 30)).expect("valid").is_empty());
}

/// Madvise splits NULL mappings at the edges of the range and leaves the rest alone.
#[test]
fn madvise_splits_only_ragged_null_mappings() {
    struct Row {
        old: &'static [Short],
        span: (u64, u64),
        ops: &'static [&'static str],
        advised: &'static [Short],
    }
    let rows = [
        Row {
            old: &[('0', 0, 9, 0)],
            span: (3, 6),
            ops: &["R(prev 0[0,3)+0, next 0[6,9)+0) 0[0,9)+0", "M 0[3,6)+0"],
            advised: &[('0', 3, 6, 0)],
        },
        Row {
            old: &[('0', 0, 4, 0), ('0', 5, 9, 0)],
            span: (3, 6),
            ops: &[
                "R(prev 0[0,3)+0) 0[0,4)+0",
                "M 0[3,4)+0",
                "R(next 0[6,9)+0) 0[5,9)+0",
                "M 0[5,6)+0",
            ],
            advised: &[('0', 3, 4, 0), ('0', 5, 6, 0)],
        },
        Row {
            old: &[('0', 0, 4, 0), ('0', 4, 6, 0)],
            span: (3, 6),
            ops: &["R(prev 0[0,3)+0) 0[0,4)+0", "M 0[3,4)+0"],
            advised: &[('0', 3, 4, 0), ('0', 4, 6, 0)],
        },
        Row { old: &[('0', 3, 6, 0)], span: (3, 6), ops: &[], advised: &[('0', 3, 6, 0)] },
        Row { old: &[], span: (3, 6), ops: &[], advised: &[] },
        Row { old: &[('a', 0, 9, 0)], span: (3, 6), ops: &[], advised: &[] },
    ];
    for row in rows {
        let mut space = Space::with(row.old);
        let span = Span::new(row.span.0, row.span.1);
        let listed = space.manager.madvise_ops(span).expect("valid");
        assert_eq!(ops_shown(&listed), row.ops);
        let mut changes = Changes::new();
        let (mut told, mut advised) = (Vec::new(), Vec::new());
        let each = |op: &Op<&Obj>| match op {
            Op::Madvise(mapping) => {
                assert_eq!(mapping.attrs.preferred, 2, "the new preference is told");
                advised.push(super::short(mapping));
            }
            op => told.push(op_shown(op)),
        };
        space.manager.madvise(span, 2, &mut changes, each).expect("accepted");
        assert_eq!(told, row.ops, "callback and list agree");
        assert_eq!(advised, row.advised);
        let preferred = |space: &Space| {
            let all = space.manager.iter(Span::new(0, 1000));
            let set = all.filter(|mapping| mapping.attrs.preferred == 2);
            set.map(|mapping| super::short(&mapping)).collect::<Vec<_>>()
        };
        assert_eq!(preferred(&space), row.advised);
        space.manager.revert(changes, drop);
        space.check();
        assert_eq!((space.list(), preferred(&space)), (row.old.to_vec(), Vec::new()));
    }
}

/// Unmap-all takes every mapping of an object, in the order in which they were made.
#[test]
fn unmap_object_takes_all_its_mappings() {
    let mut space = Space::with(&[('a', 8, 9, 0), ('b', 4, 6, 0), ('a', 0, 2, 5)]);
    let id = u64::from(u32::from('a'));
    let listed = ops_shown(&space.manager.unmap_object_ops(id).expect("memory"));
    assert_eq!(listed, ["U a[8,9)+0", "U a[0,2)+5"]);
    let mut changes = Changes::new();
    let mut told = Vec::new();
    space.manager.unmap_object(id, &mut changes, |op| told.push(op_shown(op)));
    assert_eq!(told, listed);
    assert_eq!(space.list(), [('b', 4, 6, 0)]);
    assert_eq!(space.manager.objects().count(), 1, "an object without mapping is not listed");
    space.manager.revert(changes, drop);
    space.check();
    assert_eq!(space.list().len(), 3);

    let mut changes = Changes::new();
    space.manager.unmap_object(id, &mut changes, |_| {});
    let removed = space.manager.seal(changes);
    let mut dropped = Vec::new();
    space.manager.release(removed, |object| dropped.push(object.name));
    assert_eq!(dropped, ['a'], "the object goes with its last mapping");
    space.check();
}
