//! Capabilities as values: name, number, meaning and first kernel of each. The data is `capability_table.rs`, the
//! answers of a running kernel are `probe.rs`. Rules: api.rst 4.4 (`KVM_CHECK_EXTENSION`).

use std::fmt;

/// What the table says of a capability.
pub(super) struct Info {
    pub(super) name: &'static str,
    pub(super) number: u32,
    pub(super) since: &'static str,
    pub(super) meaning: &'static str,
}

/// Declares every capability once: the enum, the list of all and what is known of each.
macro_rules! capabilities {
    ($($variant:ident = $number:literal, $name:literal, $since:expr, $meaning:literal;)+) => {
        /// A capability of the newest kernel header; see [`Capability::meaning`] for what its value says.
        ///
        /// ```
        /// use typevisor::host::Capability;
        /// let slots = Capability::from_name("nr-memslots");
        /// assert_eq!(slots, Some(Capability::NrMemslots));
        /// assert_eq!(Capability::GuestMemfd.since(), "6.8");
        /// ```
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Capability {
            $(#[doc = concat!("`", $name, "`: ", $meaning, ".")] $variant,)+
        }

        impl Capability {
            /// Every capability, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            pub(super) const fn info(self) -> &'static Info {
                match self {
                    $(Self::$variant => &Info { name: $name, number: $number, since: $since, meaning: $meaning },)+
                }
            }
        }
    };
}
pub(super) use capabilities;

pub use super::capability_table::Capability;

impl Capability {
    /// Name in kebab-case, without `KVM_CAP_`: `guest-memfd`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    /// Number in the kernel's header.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.info().number
    }

    /// First kernel release whose header has it, as `6.8`; `5.10 or earlier` for what our floor has already. An
    /// architecture may have followed later: the running kernel decides, this is for messages.
    #[must_use]
    pub const fn since(self) -> &'static str {
        self.info().since
    }

    /// What the value means that the kernel returns, in one line. 0 always means: not there.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        self.info().meaning
    }

    /// The capability called `name` (kebab-case).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|capability| capability.name() == name)
    }

    /// Place in [`Capability::ALL`], which is in order of number and hence of declaration.
    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_in_order_of_number_and_of_index() {
        for (index, pair) in Capability::ALL.windows(2).enumerate() {
            assert!(pair[0].number() < pair[1].number(), "{} before {}", pair[0], pair[1]);
            assert_eq!(pair[0].index(), index);
        }
    }

    #[test]
    fn since_grows_with_the_number_but_for_the_reserved_one() {
        let key = |since: &str| -> (u32, u32) {
            let digits = since.split(' ').next().unwrap();
            let (major, minor) = digits.split_once('.').unwrap();
            (major.parse().unwrap(), minor.parse().unwrap())
        };
        let mut newest = (0, 0);
        for capability in Capability::ALL {
            // 5.18 reserved this number in a comment; 5.19 has it.
            if *capability == Capability::VmTscControl {
                continue;
            }
            assert!(key(capability.since()) >= newest, "{capability}");
            newest = key(capability.since());
        }
    }

    #[test]
    fn every_meaning_is_one_line_that_says_something() {
        for capability in Capability::ALL {
            let meaning = capability.meaning();
            assert!(meaning.len() > 8 && !meaning.contains('\n') && !meaning.ends_with('.'), "{capability}");
        }
    }
}
