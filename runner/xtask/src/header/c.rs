//! The C header, in the manner of the kernel's DRM headers.

use std::fmt::Write as _;

use fencepost_uapi::command::OPCODES;
use fencepost_uapi::fencepost::{COUNTERS, IOCTLS};
use fencepost_uapi::ioctl::{DRM_COMMAND_BASE, nr};

use super::source::{Constant, Item};
use super::{RecordInfo, plain, records};

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
    items(&mut out, driver, &records, "DRM_FENCEPOST_");
    counters(&mut out);
    section(&mut out, "GPU commands");
    for opcode in OPCODES {
        comment(&mut out, "", &format!("{} Words: {}.", plain(opcode.doc), opcode.words));
        line(
            &mut out,
            &define(&format!("FENCEPOST_CMD_{}", opcode.name), &opcode.code.to_string()),
        );
    }
    items(&mut out, commands, &records, "FENCEPOST_CMD_");
    out.push_str(END);
    out
}

fn items(out: &mut String, items: &[Item], records: &[RecordInfo], prefix: &str) {
    for item in items {
        match item {
            // The table of ioctls stands at the top.
            Item::Section(name) if name == "numbers" => {}
            Item::Section(name) => section(out, name),
            Item::Constant(Constant { name, c, doc, .. }) => {
                comment(out, "", &plain(doc));
                line(out, &define(&format!("{prefix}{name}"), c));
            }
            Item::Record(name) => {
                if let Some(found) = records.iter().find(|r| r.name == name) {
                    record(out, found);
                }
            }
        }
    }
}

fn record(out: &mut String, record: &RecordInfo) {
    out.push('\n');
    comment(out, "", &plain(record.doc));
    line(out, &format!("struct {} {{", record.name));
    for field in record.fields {
        comment(out, "\t", &plain(field.doc));
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
