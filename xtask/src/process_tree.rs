//! Ending a child together with all that it started.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Ends a child of ours that was not waited for yet, and everything below it.
pub(crate) fn end(child: u32) {
    let mut tree = vec![child];
    let parents = parents();
    let mut next = 0;
    while let Some(&parent) = tree.get(next) {
        tree.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(process, _)| *process));
        next += 1;
    }
    // From the top: who is ended first cannot start others.
    for process in tree {
        if let Ok(process) = i32::try_from(process) {
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
    }
}

/// Every process with its parent.
fn parents() -> Vec<(u32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let with_parent = |process: u32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name before it is in parentheses and may hold anything.
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        Some((process, parent))
    };
    processes.filter_map(with_parent).collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_child_ends_with_its_own_children() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 1000 & echo started; wait"]).stdout(Stdio::piped());
        let mut child = shell.spawn().expect("sh starts");
        let mut started = [0; 8];
        let mut output = child.stdout.take().expect("it is piped");
        std::io::Read::read_exact(&mut output, &mut started).expect("sh says so");
        end(child.id());
        // The sleeper holds the pipe: its end is the proof.
        std::io::Read::read_to_end(&mut output, &mut Vec::new()).expect("the pipe ends");
        assert!(!child.wait().expect("it was ours").success());
    }
}
