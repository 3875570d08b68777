//! The rule that generated files are up to date.

use std::fs;
use std::path::Path;

use crate::header::generate;

/// What differs from what `cargo xtask header` would write.
pub(super) fn stale(root: &Path) -> Vec<String> {
    let generated = match generate(root) {
        Ok(generated) => generated,
        Err(error) => return vec![format!("{error} [generated]")],
    };
    generated
        .into_iter()
        .filter(|(path, text)| fs::read_to_string(root.join(path)).ok().as_ref() != Some(text))
        .map(|(path, _)| format!("{path}: is not what `cargo xtask header` writes [generated]"))
        .collect()
}
