//! Moving pages in the simulated world, and making them exclusive.
//!
//! Owns a migration under way: what was found at each page, where it goes, and the way back when it does
//! not go there.

use std::collections::BTreeSet;

use fencepost_core::gpuva::Span;
use fencepost_core::host::Host;
use fencepost_core::host::mirror::{Event, Pfn, Source, Target, Way};
use fencepost_core::svm::OWNER;
use fencepost_uapi::Errno;
use fencepost_uapi::fencepost::PAGE_SIZE;

use super::cpu::{Kind, Shared, numbers};
use super::host::SimHost;
use super::mm::{Frame, Machine, Pte, zeros};

/// Who maps what is at an index: address space, page number, writable.
type Mapper = (usize, u64, bool);

/// What is at one index.
struct Item {
    source: Source,
    /// Page of system memory, if that is the source.
    page: Option<u64>,
    /// Device and frame, if that is the source.
    frame: Option<(u8, u64)>,
    mappers: Vec<Mapper>,
    /// Mappings that were taken away from the frame.
    taken_maps: u32,
    /// Where each page goes: a frame, or a page of system memory.
    to_frame: Option<u64>,
    to_page: Option<u64>,
    /// Order of the target, at its first page.
    order: Option<u32>,
    copied: bool,
    moved: bool,
}

impl Item {
    fn new(source: Source) -> Self {
        Item {
            source,
            page: None,
            frame: None,
            mappers: vec![],
            taken_maps: 0,
            to_frame: None,
            to_page: None,
            order: None,
            copied: false,
            moved: false,
        }
    }
}

/// A migration under way.
pub struct SimMigration {
    span: Span,
    items: Vec<Item>,
}

/// A page that is exclusive and locked.
pub struct SimExclusive {
    cpu: Shared,
    page: u64,
}

impl Drop for SimExclusive {
    fn drop(&mut self) {
        let mut machine = self.cpu.machine();
        if let Some(page) = machine.pages.get_mut(&self.page) {
            page.locked = false;
        }
        machine.free_page(self.page);
    }
}

impl SimHost {
    pub(super) fn setup(&self, way: Way<'_, Self>) -> Result<SimMigration, Errno> {
        match way {
            Way::ToDevice { mm, span, devices, .. } => self.collect_for_device(mm.0, span, devices),
            Way::ToSystem { mm, span, .. } => {
                self.check_area(mm.0, span)?;
                self.collect_frames(mm.0, span)
            }
            Way::CpuFault { fault, span, .. } => {
                let area = self.cpu().machine().area(fault.mm, fault.addr);
                let (whole, _) = area.ok_or(Errno::FAULT)?;
                self.collect_frames(fault.mm, span.clip(whole))
            }
            Way::Evict { frame, count } => Ok(self.collect_for_eviction(frame, count)),
        }
    }

    fn check_area(&self, mm: usize, span: Span) -> Result<(), Errno> {
        let mut machine = self.cpu().machine();
        if machine.space(mm).ended {
            return Err(Errno::FAULT);
        }
        let (whole, area) = machine.area(mm, span.start).ok_or(Errno::NOENT)?;
        match whole.contains(span) && area.kind != Kind::Hugetlb && area.kind != Kind::Device {
            true => Ok(()),
            false => Err(Errno::INVAL),
        }
    }

    fn collect_for_device(
        &self,
        mm: usize,
        span: Span,
        devices: bool,
    ) -> Result<SimMigration, Errno> {
        self.check_area(mm, span)?;
        let collect = |machine: &mut Machine| {
            let mut items: Vec<Item> = vec![];
            let end = span.end / PAGE_SIZE;
            for number in numbers(span) {
                let item = take_for_device(machine, mm, number, end, devices);
                items.push(item);
            }
            items
        };
        let items = self.cpu().change(mm, span, Event::Migrate, OWNER, collect);
        Ok(SimMigration { span, items })
    }

    /// Frames in a span of an address space, of whichever device: they are all of one owner.
    fn collect_frames(&self, mm: usize, span: Span) -> Result<SimMigration, Errno> {
        let there: Vec<Option<(u8, u64)>> = {
            let mut machine = self.cpu().machine();
            let ptes = &machine.space(mm).ptes;
            let of = |number| match ptes.get(&number) {
                Some(Pte::Device { device, frame, .. }) => Some((*device, *frame)),
                _ => None,
            };
            numbers(span).map(of).collect()
        };
        let items = there.into_iter().map(|frame| self.take_frame(frame)).collect();
        Ok(SimMigration { span, items })
    }

    fn collect_for_eviction(&self, first: u64, count: u64) -> SimMigration {
        let device = self.number();
        let frames = first..first + count;
        let items = frames.map(|frame| self.take_frame(Some((device, frame)))).collect();
        SimMigration { span: Span::new(0, count * PAGE_SIZE), items }
    }

