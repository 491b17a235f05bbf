//! Loads and attaches one program. Every failure becomes a reason that a person can act on.

use std::any::Any;
use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::programs::{Program, ProgramError};
use aya::{Btf, Ebpf};
use xtcp_common::tracepoint::{sock_state, sys_exit};

use super::{Rung, RungInfo, tracefs};

/// Attached: dropping `link` detaches.
pub(super) struct Link {
    pub(super) link: Box<dyn Any + Send>,
    /// The program's `/proc/self/fdinfo`, where the kernel tells how often it skipped it.
    pub(super) fdinfo: Option<File>,
}

/// Loads and attaches the program behind `info`, or says why that is not possible.
pub(super) fn attach(ebpf: &mut Ebpf, btf: Option<&Btf>, info: &RungInfo) -> Result<Link, String> {
    let program = ebpf
        .program_mut(info.program)
        .ok_or_else(|| format!("the object has no program {}", info.program))?;
    let link = match info.rung {
        Rung::TcpStateClassic => tracefs::check_layout("sock", "inet_sock_set_state", sock_state::FIELDS)
            .and_then(|()| tracepoint(program, "sock", "inet_sock_set_state")),
        Rung::Unshare => tracefs::check_layout("syscalls", "sys_exit_unshare", sys_exit::FIELDS)
            .and_then(|()| tracepoint(program, "syscalls", "sys_exit_unshare")),
        Rung::Setns => tracefs::check_layout("syscalls", "sys_exit_setns", sys_exit::FIELDS)
            .and_then(|()| tracepoint(program, "syscalls", "sys_exit_setns")),
        Rung::TcpStateBtf
        | Rung::CopyNetNs
        | Rung::Fork
        | Rung::PutNet
        | Rung::NetnsPut
        | Rung::CleanupNet => {
            let btf = btf.ok_or_else(|| "the kernel offers no BTF".to_owned())?;
            let function = info.hook.rsplit('/').next().unwrap_or(info.hook);
            traced(program, function, btf)
        }
    }?;
    let fdinfo = program
        .fd()
        .ok()
        .and_then(|fd| File::open(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd())).ok());
    Ok(Link { link, fdinfo })
}

fn tracepoint(program: &mut Program, category: &str, name: &str) -> Result<Box<dyn Any + Send>, String> {
    let program: &mut aya::programs::TracePoint = program.try_into().map_err(|error| reason(&error))?;
    program.load().map_err(|error| reason(&error))?;
    let link = program.attach(category, name).map_err(|error| reason(&error))?;
    Ok(Box::new(program.take_link(link).map_err(|error| reason(&error))?))
}

/// BTF tracepoints, fentry and fexit: `aya` has one type for each and no trait for what they share.
fn traced(program: &mut Program, function: &str, btf: &Btf) -> Result<Box<dyn Any + Send>, String> {
    macro_rules! attach {
        ($program:expr) => {{
            $program.load(function, btf).map_err(|error| reason(&error))?;
            let link = $program.attach().map_err(|error| reason(&error))?;
            Ok(Box::new($program.take_link(link).map_err(|error| reason(&error))?))
        }};
    }
    match program {
        Program::BtfTracePoint(program) => attach!(program),
        Program::FEntry(program) => attach!(program),
        Program::FExit(program) => attach!(program),
        other => Err(format!("the object's program is a {:?}", other.prog_type())),
    }
}

/// The error with its causes; of a program that the verifier refused, the line in which it says why.
fn reason(error: &ProgramError) -> String {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        let log = verifier_log.to_string();
        let line = log.lines().map(str::trim).rfind(|line| !line.is_empty() && !is_statistics(line));
        let detail = match line {
            Some(line) => format!(": {line}"),
            None if io_error.kind() == io::ErrorKind::PermissionDenied => lockdown(),
            None => String::new(),
        };
        return format!("the kernel refused the program: {io_error}{detail}");
    }
    chain(error)
}

/// The likely cause of a refusal without a word from the verifier, when the kernel is locked down.
fn lockdown() -> String {
    let modes = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    match modes.split_once('[').and_then(|(_, rest)| rest.split_once(']')) {
        Some((mode, _)) if mode != "none" => format!(" (kernel lockdown is {mode})"),
        _ => String::new(),
    }
}

/// What the verifier adds at the end of its log, whatever happened.
fn is_statistics(line: &str) -> bool {
    ["processed ", "verification time", "stack depth", "insns_stat", "max_states", "peak_states"]
        .iter()
        .any(|start| line.starts_with(start))
}

/// An error and its causes, outermost first.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Kernel address of function `name`, out of `/proc/kallsyms`.
///
/// # Errors
///
/// A reason, when the file cannot be read, hides addresses, or does not know the function.
pub(super) fn kernel_address(name: &str) -> Result<u64, String> {
    let symbols = fs::read_to_string("/proc/kallsyms").map_err(|error| format!("/proc/kallsyms: {error}"))?;
    match address_in(&symbols, name) {
        Some(0) => {
            Err("/proc/kallsyms hides addresses: needs CAP_SYSLOG, and kernel.kptr_restrict below 2"
                .to_owned())
        }
        Some(address) => Ok(address),
        None => Err(format!("/proc/kallsyms has no {name}")),
    }
}

/// `<address> <type> <name>`, of the kernel itself: a module's symbol has a fourth word.
fn address_in(symbols: &str, name: &str) -> Option<u64> {
    symbols.lines().filter(|line| line.ends_with(name)).find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (address, _, symbol) = (words.next()?, words.next()?, words.next()?);
        (symbol == name).then(|| u64::from_str_radix(address, 16).ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYMBOLS: &str = "ffffffff81e523b0 t other_cleanup_net\nffffffff81e523c0 t cleanup_net\n\
                           ffffffffc0000000 t cleanup_net\t[module]\n0000000000000000 T hidden\n";

    #[test]
    fn a_symbol_is_found_by_its_whole_name_and_in_the_kernel_only() {
        assert_eq!(address_in(SYMBOLS, "cleanup_net"), Some(0xffff_ffff_81e5_23c0));
        assert_eq!(address_in(SYMBOLS, "hidden"), Some(0));
        assert_eq!(address_in(SYMBOLS, "net"), None);
    }

    #[test]
    fn the_verifiers_statistics_are_not_the_reason() {
        assert!(is_statistics("processed 12 insns (limit 1000000) max_states_per_insn 0 total_states 0"));
        assert!(!is_statistics("R1 invalid mem access 'scalar'"));
    }
}
