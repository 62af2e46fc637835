//! The remedy for a full database (alarm NOSPACE) as one plan: backup, compact, defragment each, disarm, verify.
//!
//! The order is etcd's own advice; what is added is that every step is on record ([`crate::journal`]), so that a run that was stopped anywhere goes on,
//! and that the last step says whether it helped.
//!
//! - Compaction goes to the revision that was read before the backup: whatever it takes away is in the backup.
//! - A Kubernetes API server compacts by itself every five minutes, and a compaction from outside makes every watch that is further behind start anew. So
//!   there it is left out. While NOSPACE stands the API server cannot compact: it records each compaction by a write, which etcd refuses. Where giving
//!   back the free pages is not enough, [`Wanted::compact_anyway`] is the way out, and the plan says so.

mod drive;

use std::path::PathBuf;

use etcd_api::AlarmKind;
use etcd_store::id::{ClusterId, MemberId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::change;
use super::defrag::{self, Rule};
use super::health::quota_of;
use super::look::Looked;
use super::view::{ClusterView, MemberView};
use crate::access::Access;
use crate::failure::{Failure, Outcome};
use crate::journal::{self, Journal, Standing};
use crate::limits::QUOTA_ALERT;

pub use drive::{Remedy, find_out};

/// The verb, as the journal has it.
pub const VERB: &str = "etcd nospace";

/// Where the backup goes that comes first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupTo {
    /// Into a repository, at this URL.
    Repository(String),
    /// Into a plain snapshot file.
    File(PathBuf),
    /// None is taken.
    Nowhere,
}

/// What somebody wants.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where the backup goes.
    pub backup: BackupTo,
    /// Compact although it is a Kubernetes cluster.
    pub compact_anyway: bool,
    /// The quota, where it is known better than etcd tells it.
    pub quota: Option<u64>,
}

/// What was found out beside the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The revision that a linearizable read gave; 0 where the source offers no read (Talos).
    pub revision: i64,
    /// Whether there are keys where an API server keeps them.
    pub is_kubernetes: bool,
}

/// A member's file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Space {
    /// The member's id.
    pub member: String,
    /// Its name.
    pub name: String,
    /// Bytes of its file.
    pub size: u64,
    /// Bytes of it in use.
    pub in_use: u64,
    /// Its quota in bytes, where it is known or can be concluded.
    pub quota: Option<u64>,
    /// Whether it was told, by the member or by the user; else it is concluded from the size at which the alarm was raised.
    pub quota_told: bool,
}

impl Space {
    /// Whether it is so near to its quota that the alarm comes back soon.
    #[must_use]
    pub fn is_near(&self) -> bool {
        self.quota.is_some_and(|quota| self.size as f64 >= quota as f64 * QUOTA_ALERT)
    }

    /// Whether the next write raises the alarm again.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.quota.is_some_and(|quota| self.size >= quota)
    }
}

/// One step of the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Step {
    /// A backup into a repository.
    Backup {
        /// The repository.
        repository: String,
    },
    /// A snapshot into a file.
    Snapshot {
        /// The file.
        file: PathBuf,
    },
    /// Take the history away up to a revision.
    Compact {
        /// That revision.
        revision: i64,
    },
    /// Rewrite a member's file. If it leads, another one leads first.
    Defragment {
        /// The member's id.
        member: String,
        /// Its label.
        label: String,
    },
    /// Take the alarm back, where there is room now.
    Disarm,
    /// Look whether it helped.
    Verify,
}

impl journal::Step for Step {
    fn name(&self) -> &'static str {
        match self {
            Self::Backup { .. } => "backup",
            Self::Snapshot { .. } => "snapshot",
            Self::Compact { .. } => "compact",
            Self::Defragment { .. } => "defragment",
            Self::Disarm => "disarm",
            Self::Verify => "verify",
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Backup { repository } => format!("back up into {repository}"),
            Self::Snapshot { file } => format!("save a snapshot to {}", file.display()),
            Self::Compact { revision } => format!("compact the history up to revision {revision}"),
            Self::Defragment { label, .. } => format!("defragment {label}"),
            Self::Disarm => "disarm NOSPACE".to_owned(),
            Self::Verify => "look whether it helped".to_owned(),
        }
    }
}

/// The remedy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The cluster's id; where the source tells none (Talos), what [`known_as`] says.
    pub cluster_id: String,
    /// When it was made.
    pub planned: Timestamp,
    /// The revision before the backup; 0 where the source offers no read (Talos).
    pub revision: i64,
    /// Whether it is a Kubernetes cluster.
    pub is_kubernetes: bool,
    /// Members that raised NOSPACE.
    pub alarms: Vec<String>,
    /// Every member's file before.
    pub before: Vec<Space>,
    /// What is done.
    pub steps: Vec<Step>,
}

impl journal::Plan for Plan {
    type Step = Step;

    fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// The members that raised NOSPACE.
fn alarmed(view: &ClusterView) -> Outcome<Vec<String>> {
    let alarms = view.alarms.as_ref().ok_or_else(|| {
        Failure::failed("the alarms cannot be listed, so it is not known whether there is anything to mend")
            .cause(view.notes.join("; "))
            .again()
    })?;
    let label = |alarm: &etcd_api::Alarm| view.member(alarm.member).map_or_else(|| alarm.member.to_string(), MemberView::label);
    Ok(alarms.iter().filter(|alarm| alarm.kind == AlarmKind::NoSpace).map(label).collect())
}

/// Every member's file. Before 3.6 a member does not tell its quota; one that raised the alarm has then at most what its file has, which `before` tells.
fn spaces(view: &ClusterView, quota: Option<u64>, before: &[Space]) -> Vec<Space> {
    let raised = |member: &MemberView| {
        let alarms = view.alarms.iter().flatten();
        alarms.clone().any(|alarm| alarm.kind == AlarmKind::NoSpace && alarm.member == member.id)
    };
    let space = |member: &MemberView| {
        let status = member.status()?;
        let id = member.id.to_string();
        let own = quota_of(member).filter(|(_, told)| *told).map(|(quota, _)| quota);
        let earlier = before.iter().find(|space| space.member == id);
        let concluded = earlier.and_then(|space| space.quota).or_else(|| raised(member).then_some(status.db_size));
        let told = quota.or(own).or_else(|| earlier.filter(|space| space.quota_told).and_then(|space| space.quota));
        Some(Space {
            member: id,
            name: member.label(),
            size: status.db_size,
            in_use: status.db_size_in_use,
            quota: told.or(concluded),
            quota_told: told.is_some(),
        })
    };
    view.members.iter().filter_map(space).collect()
}

/// Whether every member's quota is known, so that "no file is near it" can be said.
#[must_use]
pub fn knows_quota(view: &ClusterView, quota: Option<u64>) -> bool {
    spaces(view, quota, &[]).iter().all(|space| space.quota_told)
}

/// Makes the plan; none where no alarm is raised and every file is well below its quota.
///
/// # Errors
/// What makes it unsafe to begin: a member that does not answer, no quorum, the alarm CORRUPT.
pub fn plan(view: &ClusterView, known_as: &str, found: Found, wanted: &Wanted) -> Outcome<Option<Plan>> {
    let alarms = alarmed(view)?;
    let before = spaces(view, wanted.quota, &[]);
    if alarms.is_empty() && !before.iter().any(Space::is_near) {
        return Ok(None);
    }
    let all = Rule { in_use_below: None, free_above: None, all: true, only: Vec::new() };
    let defragmentation = defrag::plan(view, &all)?;
    let mut steps = Vec::new();
    match &wanted.backup {
        BackupTo::Repository(url) => steps.push(Step::Backup { repository: url.clone() }),
        BackupTo::File(file) => steps.push(Step::Snapshot { file: file.clone() }),
        BackupTo::Nowhere => {}
    }
    if !found.is_kubernetes || wanted.compact_anyway {
        steps.push(Step::Compact { revision: found.revision });
    }
    steps.extend(defragmentation.steps.into_iter().filter_map(|step| match step {
        defrag::Step::Defragment { member, label, .. } => Some(Step::Defragment { member: member.to_string(), label }),
        // Who leads when its turn comes is found out then.
        defrag::Step::MoveLeader { .. } => None,
    }));
    if !alarms.is_empty() {
        steps.push(Step::Disarm);
    }
    steps.push(Step::Verify);
    Ok(Some(Plan {
        cluster_id: known_as.to_owned(),
        planned: view.taken,
        revision: found.revision,
        is_kubernetes: found.is_kubernetes,
        alarms,
        before,
        steps,
    }))
}

/// What plans for a cluster are found by: its id; over Talos, which tells none, its least member id.
///
/// # Errors
/// Where the members that answer belong to different clusters, or none is known.
pub fn known_as(looked: &Looked, access: &Access) -> Outcome<String> {
    change::one_cluster(&looked.view)?;
    looked.known_by(access).first().map(ToString::to_string).ok_or_else(|| {
        Failure::failed("the cluster tells neither its id nor its members, so a plan for it cannot be kept")
            .next(["lifeboat", "etcd", "members"])
    })
}

impl Plan {
    /// Whether a backup can hold everything that this plan takes away: it was begun after the plan was made, and reaches at least as far. Neither alone
    /// is enough: a cluster that was made anew with the same name and token has the id of the old one, and low revisions again.
    #[must_use]
    pub fn reaches(&self, revision: i64, begun: Timestamp) -> bool {
        begun >= self.planned && revision >= self.revision
    }

    /// Whether a backup is of this cluster: by its exact id; over Talos, which tells none, by a member of the plan.
    fn is_of(&self, cluster: Option<ClusterId>, member: Option<MemberId>) -> bool {
        match self.cluster_id.parse::<ClusterId>() {
            Ok(own) => cluster == Some(own),
            Err(_) => cluster.is_none() && member.is_some_and(|member| self.before.iter().any(|space| space.member == member.to_string())),
        }
    }

