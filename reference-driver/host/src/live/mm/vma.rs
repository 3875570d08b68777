//! A client's mappings and pages as the kernel reports them: `/proc/PID/maps` and `/proc/PID/pagemap`.
//! Owns these files, which stay with the address space that was there when they were opened; what
//! the driver is told of it is [`super::view`]'s.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use fencepost_core::gpuva::Span;
use nix::errno::Errno;

use super::super::arena::PAGE;

/// What a mapping is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Its addresses.
    pub(crate) span: Span,
    /// It may be read.
    pub(crate) read: bool,
    /// It may be written.
    pub(crate) write: bool,
    /// It may be executed.
    pub(crate) execute: bool,
    /// It is shared.
    pub(crate) shared: bool,
    /// Inode of its file; 0: none.
    pub(crate) inode: u64,
    /// The kernel's own: vdso and the like.
    pub(crate) special: bool,
    /// Its page size in bytes.
    pub(crate) page: u64,
}

/// `PROT_*` of a mapping.
impl Mapping {
    pub(crate) fn protection(&self) -> u64 {
        let bit = |set: bool, bit: i32| if set { u64::from(bit.cast_unsigned()) } else { 0 };
        bit(self.read, libc::PROT_READ)
            | bit(self.write, libc::PROT_WRITE)
            | bit(self.execute, libc::PROT_EXEC)
    }

    /// Private memory, of a file or not.
    pub(crate) fn is_private(&self) -> bool {
        !self.shared && !self.special
    }

    /// Private memory without a file.
    pub(crate) fn is_anonymous(&self) -> bool {
        !self.shared && self.inode == 0 && !self.special
    }
}

/// What the kernel tells of a page without changing anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// It is in memory.
    pub(crate) present: bool,
    /// It is swapped out, or about to.
    pub(crate) swapped: bool,
    /// No other address space maps it.
    pub(crate) exclusive: bool,
    /// A page of a file, or shared.
    pub(crate) file: bool,
    /// The zero page.
    pub(crate) zero: bool,
    /// Part of a huge page.
    pub(crate) huge: bool,
}

/// The kernel's files on one address space.
pub(crate) struct Kernel {
    process: i32,
    maps: Mutex<File>,
    maps_fd: i32,
    pagemap: Option<File>,
    /// The kernel answers `PROCMAP_QUERY` (Linux 6.11).
    query: AtomicBool,
    /// The kernel answers `PAGEMAP_SCAN` (Linux 6.7).
    scan: AtomicBool,
}

/// `struct procmap_query` of `include/uapi/linux/fs.h`.
#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    flags: u64,
    addr: u64,
    start: u64,
    end: u64,
    vma_flags: u64,
    page_size: u64,
    offset: u64,
    inode: u64,
    major: u32,
    minor: u32,
    name_size: u32,
    build_id_size: u32,
    name_addr: u64,
    build_id_addr: u64,
}

/// `struct pm_scan_arg` of `include/uapi/linux/fs.h`.
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    inverted: u64,
    mask: u64,
    any: u64,
    result: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// `_IOWR('f', number, struct of size)`.
const fn request(number: u64, size: usize) -> u64 {
    3 << 30 | (size as u64) << 16 | (b'f' as u64) << 8 | number
}

const PROCMAP_QUERY: u64 = request(17, size_of::<Query>());
const PAGEMAP_SCAN: u64 = request(16, size_of::<Scan>());
/// `PROCMAP_QUERY_COVERING_OR_NEXT_VMA`.
const OR_NEXT: u64 = 0x10;
/// `PAGE_IS_PFNZERO`, `PAGE_IS_HUGE`.
const IS_ZERO: u64 = 1 << 5;
const IS_HUGE: u64 = 1 << 6;

impl Kernel {
    /// Opens the files of a process.
    pub(crate) fn new(process: i32) -> io::Result<Kernel> {
        let maps = File::open(format!("/proc/{process}/maps"))?;
        let maps_fd = maps.as_raw_fd();
        Ok(Kernel {
            process,
            maps_fd,
            maps: Mutex::new(maps),
            pagemap: File::open(format!("/proc/{process}/pagemap")).ok(),
            query: AtomicBool::new(true),
            scan: AtomicBool::new(true),
        })
    }

