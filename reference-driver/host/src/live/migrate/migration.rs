//! One migration, from its setup to its end, after `mm/migrate_device.c` of Linux. Owns what is known
//! of each page meanwhile; nobody else changes the address spaces that it has entered.

use std::sync::Arc;

use fencepost_core::gpuva::Span;
use fencepost_core::host::mirror::{Event, Source, Target};
use fencepost_uapi::Errno;

use super::super::arena::PAGE;
use super::super::mm::Spaces;
use super::super::mm::cpu_fault::CpuFault;
use super::super::mm::home::Home;
use super::super::mm::moved::{HUGE, HUGE_ORDER, Place, Run};
use super::super::mm::space::{Entered, Space};
use super::super::mm::vma::{Mapping, Page};
use super::Mover;

/// A page of a migration.
struct Item {
    /// The address space, by its place in [`Migration::spaces`].
    space: usize,
    addr: u64,
    source: Source,
    target: Option<Target>,
    copied: bool,
    moved: bool,
    /// It goes as part of a huge page.
    huge: bool,
}

/// A migration under way.
pub(crate) struct Migration {
    /// Address spaces, each with the right to change it.
    spaces: Vec<(Arc<Space>, Entered)>,
    home: Arc<Home>,
    owner: u64,
    span: Span,
    items: Vec<Item>,
    /// Protection of the mapping, when pages go to the device.
    protection: u64,
    /// Frames to be freed at the end.
    freed: Vec<u64>,
}

fn stays(space: usize, addr: u64) -> Item {
    let source = Source::Stays;
    Item { space, addr, source, target: None, copied: false, moved: false, huge: false }
}

/// The mapping that has all of a span.
fn within(space: &Space, span: Span) -> Result<Mapping, Errno> {
    if span.start >= span.end || !span.start.is_multiple_of(PAGE) || !span.end.is_multiple_of(PAGE)
    {
        return Err(Errno::INVAL);
    }
    let found = space.mapping(span.start).map_err(|errno| match errno {
        nix::errno::Errno::ENOENT => Errno::NOENT,
        _ => Errno::FAULT,
    })?;
    if found.span.start > span.start {
        return Err(Errno::NOENT);
    }
    if found.span.end < span.end || found.special || found.page > PAGE {
        return Err(Errno::INVAL);
    }
    Ok(found)
}

impl Migration {
    fn new(space: &Arc<Space>, entered: Entered, home: &Arc<Home>, owner: u64, span: Span) -> Self {
        let addresses = (span.start..span.end).step_by(PAGE as usize);
        Migration {
            spaces: vec![(Arc::clone(space), entered)],
            home: Arc::clone(home),
            owner,
            span,
            items: addresses.map(|addr| stays(0, addr)).collect(),
            protection: 0,
            freed: Vec::new(),
        }
    }

    /// To device memory.
    pub(crate) fn to_device(
        space: &Arc<Space>,
        home: &Arc<Home>,
        span: Span,
        owner: u64,
        devices: bool,
    ) -> Result<Migration, Errno> {
        let entered = space.enter_to_move();
        if space.is_over() {
            return Err(Errno::FAULT);
        }
        let mapping = within(space, span)?;
        let mut new = Self::new(space, entered, home, owner, span);
        new.protection = mapping.protection();
        drop(space.notifiers.begin(span, Event::Migrate, owner));
        // What no userfaultfd can watch moves the other way only; of a file, only private copies do.
        let file = mapping.inode != 0;
        let movable = !file || matches!(space.mover, Mover::Protect);
        if !mapping.is_private() || !mapping.read || !movable {
            return Ok(new);
        }
        let mut states = vec![Page::default(); new.items.len()];
        space.kernel.pages(span.start, &mut states);
        for (item, state) in new.items.iter_mut().zip(&states) {
            item.source = match state {
                page if file && (page.file || !page.present) => Source::Stays,
                page if page.zero => Source::Empty,
                page if page.present || page.swapped => Source::System { order: 0 },
                _ => Source::Empty,
            };
        }
        new.whole_pages(&states);
        new.note_away(|own| devices && own == owner);
        Ok(new)
    }

    /// Marks where huge pages begin that are in the range as a whole.
    fn whole_pages(&mut self, states: &[Page]) {
        for first in self.blocks() {
            if states[first].huge && matches!(self.items[first].source, Source::System { .. }) {
                self.items[first].source = Source::System { order: HUGE_ORDER };
            }
        }
    }

