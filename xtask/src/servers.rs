//! Servers that tests of destinations need and that Debian does not package: nsqd and MinIO, built from their Go modules,
//! and Apache Kafka, fetched as jars. They are kept in `target/servers`, each with the recipe that made it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use crate::command::{output, run, which};
use crate::stage::Stages;
use crate::test::{self, Scale};
use crate::{debian, python, workspace};

const NSQ: &str = "github.com/nsqio/nsq@v1.3.0";
const MINIO: &str = "github.com/minio/minio";
const MINIO_VERSION: &str = "v0.0.0-20260212201848-7aac2a2c5b7c";
const NSQD_GO: &str = include_str!("servers/nsqd.go");
const KAFKA_POM: &str = include_str!("servers/kafka.pom.xml");

/// What both Go modules are built in.
const GO_MOD: &str = "module server\n\ngo 1.21\n";

/// From this minor version of Go 1 on, `go` fetches the compiler that a module asks for.
const FETCHES_COMPILERS: u32 = 21;

/// The compiler that an older `go` is made to fetch.
const GO_TOOLCHAIN: &str = "golang.org/toolchain@v0.0.1-go1.25.5.linux";

/// `cargo xtask servers`: makes what is not there yet.
pub(crate) fn main() -> Result<()> {
    prepare(&mut Vec::new()).map(|home| println!("the servers are in {}", workspace::shown(&home)))
}

/// The tests against these servers: every file of `tests/tests` that requires the feature `foreign`.
pub(crate) fn stages_of(stages: &mut Stages, options: &test::Options, scale: Scale) {
    let name = "servers that are no packages";
    let mut home = None;
    let made = stages.run_noting("servers that are no packages, made", |notes| {
        home = Some(prepare(notes)?);
        Ok(())
    });
    let Some(home) = home.filter(|_| made) else {
        return stages.skip(name, "they could not be made");
    };
    if !workspace::agent().is_file() {
        return stages.skip(name, "there is no agent to test");
    }
    stages.run_noting(name, |notes| {
        let mut packages = vec!["--package".to_owned(), "xtcp-tests".to_owned()];
        packages.extend(["--features".to_owned(), "foreign".to_owned()]);
        packages.extend(files()?.into_iter().flat_map(|file| ["--test".to_owned(), file]));
        let mut cargo = test::whole_program(options, scale, &python::venv()?, &packages)?;
        test::listen(cargo.env("XTCP_SERVERS", home), scale, notes).map(drop)
    });
}

