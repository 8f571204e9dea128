//! What messages of errors are made of.

use std::fmt;

/// `1 byte`, `2 bytes`.
pub(crate) struct Bytes(pub(crate) usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count) = self;
        if *count == 1 { f.write_str("1 byte") } else { write!(f, "{count} bytes") }
    }
}

/// Processors by the kernel's numbers, printed as the kernel does: `0-3,8`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpus(pub(crate) Vec<u32>);

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stretches = self.0.chunk_by(|one, next| one + 1 == *next);
        for (index, stretch) in stretches.enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match stretch {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [one] => write!(f, "{comma}{one}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_read_as_the_kernel_writes_them() {
        let words = |cpus: &[u32]| Cpus(cpus.to_vec()).to_string();
        assert_eq!(words(&[0, 1, 2, 3, 8, 10, 11]), "0-3,8,10-11");
        assert_eq!((words(&[5]), words(&[])), ("5".into(), String::new()));
    }
}
