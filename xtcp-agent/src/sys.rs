//! Every `unsafe` block of the agent: system calls and instructions for which no safe wrapper exists.
#![allow(unsafe_code, reason = "the one module of the agent that calls the kernel without a safe wrapper")]

use std::ffi::{c_char, c_int};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::LazyLock;

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use xtcp_common::event::{NetnsEvent, TcpClose, TcpState};
use xtcp_inet_diag::wire;

/// Directory descriptor that stands for the root of nsfs (`FD_NSFS_ROOT` in `linux/fcntl.h`, 6.18).
const FD_NSFS_ROOT: c_int = -10003;
/// Type of an nsfs file handle (`FILEID_NSFS` in `linux/exportfs.h`, 6.18).
const FILEID_NSFS: c_int = 0xf1;
/// `_IO(0xb7, 3)` of `linux/nsfs.h`, 4.11.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
/// Number of `listns`, the same on every architecture but alpha and MIPS (`scripts/syscall.tbl`, 6.19).
const SYS_LISTNS: libc::c_long = 470;
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

/// `struct ns_id_req` (`linux/nsfs.h`, 6.19).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct NsIdRequest {
    size: u32,
    spare: u32,
    ns_id: u64,
    ns_type: u32,
    spare2: u32,
    user_ns_id: u64,
}

const _: () = assert!(size_of::<NsIdRequest>() == 32);

/// An option of a socket that `getsockopt` only copies out: its value holds no pointer, and reading it changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainOption {
    /// Its name in the kernel's headers.
    pub name: &'static str,
    level: c_int,
    number: c_int,
}

macro_rules! plain_options {
    ($($(#[$doc:meta])* $name:ident = $level:expr, $number:expr;)*) => {
        impl PlainOption {
            $($(#[$doc])* pub const $name: Self =
                Self { name: stringify!($name), level: $level, number: $number };)*
        }
    };
}

plain_options! {
    /// Cookie of the network namespace, u64 (5.14).
    SO_NETNS_COOKIE = libc::SOL_SOCKET, libc::SO_NETNS_COOKIE;
    /// Cookie of the socket, u64 (4.12).
    SO_COOKIE = libc::SOL_SOCKET, libc::SO_COOKIE;
    /// Memory use, nine u32 (4.12).
    SO_MEMINFO = libc::SOL_SOCKET, libc::SO_MEMINFO;
    /// Firewall mark, u32.
    SO_MARK = libc::SOL_SOCKET, libc::SO_MARK;
    /// Priority for the queues, u32.
    SO_PRIORITY = libc::SOL_SOCKET, libc::SO_PRIORITY;
    /// Limit of the receive buffer, bytes, i32.
    SO_RCVBUF = libc::SOL_SOCKET, libc::SO_RCVBUF;
    /// Limit of the send buffer, bytes, i32.
    SO_SNDBUF = libc::SOL_SOCKET, libc::SO_SNDBUF;
    /// Type of service, i32 in the first byte.
    IP_TOS = libc::IPPROTO_IP, libc::IP_TOS;
    /// Errors are queued, i32.
    IP_RECVERR = libc::IPPROTO_IP, libc::IP_RECVERR;
    /// Any address can be bound, i32.
    IP_FREEBIND = libc::IPPROTO_IP, libc::IP_FREEBIND;
    /// A transparent proxy's, i32.
    IP_TRANSPARENT = libc::IPPROTO_IP, libc::IP_TRANSPARENT;
    /// The port is chosen at connect, i32.
    IP_BIND_ADDRESS_NO_PORT = libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT;
    /// Own multicasts come back, i32.
    IP_MULTICAST_LOOP = libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP;
    /// Every joined group's multicasts are taken, i32.
    IP_MULTICAST_ALL = libc::IPPROTO_IP, libc::IP_MULTICAST_ALL;
    /// Traffic class, i32.
    IPV6_TCLASS = libc::IPPROTO_IPV6, libc::IPV6_TCLASS;
    /// No v4-mapped addresses, i32.
    IPV6_V6ONLY = libc::IPPROTO_IPV6, libc::IPV6_V6ONLY;
    /// `struct tcp_info`, as long as the kernel has it.
    TCP_INFO = libc::IPPROTO_TCP, libc::TCP_INFO;
    /// What the congestion control tells of itself, `union tcp_cc_info` (4.1).
    TCP_CC_INFO = libc::IPPROTO_TCP, libc::TCP_CC_INFO;
    /// Name of the congestion control.
    TCP_CONGESTION = libc::IPPROTO_TCP, libc::TCP_CONGESTION;
    /// Name of the upper-layer protocol (4.13).
    TCP_ULP = libc::IPPROTO_TCP, libc::TCP_ULP;
}

/// Cookie of the network namespace that a socket belongs to (`SO_NETNS_COOKIE`, 5.14). `None` where the kernel
/// knows no such option.
pub fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    cookie(socket, PlainOption::SO_NETNS_COOKIE)
}

/// A socket's own cookie (`SO_COOKIE`, 4.12), as in events and rows. `None` where the kernel knows no such option.
pub fn socket_cookie(socket: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    cookie(socket, PlainOption::SO_COOKIE)
}

/// Index of an interface in the network namespace that a socket of any kind belongs to (`SIOCGIFINDEX`).
pub fn interface_index(socket: BorrowedFd<'_>, name: &str) -> io::Result<u32> {
    let mut request = interface_request(name)?;
    // SAFETY: the kernel reads and writes one `struct ifreq`, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFINDEX, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: after success the kernel has written this member of the union, and any integer is a value of it.
    let index = unsafe { request.ifr_ifru.ifru_ifindex };
    u32::try_from(index).map_err(io::Error::other)
}

/// What the driver of an interface says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverInfo {
    /// Name of the driver.
    pub driver: String,
    /// Place of the device on its bus.
    pub bus_info: String,
    /// Version of the device's firmware; "N/A" where the driver knows none.
    pub fw_version: String,
}

/// `struct ethtool_drvinfo` of `linux/ethtool.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct EthtoolDriverInfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    fw_version: [u8; 32],
    bus_info: [u8; 32],
    erom_version: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

const _: () = assert!(size_of::<EthtoolDriverInfo>() == 196);

/// `ETHTOOL_GDRVINFO` of `linux/ethtool.h`; needs no privilege.
const ETHTOOL_GDRVINFO: u32 = 3;

/// Asks for the driver of an interface of the network namespace that a socket belongs to (`SIOCETHTOOL`). `ENODEV` when
/// there is no such interface, `EOPNOTSUPP` when its driver does not say.
pub fn driver_info(socket: BorrowedFd<'_>, name: &str) -> io::Result<DriverInfo> {
    let mut info = EthtoolDriverInfo {
        cmd: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        version: [0; 32],
        fw_version: [0; 32],
        bus_info: [0; 32],
        erom_version: [0; 32],
        reserved: [0; 12],
        counts: [0; 5],
    };
    let mut request = interface_request(name)?;
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // SAFETY: the kernel reads one `struct ifreq` and, because of the command in it, writes one `struct ethtool_drvinfo`
    // where it points; both are of the kernel's layout and outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
    };
    Ok(DriverInfo {
        driver: text(&info.driver),
        bus_info: text(&info.bus_info),
        fw_version: text(&info.fw_version),
    })
}

