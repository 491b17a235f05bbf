use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::super::Address;
use super::*;

fn payload(text: &str) -> Payload {
    Payload { bytes: text.to_owned().into(), header: 0, rows: 1, id: "i-1-0".into() }
}

fn csv(text: &str) -> Payload {
    Payload { header: "column\n".len(), ..payload(&format!("column\n{text}")) }
}

fn address(text: &str) -> Address {
    super::super::parse(text, &[]).expect(text)
}

fn log(path: &Path, rotation: Rotation, fsync: Fsync) -> Log {
    let settings = Settings { path: path.to_owned(), rotation, fsync };
    Log { settings, format: crate::marshaller::LINES, open: None }
}

fn rotating(path: &Path, options: &str) -> Log {
    let rotation = Rotation::read(&Options::parse(options).expect("options")).expect(options);
    log(path, rotation, Fsync::Close)
}

fn plain(path: &Path) -> Log {
    log(path, Rotation::default(), Fsync::Batch)
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// The files of a folder with their content, by name.
fn files(dir: &TempDir) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = fs::read_dir(dir.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry"))
        .map(|entry| {
            (
                entry.file_name().into_string().expect("a name"),
                fs::read_to_string(entry.path()).expect("a text"),
            )
        })
        .collect();
    files.sort();
    files
}

#[test]
fn batches_follow_each_other_also_over_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("rows.jsonl");
    plain(&path).append(&payload("1\n"), at(1)).expect("written");
    plain(&path).append(&payload("2\n"), at(2)).expect("written");
    assert_eq!(files(&dir), [("rows.jsonl".to_owned(), "1\n2\n".to_owned())]);
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o640);
}

#[test]
fn a_file_that_would_be_too_large_is_set_aside_and_the_oldest_go() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("rows");
    let mut log = rotating(&path, "rotate-bytes=4096&keep=2");
    for number in 0..5 {
        let line = format!("{number}{}\n", ".".repeat(3000));
        log.append(&payload(&line), at(100 + number)).expect("written");
    }
    let found: Vec<(String, char)> = files(&dir)
        .into_iter()
        .map(|(name, text)| {
            assert_eq!(text.len(), 3002, "{name} holds one batch whole");
            (name, text.chars().next().expect("a number"))
        })
        .collect();
    let name = |name: &str| name.to_owned();
    assert_eq!(
        found,
        [
            (name("rows"), '4'),
            (name("rows.19700101T000143.000Z"), '2'),
            (name("rows.19700101T000144.000Z"), '3'),
        ]
    );
}

#[test]
fn a_batch_larger_than_the_limit_has_a_file_of_its_own() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut log = rotating(&dir.path().join("rows"), "rotate-bytes=4096");
    for second in 0..2 {
        log.append(&payload(&format!("{}\n", "x".repeat(9000))), at(second)).expect("written");
    }
    assert_eq!(files(&dir).iter().map(|(_, text)| text.len()).collect::<Vec<_>>(), [9001, 9001]);
}

#[test]
fn each_hour_has_a_file_also_when_two_are_set_aside_in_one_millisecond() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("rows");
    let mut log = rotating(&path, "rotate-every=1h");
    // As it lies on disk, the file was written now.
    for (hour, text) in [(1, "a\n"), (1, "b\n"), (2, "c\n")] {
        log.append(&payload(text), at(hour * 3600)).expect("written");
    }
    let texts: Vec<String> = files(&dir).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["c\n", "a\nb\n"]);
    let rotation = Rotation::default();
    for text in ["d", "e"] {
        fs::write(&path, text).expect("written");
        rotation.set_aside(&path, at(7200)).expect("set aside");
    }
    let names: Vec<String> = files(&dir).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        ["rows.19700101T020000.000Z", "rows.19700101T020000.001Z", "rows.19700101T020000.002Z"]
    );
}

#[test]
fn each_file_names_its_columns_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("rows.csv");
    let mut log = rotating(&path, "rotate-every=1h");
    for (hour, row) in [(1, "1\n"), (1, "2\n"), (2, "3\n")] {
        log.append(&csv(row), at(hour * 3600)).expect("written");
    }
    drop(log);
    rotating(&path, "rotate-every=1000h").append(&csv("4\n"), SystemTime::now()).expect("written");
    let texts: Vec<String> = files(&dir).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["column\n3\n4\n", "column\n1\n2\n"]);
}

