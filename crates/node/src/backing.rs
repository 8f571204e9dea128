//! What to map, and what stands behind it: what JavaScript asks for, as what the core takes.
#![expect(unsafe_code, reason = "the memory of a SharedArrayBuffer, and a descriptor of the program's")]

use std::{
    fs::{File, OpenOptions},
    os::{fd::BorrowedFd, unix::fs::OpenOptionsExt},
    path::PathBuf,
    ptr::{self, NonNull},
    sync::Arc,
};

use napi::{
    bindgen_prelude::{FromNapiValue, Reference, Uint8Array},
    check_status, sys,
};
use napi_derive::napi;
use typevisor::{
    Error, GpaRange, Result,
    memory::{Backing, FileSharing, HostBuffer, MapOptions},
};

use crate::{
    convert::{unsigned, unsigned_u32},
    memory::NativeSlot,
};

/// `map`'s argument.
#[napi(object, object_to_js = false, use_nullable = true)]
pub struct NativeMapOptions {
    pub gpa: i64,
    pub size: i64,
    pub readonly: bool,
    pub slot: Option<i64>,
    pub address_space: Option<i64>,
    pub transparent_huge_pages: bool,
    pub backing: NativeBacking,
}

/// `NativeBacking` in ts/native.ts.
#[napi(discriminant = "kind", discriminant_case = "kebab-case", object_to_js = false, use_nullable = true)]
pub enum NativeBacking {
    Anonymous,
    Memfd,
    GuestMemfd,
    Hugetlb {
        page_size: i64,
    },
    Path {
        path: String,
        offset: i64,
        shared: bool,
    },
    Fd {
        fd: i32,
        offset: i64,
        shared: bool,
    },
    Buffer {
        #[napi(ts_type = "Uint8Array")]
        bytes: SharedBytes,
    },
    Share {
        slot: Reference<NativeSlot>,
        offset: i64,
    },
}

/// What to map, as far as it can be told without waiting for a file system: free of JavaScript and its thread.
pub(crate) struct Wanted {
    /// The backing is in `source`.
    options: MapOptions,
    source: Source,
}

enum Source {
    Known(Backing),
    Path { path: PathBuf, offset: u64, sharing: FileSharing },
}

impl Wanted {
    /// Converts; a descriptor is duplicated here, as the program may close its own any time later.
    pub(crate) fn new(options: NativeMapOptions) -> Result<Self> {
        let range = GpaRange::pages(unsigned("gpa", options.gpa)?, unsigned("size", options.size)?)?;
        let source = source(options.backing)?;
        let options = MapOptions {
            readonly: options.readonly,
            slot: options.slot.map(|slot| unsigned_u32("slot", slot)).transpose()?,
            address_space: options.address_space.map(|id| unsigned_u32("addressSpace", id)).transpose()?,
            transparent_huge_pages: options.transparent_huge_pages,
            ..MapOptions::new(range)
        };
        Ok(Self { options, source })
    }

    /// Opens the file, where it is one by path.
    pub(crate) fn open(self) -> Result<MapOptions> {
        let backing = match self.source {
            Source::Known(backing) => backing,
            Source::Path { path, offset, sharing } => {
                let file = match sharing {
                    FileSharing::Private => open(path, false)?,
                    FileSharing::Shared if self.options.readonly => open_for_rom(path)?,
                    FileSharing::Shared => open(path, true)?,
                };
                Backing::File { file: Arc::new(file), offset, sharing }
            }
        };
        Ok(MapOptions { backing, ..self.options })
    }
}

