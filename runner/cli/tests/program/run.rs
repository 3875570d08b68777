//! Runs as a user sees them: verdicts and exit codes, what is printed on failure, replays that fail
//! the same way, skips, expectations, time-outs, signals. Each test writes its own scenarios and
//! runs the built program in an empty folder.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use super::common::{Place, Said};
use fencepost_results::journal::Journal;
use fencepost_results::summary::Summary;
use fencepost_results::{Event, Verdict};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A scenario that passes; its tests get marks replaced to become others.
const PASS: &str = "\
scenario: own/NAME
about: A buffer is bound, the GPU stores into it, the CPU reads the value back
memory: { a: system 64K }
steps:
  - bind: map 1G..1G+64K a
  - gpu.store: 1G + 8 = 7
  - cpu.read: a + 8 == WANTED
expect: [ { faults: [] } ]
evidence: { ops.map: 1 }
";

/// A job that waits for what never comes: the test ends by a time-out or a signal only.
const HANG: &str = "\
scenario: own/hang
about: Waits for a value that nobody writes
memory: { a: { kind: system, size: 4K, at: 1G, pattern: zero } }
queues: { queue: { timeout: 60s } }
steps:
  - { gpu.wait: a == 1, timeout: 60s }
expect: [ { faults: [] } ]
evidence: { jobs.submitted: 1 }
";

fn scenario(name: &str, wanted: u32) -> String {
    PASS.replace("NAME", name).replace("WANTED", &wanted.to_string())
}

fn place_with(scenarios: &[(&str, String)]) -> Place {
    let place = Place::new();
    for (name, text) in scenarios {
        place.write(&format!("{name}.yaml"), text);
    }
    place
}

fn summary(place: &Place, folder: &str) -> Summary {
    Summary::of(&Journal::read(&place.path().join(folder)).expect("reads"))
}

#[test]
fn a_run_that_passes() {
    let place = place_with(&[("right", scenario("right", 7))]);
    let said = place.run("run right.yaml --seed 5").ends(0).says("1 pass").says("seed     5");
    assert!(!said.out.contains('\x1b') && !said.err.contains('\x1b'), "no colour: {said}");
    let runs = place.path().join("results/runs");
    let runs: Vec<_> = std::fs::read_dir(runs).expect("made").flatten().collect();
    assert_eq!(runs.len(), 1);
    let run = runs[0].path();
    let journal = Journal::read(&run).expect("reads");
    let kinds: Vec<&str> = journal
        .lines
        .iter()
        .filter_map(|line| match &line.event {
            Event::RunStarted(_) => Some("run"),
            Event::TestStarted(_) => Some("test"),
            Event::Reported { .. } => None,
            Event::TestFinished(_) => Some("test end"),
            Event::RunFinished(_) => Some("run end"),
        })
        .collect();
    assert_eq!(kinds, ["run", "test", "test end", "run end"]);
    let hlogs = std::fs::read_dir(run.join("latency")).expect("latencies").count();
    assert!(hlogs > 0);
    assert!(run.join("scenarios/right.yaml").is_file());
}

#[test]
fn a_wrong_value_fails_and_its_replay_fails_the_same_way() {
    let place = place_with(&[("wrong", scenario("wrong", 8))]);
    let said = place.run("run wrong.yaml --results out --seed 0x10").ends(1);
    let said = said.says("fail         own@wrong").says("step").says("line 7");
    let said = said.says("expected  ").says("seen      ").says("seed      16");
    let replay = said.out.lines().find_map(|line| line.trim().strip_prefix("replay"));
    let command = replay.expect("a replay command").trim();
    assert!(command.ends_with("replay out@own@wrong"), "{command}");
    // The command as a shell runs it; and the scenario is the recorded one, whatever is there now.
    place.write("wrong.yaml", &scenario("wrong", 7));
    let shell = std::process::Command::new("sh")
        .args(["-c", command])
        .current_dir(place.path())
        .output()
        .expect("starts");
    let again = Said::from(shell).ends(1).says("own@wrong: fail as recorded\n");
    assert!(again.out.contains("seed      16"), "{again}");
    let before = summary(&place, "out");
    assert_eq!(before.finished.expect("finished").exit, 1);
    place.run("replay out").ends(1).says("own@wrong: fail as recorded\n");
    place.run("replay out@own@nosuch").ends(2).complains("no test own@nosuch");
    place.run("run wrong.yaml").ends(0);
}

#[test]
fn what_cannot_run_is_skipped_with_its_reason() {
    let skipped = scenario("skipped", 7)
        .replace("memory:", "needs: [kernel.twin, vm_bind, placement, fault_report]\nmemory:");
    let place = place_with(&[("skipped", skipped), ("right", scenario("right", 7))]);
    place.run("run skipped.yaml").ends(4).says("device ref lacks kernel.twin");
    place.run("run skipped.yaml right.yaml").ends(0).says("1 pass, 1 skip");
    let listed = place.run("list skipped.yaml --json").ends(0).json();
    assert_eq!(listed[0]["skip"], "device ref lacks kernel.twin");
    assert_eq!(listed[0]["name"], "own@skipped");
    assert_eq!(listed[0]["tier"], "full");
    place.run("list skipped.yaml right.yaml").ends(0).says("own@right\n");
    assert!(!place.path().join("results/runs/skipped").exists());
}

