//! Clients whose address space is mirrored, under the smallest driver: each on every backend.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fencepost_host::live::Backend;
use fencepost_host::live::tiny::user::{Pages, ask, forked, mappings};
use fencepost_host::live::tiny::{Ask, Tiny};
use nix::errno::Errno;

use super::Role;
use super::client::PAGE;

/// Run under the smallest driver.
pub(crate) const ROLES: &[Role] = &[
    ("gpu_and_cpu_see_each_other", gpu_and_cpu_see_each_other),
    ("pages_move_and_come_back", pages_move_and_come_back),
    ("unmapped_pages_are_gone", unmapped_pages_are_gone),
    ("permissions_are_the_clients", permissions_are_the_clients),
    ("moved_mappings_keep_their_data", moved_mappings_keep_their_data),
    ("forks_copy_what_is_away", forks_copy_what_is_away),
    ("exclusive_pages_are_the_devices", exclusive_pages_are_the_devices),
    ("locked_pages_are_refused_or_exclusive", locked_pages_are_refused_or_exclusive),
    ("whole_huge_pages_move", whole_huge_pages_move),
    ("read_only_pages_move", read_only_pages_move),
    ("own_signal_handlers_still_work", own_signal_handlers_still_work),
    ("another_program_starts_afresh", another_program_starts_afresh),
    ("a_failed_exec_changes_nothing", a_failed_exec_changes_nothing),
    ("no_update_is_lost", no_update_is_lost),
];

/// Flags of a page as reported.
const DEVICE: u64 = 1 << 60;

fn on_device(pages: Pages, page: u64) -> bool {
    ask(Ask::Query, pages.addr + page * PAGE, PAGE, 0).expect("a query").0 & DEVICE != 0
}

fn move_out(pages: Pages) -> u64 {
    ask(Ask::ToDevice, pages.addr, pages.len, 0).expect("a migration").0
}

fn add(pages: Pages, page: u64, count: u64) -> Result<u64, Errno> {
    ask(Ask::Add, pages.addr + page * PAGE, 8, count).map(|(done, _)| done)
}

fn gpu_and_cpu_see_each_other() {
    let pages = Pages::map(4 * PAGE).unwrap();
    pages.word(0).store(5, Ordering::Relaxed);
    assert_eq!(ask(Ask::Read, pages.addr, 8, 0).unwrap().0, 5);
    assert_eq!(add(pages, 0, 3), Ok(3));
    assert_eq!(pages.word(0).load(Ordering::Relaxed), 8);
    assert_eq!(add(pages, 2, 1), Ok(1), "a page that nobody has touched");
    assert_eq!(pages.word(2).load(Ordering::Relaxed), 1);
    assert_eq!(
        ask(Ask::Query, pages.addr + 3 * PAGE, 8, 0).unwrap().0,
        0,
        "looking touches nothing"
    );
}

fn pages_move_and_come_back() {
    let before = mappings();
    let pages = Pages::map(16 * PAGE).unwrap();
    for page in 0..16 {
        pages.word(page).store(page + 1, Ordering::Relaxed);
    }
    for round in 0..3 {
        assert_eq!(move_out(pages), 16, "round {round}");
        assert!((0..16).all(|page| on_device(pages, page)));
        add(pages, 3, 10).unwrap();
        assert!(on_device(pages, 3), "the GPU's access leaves it there");
        assert_eq!(pages.word(3).load(Ordering::Relaxed), 4 + 10 * (round + 1));
        assert!(!on_device(pages, 3), "the CPU's brings it back");
        assert_eq!(pages.word(7).fetch_add(0, Ordering::Relaxed), 8);
        assert_eq!(ask(Ask::ToSystem, pages.addr, 8 * PAGE, 0).unwrap().0, 6);
        assert_eq!(ask(Ask::Evict, 0, 0, 0).unwrap().0, 8);
        assert!((0..16).all(|page| !on_device(pages, page)));
    }
    let fresh = Pages::map(2 * PAGE).unwrap();
    assert_eq!(move_out(fresh), 2, "empty pages move too");
    assert_eq!(ask(Ask::Read, fresh.addr, 8, 0).unwrap().0, 0);
    fresh.word(1).store(1, Ordering::Relaxed);
    pages.unmap().unwrap();
    fresh.unmap().unwrap();
    assert!(mappings() < before + 12, "mappings are joined again");
}

