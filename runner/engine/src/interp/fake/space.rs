//! Address spaces of the fake device: a plain list of mappings, searched from end to end.

use super::Bug;
use fencepost_fixtures::Errno;
use fencepost_fixtures::device::BindOp;

/// A mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Va {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Object and offset; none: NULL.
    pub(super) object: Option<(usize, u64)>,
    pub(super) readonly: bool,
    pub(super) kind: u32,
    /// What the CPU has at the same address.
    pub(super) mirror: bool,
}

/// Where an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Object(usize, u64, bool),
    Zero(bool),
    Cpu,
    Nothing,
}

/// A list of mappings and sparse regions.
#[derive(Clone, Debug, Default)]
pub(super) struct Space {
    pub(super) end: u64,
    pub(super) hole: (u64, u64),
    pub(super) vas: Vec<Va>,
    pub(super) sparse: Vec<(u64, u64)>,
    /// Addresses that lost their mapping: for stale translations.
    ghosts: Vec<Va>,
}

impl Space {
    /// Does the operations of a call, all or none. `objects` maps handles to object and size.
    pub(super) fn bind(
        &mut self,
        ops: &[BindOp],
        objects: &dyn Fn(u32) -> Option<(usize, u64)>,
        bug: Option<Bug>,
    ) -> Result<(), Errno> {
        let before = self.clone();
        let done = ops.iter().try_for_each(|op| self.op(op, objects, bug));
        if done.is_err() && bug != Some(Bug::HalfDone) {
            *self = before;
        }
        done
    }

    fn op(
        &mut self,
        op: &BindOp,
        objects: &dyn Fn(u32) -> Option<(usize, u64)>,
        bug: Option<Bug>,
    ) -> Result<(), Errno> {
        match *op {
            BindOp::Map { addr, range, gem, offset, readonly, kind } => {
                self.check(addr, range, bug)?;
                let (object, size) = objects(gem.0).ok_or(Errno::ENOENT)?;
                if !offset.is_multiple_of(4096)
                    || offset.checked_add(range).is_none_or(|end| end > size)
                {
                    return Err(Errno::EINVAL);
                }
                self.map(addr, addr + range, Some((object, offset)), (readonly, kind), bug)
            }
            BindOp::MapNull { addr, range, readonly, kind } => {
                self.check(addr, range, bug)?;
                self.map(addr, addr + range, None, (readonly, kind), bug)
            }
            BindOp::MapSparse { addr, range } => {
                self.check(addr, range, bug)?;
                let end = addr + range;
                if self.sparse.iter().any(|(a, b)| *a < end && addr < *b) {
                    return Err(Errno::EEXIST);
                }
                if self.vas.iter().any(|va| va.start < end && addr < va.end) {
                    return Err(Errno::ENOSPC);
                }
                self.sparse.push((addr, end));
                Ok(())
            }
            BindOp::Unmap { addr, range } => {
                self.check(addr, range, bug)?;
                self.clear(addr, addr + range, bug);
                if bug == Some(Bug::SparseForgotten) {
                    self.sparse.retain(|(a, b)| *b <= addr || addr + range <= *a);
                }
                Ok(())
            }
            BindOp::UnmapSparse { addr, range } => {
                self.check(addr, range, bug)?;
                let region = self.sparse.iter().position(|r| *r == (addr, addr + range));
                self.sparse.remove(region.ok_or(Errno::ENOENT)?);
                self.clear(addr, addr + range, bug);
                Ok(())
            }
            BindOp::UnmapAll { gem } => {
                let (object, _) = objects(gem.0).ok_or(Errno::ENOENT)?;
                self.vas.retain(|va| va.object.is_none_or(|(o, _)| o != object));
                Ok(())
            }
            BindOp::Prefetch { addr, range, .. } | BindOp::Madvise { addr, range, .. } => {
                self.check(addr, range, bug)
            }
            BindOp::MapMirror { addr, range } => {
                self.check(addr, range, bug)?;
                self.map(addr, addr + range, None, (false, 0), bug)?;
                let made = self.vas.iter_mut().find(|va| va.start == addr);
                made.into_iter().for_each(|va| va.mirror = true);
                Ok(())
            }
        }
    }

