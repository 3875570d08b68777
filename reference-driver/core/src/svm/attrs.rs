//! Attributes of addresses.
//!
//! Owns the map from addresses to attributes; what they mean is for those who look. Addresses without
//! an entry have the default.

use fencepost_uapi::fencepost as fp;
use fencepost_uapi::Errno;

use super::range::Zap;
use super::tune::MAX_TIMESLICE_NS;
use super::Inside;
use crate::facade::{AllocError, Vec};
use crate::gpuva::Span;
use crate::host::Host;

/// Attributes of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attr {
    /// The region that accesses move pages to; 0: none.
    pub preferred: u32,
    /// `SVM_ATOMIC_*`.
    pub atomic: u64,
    /// `SVM_POLICY_*`.
    pub policy: u64,
    /// How long pages stay in device memory; `None`: as the VM was tuned.
    pub timeslice_ns: Option<u64>,
}

impl Attr {
    /// The value of an attribute; `default_ns` is the VM's timeslice.
    pub fn get(&self, attr: u32, default_ns: u64) -> u64 {
        match attr {
            fp::SVM_ATTR_PREFERRED => self.preferred.into(),
            fp::SVM_ATTR_ATOMIC => self.atomic,
            fp::SVM_ATTR_POLICY => self.policy,
            _ => self.timeslice_ns.unwrap_or(default_ns),
        }
    }

    /// Sets an attribute whose value was checked.
    pub fn set(&mut self, attr: u32, value: u64) {
        match attr {
            fp::SVM_ATTR_PREFERRED => self.preferred = value as u32,
            fp::SVM_ATTR_ATOMIC => self.atomic = value,
            fp::SVM_ATTR_POLICY => self.policy = value,
            _ => self.timeslice_ns = Some(value),
        }
    }

    /// Checks a value.
    ///
    /// # Errors
    /// `EINVAL`.
    pub fn check(attr: u32, value: u64) -> Result<(), Errno> {
        let fits = match attr {
            fp::SVM_ATTR_PREFERRED => {
                let regions = [0, fp::REGION_SYSTEM, fp::REGION_VRAM];
                regions.iter().any(|region| value == u64::from(*region))
            }
            fp::SVM_ATTR_ATOMIC => value <= fp::SVM_ATOMIC_CPU,
            fp::SVM_ATTR_POLICY => value <= fp::SVM_POLICY_SYSTEM,
            _ => value <= MAX_TIMESLICE_NS,
        };
        fits.then_some(()).ok_or(Errno::INVAL)
    }
}

/// Attributes by address: ascending, without overlap.
pub struct Attrs(Vec<(Span, Attr)>);

impl Attrs {
    /// All default.
    #[must_use]
    pub const fn new() -> Self {
        Attrs(Vec::new())
    }

    /// Those of an address.
    pub fn at(&self, addr: u64) -> Attr {
        let behind = self.0.partition_point(|(span, _)| span.end <= addr);
        let found = self.0.get(behind).filter(|(span, _)| span.start <= addr);
        found.map_or(Attr::default(), |(_, attr)| *attr)
    }

    /// The pieces of a span with what they have.
    pub fn pieces(&self, span: Span) -> impl Iterator<Item = (Span, Attr)> + '_ {
        let mut at = span.start;
        core::iter::from_fn(move || {
            if at >= span.end {
                return None;
            }
            let behind = self.0.partition_point(|(known, _)| known.end <= at);
            let (end, attr) = match self.0.get(behind) {
                Some((known, attr)) if known.start <= at => (known.end, *attr),
                Some((known, _)) => (known.start, Attr::default()),
                None => (span.end, Attr::default()),
            };
            let piece = Span::new(at, end.min(span.end));
            at = piece.end;
            Some((piece, attr))
        })
    }

    /// With those of a span changed.
    ///
    /// # Errors
    /// [`AllocError`].
    fn changed(&self, span: Span, change: impl Fn(&mut Attr)) -> Result<Self, AllocError> {
        let mut new: Vec<(Span, Attr)> = Vec::with_capacity(2 * self.0.len() + 3)?;
        let all = Span::new(0, u64::MAX);
        let mut add = |part: Span, attr: Attr| {
            if attr == Attr::default() || part.is_empty() {
                return Ok(());
            }
            match new.last_mut() {
                Some((last, same)) if *same == attr && last.end == part.start => {
                    last.end = part.end;
                    Ok(())
                }
                _ => new.push((part, attr)),
            }
        };
        for (piece, attr) in self.pieces(all) {
            let inside = piece.clip(span);
            if inside.is_empty() {
                add(piece, attr)?;
                continue;
            }
            let mut changed = attr;
            change(&mut changed);
            add(Span::new(piece.start, inside.start), attr)?;
            add(inside, changed)?;
            add(Span::new(inside.end, piece.end), attr)?;
        }
        Ok(Attrs(new))
    }
}