    /// The mapping at or after an address. `ENOENT`: none; `ESRCH`: the address space has ended.
    pub(crate) fn at_or_after(&self, addr: u64) -> Result<Mapping, Errno> {
        if self.query.load(Ordering::Relaxed) {
            match self.ask(addr) {
                Err(Errno::ENOTTY | Errno::EINVAL) => self.query.store(false, Ordering::Relaxed),
                answer => return answer,
            }
        }
        self.look_up(addr)
    }

    fn ask(&self, addr: u64) -> Result<Mapping, Errno> {
        let mut name = [0u8; 32];
        let mut query = Query {
            size: size_of::<Query>() as u64,
            flags: OR_NEXT,
            addr,
            name_size: name.len() as u32,
            name_addr: (&raw mut name).addr() as u64,
            ..Query::default()
        };
        loop {
            // SAFETY: the kernel fills the record and at most `name_size` bytes of the name, which both
            // live through the call.
            let asked = unsafe { libc::ioctl(self.maps_fd, PROCMAP_QUERY, &raw mut query) };
            match Errno::result(asked) {
                Ok(_) => break,
                // The name is longer: not one of those looked for.
                Err(Errno::ENAMETOOLONG) => (query.name_size, query.name_addr) = (0, 0),
                Err(errno) => return Err(errno),
            }
        }
        let bit = |bit: u64| query.vma_flags & bit != 0;
        let name = &name[..if query.name_addr == 0 { 0 } else { query.name_size as usize }];
        Ok(Mapping {
            span: Span::new(query.start, query.end),
            read: bit(1),
            write: bit(2),
            execute: bit(4),
            shared: bit(8),
            inode: query.inode,
            special: query.inode == 0 && name.starts_with(b"[v"),
            page: query.page_size.max(PAGE),
        })
    }

    /// By the text, for kernels that cannot be asked.
    fn look_up(&self, addr: u64) -> Result<Mapping, Errno> {
        let mut maps = self.maps.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        maps.rewind().map_err(|_| Errno::ESRCH)?;
        let mut any = false;
        for line in BufReader::with_capacity(16 << 10, &mut *maps).lines() {
            let line = line.map_err(|_| Errno::ESRCH)?;
            any = true;
            if let Some(mapping) = parse(&line).filter(|mapping| addr < mapping.span.end) {
                return Ok(mapping);
            }
        }
        Err(if any { Errno::ENOENT } else { Errno::ESRCH })
    }

