//! Reserve, fill, submit; or count the loss. And the counters.

use core::arch::asm;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use xtcp_common::counter;
use xtcp_common::event::Header;

/// The ring buffer; the loader sets its size.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// One value: [`counter`].
#[map]
static COUNTERS: PerCpuArray<[u64; counter::COUNT as usize]> = PerCpuArray::with_max_entries(1, 0);

/// Adds one to a counter. Atomic although per CPU: a softirq, or a task that preempts, can come between the load and
/// the store of a plain addition. In assembly, because `core` has no atomic addition for this target.
#[inline(always)]
pub(crate) fn count(index: u32) {
    let Some(values) = COUNTERS.get_ptr_mut(0) else { return };
    if index < counter::COUNT {
        // SAFETY: the map's value is `COUNT` aligned `u64`, and the verifier checks the access.
        unsafe {
            let counter = values.cast::<u64>().add(index as usize);
            asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1u64, options(nostack));
        }
    }
}

/// Lets `fill` write a sample right into the ring buffer and submits it; counts it as lost when there is no room.
/// `fill` must write the whole sample: the memory is uninitialised.
#[inline(always)]
pub(crate) fn emit<T: 'static>(kind: u32, fill: impl FnOnce(&mut MaybeUninit<T>, Header)) {
    let Some(mut entry) = EVENTS.reserve::<T>(0) else {
        return count(counter::LOST + kind);
    };
    fill(&mut entry, header(kind));
    // The kernel wakes the reader only when that had read everything before this sample.
    entry.submit(0);
    count(counter::SUBMITTED + kind);
}

#[inline(always)]
fn header(kind: u32) -> Header {
    // SAFETY: helpers without arguments.
    let (cpu, ktime_ns) = unsafe { (bpf_get_smp_processor_id(), bpf_ktime_get_ns()) };
    Header { kind, cpu, ktime_ns }
}