#[test]
fn a_file_with_other_columns_is_set_aside() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("rows.csv");
    fs::write(&path, "other,columns\n1,2\n").expect("written");
    plain(&path).append(&csv("3\n"), at(0)).expect("written");
    let texts: Vec<String> = files(&dir).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["column\n3\n", "other,columns\n1,2\n"]);
}

#[test]
fn a_file_that_ends_within_a_batch_is_set_aside() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("rows.jsonl");
    fs::write(&path, "{}\n{\"hostn").expect("written");
    plain(&path).append(&payload("{}\n"), at(0)).expect("written");
    let texts: Vec<String> = files(&dir).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["{}\n", "{}\n{\"hostn"]);
}

#[test]
fn a_file_that_was_moved_or_deleted_is_begun_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("rows");
    let mut log = plain(&path);
    log.append(&csv("1\n"), at(0)).expect("written");
    fs::rename(&path, dir.path().join("rows.1")).expect("moved");
    log.append(&csv("2\n"), at(0)).expect("written");
    fs::remove_file(&path).expect("deleted");
    log.append(&csv("3\n"), at(0)).expect("written");
    // As logrotate's copytruncate does.
    fs::write(&path, "").expect("emptied");
    log.append(&csv("4\n"), at(0)).expect("written");
    let texts: Vec<String> = files(&dir).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["column\n4\n", "column\n1\n"]);
}

#[test]
fn a_second_writer_is_kept_out_and_told_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("rows");
    let mut first = plain(&path);
    first.append(&payload("1\n"), at(0)).expect("written");
    let error = plain(&path).append(&payload("2\n"), at(0)).expect_err("locked").to_string();
    assert!(error.ends_with("holds its lock: give each destination a file of its own"), "{error}");
    drop(first);
    plain(&path).append(&payload("3\n"), at(0)).expect("free again");
    assert_eq!(files(&dir), [("rows".to_owned(), "1\n3\n".to_owned())]);
}

#[tokio::test]
async fn what_cannot_be_opened_is_named_with_its_fix_and_nothing_is_left_by_a_probe() {
    let dir = tempfile::tempdir().expect("a folder");
    let context = Context { hostname: "h".into(), topic: String::new(), format: crate::marshaller::LINES };
    let shown = dir.path().display();
    symlink("/dev/null", dir.path().join("null")).expect("linked");
    let missing = format!(
        "file {shown}/no/rows: cannot be opened: no such file or directory (ENOENT): make the folder {shown}/no"
    );
    let device = format!("file {shown}/null: it is no regular file: choose another path");
    for (name, expected) in [("no/rows", missing), ("null", device)] {
        let mut file = address(&format!("file:{shown}/{name}")).open(&context).expect("opened");
        for error in [file.probe().await.map(drop), file.send(&payload("1\n")).await] {
            let error = error.expect_err(name);
            assert!(matches!(error, SendError::Retry(_)), "{error:?}");
            assert_eq!(error.to_string(), expected);
        }
    }
    let mut file = address(&format!("file:{shown}/rows")).open(&context).expect("opened");
    let found = file.probe().await.expect("probed");
    assert!(found.contains("can be appended to (0 bytes so far, "), "{found}");
    assert!(!dir.path().join("rows").exists());
    file.send(&payload("1\n")).await.expect("sent");
    file.flush().await.expect("flushed");
    let found = file.probe().await.expect("probed");
    assert!(found.contains("(2 bytes so far, "), "{found}");
}

#[test]
fn what_is_no_path_is_malformed() {
    for (text, problem) in [
        ("file:", "there is no path"),
        ("file:/var/log/", "\"/var/log/\" names a folder"),
        ("file:rows#keep=3", "option keep needs rotate-bytes or rotate-every"),
        ("file:rows#fsync=always", "option fsync=always: accepted: never, batch, close"),
    ] {
        let error = super::super::parse(text, &[]).expect_err(text).to_string();
        assert!(error.contains(problem), "{error}");
    }
}
