//! Goal: whenever the runner is killed, its journal parses, and every test whose end was seen is in
//! it. Method: runs of many short tests, killed by SIGKILL after a number of ends that a seed
//! chooses, the lines on standard output being what was seen.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use super::common::Place;
use fencepost_results::Verdict;
use fencepost_results::journal::Journal;
use fencepost_results::summary::Summary;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

const SEED: u64 = 0x5eed;
const KILLS: usize = 8;
const TESTS: u32 = 40;

/// As many tests as there are values of `n`.
fn many() -> String {
    let numbers: Vec<String> = (0..TESTS).map(|n| n.to_string()).collect();
    format!(
        "scenario: own/many\nabout: Many short tests\nparams: {{ n: [{}] }}\n\
         memory: {{ a: {{ kind: system, size: 4K, at: 1G }} }}\n\
         steps: [ {{ gpu.store: a+8*$n = $n }} ]\nexpect: [ {{ faults: [] }} ]\nevidence: {{ jobs.completed: 1 }}\n",
        numbers.join(", ")
    )
}

#[test]
fn a_killed_runner_leaves_a_journal_with_every_finished_test() {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    println!("seed {SEED:#x}");
    let place = Place::new();
    place.write("many.yaml", &many());
    for round in 0..KILLS {
        let results = format!("r{round}");
        let words = ["run", "many.yaml", "--jobs", "2", "--verbose", "--results", &results];
        let mut child = place.command(&words).stdout(Stdio::piped()).spawn().expect("starts");
        let wanted = rng.next_u32() % TESTS;
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut seen = BTreeSet::new();
        while (seen.len() as u32) < wanted {
            let Some(line) = lines.next() else { break };
            let line = line.expect("readable");
            if let Some(rest) = line.strip_prefix("pass ") {
                seen.insert(rest.split_whitespace().next().expect("a name").to_owned());
            }
        }
        // Somewhere between two lines, not right after one.
        (0..rng.next_u32() % 200_000).for_each(|_| std::hint::spin_loop());
        child.kill().expect("sent");
        child.wait().expect("ends");
        // What was still in the pipe was seen, too, by somebody who reads a terminal.
        for line in lines.map_while(Result::ok) {
            if let Some(rest) = line.strip_prefix("pass ") {
                seen.insert(rest.split_whitespace().next().expect("a name").to_owned());
            }
        }
        let journal = Journal::read(&place.path().join(&results)).expect("parses");
        let summary = Summary::of(&journal);
        for name in &seen {
            let test = summary.find(name).expect("in the journal");
            assert_eq!(test.verdict, Verdict::Pass, "{name}, round {round}");
        }
        let left = summary.tests.len() - seen.len();
        println!("round {round}: {} ends seen, {left} without, torn: {}", seen.len(), journal.torn);
    }
}