    /// Takes a frame away from all who map it.
    fn take_frame(&self, frame: Option<(u8, u64)>) -> Item {
        let mut item = Item::new(Source::Stays);
        let Some((device, frame)) = frame else { return item };
        let mappers = {
            let machine = self.cpu().machine();
            match machine.frames.get(&(device, frame)) {
                Some(known) if !known.locked && known.maps > 0 => machine.mappers(device, frame),
                _ => return item,
            }
        };
        for (mm, number, _) in &mappers {
            let span = Span::new(number * PAGE_SIZE, (number + 1) * PAGE_SIZE);
            self.cpu().change(*mm, span, Event::Migrate, OWNER, |machine| {
                machine.split(*mm, *number);
                machine.space(*mm).ptes.insert(*number, Pte::Moving);
            });
        }
        let mut machine = self.cpu().machine();
        machine.frames.get_mut(&(device, frame)).expect("known").locked = true;
        item.source = Source::Device { device, frame, order: 0 };
        item.frame = Some((device, frame));
        item.taken_maps = mappers.len() as u32;
        item.mappers = mappers;
        item
    }

    pub(super) fn span_of(migration: &SimMigration) -> Span {
        migration.span
    }

    pub(super) fn source_of(migration: &SimMigration, index: usize) -> Source {
        migration.items[index].source
    }

    pub(super) fn has_moved(migration: &SimMigration, index: usize) -> bool {
        migration.items[index].moved
    }

    /// Devices of which frames came free look for them.
    fn wake_if_freed(&self) {
        let freed: BTreeSet<u8> =
            self.cpu().machine().freed.iter().map(|(device, _)| *device).collect();
        for device in freed {
            match self.cpu().driver(device) {
                _ if device == self.number() => self.wake(),
                Some(driver) => driver.host().wake(),
                None => {}
            }
        }
    }

    pub(super) fn give_target(
        &self,
        migration: &mut SimMigration,
        index: usize,
        target: Target,
    ) -> Result<(), Errno> {
        let device = self.number();
        let mut machine = self.cpu().machine();
        let (Target::Device { order, .. } | Target::System { order }) = target;
        split_source(migration, index, order);
        let pages = match target {
            Target::System { order } => Some(machine.new_pages(order)),
            Target::Device { .. } => None,
        };
        for by in 0..1u64 << order {
            let item = &mut migration.items[index + by as usize];
            match target {
                Target::Device { frame, .. } => {
                    let new = Frame { data: zeros(), maps: 0, locked: true };
                    let before = machine.frames.insert((device, frame + by), new);
                    assert!(before.is_none(), "frame {} was free", frame + by);
                    item.to_frame = Some(frame + by);
                }
                Target::System { .. } => {
                    let page = pages.expect("made above") + by;
                    machine.pages.get_mut(&page).expect("just made").locked = true;
                    item.to_page = Some(page);
                }
            }
        }
        migration.items[index].order = Some(order);
        Ok(())
    }

    pub(super) fn copy(&self, migration: &mut SimMigration, index: usize) {
        let device = self.number();
        let mut machine = self.cpu().machine();
        let order = migration.items[index].order.expect("it has a target");
        for item in &mut migration.items[index..index + (1 << order)] {
            let data = match (item.page, item.frame) {
                (Some(page), _) => machine.pages[&page].data.clone(),
                (_, Some(from)) => machine.frames[&from].data.clone(),
                _ => zeros(),
            };
            if let Some(frame) = item.to_frame {
                machine.frames.get_mut(&(device, frame)).expect("the target").data = data;
            } else if let Some(page) = item.to_page {
                machine.pages.get_mut(&page).expect("the target").data = data;
            }
            item.copied = true;
        }
    }

    /// A page stays: its target is free again.
    pub(super) fn keep(&self, migration: &mut SimMigration, index: usize) {
        let order = migration.items[index].order.take().unwrap_or(0);
        for item in &mut migration.items[index..index + (1 << order)] {
            self.drop_target(item);
        }
    }

    fn drop_target(&self, item: &mut Item) {
        let device = self.number();
        let mut machine = self.cpu().machine();
        item.copied = false;
        if let Some(frame) = item.to_frame.take() {
            machine.frames.get_mut(&(device, frame)).expect("the target").locked = false;
            machine.free_frame(device, frame);
        }
        if let Some(page) = item.to_page.take() {
            machine.pages.get_mut(&page).expect("the target").locked = false;
            machine.free_page(page);
        }
    }

