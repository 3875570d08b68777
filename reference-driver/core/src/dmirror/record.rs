//! The record of test_hmm's ioctls, their numbers, and the bytes of a snapshot.
//!
//! Owns the encoding; what the calls do stands in the module above.

use fencepost_uapi::Errno;

use crate::gpuva::Span;
use crate::host::mirror::Pfn;
use crate::pgtable::SIZE_4K;

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Reads pages as a device does.
    Read,
    /// Writes them.
    Write,
    /// Moves pages to device memory.
    MigrateToDevice,
    /// Moves them back.
    MigrateToSystem,
    /// Tells what the address space has.
    Snapshot,
    /// Makes pages exclusive to the device.
    Exclusive,
    /// Asks whether some are.
    CheckExclusive,
    /// Moves all pages out of the device.
    Release,
    /// Sets flags of the file.
    Flags,
}

impl Command {
    /// Every one, by number from 0.
    pub const ALL: [Command; 9] = [
        Command::Read,
        Command::Write,
        Command::MigrateToDevice,
        Command::MigrateToSystem,
        Command::Snapshot,
        Command::Exclusive,
        Command::CheckExclusive,
        Command::Release,
        Command::Flags,
    ];

    /// The request number: `_IOWR('H', n, struct hmm_dmirror_cmd)`.
    #[must_use]
    pub fn request(self) -> u32 {
        3 << 30 | (Record::SIZE as u32) << 16 | u32::from(b'H') << 8 | self as u32
    }

    /// The call of a request number.
    #[must_use]
    pub fn from_request(request: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.request() == request)
    }
}

/// `struct hmm_dmirror_cmd`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// First address.
    pub addr: u64,
    /// The caller's buffer.
    pub ptr: u64,
    /// Number of pages.
    pub npages: u64,
    /// Out: pages done.
    pub cpages: u64,
    /// Out: how often the device faulted.
    pub faults: u64,
}

impl Record {
    /// In bytes.
    pub const SIZE: usize = 40;

    /// From memory.
    #[must_use]
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Self {
        let mut words = [0; 5];
        for (word, part) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            let mut eight = [0; 8];
            eight.copy_from_slice(part);
            *word = u64::from_ne_bytes(eight);
        }
        let [addr, ptr, npages, cpages, faults] = words;
        Record { addr, ptr, npages, cpages, faults }
    }

    /// To memory.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let words = [self.addr, self.ptr, self.npages, self.cpages, self.faults];
        let mut bytes = [0; Self::SIZE];
        for (part, word) in bytes.chunks_exact_mut(8).zip(words) {
            part.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// The range.
    ///
    /// # Errors
    /// `EINVAL`: not at a page, empty, or around the end of all addresses.
    pub fn span(&self) -> Result<Span, Errno> {
        // As test_hmm counts: what does not fit is lost.
        let end = self.addr.wrapping_add(self.npages.wrapping_mul(SIZE_4K));
        if self.addr % SIZE_4K != 0 || self.addr >= end {
            return Err(Errno::INVAL);
        }
        Ok(Span::new(self.addr, end))
    }
}

/// The byte that a snapshot has for a page: `HMM_DMIRROR_PROT_*`.
#[must_use]
pub fn permission(page: Pfn) -> u8 {
    if page.has(Pfn::ERROR) {
        return 0xff;
    }
    if !page.has(Pfn::VALID) {
        return 0;
    }
    let place = match () {
        () if page.has(Pfn::DEVICE) => 0x20,
        () if page.has(Pfn::ZERO) => 0x10,
        () => 0,
    };
    let size = match page.order() {
        9 => 0x04,
        18 => 0x08,
        _ => 0,
    };
    place | size | if page.has(Pfn::WRITE) { 0x02 } else { 0x01 }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_header() {
        assert_eq!(Command::Read.request(), 0xc028_4800);
        assert_eq!(Command::from_request(0xc028_4808), Some(Command::Flags));
        for other in [0xc028_4809, 0xc020_4800, 0x4028_4800, 0xc028_6400] {
            assert_eq!(Command::from_request(other), None, "{other:#x}");
        }
    }

    #[test]
    fn records_keep_their_words() {
        let record = Record { addr: 1, ptr: 2, npages: 3, cpages: 4, faults: u64::MAX };
        assert_eq!(Record::decode(&record.encode()), record);
    }

    #[test]
    fn ranges_are_whole_pages_that_do_not_wrap() {
        let span = |addr, npages| Record { addr, npages, ..Record::default() }.span();
        assert_eq!(span(0x1000, 2), Ok(Span::new(0x1000, 0x3000)));
        for (addr, npages) in [(0x1001, 1), (0x1000, 0), (!0xfff, 1), (!0xfff, 2), (0, 1 << 52)] {
            assert_eq!(span(addr, npages), Err(Errno::INVAL), "{addr:#x} {npages}");
        }
    }

    #[test]
    fn snapshots_say_where_a_page_is_and_how_it_is_mapped() {
        let page = |flags, order| permission(Pfn::new(flags, order, 0, 7));
        let table = [
            (0, 0, 0),
            (Pfn::ERROR, 0, 0xff),
            (Pfn::VALID, 0, 0x01),
            (Pfn::VALID | Pfn::WRITE, 0, 0x02),
            (Pfn::VALID | Pfn::WRITE, 9, 0x06),
            (Pfn::VALID, 18, 0x09),
            (Pfn::VALID | Pfn::ZERO, 0, 0x11),
            (Pfn::VALID | Pfn::WRITE | Pfn::DEVICE, 9, 0x26),
        ];
        for (flags, order, byte) in table {
            assert_eq!(page(flags, order), byte, "{flags:#x} {order}");
        }
    }
}
