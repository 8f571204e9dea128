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

use typevisor::{
    Errno, Exit,
    exit::{Abi, RunBytes, decode_exit},
    host::Capability,
};

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

/// Exits that neither x86_64 nor aarch64 raises, and whose they are: they stay `unknown`, with their bytes.
const ELSEWHERE: [(&str, &str); 13] = [
    ("KVM_EXIT_S390_SIEIC", "s390"),
    ("KVM_EXIT_S390_RESET", "s390"),
    ("KVM_EXIT_DCR", "powerpc, deprecated"),
    ("KVM_EXIT_OSI", "powerpc"),
    ("KVM_EXIT_PAPR_HCALL", "powerpc"),
    ("KVM_EXIT_S390_UCONTROL", "s390"),
    ("KVM_EXIT_WATCHDOG", "powerpc"),
    ("KVM_EXIT_S390_TSCH", "s390"),
    ("KVM_EXIT_EPR", "powerpc"),
    ("KVM_EXIT_S390_STSI", "s390"),
    ("KVM_EXIT_RISCV_SBI", "riscv"),
    ("KVM_EXIT_RISCV_CSR", "riscv"),
    ("KVM_EXIT_LOONGARCH_IOCSR", "loongarch"),
];

/// The exit of a page with that reason, as if `KVM_RUN` had failed where the header says that it fails.
fn decoded(name: &str, number: u32) -> Exit {
    let mut page = [0_u8; 8192];
    page[8..12].copy_from_slice(&number.to_le_bytes());
    match name {
        // A byte that is written to port 0; its data lie in the second page.
        "KVM_EXIT_IO" => page[32..42].copy_from_slice(&[1, 1, 0, 0, 1, 0, 0, 0, 0, 16]),
        // One byte is read.
        "KVM_EXIT_MMIO" => page[48] = 1,
        _ => {}
    }
    let errno = (name == "KVM_EXIT_MEMORY_FAULT").then_some(Errno(libc::EFAULT));
    decode_exit(RunBytes::of_page(&page), errno, Abi::newest())
}

#[test]
fn every_exit_of_the_header_is_decoded_or_another_architectures() {
    let list = list("exits.txt");
    let elsewhere = BTreeMap::from(ELSEWHERE);
    for (name, number) in &list {
        let exit = decoded(name, *number);
        let short = name.strip_prefix("KVM_EXIT_").unwrap();
        let kind = short.strip_prefix("X86_").unwrap_or(short).to_ascii_lowercase().replace('_', "-");
        if elsewhere.contains_key(name.as_str()) {
            assert!(matches!(exit, Exit::Unknown { reason, .. } if reason == *number), "{name} became {exit:?}");
        } else {
            assert_eq!(exit.kind(), kind, "{name}: decode it, or say in this test whose it is");
        }
    }
    let gone: Vec<_> = elsewhere.keys().filter(|name| !list.contains_key(**name)).collect();
    assert!(gone.is_empty(), "not in the header: {gone:?}");
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
    assert_eq!(found, 12, "requests in sys/ioctl.rs");
}

/// `Exit` is non-exhaustive, so the bridge's `match` has an arm for the rest, which loses what it does not know.
#[test]
fn the_bridge_knows_every_exit() {
    let text = fs::read_to_string(root().join("crates/core/src/exit/kind.rs")).unwrap();
    let (_, kinds) = text.split_once("\nkinds! {\n").unwrap();
    let (kinds, _) = kinds.split_once('}').unwrap();
    let exits = kinds.lines().map(|line| line.rsplit_once(": ").unwrap().1.trim_end_matches(';'));
    let variants: BTreeSet<_> = exits.flat_map(|exits| exits.split(" | ")).collect();
    let bridge = fs::read_to_string(root().join("crates/node/src/exit.rs")).unwrap();
    assert!(variants.len() >= 33, "{variants:?}");
    for variant in variants {
        let named = [' ', '('].iter().any(|end| bridge.contains(&format!(" Exit::{variant}{end}")));
        assert!(named, "crates/node/src/exit.rs lacks Exit::{variant}");
    }
}
