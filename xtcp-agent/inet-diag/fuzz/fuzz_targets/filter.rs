//! Any text as a filter: refused at a place that is in it, or a program that the kernel takes, and whose opposite says
//! the opposite.
#![no_main]

#[path = "../../src/filter/tests/audit.rs"]
mod audit;

use xtcp_inet_diag::bytecode::{Program, Subject, Verdict};
use xtcp_inet_diag::filter::{Filter, Names};

/// Knows every name but the shortest.
struct Most;

impl Names for Most {
    fn interface(&self, name: &str) -> Option<u32> {
        (name.len() > 1).then_some(3)
    }

    fn cgroup(&self, path: &str) -> Option<u64> {
        (path.len() > 1).then_some(77)
    }

    fn service(&self, name: &str) -> Option<u16> {
        (name.len() > 1).then_some(443)
    }
}

const KNOWN: Subject = Subject {
    family: 2,
    source_port: 40_000,
    destination_port: 443,
    source: [10, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    destination: [192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    interface: 3,
    mark: Some(0x15),
    cgroup_id: Some(77),
    autobound: Some(true),
};
const SUBJECTS: [Subject; 3] = [
    KNOWN,
    Subject { family: 10, ..KNOWN },
    Subject { interface: 0, mark: None, cgroup_id: None, autobound: None, ..KNOWN },
];

fn compiled<'t>(text: &'t str, filter: &Filter<'t>) -> Option<Program> {
    match filter.compile(&Most) {
        Ok(program) => {
            assert_eq!(audit::audit(program.as_bytes()), Ok(()));
            Some(program)
        }
        Err(error) => {
            assert!(text.is_char_boundary(error.offset) && !error.to_string().is_empty());
            None
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let filter = match Filter::parse(text) {
        Ok(filter) => filter,
        Err(error) => {
            assert!(text.is_char_boundary(error.offset) && !error.to_string().is_empty());
            return;
        }
    };
    let Some(program) = compiled(text, &filter) else { return };
    let opposite = format!("not ( {text} )");
    // It may be too long or too deep; states and an empty filter have no opposite.
    let Ok(negated) = Filter::parse(&opposite) else { return };
    let Some(negated) = compiled(&opposite, &negated) else { return };
    for subject in SUBJECTS {
        let wanted = match program.judge(&subject) {
            Verdict::Pass => Verdict::Refuse,
            Verdict::Refuse => Verdict::Pass,
            Verdict::Unknown => Verdict::Unknown,
        };
        assert_eq!(negated.judge(&subject), wanted);
    }
});
