//! One round: the same requests to both managers, and everything that they say compared.
//!
//! Owns what must agree and what the kernel's documentation leaves open:
//!
//! - The list form, the callback form, and the same of the other manager: one list. A request that
//!   is mapped already in the same way may have no operations at all on the kernel's side.
//! - Refusals, by errno. An empty range and an offset that wraps are left to the driver by
//!   drm_gpuvm; core refuses them alone. So is every rule about sparse regions, of which drm_gpuvm
//!   knows nothing: a model here says what core must answer.
//! - The order in which an object's mappings are unmapped is open: compared by address.

use crate::facade;
use crate::gpuva::{Attrs, Changes, Manager, Mapping, Object, Op as CoreOp, Removed, Span};
use crate::gpuvm::{self, Gpuvm, List, Map, Op};
use crate::plan::{Request, Shape, Step};
use crate::tally::Tally;
use fencepost_uapi::Errno;
use kernel::alloc::{AllocError, KVec};
use kernel::prelude::*;

/// An object of core's manager: its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bo(pub(crate) u64);

impl Object for Bo {
    fn id(&self) -> u64 {
        self.0
    }
}

/// Most mappings in a round's VA space, with room for the operations of one request.
const ROOM: usize = 4096;

/// Whose list, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    CoreList,
    CoreTold,
    KernelList,
    KernelTold,
}

/// The lists of one request, or two tables.
pub(crate) struct Lists([List; 4]);

impl Lists {
    pub(crate) fn new() -> Result<Self> {
        let list = || List::new(ROOM);
        Ok(Self([list()?, list()?, list()?, list()?]))
    }

    pub(crate) fn of(&mut self, source: Source) -> &mut List {
        &mut self.0[source as usize]
    }

    fn clear(&mut self) {
        self.0.iter_mut().for_each(List::clear);
    }

    fn equal(&self, a: Source, b: Source) -> bool {
        self.0[a as usize].ops() == self.0[b as usize].ops()
    }
}

/// Where the managers part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Difference {
    /// Which request of the round, from 0.
    pub(crate) step: usize,
    pub(crate) what: &'static str,
    /// What each said: 0 or a negative errno.
    pub(crate) errors: [i32; 2],
    /// The lists that differ; they are in the round's [`Lists`].
    pub(crate) lists: Option<[Source; 2]>,
}

/// Why a round ends early.
pub(crate) enum Stop {
    Differ(Difference),
    Trouble(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Trouble(error)
    }
}

impl From<AllocError> for Stop {
    fn from(_: AllocError) -> Self {
        Stop::Trouble(ENOMEM)
    }
}

type Checked<T = ()> = core::result::Result<T, Stop>;

/// Both managers in the middle of a round.
pub(crate) struct Round<'a> {
    shape: Shape,
    core: Manager<Bo>,
    kernel: Gpuvm,
    lists: &'a mut Lists,
    tally: &'a mut Tally,
    /// What core took out last, released one request later, as when page tables follow late.
    removed: Option<Removed>,
    /// The model of the sparse regions.
    regions: KVec<(u64, u64)>,
    step: usize,
}

fn span_of((start, end): (u64, u64)) -> Span {
    Span::new(start, end)
}

fn number(result: core::result::Result<(), Errno>) -> i32 {
    result.map_or_else(|errno| -errno.0, |()| 0)
}

/// The object of a mapping, or a reference to it.
trait Named {
    fn number(&self) -> u64;
}

impl Named for Bo {
    fn number(&self) -> u64 {
        self.0
    }
}

impl Named for &Bo {
    fn number(&self) -> u64 {
        self.0
    }
}

fn mapping<R: Named>(mapping: &Mapping<R>) -> Map {
    Map {
        start: mapping.span.start,
        end: mapping.span.end,
        object: mapping.object.as_ref().map_or(0, Named::number),
        offset: mapping.offset,
    }
}

