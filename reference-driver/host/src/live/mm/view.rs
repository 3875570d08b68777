//! What the driver is told of an address space: its mappings, and its pages as `hmm_range_fault` of
//! Linux reports them. Owns the rules of `mm/hmm.c`.

use std::sync::Arc;

use fencepost_core::gpuva::Span;
use fencepost_core::host::mirror::{Pfn, Vma, Want};
use fencepost_uapi::Errno;

use super::super::arena::PAGE;
use super::super::migrate::Piece;
use super::cpu_fault::{self, Outcome};
use super::moved::{HUGE, HUGE_ORDER, Place};
use super::notifier::Interval;
use super::space::{END, Space};
use super::vma::{Mapping, Page};

/// How often a page may be taken away again while it is faulted in.
const TRIES: u32 = 1000;

/// The mapping at or after an address, as the driver knows mappings. `device`: inode of the device's
/// own memory.
pub(crate) fn vma(space: &Space, addr: u64, device: u64) -> Result<Vma, Errno> {
    let found = space.mapping(addr).map_err(|errno| match errno {
        nix::errno::Errno::ENOENT => Errno::NOENT,
        _ => Errno::FAULT,
    })?;
    if found.span.start >= END {
        return Err(Errno::NOENT);
    }
    Ok(Vma {
        span: found.span,
        read: found.read,
        write: found.write,
        anonymous: found.is_anonymous(),
        hugetlb: found.page > PAGE,
        device: found.special || found.inode == device,
    })
}

/// The request of one range.
pub(crate) struct Request<'a> {
    pub(crate) space: &'a Arc<Space>,
    pub(crate) interval: &'a Interval,
    pub(crate) seq: u64,
    pub(crate) span: Span,
    pub(crate) want: Want,
    /// Inode of the device's own memory.
    pub(crate) device: u64,
}

/// Why a pass over the range ended early.
enum Stop {
    Error(Errno),
    /// This page is away, and must be brought back.
    Away(u64),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Stop {
        Stop::Error(errno)
    }
}