/// A `struct ifreq` with the name of an interface.
fn interface_request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all of it is integers and arrays of them, for which zero is a value; its one pointer is raw.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte stays zero: the end of the name.
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (target, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *target = c_char::from_ne_bytes([byte]);
    }
    Ok(request)
}

/// An option of 8 bytes; `None` where the kernel does not know it.
fn cookie(socket: BorrowedFd<'_>, option: PlainOption) -> io::Result<Option<u64>> {
    let mut cookie = [0; 8];
    match socket_option(socket, option, &mut cookie) {
        Ok(_) => Ok(Some(u64::from_ne_bytes(cookie))),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads an option into `buffer`; returns how many bytes the kernel wrote, at most the buffer's length. `ENOPROTOOPT`
/// where the kernel does not know it for such a socket.
pub fn socket_option(socket: BorrowedFd<'_>, option: PlainOption, buffer: &mut [u8]) -> io::Result<usize> {
    let PlainOption { name: _, level, number } = option;
    let room = buffer.len();
    let mut length = libc::socklen_t::try_from(room).unwrap_or(libc::socklen_t::MAX);
    // SAFETY: the kernel writes at most `length` bytes to `buffer`, which is at least that long and, like `length`,
    // outlives the call; reading one of these options does nothing else to the process.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, number, buffer.as_mut_ptr().cast(), &raw mut length)
    };
    if result == 0 {
        return Ok(usize::try_from(length).unwrap_or(room).min(room));
    }
    Err(io::Error::last_os_error())
}

/// Opens the network namespace with this id and inode (6.18: `open_by_handle_at` on nsfs); since 6.19 an inode of 0 stands
/// for any. `ESTALE` when there is
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

/// Ids of the network namespaces in use, ascending, those greater than `after`: as many as `ids` holds; returns how many
/// (`listns`, 6.19). `ENOSYS` before, and on alpha and MIPS, whose number is another.
pub fn list_netns(after: u64, ids: &mut [u64]) -> io::Result<usize> {
    if cfg!(any(target_arch = "mips", target_arch = "mips64")) {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    let request = NsIdRequest {
        size: 32,
        spare: 0,
        ns_id: after,
        ns_type: libc::CLONE_NEWNET.cast_unsigned(),
        spare2: 0,
        user_ns_id: 0,
    };
    // SAFETY: the kernel reads `size` bytes of `request` and writes at most as many integers to `ids` as it is told that
    // there is room for; both outlive the call. An older kernel has no such number and does nothing.
    let count = unsafe {
        libc::syscall(SYS_LISTNS, &raw const request, ids.as_mut_ptr(), ids.len(), 0 as libc::c_uint)
    };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
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

/// One of the ways to write a row's record.
type WriteRow =
    fn(&wire::Row<'_>, &wire::Context<'_>, &mut [u8], &mut wire::Findings) -> Result<usize, wire::NoRoom>;

const ANYWHERE: WriteRow = |row, context, out, findings| row.write(context, out, findings);

/// Does what [`wire::Row::write`] does, with the instructions that this processor has for it.
pub fn write_row(
    row: &wire::Row<'_>,
    context: &wire::Context<'_>,
    out: &mut [u8],
    findings: &mut wire::Findings,
) -> Result<usize, wire::NoRoom> {
    static FASTEST: LazyLock<WriteRow> = LazyLock::new(fastest);
    FASTEST(row, context, out, findings)
}

#[cfg(target_arch = "x86_64")]
fn fastest() -> WriteRow {
    use std::arch::is_x86_feature_detected as has;
    // AMD's before Zen 3, which have sse4a and not yet vaes, run pdep as a microprogram of hundreds of cycles.
    let is_slow = has!("sse4a") && !has!("vaes");
    if is_slow || !has!("bmi2") || !has!("lzcnt") {
        return ANYWHERE;
    }
    |row, context, out, findings| {
        // SAFETY: the processor has bmi2 and lzcnt, or this closure is not reached.
        unsafe { row.write_bmi2(context, out, findings) }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn fastest() -> WriteRow {
    ANYWHERE
}
