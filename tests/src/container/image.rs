//! The image of every container: one static busybox, whose program holds a connection to itself.

use std::path::{Path, PathBuf};

use super::Room;
use crate::process::run;

/// Its name in every engine.
pub const NAME: &str = "localhost/xtcp-test:1";

/// What busybox is called in it.
const APPLETS: [&str; 6] = ["busybox", "mkfifo", "nc", "sh", "sleep", "usleep"];

/// Listens on a port of every address, connects to it over loopback, and holds both ends.
const PROGRAM: &str = "
port=$0
mkfifo /pipe-$port
exec 3<>/pipe-$port
nc -ll -p $port -e /bin/sleep 999999 2>/dev/null &
until nc 127.0.0.1 $port <&3 2>/dev/null; do usleep 5000; done
";

/// The command of a container whose connection is on `port`.
pub fn command(port: u16) -> [String; 4] {
    ["/bin/sh".to_owned(), "-c".to_owned(), PROGRAM.to_owned(), port.to_string()]
}

/// Packs it as `docker save` would, which every engine reads. Without a command it sleeps, as a pod's pause process does.
pub(super) fn archive(room: &Room) -> String {
    let folder = room.dir().join("image");
    let bin = folder.join("root/bin");
    std::fs::create_dir_all(&bin).expect("the image's folder can be made");
    let busybox = busybox();
    std::fs::copy(&busybox, bin.join(APPLETS[0]))
        .unwrap_or_else(|e| panic!("{} cannot be copied: {e}", busybox.display()));
    for applet in &APPLETS[1..] {
        std::os::unix::fs::symlink(APPLETS[0], bin.join(applet)).expect("a link can be made");
    }
    let layer = room.path("image/layer.tar");
    run(&["tar", "-C", &room.path("image/root"), "-cf", &layer, "bin"]);
    let sum = run(&["sha256sum", &layer]);
    let sum = sum.split(' ').next().unwrap_or_default();
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = serde_json::json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/bin/sleep", "999999"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
    });
    let manifest =
        serde_json::json!([{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]);
    for (name, json) in [("config.json", config), ("manifest.json", manifest)] {
        std::fs::write(folder.join(name), json.to_string()).expect("the image's description can be written");
    }
    let archive = room.path("image.tar");
    run(&["tar", "-C", &room.path("image"), "-cf", &archive, "layer.tar", "config.json", "manifest.json"]);
    archive
}

/// Where Debian's `busybox-static` has it; plain `busybox` wants libraries that the image has not.
fn busybox() -> PathBuf {
    let found = ["/bin/busybox", "/usr/bin/busybox"].into_iter().map(Path::new).find(|path| path.is_file());
    let found = found.expect("there is no busybox: install what Debian calls busybox-static");
    let program = std::fs::read(found).expect("busybox can be read");
    let loader = b"/ld-linux";
    assert!(
        !program.windows(loader.len()).any(|bytes| bytes == loader),
        "{} is not static: install what Debian calls busybox-static",
        found.display()
    );
    found.to_owned()
}
