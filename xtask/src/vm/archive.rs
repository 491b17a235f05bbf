//! Debian's archive through apt, with lists of its own: apt finds the mirror's files, verifies the suite's signature
//! and every SHA256 below it, and knows this machine's proxies. The system's own package lists stay as they are.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::kernel::FRESH;
use crate::command::output;

/// Some suites of the archive, with their indexes fetched.
pub(crate) struct Archive {
    home: PathBuf,
    suites: Vec<String>,
}

/// A package as the newest version in the suites' indexes has it.
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The names of the packages that it depends on, alternatives included.
    pub(crate) depends: Vec<String>,
}

/// The keys of the suites.
pub(super) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

impl Archive {
    /// Fetches the indexes of `suites` into `home` unless they are fresh; they are not once [`Self::forget`] was called.
    pub(crate) fn of(home: &Path, suites: &[&str]) -> Result<Self> {
        let archive =
            Self { home: home.join("apt"), suites: suites.iter().map(|&suite| suite.to_owned()).collect() };
        for folder in ["lists/partial", "cache/archives/partial"] {
            let folder = archive.home.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let sources = archive.sources();
        let list = archive.home.join("sources.list");
        let same = fs::read_to_string(&list).is_ok_and(|was| was == sources);
        let stamp = archive.stamp();
        let age = stamp.metadata().and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
        if same && age.is_some_and(|age| age < FRESH) {
            return Ok(archive);
        }
        fs::write(&list, sources).with_context(|| format!("write {}", list.display()))?;
        println!("fetching the indexes of {}", archive.suites());
        // Without it a suite that cannot be had is a warning.
        let mut update = archive.apt("apt-get");
        output(update.args(["-o", "APT::Update::Error-Mode=any", "update"]))
            .context("fetch the suites' indexes")?;
        fs::write(&stamp, "").with_context(|| format!("write {}", stamp.display()))?;
        Ok(archive)
    }

    fn stamp(&self) -> PathBuf {
        self.home.join("fetched")
    }

    /// Has the indexes of the suites in `home` fetched again: the mirror may have other packages by now.
    pub(crate) fn forget(home: &Path) {
        // Where there is none, they are fetched anyway.
        let _ = fs::remove_file(Self { home: home.join("apt"), suites: Vec::new() }.stamp());
    }

    /// The suites, for messages.
    pub(crate) fn suites(&self) -> String {
        self.suites.join(", ")
    }

    /// The package on which `meta` depends and whose name starts with `prefix`.
    pub(crate) fn dependency(&self, meta: &str, prefix: &str) -> Result<Package> {
        let package = self.package(meta)?;
        let name = package.depends.iter().find(|name| name.starts_with(prefix));
        self.package(name.with_context(|| format!("{meta} {} depends on no {prefix}…", package.version))?)
    }

    /// The newest package whose name starts and ends so.
    pub(crate) fn newest(&self, prefix: &str, suffix: &str) -> Result<Package> {
        let names = output(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        let mut found: Vec<Package> = Vec::new();
        for name in names.lines().filter(|name| name.ends_with(suffix)) {
            found.push(self.package(name)?);
        }
        let newest = found.into_iter().max_by(|one, other| compare(&one.version, &other.version));
        newest.with_context(|| format!("{} has no package {prefix}*{suffix}", self.suites()))
    }

    fn package(&self, name: &str) -> Result<Package> {
        let shown = output(self.apt("apt-cache").args(["show", "--no-all-versions", name]))
            .with_context(|| format!("find package {name} in {}", self.suites()))?;
        let field = |key: &str| shown.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let names = field("Depends:").unwrap_or_default().split([',', '|']);
        let names = names.filter_map(|part| part.split_whitespace().next()).map(str::to_owned);
        Ok(Package {
            name: name.to_owned(),
            version: field("Version:").with_context(|| format!("package {name} has no version"))?.to_owned(),
            depends: names.collect(),
        })
    }

    /// Fetches a package's newest version into `folder`; apt refuses one that has not the index's SHA256.
    pub(crate) fn download(&self, name: &str, folder: &Path) -> Result<PathBuf> {
        let planned = output(self.apt("apt-get").args(["--print-uris", "download", name]))
            .with_context(|| format!("find the file of package {name}"))?;
        let mut words = planned.split_whitespace();
        let (url, file) =
            (words.next().unwrap_or_default().trim_matches('\''), words.next().unwrap_or_default());
        let path =
            url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or(url, |(_, path)| path);
        println!("fetching {path}");
        // apt-get writes it where it runs. The folder need not be open to apt's own user.
        let mut fetch = Command::new("env");
        fetch.arg("--chdir").arg(folder).arg("apt-get").args(self.settings());
        fetch.args(["-o", "APT::Sandbox::User=root", "download", name]);
        output(&mut fetch).with_context(|| format!("fetch package {name} ({path})"))?;
        let deb = folder.join(file);
        if file.is_empty() || !deb.is_file() {
            bail!("apt fetched {path} and left no {}", deb.display());
        }
        Ok(deb)
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        apt.args(self.settings());
        apt
    }

    /// What makes apt work in `home` and nowhere else.
    fn settings(&self) -> Vec<String> {
        let folder = |key: &str, place: &str| format!("-o{key}={}", self.home.join(place).display());
        let mut settings = vec![
            folder("Dir::Etc::sourcelist", "sources.list"),
            folder("Dir::State", ""),
            folder("Dir::State::lists", "lists"),
            folder("Dir::Cache", "cache"),
        ];
        let fixed = [
            "-oDir::State::status=/dev/null",
            "-oDir::Etc::sourceparts=/dev/null",
            "-oDir::Etc::preferencesparts=/dev/null",
            "-oAPT::Architecture=amd64",
            "-oAcquire::Languages=none",
            // A mirror that stumbles is asked again, one that says nothing is given up.
            "-oAcquire::Retries=3",
            "-oAcquire::http::Timeout=60",
            "-oAcquire::https::Timeout=60",
            "-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        ];
        settings.extend(fixed.map(str::to_owned));
        settings
    }

    fn sources(&self) -> String {
        let mirror = mirror();
        let line = |suite: &String| {
            let uri =
                if suite.ends_with("-security") { format!("{mirror}-security") } else { mirror.clone() };
            format!("deb [arch=amd64 signed-by={KEYRING}] {uri} {suite} main\n")
        };
        self.suites.iter().map(line).collect()
    }
}

/// The mirror of Debian that this system's apt uses, else the one that is near everybody.
fn mirror() -> String {
    let format = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"];
    let configured = output(Command::new("apt-get").args(format)).unwrap_or_default();
    let mut mirrors = configured.lines().map(|uri| uri.trim_end_matches('/'));
    mirrors.find(|uri| uri.ends_with("/debian")).unwrap_or("http://deb.debian.org/debian").to_owned()
}

/// Orders versions as dpkg does.
fn compare(one: &str, other: &str) -> Ordering {
    let is = |relation: &str| {
        let mut dpkg = Command::new("dpkg");
        output(dpkg.args(["--compare-versions", one, relation, other])).is_ok()
    };
    if is("lt") {
        Ordering::Less
    } else if is("gt") {
        Ordering::Greater
    } else {
        Ordering::Equal
    }
}
