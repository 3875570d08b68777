//! The command line as a whole: help, usage errors, what is generated. Help texts are compared with
//! tests/help; `SNAPSHOTS=overwrite cargo test -p fencepost --test program` writes them anew.

use super::common::Place;
use snapbox::Data;

#[test]
fn the_help_of_every_command() {
    let place = Place::new();
    let commands = [
        "",
        "run",
        "list",
        "check",
        "replay",
        "compare",
        "exec",
        "doctor",
        "vm",
        "fuzz",
        "schema",
        "completions",
        "man",
    ];
    for command in commands {
        let said = place.run(&format!("{command} --help")).ends(0);
        let name = if command.is_empty() { "fencepost" } else { command };
        let path = format!("{}/tests/help/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        snapbox::assert_data_eq!(said.out, Data::read_from(path.as_ref(), None));
        let short = place.run(&format!("{command} -h")).ends(0);
        assert!(short.out.contains("Usage: fencepost"), "{short}");
    }
}

#[test]
fn usage_errors_end_with_2_and_say_what_to_do() {
    let table = [
        ("", "Usage: fencepost"),
        ("lisst", "similar subcommand"),
        ("run --seed x", "a seed is a number of 64 bits"),
        ("run --per-test-timeout 5", "500ms, 30s, 2m or 1h"),
        ("run --partition 3/2", "I from 1 to N"),
        ("run --jobs 0", "1..=256"),
        ("run --tier smokes", "smoke, full, soak"),
        ("run --device nosuch", "`nosuch` names no device"),
        ("run --device fd:3", "an open file cannot be run on"),
        ("vm", "required"),
        ("vm --kdir . run", "needs a source tree of fencepost"),
        ("vm --kdir . --kernel k run", "cannot be used with"),
        ("vm --kernel k replay nowhere@x", "Name the folder of a run"),
        ("compare nowhere nothing", "nowhere: cannot read"),
        ("run /(/", "filter /(/"),
        ("run nosuch.yaml", "cannot read nosuch.yaml"),
        ("run --expect nosuch.txt", "cannot read nosuch.txt"),
        ("check", "required"),
        ("check nosuch.yaml", "cannot read nosuch.yaml"),
        ("check .", "no .yaml file"),
        ("replay nowhere", "neither the folder of a run"),
        ("exec", "required"),
        ("exec -- /no/such/program", "cannot run /no/such/program"),
        ("completions csh", "possible values"),
    ];
    let place = Place::new();
    for (line, complaint) in table {
        let said = place.run(line);
        assert!(said.code == Some(2) && said.err.contains(complaint), "`{line}` gave {said}");
        assert_eq!(said.out, "", "`{line}`");
    }
}

#[test]
fn a_filter_that_matches_nothing_names_the_nearest() {
    let place = Place::new();
    for command in ["run", "list"] {
        place.run(&format!("{command} vm-bnd")).ends(2).complains("near are:\n  vm-bind");
        place.run(&format!("{command} zzzzzzzzzzzz")).ends(2).complains("`fencepost list`");
    }
    // Nothing was recorded of a run that never began.
    assert_eq!(std::fs::read_dir(place.path()).expect("readable").count(), 0);
}

#[test]
fn what_is_generated() {
    let place = Place::new();
    place.run("--version").ends(0).says(concat!("fencepost ", env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        place.run(&format!("completions {shell}")).ends(0).says("fencepost");
    }
    let man = place.run("man").ends(0).says(".TH fencepost");
    for section in ["FENCEPOST RUN", "FENCEPOST REPLAY", "per\\-test\\-timeout"] {
        assert!(man.out.contains(section), "{section}");
    }
    let schema = place.run("schema").ends(0).json();
    assert!(schema.get("$schema").is_some(), "{schema}");
}

#[test]
fn a_closed_pipe_is_no_mistake() {
    use std::process::Stdio;
    let place = Place::new();
    for words in [&["man"][..], &["list"], &["schema"]] {
        let mut child = place
            .command(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("ends");
        assert!(output.status.success(), "{words:?}: {output:?}");
    }
}