fn unmapped_pages_are_gone() {
    for away in [false, true] {
        let pages = Pages::map(8 * PAGE).unwrap();
        for page in 0..8 {
            add(pages, page, 1).unwrap();
        }
        if away {
            assert_eq!(move_out(pages), 8);
            add(pages, 1, 1).unwrap();
        }
        pages.part(1, 2).unmap().unwrap();
        assert_eq!(add(pages, 1, 1), Err(Errno::EFAULT), "away {away}");
        let again = Pages::map_at(
            pages.addr + PAGE,
            2 * PAGE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
        )
        .unwrap();
        assert_eq!(again.addr, pages.addr + PAGE);
        assert_eq!(add(pages, 1, 1), Ok(1), "a new page");
        assert_eq!(again.word(0).load(Ordering::Relaxed), 1, "it began with zero");
        add(pages, 5, 1).unwrap();
        pages.part(5, 1).advise(libc::MADV_DONTNEED).unwrap();
        assert_eq!(ask(Ask::Read, pages.addr + 5 * PAGE, 8, 0).unwrap().0, 0);
        assert_eq!(pages.word(5).load(Ordering::Relaxed), 0);
        assert_eq!(pages.word(6).load(Ordering::Relaxed), 1, "its neighbour stays");
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        Pages::map_at(pages.addr, 8 * PAGE, flags).unwrap();
        assert!((0..8).all(|page| pages.word(page).load(Ordering::Relaxed) == 0));
        pages.unmap().unwrap();
    }
}

fn permissions_are_the_clients() {
    let pages = Pages::map(4 * PAGE).unwrap();
    add(pages, 0, 1).unwrap();
    assert_eq!(move_out(pages.part(1, 1)), 1);
    pages.protect(libc::PROT_READ).unwrap();
    assert_eq!(add(pages, 0, 1), Err(Errno::EPERM));
    assert_eq!(ask(Ask::Read, pages.addr, 8, 0).unwrap().0, 1);
    pages.protect(libc::PROT_NONE).unwrap();
    assert_eq!(ask(Ask::Read, pages.addr, 8, 0), Err(Errno::EFAULT));
    pages.protect(libc::PROT_READ | libc::PROT_WRITE).unwrap();
    assert_eq!(add(pages, 0, 1), Ok(1));
    assert_eq!(pages.word(0).load(Ordering::Relaxed), 2);
    assert_eq!(ask(Ask::Read, 0x10_0000, 8, 0), Err(Errno::EFAULT), "no mapping");
}

fn moved_mappings_keep_their_data() {
    let pages = Pages::map(8 * PAGE).unwrap();
    for page in 0..8 {
        pages.word(page).store(page, Ordering::Relaxed);
    }
    // A translation that must end.
    assert_eq!(ask(Ask::Read, pages.addr, 8, 0).unwrap().0, 0);
    assert_eq!(move_out(pages.part(2, 3)), 3);
    let place = Pages::map(16 * PAGE).unwrap();
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let moved = pages.remap(8 * PAGE, flags, place.addr).unwrap();
    for page in 0..8 {
        assert_eq!(ask(Ask::Read, moved.addr + page * PAGE, 8, 0).unwrap().0, page);
        assert_eq!(moved.word(page).load(Ordering::Relaxed), page);
    }
    assert_eq!(ask(Ask::Read, pages.addr, 8, 0), Err(Errno::EFAULT), "nothing is left");
    assert_eq!(move_out(moved.part(0, 4)), 4);
    let less = moved.remap(2 * PAGE, 0, 0).unwrap();
    assert_eq!(less.word(1).load(Ordering::Relaxed), 1);
    assert_eq!(ask(Ask::Read, moved.addr + 2 * PAGE, 8, 0), Err(Errno::EFAULT), "cut off");
    let more = less.remap(64 * PAGE, libc::MREMAP_MAYMOVE, 0).unwrap();
    assert_eq!(more.word(1).load(Ordering::Relaxed), 1);
    assert_eq!(more.word(63).load(Ordering::Relaxed), 0);
}

fn forks_copy_what_is_away() {
    let pages = Pages::map(4 * PAGE).unwrap();
    for page in 0..4 {
        pages.word(page).store(page + 10, Ordering::Relaxed);
    }
    assert_eq!(move_out(pages.part(0, 2)), 2);
    ask(Ask::Exclusive, pages.addr + 2 * PAGE, PAGE, 0).unwrap();
    let status = forked(|| {
        let right = (0..4).all(|page| pages.word(page).load(Ordering::Relaxed) == page + 10);
        pages.word(0).store(99, Ordering::Relaxed);
        // A child has an address space, and so an agent, of its own.
        let added = add(pages, 1, 5);
        let mine = pages.word(1).load(Ordering::Relaxed) == 16 && added == Ok(5);
        i32::from(!(right && mine))
    });
    assert_eq!(status, Ok(0));
    assert_eq!(pages.word(0).load(Ordering::Relaxed), 10);
    assert_eq!(pages.word(1).load(Ordering::Relaxed), 11);
    assert_eq!(move_out(pages), 4, "pages that were shared with the child");
    assert_eq!(add(pages, 0, 1), Ok(1));
    assert_eq!(pages.word(0).load(Ordering::Relaxed), 11);
}

