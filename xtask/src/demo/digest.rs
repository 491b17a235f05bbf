//! What a newcomer should see of the agent's output: rows and events of the demonstration's namespaces, shortened; of
//! everything else the number. Never more than a reader can follow.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::render::{self, number, text};

/// At most so many lines in a second.
const LINES_PER_SECOND: u32 = 50;
/// How often what is not shown is summed up.
const SUM_UP: Duration = Duration::from_secs(5);

/// The fields of an event of which exactly one is there.
const KINDS: [&str; 5] = ["netnsCreated", "netnsDestroyed", "tcpState", "tcpClose", "loss"];

pub(super) struct Digest {
    names: HashSet<&'static str>,
    /// The demonstration's namespaces by inode: what comes early does not know the name yet.
    own: HashMap<u64, &'static str>,
    destroyed: HashSet<u64>,
    rows: u64,
    events: HashMap<&'static str, u64>,
    hidden: Hidden,
    summed_up: Option<Instant>,
    second: Option<(Instant, u32)>,
}

/// What was not shown since it was last summed up.
#[derive(Default)]
struct Hidden {
    other_rows: u64,
    other_events: u64,
    more: u64,
}

impl Digest {
    pub(super) fn new(names: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            names: names.into_iter().collect(),
            own: HashMap::new(),
            destroyed: HashSet::new(),
            rows: 0,
            events: HashMap::new(),
            hidden: Hidden::default(),
            summed_up: None,
            second: None,
        }
    }

    /// Says that the namespace of this inode is one of the demonstration's.
    pub(super) fn own(&mut self, inode: u64, name: &'static str) {
        self.own.insert(inode, name);
    }

    /// From now on the end of the demonstration's namespaces counts.
    pub(super) fn expect_the_end(&mut self) {
        self.destroyed.clear();
    }

    /// Takes a line of the agent's output; returns what to show now, if anything.
    pub(super) fn take(&mut self, line: &str, now: Instant) -> Option<String> {
        let Ok(value) = serde_json::from_str::<Value>(line) else {
            return Some(line.to_owned());
        };
        let shown = match KINDS.into_iter().find_map(|kind| Some((kind, value.get(kind)?))) {
            Some((kind, event)) => self.event(&value, kind, event),
            None => self.row(&value),
        };
        let shown = shown.filter(|_| self.may_show(now));
        let sum = self.sum_up(now);
        match (shown, sum) {
            (Some(shown), Some(sum)) => Some(format!("{shown}\n{sum}")),
            (shown, sum) => shown.or(sum),
        }
    }

    fn row(&mut self, row: &Value) -> Option<String> {
        let Some(name) = self.own_name(number(row, "netnsInode"), text(row, "netns")) else {
            self.hidden.other_rows += 1;
            return None;
        };
        self.rows += 1;
        Some(render::row(name, row))
    }

    fn event(&mut self, value: &Value, kind: &'static str, event: &Value) -> Option<String> {
        let netns = value.get("netns").unwrap_or(&Value::Null);
        let (inode, name) = (number(netns, "inode"), text(netns, "name"));
        let own = self.own_name(inode, name);
        let lifecycle = matches!(kind, "netnsCreated" | "netnsDestroyed" | "loss");
        if own.is_none() && !lifecycle {
            self.hidden.other_events += 1;
            return None;
        }
        *self.events.entry(kind).or_default() += 1;
        if kind == "netnsDestroyed" && own.is_some() {
            self.destroyed.insert(inode);
        }
        // A connection has ten changes of state over both ends; its beginning and its end are enough here.
        if kind == "tcpState" && text(event, "newState") != "TCP_STATE_ESTABLISHED" {
            self.hidden.more += 1;
            return None;
        }
        let unnamed = if name.is_empty() { format!("netns:[{inode}]") } else { name.to_owned() };
        Some(render::event(own.unwrap_or(&unnamed), kind, event))
    }

    fn own_name(&self, inode: u64, name: &str) -> Option<&'static str> {
        self.own.get(&inode).or_else(|| self.names.get(name)).copied()
    }

    fn may_show(&mut self, now: Instant) -> bool {
        let (start, lines) = self.second.unwrap_or((now, 0));
        let (start, lines) =
            if now.duration_since(start) >= Duration::from_secs(1) { (now, 0) } else { (start, lines) };
        self.second = Some((start, lines + 1));
        let may = lines < LINES_PER_SECOND;
        self.hidden.more += u64::from(!may);
        may
    }

    fn sum_up(&mut self, now: Instant) -> Option<String> {
        let since = *self.summed_up.get_or_insert(now);
        if now.duration_since(since) < SUM_UP {
            return None;
        }
        self.summed_up = Some(now);
        let Hidden { other_rows, other_events, more } = std::mem::take(&mut self.hidden);
        (other_rows + other_events + more > 0).then(|| {
            format!(
                "--- not shown: {more} more of these namespaces, {other_rows} rows and {other_events} events of others"
            )
        })
    }

    /// Whether the end of each of the demonstration's namespaces was told; at once where no events come.
    pub(super) fn all_destroyed(&self) -> bool {
        self.events.is_empty() || self.own.keys().all(|inode| self.destroyed.contains(inode))
    }

    pub(super) fn saw_rows(&self) -> bool {
        self.rows > 0
    }

    /// The last line.
    pub(super) fn closing(&self) -> String {
        if self.events.is_empty() {
            return format!("--- {} rows and no events: `xtcp2-agent check` says why", self.rows);
        }
        let count = |kind| self.events.get(kind).copied().unwrap_or(0);
        format!(
            "--- {} rows; {} namespaces created, {} destroyed; {} changes of state, {} connections closed",
            self.rows,
            count("netnsCreated"),
            count("netnsDestroyed"),
            count("tcpState"),
            count("tcpClose"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: &str = r#"{"netns":{"inode":"7"},"tcpState":{"newState":"TCP_STATE_ESTABLISHED"}}"#;

    fn digest() -> Digest {
        let mut digest = Digest::new(["xtcp-demo-1"]);
        digest.own(7, "xtcp-demo-1");
        digest
    }

    #[test]
    fn rows_and_events_of_other_namespaces_are_counted_and_summed_up() {
        let (mut digest, start) = (digest(), Instant::now());
        assert_eq!(digest.take(r#"{"netns":"default","inetDiagMsgState":1}"#, start), None);
        assert_eq!(digest.take(r#"{"netns":{"inode":"8"},"tcpState":{}}"#, start), None);
        let shown = digest.take(r#"{"netns":"xtcp-demo-1"}"#, start + SUM_UP).expect("own row is shown");
        assert!(shown.ends_with("0 more of these namespaces, 1 rows and 1 events of others"), "{shown}");
        assert!(digest.saw_rows());
    }

    #[test]
    fn an_event_or_row_without_a_name_is_known_by_its_inode() {
        let shown = digest().take(STATE, Instant::now()).expect("own event is shown");
        assert!(shown.starts_with("event  xtcp-demo-1"), "{shown}");
        let row = r#"{"netns":"netns:[7]","netnsInode":"7"}"#;
        let shown = digest().take(row, Instant::now()).expect("own row is shown");
        assert!(shown.starts_with("row    xtcp-demo-1"), "{shown}");
    }

    #[test]
    fn a_flood_is_cut_to_what_a_reader_can_follow() {
        let (mut digest, now) = (digest(), Instant::now());
        let shown = (0..1000).filter(|_| digest.take(STATE, now).is_some()).count();
        assert_eq!(u32::try_from(shown), Ok(LINES_PER_SECOND));
        assert!(digest.take(STATE, now + Duration::from_secs(1)).is_some());
    }

    #[test]
    fn the_end_is_complete_when_every_own_namespace_was_told_as_destroyed() {
        let mut digest = digest();
        assert!(digest.all_destroyed(), "without events there is nothing to wait for");
        digest.take(STATE, Instant::now());
        assert!(!digest.all_destroyed());
        digest.take(r#"{"netns":{"inode":"7"},"netnsDestroyed":{"lifetimeNs":"1"}}"#, Instant::now());
        assert!(digest.all_destroyed());
    }

    #[test]
    fn a_line_that_is_not_json_is_shown_as_it_is() {
        assert_eq!(digest().take("hello", Instant::now()).as_deref(), Some("hello"));
    }
}
