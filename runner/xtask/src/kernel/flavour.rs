//! The flavours of the kernel: which configuration fragments and which compiler.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

/// A flavour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Flavour {
    /// What the suites need, nothing else.
    Plain,
    /// With lockdep, kmemleak, object and slab debugging, Rust assertions.
    Debug,
    /// Debug, KASAN and UBSAN.
    Kasan,
}

impl Flavour {
    /// Its name in files and options.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Debug => "debug",
            Self::Kasan => "kasan",
        }
    }

    /// Its configuration fragments, the later ones having the last word.
    pub(super) fn fragments(self, root: &Path) -> Vec<PathBuf> {
        let names: &[&str] = match self {
            Self::Plain => &["base"],
            Self::Debug => &["base", "debug"],
            Self::Kasan => &["base", "debug", "kasan"],
        };
        let folder = root.join("reference-driver/linux/configs");
        names.iter().map(|name| folder.join(name).with_extension("config")).collect()
    }

    /// What `make` must be told: KASAN with Rust needs clang.
    pub(super) const fn make_args(self) -> &'static [&'static str] {
        match self {
            Self::Plain | Self::Debug => &[],
            Self::Kasan => &["LLVM=-19"],
        }
    }

    /// The command whose version belongs to the key.
    pub(super) const fn compiler(self) -> &'static str {
        match self {
            Self::Plain | Self::Debug => "gcc",
            Self::Kasan => "clang-19",
        }
    }
}
