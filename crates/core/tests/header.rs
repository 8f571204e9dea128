//! Completeness is a diff: the capability table against the list extracted from the newest kernel header, and the
//! facade's generated union against the table. `TYPEVISOR_BLESS=1 cargo test -p typevisor --test header` rewrites it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fmt::Write as _, fs, path::PathBuf};

use typevisor::host::Capability;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `KVM_CAP_NAME 1` a line, comments apart.
fn header() -> BTreeSet<(u32, String)> {
    let text = fs::read_to_string(root().join("crates/core/header/capabilities.txt")).unwrap();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, number) = line.split_once(' ').unwrap();
            let name = name.strip_prefix("KVM_CAP_").unwrap().to_ascii_lowercase().replace('_', "-");
            (number.parse().unwrap(), name)
        })
        .collect()
}

fn union() -> String {
    let mut text = String::from(
        "// Generated from crates/core/src/host/capability_table.rs; do not edit.\n\
         // TYPEVISOR_BLESS=1 cargo test -p typevisor --test header writes it anew.\n\n\
         /** A KVM capability: its name in the kernel's header without `KVM_CAP_`, in kebab-case. */\n\
         export type CapabilityName =\n",
    );
    let last = Capability::ALL.len() - 1;
    for (index, capability) in Capability::ALL.iter().enumerate() {
        let end = if index == last { ";" } else { "" };
        writeln!(text, "  | '{}'{end}", capability.name()).unwrap();
    }
    text
}

#[test]
fn the_table_holds_what_the_newest_header_holds_and_nothing_else() {
    let table: BTreeSet<_> =
        Capability::ALL.iter().map(|capability| (capability.number(), capability.name().to_owned())).collect();
    let header = header();
    assert_eq!(header.difference(&table).collect::<Vec<_>>(), Vec::<&(u32, String)>::new(), "missing in the table");
    assert_eq!(table.difference(&header).collect::<Vec<_>>(), Vec::<&(u32, String)>::new(), "not in the header");
    assert_eq!(table.len(), Capability::ALL.len(), "a capability stands twice");
}

#[test]
fn the_facades_union_is_the_table() {
    let path = root().join("ts/generated/capabilities.ts");
    if std::env::var_os("TYPEVISOR_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, union()).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == union(), "{} is stale: run this test once with TYPEVISOR_BLESS=1", path.display());
}
