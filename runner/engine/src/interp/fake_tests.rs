//! Whole tests on the fake device: a correct one passes, every planted bug is found.

use super::fake::{Bug, FakeDevice};
use super::{Setting, run};
use crate::catalog;
use fencepost_results::{Failure, Outcome, Report, Verdict};
use std::sync::Mutex;

/// Runs the first test of a scenario; gives the outcome and all reports.
pub(super) fn play(yaml: &str, bug: Option<Bug>, seed: u64) -> (Outcome, Vec<Report>) {
    let tests = match catalog::tests("test/fake.yaml", yaml) {
        Ok(tests) => tests,
        Err(diagnostics) => panic!("{diagnostics}"),
    };
    let variant = catalog::find("test/fake.yaml", yaml, &tests[0].name);
    let test = variant.expect("parses").expect("is there").test;
    let device = FakeDevice::new(bug);
    let reports = Mutex::new(Vec::new());
    let sink = |report| reports.lock().expect("no panic").push(report);
    let outcome = run(&Setting { test: &test, text: yaml, device: &device, seed, sink: &sink });
    (outcome, reports.into_inner().expect("no panic"))
}

pub(super) fn passes(yaml: &str) {
    let (outcome, reports) = play(yaml, None, 1);
    assert_eq!(outcome.verdict, Verdict::Pass, "{:?}\n{reports:#?}\n{yaml}", outcome.reason);
}

pub(super) fn fails(yaml: &str, bug: Bug) -> Failure {
    let (outcome, reports) = play(yaml, Some(bug), 1);
    assert_eq!(outcome.verdict, Verdict::Fail, "{bug:?} was not found by\n{yaml}");
    let failure = reports.into_iter().find_map(|report| match report {
        Report::Failure(failure) => Some(failure),
        _ => None,
    });
    failure.expect("a failure is reported")
}

const SPLIT: &str = "
scenario: test/split
about: Unmapping the middle of a mapping leaves its ends
base: 1G
unit: 4K
memory: { a: { kind: system, size: 32K } }
setup: [ { bind: map 0..8 a } ]
steps:
  - bind: unmap 2..4
  - gpu.load: base + 5*unit == a@20K
  - gpu.load: base + 8 == a@8
expect:
  - maps: [ 0..2 a, 4..8 a+4 ]
evidence: { ops.map: 1 }
";

const UNMAPPED: &str = "
scenario: test/unmapped
about: After an unmap the GPU faults
base: 1G
unit: 4K
memory: { a: { kind: system, size: 16K } }
setup: [ { bind: map 0..4 a } ]
steps:
  - bind: unmap 1..2
  - gpu.store: base + unit + 16 = 5
    expect_fault: { at: base + unit + 16, access: write, kind: not_present }
expect:
  - maps: [ 0..1 a, 2..4 a+2 ]
evidence: { ops.map: 1 }
";

const READ_ONLY: &str = "
scenario: test/read-only
about: Binding again with other flags changes what the GPU may do
base: 1G
unit: 4K
memory: { a: { kind: system, size: 4K } }
setup: [ { bind: map 0..1 a } ]
steps:
  - bind: map 0..1 a ro
  - gpu.store: base = 2
    expect_fault: { access: write, kind: permission }
expect: [ { maps: 0..1 a ro } ]
evidence: { ops.map: 1 }
";

const SPARSE: &str = "
scenario: test/sparse
about: Unmapping memory in a sparse region brings the sparse behaviour back
base: 1G
unit: 4K
memory: { a: { kind: system, size: 8K } }
setup: [ { bind: [ map 0..4 sparse, map 1..2 a ] } ]
steps:
  - gpu.load: base + unit == a@0
  - bind: unmap 1..2
  - gpu.store: base + unit = 7
  - gpu.load: base + unit == 0
expect: [ { maps: 0..4 sparse } ]
evidence: { ops.map: 1 }
";

const REFUSED: &str = "
scenario: test/refused
about: A misaligned call is refused and changes nothing
base: 1G
unit: 4K
memory: { a: { kind: system, size: 16K } }
setup: [ { bind: map 0..4 a } ]
steps:
  - { bind: [ unmap 0..2, { map: a, at: base + 1, size: 4K } ], expect_errno: EINVAL }
expect:
  - maps: 0..4 a
evidence: { binds.failed: 1 }
";

const COUNTER: &str = "
scenario: test/counter
about: No update is lost when CPU and GPU add to one word
memory: { counter: { kind: system, size: 4K, at: 1G, pattern: zero } }
actors:
  cpu: [ { repeat: 200, do: [ { cpu.atomic_add: counter += 1 } ] } ]
  gpu: [ { repeat: 50, do: [ { gpu.atomic_add: counter += 1 } ] } ]
expect:
  - value: counter == 250
evidence: { jobs.completed: 50 }
";

