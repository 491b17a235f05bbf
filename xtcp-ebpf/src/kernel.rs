//! Reads kernel memory without relocations: offsets are read-only globals that the loader filled in, and pointers
//! are those whose type the verifier knows from BTF. It checks each access against the kernel's own types, so that a
//! wrong offset is a refused program, never a wrong number.

use core::ffi::c_void;

use xtcp_common::offset::ABSENT;

/// A read-only global that the loader sets. Read through [`Global::get`] only: the compiler must not know its value,
/// while the verifier does, and leaves out what cannot be reached with it.
#[repr(transparent)]
pub(crate) struct Global<T>(T);

impl<T: Copy> Global<T> {
    pub(crate) const fn new(initial: T) -> Self {
        Self(initial)
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> T {
        // SAFETY: a reference is valid for reads.
        unsafe { core::ptr::read_volatile(&raw const self.0) }
    }
}

macro_rules! offsets {
    ($(($global:ident, $of:literal, $path:literal, $size:literal),)*) => {
        $(
            #[unsafe(no_mangle)]
            pub(crate) static $global: Global<u32> = Global::new(ABSENT);
        )*
    };
}
xtcp_common::for_each_offset!(offsets);

#[unsafe(no_mangle)]
pub(crate) static STATE_MASK: Global<u32> = Global::new(u32::MAX);
#[unsafe(no_mangle)]
pub(crate) static OWN_TGID: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static PORT_MODE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static NETNS_FILTER: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static HAVE_SOCKET_COOKIE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static HAVE_TASK_BTF: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static CLEANUP_NET: Global<u64> = Global::new(0);

/// A pointer to a kernel object whose type the verifier knows, or null.
#[derive(Clone, Copy)]
pub(crate) struct Ptr(*const c_void);

impl Ptr {
    /// Takes a hook's argument, or what a helper returned.
    ///
    /// # Safety
    ///
    /// The verifier must know `pointer` as a pointer to a kernel type: it then proves every access.
    #[inline(always)]
    pub(crate) unsafe fn new(pointer: *const c_void) -> Self {
        Self(pointer)
    }

    #[inline(always)]
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    #[inline(always)]
    pub(crate) fn raw(self) -> *mut c_void {
        self.0.cast_mut()
    }

    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.0 as u64
    }

    /// The field at `offset`; `None` when this kernel has none.
    #[inline(always)]
    pub(crate) fn read<T: Copy>(self, offset: &Global<u32>) -> Option<T> {
        self.read_behind(offset, 0)
    }

    /// What lies `behind` bytes after the start of the field at `offset`.
    #[inline(always)]
    pub(crate) fn read_behind<T: Copy>(self, offset: &Global<u32>, behind: usize) -> Option<T> {
        match offset.get() {
            ABSENT => None,
            // SAFETY: `new` asks that the verifier knows the pointer; it checks this access against the kernel's
            // types, at load time, with the offset that the loader wrote. Volatile, so that two reads are not merged
            // into one that no field has.
            offset => Some(unsafe {
                core::ptr::read_volatile(self.0.byte_add(offset as usize).byte_add(behind).cast())
            }),
        }
    }

    /// The pointer at `offset`; null when this kernel has no such field.
    #[inline(always)]
    pub(crate) fn follow(self, offset: &Global<u32>) -> Self {
        Self(self.read::<*const c_void>(offset).unwrap_or(core::ptr::null()))
    }

    /// 16 bytes at `offset`: an IPv6 address, a command name.
    #[inline(always)]
    pub(crate) fn read_16(self, offset: &Global<u32>) -> Option<[u64; 2]> {
        Some([self.read_behind(offset, 0)?, self.read_behind(offset, 8)?])
    }
}

/// Two words as the bytes that they were read from.
#[inline(always)]
pub(crate) const fn bytes(words: [u64; 2]) -> [u8; 16] {
    // SAFETY: both are 16 bytes without padding, and any byte is a `u8`.
    unsafe { core::mem::transmute(words) }
}