    fn check(&self, addr: u64, range: u64, bug: Option<Bug>) -> Result<(), Errno> {
        let end = addr.checked_add(range).ok_or(Errno::EINVAL)?;
        if !addr.is_multiple_of(4096) || !range.is_multiple_of(4096) {
            return Err(if bug == Some(Bug::WrongErrno) { Errno::ERANGE } else { Errno::EINVAL });
        }
        let in_hole = addr < self.hole.1 && self.hole.0 < end;
        if range == 0 || end > self.end || in_hole { Err(Errno::EINVAL) } else { Ok(()) }
    }

    fn map(
        &mut self,
        start: u64,
        end: u64,
        object: Option<(usize, u64)>,
        (readonly, kind): (bool, u32),
        bug: Option<Bug>,
    ) -> Result<(), Errno> {
        let crosses = |(a, b): &(u64, u64)| *a < end && start < *b && (start < *a || *b < end);
        if self.sparse.iter().any(crosses) {
            return Err(Errno::ENOSPC);
        }
        let same = |va: &&Va| (va.start, va.end, va.object) == (start, end, object);
        let kept = self.vas.iter().find(same).map(|va| va.readonly);
        let readonly = match kept {
            Some(old) if bug == Some(Bug::KeepsFlags) => old,
            _ => readonly,
        };
        self.clear(start, end, bug);
        self.ghosts.retain(|ghost| ghost.end <= start || end <= ghost.start);
        self.vas.push(Va { start, end, object, readonly, kind, mirror: false });
        self.vas.sort_by_key(|va| va.start);
        Ok(())
    }

    /// Unmaps a range, keeping the pieces around it.
    fn clear(&mut self, start: u64, end: u64, bug: Option<Bug>) {
        let mut left = Vec::new();
        for va in std::mem::take(&mut self.vas) {
            if va.end <= start || end <= va.start {
                left.push(va);
                continue;
            }
            self.ghosts.push(va);
            if va.start < start {
                left.push(Va { end: start, ..va });
            }
            if end < va.end && bug != Some(Bug::MissingSplit) {
                let advance = if bug == Some(Bug::WrongSplitOffset) { 0 } else { end - va.start };
                let object = va.object.map(|(object, offset)| (object, offset + advance));
                left.push(Va { start: end, object, ..va });
            }
        }
        self.vas = left;
    }

    /// Where an address leads.
    pub(super) fn find(&self, addr: u64, bug: Option<Bug>) -> Found {
        let holds = |va: &&Va| (va.start..va.end).contains(&addr);
        let ghost = || match bug {
            Some(Bug::StaleTranslation) => self.ghosts.iter().rev().find(holds),
            _ => None,
        };
        match self.vas.iter().find(holds).or_else(ghost) {
            Some(Va { object: Some((object, offset)), start, readonly, .. }) => {
                Found::Object(*object, offset + (addr - start), *readonly)
            }
            Some(va) if va.mirror => Found::Cpu,
            Some(va) => Found::Zero(va.readonly),
            None if self.sparse.iter().any(|(a, b)| (*a..*b).contains(&addr)) => Found::Zero(false),
            None => Found::Nothing,
        }
    }

    /// The mappings as they are shown.
    pub(super) fn dump(&self, bug: Option<Bug>) -> Vec<Va> {
        let mut shown: Vec<Va> = Vec::new();
        for va in &self.vas {
            let follows = |last: &Va| {
                last.end == va.start
                    && match (last.object, va.object) {
                        (Some((a, x)), Some((b, y))) => a == b && x + (last.end - last.start) == y,
                        _ => false,
                    }
            };
            match shown.last_mut() {
                Some(last) if bug == Some(Bug::Merged) && follows(last) => last.end = va.end,
                _ => shown.push(*va),
            }
        }
        shown
    }
}
