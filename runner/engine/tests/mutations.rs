//! Random mutations of good and broken scenarios: loading never panics, and every diagnostic lies
//! within the file. Prints the seed and round of a failure; `FENCEPOST_MUTATIONS=N` does N rounds.

use fencepost_engine::lang::{self, Diagnostics};
use fencepost_engine::seed::Random;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

const ROUNDS: u64 = 3000;
const SEED: u64 = 0x5eed_1a06;

fn files(folder: &str, out: &mut Vec<String>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(root).expect(folder).flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            files(&format!("{folder}/{}", path.file_name().unwrap_or_default().display()), out);
        } else if path.extension().is_some_and(|e| e == "yaml") {
            out.push(std::fs::read_to_string(path).expect("readable"));
        }
    }
}

/// Pieces that mean something to the language or to YAML.
const PIECES: &[&str] = &[
    "$",
    "${",
    "$unit",
    "..",
    "0..",
    "..1",
    "@",
    "a@",
    "->",
    "==",
    "=",
    "+=",
    ">= ",
    "4K",
    "64K",
    "max",
    "-1",
    "99999999999999999999",
    "1/0",
    "0",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    ": ",
    "\n",
    "\n  ",
    "- ",
    "&x ",
    "*x",
    "<<: *x\n",
    "!t ",
    "'",
    "\"",
    "#",
    " #",
    "---\n",
    "|",
    ">",
    "?",
    "%",
    "~",
    "null",
    "true",
    "\u{e9}",
    "\u{1f600}",
    "\t",
    "\0",
    "map 0..1 a",
    "unmap",
    "sparse",
    "ro",
    "kind=",
    "rand(",
    "base",
    "expect_errno: EINVAL",
    "when: {}",
    "inject: { alloc: every }",
    "repeat: 3",
    "do: []",
    "barrier: x",
    "exit: 0",
    "as: r1",
    "at: 1G",
    "copies: 9",
    "rounds: 0",
    "params: { p: [] }",
    "cases: {}",
    "from: abi.cases",
    "process: true",
    "client: x",
];

fn boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn place(text: &str, random: &mut Random) -> usize {
    boundary(text, random.below(text.len() as u64 + 1) as usize)
}

fn mutate(text: &mut String, random: &mut Random, others: &[String]) {
    let at = place(text, random);
    let length = random.below(12) as usize;
    let end = boundary(text, (at + length).min(text.len())).max(at);
    match random.below(7) {
        0 => text.replace_range(at..end, ""),
        1 | 2 => text.insert_str(at, PIECES[random.below(PIECES.len() as u64) as usize]),
        3 => {
            let piece = PIECES[random.below(PIECES.len() as u64) as usize];
            text.replace_range(at..end, piece);
        }
        4 => {
            let copy = text[at..end].to_owned();
            let to = place(text, random);
            text.insert_str(to, &copy);
        }
        5 => {
            let mut lines: Vec<&str> = text.lines().collect();
            if !lines.is_empty() {
                let line = random.below(lines.len() as u64) as usize;
                let other = others[random.below(others.len() as u64) as usize].lines();
                let other: Vec<&str> = other.collect();
                lines[line] = other[random.below(other.len() as u64) as usize];
                *text = lines.join("\n");
            }
        }
        _ => text.truncate(at),
    }
}

/// Whether everything that a report says lies within the text.
fn within(found: &Diagnostics) -> bool {
    let length = found.text.len();
    let lines = found.text.lines().count().max(1) + 1;
    found.list.iter().all(|d| {
        let other = d.other.as_ref().map_or(d.span, |(span, _)| *span);
        [d.span, other].iter().all(|span| {
            let (line, column) = found.line_column(span.start);
            let inside = span.start <= span.end && span.end as usize <= length;
            inside && line >= 1 && line <= lines && column >= 1
        })
    })
}

fn rounds() -> u64 {
    let given = std::env::var("FENCEPOST_MUTATIONS").ok();
    given.and_then(|n| n.parse().ok()).unwrap_or(ROUNDS)
}

#[test]
fn mutated_files_never_panic_and_are_diagnosed_within_the_file() {
    let mut originals = Vec::new();
    files("suites", &mut originals);
    files("fixtures/data/broken", &mut originals);
    assert!(originals.len() > 10);
    let mut accepted = 0;
    for round in 0..rounds() {
        let mut random = Random::new(SEED, round);
        let mut text = originals[random.below(originals.len() as u64) as usize].clone();
        for _ in 0..=random.below(6) {
            mutate(&mut text, &mut random, &originals);
        }
        let result =
            catch_unwind(AssertUnwindSafe(|| match lang::load("mutated/file.yaml", &text) {
                Ok(_) => true,
                Err(found) => {
                    assert!(!found.list.is_empty(), "refused without a reason");
                    assert!(within(&found), "a diagnostic outside of the file");
                    // Rendering reads the spans once more; it is slow, so not each time.
                    if round % 8 == 0 {
                        assert!(found.render(false).contains("error"));
                    }
                    false
                }
            }));
        match result {
            Ok(fine) => accepted += u64::from(fine),
            Err(_) => panic!("seed {SEED:#x}, round {round}:\n{text}"),
        }
    }
    assert!(
        accepted > 0 && accepted < rounds(),
        "{accepted} accepted: mutations must do something"
    );
}
