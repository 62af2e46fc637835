//! Who is told what. Secrets (addresses with a token in them, passwords) are named by file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units::duration;
use crate::failure::{Failure, Outcome};

/// Whoever is reminded more often than this stops reading.
const REMIND_LEAST: Duration = Duration::from_secs(60);

/// One receiver: exactly one channel, and what it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Notifier {
    /// What it is called in reports, and how it is remembered what it was told; the channel's word (`slack`, `slack-2`) without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Any HTTP endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// Slack, and what understands its incoming webhooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack: Option<Address>,
    /// ntfy: a topic's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ntfy: Option<Ntfy>,
    /// Mail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp: Option<Smtp>,
    /// A dead man's switch, as healthchecks has them: `/start`, nothing, or `/fail` behind the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ping: Option<Address>,
    /// A command, which gets the message as JSON on its standard input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
    /// Of what it is told; of `failed`, `stale`, `damaged`, `drill-failed`, `store-behind` and `recovered` without. A ping hears of every run, and of nothing else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<Event>,
    /// Of which clusters; of all without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<String>,
    /// While it stays as it is, it is said again this often; once without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remind: Option<String>,
}

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A backup begins. Not among what is told without `on`.
    Started,
    /// A backup failed, and all its retries.
    Failed,
    /// The newest good backup is too old.
    Stale,
    /// There never was a good backup. Who is told of `stale` is told of this.
    NeverRan,
    /// What was told is over.
    Recovered,
    /// A backup was taken. Not among what is told without `on`.
    Succeeded,
    /// Committed with warnings: a store missing, a lineage unconfirmed, and so on.
    Warning,
    /// A verification found damage.
    Damaged,
    /// A drill failed.
    DrillFailed,
    /// A store lacks backups, or cannot be read.
    StoreBehind,
    /// etcd itself needs care.
    Health,
    /// A test, by `lifeboat notify test`.
    Test,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Started,
        Self::Succeeded,
        Self::Warning,
        Self::Failed,
        Self::Stale,
        Self::NeverRan,
        Self::Recovered,
        Self::Damaged,
        Self::DrillFailed,
        Self::StoreBehind,
        Self::Health,
        Self::Test,
    ];

    /// The word for it, as `on` has it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Succeeded => "succeeded",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Stale => "stale",
            Self::NeverRan => "never-ran",
            Self::Recovered => "recovered",
            Self::Damaged => "damaged",
            Self::DrillFailed => "drill-failed",
            Self::StoreBehind => "store-behind",
            Self::Health => "health",
            Self::Test => "test",
        }
    }
}

/// An address, by file where it holds a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// The address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A file with the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// A file with certificates of authorities that are trusted beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// Any HTTP endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// The address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A file with the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// A file with certificates of authorities that are trusted beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// A file with the value of the header Authorization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_file: Option<PathBuf>,
    /// The body, with `{cluster}`, `{event}`, `{title}`, `{text}` and `{json}` in it, each escaped as a JSON string's inside but for `{json}`, the
    /// message as a JSON object; `{json}` without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
}

/// A topic of ntfy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Ntfy {
    /// The topic's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A file with the topic's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// A file with the access token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// A file with certificates of authorities that are trusted beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// Mail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Smtp {
    /// `smtp://host:port` (with STARTTLS), `smtps://host:port`, or `smtp+plain://host:port`, which is not encrypted.
    pub server: String,
    /// Whom it is from.
    pub from: String,
    /// Whom it is to.
    pub to: Vec<String>,
    /// The user, where the server wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A file with the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// A file with certificates of authorities that are trusted beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// A command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The program by its absolute path, and its arguments. No shell is in between.
    pub command: Vec<String>,
    /// How long it may take: half a minute without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
}

