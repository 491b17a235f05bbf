//! The kernel side: reports that something happened, decides nothing. One program for each rung of the agent's
//! ladders (`xtcp-agent/src/ebpf/ladder.rs`); the agent loads those that this kernel accepts.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod emit;
mod kernel;
mod netns_lifecycle;
mod numbers;
mod task;
mod tcp_classic;
mod tcp_state;

/// The helpers in use are for GPL-compatible programs only; this declares it to the kernel.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

/// Never called: the verifier would refuse the program.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
