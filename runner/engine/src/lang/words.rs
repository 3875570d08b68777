//! The verbs that may stand in a list: those of the tables in [`super::grammar`] plus the derived
//! ones (`gpu.COMMAND`, `cpu.atomic_OP`, `atomic_OP`). Owns their lookup.

use super::grammar::{Key, Ty, Verb, verb};
use super::kernel::KERNEL_STEPS;
use super::step::AtomicOp;
use super::verbs::{ATOMIC_KEYS, ATOMICS, COMMANDS, EXPECTS, STEPS};
use std::collections::HashMap;
use std::sync::LazyLock;

/// A verb with everything that may stand beside it.
#[derive(Debug)]
pub(crate) struct Word {
    pub(crate) name: String,
    pub(crate) what: What,
    pub(crate) value: Ty,
    pub(crate) beside: Vec<&'static Key>,
    pub(crate) example: String,
    pub(crate) doc: String,
}

/// What a verb stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A step, command or expectation of the tables.
    Table(&'static str),
    /// A step that runs one GPU command.
    GpuCommand(&'static str),
    /// An atomic: of the CPU, in a step of its own on the GPU, or as a command.
    Atomic(AtomicOp, &'static str, Side),
}

/// Where an atomic runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Cpu,
    GpuStep,
    GpuCommand,
}

/// Words of one kind of list.
#[derive(Debug)]
pub(crate) struct Words {
    pub(crate) noun: &'static str,
    /// The noun with its article.
    pub(crate) wanted: &'static str,
    pub(crate) list: Vec<Word>,
    index: HashMap<String, usize>,
}

impl Words {
    fn new(wanted: &'static str, list: Vec<Word>) -> Self {
        let index = list.iter().enumerate().map(|(i, w)| (w.name.clone(), i)).collect();
        let noun = wanted.split_once(' ').map_or(wanted, |(_, noun)| noun);
        Words { noun, wanted, list, index }
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Word> {
        self.index.get(name).map(|i| &self.list[*i])
    }
}

/// Words of a list of steps.
pub(crate) static STEP_WORDS: LazyLock<Words> = LazyLock::new(|| {
    let submit = verb(STEPS, "gpu").map_or(&[][..], |v| v.beside);
    let mut list = table(STEPS);
    list.extend(table(KERNEL_STEPS));
    list.extend(atomics("cpu.", Side::Cpu, &[]));
    for command in COMMANDS {
        let mut word = word(command, format!("gpu.{}", command.name));
        word.what = What::GpuCommand(command.name);
        word.example = format!("gpu.{}", command.example);
        word.doc = format!("`gpu: [ {{ {} }} ]`", command.example);
        add_keys(&mut word, submit);
        list.push(word);
    }
    list.extend(atomics("gpu.", Side::GpuStep, submit));
    Words::new("a step", list)
});

/// Words of a list of GPU commands.
pub(crate) static COMMAND_WORDS: LazyLock<Words> = LazyLock::new(|| {
    let mut list = table(COMMANDS);
    list.extend(atomics("", Side::GpuCommand, &[]));
    Words::new("a GPU command", list)
});

/// Words of a list of expectations.
pub(crate) static EXPECT_WORDS: LazyLock<Words> =
    LazyLock::new(|| Words::new("an expectation", table(EXPECTS)));

fn table(verbs: &'static [Verb]) -> Vec<Word> {
    verbs.iter().map(|v| word(v, v.name.to_owned())).collect()
}

fn word(verb: &'static Verb, name: String) -> Word {
    Word {
        name,
        what: What::Table(verb.name),
        value: verb.value,
        beside: verb.beside.iter().collect(),
        example: verb.example.to_owned(),
        doc: verb.doc.to_owned(),
    }
}

fn atomics(prefix: &str, side: Side, more: &'static [Key]) -> Vec<Word> {
    let of = |(name, op, sign): &(&'static str, AtomicOp, &'static str)| {
        let name = format!("{prefix}{name}");
        let more_keys = if *op == AtomicOp::CompareExchange { ", compare: 4" } else { "" };
        let mut word = Word {
            example: format!("{name}: a {sign} 5{more_keys}"),
            doc: "atomic read-modify-write; the old value is a result".into(),
            name,
            what: What::Atomic(*op, sign, side),
            value: Ty::Compact("write"),
            beside: ATOMIC_KEYS.iter().collect(),
        };
        if side != Side::GpuCommand && side != Side::GpuStep {
            word.beside.retain(|k| k.name != "scope");
        }
        add_keys(&mut word, more);
        word
    };
    ATOMICS.iter().map(of).collect()
}

/// Adds keys that the word does not have yet: `as` of a load names its result, not the job.
fn add_keys(word: &mut Word, more: &'static [Key]) {
    for key in more {
        if word.beside.iter().all(|k| k.name != key.name) && key.name != "as" {
            word.beside.push(key);
        }
    }
}