/// As above without saying what must come out: the oracle knows.
const SILENT_COUNTER: &str = "
scenario: test/silent-counter
about: The oracle knows the sum by itself
memory: { counter: { kind: system, size: 4K, at: 1G, pattern: zero } }
steps:
  - gpu.atomic_add: counter += 1
  - gpu.atomic_add: counter += 1
  - gpu.atomic_add: counter += 1
  - cpu.read: counter
expect: [ { value: counter >= 0 } ]
evidence: { jobs.completed: 3 }
";

const COPY: &str = "
scenario: test/copy
about: Copies and fills write what they say and no more
memory:
  a: { kind: system, size: 8K, at: 1G }
  b: { kind: system, size: 8K, at: 2G, pattern: zero }
steps:
  - gpu.copy: { from: a + 8, to: b + 16, size: 104 }
  - gpu.fill: { at: a + 64, size: 64, value: 7 }
expect:
  - value: b + 16 == a@8
evidence: { jobs.completed: 2 }
";

const REREAD: &str = "
scenario: test/reread
about: A later load sees a later store
memory: { a: { kind: system, size: 4K, at: 1G, pattern: zero } }
steps:
  - gpu.load: a == 0
  - cpu.write: a = 5
  - gpu.load: a
expect: [ { value: a >= 0 } ]
evidence: { jobs.completed: 2 }
";

const FENCES: &str = "
scenario: test/fences
about: Work starts after its in-fences and signals its out-fences when done
memory:
  a: { kind: system, size: 4K, at: 1G, pattern: zero }
  hold: { kind: system, size: 4K, at: 3G, pattern: zero }
queues: { one: exec, two: exec, holder: exec }
syncobjs: [ gate, mid, done ]
steps:
  - { submit: [ { wait: hold == 1 } ], queue: holder, signal: gate, as: blocker }
  - { submit: [ { store: a = 1 } ], queue: one, wait: gate, signal: mid, as: first }
  - { submit: [ { load: a } ], queue: two, wait: mid, signal: done, as: second }
  - { wait: done, timeout: 5ms, expect_errno: ETIME }
  - cpu.write: hold = 1
  - wait: done
  - cpu.read: a
  - finish: blocker
  - finish: first
  - finish: second
expect: [ { syncobj: done, signalled: true } ]
evidence: { jobs.completed: 3 }
";

const TIMELINE: &str = "
scenario: test/timeline
about: A timeline says no more than was signalled
memory:
  a: { kind: system, size: 4K, at: 1G, pattern: zero }
  hold: { kind: system, size: 4K, at: 3G, pattern: zero }
syncobjs: [ t ]
steps:
  - signal: t@1
  - { submit: [ { wait: hold == 1 }, { store: a = 1 } ], signal: t@2, as: job }
  - query: { t: 1 }
  - cpu.write: hold = 1
  - finish: job
  - query: { t: 2 }
expect: [ { value: a >= 0 } ]
evidence: { jobs.completed: 1 }
";

const ORDER: &str = "
scenario: test/order
about: Asynchronous binds of one queue are done in order
base: 1G
unit: 4K
memory:
  a: { kind: system, size: 4K }
  b: { kind: system, size: 4K }
  hold: { kind: system, size: 4K, at: 3G, pattern: zero }
queues: { exec: exec, holder: exec }
syncobjs: [ gate, done ]
steps:
  - { submit: [ { wait: hold == 1 } ], queue: holder, signal: gate, as: blocker }
  - { bind: map 0..1 a, async: true, wait: gate }
  - { bind: map 0..1 b, async: true, wait: gate, signal: done }
  - cpu.write: hold = 1
  - wait: done
  - gpu.load: base
expect:
  - maps: 0..1 b
    within: 0..4
evidence: { ops.map: 2 }
";

#[test]
fn a_correct_device_passes_and_each_bug_is_found() {
    let table: &[(&str, &[Bug])] = &[
        (SPLIT, &[Bug::MissingSplit, Bug::WrongSplitOffset, Bug::Leak]),
        (UNMAPPED, &[Bug::StaleTranslation, Bug::NoFault, Bug::RoundedFault, Bug::MissingSplit]),
        (READ_ONLY, &[Bug::WritableReadOnly, Bug::KeepsFlags]),
        (SPARSE, &[Bug::SparseForgotten, Bug::StaleTranslation]),
        (REFUSED, &[Bug::WrongErrno, Bug::HalfDone]),
        (COUNTER, &[Bug::LostUpdate, Bug::NewForOld]),
        (SILENT_COUNTER, &[Bug::LostUpdate, Bug::NewForOld]),
        (COPY, &[Bug::ShortCopy, Bug::LongFill, Bug::DirtyMemory]),
        (REREAD, &[Bug::StaleRead]),
        (FENCES, &[Bug::NoInFence, Bug::EarlyFence]),
        (TIMELINE, &[Bug::EagerTimeline]),
        (ORDER, &[Bug::Disorder]),
    ];
    for (yaml, bugs) in table {
        passes(yaml);
        for bug in *bugs {
            fails(yaml, *bug);
        }
    }
}