impl Default for Attrs {
    fn default() -> Self {
        Self::new()
    }
}

impl<H: Host> Inside<'_, H> {
    /// The attributes of an address.
    pub fn attr_at(&self, addr: u64) -> Attr {
        self.svm.attrs.lock().at(addr)
    }

    /// The attributes of an address, and the part of a span around it that has the same.
    pub fn attr_around(&self, addr: u64, span: Span) -> (Span, Attr) {
        let attrs = self.svm.attrs.lock();
        let found = attrs.pieces(span).find(|(piece, _)| piece.end > addr);
        found.unwrap_or((span, Attr::default()))
    }

    /// Sets an attribute. Where that changes anything, pages leave the page tables.
    ///
    /// # Errors
    /// `ENOMEM`: nothing has changed.
    pub fn set_attr(&self, span: Span, attr: u32, value: u64) -> Result<(), Errno> {
        let default_ns = self.svm.tunes.timeslice_ns;
        let differs = |known: &Attr| known.get(attr, default_ns) != value;
        let mut attrs = self.svm.attrs.lock();
        let new = attrs.changed(span, |known| {
            if differs(known) {
                known.set(attr, value);
            }
        })?;
        let mut zap = Zap::new();
        for (piece, _) in attrs.pieces(span).filter(|(_, before)| differs(before)) {
            self.svm.ranges.lock().clear(self.vm, piece, &mut zap);
        }
        *attrs = new;
        Ok(())
    }

    /// The value of an attribute in a span, if it has one.
    pub fn get_attr(&self, span: Span, attr: u32) -> u64 {
        let default_ns = self.svm.tunes.timeslice_ns;
        let attrs = self.svm.attrs.lock();
        let mut values = attrs.pieces(span).map(|(_, known)| known.get(attr, default_ns));
        let first = values.next().unwrap_or(0);
        match values.all(|value| value == first) {
            true => first,
            false => fp::SVM_ATTR_MIXED,
        }
    }

    /// Addresses of a span that are mirrored no more have no attributes.
    ///
    /// # Errors
    /// `ENOMEM`: they stay.
    pub fn forget_unmirrored(&self, span: Span) -> Result<(), Errno> {
        let mut at = span.start;
        for mirror in self.mirrors(span)? {
            self.forget(Span::new(at, mirror.start.max(at)))?;
            at = mirror.end;
        }
        self.forget(Span::new(at, span.end.max(at)))
    }

    fn forget(&self, span: Span) -> Result<(), Errno> {
        if span.is_empty() {
            return Ok(());
        }
        let mut attrs = self.svm.attrs.lock();
        *attrs = attrs.changed(span, |attr| *attr = Attr::default())?;
        Ok(())
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;
    use crate::seed::for_seeds;

    #[test]
    fn attributes_are_those_set_last() {
        for_seeds(50, |mut random| {
            let mut attrs = Attrs::new();
            let mut model = [Attr::default(); 64];
            for _ in 0..60 {
                let first = random.below(64);
                let end = first + 1 + random.below(64 - first);
                let value = random.below(3) as u32;
                let set = |attr: &mut Attr| attr.preferred = value;
                attrs = attrs.changed(Span::new(first, end), set).expect("memory");
                model[first as usize..end as usize].iter_mut().for_each(set);
                for (addr, expected) in (0..).zip(model) {
                    assert_eq!(attrs.at(addr), expected, "{addr}");
                }
                let whole = Span::new(first, end);
                let mut at = first;
                for (piece, attr) in attrs.pieces(whole) {
                    assert_eq!(piece.start, at, "pieces follow each other");
                    assert!((piece.start..piece.end).all(|addr| model[addr as usize] == attr));
                    at = piece.end;
                }
                assert_eq!(at, end, "and cover all");
                let alike = attrs
                    .0
                    .windows(2)
                    .any(|two| two[0].0.end == two[1].0.start && two[0].1 == two[1].1);
                assert!(!alike, "neighbours that are the same are one");
            }
        });
    }
}
