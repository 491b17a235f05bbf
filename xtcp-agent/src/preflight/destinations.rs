//! Destinations, and whether they answer.

use std::time::Duration;

use serde::Serialize;

use super::facts::Is;
use crate::config::{Config, Records};
use crate::delivery;
use crate::delivery::route::Route;
use crate::destination::Context;

/// Longest wait for one destination.
const PATIENCE: Duration = Duration::from_secs(5);

/// A destination of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Its name.
    pub name: String,
    /// Its address, without secrets.
    pub address: String,
    /// Whether it answers as it should.
    pub answers: Is,
    /// What was found there, in a few words.
    pub found: String,
}

/// Connects to each destination at once; no row is sent.
pub(super) fn gather(config: &Config) -> Vec<Answer> {
    let records = &config.records;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = records.dest.iter().zip(delivery::names(&records.dest));
    match runtime {
        Ok(runtime) => {
            let all = futures_util::future::join_all(asked.map(|(route, name)| async move {
                let result = ask(route, records).await;
                answer(name, route, result)
            }));
            let answers = runtime.block_on(all);
            // A probe that hangs in a system call is left behind.
            runtime.shutdown_timeout(Duration::ZERO);
            answers
        }
        Err(error) => asked.map(|(route, name)| answer(name, route, Err(error.to_string()))).collect(),
    }
}

async fn ask(route: &Route, records: &Records) -> Result<String, String> {
    let context = Context {
        hostname: "xtcp2-agent-check".into(),
        topic: route.topic.clone().unwrap_or_else(|| records.topic.clone()),
        format: route.marshal.unwrap_or(records.marshal),
    };
    let mut destination = route.address.open(&context).map_err(|error| error.to_string())?;
    let asked = tokio::time::timeout(PATIENCE, destination.probe()).await;
    match asked {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {}", humantime::format_duration(PATIENCE))),
    }
}

fn answer(name: String, route: &Route, result: Result<String, String>) -> Answer {
    let address = route.address.to_string();
    match result {
        Ok(found) => Answer { name, address, answers: Is::Yes, found },
        Err(why) => Answer { name, address, answers: Is::No(why), found: String::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_destination_says_what_was_found() {
        let mut config = Config::defaults().expect("valid");
        config.records.dest = vec![delivery::route::parse("null#name=a").expect("null")];
        let answers = gather(&config);
        let expected = Answer {
            name: "a".to_owned(),
            address: "null#name=a".to_owned(),
            answers: Is::Yes,
            found: "takes everything and keeps nothing".to_owned(),
        };
        assert_eq!(answers, [expected]);
    }
}