    /// Whether the history is taken away by this plan.
    #[must_use]
    pub fn compacts(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Compact { .. }))
    }

    /// What is worth knowing before it is begun, in words.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if !self.compacts() {
            remarks.push(
                "this is a Kubernetes cluster, and compaction is left to the API server: it compacts every 5 minutes, once it can write again. \
                 If the free pages alone do not make room enough, --compact-anyway compacts as well"
                    .to_owned(),
            );
        } else if self.is_kubernetes {
            remarks.push("watches that are behind this revision start anew: API servers and controllers list again".to_owned());
        }
        let alarmed = self.before.iter().filter(|space| space.quota.is_some_and(|quota| space.in_use as f64 >= quota as f64 * QUOTA_ALERT));
        if !self.compacts()
            && let Some(space) = alarmed.max_by_key(|space| space.in_use)
        {
            remarks.push(format!("{} has hardly any free pages, so that this alone will not help", space.name));
        }
        remarks
    }
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcomes {
    /// The backup's id, or the snapshot's path.
    pub backup: Option<String>,
    /// Every member's file afterwards.
    pub after: Vec<Space>,
    /// Members that raise NOSPACE still, or again.
    pub alarms: Vec<String>,
}

impl Outcomes {
    /// Reads it from a journal whose steps are done.
    #[must_use]
    pub fn of(journal: &Journal<Plan>) -> Option<Self> {
        let text = |step: &str, name: &str| journal.facts(step).and_then(|facts| facts.get(name)?.as_str().map(str::to_owned));
        let verified = journal.facts("verify")?;
        let part = |name: &str| verified.get(name).cloned().unwrap_or_default();
        Some(Self {
            backup: text("backup", "backup").or_else(|| text("snapshot", "file")),
            after: serde_json::from_value(part("members")).ok()?,
            alarms: serde_json::from_value(part("alarms")).ok()?,
        })
    }

    /// Whether there is room, and writes are taken.
    #[must_use]
    pub fn helped(&self) -> bool {
        self.alarms.is_empty() && !self.after.iter().any(Space::is_near)
    }

    /// Why not, and what to do.
    #[must_use]
    pub fn failure(&self, plan: &Plan) -> Option<Failure> {
        if self.helped() {
            return None;
        }
        let near: Vec<String> = self.after.iter().filter(|space| space.is_near()).map(near_words).collect();
        let (what, object) = if self.alarms.is_empty() {
            ("the cluster takes writes again, and its files are still near the quota: the alarm will come back", near.join(", "))
        } else {
            ("there is not room enough: NOSPACE stands, and the cluster takes no writes", near.join(", "))
        };
        let failure = Failure::failed(what).object(if object.is_empty() { self.alarms.join(", ") } else { object });
        // Once the alarm is gone nothing tells any more that the files are large, but what was concluded from it.
        let quota = self.after.iter().filter(|space| space.is_near() && !space.quota_told).find_map(|space| space.quota);
        let quota: Vec<String> = quota.iter().flat_map(|quota| ["--quota".to_owned(), quota.to_string()]).collect();
        let with = if quota.is_empty() { String::new() } else { format!(" with {}", quota.join(" ")) };
        Some(if plan.compacts() {
            failure
                .cause(format!(
                    "what is left is live data: see who fills the database, delete what is not needed and run this again{with}; or start \
                     every member with a larger --quota-backend-bytes (8 GiB at most is advised)",
                ))
                .next(match &self.backup {
                    Some(backup) => vec!["lifeboat", "etcd", "top", backup.as_str()],
                    None => vec!["lifeboat", "snapshot", "save", "snapshot.db"],
                })
        } else {
            failure
                .cause(
                    "the history is still there: where writes are taken, the API server compacts within 5 minutes, and 'lifeboat etcd defrag' gives \
                     the room back then; else compact now, see who fills the database with 'lifeboat etcd top', or raise --quota-backend-bytes",
                )
                .again_with(["--compact-anyway".to_owned()].into_iter().chain(quota))
        })
    }
}

fn near_words(space: &Space) -> String {
    let about = if space.quota_told { "" } else { "about " };
    format!("{}: {} MiB of {about}{} MiB", space.name, space.size >> 20, space.quota.unwrap_or_default() >> 20)
}

/// How far a plan is, step by step: whether it is done, and in which words.
#[must_use]
pub fn progress(journal: &Journal<Plan>) -> Vec<(bool, String)> {
    use crate::journal::Step as _;
    let of = |(at, step): (usize, &Step)| match journal.standing(at) {
        Standing::Done(facts) if facts.get("disarmed").and_then(serde_json::Value::as_bool) == Some(false) => {
            (true, format!("{} (left as it is: there is no room)", step.words()))
        }
        Standing::Done(_) => (true, step.words()),
        Standing::Begun => (false, format!("{} (begun)", step.words())),
        Standing::Failed(reason) => (false, format!("{} (failed: {reason})", step.words())),
        Standing::Waiting => (false, step.words()),
    };
    journal.plan().steps.iter().enumerate().map(of).collect()
}

#[cfg(test)]
mod tests;
