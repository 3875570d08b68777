//! Reference tables of docs/SCENARIOS.md, made from the tables that the parser reads, so that the
//! document cannot say something else.

use super::ast::CpuKind;
use super::counters::COUNTERS;
use super::grammar::{
    ACTOR, CHOICE, CLIENT, FAULT, FAULT_BUFFER, Key, MAPPING, MEMORY, QUEUE, RANGE_OP, SCENARIO,
    SYNCOBJ, Shape, TUNE, USER_FENCE, VM,
};
use super::verbs::{EXPECT_KEYS, STEP_KEYS};
use super::words::{COMMAND_WORDS, EXPECT_WORDS, STEP_WORDS, What, Words};
use fencepost_fixtures::device::caps;
use std::fmt::Write;

/// All tables, as Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::new();
    for shape in [&SCENARIO, &CLIENT, &VM, &MEMORY, &QUEUE, &SYNCOBJ, &ACTOR] {
        keys_table(&mut out, shape);
    }
    memory_kinds(&mut out);
    words_table(&mut out, "Steps", &STEP_WORDS);
    plain_keys(&mut out, "Keys beside every step", STEP_KEYS);
    keys_table(&mut out, &CHOICE);
    words_table(&mut out, "GPU commands", &COMMAND_WORDS);
    words_table(&mut out, "Expectations", &EXPECT_WORDS);
    plain_keys(&mut out, "Keys beside every expectation", EXPECT_KEYS);
    for shape in [&MAPPING, &RANGE_OP, &USER_FENCE, &FAULT, &TUNE, &FAULT_BUFFER] {
        keys_table(&mut out, shape);
    }
    pairs(&mut out, "Capabilities", ("name", "promise"), caps::NAMES);
    pairs(&mut out, "Counters", ("name", "counts"), COUNTERS);
    out
}

fn keys_table(out: &mut String, shape: &Shape) {
    let _ = write!(out, "### `{}`\n\n{}.\n\n", shape.name, shape.doc);
    rows(out, shape.keys);
}

fn plain_keys(out: &mut String, title: &str, keys: &[Key]) {
    let _ = write!(out, "### {title}\n\n");
    rows(out, keys);
}

fn rows(out: &mut String, keys: &[Key]) {
    out.push_str("| key | meaning |\n|---|---|\n");
    for key in keys {
        let required = if key.required { " (required)" } else { "" };
        let _ = writeln!(out, "| `{}` | {}{required} |", key.name, escape(key.doc));
    }
    out.push('\n');
}

fn words_table(out: &mut String, title: &str, words: &Words) {
    let _ = write!(out, "### {title}\n\n| write | meaning | may stand beside |\n|---|---|---|\n");
    for word in &words.list {
        // `gpu.store` is `gpu` with the command `store`: one row says so for all.
        if matches!(word.what, What::GpuCommand(_)) {
            continue;
        }
        let beside: Vec<_> = word.beside.iter().map(|k| format!("`{}`", k.name)).collect();
        let (example, doc) = (escape(&word.example), escape(&word.doc));
        let _ = writeln!(out, "| `{example}` | {doc} | {} |", beside.join(" "));
    }
    out.push('\n');
}

fn memory_kinds(out: &mut String) {
    let mut rows = vec![
        ("vram", "a buffer object in device memory only"),
        ("system", "a buffer object in system memory only"),
        ("either", "a buffer object in device memory, in system memory under pressure"),
    ];
    rows.extend(CpuKind::NAMES.iter().map(|(name, kind)| (*name, kind.about())));
    pairs(out, "Memory kinds", ("kind", "what it is"), &rows);
}

fn pairs(out: &mut String, title: &str, head: (&str, &str), rows: &[(&str, &str)]) {
    let _ = write!(out, "### {title}\n\n| {} | {} |\n|---|---|\n", head.0, head.1);
    for (name, about) in rows {
        let _ = writeln!(out, "| `{name}` | {} |", escape(about));
    }
    out.push('\n');
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/SCENARIOS.md");
    const MARK: &str = "<!-- generated from the language's tables: UPDATE_DOCS=1 cargo test -p \
                        fencepost-engine scenarios_md -->\n";

    #[test]
    fn scenarios_md_has_the_tables_of_the_language() {
        let text = std::fs::read_to_string(DOC).expect("docs/SCENARIOS.md");
        let (head, tables) = text.split_once(MARK).expect("the mark of the generated part");
        let wanted = format!("\n{}", markdown().trim_end().to_owned() + "\n");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(DOC, format!("{head}{MARK}{wanted}")).expect("writable");
        } else {
            assert!(tables == wanted, "docs/SCENARIOS.md is out of date: set UPDATE_DOCS=1 once");
        }
    }
}
