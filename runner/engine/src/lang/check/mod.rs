//! What a well-formed variant can still get wrong: missing capabilities, barriers that never open,
//! steps that are never reached, bounds, races, expectations that cannot hold. Owns judgement of
//! whole tests; single values are checked while they are read, in [`super::lower`].

use super::diag::Diagnostic;
use super::lower::Lowered;

/// Finds mistakes of a variant.
pub(crate) fn check(lowered: &Lowered, diags: &mut Vec<Diagnostic>) {
    needs(lowered, diags);
}

/// `needs`, if given, must name what the steps imply; a finer capability covers its parent.
fn needs(lowered: &Lowered, diags: &mut Vec<Diagnostic>) {
    let Some(needs_span) = lowered.needs_span else { return };
    let covered = |capability: &str| {
        lowered.stated.iter().any(|need| {
            need == capability || need.strip_prefix(capability).is_some_and(|r| r.starts_with('.'))
        })
    };
    for (capability, span) in &lowered.implied {
        // Evidence is asked of every scenario.
        if *capability != "counters" && !covered(capability) {
            let message = format!("this needs `{capability}`, which `needs` does not list");
            let help = format!("add `{capability}` to `needs`");
            let diagnostic = Diagnostic::new("missing-capability", *span, message, help);
            diags.push(diagnostic.other(needs_span, "not listed here"));
        }
    }
}
