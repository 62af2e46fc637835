//! The sections that `defaults` and every cluster may have. A section named in a cluster replaces the one of `defaults` whole.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vault::manifest::Rung;
use vault::name::Tag;

use super::schedule::{Schedule, Timing};
use super::units::{bytes, duration, share, span};
use crate::care::defrag::Rule;
use crate::failure::{Failure, Outcome};

/// How long a hook may take where nothing says otherwise.
const HOOK_WITHIN: Duration = Duration::from_secs(60);
/// How long the window for defragmentations is open where nothing says otherwise.
const DEFRAG_WINDOW: Duration = Duration::from_secs(3_600);

/// Where the agent listens where nothing says otherwise.
const LISTEN: &str = "127.0.0.1:9790";
/// How long work under way may go on when the agent ends where nothing says otherwise.
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// When backups are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// A fixed distance: `6h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// Five fields of cron, or `@daily` and its like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// The time zone of `cron`, by its IANA name; UTC without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// At most this much later than the schedule says, by a share that is fixed for each cluster: a fleet does not start at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<String>,
    /// How long a failed backup is tried again, with growing pauses. Half the distance to the next one without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_window: Option<String>,
}

/// What is kept. Whatever one rule keeps is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// The newest so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// The newest of each of the last so many hours that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hourly: Option<u32>,
    /// The newest of each of the last so many days that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily: Option<u32>,
    /// The newest of each of the last so many ISO weeks that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weekly: Option<u32>,
    /// The newest of each of the last so many months that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly: Option<u32>,
    /// The newest of each of the last so many years that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yearly: Option<u32>,
    /// Everything not older than this, counted back from the newest backup: `30d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// Everything with one of these tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// At most this much in all: the oldest that only counting rules keep goes first. Pinned, tagged and protected backups stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<String>,
}

/// When backups are verified, and how deep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// A fixed distance: `1d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// Five fields of cron, or `@daily` and its like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// The time zone of `cron`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// `stored`, `read` (without) or `deep`, which needs an identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rung: Option<Rung>,
}

/// When a real etcd is booted from a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Drill {
    /// A fixed distance: `30d`. Drills are run by hand only without it and without `cron`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// Five fields of cron, or `@daily` and its like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// The time zone of `cron`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// The age identity that opens the backup; `keys.identity_file` without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_file: Option<PathBuf>,
    /// A command that prints the age identity, word by word.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identity_command: Vec<String>,
    /// The program etcd; the one on PATH without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<PathBuf>,
    /// Keys that must be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canary: Vec<String>,
    /// Time for all drills of one run together, the least recently drilled backups first; one backup is drilled without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<String>,
}

/// When members whose files hold much that is free are rewritten. Only the agent does it, and only where this section is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Defrag {
    /// When the window opens: five fields of cron, or `@daily` and its like.
    pub cron: String,
    /// The time zone of `cron`, by its IANA name; UTC without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// How long the window is open: no member's turn begins after it. One hour without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// A member needs it when less of its file is in use: 60 % without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_use_below: Option<String>,
    /// A member needs it when more of its file is free: 200 MiB without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_above: Option<String>,
}

/// What is worth a word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Alert {
    /// A member's database is larger than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db_size_above: Option<String>,
    /// Less than this share of a member's database is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_use_below: Option<String>,
    /// A backup is larger than the one before it by more than this share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_grows_by: Option<String>,
    /// A backup holds fewer keys than the one before it by more than this share: 30 % without. Its predecessor is pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_shrinks_by: Option<String>,
}

/// Commands around each backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Hooks {
    /// Before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Hook>,
    /// After one that was committed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Hook>,
    /// After one that failed, was not begun because a hook before it failed, or is disputed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Hook>,
    /// At the end, whatever came of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finally: Vec<Hook>,
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// The program by its absolute path, and its arguments. No shell is in between.
    pub command: Vec<String>,
    /// Variables beside those that Lifeboat sets, none of whose names begins with `LIFEBOAT_`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// How long it may take: one minute without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// What follows when it fails: `abort` (the backup, only before it), `warn` (without) or `ignore`.
    #[serde(default)]
    pub if_it_fails: IfHookFails,
}

/// What follows when a hook fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum IfHookFails {
    /// No backup is taken.
    Abort,
    /// It is said.
    #[default]
    Warn,
    /// Nothing.
    Ignore,
}

