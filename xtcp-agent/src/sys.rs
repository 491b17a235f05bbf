//! Every `unsafe` block of the agent, each behind a safe function.
#![allow(unsafe_code, reason = "the one place for it in the agent")]

use xtcp_common::event::{NetnsEvent, TcpClose, TcpState};

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
