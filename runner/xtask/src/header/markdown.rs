//! The reference part of docs/UAPI.md.

use std::fmt::Write as _;

use fencepost_core::debug::delay::POINTS;
use fencepost_uapi::command::OPCODES;
use fencepost_uapi::fencepost::{COUNTERS, IOCTLS};
use fencepost_uapi::ioctl::nr;
use fencepost_uapi::{Object, Role};

use super::source::{Constant, Item};
use super::{RecordInfo, records};

/// The text between the marks.
pub(super) fn reference(driver: &[Item], commands: &[Item]) -> String {
    let mut out =
        String::from("## Ioctls\n\n| ioctl | number | record | bytes |\n|---|---|---|---|\n");
    for ioctl in IOCTLS {
        let number = nr(ioctl.request);
        let _ = writeln!(
            out,
            "| `{}` | 0x{number:02x} | [`{}`](#{}) | {} |",
            ioctl.name, ioctl.record, ioctl.record, ioctl.size
        );
    }
    out.push_str("\n## Records and constants\n");
    let records = records();
    let mut constants = Vec::new();
    for item in driver {
        match item {
            Item::Constant(constant) => constants.push(constant),
            Item::Section(_) => flush(&mut out, &mut constants),
            Item::Record { c: name, .. } => {
                flush(&mut out, &mut constants);
                if let Some(found) = records.iter().find(|r| r.name == *name) {
                    record(&mut out, found);
                }
            }
        }
    }
    flush(&mut out, &mut constants);
    out.push_str("\n## Commands\n\n| command | code | words | does |\n|---|---|---|---|\n");
    for op in OPCODES {
        let _ = writeln!(out, "| `{}` | {} | {} | {} |", op.name, op.code, op.words, cell(op.doc));
    }
    for item in commands {
        if let Item::Constant(constant) = item {
            constants.push(constant);
        }
    }
    flush(&mut out, &mut constants);
    out.push_str("\n## Delay points\n\n| name | who comes by |\n|---|---|\n");
    for (_, name, doc) in POINTS {
        let _ = writeln!(out, "| `{name}` | {} |", cell(doc));
    }
    out.push_str("\n## Counters\n\n| index | counter |\n|---|---|\n");
    for (index, name) in COUNTERS.iter().enumerate() {
        let _ = writeln!(out, "| {index} | `{name}` |");
    }
    out
}

fn flush(out: &mut String, constants: &mut Vec<&Constant>) {
    if constants.is_empty() {
        return;
    }
    out.push_str("\n| constant | value | means |\n|---|---|---|\n");
    for Constant { name, value, doc, .. } in constants.drain(..) {
        let value = if *value >= 1 << 16 { format!("0x{value:x}") } else { value.to_string() };
        let _ = writeln!(out, "| `{name}` | {value} | {} |", cell(doc));
    }
}

fn record(out: &mut String, record: &RecordInfo) {
    let RecordInfo { name, size, doc, fields } = record;
    let _ = write!(out, "\n### {name}\n\n{} {size} bytes.\n", cell(doc));
    out.push_str("\n| offset | field | type | checked | means |\n|---|---|---|---|---|\n");
    for field in *fields {
        let array = match field.elements {
            0 => String::new(),
            n => format!("[{n}]"),
        };
        let _ = writeln!(
            out,
            "| {} | `{}` | {}{array} | {} | {} |",
            field.offset,
            field.name,
            field.c_type.trim_start_matches('_'),
            role(field.role),
            cell(field.doc)
        );
    }
}

fn role(role: Role) -> String {
    match role {
        Role::Zero => "zero, else `EINVAL`".into(),
        Role::In => "in".into(),
        Role::Out => "out".into(),
        Role::InOut => "in, out".into(),
        Role::Flags(mask) => format!("bits of 0x{mask:x}, else `EINVAL`"),
        Role::Below(bound) => format!("below {bound}, else `EINVAL`"),
        Role::Handle(object) => format!("{}, else `ENOENT`", kind(object)),
        Role::Pointer => "address, else `EFAULT`".into(),
        Role::Count(bound) => format!("at most {bound}, else `EINVAL`"),
        Role::Stride => "bytes of an element, else `EINVAL`".into(),
        Role::Page => "multiple of 4096, else `EINVAL`".into(),
    }
}

fn kind(object: Object) -> &'static str {
    match object {
        Object::Gem => "GEM handle",
        Object::Vm => "VM id",
        Object::Queue => "queue id",
        Object::Syncobj => "syncobj handle",
        Object::Fd => "descriptor",
    }
}

/// A text for a cell of a table: one line, no links that lead nowhere.
fn cell(doc: &str) -> String {
    let text: Vec<&str> = doc.split_whitespace().collect();
    text.join(" ").replace("[`", "`").replace("`]", "`").replace('|', "\\|")
}