impl Request<'_> {
    /// Serves it: see `Mirror::range_fault`.
    pub(crate) fn serve(&self, pages: &mut [Pfn]) -> Result<(), Errno> {
        let asked: Vec<u64> = pages.iter().map(|page| self.asked(*page)).collect();
        for _ in 0..TRIES {
            let entered = self.space.enter();
            if self.space.is_over() {
                return Err(Errno::FAULT);
            }
            if self.interval.read_retry(self.seq) {
                return Err(Errno::BUSY);
            }
            match self.pass(&asked, pages) {
                Ok(()) => return Ok(()),
                Err(Stop::Error(errno)) => return Err(errno),
                Err(Stop::Away(page)) => {
                    drop(entered);
                    if cpu_fault::serve(self.space, page) == Outcome::Lost {
                        return Err(Errno::FAULT);
                    }
                }
            }
        }
        Err(Errno::BUSY)
    }

    fn asked(&self, page: Pfn) -> u64 {
        let all = page.0 & self.want.mask | self.want.default_flags;
        all & (Pfn::VALID | Pfn::WRITE)
    }

    fn pass(&self, asked: &[u64], pages: &mut [Pfn]) -> Result<(), Stop> {
        let index = |addr: u64| ((addr - self.span.start) / PAGE) as usize;
        let mut at = self.span.start;
        while at < self.span.end {
            let found = match self.space.mapping(at) {
                Ok(found) => Some(found).filter(|found| found.span.start < self.span.end),
                Err(nix::errno::Errno::ENOENT) => None,
                Err(_) => return Err(Errno::FAULT.into()),
            };
            let start = found.map_or(self.span.end, |found| found.span.start.max(at));
            nothing(&asked[index(at)..index(start)], &mut pages[index(at)..index(start)])?;
            let Some(found) = found else { break };
            let end = found.span.end.min(self.span.end);
            let (part, range) = (Span::new(start, end), index(start)..index(end));
            let (asked, pages) = (&asked[range.clone()], &mut pages[range]);
            if found.special || found.inode == self.device || !found.read {
                nothing(asked, pages)?;
            } else {
                self.part(&found, part, asked, pages)?;
            }
            at = end;
        }
        Ok(())
    }

    /// A part that one mapping has.
    fn part(
        &self,
        mapping: &Mapping,
        span: Span,
        asked: &[u64],
        pages: &mut [Pfn],
    ) -> Result<(), Stop> {
        if !mapping.write && asked.iter().any(|asked| asked & Pfn::WRITE != 0) {
            return Err(Errno::PERM.into());
        }
        let away = self.away(span, asked)?;
        let mut states = vec![Page::default(); pages.len()];
        self.space.kernel.pages(span.start, &mut states);
        if self.fault_in(mapping, span, asked, &away, &states)? {
            self.space.kernel.pages(span.start, &mut states);
        }
        for (index, out) in pages.iter_mut().enumerate() {
            let addr = span.start + index as u64 * PAGE;
            *out = match away[index] {
                Some(pfn) => pfn,
                None => reported(mapping, addr, states[index], asked[index]),
            };
        }
        Ok(())
    }

    /// Pages that are away, as they are reported; those that must come back stop the pass.
    fn away(&self, span: Span, asked: &[u64]) -> Result<Vec<Option<Pfn>>, Stop> {
        let mut away = vec![None; asked.len()];
        let table = self.space.table();
        let mut block = (u64::MAX, false);
        for (addr, page) in table.pages().range(span.start..span.end) {
            let index = ((addr - span.start) / PAGE) as usize;
            away[index] = Some(match &page.place {
                Place::Device { home, frame, owner } if *owner == self.want.owner => {
                    let write = page.protection & libc::PROT_WRITE as u64 != 0;
                    let flags = Pfn::VALID | Pfn::DEVICE | if write { Pfn::WRITE } else { 0 };
                    if block.0 != addr / HUGE {
                        block = (addr / HUGE, table.is_whole(*addr));
                    }
                    let order = if block.1 { HUGE_ORDER } else { 0 };
                    Pfn::new(flags, order, home.number, *frame)
                }
                _ if asked[index] & Pfn::VALID != 0 => return Err(Stop::Away(*addr)),
                _ => Pfn::default(),
            });
        }
        Ok(away)
    }

    /// Has the agent fault in what is asked and not there. True: something was.
    fn fault_in(
        &self,
        mapping: &Mapping,
        span: Span,
        asked: &[u64],
        away: &[Option<Pfn>],
        states: &[Page],
    ) -> Result<bool, Stop> {
        let need = |index: usize| {
            let (asked, page) = (asked[index], states[index]);
            if away[index].is_some() || asked & Pfn::VALID == 0 {
                0
            } else if asked & Pfn::WRITE != 0 && !writable(mapping, page) {
                2
            } else {
                i32::from(!page.present)
            }
        };
        let mut any = false;
        let mut first = 0;
        while first < asked.len() {
            let kind = need(first);
            let count = (first..asked.len()).take_while(|index| need(*index) == kind).count();
            if kind > 0 {
                any = true;
                let start = span.start + first as u64 * PAGE;
                let part = Span::new(start, start + count as u64 * PAGE);
                self.populate(mapping, part, kind == 2)?;
            }
            first += count;
        }
        Ok(any)
    }

    fn populate(&self, mapping: &Mapping, span: Span, write: bool) -> Result<(), Stop> {
        self.space.fill_watched(span);
        let write_bit = libc::PROT_WRITE as u64;
        let protection = mapping.protection() & !write_bit | if write { write_bit } else { 0 };
        let piece = Piece { span, window: 0, protection };
        match self.space.lane.turn().calls(&[piece.populate()]) {
            Ok((_, None)) => Ok(()),
            Ok((_, Some(nix::errno::Errno::ENOMEM))) => Err(Errno::NOMEM.into()),
            _ => Err(Errno::FAULT.into()),
        }
    }
}

/// Nothing can be had here.
fn nothing(asked: &[u64], pages: &mut [Pfn]) -> Result<(), Stop> {
    if asked.iter().any(|asked| asked & Pfn::VALID != 0) {
        return Err(Errno::FAULT.into());
    }
    pages.fill(Pfn(Pfn::ERROR));
    Ok(())
}

/// Whether the page can be written as it is, without another to be copied first.
fn writable(mapping: &Mapping, page: Page) -> bool {
    let own = page.exclusive && !page.zero && !page.file;
    mapping.write && page.present && (mapping.shared || own)
}

fn reported(mapping: &Mapping, addr: u64, page: Page, asked: u64) -> Pfn {
    if !page.present {
        return Pfn::default();
    }
    let mut flags = Pfn::VALID;
    if writable(mapping, page) || asked & Pfn::WRITE != 0 {
        flags |= Pfn::WRITE;
    }
    if page.zero && flags & Pfn::WRITE == 0 {
        flags |= Pfn::ZERO;
    }
    let block = addr / HUGE * HUGE;
    let whole = mapping.span.start <= block && block + HUGE <= mapping.span.end;
    let order = if page.huge && whole { HUGE_ORDER } else { 0 };
    Pfn::new(flags, order, 0, addr / PAGE)
}
