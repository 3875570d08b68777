//! `fencepost check`: every mistake of scenario files at once, without running anything.

use std::io::stdout;
use std::path::{Path, PathBuf};
use std::process::ExitCode as Status;
use std::{fs, io};

use fencepost_engine::catalog;
use fencepost_engine::lang::diag::Diagnostics;
use fencepost_results::ExitCode;
use serde::Serialize;

use crate::args::CheckArgs;
use crate::error::Error;
use crate::output::{Style, count, say};

/// A mistake as `check --json` prints it.
#[derive(Serialize)]
struct Mistake<'a> {
    file: &'a str,
    line: usize,
    column: usize,
    code: &'a str,
    message: &'a str,
    help: &'a str,
    variant: Option<&'a str>,
}

/// `fencepost check`
pub(crate) fn command(args: &CheckArgs) -> Result<Status, Error> {
    let files = expand(&args.files)?;
    let mut bad = Vec::new();
    let mut tests = 0;
    for path in &files {
        let text =
            fs::read_to_string(path).map_err(Error::system(format!("read {}", path.display())))?;
        match catalog::tests(&path.to_string_lossy(), &text) {
            Ok(found) => tests += found.len() as u64,
            Err(mistakes) => bad.push(mistakes),
        }
    }
    if args.json {
        json(&bad)
    } else {
        text(&bad, files.len() as u64, tests)
    }
    Ok(Status::from(if bad.is_empty() { 0 } else { ExitCode::Usage.code() }))
}

fn text(bad: &[Diagnostics], files: u64, tests: u64) {
    let style = Style::of(&stdout());
    for mistakes in bad {
        say!("{}", mistakes.render(style.colour()).trim_end());
    }
    let right = files - bad.len() as u64;
    let right = format!("{} right, {}", count(right, "file"), count(tests, "test"));
    if bad.is_empty() {
        say!("{}", style.good(right));
    } else {
        let wrong: usize = bad.iter().map(|d| d.list.len()).sum();
        let wrong = count(wrong as u64, "mistake");
        say!("{right}; {} in {}", style.bad(wrong), count(bad.len() as u64, "file"));
    }
}

fn json(bad: &[Diagnostics]) {
    let mut all = Vec::new();
    for mistakes in bad {
        for diagnostic in &mistakes.list {
            let (line, column) = mistakes.line_column(diagnostic.span.start);
            all.push(Mistake {
                file: &mistakes.file,
                line,
                column,
                code: diagnostic.code,
                message: &diagnostic.message,
                help: &diagnostic.help,
                variant: diagnostic.variant.as_deref(),
            });
        }
    }
    say!("{}", serde_json::to_string_pretty(&all).expect("all keys are strings"));
}

/// Folders become the scenario files in them, in the order of their names.
fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let found = folder(path).map_err(Error::system(format!("read {}", path.display())))?;
            if found.is_empty() {
                let path = path.display();
                return Err(Error::Usage(format!("there is no .yaml file in {path}")));
            }
            files.extend(found);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn folder(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(folder(&path)?);
        } else if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