/// Core's operation in the common record; `None` for what the kernel has no operation for.
fn op<R: Named>(op: &CoreOp<R>) -> Option<Op> {
    let plain = |kind, map: &Mapping<R>| Op { kind, map: mapping(map), ..Op::default() };
    Some(match op {
        CoreOp::Map(map) => plain(gpuvm::MAP, map),
        CoreOp::Unmap(unmap) => {
            Op { keep: unmap.keep.into(), ..plain(gpuvm::UNMAP, &unmap.mapping) }
        }
        CoreOp::Remap { prev, next, unmap } => Op {
            keep: unmap.keep.into(),
            has_prev: prev.is_some().into(),
            has_next: next.is_some().into(),
            prev: prev.as_ref().map(mapping).unwrap_or_default(),
            next: next.as_ref().map(mapping).unwrap_or_default(),
            ..plain(gpuvm::REMAP, &unmap.mapping)
        },
        CoreOp::Prefetch(map) => plain(gpuvm::PREFETCH, map),
        CoreOp::Madvise(_) => return None,
    })
}

/// The list form of core.
fn collect(
    ops: core::result::Result<facade::Vec<CoreOp<Bo>>, Errno>,
    to: &mut List,
) -> core::result::Result<(), Errno> {
    to.clear();
    ops?.iter().filter_map(op).for_each(|told| to.push(told));
    Ok(())
}

/// What comes to core's manager: one of its functions that change it.
type Change<'c> =
    dyn Fn(&mut Manager<Bo>, &mut Changes, &mut List) -> core::result::Result<(), Errno> + 'c;

impl<'a> Round<'a> {
    pub(crate) fn new(shape: Shape, lists: &'a mut Lists, tally: &'a mut Tally) -> Result<Self> {
        let core = Manager::new(span_of(shape.span), span_of(shape.hole)).map_err(|_| ENOMEM)?;
        let kernel = Gpuvm::new(shape.span, shape.hole, shape.objects)?;
        let (removed, regions) = (None, KVec::new());
        Ok(Self { shape, core, kernel, lists, tally, removed, regions, step: 0 })
    }

    /// Does the requests; both tables are compared after each `every` of them and at the end.
    pub(crate) fn run(&mut self, steps: &[Step], every: usize) -> Checked {
        for (index, step) in steps.iter().enumerate() {
            self.step = index;
            self.lists.clear();
            self.one(step)?;
            if (index + 1) % every == 0 || index + 1 == steps.len() {
                self.compare_tables()?;
            }
            gpuvm::breathe();
        }
        Ok(())
    }

    /// What is mapped, by the kernel.
    pub(crate) fn table(&mut self) -> &[Op] {
        let (start, end) = self.shape.span;
        let list = self.lists.of(Source::KernelTold);
        self.kernel.table(start, end, list);
        list.ops()
    }

    fn one(&mut self, step: &Step) -> Checked {
        self.tally.request(&step.request);
        match step.request {
            Request::Map(request) => self.map(&request, step.rehearse),
            Request::Unmap { start, range } => self.unmap(start, range, step.rehearse),
            Request::UnmapObject { object } => self.unmap_object(object, step.rehearse),
            Request::Prefetch { start, range } => self.prefetch(start, range),
            Request::Madvise { start, range } => self.madvise(start, range, step.rehearse),
            Request::MapSparse { start, range } => self.map_sparse(start, range),
            Request::UnmapSparse { start, range } => self.unmap_sparse(start, range, step.rehearse),
            Request::Find { addr } => self.find(addr),
        }
    }

    fn differ<T>(&self, what: &'static str, errors: [i32; 2]) -> Checked<T> {
        Err(Stop::Differ(Difference { step: self.step, what, errors, lists: None }))
    }

    /// Both answered `errors`: these must be equal, and no lack of memory.
    fn same_answer(&self, core: i32, kernel: i32) -> Checked {
        let enomem = ENOMEM.to_errno();
        if core == enomem || kernel == enomem {
            return Err(Stop::Trouble(ENOMEM));
        }
        if core != kernel {
            return self.differ("the answers differ", [core, kernel]);
        }
        Ok(())
    }

