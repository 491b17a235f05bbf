//! Every `unsafe` block of the agent: system calls for which no safe wrapper exists.
#![allow(unsafe_code, reason = "the one module of the agent that calls the kernel without a safe wrapper")]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use xtcp_common::event::{NetnsEvent, TcpClose, TcpState};

/// Directory descriptor that stands for the root of nsfs (`FD_NSFS_ROOT` in `linux/fcntl.h`, 6.18).
const FD_NSFS_ROOT: c_int = -10003;
/// Type of an nsfs file handle (`FILEID_NSFS` in `linux/exportfs.h`, 6.18).
const FILEID_NSFS: c_int = 0xf1;
/// `_IO(0xb7, 3)` of `linux/nsfs.h`, 4.11.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
/// Size of what follows the two leading integers of [`NsfsHandle`] (`NSFS_FILE_HANDLE_SIZE_VER0`).
const NSFS_HANDLE_BYTES: u32 = 16;

/// `struct file_handle` with a `struct nsfs_file_handle` (`linux/nsfs.h`, 6.18) in it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct NsfsHandle {
    handle_bytes: u32,
    handle_type: c_int,
    ns_id: u64,
    ns_type: u32,
    ns_inum: u32,
}

const _: () = assert!(size_of::<NsfsHandle>() == 8 + NSFS_HANDLE_BYTES as usize);

/// Cookie of the network namespace that a socket belongs to (`SO_NETNS_COOKIE`, 5.14). `None` where the kernel
/// knows no such option.
pub fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    socket_option(socket, libc::SO_NETNS_COOKIE)
}

/// A socket's own cookie (`SO_COOKIE`, 4.12), as in events and rows. `None` where the kernel knows no such option.
pub fn socket_cookie(socket: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    socket_option(socket, libc::SO_COOKIE)
}

/// An option of 8 bytes; `None` where the kernel does not know it.
fn socket_option(socket: BorrowedFd<'_>, option: c_int) -> io::Result<Option<u64>> {
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: the kernel writes at most `length` = 8 bytes to `cookie`, which is 8 bytes long and, like `length`,
    // outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        return Ok(Some(cookie));
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENOPROTOOPT) { Ok(None) } else { Err(error) }
}

/// Opens the network namespace with this id and inode (6.18: `open_by_handle_at` on nsfs). `ESTALE` when there is
/// none, or (6.19) none that is in use by a process, a descriptor or a mount; `EPERM` without `CAP_SYS_ADMIN` in
/// its user namespace; `EBADF` before 6.18.
pub fn open_netns(id: u64, inode: u32) -> io::Result<OwnedFd> {
    let mut handle = NsfsHandle {
        handle_bytes: NSFS_HANDLE_BYTES,
        handle_type: FILEID_NSFS,
        ns_id: id,
        ns_type: libc::CLONE_NEWNET.cast_unsigned(),
        ns_inum: inode,
    };
    // SAFETY: the kernel reads `handle_bytes` bytes behind the two leading integers, which is the rest of `handle`;
    // it outlives the call.
    let fd = unsafe {
        libc::open_by_handle_at(FD_NSFS_ROOT, (&raw mut handle).cast(), libc::O_RDONLY | libc::O_CLOEXEC)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Id of the namespace behind an nsfs descriptor, out of its file handle (6.18). `None` where nsfs has no handles.
pub fn namespace_id(namespace: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let mut handle = NsfsHandle { handle_bytes: NSFS_HANDLE_BYTES, ..NsfsHandle::default() };
    let mut mount_id: c_int = 0;
    // SAFETY: the path is a NUL-terminated string; the kernel writes at most `handle_bytes` bytes behind the two
    // leading integers of `handle`, which is the rest of it; both it and `mount_id` outlive the call.
    let result = unsafe {
        libc::name_to_handle_at(
            namespace.as_raw_fd(),
            c"".as_ptr(),
            (&raw mut handle).cast(),
            &raw mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    };
    if result == 0 {
        return Ok((handle.handle_type == FILEID_NSFS).then_some(handle.ns_id));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EOVERFLOW | libc::ENOSYS) => Ok(None),
        _ => Err(error),
    }
}

/// Kind of the namespace behind an nsfs descriptor, one of `CLONE_NEW*` (`NS_GET_NSTYPE`, 4.11). `ENOTTY` when it
/// is no namespace.
pub fn namespace_type(namespace: BorrowedFd<'_>) -> io::Result<c_int> {
    // SAFETY: this request takes no argument and touches no memory of ours.
    let kind = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) };
    if kind < 0 { Err(io::Error::last_os_error()) } else { Ok(kind) }
}

/// A descriptor that tokio waits for. Nobody gets at it mutably, which is what makes the registration sound.
#[derive(Debug)]
pub struct Polled(AsyncFd<OwnedFd>);

impl Polled {
    /// Registers a descriptor, which must be pollable and should not block, with the current tokio runtime. Panics
    /// outside of one.
    pub fn new(fd: OwnedFd, interest: Interest) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` is open as long as it exists and always returns the same descriptor; it is owned by the
        // registration, which gives it out by shared reference only.
        Ok(Self(unsafe { AsyncFd::register_with_interest(fd, interest) }?))
    }

    /// Waits until the descriptor is ready. Clear the guard when the descriptor says that it would block.
    pub async fn ready(&self, interest: Interest) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
        self.0.ready(interest).await
    }
}

impl AsFd for Polled {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

/// Types that may be read from any bytes of their size.
///
/// # Safety
///
/// Every bit pattern is a value of the type, and it holds no reference.
pub unsafe trait Plain: Copy {}

// SAFETY: `repr(C)` structs of integers and arrays of integers only.
unsafe impl Plain for NetnsEvent {}
// SAFETY: as above.
unsafe impl Plain for TcpState {}
// SAFETY: as above.
unsafe impl Plain for TcpClose {}

/// The value that `bytes` are, whatever their alignment; `None` unless their number is exactly the type's size.
pub fn read_plain<T: Plain>(bytes: &[u8]) -> Option<T> {
    // SAFETY: the pointer is to `size_of::<T>()` readable bytes, checked by the condition; `Plain` makes any of them
    // a value; `read_unaligned` asks for no alignment.
    (bytes.len() == size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