/// The long-running side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Where `/metrics` and its like are served: `127.0.0.1:9790` without; `off` for nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// How many clusters are worked on at once: 2 without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<usize>,
    /// How long work under way may go on after SIGTERM: one minute without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_within: Option<String>,
    /// How often each cluster's health is looked at: one minute without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub look_every: Option<String>,
}

impl Backup {
    /// Its schedule in one value.
    #[must_use]
    pub fn timing(&self) -> Timing {
        Timing { every: self.every.clone(), cron: self.cron.clone(), timezone: self.timezone.clone() }
    }
}

impl Verify {
    /// Its schedule in one value.
    #[must_use]
    pub fn timing(&self) -> Timing {
        Timing { every: self.every.clone(), cron: self.cron.clone(), timezone: self.timezone.clone() }
    }
}

impl Drill {
    /// Its schedule in one value.
    #[must_use]
    pub fn timing(&self) -> Timing {
        Timing { every: self.every.clone(), cron: self.cron.clone(), timezone: self.timezone.clone() }
    }
}

impl Defrag {
    /// When the window opens.
    ///
    /// # Errors
    /// A usage failure for what is not understood.
    pub fn opens(&self) -> Outcome<Schedule> {
        let timing = Timing { every: None, cron: Some(self.cron.clone()), timezone: self.timezone.clone() };
        timing.schedule()?.ok_or_else(|| Failure::usage("cron is not given"))
    }

    /// How long it is open.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.window.as_deref().and_then(|text| duration(text).ok()).unwrap_or(DEFRAG_WINDOW)
    }

    /// Who needs it.
    ///
    /// # Errors
    /// A usage failure for what is not understood.
    pub fn rule(&self) -> Outcome<Rule> {
        let rule = Rule::default();
        Ok(Rule {
            in_use_below: self.in_use_below.as_deref().map(share).transpose()?.or(rule.in_use_below),
            free_above: self.free_above.as_deref().map(bytes).transpose()?.or(rule.free_above),
            ..rule
        })
    }

    fn check(&self) -> Outcome<()> {
        self.rule()?;
        let window = self.window.as_deref().map(duration).transpose()?.unwrap_or(DEFRAG_WINDOW);
        let opens = self.opens()?;
        if window.is_zero() || window > opens.distance(jiff::Timestamp::UNIX_EPOCH) {
            return Err(Failure::usage("window: longer than nothing, and shorter than the time from one opening to the next"));
        }
        Ok(())
    }
}

impl Keep {
    /// Whether no rule is in it: a policy that keeps nothing is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let counts = [self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly];
        counts.iter().flatten().all(|count| *count == 0) && self.within.is_none() && self.tags.is_empty()
    }

    fn check(&self) -> Outcome<()> {
        if self.is_empty() {
            return Err(Failure::usage("keep has no rule that keeps anything")
                .cause("name at least one of last, hourly, daily, weekly, monthly, yearly, within and tags"));
        }
        self.within.as_deref().map(span).transpose()?;
        self.max_bytes.as_deref().map(bytes).transpose()?;
        for tag in &self.tags {
            tag.parse::<Tag>().map_err(|error| Failure::usage(format!("keep.tags: {error}")))?;
        }
        Ok(())
    }
}

impl Alert {
    fn check(&self) -> Outcome<()> {
        self.db_size_above.as_deref().map(bytes).transpose()?;
        for text in [&self.in_use_below, &self.backup_grows_by, &self.content_shrinks_by].into_iter().flatten() {
            share(text)?;
        }
        Ok(())
    }
}

impl Hook {
    /// How long it may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout.as_deref().and_then(|text| duration(text).ok()).unwrap_or(HOOK_WITHIN)
    }
}

impl Hooks {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty() && self.failed.is_empty() && self.finally.is_empty()
    }

    fn check(&self) -> Outcome<()> {
        for hook in self.before.iter().chain(&self.after).chain(&self.failed).chain(&self.finally) {
            if !hook.command.first().is_some_and(|program| program.starts_with('/')) {
                return Err(Failure::usage("a hook's command begins with the absolute path of a program"));
            }
            if hook.command.iter().any(|word| word.contains('\0')) {
                return Err(Failure::usage("a hook's command has a zero byte"));
            }
            for (name, value) in &hook.environment {
                if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') || name.starts_with("LIFEBOAT_") {
                    return Err(Failure::usage(format!("environment: '{name}' is no name of a variable of yours")));
                }
            }
            hook.timeout.as_deref().map(duration).transpose()?;
        }
        let late = self.after.iter().chain(&self.failed).chain(&self.finally);
        if late.into_iter().any(|hook| hook.if_it_fails == IfHookFails::Abort) {
            return Err(Failure::usage("only a hook before the backup can abort it"));
        }
        Ok(())
    }
}