    fn same_lists(&self, a: Source, b: Source, what: &'static str) -> Checked {
        if self.lists.equal(a, b) {
            return Ok(());
        }
        let (errors, lists) = ([0; 2], Some([a, b]));
        Err(Stop::Differ(Difference { step: self.step, what, errors, lists }))
    }

    /// Changes core's VA space, undoing it once before if asked to; fills [`Source::CoreTold`].
    fn change(&mut self, rehearse: bool, change: &Change<'_>) -> i32 {
        let told = self.lists.of(Source::CoreTold);
        let mut changes = Changes::new();
        if rehearse {
            // What it says then is thrown away: the second time is compared.
            let _ = change(&mut self.core, &mut changes, told);
            self.core.revert(changes, |_| {});
            (changes, self.tally.rehearsals) = (Changes::new(), self.tally.rehearsals + 1);
        }
        told.clear();
        let result = change(&mut self.core, &mut changes, told);
        self.release();
        self.removed = Some(self.core.seal(changes));
        number(result)
    }

    fn release(&mut self) {
        if let Some(removed) = self.removed.take() {
            self.core.release(removed, |_| {});
        }
    }

    /// Core must refuse, alone, and change nothing.
    fn refused(&mut self, errno: Errno, change: &Change<'_>) -> Checked {
        self.tally.refused_by_core += 1;
        let answer = self.change(false, change);
        if answer != -errno.0 {
            return self.differ("core must refuse by its own rules", [answer, -errno.0]);
        }
        if !self.lists.of(Source::CoreTold).ops().is_empty() {
            return self.differ("core told operations and then refused", [answer, -errno.0]);
        }
        Ok(())
    }

    fn map(&mut self, request: &gpuvm::Request, rehearse: bool) -> Checked {
        let &gpuvm::Request { start, range, object, offset } = request;
        let bo = Bo(object);
        let span = Span::sized(start, range);
        // Attributes are core's own and must not matter; so they change with the address.
        let attrs = Attrs { kind: (start >> 12) as u8, ..Attrs::default() };
        let object = (object != 0).then_some(&bo);
        let asked = span.map(|span| Mapping { span, object, offset, attrs });
        let change = move |core: &mut Manager<Bo>, changes: &mut Changes, told: &mut List| {
            let asked = asked.as_ref().ok_or(Errno::INVAL)?;
            let each = |told_op: &CoreOp<&Bo>| told.push(op(told_op).unwrap_or_default());
            core.map(asked, changes, each).map(drop)
        };
        if range == 0 || offset.checked_add(range).is_none() {
            return self.refused(Errno::INVAL, &change);
        }
        let kernel = self.kernel.map(request, false, self.lists.of(Source::KernelList));
        let crosses = |region: &(u64, u64)| {
            span.is_some_and(|s| span_of(*region).overlaps(s) && !span_of(*region).contains(s))
        };
        if kernel == 0 && self.regions.iter().any(crosses) {
            return self.refused(Errno::NOSPC, &change);
        }
        let listed = asked.as_ref().ok_or(Errno::INVAL).and_then(|asked| self.core.map_ops(asked));
        let core = number(collect(listed, self.lists.of(Source::CoreList)));
        self.same_answer(core, kernel)?;
        self.drop_needless(&asked);
        self.same_lists(Source::CoreList, Source::KernelList, "the operation lists differ")?;
        let core = self.change(rehearse, &change);
        let kernel = self.kernel.map(request, true, self.lists.of(Source::KernelTold));
        self.drop_needless(&asked);
        self.applied(core, kernel)?;
        if core == 0 {
            self.tally.cases(self.lists.of(Source::CoreTold).ops());
        }
        Ok(())
    }

    /// The kernel may say nothing for a request that changes nothing: core's operations for it are
    /// dropped then.
    fn drop_needless(&mut self, asked: &Option<Mapping<&Bo>>) {
        let Some(asked) = asked.as_ref().map(mapping) else { return };
        for (core, kernel) in
            [(Source::CoreList, Source::KernelList), (Source::CoreTold, Source::KernelTold)]
        {
            let replaced = matches!(self.lists.of(core).ops(), [unmap, map]
                if unmap.kind == gpuvm::UNMAP && unmap.map == asked && map.map == asked);
            if replaced && self.lists.of(kernel).ops().is_empty() && asked.object != 0 {
                self.lists.of(core).clear();
            }
        }
    }

