//! Tests of the VA manager: the documented cases, sparse regions, memory, and a random comparison
//! with a naive model. Addresses and offsets are in units of 1.

mod cases;
mod errors;
mod memory;
mod property;
mod sparse;

use super::{Attrs, Changes, Manager, Mapping, Object, Op, Span, Unmap};
use std::cell::Cell;
use std::rc::Rc;

/// An object named by a letter, which counts its mappings.
#[derive(Clone, Debug)]
struct Obj {
    name: char,
    linked: Rc<Cell<u32>>,
}

impl Obj {
    fn new(name: char) -> Self {
        Self { name, linked: Rc::new(Cell::new(0)) }
    }
}

impl Object for Obj {
    fn id(&self) -> u64 {
        u64::from(u32::from(self.name))
    }
    fn linked(&self) {
        self.linked.set(self.linked.get() + 1);
    }
    fn unlinked(&self) {
        self.linked.set(self.linked.get() - 1);
    }
}

/// A mapping in short: object (`0` for NULL), start, end, offset.
type Short = (char, u64, u64, u64);

/// A manager with the objects that its tests use.
struct Space {
    manager: Manager<Obj>,
    objects: Vec<Obj>,
}

impl Space {
    /// [0, 1000) with the hole [900, 910).
    fn new() -> Self {
        let manager = Manager::new(Span::new(0, 1000), Span::new(900, 910)).expect("memory");
        Self { manager, objects: "abc".chars().map(Obj::new).collect() }
    }

    fn with(mappings: &[Short]) -> Self {
        let mut space = Self::new();
        for mapping in mappings {
            space.map(*mapping);
        }
        space
    }

    fn object(&self, name: char) -> Option<Obj> {
        self.objects.iter().find(|object| object.name == name).cloned()
    }

    fn request(&self, (name, start, end, offset): Short) -> Mapping<Obj> {
        let attrs = Attrs { kind: 7, ..Attrs::default() };
        Mapping { span: Span::new(start, end), object: self.object(name), offset, attrs }
    }

    /// Maps in a call of its own.
    fn map(&mut self, mapping: Short) {
        let request = self.request(mapping);
        let mut changes = Changes::new();
        self.manager.map(&request.as_ref(), &mut changes, |_| {}).expect("accepted");
        self.finish(changes);
    }

    /// Unmaps in a call of its own.
    fn unmap(&mut self, start: u64, end: u64) {
        let mut changes = Changes::new();
        self.manager.unmap(Span::new(start, end), &mut changes, |_| {}).expect("accepted");
        self.finish(changes);
    }

    fn finish(&mut self, changes: Changes) {
        let removed = self.manager.seal(changes);
        self.manager.release(removed, drop);
        self.check();
    }

    /// The mappings in short.
    fn list(&self) -> Vec<Short> {
        self.manager.iter(Span::new(0, u64::MAX)).map(|mapping| short(&mapping)).collect()
    }

    /// Checks the invariants and that each object counts its mappings.
    fn check(&self) {
        self.manager.assert_consistent();
        for object in &self.objects {
            let listed = self.list().iter().filter(|m| m.0 == object.name).count();
            assert_eq!(object.linked.get() as usize, listed, "mappings of {}", object.name);
            assert_eq!(self.manager.mappings_of(object.id()).count(), listed);
        }
    }
}

fn short(mapping: &Mapping<&Obj>) -> Short {
    let name = mapping.object.map_or('0', |object| object.name);
    (name, mapping.span.start, mapping.span.end, mapping.offset)
}

/// `a[0,1)+5` for object a, range and offset.
fn shown(mapping: &Mapping<&Obj>) -> String {
    let (name, start, end, offset) = short(mapping);
    format!("{name}[{start},{end})+{offset}")
}

/// An operation as `U(k)`, `R(prev,next,k)`, `M`, with the mappings it names.
fn op_shown(op: &Op<&Obj>) -> String {
    let kept = |unmap: &Unmap<&Obj>| if unmap.keep { "k" } else { "" };
    match op {
        Op::Map(map) => format!("M {}", shown(map)),
        Op::Unmap(unmap) if unmap.keep => format!("U(k) {}", shown(&unmap.mapping)),
        Op::Unmap(unmap) => format!("U {}", shown(&unmap.mapping)),
        Op::Remap { prev, next, unmap } => {
            let prev = prev.as_ref().map(|prev| format!("prev {}", shown(prev)));
            let next = next.as_ref().map(|next| format!("next {}", shown(next)));
            let kept = Some(String::from(kept(unmap))).filter(|kept| !kept.is_empty());
            let parts: Vec<_> = [prev, next, kept].into_iter().flatten().collect();
            format!("R({}) {}", parts.join(", "), shown(&unmap.mapping))
        }
        Op::Prefetch(mapping) => format!("P {}", shown(mapping)),
        Op::Madvise(mapping) => format!("A {}", shown(mapping)),
    }
}

/// The list form shown like the callback form.
fn ops_shown(ops: &[Op<Obj>]) -> Vec<String> {
    ops.iter().map(|op| op_shown(&op_ref(op))).collect()
}

fn op_ref(op: &Op<Obj>) -> Op<&Obj> {
    match op {
        Op::Map(map) => Op::Map(map.as_ref()),
        Op::Remap { prev, next, unmap } => Op::Remap {
            prev: prev.as_ref().map(Mapping::as_ref),
            next: next.as_ref().map(Mapping::as_ref),
            unmap: Unmap { mapping: unmap.mapping.as_ref(), keep: unmap.keep },
        },
        Op::Unmap(unmap) => Op::Unmap(Unmap { mapping: unmap.mapping.as_ref(), keep: unmap.keep }),
        Op::Prefetch(mapping) => Op::Prefetch(mapping.as_ref()),
        Op::Madvise(mapping) => Op::Madvise(mapping.as_ref()),
    }
}
