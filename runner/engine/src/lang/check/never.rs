//! Expectations about words that no run can meet: a value that nobody writes, a sum that does not
//! add up. Says nothing where the text does not tell all writes.

use super::super::ast::{Pattern, Span, Test, pattern_word};
use super::super::diag::Diagnostic;
use super::super::expect::{Check, Expect, ExpectKind};
use super::super::expr::Expr;
use super::super::step::{AtomicOp, Compare, Place, Width};
use super::access::{Access, AccessKind, Accesses, overlap};

/// Checks the `value` expectations at the end, and the shape of expected mappings.
pub(super) fn check(test: &Test, accesses: &Accesses<'_>, diags: &mut Vec<Diagnostic>) {
    for expect in &test.expect {
        match &expect.kind {
            ExpectKind::Value { at: Place::Memory { name, offset }, width, check, .. } => {
                if let (Width::Eight, Some(offset)) = (width, offset.constant()) {
                    value(test, accesses, name, offset, check, expect, diags);
                }
            }
            ExpectKind::Maps { maps, .. } => {
                for pair in maps.windows(2) {
                    let end = pair[0].addr.constant().zip(pair[0].size.constant());
                    let end = end.and_then(|(a, s)| a.checked_add(s));
                    let sparse = matches!(pair[0].target, super::super::expect::Target::Sparse);
                    if let (Some(end), Some(next)) = (end, pair[1].addr.constant())
                        && next < end
                        && !sparse
                    {
                        let message = "expected mappings overlap or are out of order";
                        let help = "list them by ascending address, a sparse region before what \
                                    is inside";
                        let diagnostic =
                            Diagnostic::new("never-holds", pair[1].span, message, help);
                        diags.push(diagnostic.other(pair[0].span, "reaches beyond its start"));
                    }
                }
            }
            _ => {}
        }
    }
}

fn value(
    test: &Test,
    accesses: &Accesses<'_>,
    memory: &str,
    offset: u64,
    check: &Check,
    expect: &Expect,
    diags: &mut Vec<Diagnostic>,
) {
    if accesses.unknown_writes {
        return;
    }
    let Some(initial) = initial(test, memory, offset) else { return };
    let word = Some((offset, 8));
    let touches = |a: &&Access<'_>| a.memory == memory && a.kind.writes();
    let writes: Vec<_> =
        accesses.list.iter().filter(touches).filter(|a| overlap(a.range, word)).collect();
    let Some(possible) = possible(initial, &writes, offset) else { return };
    if possible.iter().any(|v| passes(check, *v).unwrap_or(true)) {
        return;
    }
    let at = if offset == 0 { memory.to_owned() } else { format!("{memory}+{offset}") };
    report(expect.span, &at, initial, &possible, writes.is_empty(), diags);
}

fn report(
    span: Span,
    at: &str,
    initial: u64,
    possible: &[u64],
    unwritten: bool,
    diags: &mut Vec<Diagnostic>,
) {
    let shown: Vec<_> = possible.iter().take(4).map(|v| Expr::Const(*v).to_string()).collect();
    let message = format!("`{at}` can never hold this: it holds {} at the end", shown.join(" or "));
    let help = if unwritten {
        "nobody writes it; expect its initial content, or write it".to_owned()
    } else if initial != 0 {
        format!(
            "it holds {initial:#x} at first, its object's pattern; add `zero` to the memory to \
             start from 0, or expect what the writes give"
        )
    } else {
        "expect what the writes give".to_owned()
    };
    diags.push(Diagnostic::new("never-holds", span, message, help));
}

fn initial(test: &Test, memory: &str, offset: u64) -> Option<u64> {
    let index = test.memory.iter().position(|m| m.name == memory)?;
    match &test.memory[index].pattern {
        Pattern::Zero => Some(0),
        Pattern::Unique if offset.is_multiple_of(8) => Some(pattern_word(index, offset)),
        Pattern::Unique => None,
        Pattern::Word(word) => word.constant(),
    }
}

/// Values that the word may hold at the end; none: cannot be told.
fn possible(initial: u64, writes: &[&Access<'_>], offset: u64) -> Option<Vec<u64>> {
    if writes.iter().all(|a| matches!(a.kind, AccessKind::Atomic(AtomicOp::Add, _))) {
        return added(initial, writes, offset).map(|sum| vec![sum]);
    }
    let mut values = vec![initial];
    for access in writes {
        let exact = access.range.is_some_and(|(start, length)| {
            start % 8 == offset % 8 && length % 8 == 0 && start <= offset
        });
        match access.kind {
            AccessKind::Write(Some(value)) | AccessKind::Release(Some(value)) if exact => {
                values.push(value.constant()?);
            }
            _ => return None,
        }
    }
    Some(values)
}

/// Initial value plus all atomic additions.
fn added(initial: u64, writes: &[&Access<'_>], offset: u64) -> Option<u64> {
    let mut sum = initial;
    for access in writes {
        let AccessKind::Atomic(_, value) = access.kind else { return None };
        if access.range != Some((offset, 8)) {
            return None;
        }
        sum = sum.wrapping_add(value.constant()?.wrapping_mul(access.times?));
    }
    Some(sum)
}

/// Whether a value passes; none: not known.
fn passes(check: &Check, value: u64) -> Option<bool> {
    match check {
        Check::Compare(compare, expr) => {
            let other = expr.constant()?;
            Some(match compare {
                Compare::Equal => value == other,
                Compare::NotEqual => value != other,
                Compare::Less => value < other,
                Compare::LessEqual => value <= other,
                Compare::Greater => value > other,
                Compare::GreaterEqual => value >= other,
            })
        }
        Check::In(values) => {
            let values: Option<Vec<u64>> = values.iter().map(Expr::constant).collect();
            Some(values?.contains(&value))
        }
        Check::Between(low, high) => Some((low.constant()?..=high.constant()?).contains(&value)),
    }
}
