//! Who is told what. Secrets (addresses with a token in them, passwords) are named by file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::units::duration;
use crate::failure::{Failure, Outcome};

/// One receiver: exactly one channel, and what it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Notifier {
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
    /// Of what it is told; of `failed`, `stale` and `recovered` without. A ping hears of every run.
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
    /// A backup failed, and all its retries.
    Failed,
    /// The newest good backup is too old, or there never was one.
    Stale,
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
    /// etcd itself needs care.
    Health,
    /// A test, by `lifeboat notify test`.
    Test,
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

    /// Whether it is told of this event of this cluster.
    #[must_use]
    pub fn hears(&self, event: Event, cluster: &str) -> bool {
        let usual = matches!(event, Event::Failed | Event::Stale | Event::Recovered | Event::Damaged | Event::DrillFailed);
        let of_event = event == Event::Test || self.ping.is_some() || if self.on.is_empty() { usual } else { self.on.contains(&event) };
        of_event && (self.clusters.is_empty() || self.clusters.iter().any(|named| named == cluster))
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
        self.remind.as_deref().map(duration).transpose().map(drop)
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
