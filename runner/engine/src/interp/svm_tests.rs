//! CPU memory and mirrors of it on the fake device: what holds passes, planted bugs are found.

use super::fake::Bug;
use super::fake_tests::{fails, passes, play};
use fencepost_results::Verdict;

const MIRROR: &str = "
scenario: test/mirror
about: The GPU reads and writes what the CPU has, of every kind
vm: { svm: true }
memory:
  a: { kind: anon, size: 16K, pattern: unique }
  f: { kind: file_private, size: 8K, pattern: unique }
  s: shared 8K
  m: memfd 8K unique
  r: anon 4K ro unique
steps:
  - gpu.load: a + 8 == a@8
  - gpu.store: a + 4K = 5
  - cpu.read: a + 4K == 5
  - gpu.store: f = 7
  - gpu.store: s + 4K = 8
  - gpu.atomic_add: m += 1
  - { gpu.store: r = 1, expect_fault: { at: r, access: write, kind: permission } }
expect: [ { sees: a }, { sees: f }, { sees: s }, { sees: m }, { sees: r } ]
evidence: { jobs.completed: \">= 5\" }
";

const MOVED: &str = "
scenario: test/moved
about: After mremap the data is at the new address and nothing at the old one
vm: { svm: true }
memory: { a: anon 16K unique, b: hole 16K }
queues: { q1: exec, q2: exec }
steps:
  - gpu.store: a + 4K = 5
  - { mm.remap: a -> b, size: 8K }
  - { gpu.load: a, expect_fault: { kind: not_present } }
  - { cpu.read: a, expect_errno: EFAULT }
  - { gpu.load: b + 4K == 5, queue: q2 }
  - cpu.write: b + 8 = 6
expect: [ { sees: a }, { sees: b } ]
evidence: { jobs.completed: \">= 2\" }
";

const PROTECTED: &str = "
scenario: test/protected
about: What the CPU may not write any more the GPU may not either
vm: { svm: true }
memory: { a: anon 16K unique }
steps:
  - gpu.store: a = 5
  - { mm.protect: a, size: 4K, access: ro }
  - { cpu.write: a = 6, expect_errno: EFAULT }
  - { gpu.store: a = 7, expect_fault: { at: a, kind: permission } }
  - { mm.protect: a + 8K, size: 4K, access: none }
expect: [ { sees: a }, { value: a == 5 } ]
evidence: { jobs.completed: \">= 1\" }
";

const DROPPED: &str = "
scenario: test/dropped
about: What was dropped is zero, or what stands in the file
vm: { svm: true }
memory: { a: anon 16K unique, f: { kind: file_private, size: 8K, pattern: unique }, d: anon 8K unique }
steps:
  - gpu.store: f = 1
  - { mm.advise: f, advice: dontneed }
  - gpu.load: f != 1
  - gpu.store: a = 1
  - { mm.advise: a, size: 8K, advice: dontneed }
  - gpu.load: a == 0
  - gpu.load: a + 8K == a@8K
  - { mm.advise: d, advice: free }
  - gpu.store: d + 8 = 9
  - { mm.unmap: a + 8K, size: 4K }
  - { mm.map: a + 8K, size: 4K }
  - gpu.load: a + 8K == 0
expect: [ { sees: a }, { sees: f }, { sees: d } ]
evidence: { jobs.completed: \">= 4\" }
";

const FORKED: &str = "
scenario: test/forked
about: Parent and child have their own copies of private memory and share the rest
vm: { svm: true }
memory: { a: anon 8K unique, s: shared 4K, w: anon 4K unique, n: anon 4K unique }
setup:
  - { mm.advise: w, advice: wipeonfork }
  - { mm.advise: n, advice: dontfork }
steps:
  - gpu.store: a + 8 = 1
  - fork:
      - cpu.read: a + 8 == 1
      - cpu.write: a + 8 = 2
      - cpu.write: s = 3
      - cpu.read: w == 0
      - { cpu.read: n, expect_errno: EFAULT }
      - cpu.read: a + 8 == 2
  - gpu.load: a + 8 == 1
  - gpu.load: s == 3
expect: [ { sees: a }, { sees: s }, { sees: w }, { sees: n } ]
evidence: { jobs.completed: \">= 3\" }
";

const COUNTED: &str = "
scenario: test/counted
about: No update is lost while pages go to and fro
vm: { svm: true }
memory: { c: anon 4K }
rounds: 3
actors:
  cpu: [ { repeat: 50, do: [ { cpu.atomic_add: c += 1 } ] } ]
  gpu: [ { repeat: 20, do: [ { gpu.atomic_add: c += 1 } ] } ]
  mover:
    - repeat: 10
      do: [ { svm.migrate: c, to: vram }, { svm.exclusive: c, pages: 1 } ]
expect: [ { value: c == 70 } ]
evidence: { jobs.completed: \">= 60\" }
";

const BESIDE: &str = "
scenario: test/beside
about: An object bound over a mirror hides it, and the mirror comes back
vm: { svm: true }
memory: { a: anon 64K unique, b: { kind: system, size: 64K } }
steps:
  - gpu.load: a == a@0
  - bind: map a b
  - gpu.load: a == b@0
  - bind: map a@4K..8K mirror
  - gpu.load: a + 4K == a@4K
  - gpu.load: a + 8K == b@8K
  - bind: map a mirror
  - prefetch_nothing
expect: [ { sees: a } ]
evidence: { jobs.completed: \">= 4\" }
";

const RACED: &str = "
scenario: test/raced
about: A read that races with an unmap gives what was there, or faults
vm: { svm: true }
memory: { a: anon 64K unique }
actors:
  gpu: [ { repeat: 16, as: i, do: [ { submit: [ { load: a + 4K*i } ], as: job, expect_errno: [ ok, ECANCELED ] } ] } ]
  cpu: [ { mm.unmap: a + 32K }, { mm.map: a + 32K, size: 32K } ]
expect: [ { sees: a } ]
evidence: { jobs.completed: \">= 1\" }
";

const TWO: &str = "
scenario: test/two
about: Equal addresses of two processes are different memory
clients: { main: , other: { process: true } }
vms: { vm: { svm: true }, theirs: { client: other, svm: true } }
memory: { a: anon 8K unique, b: { kind: anon, size: 8K, client: other, pattern: unique } }
actors:
  here: [ { gpu.store: a = 1 }, { gpu.load: a + 8 == a@8 } ]
  there:
    client: other
    steps:
      - gpu.store: b = 2
      - mm.unmap: b + 4K
      - { cpu.read: b + 4K, expect_errno: EFAULT }
expect: [ { value: a == 1 }, { value: b == 2 }, { sees: a } ]
evidence: { jobs.completed: \">= 2\" }
";

#[test]
fn what_holds_passes() {
    let all = [MIRROR, MOVED, PROTECTED, DROPPED, FORKED, COUNTED, RACED, TWO];
    all.iter().for_each(|yaml| passes(yaml));
    passes(&BESIDE.replace("  - prefetch_nothing\n", ""));
}

#[test]
fn planted_bugs_are_found() {
    for (yaml, bug) in [
        (MOVED, Bug::NoFault),
        (PROTECTED, Bug::WritableReadOnly),
        (DROPPED, Bug::StaleRead),
        (COUNTED, Bug::LostUpdate),
        (PROTECTED, Bug::SaysWritable),
        (MIRROR, Bug::SaysDevice),
    ] {
        fails(yaml, bug);
    }
}

/// What a step expects of the CPU is held against what the oracle knows.
#[test]
fn a_wrong_expectation_of_an_access_fails() {
    let wrong = MOVED.replace("{ cpu.read: a, expect_errno: EFAULT }", "cpu.read: a");
    let (outcome, _) = play(&wrong, None, 1);
    assert_eq!(outcome.verdict, Verdict::Fail);
    let reason = outcome.reason.unwrap_or_default();
    assert!(reason.contains("EFAULT"), "{reason}");
}
