//! Channels against real servers on loopback, well-behaved and not.

mod http;
mod mail;

use std::collections::BTreeMap;

use engine::config::{Address, Exec};

use super::*;

pub(super) fn message() -> Message {
    let facts = serde_json::Map::from_iter([("age".to_owned(), 7.into())]);
    Message {
        event: Event::Failed,
        reminder: false,
        cluster: "prod".to_owned(),
        title: "prod: the backup failed".to_owned(),
        text: "etcd cannot be reached".to_owned(),
        facts,
        at: "2026-01-02T03:04:05Z".parse().unwrap(),
        host: "host1".to_owned(),
    }
}

fn of(notifier: Notifier) -> Receiver {
    receivers(&[notifier]).remove(0)
}

fn exec(command: &[&str], timeout: &str) -> Receiver {
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    of(Notifier { exec: Some(Exec { command, timeout: Some(timeout.to_owned()) }), ..Notifier::default() })
}

#[test]
fn receivers_have_names_of_their_own() {
    let slack = || Notifier { slack: Some(Address::default()), ..Notifier::default() };
    let named = Notifier { name: Some("slack-2".to_owned()), ..slack() };
    let ping = Notifier { ping: Some(Address::default()), ..Notifier::default() };
    let names: Vec<String> = receivers(&[slack(), ping, slack(), named]).into_iter().map(|receiver| receiver.name).collect();
    assert_eq!(names, ["slack", "ping", "slack-3", "slack-2"]);
}

#[test]
fn runs_and_states_are_told_apart() {
    let ping = of(Notifier { ping: Some(Address::default()), ..Notifier::default() });
    let slack = of(Notifier { slack: Some(Address::default()), on: vec![Event::Succeeded, Event::Failed], ..Notifier::default() });
    let mut table = BTreeMap::new();
    for event in Event::ALL {
        let word = event.word();
        let row = [ping.hears_run(event, "c"), ping.hears_state(event, "c"), slack.hears_run(event, "c"), slack.hears_state(event, "c")];
        table.insert(word, row);
    }
    assert_eq!(table["failed"], [true, false, false, true]);
    assert_eq!(table["succeeded"], [true, false, true, false]);
    assert_eq!(table["started"], [true, false, false, false]);
    assert_eq!(table["damaged"], [false; 4]);
}

#[tokio::test]
async fn a_command_gets_the_message_as_json() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("message.json");
    let script = format!("cat > {}; echo $LIFEBOAT_EVENT $LIFEBOAT_CLUSTER >&2", file.display());
    let answer = send(&exec(&["/bin/sh", "-c", &script], "30s"), &message()).await;
    assert_eq!((answer.outcome.as_deref(), answer.place.as_deref(), answer.tries), (Ok("exit status 0"), Some("/bin/sh"), 1));
    let read: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(read, message().json());
    assert_eq!((&read["schema"], &read["at"]), (&"lifeboat.message/1".into(), &"2026-01-02T03:04:05Z".into()));
}

#[tokio::test]
async fn a_command_that_fails_is_tried_once() {
    let answer = send(&exec(&["/bin/sh", "-c", "echo no >&2; exit 7"], "30s"), &message()).await;
    assert!(answer.tries == 1 && answer.outcome.unwrap_err().contains("exit status 7; its last words: no"));
    let slow = send(&exec(&["/bin/sleep", "60"], "200ms"), &message()).await;
    assert!(slow.outcome.unwrap_err().contains("took longer"));
}

#[test]
fn texts_are_cut_between_signs() {
    assert_eq!(cut("short", 5), "short");
    assert_eq!(cut("ééééé", 7), "éé…");
    assert_eq!(cut("abc", 1), "…");
}