impl Agent {
    /// Where it listens; none where that is `off`.
    ///
    /// # Errors
    /// A usage failure for what is no address with a port.
    pub fn address(&self) -> Outcome<Option<SocketAddr>> {
        let named = self.listen.as_deref().unwrap_or(LISTEN);
        if named == "off" {
            return Ok(None);
        }
        named.parse().map(Some).map_err(|error| Failure::usage(format!("listen: '{named}': {error}")))
    }

    /// How long work under way may go on when it ends.
    #[must_use]
    pub fn stop_within(&self) -> Duration {
        self.stop_within.as_deref().and_then(|text| duration(text).ok()).unwrap_or(STOP_WITHIN)
    }

    pub(super) fn check(&self) -> Outcome<()> {
        self.address()?;
        if self.parallel == Some(0) {
            return Err(Failure::usage("parallel: at least 1"));
        }
        for text in [&self.stop_within, &self.look_every].into_iter().flatten() {
            duration(text)?;
        }
        if let Some(every) = self.look_every.as_deref().map(duration).transpose()?.filter(|every| every.as_secs() < 1) {
            return Err(Failure::usage(format!("look_every: {every:?}: at least 1s")));
        }
        Ok(())
    }
}

/// The sections that `defaults` and every cluster may have.
pub(super) struct Sections<'a> {
    pub(super) backup: &'a Option<Backup>,
    pub(super) keep: &'a Option<Keep>,
    pub(super) verify: &'a Option<Verify>,
    pub(super) drill: &'a Option<Drill>,
    pub(super) defrag: &'a Option<Defrag>,
    pub(super) alert: &'a Option<Alert>,
    pub(super) hooks: &'a Option<Hooks>,
}

/// Checks what sections say by themselves.
pub(super) fn check(sections: &Sections<'_>) -> Outcome<()> {
    let Sections { backup, keep, verify, drill, defrag, alert, hooks } = *sections;
    let in_section = |name: &str, failure: Failure| Failure { what: format!("{name}: {}", failure.what), ..failure };
    if let Some(backup) = backup {
        let texts = [&backup.jitter, &backup.retry_window];
        let sound = backup.timing().schedule().and_then(|schedule| {
            let schedule = schedule.ok_or_else(|| Failure::usage("neither every nor cron is given"))?;
            let distance = schedule.distance(jiff::Timestamp::now());
            for (name, text) in ["jitter", "retry_window"].into_iter().zip(texts) {
                // Else a backup would be late by design, and nobody would ever be told.
                if let Some(text) = text.as_ref().filter(|text| duration(text).is_ok_and(|time| time > distance)) {
                    return Err(Failure::usage(format!("{name}: '{text}' is longer than from one backup to the next")));
                }
                text.as_deref().map(duration).transpose()?;
            }
            Ok(())
        });
        sound.map_err(|failure| in_section("backup", failure))?;
    }
    if let Some(verify) = verify {
        verify.timing().schedule().map_err(|failure| in_section("verify", failure))?;
        if matches!(verify.rung, Some(Rung::None | Rung::Booted)) {
            return Err(Failure::usage("verify.rung: stored, read or deep"));
        }
    }
    if let Some(drill) = drill {
        drill.timing().schedule().map_err(|failure| in_section("drill", failure))?;
        drill.budget.as_deref().map(duration).transpose().map_err(|failure| in_section("drill", failure))?;
        if drill.identity_file.is_some() && !drill.identity_command.is_empty() {
            return Err(Failure::usage("drill: identity_file and identity_command are one too many"));
        }
    }
    defrag.as_ref().map_or(Ok(()), Defrag::check).map_err(|failure| in_section("defrag", failure))?;
    keep.as_ref().map_or(Ok(()), Keep::check).map_err(|failure| in_section("keep", failure))?;
    alert.as_ref().map_or(Ok(()), Alert::check).map_err(|failure| in_section("alert", failure))?;
    hooks.as_ref().map_or(Ok(()), Hooks::check).map_err(|failure| in_section("hooks", failure))
}