fn exclusive_pages_are_the_devices() {
    let pages = Pages::map(2 * PAGE).unwrap();
    pages.word(0).store(1, Ordering::Relaxed);
    assert_eq!(ask(Ask::Exclusive, pages.addr, 2 * PAGE, 0).unwrap().0, 2);
    assert_eq!(ask(Ask::AddThere, pages.addr, 8, 100).unwrap().0, 100);
    assert_eq!(pages.word(0).load(Ordering::Relaxed), 101, "the CPU takes it back");
    assert_eq!(ask(Ask::AddThere, pages.addr, 8, 1).unwrap().0, 0, "and the device has it no more");
    assert_eq!(ask(Ask::AddThere, pages.addr + PAGE, 8, 1).unwrap().0, 1, "the other still");
    pages.part(1, 1).unmap().unwrap();
    assert_eq!(ask(Ask::AddThere, pages.addr + PAGE, 8, 1).unwrap().0, 0);
}

/// Either is an end; "try again" would not be one.
fn locked_pages_are_refused_or_exclusive() {
    let pages = Pages::map(2 * PAGE).unwrap();
    pages.word(0).store(1, Ordering::Relaxed);
    if pages.part(0, 1).lock().is_err() {
        return;
    }
    match ask(Ask::Exclusive, pages.addr, PAGE, 0) {
        Ok((1, _)) => assert_eq!(ask(Ask::AddThere, pages.addr, 8, 1).unwrap().0, 1),
        refused => assert_eq!(refused, Err(Errno::EOPNOTSUPP)),
    }
    assert!(pages.word(0).load(Ordering::Relaxed) >= 1);
    assert_eq!(ask(Ask::Exclusive, pages.addr + PAGE, PAGE, 0).unwrap().0, 1, "its neighbour");
}

fn whole_huge_pages_move() {
    const HUGE: u64 = 2 << 20;
    let room = Pages::map(2 * HUGE).unwrap();
    let start = (room.addr.next_multiple_of(HUGE) - room.addr) / PAGE;
    let pages = room.part(start, HUGE / PAGE);
    pages.advise(libc::MADV_HUGEPAGE).unwrap();
    for page in 0..HUGE / PAGE {
        pages.word(page).store(page, Ordering::Relaxed);
    }
    for count in [HUGE / PAGE, 1] {
        assert_eq!(move_out(pages), count, "what is away stays so");
        assert_eq!(add(pages, 300, 1), Ok(1));
        pages.word(5).fetch_add(1, Ordering::Relaxed);
    }
    assert_eq!(pages.word(300).load(Ordering::Relaxed), 302);
    assert_eq!(pages.word(5).load(Ordering::Relaxed), 7);
    assert_eq!(pages.word(511).load(Ordering::Relaxed), 511);
}

fn read_only_pages_move() {
    let pages = Pages::map(4 * PAGE).unwrap();
    pages.word(1).store(7, Ordering::Relaxed);
    pages.protect(libc::PROT_READ).unwrap();
    assert_eq!(move_out(pages), 4);
    assert_eq!(ask(Ask::Read, pages.addr + PAGE, 8, 0).unwrap().0, 7);
    assert_eq!(add(pages, 1, 1), Err(Errno::EPERM));
    assert!(on_device(pages, 1));
    assert_eq!(pages.word(1).load(Ordering::Relaxed), 7);
    pages.protect(libc::PROT_READ | libc::PROT_WRITE).unwrap();
    assert_eq!(pages.word(1).fetch_add(1, Ordering::Relaxed), 7);
}

fn own_signal_handlers_still_work() {
    let pages = Pages::map(2 * PAGE).unwrap();
    add(pages, 0, 1).unwrap();
    // A store to nowhere ends the child as it would without us.
    let status = forked(|| {
        pages.protect(libc::PROT_NONE).map_or(1, |()| {
            pages.word(0).store(1, Ordering::Relaxed);
            0
        })
    });
    assert_eq!(status, Ok(-libc::SIGSEGV));
}

fn another_program_starts_afresh() {
    let pages = Pages::map(PAGE).unwrap();
    add(pages, 0, 1).unwrap();
    assert_eq!(move_out(pages), 1);
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--role", "gpu_and_cpu_see_each_other"]);
    panic!("{}", command.exec());
}