    pub(super) fn commit(&self, migration: &mut SimMigration) {
        let start = migration.span.start / PAGE_SIZE;
        for (index, item) in (0..).zip(&mut migration.items) {
            if item.copied {
                match item.source {
                    Source::Empty => self.insert_empty(item, start + index),
                    _ => self.replace(item),
                }
            }
        }
        self.note_blocks(migration);
    }

    /// A frame comes where nothing was.
    fn insert_empty(&self, item: &mut Item, number: u64) {
        let device = self.number();
        let Some((mm, ..)) = item.mappers.first().copied() else { return };
        let span = Span::new(number * PAGE_SIZE, (number + 1) * PAGE_SIZE);
        let frame = item.to_frame.expect("empty pages go to a device");
        item.moved = self.cpu().change(mm, span, Event::Migrate, OWNER, |machine| {
            let Some((_, area)) = machine.area(mm, span.start) else { return false };
            let now = machine.space(mm).ptes.get(&number).copied();
            if !matches!(now, None | Some(Pte::Zero)) {
                return false;
            }
            machine.put(mm, number, Pte::Device { device, frame, write: area.write });
            true
        });
    }

    /// The copy takes the place of the source, unless that is used otherwise by now.
    fn replace(&self, item: &mut Item) {
        let device = self.number();
        let mut machine = self.cpu().machine();
        let pinned = item.page.is_some_and(|page| machine.pages[&page].pins > 0);
        let there = item
            .mappers
            .iter()
            .all(|(mm, number, _)| machine.spaces[*mm].ptes.get(number) == Some(&Pte::Moving));
        if pinned || !there {
            return;
        }
        for (mm, number, write) in &item.mappers {
            let write = *write;
            let pte = match (item.to_frame, item.to_page) {
                (Some(frame), _) => Pte::Device { device, frame, write },
                (_, Some(page)) => Pte::Present { page, write },
                _ => unreachable!("it was copied somewhere"),
            };
            machine.put(*mm, *number, pte);
        }
        item.moved = true;
    }

    /// What moved as one is mapped as one.
    fn note_blocks(&self, migration: &SimMigration) {
        let mut machine = self.cpu().machine();
        for (index, item) in migration.items.iter().enumerate() {
            let Some(order) = item.order.filter(|order| *order > 0) else { continue };
            let all = migration.items[index..index + (1 << order)].iter().all(|item| item.moved);
            if let (true, [(mm, number, _)]) = (all, &item.mappers[..]) {
                machine.space(*mm).blocks.insert(*number, order);
            }
        }
    }

    pub(super) fn finish(&self, mut migration: SimMigration) {
        let device = self.number();
        for item in &mut migration.items {
            if !item.moved {
                self.restore(item);
                self.drop_target(item);
                continue;
            }
            let mut machine = self.cpu().machine();
            release_source(&mut machine, item);
            if let Some(frame) = item.to_frame {
                machine.frames.get_mut(&(device, frame)).expect("the target").locked = false;
                machine.free_frame(device, frame);
            }
            if let Some(page) = item.to_page {
                machine.pages.get_mut(&page).expect("the target").locked = false;
                machine.free_page(page);
            }
        }
        self.wake_if_freed();
    }

    /// A source that stays is mapped again.
    fn restore(&self, item: &mut Item) {
        let mut machine = self.cpu().machine();
        for (mm, number, write) in std::mem::take(&mut item.mappers) {
            if machine.space(mm).ptes.get(&number) != Some(&Pte::Moving) {
                continue;
            }
            let pte = match (item.page, item.frame) {
                (Some(page), _) => Pte::Present { page, write },
                (_, Some((device, frame))) => Pte::Device { device, frame, write },
                _ => continue,
            };
            machine.put(mm, number, pte);
        }
        release_source(&mut machine, item);
    }

    pub(super) fn exclusive(
        &self,
        mm: usize,
        addr: u64,
        owner: u64,
    ) -> Result<(Pfn, SimExclusive), Errno> {
        let area = {
            let mut machine = self.cpu().machine();
            match machine.space(mm).ended {
                true => None,
                false => machine.area(mm, addr).map(|(_, area)| area),
            }
        };
        let area = area.filter(|area| area.read && area.write).ok_or(Errno::FAULT)?;
        if !matches!(area.kind, Kind::Anon(_)) {
            return Err(Errno::OPNOTSUPP);
        }
        match self.cpu_touch(mm, addr, true) {
            Err(Errno::AGAIN) => return Err(Errno::BUSY),
            touched => touched?,
        }
        let number = addr / PAGE_SIZE;
        let span = Span::new(number * PAGE_SIZE, (number + 1) * PAGE_SIZE);
        let made = self.cpu().change(mm, span, Event::Exclusive, owner, |machine| {
            machine.split(mm, number);
            let pte = machine.space(mm).ptes.get_mut(&number)?;
            let Pte::Present { page, write } = *pte else { return None };
            *pte = Pte::Exclusive { page, write, owner };
            let known = machine.pages.get_mut(&page)?;
            let free = !std::mem::replace(&mut known.locked, true);
            free.then_some(page)
        });
        let page = made.ok_or(Errno::BUSY)?;
        let guard = SimExclusive { cpu: self.cpu().clone(), page };
        Ok((Pfn::new(Pfn::VALID | Pfn::WRITE, 0, 0, page), guard))
    }

