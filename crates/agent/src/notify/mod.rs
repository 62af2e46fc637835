//! Telling people and machines: one message, many channels. When something is told is decided in [`state`].

mod address;
mod exec;
mod http;
mod message;
mod ntfy;
mod ping;
mod slack;
mod smtp;
pub mod state;
mod webhook;

use std::time::{Duration, Instant};

use engine::config::{Channel, Event, Notifier};

pub use message::{Message, host};

use crate::limits::TELL_PAUSES;

/// Somebody who is told, by a name that stays the same from run to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// Its name in the configuration; else the channel's word, and `-2`, `-3` behind it from the second one of that channel on.
    pub name: String,
    /// The channel's word.
    pub channel: &'static str,
    /// What the configuration says of it.
    pub notifier: Notifier,
}

impl Receiver {
    /// Whether it is told at once, each time, what becomes of a run: pings, and who asked for `started` or `succeeded`.
    #[must_use]
    pub fn hears_run(&self, event: Event, cluster: &str) -> bool {
        let of_a_run = self.notifier.ping.is_some() || matches!(event, Event::Started | Event::Succeeded);
        of_a_run && self.notifier.hears(event, cluster)
    }

    /// Whether it is told of a state, by [`state::decide`].
    #[must_use]
    pub fn hears_state(&self, event: Event, cluster: &str) -> bool {
        self.notifier.ping.is_none() && !matches!(event, Event::Started | Event::Succeeded) && self.notifier.hears(event, cluster)
    }
}

/// The receivers of a configuration that was checked, in its order.
#[must_use]
pub fn receivers(notifiers: &[Notifier]) -> Vec<Receiver> {
    let mut all: Vec<Receiver> = Vec::with_capacity(notifiers.len());
    let given: Vec<&str> = notifiers.iter().filter_map(|notifier| notifier.name.as_deref()).collect();
    for notifier in notifiers {
        let Ok(channel) = notifier.channel().map(|channel| channel.word()) else { continue };
        let is_taken = |name: &str| given.contains(&name) || all.iter().any(|receiver| receiver.name == name);
        let numbered = (1_usize..).map(|at| if at == 1 { channel.to_owned() } else { format!("{channel}-{at}") });
        let free = || numbered.into_iter().find(|name| !is_taken(name));
        let name = notifier.name.clone().or_else(free).unwrap_or_else(|| channel.to_owned());
        all.push(Receiver { name, channel, notifier: notifier.clone() });
    }
    all
}

/// What a receiver answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its name.
    pub receiver: String,
    /// The channel's word.
    pub channel: &'static str,
    /// Where it is, without anything that could be secret: scheme and host, or a program.
    pub place: Option<String>,
    /// Its answer in words, or why it could not be told.
    pub outcome: Result<String, String>,
    /// How often it was tried.
    pub tries: u32,
    /// How long it took in all.
    pub took: Duration,
}

/// What kept one try from telling.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trouble {
    why: String,
    /// Whether another try may do better.
    passing: bool,
    /// When the receiver wants to be tried again, if it said so.
    after: Option<Duration>,
}

impl Trouble {
    fn lasting(why: impl Into<String>) -> Self {
        Self { why: why.into(), passing: false, after: None }
    }

    fn passing(why: impl Into<String>) -> Self {
        Self { why: why.into(), passing: true, after: None }
    }
}

/// A message on its way to one receiver, everything read and checked.
enum Parcel {
    Http(http::Post),
    Mail(Box<smtp::Mail>),
    Exec(exec::Input),
}

impl Parcel {
    fn pack(receiver: &Receiver, message: &Message) -> Result<Self, String> {
        let channel = receiver.notifier.channel().map_err(|failure| failure.what)?;
        Ok(match channel {
            Channel::Webhook(webhook) => Self::Http(webhook::post(webhook, message)?),
            Channel::Slack(slack) => Self::Http(slack::post(slack, message)?),
            Channel::Ntfy(ntfy) => Self::Http(ntfy::post(ntfy, message)?),
            Channel::Ping(ping) => Self::Http(ping::post(ping, message)?),
            Channel::Smtp(smtp) => Self::Mail(Box::new(smtp::mail(smtp, message)?)),
            Channel::Exec(exec) => Self::Exec(exec::input(exec, message)),
        })
    }

    fn place(&self) -> String {
        match self {
            Self::Http(post) => post.place(),
            Self::Mail(mail) => mail.place(),
            Self::Exec(input) => input.place(),
        }
    }

    async fn send(&self) -> Result<String, Trouble> {
        match self {
            Self::Http(post) => post.send().await,
            Self::Mail(mail) => mail.send().await,
            Self::Exec(input) => input.send().await,
        }
    }
}

/// Tells one receiver, in up to three tries. Never longer than a minute, but for commands, whose time is configured and who get one try.
pub async fn send(receiver: &Receiver, message: &Message) -> Answer {
    send_with(receiver, message, &TELL_PAUSES).await
}

async fn send_with(receiver: &Receiver, message: &Message, pauses: &[Duration]) -> Answer {
    let begun = Instant::now();
    let mut answer = Answer {
        receiver: receiver.name.clone(),
        channel: receiver.channel,
        place: None,
        outcome: Err("it was not tried".to_owned()),
        tries: 0,
        took: Duration::ZERO,
    };
    match Parcel::pack(receiver, message) {
        Err(why) => answer.outcome = Err(why),
        Ok(parcel) => {
            answer.place = Some(parcel.place());
            let mut pauses = pauses.iter();
            loop {
                answer.tries += 1;
                let trouble = match parcel.send().await {
                    Ok(said) => {
                        answer.outcome = Ok(said);
                        break;
                    }
                    Err(trouble) => trouble,
                };
                answer.outcome = Err(trouble.why);
                let Some(pause) = pauses.next().filter(|_| trouble.passing) else { break };
                tokio::time::sleep(trouble.after.unwrap_or(*pause)).await;
            }
        }
    }
    answer.took = begun.elapsed();
    answer
}

/// Tells several at once; the answers are in their order.
pub async fn send_all(receivers: &[Receiver], message: &Message) -> Vec<Answer> {
    futures::future::join_all(receivers.iter().map(|receiver| send(receiver, message))).await
}

/// The beginning of a text, in at most so many bytes, with a mark where it was cut.
fn cut(text: &str, most: usize) -> String {
    const MARK: &str = "…";
    if text.len() <= most {
        return text.to_owned();
    }
    let room = most.saturating_sub(MARK.len());
    let at = (0..=room).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{MARK}", &text[..at])
}

/// An error with what is behind it: the first line alone often says little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(source) = behind {
        let words = source.to_string();
        if !text.contains(&words) {
            text.push_str(&format!(": {words}"));
        }
        behind = source.source();
    }
    text
}

#[cfg(test)]
mod tests;