fn a_failed_exec_changes_nothing() {
    let pages = Pages::map(4 * PAGE).unwrap();
    add(pages, 0, 1).unwrap();
    assert_eq!(move_out(pages), 4);
    use std::os::unix::process::CommandExt;
    let refused = Command::new("/dev/null/nothing").exec();
    assert_eq!(refused.raw_os_error(), Some(libc::ENOTDIR));
    assert_eq!(add(pages, 0, 1), Ok(1));
    assert_eq!(move_out(pages), 4);
    assert_eq!(pages.word(0).load(Ordering::Relaxed), 2);
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// CPU, GPU, migration and exclusive access at the same pages at once: the sums must be exact.
fn no_update_is_lost() {
    const PAGES: u64 = 64;
    const BURST: u64 = 16;
    let millis = std::env::var("FENCEPOST_HAMMER_MS").ok().and_then(|ms| ms.parse().ok());
    let time = Duration::from_millis(millis.unwrap_or(1500));
    let pages = Pages::map(PAGES * PAGE).unwrap();
    let (stop, adds) = (AtomicBool::new(false), AtomicU64::new(0));
    let (moves, exclusives) = (AtomicU64::new(0), AtomicU64::new(0));
    let (gpu, there) = (AtomicU64::new(0), AtomicU64::new(0));
    let begin = Instant::now();
    let running = || !stop.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        for actor in 0..2 {
            let (adds, running) = (&adds, &running);
            scope.spawn(move || {
                let mut state = 0x1234_5678 + actor;
                while running() {
                    for _ in 0..BURST {
                        pages.word(random(&mut state) % PAGES).fetch_add(1, Ordering::Relaxed);
                    }
                    adds.fetch_add(BURST, Ordering::Relaxed);
                    // Those who move pages should get a turn where CPUs are few.
                    std::thread::yield_now();
                }
            });
        }
        scope.spawn(|| {
            let mut state = 77;
            while running() {
                let page = random(&mut state) % PAGES;
                gpu.fetch_add(add(pages, page, 8).expect("GPU"), Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            let mut state = 99;
            while running() {
                let page = random(&mut state) % PAGES;
                let part = pages.part(page, (1 + random(&mut state) % 16).min(PAGES - page));
                let choice = random(&mut state) % 4;
                if choice == 0 {
                    let (got, _) = ask(Ask::Exclusive, part.addr, part.len, 0).expect("exclusive");
                    exclusives.fetch_add(got, Ordering::Relaxed);
                    let (done, _) = ask(Ask::AddThere, part.addr, 8, 4).expect("GPU");
                    there.fetch_add(done, Ordering::Relaxed);
                } else {
                    moves.fetch_add(move_out(part), Ordering::Relaxed);
                    // What the CPU does not touch meanwhile comes back by a call.
                    if choice == 1 {
                        ask(Ask::ToSystem, part.addr, part.len, 0).expect("a migration");
                    }
                }
            }
        });
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
    });
    let sum: u64 = (0..PAGES).map(|page| pages.word(page).load(Ordering::Relaxed)).sum();
    let (cpu, gpu) = (adds.into_inner(), gpu.into_inner() + there.into_inner());
    let (moves, exclusives) = (moves.into_inner(), exclusives.into_inner());
    let (faults, messages) = ask(Ask::Stats, 0, 0, 0).unwrap();
    println!(
        "{:?}: cpu {cpu} gpu {gpu} moved {moves} exclusive {exclusives} faults {faults} messages {messages} \
         lost {}",
        begin.elapsed(),
        (cpu + gpu) as i64 - sum as i64
    );
    assert_eq!(cpu + gpu, sum);
    assert!(moves > 0 && exclusives > 0 && gpu > 0 && faults > 0);
}

/// Runs a client on a backend; all frames must be free afterwards.
pub(crate) fn client_succeeds(role: &str, backend: Backend) {
    if backend == Backend::Userfault && Backend::here() != Backend::Userfault {
        return;
    }
    let tiny = Tiny::new(backend);
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.args(["--role", role]).stdin(Stdio::null());
    let mut child = tiny.spawn(command).expect("spawn");
    let status =
        child.wait_timeout(Duration::from_secs(120)).expect("wait").expect("an end in time");
    assert!(status.success(), "{role}: {status}");
    let deadline = Instant::now() + Duration::from_secs(2);
    while tiny.free_frames() < tiny.frames() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(tiny.free_frames(), tiny.frames(), "{role}: frames are left");
    tiny.stop();
}
