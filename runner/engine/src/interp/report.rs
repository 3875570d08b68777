//! Words for the reader: which step, what was expected, what was seen, how it came to be.

use crate::lang::ast::Span;
use crate::oracle::space::Translation;
use crate::oracle::{Mismatch, Origin};
use fencepost_results::{Failure, Step};
use std::sync::{Arc, Mutex, MutexGuard};

/// A step, or a command of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Label {
    /// Who.
    pub(super) actor: Arc<str>,
    /// Line in the scenario.
    pub(super) line: u32,
    /// The step as it is written, on one line.
    pub(super) text: Arc<str>,
    /// The command within it, if it has several.
    pub(super) part: Option<String>,
}

impl Label {
    /// As a step of a report.
    pub(super) fn step(&self) -> Step {
        let text = match &self.part {
            Some(part) => format!("{part}, in: {}", self.text),
            None => self.text.to_string(),
        };
        Step { actor: self.actor.to_string(), text, line: self.line }
    }

    /// In a sentence.
    pub(super) fn inline(&self) -> String {
        let text = self.part.as_deref().unwrap_or(&self.text);
        if self.line == 0 {
            return format!("{}: {text}", self.actor);
        }
        format!("{} line {}: {text}", self.actor, self.line)
    }
}

/// All steps that were made, by their number.
#[derive(Debug, Default)]
pub(super) struct Labels(Mutex<Vec<Label>>);

impl Labels {
    fn list(&self) -> MutexGuard<'_, Vec<Label>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Adds one.
    pub(super) fn add(&self, label: Label) -> Origin {
        let mut list = self.list();
        list.push(label);
        list.len() as Origin - 1
    }

    /// The label of that number.
    pub(super) fn get(&self, origin: Origin) -> Option<Label> {
        self.list().get(origin as usize).cloned()
    }

    /// In a sentence.
    pub(super) fn inline(&self, origin: Origin) -> String {
        self.get(origin).map_or_else(|| "an unknown step".to_owned(), |label| label.inline())
    }
}

/// The text of a step on one line.
pub(super) fn excerpt(text: &str, span: Span) -> String {
    const MAX_CHARS: usize = 160;
    let part = text.get(span.start as usize..span.end as usize).unwrap_or("");
    let words = part.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut line: String = words.trim_start_matches("- ").chars().take(MAX_CHARS).collect();
    if words.chars().count() > MAX_CHARS {
        line.push_str(" ...");
    }
    line
}

/// The line of a byte offset, from 1.
pub(super) fn line_of(text: &str, offset: u32) -> u32 {
    let upto = text.get(..offset as usize).unwrap_or(text);
    upto.matches('\n').count() as u32 + 1
}

/// Bytes as a number in hexadecimal, or as bytes if they are no word.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut word = [0; 8];
    let count = bytes.len().min(8);
    word[..count].copy_from_slice(&bytes[..count]);
    format!("{:#x}", u64::from_le_bytes(word))
}

/// What a wrong value is, in words.
pub(super) fn mismatch(
    labels: &Labels,
    name: &dyn Fn(usize) -> String,
    what: &str,
    wrong: &Mismatch,
) -> Failure {
    let mut expected: Vec<String> = Vec::new();
    const MAX_SHOWN: usize = 8;
    for candidate in wrong.allowed.iter().take(MAX_SHOWN) {
        let value = candidate.value.map_or_else(|| "some value".to_owned(), |v| format!("{v:#x}"));
        let race = if candidate.racing { ", racing with this" } else { "" };
        expected.push(format!("{value} (by {}{race})", labels.inline(candidate.origin)));
    }
    if wrong.allowed.len() > MAX_SHOWN {
        expected.push(format!("{} more values", wrong.allowed.len() - MAX_SHOWN));
    }
    let mut details = Vec::new();
    let place = format!("{} at byte {:#x}", name(wrong.object), wrong.offset);
    if let Some(stale) = wrong.stale {
        details.push(format!(
            "stale: this value was written by {}, and overwritten before",
            labels.inline(stale)
        ));
    }
    if let Some(other) = from_pattern(wrong, name) {
        details.push(other);
    }
    if wrong.wrong > wrong.seen.len() as u64 {
        details.push(format!("{} bytes of this read are wrong, the first are shown", wrong.wrong));
    }
    Failure {
        step: None,
        what: format!("{what}: {place}"),
        expected: expected.join(" or "),
        seen: hex(&wrong.seen),
        details,
    }
}

/// Whether a wrong value is a word of another object's unique pattern: then memory of that object
/// was reached.
fn from_pattern(wrong: &Mismatch, name: &dyn Fn(usize) -> String) -> Option<String> {
    let bytes: [u8; 8] = wrong.seen.as_slice().try_into().ok()?;
    let word = u64::from_le_bytes(bytes);
    let place = word & 0xffff_ffff_ffff;
    let (index, offset) = ((place >> 40) as usize, (place & 0xff_ffff_ffff) << 3);
    let index = index.checked_sub(1)?;
    if crate::lang::ast::pattern_word(index, offset) != word {
        return None;
    }
    Some(format!("this is the initial word of {} at byte {offset:#x}", name(index)))
}

/// A translation in words.
pub(super) fn translation(to: Translation, addr: u64, name: &dyn Fn(usize) -> String) -> String {
    let access = |readonly| if readonly { ", read-only" } else { "" };
    match to {
        Translation::None => "nothing is mapped there".to_owned(),
        Translation::Shut => "memory that may not be accessed".to_owned(),
        Translation::Cpu { .. } => "memory that only the CPU reaches".to_owned(),
        Translation::Mirror(_) => "the CPU's memory".to_owned(),
        Translation::Zero { readonly } => {
            format!("NULL or sparse is mapped there{}", access(readonly))
        }
        Translation::Object { object, shift, readonly, .. } => format!(
            "{} is mapped there from byte {:#x}{}",
            name(object),
            addr.wrapping_add(shift),
            access(readonly)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::memory::Candidate;

    #[test]
    fn a_step_is_shown_on_one_line() {
        let text = "a:\n  - gpu.store: { at: a,\n      value: 5 }\n";
        let span = Span { start: 5, end: text.len() as u32 };
        assert_eq!(excerpt(text, span), "gpu.store: { at: a, value: 5 }");
        assert_eq!((line_of(text, 0), line_of(text, 5), line_of(text, 30)), (1, 2, 3));
    }

    #[test]
    fn a_wrong_value_tells_where_it_came_from() {
        let labels = Labels::default();
        let label = |actor: &str, line, text: &str| {
            labels.add(Label { actor: actor.into(), line, text: text.into(), part: None })
        };
        let (old, new) = (label("cpu0", 3, "cpu.write 1"), label("gpu0", 9, "gpu.store 2"));
        let wrong = Mismatch {
            object: 1,
            offset: 8,
            seen: crate::lang::ast::pattern_word(0, 24).to_le_bytes().to_vec(),
            wrong: 16,
            allowed: vec![Candidate { value: Some(2), origin: new, racing: true }],
            stale: Some(old),
        };
        let name = |object: usize| ["a", "b"][object].to_owned();
        let failure = mismatch(&labels, &name, "GPU load", &wrong);
        assert_eq!(failure.what, "GPU load: b at byte 0x8");
        assert_eq!(failure.expected, "0x2 (by gpu0 line 9: gpu.store 2, racing with this)");
        let details = failure.details.join("\n");
        for part in ["cpu0 line 3", "initial word of a at byte 0x18", "16 bytes"] {
            assert!(details.contains(part), "{part} is missing in {details}");
        }
    }
}
