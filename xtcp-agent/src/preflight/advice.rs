//! What an operator can do: commands and settings, ready to be pasted.

use super::capability::Capability;

pub(super) const HOOKS: &str =
    "a kernel from 5.12 on with CONFIG_DEBUG_INFO_BTF=y and tracefs at /sys/kernel/tracing offers them all";

pub(super) const USER_NAMESPACE: &str =
    "run it outside of rootless containers; docker: --userns host; k8s: hostUsers: true";

pub(super) const SECCOMP: &str = "a seccomp filter is in force: docker: --security-opt seccomp=unconfined; \
                                  k8s: seccompProfile: {type: Unconfined}";

/// The ways to grant all capabilities that the agent can use.
pub(super) fn grant() -> Vec<String> {
    let names = Capability::ALL.map(Capability::name);
    let lower = names.map(str::to_ascii_lowercase).join(",");
    let short: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix("CAP_")).collect();
    let program = std::env::current_exe()
        .map_or_else(|_| "/usr/local/bin/xtcp2-agent".to_owned(), |path| path.display().to_string());
    let docker: Vec<String> = short.iter().map(|name| format!("--cap-add {name}")).collect();
    vec![
        "by hand: sudo xtcp2-agent".to_owned(),
        format!("file:    setcap {lower}+ep {program}"),
        format!("systemd: AmbientCapabilities={0}, and the same in CapabilityBoundingSet=", names.join(" ")),
        format!(
            "docker:  --pid host --network host {} --security-opt apparmor=unconfined \
             -v /sys/kernel/tracing:/sys/kernel/tracing -v /run/netns:/run/netns:rslave",
            docker.join(" ")
        ),
        format!(
            "k8s:     hostPID: true, hostNetwork: true, securityContext: {{capabilities: {{add: [{}]}}}}",
            short.join(", ")
        ),
    ]
}