    /// Whether the mapping of an address is locked into memory (`mlock`). Slow: all of
    /// `/proc/PID/smaps` up to there is read.
    pub(crate) fn is_locked(&self, addr: u64) -> bool {
        let Ok(smaps) = File::open(format!("/proc/{}/smaps", self.process)) else { return false };
        let mut here = false;
        for line in BufReader::with_capacity(16 << 10, smaps).lines().map_while(Result::ok) {
            if let Some(mapping) = parse(&line) {
                here = (mapping.span.start..mapping.span.end).contains(&addr);
            } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| here) {
                return flags.split_ascii_whitespace().any(|flag| flag == "lo");
            }
        }
        false
    }

    /// What is at the pages from an address on.
    pub(crate) fn pages(&self, start: u64, pages: &mut [Page]) {
        pages.fill(Page::default());
        let Some(pagemap) = &self.pagemap else { return };
        let mut words = vec![0u8; pages.len() * 8];
        // What cannot be read is not there.
        let read = pagemap.read_at(&mut words, start / PAGE * 8).unwrap_or(0);
        for (page, word) in pages.iter_mut().zip(words[..read].chunks_exact(8)) {
            let word = u64::from_ne_bytes(word.try_into().unwrap_or_default());
            page.present = word >> 63 & 1 != 0;
            page.swapped = word >> 62 & 1 != 0;
            page.file = word >> 61 & 1 != 0;
            page.exclusive = word >> 56 & 1 != 0;
        }
        if self.scan.load(Ordering::Relaxed) && pages.iter().any(|page| page.present) {
            self.scan(pagemap, start, pages);
        }
    }

    fn scan(&self, pagemap: &File, start: u64, pages: &mut [Page]) {
        let end = start + pages.len() as u64 * PAGE;
        let mut regions = [Region::default(); 64];
        let mut from = start;
        while from < end {
            let mut scan = Scan {
                size: size_of::<Scan>() as u64,
                start: from,
                end,
                vec: regions.as_mut_ptr().addr() as u64,
                vec_len: regions.len() as u64,
                any: IS_ZERO | IS_HUGE,
                result: IS_ZERO | IS_HUGE,
                ..Scan::default()
            };
            // SAFETY: the kernel writes the record and at most `vec_len` regions, which live.
            let found = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut scan) };
            let Ok(found) = Errno::result(found) else {
                self.scan.store(false, Ordering::Relaxed);
                return;
            };
            for region in std::hint::black_box(&regions)[..found as usize].iter() {
                let first = (region.start.max(start) - start) / PAGE;
                let last = (region.end.min(end) - start) / PAGE;
                for page in &mut pages[first as usize..last as usize] {
                    page.zero |= region.categories & IS_ZERO != 0;
                    page.huge |= region.categories & IS_HUGE != 0;
                }
            }
            if scan.walk_end <= from {
                return;
            }
            from = scan.walk_end;
        }
    }
}

/// One line of `/proc/PID/maps`.
fn parse(line: &str) -> Option<Mapping> {
    let mut words = line.split_ascii_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let flags = words.next()?.as_bytes();
    let inode = words.nth(2)?.parse().ok()?;
    let name = words.next().unwrap_or("");
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let is = |index: usize, flag: u8| flags.get(index) == Some(&flag);
    Some(Mapping {
        span: Span::new(hex(from)?, hex(to)?),
        read: is(0, b'r'),
        write: is(1, b'w'),
        execute: is(2, b'x'),
        shared: is(3, b's'),
        inode,
        special: inode == 0 && name.starts_with("[v"),
        // The text does not tell; hugetlbfs is named so.
        page: if name.contains("hugepage") || name.contains("/anon_huge") { 2 << 20 } else { PAGE },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locked_memory_is_known() {
        let own = Kernel::new(std::process::id().cast_signed()).unwrap();
        let len = PAGE as usize;
        // SAFETY: a page of its own, which nobody uses.
        let page = unsafe {
            let (rights, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            libc::mmap(std::ptr::null_mut(), len, rights, flags, -1, 0)
        };
        assert_ne!(page, libc::MAP_FAILED);
        assert!(!own.is_locked(page.addr() as u64));
        // SAFETY: the page from above; nothing is populated, so that no limit matters.
        let locked = unsafe { libc::mlock2(page, len, libc::MLOCK_ONFAULT) };
        assert_eq!(own.is_locked(page.addr() as u64), locked == 0);
        // SAFETY: as above.
        unsafe { libc::munmap(page, len) };
    }

    #[test]
    fn asking_and_reading_agree() {
        let own = Kernel::new(std::process::id().cast_signed()).unwrap();
        let place = std::ptr::from_ref(&own).addr() as u64;
        let mapping = own.look_up(place).unwrap();
        assert!(mapping.span.start <= place && mapping.read && mapping.write, "{mapping:?}");
        assert!(mapping.is_anonymous(), "{mapping:?}");
        match own.ask(place) {
            Ok(asked) => assert_eq!(asked, mapping),
            Err(errno) => assert!(matches!(errno, Errno::ENOTTY | Errno::EINVAL)),
        }
        let mut pages = [Page::default(); 1];
        own.pages(place & !(PAGE - 1), &mut pages);
        assert!(pages[0].present);
        assert_eq!(own.look_up(u64::MAX - 1), Err(Errno::ENOENT));
    }
}