/// The channel of a notifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel<'a> {
    /// Any HTTP endpoint.
    Webhook(&'a Webhook),
    /// Slack.
    Slack(&'a Address),
    /// ntfy.
    Ntfy(&'a Ntfy),
    /// Mail.
    Smtp(&'a Smtp),
    /// A dead man's switch.
    Ping(&'a Address),
    /// A command.
    Exec(&'a Exec),
}

impl Channel<'_> {
    /// The word for it, as the configuration has it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Slack(_) => "slack",
            Self::Ntfy(_) => "ntfy",
            Self::Smtp(_) => "smtp",
            Self::Ping(_) => "ping",
            Self::Exec(_) => "exec",
        }
    }
}

impl Notifier {
    /// Its channel.
    ///
    /// # Errors
    /// A usage failure unless exactly one is named.
    pub fn channel(&self) -> Outcome<Channel<'_>> {
        let all = [
            self.webhook.as_ref().map(Channel::Webhook),
            self.slack.as_ref().map(Channel::Slack),
            self.ntfy.as_ref().map(Channel::Ntfy),
            self.smtp.as_ref().map(Channel::Smtp),
            self.ping.as_ref().map(Channel::Ping),
            self.exec.as_ref().map(Channel::Exec),
        ];
        let named: Vec<Channel<'_>> = all.into_iter().flatten().collect();
        match named[..] {
            [one] => Ok(one),
            _ => Err(Failure::usage("exactly one of webhook, slack, ntfy, smtp, ping and exec says who is told")),
        }
    }

    /// Whether it is told of this event of this cluster. Every receiver hears a test.
    #[must_use]
    pub fn hears(&self, event: Event, cluster: &str) -> bool {
        let of_event = match event {
            Event::Test => return true,
            // A dead man's switch knows runs. What it knows of the rest would be forgotten at the next run.
            _ if self.ping.is_some() => matches!(event, Event::Started | Event::Succeeded | Event::Warning | Event::Failed),
            _ if self.on.is_empty() => {
                matches!(
                    event,
                    Event::Failed
                        | Event::Stale
                        | Event::NeverRan
                        | Event::Recovered
                        | Event::Damaged
                        | Event::DrillFailed
                        | Event::StoreBehind
                        | Event::Warning
                        | Event::Health
                )
            }
            Event::NeverRan => self.on.contains(&Event::Stale) || self.on.contains(&Event::NeverRan),
            _ => self.on.contains(&event),
        };
        of_event && (self.clusters.is_empty() || self.clusters.iter().any(|named| named == cluster))
    }

    /// How often it is said again what has not changed; never without.
    #[must_use]
    pub fn remind(&self) -> Option<Duration> {
        self.remind.as_deref().and_then(|text| duration(text).ok())
    }

    pub(super) fn check(&self) -> Outcome<()> {
        match self.channel()? {
            Channel::Webhook(webhook) => address(&webhook.url, &webhook.url_file)?,
            Channel::Ntfy(ntfy) => address(&ntfy.url, &ntfy.url_file)?,
            Channel::Slack(slack) => address(&slack.url, &slack.url_file)?,
            Channel::Ping(ping) => address(&ping.url, &ping.url_file)?,
            Channel::Smtp(smtp) => smtp.check()?,
            Channel::Exec(exec) => {
                if !exec.command.first().is_some_and(|program| Path::new(program).is_absolute()) {
                    return Err(Failure::usage("exec: the command begins with the absolute path of a program"));
                }
                exec.timeout.as_deref().map(duration).transpose()?;
            }
        }
        if self.name.as_ref().is_some_and(|name| name.is_empty() || name.contains(char::is_control)) {
            return Err(Failure::usage("name: a word is expected"));
        }
        let remind = self.remind.as_deref().map(duration).transpose()?;
        if remind.is_some_and(|remind| remind < REMIND_LEAST) {
            return Err(Failure::usage(format!("remind: at least {} s", REMIND_LEAST.as_secs())));
        }
        Ok(())
    }
}

impl Smtp {
    fn check(&self) -> Outcome<()> {
        if !["smtp://", "smtps://", "smtp+plain://"].iter().any(|scheme| self.server.starts_with(scheme)) {
            return Err(Failure::usage("smtp.server: smtp://HOST:PORT, smtps://HOST:PORT or smtp+plain://HOST:PORT is expected"));
        }
        if self.to.is_empty() {
            return Err(Failure::usage("smtp.to: nobody is named"));
        }
        if self.user.is_some() != self.password_file.is_some() {
            return Err(Failure::usage("smtp: user and password_file go together"));
        }
        if self.user.is_some() && self.server.starts_with("smtp+plain://") {
            return Err(Failure::usage("smtp: smtp+plain is not encrypted, and a password is not sent over it"));
        }
        Ok(())
    }
}

fn address(url: &Option<String>, file: &Option<PathBuf>) -> Outcome<()> {
    match (url, file) {
        (Some(url), None) if url.starts_with("https://") || url.starts_with("http://") => Ok(()),
        (Some(_), None) => Err(Failure::usage("the address begins with neither https:// nor http://")),
        (None, Some(_)) => Ok(()),
        _ => Err(Failure::usage("exactly one of url and url_file says where")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_events_are_those_of_the_configuration() {
        for event in Event::ALL {
            assert_eq!(serde_json::to_value(event).unwrap(), event.word());
        }
    }

    #[test]
    fn who_hears_what() {
        let bare = Notifier { slack: Some(Address::default()), ..Notifier::default() };
        let heard = |notifier: &Notifier| -> Vec<&str> {
            Event::ALL.into_iter().filter(|event| notifier.hears(*event, "prod")).map(Event::word).collect()
        };
        let all_but_runs =
            ["warning", "failed", "stale", "never-ran", "recovered", "damaged", "drill-failed", "store-behind", "health", "test"];
        assert_eq!(heard(&bare), all_but_runs);
        let some = Notifier { on: vec![Event::Stale, Event::Succeeded], ..bare.clone() };
        assert_eq!(heard(&some), ["succeeded", "stale", "never-ran", "test"]);
        let ping = Notifier { ping: Some(Address::default()), on: vec![Event::Health], ..Notifier::default() };
        assert_eq!(heard(&ping), ["started", "succeeded", "warning", "failed", "test"]);
        let other = Notifier { clusters: vec!["edge".to_owned()], ..bare };
        assert_eq!(heard(&other), ["test"]);
        assert!(other.hears(Event::Failed, "edge"));
    }
}
