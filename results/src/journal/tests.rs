//! Goal: a journal cut at any byte parses and has every event before the cut; lines of several
//! threads never mix; what was waited for is counted as synced. Method: journals filled from a
//! seed, cut at every byte.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

use super::*;
use crate::event::{Report, RunFinished, TestFinished};
use crate::verdict::Verdict;

fn started() -> Event {
    Event::RunStarted(RunStarted {
        version: FORMAT_VERSION,
        program: "0".into(),
        run: "r".into(),
        unix_ms: 1,
        seed: 2,
        device: "ref".into(),
        kernel: "6".into(),
        cpus: 2,
        argv: vec!["fencepost".into(), "run".into()],
        planned: vec!["a@b@c".into()],
    })
}

fn random_event(rng: &mut ChaCha8Rng) -> Event {
    let test = format!("s@t{}@{}", rng.next_u32() % 9, "x,\"\n\u{1f600}".repeat(3));
    match rng.next_u32() % 3 {
        0 => Event::Reported { test, report: Report::Note { text: "n\\".into() } },
        1 => Event::TestFinished(TestFinished {
            test,
            verdict: Verdict::ALL[rng.next_u32() as usize % Verdict::ALL.len()],
            reason: None,
            duration_us: rng.next_u64(),
            ending: None,
        }),
        _ => Event::RunFinished(RunFinished { exit: 7, cut_short: Some(String::new()) }),
    }
}

#[test]
fn a_journal_cut_at_any_byte_keeps_what_was_before() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut bytes = to_text(&Line { at_us: 0, event: started() }).into_bytes();
    let mut ends = vec![bytes.len()];
    for at_us in 1..8 {
        bytes.extend(to_text(&Line { at_us, event: random_event(&mut rng) }).bytes());
        ends.push(bytes.len());
    }
    let whole = Journal::parse(&bytes).expect("whole");
    assert_eq!((whole.lines.len(), whole.torn), (8, false));
    for cut in 0..bytes.len() {
        let journal = Journal::parse(&bytes[..cut]).unwrap_or_else(|e| panic!("at {cut}: {e}"));
        let before = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(journal.lines, whole.lines[..before], "cut at {cut}");
        assert_eq!(journal.torn, cut != 0 && !ends.contains(&cut), "cut at {cut}");
    }
}

#[test]
fn damage_before_the_last_line_is_an_error() {
    let good = to_text(&Line { at_us: 0, event: started() });
    for bad in ["{\"at_us\":1}\n", "\n", "\0\0\0\n"] {
        let text = format!("{good}{bad}{good}");
        match Journal::parse(text.as_bytes()) {
            Err(ReadError::Damaged { line: 2, .. }) => {}
            other => panic!("{bad:?}: {other:?}"),
        }
        // At the end it is what a crash of the machine leaves.
        assert!(Journal::parse(format!("{good}{bad}").as_bytes()).expect("parses").torn);
    }
}

#[test]
fn a_newer_journal_is_refused_by_its_version() {
    let line = to_text(&Line { at_us: 0, event: started() });
    let newer = line.replace("\"version\":1", "\"version\":2");
    assert!(matches!(Journal::parse(newer.as_bytes()), Err(ReadError::Newer(2))));
    let stranger = newer.replace("run_started", "begun");
    let text = format!("{stranger}{stranger}");
    assert!(matches!(Journal::parse(text.as_bytes()), Err(ReadError::Newer(2))));
}

#[test]
fn threads_write_whole_lines_and_waiting_syncs() {
    let folder = tempfile::tempdir().expect("scratch folder");
    let writer = Writer::create(folder.path()).expect("created");
    writer.append(started()).expect("written");
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let writer = &writer;
            scope.spawn(move || {
                let mut rng = ChaCha8Rng::seed_from_u64(thread);
                for _ in 0..50 {
                    let ticket = writer.append(random_event(&mut rng)).expect("written");
                    if rng.next_u32() % 8 == 0 {
                        writer.wait(ticket).expect("synced");
                        assert!(writer.shared.lock().synced >= ticket.0);
                    }
                }
            });
        }
    });
    let shared = Arc::clone(&writer.shared);
    writer.close().expect("closed");
    assert_eq!(shared.lock().synced, 201);
    let journal = Journal::read(folder.path()).expect("reads");
    assert_eq!((journal.lines.len(), journal.torn), (201, false));
    assert!(journal.run().is_some());
}

#[test]
fn a_second_writer_is_refused() {
    let folder = tempfile::tempdir().expect("scratch folder");
    drop(Writer::create(folder.path()).expect("created"));
    assert!(Writer::create(folder.path()).is_err());
}

#[test]
fn after_a_failed_write_nothing_more_is_written() {
    // A file that takes no byte: every write to it is ENOSPC.
    let Ok(file) = OpenOptions::new().append(true).open("/dev/full") else { return };
    let shared = Arc::new(Shared { file, state: Mutex::default(), changed: Condvar::new() });
    let writer = Writer { shared, began: Instant::now(), syncer: None };
    for _ in 0..2 {
        let error = writer.append(started()).expect_err("full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
    assert!(writer.wait(Ticket(1)).is_err());
    assert!(writer.close().is_err());
}