    /// Where blocks of the size of a huge page begin that are in the range as a whole.
    fn blocks(&self) -> impl Iterator<Item = usize> + use<> {
        let pages = (HUGE / PAGE) as usize;
        let skew = (pages - (self.span.start / PAGE) as usize % pages) % pages;
        let last = (self.items.len() + 1).saturating_sub(pages);
        (skew..last).step_by(pages)
    }

    /// Enters the pages that are away: device memory moves if it is of such an owner.
    fn note_away(&mut self, moves: impl Fn(u64) -> bool) {
        let space = Arc::clone(&self.spaces[0].0);
        let table = space.table();
        for (addr, page) in table.pages().range(self.span.start..self.span.end) {
            let index = ((addr - self.span.start) / PAGE) as usize;
            self.items[index].source = match &page.place {
                Place::Device { home, frame, owner } if moves(*owner) => {
                    Source::Device { device: home.number, frame: *frame, order: 0 }
                }
                _ => Source::Stays,
            };
        }
        for first in self.blocks() {
            let item = &mut self.items[first];
            if let Source::Device { order, .. } = &mut item.source
                && table.is_whole(item.addr)
            {
                *order = HUGE_ORDER;
            }
        }
    }

    /// Device memory of a range to system memory.
    pub(crate) fn to_system(
        space: &Arc<Space>,
        home: &Arc<Home>,
        span: Span,
        owner: u64,
    ) -> Result<Migration, Errno> {
        let entered = space.enter();
        if space.is_over() {
            return Err(Errno::FAULT);
        }
        within(space, span)?;
        Ok(Self::back(space, entered, home, span, owner))
    }

    fn back(
        space: &Arc<Space>,
        entered: Entered,
        home: &Arc<Home>,
        span: Span,
        owner: u64,
    ) -> Migration {
        let mut new = Self::new(space, entered, home, owner, span);
        drop(space.notifiers.begin(span, Event::Migrate, owner));
        new.note_away(|own| own == owner);
        new
    }

    /// As [`Migration::to_system`], because the CPU touched a page.
    pub(crate) fn for_fault(
        fault: &mut CpuFault,
        home: &Arc<Home>,
        span: Span,
        owner: u64,
    ) -> Result<Migration, Errno> {
        let entered = fault.entered.take().unwrap_or_else(|| fault.space.enter());
        let mut clipped = span;
        // A page alone is in one mapping.
        if span.len() > PAGE {
            let found = fault.space.mapping(fault.page).map_err(|_| Errno::FAULT)?;
            clipped.start = found.span.start.max(span.start);
            clipped.end = found.span.end.min(span.end).max(clipped.start);
        }
        Ok(Self::back(&fault.space, entered, home, clipped, owner))
    }

    /// Frames to system memory, wherever they are mapped.
    pub(crate) fn evict(spaces: &Spaces, home: &Arc<Home>, first: u64, count: u64) -> Migration {
        let span = Span::new(0, count * PAGE);
        let items = (0..count).map(|n| stays(usize::MAX, n * PAGE)).collect();
        let mut new = Migration {
            spaces: Vec::new(),
            home: Arc::clone(home),
            owner: 0,
            span,
            items,
            protection: 0,
            freed: Vec::new(),
        };
        // By number, so that two of these cannot wait for each other.
        for space in spaces.all() {
            if space.table().in_frames(home.number, first, count).is_empty() {
                continue;
            }
            let entered = space.enter();
            let found = space.table().in_frames(home.number, first, count);
            let place = new.spaces.len();
            for (frame, addr) in &found {
                let item = &mut new.items[(frame - first) as usize];
                let device = new.home.number;
                item.source = Source::Device { device, frame: *frame, order: 0 };
                (item.space, item.addr) = (place, *addr);
            }
            for (_, addr) in &found {
                let page = Span::new(*addr, addr + PAGE);
                drop(space.notifiers.begin(page, Event::Clear, 0));
            }
            new.spaces.push((space, entered));
        }
        new
    }

    pub(crate) fn span(&self) -> Span {
        self.span
    }

    pub(crate) fn source(&self, index: usize) -> Source {
        self.items.get(index).map_or(Source::Stays, |item| item.source)
    }

    /// Sets the target of a page, or of several from it on.
    pub(crate) fn target(&mut self, index: usize, target: Target) {
        let (Target::Device { order, .. } | Target::System { order }) = target;
        let last = (index + (1 << order)).min(self.items.len());
        for (step, at) in (index..last).enumerate() {
            self.give_up(at);
            self.items[at].target = Some(match target {
                Target::Device { frame, .. } => {
                    Target::Device { frame: frame + step as u64, order: 0 }
                }
                system => system,
            });
            self.items[at].huge = order == HUGE_ORDER;
        }
        if let Target::Device { frame, .. } = target {
            // Frames beyond the range serve nobody.
            let used = (last - index) as u64;
            self.freed.extend(frame + used..frame + (1 << order));
        }
    }