fn source(backing: NativeBacking) -> Result<Source> {
    Ok(Source::Known(match backing {
        NativeBacking::Anonymous => Backing::Anonymous,
        NativeBacking::Memfd => Backing::Memfd,
        NativeBacking::GuestMemfd => Backing::GuestMemfd,
        NativeBacking::Hugetlb { page_size } => Backing::Hugetlb { page_size: unsigned("hugetlb", page_size)? },
        NativeBacking::Path { path, offset, shared } => {
            let offset = unsigned("offset", offset)?;
            return Ok(Source::Path { path: path.into(), offset, sharing: sharing(shared) });
        }
        NativeBacking::Fd { fd, offset, shared } => {
            let (offset, sharing) = (unsigned("offset", offset)?, sharing(shared));
            Backing::File { file: Arc::new(duplicate(fd)?), offset, sharing }
        }
        NativeBacking::Buffer { bytes } => Backing::Buffer(host_buffer(bytes)?),
        NativeBacking::Share { slot, offset } => {
            Backing::Share { slot: slot.core().clone(), offset: unsigned("offset", offset)? }
        }
    }))
}

const fn sharing(shared: bool) -> FileSharing {
    if shared { FileSharing::Shared } else { FileSharing::Private }
}

/// What the guest may not write the host may, and ROM can become RAM: for both the file has to be open for writing. One
/// that nobody may write is ROM all the same.
fn open_for_rom(path: PathBuf) -> Result<File> {
    match open(path, true) {
        Err(Error::File { path, errno })
            if [libc::EACCES, libc::EPERM, libc::EROFS, libc::ETXTBSY].contains(&errno.0) =>
        {
            open(path, false)
        }
        other => other,
    }
}

/// `O_NONBLOCK`: opening a FIFO would wait for its other end, and for a regular file it means nothing. `O_CLOEXEC` is std's.
fn open(path: PathBuf, write: bool) -> Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = OpenOptions::new().read(true).write(write).custom_flags(flags).open(&path);
    opened.map_err(|error| Error::File { path, errno: error.into() })
}

fn duplicate(fd: i32) -> Result<File> {
    if fd < 0 {
        return Err(Error::InvalidArgument { what: "file", expected: "a file descriptor" });
    }
    // SAFETY: it is not -1, and is used for one `fcntl(F_DUPFD_CLOEXEC)` during this call, on the thread of the program
    // that named it. Where it is closed, by another thread say, the kernel refuses.
    let named = unsafe { BorrowedFd::borrow_raw(fd) };
    let own = named.try_clone_to_owned().map_err(|error| Error::Os { call: "fcntl", errno: error.into() })?;
    Ok(own.into())
}

/// An array over memory that others write to, guests among them: known by its address, and never as a slice.
pub struct SharedBytes {
    address: *mut u8,
    size: usize,
    /// Holds a reference of Node-API's.
    keep: Uint8Array,
}

impl FromNapiValue for SharedBytes {
    unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> napi::Result<Self> {
        // SAFETY: as the caller promises, `value` is alive in `env`. That it is a `Uint8Array` is checked here.
        let keep = unsafe { Uint8Array::from_napi_value(env, value)? };
        let (mut size, mut address) = (0, ptr::null_mut());
        let (kind, buffer, offset) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        // SAFETY: of a typed array, in elements, which are bytes; null stands for what is not asked for.
        let status =
            unsafe { sys::napi_get_typedarray_info(env, value, kind, &raw mut size, &raw mut address, buffer, offset) };
        check_status!(status, "cannot tell where the bytes of an array are")?;
        Ok(Self { address: address.cast(), size, keep })
    }
}

/// The memory of a `SharedArrayBuffer`, kept for as long as the core needs it.
fn host_buffer(SharedBytes { address, size, keep }: SharedBytes) -> Result<HostBuffer> {
    let address = NonNull::new(address).ok_or(Error::InvalidArgument { what: "buffer", expected: "memory" })?;
    // SAFETY: the facade hands over arrays over SharedArrayBuffers alone: their memory is never detached, moved or shrunk,
    // and stays while `keep`, which holds a reference of Node-API's, does. That may be dropped on any thread, as napi
    // sends the reference home. When its environment ends the references end with it, and the hook that closes
    // the environment's VMs (environment.rs) runs before that, as hooks run last-in first-out and napi's own is the first.
    unsafe { HostBuffer::new(address, size, Arc::new(keep)) }
}