#[test]
fn json_is_one_object_and_the_text_goes_elsewhere() {
    let place = place_with(&[("right", scenario("right", 7)), ("wrong", scenario("wrong", 8))]);
    let said = place.run("run right.yaml wrong.yaml --json --seed 3 --results r").ends(1);
    let json = said.json();
    assert_eq!(
        json,
        serde_json::json!({
            "version": 1,
            "totals": { "pass": 1, "fail": 1 },
            "results": "r",
            "seed": 3,
            "exit": 1,
        })
    );
    said.complains("fail         own@wrong");
}

#[test]
fn missing_evidence_is_inconclusive_and_never_a_pass() {
    let text = scenario("idle", 7).replace("ops.map: 1", "evictions: \">= 1\"");
    let place = place_with(&[("idle", text)]);
    let said = place.run("run idle.yaml").ends(1).says("inconclusive own@idle");
    said.says("evidence  evictions").says("expected  >= 1").says("seen      0");
}

#[test]
fn a_bad_scenario_ends_with_2_and_shows_the_place() {
    let text = scenario("bad", 7).replace("gpu.store", "gpu.stoer");
    let place = place_with(&[("bad", text)]);
    for command in ["run bad.yaml", "list bad.yaml"] {
        place.run(command).ends(2).complains("gpu.stoer").complains("bad.yaml:6:");
    }
    place.run("check bad.yaml").ends(2).says("gpu.store").says("1 mistake in 1 file");
    let json = place.run("check bad.yaml --json").ends(2).json();
    assert_eq!((&json[0]["line"], &json[0]["file"]), (&6.into(), &"bad.yaml".into()));
    place.write("right.yaml", &scenario("right", 7));
    place.run("check right.yaml").ends(0).says("1 file right, 1 test");
    place.run("check .").ends(2).says("1 file right, 1 test; 1 mistake in 1 file");
}

#[test]
fn expected_failures_do_not_count_and_unexpected_passes_do() {
    let place = place_with(&[("right", scenario("right", 7)), ("wrong", scenario("wrong", 8))]);
    place.write("known", "# bug 1\nown@wrong fail  bug 1\n");
    place.run("run right.yaml wrong.yaml --expect known").ends(0).says("1 pass, 1 xfail");
    place.write("known", "own@* fail  bug 1\n");
    place.run("run right.yaml wrong.yaml --expect known").ends(3).says("1 xfail, 1 xpass");
    place.write("known", "own@wrong fail\n");
    place.run("run right.yaml --expect known").ends(2).complains("known:1: the reason is missing");
}

#[test]
fn verbose_prints_a_line_for_every_test() {
    let place = place_with(&[("right", scenario("right", 7))]);
    place.run("run right.yaml --verbose").ends(0).says("pass         own@right (");
    let quiet = place.run("run right.yaml").ends(0);
    assert!(!quiet.out.contains("own@right"), "{quiet}");
}

#[test]
fn a_folder_that_holds_a_run_is_not_overwritten() {
    let place = place_with(&[("right", scenario("right", 7))]);
    place.run("run right.yaml --results out").ends(0);
    place.run("run right.yaml --results out").ends(2).complains("already holds a run");
}

#[test]
fn partitions_share_the_tests() {
    let text = scenario("many", 7).replace(
        "memory: { a: system 64K }",
        "params: { n: [1, 2, 3] }\nmemory: { a: system 64K }",
    );
    let text = text.replace("1G + 8 = 7", "1G + 8*$n = 7").replace("a + 8 ==", "a + 8*$n ==");
    let place = place_with(&[("many", text)]);
    let all = place.run("list many.yaml").ends(0).out;
    assert_eq!(all.lines().count(), 3, "{all}");
    let mut parts = Vec::new();
    for part in ["1/2", "2/2"] {
        let listed = place.run(&format!("list many.yaml --partition {part}")).ends(0).out;
        parts.extend(listed.lines().map(str::to_owned));
    }
    parts.sort();
    assert_eq!(parts, all.lines().collect::<Vec<_>>());
}

#[test]
fn a_test_that_hangs_times_out_and_says_so() {
    let place = place_with(&[("hang", HANG.into())]);
    let said = place.run("run hang.yaml --per-test-timeout 300ms --results out").ends(1);
    said.says("timeout      own@hang").says("no end after 300ms");
    assert_eq!(summary(&place, "out").tests[0].verdict, Verdict::Timeout);
}