    /// A change was made on both sides: what both told must be what core had listed.
    fn applied(&mut self, core: i32, kernel: i32) -> Checked {
        self.same_answer(core, kernel)?;
        if core != 0 {
            self.tally.refused += 1;
        }
        self.tally.operations(self.lists.of(Source::CoreTold).ops());
        self.same_lists(Source::CoreTold, Source::KernelTold, "the operations told differ")?;
        self.same_lists(Source::CoreList, Source::CoreTold, "core's two forms differ")
    }

    fn unmap(&mut self, start: u64, range: u64, rehearse: bool) -> Checked {
        let span = Span::sized(start, range);
        let change = move |core: &mut Manager<Bo>, changes: &mut Changes, told: &mut List| {
            let each = |told_op: &CoreOp<&Bo>| told.push(op(told_op).unwrap_or_default());
            core.unmap(span.ok_or(Errno::INVAL)?, changes, each)
        };
        if range == 0 {
            return self.refused(Errno::INVAL, &change);
        }
        let kernel = self.kernel.unmap(start, range, false, self.lists.of(Source::KernelList));
        let listed = span.ok_or(Errno::INVAL).and_then(|span| self.core.unmap_ops(span));
        let core = number(collect(listed, self.lists.of(Source::CoreList)));
        self.same_answer(core, kernel)?;
        self.same_lists(Source::CoreList, Source::KernelList, "the operation lists differ")?;
        let core = self.change(rehearse, &change);
        let kernel = self.kernel.unmap(start, range, true, self.lists.of(Source::KernelTold));
        self.applied(core, kernel)
    }

    fn unmap_object(&mut self, object: u64, rehearse: bool) -> Checked {
        let listed = self.core.unmap_object_ops(object);
        let listed = number(collect(listed, self.lists.of(Source::CoreList)));
        self.same_answer(listed, 0)?;
        let core = self.change(rehearse, &|core, changes, told| {
            core.unmap_object(object, changes, |o| told.push(op(o).unwrap_or_default()));
            Ok(())
        });
        let kernel = self.kernel.unmap_object(object, self.lists.of(Source::KernelTold));
        for source in [Source::CoreList, Source::CoreTold, Source::KernelTold] {
            self.lists.of(source).sort();
        }
        self.applied(core, kernel)
    }

    fn prefetch(&mut self, start: u64, range: u64) -> Checked {
        let span = Span::sized(start, range);
        let listed = span.ok_or(Errno::INVAL).and_then(|span| self.core.prefetch_ops(span));
        let core = number(collect(listed, self.lists.of(Source::CoreList)));
        if range == 0 {
            self.tally.refused_by_core += 1;
            return self.same_answer(core, -Errno::INVAL.0);
        }
        let kernel = self.kernel.prefetch(start, range, self.lists.of(Source::KernelTold));
        let told = self.lists.of(Source::CoreTold);
        let each = |o: &CoreOp<&Bo>| {
            told.push(op(o).unwrap_or_default());
            Ok(())
        };
        let again = span.ok_or(Errno::INVAL).and_then(|span| self.core.prefetch(span, each));
        self.same_answer(core, number(again))?;
        self.applied(core, kernel)
    }

    fn madvise(&mut self, start: u64, range: u64, rehearse: bool) -> Checked {
        let span = Span::sized(start, range);
        let change = move |core: &mut Manager<Bo>, changes: &mut Changes, told: &mut List| {
            let each = |o: &CoreOp<&Bo>| {
                if let Some(op) = op(o) {
                    told.push(op);
                }
            };
            core.madvise(span.ok_or(Errno::INVAL)?, 1, changes, each)
        };
        if range == 0 {
            return self.refused(Errno::INVAL, &change);
        }
        let listed = span.ok_or(Errno::INVAL).and_then(|span| self.core.madvise_ops(span));
        let listed = number(collect(listed, self.lists.of(Source::CoreList)));
        let core = self.change(rehearse, &change);
        let kernel = self.kernel.madvise(start, range, self.lists.of(Source::KernelTold));
        self.same_answer(listed, core)?;
        self.applied(core, kernel)
    }

