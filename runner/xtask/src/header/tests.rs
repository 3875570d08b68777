//! Goal: the C header says what the Rust records say. Method: a C compiler checks sizes, offsets,
//! ioctl numbers and constants of the generated header by static assertions made from the tables.

use std::fmt::Write as _;
use std::process::Command;

use fencepost_uapi::fencepost::IOCTLS;

use super::source::{Item, parse};
use super::*;
use crate::root;

fn items() -> Vec<Item> {
    let text = fs::read_to_string(root().join("reference-driver/uapi/src/fencepost.rs"));
    parse(&text.expect("readable")).expect("parses")
}

#[test]
fn the_table_of_records_is_complete() {
    let named: Vec<String> = items()
        .into_iter()
        .filter_map(|item| if let Item::Record { c, .. } = item { Some(c) } else { None })
        .collect();
    let known: Vec<&str> = records().iter().map(|record| record.name).collect();
    assert_eq!(named, known, "records() lists them in the order of the source");
    for ioctl in IOCTLS {
        assert!(known.contains(&ioctl.record), "{}", ioctl.record);
    }
}

#[test]
fn constants_are_read_with_their_documentation() {
    let text = "/// One\n/// two.\npub const A_B: u64 = 1 << 4;\n// x\npub const C: u32 = 0x1_0;\n\
                pub const D: &[u8] = 1;\n$(pub const $name: u32 = 1;)+\n";
    let items = parse(text).expect("parses");
    let [Item::Constant(a), Item::Constant(c)] = &items[..] else { panic!("{items:?}") };
    assert_eq!((&*a.name, a.value, &*a.c, &*a.doc), ("A_B", 16, "(1ULL << 4)", "One\ntwo."));
    assert_eq!((&*c.name, c.value, &*c.c, &*c.doc), ("C", 16, "16", ""));
    assert!(parse("pub const A: u32 = B | C;\n").is_err(), "what is not understood is refused");
}

#[test]
fn comments_in_c_name_things_as_c_does() {
    let items = [
        Item::Record { rust: "VmBind".into(), c: "drm_fencepost_vm_bind".into() },
        Item::Constant(source::Constant {
            name: "VA_END".into(),
            value: 1,
            c: "1".into(),
            doc: String::new(),
        }),
    ];
    let doc = "In [`VmBind`] and [`VmBind::flags`] below\n [`VA_END`]; `EINVAL`, [`Other`].";
    let seen = c::Names::new(&items, "DRM_").comment(doc);
    let expected = "In struct drm_fencepost_vm_bind and drm_fencepost_vm_bind.flags below \
                    DRM_VA_END; EINVAL, Other.";
    assert_eq!(seen, expected);
}

/// A C program whose compilation is the test.
fn assertions() -> String {
    let mut c = String::from("#include <stddef.h>\n#include \"fencepost_drm.h\"\n");
    let mut check = |what: String| {
        let _ = writeln!(c, "_Static_assert({what}, \"{}\");", what.replace('"', ""));
    };
    for record in records() {
        check(format!("sizeof(struct {}) == {}", record.name, record.size));
        for field in record.fields {
            let of = format!("struct {}, {}", record.name, field.name);
            check(format!("offsetof({of}) == {}", field.offset));
            check(format!(
                "sizeof(((struct {} *)0)->{}) == {}",
                record.name, field.name, field.size
            ));
        }
    }
    for ioctl in IOCTLS {
        check(format!("DRM_IOCTL_FENCEPOST_{} == {}U", ioctl.name, ioctl.request));
    }
    for (name, value) in [
        ("PAGE_SIZE", fencepost::PAGE_SIZE),
        ("VA_END", fencepost::VA_END),
        ("MAX_BO_BYTES", fencepost::MAX_BO_BYTES),
        ("CAP_SVM", fencepost::CAP_SVM),
        ("BIND_CPU_MIRROR", u64::from(fencepost::BIND_CPU_MIRROR)),
        ("FAULT_KIND_COMMAND", u64::from(fencepost::FAULT_KIND_COMMAND)),
        ("COUNTERS", fencepost::COUNTERS.len() as u64),
    ] {
        check(format!("DRM_FENCEPOST_{name} == {value}ULL"));
    }
    c
}

/// What the header needs of the kernel's drm.h, for machines without it.
const DRM_H: &str = "#include <linux/types.h>\n#include <linux/ioctl.h>\n\
    #define DRM_COMMAND_BASE 0x40\n#define DRM_IOWR(nr, type) _IOWR('d', nr, type)\n";

#[test]
fn a_c_compiler_agrees_about_every_size_and_offset() {
    let compiler = ["cc", "gcc", "clang"].into_iter().find(|name| {
        Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success())
    });
    let Some(compiler) = compiler else {
        println!("no C compiler here: the header is not compiled");
        return;
    };
    let folder = tempfile::tempdir().expect("scratch folder");
    let committed = fs::read_to_string(root().join(HEADER)).expect("`cargo xtask header` made it");
    fs::write(folder.path().join("fencepost_drm.h"), committed).expect("written");
    fs::write(folder.path().join("drm.h"), DRM_H).expect("written");
    fs::write(folder.path().join("check.c"), assertions()).expect("written");
    let out = Command::new(compiler)
        .args(["-std=c11", "-Wall", "-Werror", "-fsyntax-only", "-I.", "check.c"])
        .current_dir(folder.path())
        .output()
        .expect("runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