#[test]
fn the_overall_timeout_leaves_tests_unrun() {
    let place = place_with(&[("hang", HANG.into()), ("right", scenario("right", 7))]);
    let line = "run hang.yaml right.yaml --jobs 1 --overall-timeout 300ms --results out";
    place.run(line).ends(7).says("cut short").says("overall time-out");
    let verdicts: Vec<_> = summary(&place, "out").tests.iter().map(|t| t.verdict).collect();
    assert_eq!(verdicts, [Verdict::Incomplete, Verdict::Notrun]);
}

/// A run of the hanging scenario, once its test has begun.
fn hanging(place: &Place) -> Child {
    let mut child = place
        .command(&["run", "hang.yaml", "--results", "out"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut first = String::new();
    let out = child.stdout.as_mut().expect("piped");
    BufReader::new(out).read_line(&mut first).expect("a line");
    while !workers(child.id()).iter().any(|pid| is_worker(*pid)) {
        assert!(child.try_wait().expect("waits").is_none(), "the run ended by itself");
        std::thread::yield_now();
    }
    child
}

/// The children of a process, by the fourth field of `/proc/PID/stat`.
fn workers(pid: u32) -> Vec<i32> {
    let numbers = std::fs::read_dir("/proc").expect("mounted").flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let parent = pid.to_string();
    let is_child = |child: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        // The second field may have blanks, but it ends at the last bracket.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        rest.split_whitespace().nth(1) == Some(&parent)
    };
    numbers.filter(is_child).collect()
}

fn is_worker(pid: i32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.windows(8).any(|w| w == b"own@hang")
}

#[test]
fn an_interrupted_run_ends_with_130_and_a_whole_journal() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let place = place_with(&[("hang", HANG.into())]);
        let mut child = hanging(&place);
        kill(Pid::from_raw(child.id() as i32), signal).expect("sent");
        assert_eq!(child.wait().expect("ends").code(), Some(130));
        let summary = summary(&place, "out");
        assert_eq!(summary.tests[0].verdict, Verdict::Incomplete);
        let finished = summary.finished.expect("the journal is closed");
        assert_eq!(finished.exit, 130);
        assert_eq!(finished.cut_short, Some(format!("interrupted by {signal}")));
    }
}

#[test]
fn a_worker_that_is_killed_is_a_crash() {
    let place = place_with(&[("hang", HANG.into())]);
    let mut child = hanging(&place);
    for pid in workers(child.id()).into_iter().filter(|pid| is_worker(*pid)) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("sent");
    }
    assert_eq!(child.wait().expect("ends").code(), Some(1));
    let summary = summary(&place, "out");
    assert_eq!(summary.tests[0].verdict, Verdict::Crash);
    assert!(summary.tests[0].reason.as_ref().expect("why").contains("SIGKILL"));
}

#[test]
fn programs_run_against_the_driver() {
    let place = Place::new();
    place.run("exec -- true").ends(0);
    place.run("exec -- false").ends(1);
    let said: Said =
        place.command(&["exec", "--", "sh", "-c", "exit 7"]).output().expect("starts").into();
    said.ends(7);
    let words =
        ["exec", "--", "sh", "-c", "test -w /dev/dri/renderD128 || : <>/dev/dri/renderD128"];
    let said: Said = place.command(&words).output().expect("starts").into();
    said.ends(0);
    let words = ["exec", "--counters", "--", "sh", "-c", ": <>/dev/dri/card0; kill -9 $$"];
    let said: Said = place.command(&words).output().expect("starts").into();
    said.ends(137);
}

#[test]
fn the_doctor_says_that_the_driver_runs_here() {
    let place = Place::new();
    let json = place.run("doctor --json").ends(0).json();
    assert_eq!(json["devices"][0]["runs"], true, "{json}");
    place.run("doctor").ends(0).says("device ref: runs here");
}

#[test]
fn two_runs_are_compared() {
    let place = place_with(&[("one", scenario("one", 7)), ("two", scenario("two", 7))]);
    place.run("run one.yaml two.yaml --results base").ends(0);
    place.run("run one.yaml two.yaml --results again").ends(0);
    place.run("compare base again").ends(0).says("2 tests, the same verdicts");
    place.write("two.yaml", &scenario("two", 8));
    place.run("run two.yaml --results new").ends(1);
    let said = place.run("compare base new").ends(1);
    assert_eq!(
        said.out,
        "only in base  own@one\ndifferent     own@two: pass -> fail\n\
         0 tests the same, 1 different, 1 only in base, 0 only in new\n"
    );
    place.run("compare base new own@one").ends(1).says("only in base  own@one");
    place.run("compare base again own@one").ends(0).says("1 test, the same verdicts");
    place.run("compare base new other").ends(2).complains("matches no test");
    let json = place.run("compare base new --json").ends(1).out;
    let json: serde_json::Value = serde_json::from_str(&json).expect("one object");
    assert_eq!(json["changed"][0]["new"], "fail");
    assert_eq!(json["only_base"][0], "own@one");
}
