//! Steps about what a kernel does with pages by itself: the tree and the table of their verbs.

use super::expect::Check;
use super::grammar::{Ty, Verb, key, must};
use super::svm::Part;
use super::verbs::{NAME_RESULT, PAGES, SIZE, TIMEOUT};
use std::time::Duration;

/// What the kernel is made to do.
#[derive(Clone, Debug, PartialEq)]
pub enum KernelStep {
    /// It compacts all memory.
    Compact {
        /// Whose pages are to move.
        part: Part,
        /// How many of them have.
        pages: Option<Check>,
        /// Name of that number.
        name: Option<String>,
    },
    /// khugepaged looks for huge pages to make, hurried, at everything at least once.
    Collapse {
        /// Whose pages are counted.
        part: Part,
        /// How many of them must be parts of huge ones then.
        pages: Check,
        /// Longest wait.
        timeout: Duration,
    },
    /// A client's process dies by a signal and is dumped.
    Dump {
        /// Which of its memory is read in the dump.
        part: Part,
        /// Of how many pages there is a hole though something was written; none: of none.
        lost: Option<Check>,
        /// It closes its file of the device before.
        closed: bool,
    },
}

/// Their verbs.
pub(crate) const KERNEL_STEPS: &[Verb] = &[
    Verb {
        name: "mm.compact",
        value: Ty::Compact("place"),
        beside: &[SIZE, PAGES, NAME_RESULT],
        example: "mm.compact: a, pages: \">= 16\"",
        doc: "has the kernel compact memory; pages that move then go into gaps between others",
    },
    Verb {
        name: "mm.khugepaged",
        value: Ty::Compact("place"),
        beside: &[
            SIZE,
            must("pages", Ty::Compact("bound"), "how many are parts of huge pages then"),
            TIMEOUT,
        ],
        example: "mm.khugepaged: a, pages: 512",
        doc: "hurries khugepaged, until it has looked at all memory and as many pages are parts of \
              huge ones; `ETIME`",
    },
    Verb {
        name: "mm.dump",
        value: Ty::Compact("place"),
        beside: &[
            SIZE,
            key("lost", Ty::Compact("bound"), "of how many pages it has a hole (default 0)"),
            key("closed", Ty::Bool, "the device's file is closed before (default false)"),
        ],
        example: "mm.dump: b, size: 64K",
        doc: "the process of the memory's client dies of `SIGABRT`; the core dump has its memory",
    },
];
