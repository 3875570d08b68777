//! The bundled scenarios, as text in the program, so that one file can be copied to the machine
//! under test.
//!
//! Owns the table of them. What a scenario means is the engine's matter; nothing is parsed here, so
//! that a worker that runs one scenario pays for that one only.

/// A scenario file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path below `suites/`: `<suite>/<file>.yaml`.
    pub path: &'static str,
    /// Its text.
    pub text: &'static str,
}

impl File {
    /// The suite: the folder that holds the file.
    #[must_use]
    pub fn suite(&self) -> &'static str {
        self.path.split('/').next().unwrap_or(self.path)
    }
}

/// Every bundled scenario, ordered by path.
pub static FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// The bundled scenario at that path.
#[must_use]
pub fn find(path: &str) -> Option<&'static File> {
    FILES.binary_search_by(|file| file.path.cmp(path)).ok().map(|at| &FILES[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_found_by_its_path() {
        for file in FILES {
            assert_eq!(find(file.path), Some(file), "the table is in order");
            assert!(!file.suite().is_empty() && file.path.ends_with(".yaml"));
        }
        assert_eq!(find("none/such.yaml"), None);
    }

    #[test]
    fn every_file_of_the_tree_is_embedded() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut count = 0;
        for folder in std::fs::read_dir(root).expect("readable").flatten() {
            let Ok(files) = std::fs::read_dir(folder.path()) else { continue };
            for file in files.flatten() {
                let path = file.path();
                if path.extension().is_some_and(|e| e == "yaml") {
                    let below = path.strip_prefix(root).expect("below").to_str().expect("ASCII");
                    assert!(find(below).is_some(), "{below} is not embedded");
                    count += 1;
                }
            }
        }
        assert_eq!(count, FILES.len());
    }
}
