//! Actors in forked processes, on the fake device: its memory is shared across a fork, its state is
//! not, so here children access memory only. What they do by ioctls is in the bundled scenarios.

use super::fake_tests::play;
use fencepost_results::{Report, Verdict};

const HEAD: &str = "
scenario: test/process
about: An actor in a process of its own
memory:
  a: { kind: system, size: 4K, at: 1G, pattern: zero }
";

/// Runs actors with `HEAD`; gives the verdict, the reason and the names of the operations timed.
fn act(actors: &str) -> (Verdict, String, Vec<String>) {
    let (outcome, reports) = play(&format!("{HEAD}{actors}"), None, 1);
    let operation = |report| match report {
        Report::Latency(latency) => Some(format!("{} {}", latency.actor, latency.operation)),
        _ => None,
    };
    let operations = reports.into_iter().filter_map(operation).collect();
    (outcome.verdict, outcome.reason.unwrap_or_default(), operations)
}

fn passes(actors: &str) -> Vec<String> {
    let (verdict, reason, operations) = act(actors);
    assert_eq!(verdict, Verdict::Pass, "{reason}\n{actors}");
    operations
}

fn fails(actors: &str, because: &str) {
    let (verdict, reason, _) = act(actors);
    assert_eq!(verdict, Verdict::Fail, "{actors}");
    assert!(reason.contains(because), "{reason}");
}

#[test]
fn a_forked_actor_shares_memory_with_the_others() {
    let operations = passes(
        "
actors:
  here:
    - cpu.write: a = 1
    - { cpu.wait: a + 8 == 2, timeout: 60s }
    - gpu.store: a + 16 = 3
  there:
    process: true
    steps:
      - { cpu.wait: a == 1, timeout: 60s }
      - cpu.write: a + 8 = 2
expect: [ { value: a + 8 == 2 } ]
evidence: { jobs.completed: 1 }
",
    );
    // The child maps what was not mapped when it was forked, and is the one that waits.
    for operation in ["process.fork", "there gem.map", "there cpu.wait"] {
        assert!(operations.iter().any(|name| name.ends_with(operation)), "{operations:?}");
    }
}

#[test]
fn forked_steps_end_before_the_actor_goes_on() {
    passes(
        "
steps:
  - fork:
      - cpu.write: a = 5
      - fork: [ { cpu.write: a + 8 = 6 } ]
      - exit: 0
  - cpu.read: a == 5
  - cpu.read: a + 8 == 6
  - gpu.load: a == 5
expect: [ { value: a == 5 } ]
evidence: { jobs.completed: 1 }
",
    );
}

#[test]
fn an_actor_killed_while_it_waits_ends_quietly() {
    passes(
        "
actors:
  killer:
    - barrier: there
    - kill: victim
    - { kill: victim, expect_errno: ESRCH }
    - gpu.store: a = 1
  victim:
    process: true
    copies: 2
    steps:
      - barrier: there
      - { cpu.wait: a + 8 == 1, timeout: 60s }
barriers: { there: 3 }
expect: [ { value: a == 1 } ]
evidence: { jobs.completed: 1 }
",
    );
}

#[test]
fn what_a_process_does_not_share_is_refused() {
    fails(
        "
clients: { main: , other: { process: true } }
actors:
  there:
    client: other
    process: true
    steps: [ { cpu.read: a + 8 == 0 } ]
  here:
    - gpu.store: a = 1
expect: [ { value: a == 1 } ]
evidence: { jobs.completed: 1 }
",
        "cannot fork",
    );
}
