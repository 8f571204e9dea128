//! The huge pages that this machine has set aside, as `/sys/kernel/mm/hugepages` tells (Documentation/admin-guide/mm/
//! hugetlbpage.rst).

use std::{fs, path::Path};

const FOLDER: &str = "/sys/kernel/mm/hugepages";

/// The sizes that the running kernel has, in bytes, smallest first; none without hugetlb.
pub(crate) fn sizes() -> Vec<u64> {
    let names = fs::read_dir(FOLDER).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut sizes: Vec<_> = names.filter_map(|name| size_of_name(name.to_str()?)).collect();
    sizes.sort_unstable();
    sizes
}

/// How many pages of one size there are, and of these free for new mappings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pool {
    pub(crate) total: u64,
    pub(crate) free: u64,
}

/// The pages of `page_size` bytes; none where the kernel does not tell.
pub(crate) fn pool(page_size: u64) -> Pool {
    pool_in(&Path::new(FOLDER).join(format!("hugepages-{}kB", page_size >> 10)))
}

fn pool_in(folder: &Path) -> Pool {
    let count =
        |name| fs::read_to_string(folder.join(name)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0_u64);
    // Reserved ones are free as long as nobody touches them, and yet somebody's.
    Pool { total: count("nr_hugepages"), free: count("free_hugepages").saturating_sub(count("resv_hugepages")) }
}

/// `hugepages-2048kB` is 2 MiB.
fn size_of_name(name: &str) -> Option<u64> {
    let kibibytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    kibibytes.checked_mul(1 << 10).filter(|size| size.is_power_of_two())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_s_name_is_its_page_size() {
        assert_eq!(size_of_name("hugepages-2048kB"), Some(2 << 20));
        assert_eq!(size_of_name("hugepages-1048576kB"), Some(1 << 30));
        for other in ["hugepages-3kB", "hugepages-kB", "hugepages-2048", "2048kB", "hugepages-99999999999999999kB"] {
            assert_eq!(size_of_name(other), None, "{other}");
        }
    }

    #[test]
    fn sizes_grow_and_those_that_are_not_there_have_no_pages() {
        assert!(sizes().windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(pool(12345), Pool { total: 0, free: 0 });
    }

    #[test]
    fn a_page_that_somebody_has_reserved_is_not_free() {
        let folder = std::env::temp_dir().join(format!("typevisor-pool-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let counts = [("nr_hugepages", "9\n"), ("free_hugepages", "7\n"), ("resv_hugepages", "3\n")];
        for (name, count) in counts {
            fs::write(folder.join(name), count).unwrap();
        }
        let pool = pool_in(&folder);
        fs::write(folder.join("resv_hugepages"), "8").unwrap(); // read a moment later than the one above
        let overtaken = pool_in(&folder);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(pool, Pool { total: 9, free: 4 });
        assert_eq!(overtaken, Pool { total: 9, free: 0 });
    }
}
