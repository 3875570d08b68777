//! Embeds the scenarios: writes the table that `src/lib.rs` includes. Every `<area>/*.yaml` below
//! this folder is taken, in the order of paths, so that the program does not depend on the file
//! system's order.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join("files.rs");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut table = String::from("&[\n");
    for path in scenarios(&root)? {
        let below = path.strip_prefix(&root).expect("found below it");
        writeln!(table, "    File {{ path: {below:?}, text: include_str!({path:?}) }},")
            .expect("a string takes any text");
    }
    table.push_str("]\n");
    fs::write(out, table)
}

fn scenarios(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in fs::read_dir(root)? {
        let folder = folder?.path();
        // src, tests and the like hold no YAML.
        if !folder.is_dir() {
            continue;
        }
        for file in fs::read_dir(&folder)? {
            let file = file?.path();
            if file.extension().is_some_and(|e| e == "yaml") {
                found.push(file);
            }
        }
    }
    found.sort();
    Ok(found)
}