    /// Frames of this device that came free.
    pub(super) fn take_freed(&self) -> Vec<u64> {
        let device = self.number();
        let mut machine = self.cpu().machine();
        let freed = std::mem::take(&mut machine.freed);
        let (own, others): (Vec<_>, Vec<_>) = freed.into_iter().partition(|(d, _)| *d == device);
        machine.freed = others;
        own.into_iter().map(|(_, frame)| frame).collect()
    }

    /// Whether there are some.
    pub(super) fn has_freed(&self) -> bool {
        let device = self.number();
        self.cpu().machine().freed.iter().any(|(d, _)| *d == device)
    }
}

/// The source of an item is let go of by the migration.
fn release_source(machine: &mut Machine, item: &Item) {
    if let Some(page) = item.page {
        let known = machine.pages.get_mut(&page).expect("the source");
        known.locked = false;
        // The mapping that was taken away counted.
        known.maps -= 1;
        machine.free_page(page);
    }
    if let Some((device, frame)) = item.frame {
        let known = machine.frames.get_mut(&(device, frame)).expect("the source");
        known.locked = false;
        known.maps -= item.taken_maps;
        machine.free_frame(device, frame);
    }
}

/// A folio goes to smaller places: it is split.
fn split_source(migration: &mut SimMigration, index: usize, order: u32) {
    let old = match migration.items[index].source {
        Source::System { order } | Source::Device { order, .. } => order,
        _ => 0,
    };
    if order >= old {
        return;
    }
    for item in &mut migration.items[index..index + (1 << old)] {
        match &mut item.source {
            Source::System { order } | Source::Device { order, .. } => *order = 0,
            _ => {}
        }
        if let (Source::Stays, Some(_)) = (item.source, item.page) {
            item.source = Source::System { order: 0 };
        }
    }
    if let Source::System { order: first } = &mut migration.items[index].source {
        *first = order;
    }
}

/// Takes a page away for a device.
fn take_for_device(machine: &mut Machine, mm: usize, number: u64, end: u64, devices: bool) -> Item {
    let mut item = Item::new(Source::Stays);
    let anonymous =
        machine.area(mm, number * PAGE_SIZE).is_some_and(|(_, a)| matches!(a.kind, Kind::Anon(_)));
    let pte = machine.space(mm).ptes.get(&number).copied();
    match pte {
        None | Some(Pte::Zero) if anonymous => {
            item.source = Source::Empty;
            item.mappers = vec![(mm, number, true)];
        }
        Some(Pte::Present { page, write }) if anonymous => {
            let known = &machine.pages[&page];
            if known.maps == 1 && known.pins == 0 && !known.locked {
                item.source = Source::System { order: whole(machine, mm, number, end) };
                take_away(machine, mm, number);
                machine.pages.get_mut(&page).expect("known").locked = true;
                item.page = Some(page);
                item.mappers = vec![(mm, number, write)];
            }
        }
        Some(Pte::Device { device, frame, write }) if devices => {
            let known = &machine.frames[&(device, frame)];
            if known.maps == 1 && !known.locked {
                item.source = Source::Device { device, frame, order: 0 };
                take_away(machine, mm, number);
                machine.frames.get_mut(&(device, frame)).expect("known").locked = true;
                item.frame = Some((device, frame));
                item.taken_maps = 1;
                item.mappers = vec![(mm, number, write)];
            }
        }
        _ => {}
    }
    item
}

fn take_away(machine: &mut Machine, mm: usize, number: u64) {
    machine.space(mm).ptes.insert(number, Pte::Moving);
}

/// The order of the folio that begins at a page, if all of it goes along and is nobody else's; the large
/// mapping ends.
fn whole(machine: &mut Machine, mm: usize, number: u64, end: u64) -> u32 {
    let Some((first, order)) = machine.block_of(mm, number) else { return 0 };
    let fits = first == number && number + (1 << order) <= end;
    let movable = fits
        && (number..number + (1 << order)).all(|number| {
            let page = machine.spaces[mm].ptes.get(&number).and_then(|pte| pte.page());
            let known = page.and_then(|page| machine.pages.get(&page));
            known.is_some_and(|page| page.maps == 1 && page.pins == 0 && !page.locked)
        });
    machine.split(mm, number);
    if movable { order } else { 0 }
}
