//! Completeness is a diff: the capability table against the list extracted from the newest kernel header, and the
//! facade's generated union against the table; and the exits and requests that the code names against those lists.
//! `TYPEVISOR_BLESS=1 cargo test -p typevisor --test header` rewrites it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::PathBuf,
};

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

/// Name and number of each line of a list, and whatever follows.
fn list(name: &str) -> BTreeMap<String, u32> {
    let text = fs::read_to_string(root().join("crates/core/header").join(name)).unwrap();
    let number = |word: &str| match word.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).unwrap(),
        None => word.parse().unwrap(),
    };
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut words = line.split(' ');
            (words.next().unwrap().to_owned(), number(words.next().unwrap()))
        })
        .collect()
}

/// The words of a source that begin with `prefix`.
fn words(path: &str, prefix: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(path)).unwrap();
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.split(|letter| !is_word(letter)).filter(|word| word.starts_with(prefix)).map(str::to_owned).collect()
}

#[test]
fn exits_that_are_decoded_have_the_headers_numbers() {
    use kvm_bindings as k;

    let list = list("exits.txt");
    let known = BTreeMap::from([
        ("KVM_EXIT_IO", k::KVM_EXIT_IO),
        ("KVM_EXIT_MMIO", k::KVM_EXIT_MMIO),
        ("KVM_EXIT_HLT", k::KVM_EXIT_HLT),
        ("KVM_EXIT_INTR", k::KVM_EXIT_INTR),
        ("KVM_EXIT_SHUTDOWN", k::KVM_EXIT_SHUTDOWN),
        ("KVM_EXIT_FAIL_ENTRY", k::KVM_EXIT_FAIL_ENTRY),
        ("KVM_EXIT_INTERNAL_ERROR", k::KVM_EXIT_INTERNAL_ERROR),
        ("KVM_EXIT_SYSTEM_EVENT", k::KVM_EXIT_SYSTEM_EVENT),
    ]);
    for (name, number) in &known {
        assert_eq!(list.get(*name), Some(number), "{name}");
    }
    let mut decoded = words("crates/core/src/exit/decode.rs", "KVM_EXIT_");
    // The directions of an I/O exit.
    decoded.retain(|name| !matches!(name.as_str(), "KVM_EXIT_IO_IN" | "KVM_EXIT_IO_OUT"));
    assert_eq!(decoded, known.keys().map(|name| (*name).to_owned()).collect(), "decode.rs and this test");
}

#[test]
fn requests_have_the_headers_numbers() {
    let list = list("ioctls.txt");
    let text = fs::read_to_string(root().join("crates/core/src/sys/ioctl.rs")).unwrap();
    let mut found = 0;
    for definition in text.split("pub(crate) const KVM_").skip(1) {
        let (name, rest) = definition.split_once(':').unwrap();
        let (call, _) = rest.split_once(';').unwrap();
        let number = call.rsplit_once("0x").unwrap().1.trim_end_matches(')');
        let name = format!("KVM_{name}");
        assert_eq!(list.get(&name), Some(&u32::from_str_radix(number, 16).unwrap()), "{name}");
        found += 1;
    }
    assert_eq!(found, 8, "requests in sys/ioctl.rs");
}

/// `Exit` is non-exhaustive, so the bridge's `match` has an arm for the rest, which loses what it does not know.
#[test]
fn the_bridge_knows_every_exit() {
    let text = fs::read_to_string(root().join("crates/core/src/exit/mod.rs")).unwrap();
    let (_, kinds) = text.split_once("pub const fn kind(&self)").unwrap();
    let variants: BTreeSet<_> =
        kinds.split("Self::").skip(1).map(|rest| rest.split([' ', '\n']).next().unwrap()).collect();
    let bridge = fs::read_to_string(root().join("crates/node/src/exit.rs")).unwrap();
    assert!(variants.len() >= 11, "{variants:?}");
    for variant in variants {
        assert!(bridge.contains(&format!("Exit::{variant} ")), "crates/node/src/exit.rs lacks Exit::{variant}");
    }
}
