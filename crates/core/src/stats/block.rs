//! The bytes of a statistics descriptor as values: api.rst 4.133. Pure; whose bytes they are is `source`'s.

/// What KVM counts of a VM or a vCPU. Which statistics there are depends on the kernel and its architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KvmStats {
    /// Whose they are, in the kernel's words: `kvm-1234`, or `kvm-1234/vcpu-0`.
    pub id: Box<str>,
    /// In the kernel's order.
    pub all: Box<[KvmStat]>,
}

impl KvmStats {
    /// The one called so, as `exits`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&KvmStat> {
        self.all.iter().find(|stat| *stat.name == *name)
    }
}

/// One of KVM's statistics. Its unit is `unit` times `base` to the power of `exponent`: seconds, base 10 and exponent -9 are
/// nanoseconds. In histograms it is that of the buckets' bounds; their values are numbers of samples.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KvmStat {
    /// The kernel's name of it.
    pub name: Box<str>,
    /// How its value moves.
    pub kind: StatKind,
    /// What is counted.
    pub unit: StatUnit,
    /// Base of the unit's scale.
    pub base: StatBase,
    /// Exponent of the unit's scale.
    pub exponent: i16,
    /// One value, or one a bucket.
    pub values: Box<[u64]>,
}

/// How a statistic moves (`KVM_STATS_TYPE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatKind {
    /// It only grows.
    Cumulative,
    /// It is as it is now.
    Instant,
    /// The highest so far.
    Peak,
    /// Samples by size: each bucket is `bucket_size` wide, and the last has no end.
    LinearHistogram {
        /// In the statistic's unit.
        bucket_size: u32,
    },
    /// Samples by size: less than 1, less than 2, less than 4 and so on; the last bucket has no end.
    LogHistogram,
    /// A kind that this version does not know, or one that should have a single value and has not.
    Unknown,
}

impl StatKind {
    /// The name as TypeScript has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cumulative => "cumulative",
            Self::Instant => "instant",
            Self::Peak => "peak",
            Self::LinearHistogram { .. } => "linear-hist",
            Self::LogHistogram => "log-hist",
            Self::Unknown => "unknown",
        }
    }
}

/// What a statistic counts (`KVM_STATS_UNIT_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatUnit {
    /// Events, or whatever its name says.
    None,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Cycles of the processor.
    Cycles,
    /// 0 or 1.
    Boolean,
    /// One that this version does not know.
    Unknown,
}

impl StatUnit {
    /// The name as TypeScript has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
            Self::Cycles => "cycles",
            Self::Boolean => "boolean",
            Self::Unknown => "unknown",
        }
    }
}

/// Base of a statistic's scale (`KVM_STATS_BASE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatBase {
    /// 10, of time and cycles.
    Ten,
    /// 2, of sizes.
    Two,
    /// One that this version does not know.
    Unknown,
}

/// `struct kvm_stats_header` without `flags`, which are not used.
struct Header {
    /// Bytes of every name, its end included.
    name_size: usize,
    descriptors: usize,
    id_at: usize,
    descriptors_at: usize,
    data_at: usize,
}

/// Bytes of a descriptor before its name.
const DESCRIPTOR: usize = 16;
const VALUE: usize = size_of::<u64>();

/// The whole of what such a descriptor reads as. None where it contradicts itself: every place that it names has to be in
/// it, and its parts may not be more together than it is. So its size bounds what is allocated.
pub(crate) fn parse(bytes: &[u8]) -> Option<KvmStats> {
    let header = header(bytes)?;
    let id = text(slice(bytes, header.id_at, header.name_size)?);
    let stride = DESCRIPTOR.checked_add(header.name_size)?;
    let described = slice(bytes, header.descriptors_at, stride.checked_mul(header.descriptors)?)?;
    let data = bytes.get(header.data_at..)?;
    // Parts may overlap in what is no kernel's: the values that there can be are counted.
    let mut left = data.len() / VALUE;
    let all = described.chunks_exact(stride).map(|one| stat(one, data, &mut left)).collect::<Option<_>>()?;
    Some(KvmStats { id, all })
}

fn header(bytes: &[u8]) -> Option<Header> {
    let field = |index: usize| usize::try_from(word(bytes, index * size_of::<u32>())?).ok();
    Some(Header {
        name_size: field(1)?,
        descriptors: field(2)?,
        id_at: field(3)?,
        descriptors_at: field(4)?,
        data_at: field(5)?,
    })
}

/// `struct kvm_stats_desc` and its name. `left` values may be taken, of this one and those that follow.
fn stat(descriptor: &[u8], data: &[u8], left: &mut usize) -> Option<KvmStat> {
    let (flags, at, bucket_size) = (word(descriptor, 0)?, word(descriptor, 8)?, word(descriptor, 12)?);
    let exponent = i16::from_le_bytes(array(descriptor, 4)?);
    let count = usize::from(u16::from_le_bytes(array(descriptor, 6)?));
    *left = left.checked_sub(count)?;
    let (values, _) = slice(data, usize::try_from(at).ok()?, count * VALUE)?.as_chunks();
    Some(KvmStat {
        name: text(descriptor.get(DESCRIPTOR..)?),
        kind: kind(flags, count, bucket_size),
        unit: unit(flags),
        base: base(flags),
        exponent,
        values: values.iter().copied().map(u64::from_le_bytes).collect(),
    })
}

const fn kind(flags: u32, count: usize, bucket_size: u32) -> StatKind {
    match (flags & 0xf, count) {
        (0, 1) => StatKind::Cumulative,
        (1, 1) => StatKind::Instant,
        (2, 1) => StatKind::Peak,
        (3, _) => StatKind::LinearHistogram { bucket_size },
        (4, _) => StatKind::LogHistogram,
        _ => StatKind::Unknown,
    }
}

const fn unit(flags: u32) -> StatUnit {
    match (flags >> 4) & 0xf {
        0 => StatUnit::None,
        1 => StatUnit::Bytes,
        2 => StatUnit::Seconds,
        3 => StatUnit::Cycles,
        4 => StatUnit::Boolean,
        _ => StatUnit::Unknown,
    }
}

const fn base(flags: u32) -> StatBase {
    match (flags >> 8) & 0xf {
        0 => StatBase::Ten,
        1 => StatBase::Two,
        _ => StatBase::Unknown,
    }
}

fn slice(bytes: &[u8], at: usize, size: usize) -> Option<&[u8]> {
    bytes.get(at..at.checked_add(size)?)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    slice(bytes, at, N)?.try_into().ok()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

/// Up to the first 0.
fn text(bytes: &[u8]) -> Box<str> {
    let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or(bytes)).into()
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
