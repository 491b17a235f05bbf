//! What a process asks of the kernel, seen from outside: strace decodes netlink by itself.

use std::collections::HashMap;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::process::Process;

/// An attached strace.
#[derive(Debug)]
pub struct Strace {
    process: Process,
}

/// One finished system call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Thread that made it.
    pub thread: u32,
    /// Its name.
    pub name: String,
    /// Arguments and result as strace writes them.
    pub rest: String,
}

impl Strace {
    /// Attaches to every thread of `pid`, those to come included.
    pub fn attach(pid: u32, calls: &str) -> Self {
        let (trace, pid) = (format!("trace={calls}"), pid.to_string());
        let argv = ["strace", "-f", "-y", "-s", "4096", "-e", &trace, "-p", &pid];
        let process = Process::start("strace", &argv);
        let attached = process.stderr.wait_for(Duration::from_secs(10), |line| line.contains("attached"));
        assert!(attached.is_some(), "strace does not attach: {}", process.stderr.text());
        Self { process }
    }

    /// Detaches and returns all calls.
    pub fn finish(mut self) -> Vec<Call> {
        self.process.signal(Signal::SIGINT);
        let ended = self.process.wait(Duration::from_secs(10));
        assert!(ended.is_some(), "strace did not detach");
        let lines = self.process.stderr.since(0);
        join(lines.iter().map(|line| line.text.as_str()))
    }
}

/// One message in a request to `inet_diag`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiagRequest {
    /// The namespace that the socket belongs to, as strace names it: `/run/netns/name` or `net:[inode]`.
    pub netns: String,
    /// Whether it asks for a dump: `NLM_F_ROOT` or `NLM_F_MATCH`, which together are `NLM_F_DUMP`.
    pub dump: bool,
}

/// The namespaces that were entered, and what was asked of `inet_diag` in which. A netlink socket belongs to the
/// namespace in which its thread made it; threads start in `home`.
pub fn diag_requests(calls: &[Call], home: &str) -> (Vec<String>, Vec<DiagRequest>) {
    let (mut entered, mut requests) = (Vec::new(), Vec::new());
    let mut thread_in: HashMap<u32, String> = HashMap::new();
    let mut socket_in: HashMap<String, String> = HashMap::new();
    for call in calls {
        let netns = thread_in.get(&call.thread).map_or(home, String::as_str).to_owned();
        match call.name.as_str() {
            "setns" => {
                let target =
                    annotation(&call.rest).unwrap_or_else(|| panic!("strace names no namespace: {call:?}"));
                assert!(call.rest.trim_end().ends_with("= 0"), "an entry failed: {call:?}");
                entered.push(target.clone());
                thread_in.insert(call.thread, target);
            }
            "socket" if call.rest.contains("NETLINK_SOCK_DIAG") => {
                socket_in.extend(
                    annotation(call.rest.rsplit("= ").next().unwrap_or_default()).map(|s| (s, netns)),
                );
            }
            "sendto" | "sendmsg" | "sendmmsg" => {
                let Some(netns) = annotation(&call.rest).and_then(|socket| socket_in.get(&socket).cloned())
                else {
                    continue;
                };
                let flags = call.rest.split("nlmsg_flags=").skip(1);
                requests
                    .extend(flags.map(|flags| DiagRequest { netns: netns.clone(), dump: is_dump(flags) }));
            }
            _ => {}
        }
    }
    (entered, requests)
}

/// What stands in the first `<…>` of `9</run/netns/a>, …`: the file behind a descriptor.
fn annotation(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('<')?;
    rest.split_once('>').map(|(file, _)| file.to_owned())
}

/// Flags as strace writes them: names, and a number for what it does not know in another namespace's socket.
fn is_dump(flags: &str) -> bool {
    let end = flags.find([',', '}']).unwrap_or(flags.len());
    flags[..end].split('|').any(|flag| match flag.strip_prefix("0x") {
        Some(hex) => {
            u32::from_str_radix(hex.split(' ').next().unwrap_or(hex), 16).is_ok_and(|bits| bits & 0x300 != 0)
        }
        None => matches!(flag, "NLM_F_DUMP" | "NLM_F_ROOT" | "NLM_F_MATCH"),
    })
}

