use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// What lldpcli 1.0.16 said of one neighbour on a veth, and of two.
const ONE: &[u8] = include_bytes!("one.json");
const TWO: &[u8] = include_bytes!("two.json");

#[test]
fn what_lldpcli_said_becomes_neighbours() {
    let one = Neighbour {
        chassis_name: "vm".to_owned(),
        chassis_id: "c2:90:68:b4:53:5b".to_owned(),
        mgmt_ip: "192.0.2.2".to_owned(),
        port_id: "c2:90:68:b4:53:5b".to_owned(),
        port_descr: "hostvb".to_owned(),
    };
    assert_eq!(parse(ONE).unwrap(), [("hostva".to_owned(), one.clone())]);
    let other = Neighbour {
        chassis_name: "tor-7.example".to_owned(),
        chassis_id: "b2:f9:01:dc:9b:fe".to_owned(),
        mgmt_ip: String::new(),
        port_id: "Ethernet1/7".to_owned(),
        port_descr: "uplink to \\u00e9 rack".to_owned(),
    };
    assert_eq!(parse(TWO).unwrap(), [("hostva".to_owned(), one), ("hostvd".to_owned(), other)]);
}

#[test]
fn who_says_little_is_a_neighbour_all_the_same() {
    for nobody in [r#"{"lldp":[]}"#, r#"{"lldp":[{}]}"#, r#"{"lldp":[{"interface":[]}]}"#] {
        assert_eq!(parse(nobody.as_bytes()).unwrap(), []);
    }
    let bare = br#"{"lldp":[{"interface":[{"name":"eth0","more":1}]}]}"#;
    assert_eq!(parse(bare).unwrap(), [("eth0".to_owned(), Neighbour::default())]);
}

#[test]
fn a_neighbours_text_is_cut_and_freed_of_control_characters() {
    let text = format!(
        r#"{{"lldp":[{{"interface":[{{"name":"eth0","port":[{{"descr":[{{"value":"a\u001b[2J\n{}"}}]}}]}}]}}]}}"#,
        "x".repeat(1000)
    );
    let (_, neighbour) = parse(text.as_bytes()).unwrap().remove(0);
    assert!(neighbour.port_descr.starts_with("a[2Jxx") && neighbour.port_descr.len() == LONGEST);
}

#[test]
fn every_cut_of_an_answer_is_an_error_and_no_panic() {
    let end = TWO.iter().rposition(|byte| *byte == b'}').unwrap();
    for length in 0..end {
        assert!(parse(&TWO[..length]).is_err(), "{length}");
    }
}

async fn ask(script: &str) -> Result<Vec<(String, Neighbour)>, LldpError> {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("lldpcli");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    loop {
        match neighbours(&program).await {
            // Another test's fork still has the script open for writing.
            Err(LldpError::Run { source, .. }) if source.kind() == io::ErrorKind::ExecutableFileBusy => {}
            answer => return answer,
        }
    }
}

#[tokio::test]
async fn a_program_that_fails_or_babbles_is_named() {
    let error = ask("echo no lldpd >&2; exit 3").await.unwrap_err().to_string();
    assert!(error.contains("no lldpd") && error.contains('3'), "{error}");
    assert!(matches!(ask("echo hello").await, Err(LldpError::Json { .. })));
    assert!(matches!(ask("exit 0").await, Err(LldpError::Json { .. })));
    assert!(matches!(ask("yes").await, Err(LldpError::TooMuch { .. })));
    assert!(matches!(neighbours(Path::new("/nonexistent")).await, Err(LldpError::Run { .. })));
    assert_eq!(ask(r#"test "$*" = "-f json0 show neighbors" && echo '{"lldp":[]}'"#).await.unwrap(), []);
}

#[tokio::test]
async fn a_program_that_hangs_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let answer = ask(&format!("echo $$ > {}; exec sleep 1000", pid.display())).await;
    assert!(matches!(answer, Err(LldpError::Hangs { .. })), "{answer:?}");
    let pid = fs::read_to_string(pid).unwrap();
    let limit = std::time::Instant::now() + Duration::from_secs(30);
    let runs =
        || fs::read_to_string(format!("/proc/{}/comm", pid.trim())).is_ok_and(|comm| comm == "sleep\n");
    while runs()
        && fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| !stat.contains(") Z "))
    {
        assert!(std::time::Instant::now() < limit, "it still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
