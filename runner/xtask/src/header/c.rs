//! The C header, in the manner of the kernel's DRM headers.

use std::fmt::Write as _;

use fencepost_uapi::command::OPCODES;
use fencepost_uapi::fencepost::{COUNTERS, IOCTLS};
use fencepost_uapi::ioctl::{DRM_COMMAND_BASE, nr};

use super::source::{Constant, Item};
use super::{RecordInfo, records};

const INTRODUCTION: &str = "\
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The uAPI of the fencepost reference driver.
 *
 * Generated from fencepost-uapi by `cargo xtask header`; do not edit.
 * docs/UAPI.md says what the calls mean.
 */
#ifndef _FENCEPOST_DRM_H_
#define _FENCEPOST_DRM_H_

#include \"drm.h\"

#if defined(__cplusplus)
extern \"C\" {
#endif
";

const END: &str = "
#if defined(__cplusplus)
}
#endif

#endif /* _FENCEPOST_DRM_H_ */
";

/// The text of the header.
pub(super) fn header(driver: &[Item], commands: &[Item]) -> String {
    let mut out = String::from(INTRODUCTION);
    section(&mut out, "ioctl numbers");
    for ioctl in IOCTLS {
        let number = nr(ioctl.request) - DRM_COMMAND_BASE;
        line(
            &mut out,
            &define(&format!("DRM_FENCEPOST_{}", ioctl.name), &format!("0x{number:02x}")),
        );
    }
    out.push('\n');
    for ioctl in IOCTLS {
        let value = format!(
            "DRM_IOWR(DRM_COMMAND_BASE + DRM_FENCEPOST_{}, struct {})",
            ioctl.name, ioctl.record
        );
        let name = format!("DRM_IOCTL_FENCEPOST_{}", ioctl.name);
        line(&mut out, &format!("#define {name} \\\n\t{value}"));
    }
    let records = records();
    let names = Names::new(driver, "DRM_FENCEPOST_");
    items(&mut out, driver, &records, &names);
    counters(&mut out);
    let names = Names::new(commands, "FENCEPOST_CMD_");
    section(&mut out, "GPU commands");
    for opcode in OPCODES {
        comment(&mut out, "", &format!("{} Words: {}.", names.comment(opcode.doc), opcode.words));
        line(
            &mut out,
            &define(&format!("FENCEPOST_CMD_{}", opcode.name), &opcode.code.to_string()),
        );
    }
    items(&mut out, commands, &records, &names);
    out.push_str(END);
    out
}

/// How things that the Rust documentation names are called in C.
pub(super) struct Names<'a> {
    items: &'a [Item],
    prefix: &'a str,
}

impl<'a> Names<'a> {
    /// Names of a source's items; constants get the prefix.
    pub(super) const fn new(items: &'a [Item], prefix: &'a str) -> Self {
        Self { items, prefix }
    }

    /// A text of rustdoc for a C comment: on one line, without ticks, links as C names.
    pub(super) fn comment(&self, doc: &str) -> String {
        let words: Vec<&str> = doc.split_whitespace().collect();
        let text = words.join(" ");
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once("[`") {
            let (link, after) = after.split_once("`]").unwrap_or((after, ""));
            out.push_str(before);
            out.push_str(&self.link(link));
            rest = after;
        }
        out.push_str(rest);
        out.replace('`', "")
    }

    fn link(&self, link: &str) -> String {
        let (head, field) = link.split_once("::").map_or((link, None), |(h, f)| (h, Some(f)));
        for item in self.items {
            match (item, field) {
                (Item::Record { rust, c }, Some(field)) if rust == head => {
                    return format!("{c}.{field}");
                }
                (Item::Record { rust, c }, None) if rust == head => return format!("struct {c}"),
                (Item::Constant(constant), None) if constant.name == head => {
                    return format!("{}{head}", self.prefix);
                }
                _ => {}
            }
        }
        link.to_owned()
    }
}

fn items(out: &mut String, items: &[Item], records: &[RecordInfo], names: &Names<'_>) {
    for item in items {
        match item {
            // The table of ioctls stands at the top.
            Item::Section(name) if name == "numbers" => {}
            Item::Section(name) => section(out, name),
            Item::Constant(Constant { name, c, doc, .. }) => {
                comment(out, "", &names.comment(doc));
                line(out, &define(&format!("{}{name}", names.prefix), c));
            }
            Item::Record { c: name, .. } => {
                if let Some(found) = records.iter().find(|r| r.name == *name) {
                    record(out, found, names);
                }
            }
        }
    }
}

fn record(out: &mut String, record: &RecordInfo, names: &Names<'_>) {
    out.push('\n');
    comment(out, "", &names.comment(record.doc));
    line(out, &format!("struct {} {{", record.name));
    for field in record.fields {
        comment(out, "\t", &names.comment(field.doc));
        let array = match field.elements {
            0 => String::new(),
            n => format!("[{n}]"),
        };
        line(out, &format!("\t{} {}{array};", field.c_type, field.name));
    }
    line(out, "};\n");
}

fn counters(out: &mut String) {
    section(out, "counters, in the order of DRM_FENCEPOST_QUERY_COUNTERS");
    for (index, name) in COUNTERS.iter().enumerate() {
        let name = name.to_uppercase().replace('.', "_");
        line(out, &define(&format!("DRM_FENCEPOST_COUNTER_{name}"), &index.to_string()));
    }
    line(out, &define("DRM_FENCEPOST_COUNTERS", &COUNTERS.len().to_string()));
}

fn section(out: &mut String, name: &str) {
    let _ = write!(out, "\n/* ---- {name} ---- */\n\n");
}

fn define(name: &str, value: &str) -> String {
    format!("#define {name:<40} {value}")
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

/// A comment wrapped at 96 columns.
fn comment(out: &mut String, indent: &str, text: &str) {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("never empty");
        if !last.is_empty() && last.len() + word.len() + 1 > 90 {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    match &lines[..] {
        [one] => line(out, &format!("{indent}/* {one} */")),
        many => {
            line(out, &format!("{indent}/*"));
            many.iter().for_each(|text| line(out, &format!("{indent} * {text}")));
            line(out, &format!("{indent} */"));
        }
    }
}
