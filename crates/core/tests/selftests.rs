//! Completeness is a diff: our ports of the kernel's selftests against the lists of cases that were extracted from their
//! source (`scripts/extract-selftest-cases.mjs`). That the lists are still those of the source is checked in tier full.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, path::PathBuf};

/// What became of a case.
enum Port {
    /// The title of our test, in `tests/kvm/`.
    Test(&'static str),
    /// Why there is none.
    Absent(&'static str),
}

/// By the name of the function in C.
const SET_MEMORY_REGION: &[(&str, Port)] = &[
    ("test_zero_memory_regions", Port::Test("set_memory_region: a vCPU without memory is an internal error")),
    (
        "test_mmio_during_vectoring",
        Port::Test("set_memory_region: an event whose gate is not in memory is an internal error with its address"),
    ),
    ("test_invalid_memory_region_flags", Port::Test("set_memory_region: flags that no slot has are refused")),
    ("test_add_max_memory_regions", Port::Test("set_memory_region: as many slots as KVM says, and not one more")),
    ("test_add_private_memory_region", Port::Absent(PRIVATE)),
    ("test_add_overlapping_private_memory_regions", Port::Absent(PRIVATE)),
    (
        "test_move_memory_region",
        Port::Test("set_memory_region: a slot in use moves, and the guest reads old, none or new"),
    ),
    (
        "test_delete_memory_region",
        Port::Test("set_memory_region: a slot in use goes and comes back; without its code the guest ends"),
    ),
];

const PRIVATE: &str = "private memory: slots of a software-protected VM, which the core does not make yet";

fn read(path: &str) -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The first word of each line, comments apart; an architecture may follow.
fn extracted(list: &str) -> BTreeSet<String> {
    let text = read(list);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn every_case_of_set_memory_region_test_has_a_test_or_a_reason() {
    let table: BTreeSet<_> = SET_MEMORY_REGION.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(table.len(), SET_MEMORY_REGION.len(), "a case stands twice");
    assert_eq!(extracted("selftests/set_memory_region_test.txt"), table, "the list and this table");
}

#[test]
fn what_the_table_names_is_there() {
    let source = read("tests/kvm/set_memory_region.rs");
    for (name, port) in SET_MEMORY_REGION {
        match port {
            Port::Test(title) => assert!(source.contains(&format!("\"{title}\"")), "{name}: no test \"{title}\""),
            Port::Absent(reason) => assert!(reason.contains(' '), "{name}: a reason is a sentence"),
        }
    }
}
