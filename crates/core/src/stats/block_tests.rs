use proptest::prelude::*;

use super::*;

/// A descriptor's contents, as the structs of the header lay them out: header, id, descriptors, data.
struct Block {
    name_size: usize,
    stats: Vec<(u32, i16, u32, &'static str, Vec<u64>)>,
}

const ID: &str = "kvm-1/vcpu-0";

impl Block {
    fn bytes(&self) -> Vec<u8> {
        let id_at = 24;
        let descriptors_at = id_at + self.name_size;
        let data_at = descriptors_at + self.stats.len() * (DESCRIPTOR + self.name_size);
        let mut bytes = Vec::new();
        for field in [0, self.name_size, self.stats.len(), id_at, descriptors_at, data_at] {
            bytes.extend(u32::try_from(field).unwrap().to_le_bytes());
        }
        bytes.extend(self.padded(ID));
        let mut at = 0;
        for (flags, exponent, bucket_size, name, values) in &self.stats {
            bytes.extend(flags.to_le_bytes());
            bytes.extend(exponent.to_le_bytes());
            bytes.extend(u16::try_from(values.len()).unwrap().to_le_bytes());
            bytes.extend(u32::try_from(at).unwrap().to_le_bytes());
            bytes.extend(bucket_size.to_le_bytes());
            bytes.extend(self.padded(name));
            at += values.len() * 8;
        }
        bytes.extend(self.stats.iter().flat_map(|stat| &stat.4).flat_map(|value| value.to_le_bytes()));
        bytes
    }

    fn padded(&self, text: &str) -> Vec<u8> {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(self.name_size, 0);
        bytes
    }
}

fn block() -> Block {
    let stats = vec![
        (0x000, 0, 0, "exits", vec![1000]),
        (0x111, 20, 0, "pages", vec![u64::MAX]),
        (0x022, -9, 0, "wait_ns", vec![5]),
        (0x033, 0, 4, "chain", vec![1, 2, 3]),
        (0x024, -9, 0, "poll_ns", vec![4, 5]),
        (0x041, 0, 0, "blocking", vec![1]),
    ];
    Block { name_size: 48, stats }
}

fn stat(name: &str, kind: StatKind, unit: StatUnit, (base, exponent): (StatBase, i16), values: &[u64]) -> KvmStat {
    KvmStat { name: name.into(), kind, unit, base, exponent, values: values.into() }
}

#[test]
fn each_statistic_has_its_name_kind_unit_scale_and_values() {
    let ten = |exponent| (StatBase::Ten, exponent);
    let stats = parse(&block().bytes()).unwrap();
    let expected = [
        stat("exits", StatKind::Cumulative, StatUnit::None, ten(0), &[1000]),
        stat("pages", StatKind::Instant, StatUnit::Bytes, (StatBase::Two, 20), &[u64::MAX]),
        stat("wait_ns", StatKind::Peak, StatUnit::Seconds, ten(-9), &[5]),
        stat("chain", StatKind::LinearHistogram { bucket_size: 4 }, StatUnit::Cycles, ten(0), &[1, 2, 3]),
        stat("poll_ns", StatKind::LogHistogram, StatUnit::Seconds, ten(-9), &[4, 5]),
        stat("blocking", StatKind::Instant, StatUnit::Boolean, ten(0), &[1]),
    ];
    assert_eq!(*stats.id, *ID);
    assert_eq!(*stats.all, expected);
    assert_eq!(stats.get("wait_ns"), Some(&expected[2]));
    assert_eq!(stats.get("wait"), None);
}

#[test]
fn names_are_those_of_the_facade() {
    let kinds: Vec<_> = parse(&block().bytes()).unwrap().all.iter().map(|stat| stat.kind.name()).collect();
    assert_eq!(kinds, ["cumulative", "instant", "peak", "linear-hist", "log-hist", "instant"]);
    let units: Vec<_> = parse(&block().bytes()).unwrap().all.iter().map(|stat| stat.unit.name()).collect();
    assert_eq!(units, ["none", "bytes", "seconds", "cycles", "seconds", "boolean"]);
    assert_eq!((StatKind::Unknown.name(), StatUnit::Unknown.name()), ("unknown", "unknown"));
}

#[test]
fn what_a_newer_kernel_says_is_unknown_and_its_values_stay() {
    let stats =
        vec![(0x255, 1, 2, "new", vec![1, 2]), (0x000, 0, 0, "many", vec![3, 4]), (0x001, 0, 0, "none", vec![])];
    let parsed = parse(&Block { name_size: 16, stats }.bytes()).unwrap();
    let ten = (StatBase::Ten, 0);
    let expected = [
        stat("new", StatKind::Unknown, StatUnit::Unknown, (StatBase::Unknown, 1), &[1, 2]),
        stat("many", StatKind::Unknown, StatUnit::None, ten, &[3, 4]),
        stat("none", StatKind::Unknown, StatUnit::None, ten, &[]),
    ];
    assert_eq!(*parsed.all, expected);
}

#[test]
fn a_name_that_fills_its_field_has_no_end() {
    let stats = vec![(0, 0, 0, "twelve_chars", vec![1])];
    let parsed = parse(&Block { name_size: 12, stats }.bytes()).unwrap();
    assert_eq!((&*parsed.id, &*parsed.all[0].name), (ID, "twelve_chars"));
}

#[test]
fn one_byte_less_is_refused() {
    let bytes = block().bytes();
    for len in 0..bytes.len() {
        assert_eq!(parse(&bytes[..len]), None, "{len}");
    }
}

#[test]
fn values_that_are_told_of_twice_are_refused() {
    let mut bytes = block().bytes();
    let second = 24 + 48 + 64;
    // As many values as there are, from the first on, besides the others.
    bytes[second + 6] = 9;
    bytes[second + 8] = 0;
    assert_eq!(parse(&bytes), None);
}

/// Fields of a header whose places are near what there is, and descriptors of any content.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let near = prop_oneof![0_u32..600, any::<u32>()];
    (prop::array::uniform6(near), prop::collection::vec(any::<u8>(), 0..600)).prop_map(|(fields, rest)| {
        let mut bytes: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
        bytes.extend(rest);
        bytes
    })
}

proptest! {
    #[test]
    fn any_bytes_are_stats_or_refused_and_allocate_no_more_than_they_are(
        bytes in prop_oneof![hostile(), prop::collection::vec(any::<u8>(), 0..200)],
    ) {
        if let Some(stats) = parse(&bytes) {
            let values: usize = stats.all.iter().map(|stat| stat.values.len() * 8).sum();
            prop_assert!(values <= bytes.len());
            prop_assert!(stats.all.len() * DESCRIPTOR <= bytes.len());
        }
    }

    #[test]
    fn a_kernels_block_with_one_changed_byte_is_stats_or_refused(at in 0_usize..700, byte in any::<u8>()) {
        let mut bytes = block().bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Some(stats) = parse(&bytes) {
            let values: usize = stats.all.iter().map(|stat| stat.values.len() * 8).sum();
            prop_assert!(values <= bytes.len());
        }
    }
}
