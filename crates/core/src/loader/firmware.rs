//! Firmware for x86: an image that ends at 4 GiB, where the processor takes its first instruction (Intel SDM, volume 3,
//! "First Instruction Executed"), and a copy of its end below 1 MiB, where 16-bit code runs. Why it is as it is:
//! docs/design/boot.md.

use crate::{
    error::{Error, Result},
    memory::{GuestMemory, MapOptions},
    range::{GpaRange, PAGE_SIZE},
};

/// Smallest image, in bytes: one segment of real mode, which the reset vector lies at the end of.
const SMALLEST: u64 = 64 << 10;

/// Largest image, in bytes. What KVM needs for itself on older processors lies right below (see `vcpu::arch`).
pub(crate) const LARGEST: u64 = 16 << 20;

/// End of the image: the first instruction is fetched 16 bytes below.
const ROM_END: u64 = 1 << 32;

/// End of the copy.
const SHADOW_END: u64 = 1 << 20;

/// Largest copy, in bytes: from `0xc_0000` on, all that a PC's chipset lets firmware copy itself to. There is no such
/// chipset here, and SeaBIOS' larger build (256 KiB) has code at `0xd_0000` that it takes for granted.
const SHADOW_LARGEST: u64 = 256 << 10;

/// Bytes at the end of the image from which the processor starts.
const RESET_VECTOR: usize = 16;

/// Where [`crate::Vm::load_firmware`] has put an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FirmwareLayout {
    /// The image, in a slot of its own that the guest may only read; it ends at 4 GiB.
    pub rom: GpaRange,
    /// The copy of its last 256 KiB, or of all of it where it is smaller, in RAM; it ends at 1 MiB.
    pub shadow: GpaRange,
}

/// Maps `image` read-only so that it ends at 4 GiB and copies its last 256 KiB to end at 1 MiB, where RAM has to be
/// mapped. A vCPU that was not booted otherwise starts in it, at the reset vector `0xffff_fff0`.
///
/// # Errors
/// [`Error::GuestImage`], [`Error::FirmwareRam`] (no RAM below 1 MiB), those of [`GuestMemory::map`]. Nothing has
/// changed then.
pub(crate) fn load_firmware(memory: &GuestMemory, image: &[u8]) -> Result<FirmwareLayout> {
    let (layout, tail) = plan(image)?;
    let rom = memory.map(&MapOptions { readonly: true, ..MapOptions::new(layout.rom) })?;
    let written = memory.write(layout.rom.gpa(), image).and_then(|()| copy_below_1_mib(memory, layout.shadow, tail));
    if let Err(error) = written {
        rom.unmap()?;
        return Err(error);
    }
    Ok(layout)
}

fn copy_below_1_mib(memory: &GuestMemory, shadow: GpaRange, tail: &[u8]) -> Result<()> {
    memory.write(shadow.gpa(), tail).map_err(|error| match error {
        Error::MemoryHole { gpa, range } => Error::FirmwareRam { gpa, range },
        other => other,
    })
}

/// Where `image` goes, and the part of it that goes below 1 MiB as well.
fn plan(image: &[u8]) -> Result<(FirmwareLayout, &[u8])> {
    let refuse = |why| Err(Error::GuestImage { why });
    let size = image.len() as u64;
    if size < SMALLEST {
        return refuse("firmware has at least 64 KiB");
    }
    if size > LARGEST {
        return refuse("firmware has at most 16 MiB");
    }
    // Not a power of two: OVMF's code without its variables has 3,568 KiB.
    if !size.is_multiple_of(PAGE_SIZE) {
        return refuse("firmware is a multiple of 4 KiB");
    }
    let start = image.last_chunk::<RESET_VECTOR>();
    if start.is_none_or(|start| start == &[0; RESET_VECTOR] || start == &[0xff; RESET_VECTOR]) {
        return refuse(
            "its last 16 bytes, where the processor starts, are empty: no firmware, or not the part with the code",
        );
    }
    let shadow = size.min(SHADOW_LARGEST);
    // At most 256 KiB, and no more than the image.
    let skipped = usize::try_from(size - shadow).unwrap_or(0);
    let layout = FirmwareLayout {
        rom: GpaRange::pages(ROM_END - size, size)?,
        shadow: GpaRange::pages(SHADOW_END - shadow, shadow)?,
    };
    Ok((layout, image.get(skipped..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;

    /// Each page begins with its number; the rest is a jump to itself.
    fn image(size: usize) -> Vec<u8> {
        let mut image: Vec<u8> = [0xeb, 0xfe].into_iter().cycle().take(size).collect();
        for (number, page) in (0_u16..).zip(image.chunks_exact_mut(4 * KIB)) {
            page[..2].copy_from_slice(&number.to_le_bytes());
        }
        image
    }

    fn places(size: usize) -> (GpaRange, GpaRange, Vec<u8>) {
        let image = image(size);
        let (layout, tail) = plan(&image).unwrap();
        (layout.rom, layout.shadow, tail.to_vec())
    }

    fn range(gpa: u64, end: u64) -> GpaRange {
        GpaRange::pages(gpa, end - gpa).unwrap()
    }

    #[test]
    fn the_image_ends_at_4_gib_and_its_copy_at_1_mib() {
        for size in [64, 68, 128, 256] {
            let bytes = size as u64 * 1024;
            let expected = (range(ROM_END - bytes, ROM_END), range(SHADOW_END - bytes, SHADOW_END), image(size * KIB));
            assert_eq!(places(size * KIB), expected);
        }
    }

    #[test]
    fn of_a_large_image_the_last_256_kib_are_copied() {
        for size in [260 * KIB, 3568 * KIB, 16 << 20] {
            let (rom, shadow, tail) = places(size);
            assert_eq!((rom.size(), rom.end()), (size as u64, ROM_END));
            assert_eq!(shadow, range(0xc_0000, 0x10_0000));
            assert_eq!(tail, image(size)[size - 256 * KIB..]);
        }
    }

    #[test]
    fn what_is_no_firmware_is_refused() {
        let bad = [
            Vec::new(),
            image(60 * KIB),
            image((16 << 20) + 4 * KIB),
            image(64 * KIB + 1),
            vec![0; 64 * KIB],
            vec![0xff; 64 * KIB],
        ];
        for image in bad {
            assert!(matches!(plan(&image), Err(Error::GuestImage { .. })), "{} bytes", image.len());
        }
    }
}
