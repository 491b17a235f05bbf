//! Debian's kernels: which package of which suite is the newest of a version, and its image and modules on this disk.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use super::archive::{Archive, Package};
use crate::command::{output, run, which};
use crate::workspace;

/// A kernel to boot.
pub(crate) struct Kernel {
    /// What `--kernel` calls it.
    pub(crate) name: String,
    /// The bootable image.
    pub(crate) image: PathBuf,
    /// A folder that holds `lib/modules/RELEASE` with uncompressed modules and their index.
    pub(crate) modules: PathBuf,
}

/// What `--kernel` can name, and the suites that have it: the newest of each is taken.
const KERNELS: [(&str, &[&str]); 4] = [
    ("5.10", &["bullseye", "bullseye-security"]),
    ("6.1", &["bookworm", "bookworm-security"]),
    ("6.12", &["trixie", "trixie-security"]),
    ("newest", &["trixie-backports"]),
];

/// The package that depends on the newest kernel of a suite.
const META: &str = "linux-image-cloud-amd64";

/// Between two attempts to fetch a kernel.
const PAUSES: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(60)];

/// The names that `--kernel all` stands for.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    KERNELS.iter().map(|(name, _)| *name)
}

/// Finds the newest package of `name` and fetches it unless it is here. Another `X.Y` than the table's is looked for
/// in the suite of the newest.
pub(crate) fn fetch(name: &str) -> Result<Kernel> {
    let known = KERNELS.iter().find(|(known, _)| *known == name);
    let Some((_, suites)) = known.or(KERNELS.last()) else { bail!("there is no kernel to boot") };
    let home = workspace::target().join("vm").join(name);
    fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
    let _lock = lock(&home.join("lock"))?;
    let fetch = || {
        let archive = Archive::of(&home, suites)?;
        let package = if known.is_some() {
            archive.dependency(META, "linux-image-")?
        } else {
            archive.newest(&format!("linux-image-{name}."), "-cloud-amd64")?
        };
        unpacked(&home, &archive, &package)
    };
    let mut fetched = fetch();
    for pause in PAUSES {
        let Err(error) = &fetched else { break };
        println!("kernel {name}: {error:#}; again in {} s", pause.as_secs());
        std::thread::sleep(pause);
        // The mirror may have taken the package away for a newer one, or was in the middle of that.
        Archive::forget(&home);
        fetched = fetch();
    }
    let folder = fetched.with_context(|| format!("kernel {name} ({})", suites.join(", ")))?;
    Ok(Kernel { name: name.to_owned(), image: folder.join("vmlinuz"), modules: folder })
}

/// Two commands at once must not unpack into one folder.
fn lock(path: &Path) -> Result<Flock<File>> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("lock {}", path.display()))
}

fn unpacked(home: &Path, archive: &Archive, package: &Package) -> Result<PathBuf> {
    let prefix = "linux-image-";
    let release = package.name.strip_prefix(prefix).context("the package names no release")?;
    let version = package.version.replace([':', '/'], "_");
    let folder = home.join(&version);
    println!("kernel {release}, version {}, {}", package.version, archive.suites());
    if folder.exists() {
        return Ok(folder);
    }
    let work = home.join("unpack");
    for old in others(home)? {
        fs::remove_dir_all(&old).with_context(|| format!("remove {}", old.display()))?;
    }
    let raw = work.join("raw");
    fs::create_dir_all(&raw).with_context(|| format!("create {}", raw.display()))?;
    // From 7.x on the package of that name is empty: image and modules have packages of their own.
    let mut parts = vec![package.name.clone()];
    let part_of = |name: &str| ["linux-binary-", "linux-modules-"].iter().any(|part| name.starts_with(part));
    parts.extend(package.depends.iter().filter(|name| part_of(name) && name.ends_with(release)).cloned());
    for part in parts {
        let deb = archive.download(&part, &work)?;
        run(Command::new("dpkg-deb").arg("--extract").arg(&deb).arg(&raw))?;
    }
    let image = [format!("boot/vmlinuz-{release}"), format!("usr/lib/modules/{release}/vmlinuz")];
    let image = image.iter().map(|path| raw.join(path)).find(|path| path.exists());
    let image = image.with_context(|| format!("{} brings no kernel image", package.name))?;
    fs::copy(&image, work.join("vmlinuz")).with_context(|| format!("copy {}", image.display()))?;
    modules(&raw, &work, release)?;
    fs::remove_dir_all(&raw).with_context(|| format!("remove {}", raw.display()))?;
    fs::rename(&work, &folder).with_context(|| format!("keep {}", folder.display()))?;
    Ok(folder)
}

/// What earlier versions and interrupted unpacking left.
fn others(home: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(home).with_context(|| format!("list {}", home.display()))?;
    let folders = entries.flatten().map(|entry| entry.path()).filter(|path| path.join("vmlinuz").exists());
    Ok(folders.chain(Some(home.join("unpack")).filter(|path| path.exists())).collect())
}

/// What of the modules goes into a guest: networking, and what a guest needs to talk to its host.
const MODULES: [&str; 6] = ["net", "crypto", "lib", "drivers/net", "drivers/virtio", "drivers/char"];

fn modules(raw: &Path, work: &Path, release: &str) -> Result<()> {
    let places = ["lib/modules", "usr/lib/modules"].map(|place| raw.join(place).join(release));
    let from = places.iter().find(|place| place.join("kernel").exists());
    let from = from.with_context(|| format!("there are no modules of {release}"))?;
    let to = work.join("lib/modules").join(release);
    fs::create_dir_all(to.join("kernel")).with_context(|| format!("create {}", to.display()))?;
    for file in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        if from.join(file).exists() {
            fs::copy(from.join(file), to.join(file)).with_context(|| format!("copy {file}"))?;
        }
    }
    for part in MODULES.iter().chain(&["arch/x86/crypto"]) {
        let (from, to) = (from.join("kernel").join(part), to.join("kernel").join(part));
        if from.exists() {
            let parent = to.parent().context("a folder has a parent")?;
            fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
            fs::rename(&from, &to).with_context(|| format!("keep {}", from.display()))?;
        }
    }
    // Packed ones would be unpacked by the guest, on every load and ten times slower.
    let packed = output(Command::new("find").arg(&to).args(["-name", "*.ko.xz"]))?;
    if !packed.is_empty() {
        let mut unxz = Command::new("xz");
        output(unxz.args(["--decompress", "--threads=0"]).args(packed.lines()))?;
    }
    let busybox = which("busybox").context("there is no busybox (Debian: busybox-static)")?;
    output(Command::new(busybox).args(["depmod", "-b"]).arg(work).arg(release))
        .context("index the modules")?;
    Ok(())
}

/// For how long the suites' indexes are taken as they are.
pub(crate) const FRESH: Duration = Duration::from_secs(12 * 60 * 60);