    /// The kernel's view of a region: the answer to a valid unmap there, whose operations are in
    /// [`Source::KernelList`].
    fn look(&mut self, start: u64, range: u64) -> i32 {
        let list = self.lists.of(Source::KernelList);
        if range == 0 {
            return -Errno::INVAL.0;
        }
        self.kernel.unmap(start, range, false, list)
    }

    fn map_sparse(&mut self, start: u64, range: u64) -> Checked {
        let valid = self.look(start, range) == 0;
        let span = Span::sized(start, range);
        let overlaps = |r: &(u64, u64)| span.is_some_and(|span| span_of(*r).overlaps(span));
        let expected = if !valid {
            -Errno::INVAL.0
        } else if self.regions.iter().any(overlaps) {
            -Errno::EXIST.0
        } else if !self.lists.of(Source::KernelList).ops().is_empty() {
            -Errno::NOSPC.0
        } else {
            0
        };
        let core = self
            .change(false, &|core, changes, _| core.map_sparse(span.ok_or(Errno::INVAL)?, changes));
        if core == 0 && expected == 0 {
            self.regions.push((start, start + range), GFP_KERNEL)?;
        }
        self.same_answer(core, expected)
    }

    fn unmap_sparse(&mut self, start: u64, range: u64, rehearse: bool) -> Checked {
        let valid = self.look(start, range) == 0;
        let span = Span::sized(start, range);
        let known = self.regions.iter().position(|r| Some(span_of(*r)) == span);
        let listed = span.ok_or(Errno::INVAL).and_then(|span| self.core.unmap_ops(span));
        let listed = number(collect(listed, self.lists.of(Source::CoreList)));
        let core = self.change(rehearse, &|core, changes, told| {
            let each = |o: &CoreOp<&Bo>| told.push(op(o).unwrap_or_default());
            core.unmap_sparse(span.ok_or(Errno::INVAL)?, changes, each)
        });
        // The region is there until what was removed is released.
        self.release();
        let Some(known) = known.filter(|_| valid) else {
            let expected = if valid { Errno::NOENT } else { Errno::INVAL };
            return self.same_answer(core, -expected.0);
        };
        self.same_answer(listed, 0)?;
        let _ = self.regions.remove(known);
        let kernel = self.kernel.unmap(start, range, true, self.lists.of(Source::KernelTold));
        self.applied(core, kernel)
    }

    fn find(&mut self, addr: u64) -> Checked {
        let end = addr.saturating_add(1);
        if end == addr {
            return Ok(());
        }
        self.kernel.table(addr, end, self.lists.of(Source::KernelTold));
        let found = self.core.find(addr).and_then(|found| op(&CoreOp::Map(found)));
        let told = self.lists.of(Source::CoreTold);
        told.clear();
        if let Some(found) = found {
            told.push(found);
        }
        self.same_lists(Source::CoreTold, Source::KernelTold, "an address is mapped differently")
    }

    fn compare_tables(&mut self) -> Checked {
        self.tally.tables += 1;
        self.table();
        let told = self.lists.of(Source::CoreTold);
        told.clear();
        for mapping in self.core.iter(span_of(self.shape.span)) {
            told.push(op(&CoreOp::Map(mapping)).unwrap_or_default());
        }
        let len = told.ops().len();
        self.same_lists(Source::CoreTold, Source::KernelTold, "the mapping tables differ")?;
        if self.core.len() != len {
            return self.differ("core does not count its mappings right", [0, 0]);
        }
        for object in 1..=self.shape.objects {
            let core = self.core.objects().any(|bo| bo.0 == object);
            if core != self.kernel.has_mappings(object) {
                return self.differ("an object is mapped for one of both only", [0, 0]);
            }
        }
        Ok(())
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.release();
        self.core.clear(|_| {});
    }
}