/// Names of the files of tests that need a server from here.
fn files() -> Result<Vec<String>> {
    let mut cargo = Command::new(workspace::cargo());
    let told = output(cargo.args(["metadata", "--no-deps", "--locked", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&told).context("read what cargo says")?;
    let list = |value: &serde_json::Value, key: &str| {
        value.get(key).and_then(serde_json::Value::as_array).cloned().unwrap_or_default()
    };
    let files: Vec<String> = list(&metadata, "packages")
        .iter()
        .flat_map(|package| list(package, "targets"))
        .filter(|target| list(target, "kind").iter().any(|kind| kind == "test"))
        .filter(|target| list(target, "required-features").iter().any(|feature| feature == "foreign"))
        .filter_map(|target| target.get("name")?.as_str().map(str::to_owned))
        .collect();
    if files.is_empty() {
        bail!("no file of tests requires the feature foreign");
    }
    Ok(files)
}

/// The folder of all three servers; notes what had to be made.
fn prepare(notes: &mut Vec<String>) -> Result<PathBuf> {
    let home = workspace::target().join("servers");
    fs::create_dir_all(&home).with_context(|| format!("create {}", home.display()))?;
    let mut make = |name: &str, recipe: String, cook: fn(&Path) -> Result<()>| -> Result<()> {
        let (place, written) = (home.join(name), home.join(format!("{name}.recipe")));
        if place.exists() && fs::read_to_string(&written).is_ok_and(|last| last == recipe) {
            println!("{} is here", workspace::shown(&place));
            return Ok(());
        }
        let kitchen = home.join(format!("{name}.build"));
        for folder in [&kitchen, &place] {
            remove(folder)?;
        }
        fs::create_dir_all(&kitchen).with_context(|| format!("create {}", kitchen.display()))?;
        cook(&kitchen).with_context(|| format!("make {name}"))?;
        let product = kitchen.join("product");
        fs::rename(&product, &place).with_context(|| format!("move {} away", product.display()))?;
        remove(&kitchen)?;
        fs::write(&written, recipe).with_context(|| format!("write {}", written.display()))?;
        notes.push(format!("made {name}"));
        Ok(())
    };
    make("kafka", KAFKA_POM.to_owned(), kafka)?;
    make("nsqd", format!("{NSQ}\n{NSQD_GO}"), nsqd)?;
    make("minio", format!("{MINIO}@{MINIO_VERSION}\n"), minio)?;
    Ok(home)
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A broker's jars, and the Java that runs them.
fn kafka(kitchen: &Path) -> Result<()> {
    if which("java").is_none() || which("mvn").is_none() {
        debian::need(
            &["default-jre-headless", "maven"],
            "Apache Kafka is fetched with Maven and runs in Java, and they are missing here",
        )?;
    }
    fs::write(kitchen.join("pom.xml"), KAFKA_POM).context("write pom.xml")?;
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "dependency:copy-dependencies", "-f"]).arg(kitchen.join("pom.xml"));
    run(maven.arg(format!("-DoutputDirectory={}", kitchen.join("product").display())))
        .context("fetch Kafka's jars")
}

fn nsqd(kitchen: &Path) -> Result<()> {
    let go = go_module(kitchen, NSQ)?;
    fs::write(kitchen.join("main.go"), NSQD_GO).context("write main.go")?;
    run(go.run(kitchen).args(["build", "-mod=mod", "-o", "product", "."]))
}

fn minio(kitchen: &Path) -> Result<()> {
    let go = go_module(kitchen, &format!("{MINIO}@{MINIO_VERSION}"))?;
    run(go.run(kitchen).args(["build", "-o", "product", MINIO]))
}

/// A Go module that requires another one, and the Go to build it with.
fn go_module(kitchen: &Path, requires: &str) -> Result<Go> {
    let go = Go::find()?;
    fs::write(kitchen.join("go.mod"), GO_MOD).context("write go.mod")?;
    run(go.run(kitchen).args(["get", requires]))?;
    Ok(go)
}

/// The program `go`.
struct Go(PathBuf);

impl Go {
    /// One that is here, else Debian's. An old one fetches a newer one.
    fn find() -> Result<Self> {
        let installed = || {
            which("go").or_else(|| Some("/usr/local/go/bin/go".into()).filter(|go: &PathBuf| go.is_file()))
        };
        if installed().is_none() {
            debian::need(&["golang-go"], "nsqd and MinIO are built with Go, which is missing here")?;
        }
        let go = installed().ok_or_else(|| anyhow!("there is still no go on the PATH"))?;
        let version = output(Command::new(&go).args(["env", "GOVERSION"]))?;
        if minor(&version).is_some_and(|minor| minor >= FETCHES_COMPILERS) {
            return Ok(Self(go));
        }
        println!("{} at {} is too old", version.trim(), go.display());
        Self::fetched_by(&go)
    }

    /// The compiler as a module, as newer `go` commands fetch it themselves.
    fn fetched_by(old: &Path) -> Result<Self> {
        let word = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let mut download = Command::new(old);
        download.args(["mod", "download", "-json", &format!("{GO_TOOLCHAIN}-{word}")]);
        let told = output(&mut download).context("fetch a newer Go")?;
        let told: serde_json::Value = serde_json::from_str(&told).context("read what go says")?;
        let home = told.get("Dir").and_then(serde_json::Value::as_str).context("go says no Dir")?;
        // A module's files are not executable.
        run(Command::new("chmod").args(["-R", "u+x", &format!("{home}/bin"), &format!("{home}/pkg/tool")]))?;
        Ok(Self(Path::new(home).join("bin/go")))
    }

    /// A command in the module's folder.
    fn run(&self, module: &Path) -> Command {
        let mut command = Command::new(&self.0);
        command.arg("-C").arg(module).env("GOTOOLCHAIN", "auto").env("CGO_ENABLED", "0");
        command
    }
}

/// The second number of `go1.26.8`.
fn minor(version: &str) -> Option<u32> {
    let rest = version.trim().strip_prefix("go1.")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minor_version_of_go_is_read_with_and_without_a_patch() {
        let versions = ["go1.26.8\n", "go1.19", "go1.22rc1", "devel go1.27-abcdef", ""];
        assert_eq!(versions.map(minor), [Some(26), Some(19), Some(22), None, None]);
    }
}