    /// A target that is not used after all.
    fn give_up(&mut self, index: usize) {
        if let Some(Target::Device { frame, .. }) = self.items[index].target.take() {
            self.freed.push(frame);
        }
    }

    /// How many pages the folio at an index has.
    fn folio(&self, index: usize) -> std::ops::Range<usize> {
        let order = match self.source(index) {
            Source::System { order } | Source::Device { order, .. } => order,
            _ => 0,
        };
        index..(index + (1 << order)).min(self.items.len())
    }

    pub(crate) fn copy(&mut self, index: usize) {
        for at in self.folio(index) {
            self.items[at].copied = self.items[at].target.is_some();
        }
    }

    pub(crate) fn keep(&mut self, index: usize) {
        for at in self.folio(index) {
            self.items[at].copied = false;
        }
    }

    pub(crate) fn moved(&self, index: usize) -> bool {
        self.items.get(index).is_some_and(|item| item.moved)
    }

    /// Moves what is to move.
    pub(crate) fn commit(&mut self) {
        let mut first = 0;
        while first < self.items.len() {
            let mut last = first + 1;
            while last < self.items.len() && self.joins(last) {
                last += 1;
            }
            self.commit_run(first, last);
            first = last;
        }
    }

    /// Whether a page moves together with the one before it.
    fn joins(&self, index: usize) -> bool {
        let (before, item) = (&self.items[index - 1], &self.items[index]);
        let device = |source: Source| match source {
            Source::Device { frame, .. } => Some(frame),
            _ => None,
        };
        let target = |item: &Item| match item.target {
            Some(Target::Device { frame, .. }) => Some(frame),
            _ => None,
        };
        let next = |one: Option<u64>, other: Option<u64>| one.map(|frame| frame + 1) == other;
        before.copied
            && item.copied
            && (before.space, before.huge) == (item.space, item.huge)
            && before.addr + PAGE == item.addr
            && next(device(before.source), device(item.source))
            && next(target(before), target(item))
    }

    fn commit_run(&mut self, first: usize, last: usize) {
        let item = &self.items[first];
        let (Some(target), true) = (item.target, item.copied) else { return };
        if item.source == Source::Stays {
            return;
        }
        let space = Arc::clone(&self.spaces[item.space].0);
        let span = Span::new(item.addr, self.items[last - 1].addr + PAGE);
        let away = matches!(item.source, Source::Device { .. });
        let runs = if away { space.table().runs(span) } else { Vec::new() };
        let mut stay: Vec<u64> = Vec::new();
        match target {
            Target::Device { frame, .. } if away => {
                for run in &runs {
                    let frame = frame + (run.span.start - span.start) / PAGE;
                    let to = self.place(frame);
                    if space.move_across(run, &to) {
                        self.freed.extend(run.frames());
                    } else {
                        stay.extend((run.span.start..run.span.end).step_by(PAGE as usize));
                    }
                }
            }
            Target::Device { frame, .. } => {
                let place = self.place(frame);
                let (protection, huge) = (self.protection, item.huge);
                let run = Run { span, place, protection, huge };
                let all = || (span.start..span.end).step_by(PAGE as usize).collect();
                stay = space.move_out(&run).unwrap_or_else(|_| all());
            }
            Target::System { .. } => {
                for run in &runs {
                    let left = space.move_back(run);
                    let pages = (run.span.start..run.span.end).step_by(PAGE as usize);
                    let gone = run.frames().zip(pages).filter(|(_, at)| !left.contains(at));
                    self.freed.extend(gone.map(|(frame, _)| frame));
                    stay.extend(left);
                }
            }
        }
        for item in &mut self.items[first..last] {
            item.moved = !stay.contains(&item.addr);
        }
    }

    fn place(&self, frame: u64) -> Place {
        Place::Device { home: Arc::clone(&self.home), frame, owner: self.owner }
    }

    /// Lets everybody at the pages again.
    pub(crate) fn end(mut self) {
        for index in 0..self.items.len() {
            if !self.items[index].moved {
                self.give_up(index);
            }
        }
        let Migration { spaces, home, freed, .. } = self;
        for (space, entered) in spaces {
            drop(entered);
            space.changed();
        }
        home.free(freed);
    }
}