/// Joins what strace splits when threads overlap: `… <unfinished ...>` and `<... name resumed>…`.
fn join<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut open: Vec<(u32, String)> = Vec::new();
    for line in lines {
        let Some((thread, text)) = thread_of(line) else { continue };
        if let Some(start) = text.strip_suffix("<unfinished ...>") {
            open.push((thread, start.to_owned()));
        } else if let Some((_, end)) =
            text.strip_prefix("<... ").and_then(|text| text.split_once(" resumed>"))
        {
            if let Some(at) = open.iter().position(|(of, _)| *of == thread) {
                let (_, start) = open.remove(at);
                calls.extend(call(thread, &format!("{start}{end}")));
            }
        } else {
            calls.extend(call(thread, text));
        }
    }
    // A call that had not returned when strace was detached was made all the same.
    calls.extend(open.into_iter().filter_map(|(thread, start)| call(thread, &start)));
    calls
}

/// `[pid  1234] text`, or `text` while there is one thread only.
fn thread_of(line: &str) -> Option<(u32, &str)> {
    match line.strip_prefix("[pid ") {
        Some(rest) => {
            let (pid, text) = rest.split_once("] ")?;
            Some((pid.trim().parse().ok()?, text))
        }
        None => Some((0, line)),
    }
}

fn call(thread: u32, text: &str) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let known = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    known.then(|| Call { thread, name: name.to_owned(), rest: rest.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_was_interrupted_by_another_thread_is_joined() {
        let lines = [
            "strace: Process 7 attached",
            "[pid     7] setns(9<net:[42]>, CLONE_NEWNET <unfinished ...>",
            "[pid     8] socket(AF_NETLINK, SOCK_RAW|SOCK_CLOEXEC, NETLINK_SOCK_DIAG) = 11",
            "[pid     7] <... setns resumed>)       = 0",
        ];
        let calls = join(lines.into_iter());
        let names: Vec<_> = calls.iter().map(|call| (call.thread, call.name.as_str())).collect();
        assert_eq!(names, [(8, "socket"), (7, "setns")]);
        assert_eq!(calls[1].rest, "9<net:[42]>, CLONE_NEWNET )       = 0");
    }

    #[test]
    fn a_request_belongs_to_the_namespace_in_which_its_socket_was_made() {
        let lines = [
            "[pid 7] socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG) = 3<socket:[1]>",
            "[pid 7] setns(4</run/netns/a>, CLONE_NEWNET) = 0",
            "[pid 7] socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG) = 6<socket:[2]>",
            "[pid 7] setns(5<net:[9]>, CLONE_NEWNET) = 0",
            "[pid 7] sendto(3<socket:[1]>, [{nlmsg_len=72, nlmsg_type=SOCK_DIAG_BY_FAMILY, \
             nlmsg_flags=NLM_F_REQUEST|NLM_F_DUMP, nlmsg_seq=7}], 72, 0, NULL, 0) = 72",
            "[pid 7] sendto(6<socket:[2]>, [{nlmsg_type=0x14 /* NLMSG_??? */, nlmsg_flags=NLM_F_REQUEST|0x300, \
             nlmsg_seq=7}], 72, 0, NULL, 0) = 72",
            "[pid 7] sendto(6<socket:[2]>, [{nlmsg_flags=NLM_F_REQUEST, nlmsg_seq=7}, {nlmsg_flags=NLM_F_REQUEST}]) = 9",
            "[pid 7] sendto(8<socket:[3]>, \"no netlink\", 10, 0, NULL, 0) = 10",
        ];
        let (entered, requests) = diag_requests(&join(lines.into_iter()), "net:[9]");
        assert_eq!(entered, ["/run/netns/a", "net:[9]"]);
        let request = |netns: &str, dump| DiagRequest { netns: netns.to_owned(), dump };
        let lookup = request("/run/netns/a", false);
        assert_eq!(
            requests,
            [request("net:[9]", true), request("/run/netns/a", true), lookup.clone(), lookup]
        );
    }
}
