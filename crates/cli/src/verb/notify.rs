//! `notify test`.

use agent::notify::{self, Answer, Message, Receiver};
use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use engine::config::{Config, Event};
use engine::{Code, Failure, Outcome};
use serde::Serialize;

use crate::args::GlobalArgs;
use crate::output::{self, Report};
use crate::{resolve, signals};

/// Arguments of `lifeboat notify`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Send every receiver a message that says it is a test (exit 1 unless all of them took it)
    Test(TestArgs),
}

#[derive(clap::Args, Debug)]
struct TestArgs {
    /// Only this receiver: its name, or its place in the configuration, from 1 (repeatable)
    #[arg(long, value_name = "NAME", env = "LIFEBOAT_RECEIVER", value_delimiter = ',')]
    receiver: Vec<String>,
    /// What the message says has happened
    #[arg(long, value_name = "EVENT", env = "LIFEBOAT_TEST_EVENT", default_value = "test", value_parser = PossibleValuesParser::new(Event::ALL.map(Event::word)))]
    event: String,
}

/// Runs `lifeboat notify …`.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Outcome<Code> {
    match args.what {
        What::Test(args) => test(global, &args),
    }
}

#[derive(Serialize)]
struct Tested {
    event: &'static str,
    receivers: Vec<Line>,
}

/// What one receiver answered.
#[derive(Serialize)]
struct Line {
    name: String,
    channel: &'static str,
    place: Option<String>,
    ok: bool,
    answer: String,
    tries: u32,
    seconds: f64,
}

impl Line {
    fn of(answer: Answer) -> Self {
        let (ok, words) = match answer.outcome {
            Ok(words) => (true, words),
            Err(words) => (false, words),
        };
        Self {
            name: answer.receiver,
            channel: answer.channel,
            place: answer.place,
            ok,
            answer: words,
            tries: answer.tries,
            seconds: answer.took.as_secs_f64(),
        }
    }
}

impl Report for Tested {
    const SCHEMA: &'static str = "lifeboat.notify/1";

    fn table(&self) -> String {
        let row = |line: &Line| {
            let place = line.place.clone().unwrap_or_else(|| "-".to_owned());
            // A command's last words may be several lines.
            let answer = line.answer.split_whitespace().collect::<Vec<_>>().join(" ");
            let verdict = if line.ok { "ok" } else { "FAILED" };
            vec![
                line.name.clone(),
                line.channel.to_owned(),
                place,
                line.tries.to_string(),
                format!("{:.1} s", line.seconds),
                format!("{verdict}: {answer}"),
            ]
        };
        let rows: Vec<Vec<String>> = self.receivers.iter().map(row).collect();
        output::columns(&["RECEIVER", "CHANNEL", "PLACE", "TRIES", "TOOK", "ANSWER"], &[3, 4], &rows)
    }

    fn simple(&self) -> String {
        self.receivers.iter().map(|line| format!("{}, {}\n", line.name, if line.ok { "ok" } else { "failed" })).collect()
    }
}

fn test(global: &GlobalArgs, args: &TestArgs) -> Outcome<Code> {
    let (path, config) = resolve::configuration(global)?.ok_or_else(|| {
        Failure::usage("there is no configuration, and so nobody to tell")
            .cause("receivers are named under notify in lifeboat.yaml")
            .next(["lifeboat", "init"])
    })?;
    let all = notify::receivers(&config.notify);
    if all.is_empty() {
        return Err(Failure::usage("the configuration names nobody to tell")
            .object(path.display())
            .cause("receivers are named under notify, such as: notify: [{slack: {url_file: /etc/lifeboat/slack.url}}]")
            .again());
    }
    let chosen = chosen(all, &args.receiver)?;
    // The parser knows no other words.
    let event = Event::ALL.into_iter().find(|event| event.word() == args.event).unwrap_or(Event::Test);
    let message = message(event, &config);
    let answers = signals::run(async { Ok(notify::send_all(&chosen, &message).await) })?;
    let tested = Tested { event: event.word(), receivers: answers.into_iter().map(Line::of).collect() };
    let code = if tested.receivers.iter().all(|line| line.ok) { Code::Ok } else { Code::Failed };
    output::report(global.format(), &tested)?;
    Ok(code)
}

/// The receivers named, in the configuration's order; all without.
fn chosen(all: Vec<Receiver>, named: &[String]) -> Outcome<Vec<Receiver>> {
    let is = |at: usize, receiver: &Receiver, name: &str| receiver.name == name || (at + 1).to_string() == name;
    if let Some(unknown) = named.iter().find(|name| !all.iter().enumerate().any(|(at, receiver)| is(at, receiver, name))) {
        let names: Vec<&str> = all.iter().map(|receiver| receiver.name.as_str()).collect();
        return Err(Failure::usage(format!("there is no receiver '{unknown}'"))
            .cause(format!("there are: {}", names.join(", ")))
            .again_without("--receiver"));
    }
    let is_meant = |at: usize, receiver: &Receiver| named.is_empty() || named.iter().any(|name| is(at, receiver, name));
    let meant = all.into_iter().enumerate().filter(|(at, receiver)| is_meant(*at, receiver));
    Ok(meant.map(|(_, receiver)| receiver).collect())
}

fn message(event: Event, config: &Config) -> Message {
    let cluster = config.clusters.keys().next().cloned().unwrap_or_else(|| "test".to_owned());
    let host = notify::host();
    let what = if event == Event::Test { "a test".to_owned() } else { format!("a test of the event '{}'", event.word()) };
    Message {
        event,
        reminder: false,
        title: format!("{cluster}: {what} by lifeboat notify test"),
        text: format!("This is {what}, sent by hand from {host}. Nothing happened, and nothing is to be done."),
        facts: serde_json::Map::from_iter([("test".to_owned(), true.into())]),
        cluster,
        at: jiff::Timestamp::now(),
        host,
    }
}

#[cfg(test)]
mod tests {
    use engine::config::{Address, Notifier};

    use super::*;

    fn receivers() -> Vec<Receiver> {
        let address = Some(Address::default());
        let slack = Notifier { slack: address.clone(), ..Notifier::default() };
        notify::receivers(&[
            slack.clone(),
            Notifier { ping: address, ..Notifier::default() },
            Notifier { name: Some("ops".to_owned()), ..slack },
        ])
    }

    fn names(named: &[&str]) -> Outcome<Vec<String>> {
        let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
        Ok(chosen(receivers(), &named)?.into_iter().map(|receiver| receiver.name).collect())
    }

    #[test]
    fn receivers_are_named_or_counted() {
        assert_eq!(names(&[]).unwrap(), ["slack", "ping", "ops"]);
        assert_eq!(names(&["ops", "2"]).unwrap(), ["ping", "ops"]);
        assert!(names(&["ops", "4"]).unwrap_err().cause.unwrap().contains("slack, ping, ops"));
    }

    #[test]
    fn a_test_says_that_it_is_one() {
        for event in Event::ALL {
            let message = message(event, &Config::default());
            assert!(message.title.contains("test") && message.text.contains("This is a test") && message.facts["test"] == true);
        }
    }
}
