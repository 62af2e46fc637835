//! Carrying the remedy out, over etcd's own API or over Talos's.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_api::{AlarmKind, Client, ErrorKind, KeyRange, RangeRequest};
use etcd_store::id::{MemberId, Revision};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Found, Plan, Space, Step, alarmed, spaces};
use crate::access::Access;
use crate::care::look::{Looked, look};
use crate::care::view::MemberView;
use crate::care::{act, defrag, defrag_run};
use crate::exclusion::{self, Asked, Exclusion, Key};
use crate::failure::{Code, Failure, Outcome};
use crate::journal::{Driver, Facts, Journal, Notebook, Turn};
use crate::lease::{self, Holder};
use crate::limits::{COMPACTION_SETTLES_WITHIN, LOOK_AGAIN_AFTER, SETTLED_LOOKS, WORTH_DEFRAGMENTING};
use crate::member_link::MemberLink;
use crate::place::PlaceOptions;
use crate::progress::Progress;
use crate::seal_pipeline::on_thread;
use crate::snapshot_file::{self, SaveRequest, Target};
use crate::source::SourceOptions;
use crate::source_failure::failure;
use crate::talos::TalosOptions;
use crate::talos::reach::host_of;
use crate::{backup, place};
use vault::name::ClusterName;

/// Where API servers keep their objects: the default of `--etcd-prefix`, and OpenShift's two.
const KUBERNETES: [&str; 3] = ["/registry/", "/kubernetes.io/", "/openshift.io/"];

/// Finds out what the plan needs beside the view: how far the cluster is, and whether it is one of Kubernetes.
///
/// # Errors
/// The read fails: without a quorum there is no remedy.
pub async fn find_out(looked: &Looked) -> Outcome<Found> {
    // Talos passes no read on, and runs etcd for Kubernetes alone.
    if looked.talos.is_some() {
        return Ok(Found { revision: 0, is_kubernetes: true });
    }
    let client = leader(looked)?;
    let wrong = |error: &etcd_api::Error| failure("the cluster cannot be read", error);
    let revision = client.linearizable_read().await.map_err(|error| wrong(&error))?.revision;
    let mut is_kubernetes = false;
    for prefix in KUBERNETES {
        let keys = RangeRequest { limit: 1, keys_only: true, ..RangeRequest::new(KeyRange::prefix(prefix)) };
        is_kubernetes |= !client.range(keys).await.map_err(|error| wrong(&error))?.kvs.is_empty();
    }
    Ok(Found { revision: revision.0, is_kubernetes })
}

/// The leader's connection, else anybody's.
fn leader(looked: &Looked) -> Outcome<&Client> {
    let leads = looked.view.leader().and_then(|id| looked.links.get(&id)?.etcd());
    leads.or_else(|| looked.links.values().find_map(MemberLink::etcd)).ok_or_else(|| Failure::failed("no member answers").again())
}

/// What carries the remedy out.
pub struct Remedy<'a> {
    /// How the cluster is reached.
    pub access: Access,
    /// The backup, where one into a repository is still to be taken.
    pub backup: Option<backup::Request>,
    /// The repository whose lease keeps backups of other hosts away while a member is rewritten.
    pub repository: Option<(PlaceOptions, Option<ClusterName>)>,
    /// Gets the lease of the repository; release it when this is dropped early.
    pub holder: &'a Holder,
    /// The quota, where it is known better than etcd tells it.
    pub quota: Option<u64>,
    /// Time between two members.
    pub pause: Duration,
    /// Who is told.
    pub progress: Arc<dyn Progress>,
}

impl std::fmt::Debug for Remedy<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remedy").field("access", &self.access).field("pause", &self.pause).finish_non_exhaustive()
    }
}

fn facts(value: Value) -> Facts {
    match value {
        Value::Object(facts) => facts,
        _ => Facts::new(),
    }
}

impl Driver<Plan> for Remedy<'_> {
    async fn already(&mut self, step: usize, journal: &Journal<Plan>) -> Outcome<Option<Facts>> {
        let plan = journal.plan();
        match &plan.steps[step] {
            Step::Backup { repository } => self.backed_up(plan, repository).await,
            Step::Snapshot { file } => saved(file, plan).await,
            // Asking again is the way to find out: etcd says so when it is compacted already.
            Step::Compact { .. } => Ok(None),
            Step::Defragment { member, .. } => self.defragmented(member).await,
            Step::Disarm => {
                let left = alarmed(&look(&self.access).await?.view)?;
                Ok(left.is_empty().then(|| facts(json!({"disarmed": true}))))
            }
            Step::Verify => Ok(None),
        }
    }

    async fn carry_out(&mut self, step: usize, notebook: &mut Notebook<'_, Plan>) -> Outcome<Turn> {
        let plan = notebook.plan();
        let this = plan.steps[step].clone();
        let before = plan.before.clone();
        let done = match this {
            Step::Backup { repository } => self.back_up(&repository).await?,
            Step::Snapshot { file } => self.save(&file).await?,
            Step::Compact { revision } => self.compact(Revision(revision)).await?,
            Step::Defragment { member, label } => {
                let is_first = step.checked_sub(1).is_none_or(|earlier| !matches!(plan.steps[earlier], Step::Defragment { .. }));
                if !is_first {
                    tokio::time::sleep(self.pause).await;
                }
                self.defragment(&member, &label).await?
            }
            Step::Disarm => self.disarm(&before).await?,
            Step::Verify => self.verify(&before).await?,
        };
        Ok(Turn::Done(facts(done)))
    }
}

impl Remedy<'_> {
    /// A backup of this cluster that reaches at least as far as the plan began was taken by the run that was stopped.
    async fn backed_up(&self, plan: &Plan, repository: &str) -> Outcome<Option<Facts>> {
        let Some(request) = &self.backup else { return Ok(None) };
        // The run that was stopped may have been the one that would have made the repository.
        let Ok(opened) = place::open(&request.place).await else { return Ok(None) };
        let Ok(name) = place::cluster(&opened, &request.place, request.cluster.as_ref()).await else { return Ok(None) };
        let catalog = place::catalog(&opened, &request.place, &name).await?;
        let fits = |backup: &&vault::repository::Backup| {
            let manifest = &backup.manifest;
            let member = manifest.member.as_ref().map(|member| member.id);
            plan.is_of(manifest.cluster_id, member)
                && plan.reaches(manifest.revision, manifest.times.started)
                && backup.not_latest().is_none()
        };
        let found = catalog.backups.iter().filter(fits).map(|backup| backup.id()).max();
        Ok(found.map(|id| facts(json!({"backup": id.to_string(), "repository": repository}))))
    }

    async fn back_up(&mut self, repository: &str) -> Outcome<Value> {
        let missing = || {
            Failure::usage("the plan under way begins with a backup, and its repository was not named")
                .object(repository)
                .again_with(["--repo", repository])
        };
        let request = self.backup.clone().ok_or_else(missing)?;
        if request.place.url != repository {
            return Err(missing().cause(format!("{} was named, which is another one", request.place.url)));
        }
        let report = backup::run(request, self.holder, Arc::clone(&self.progress)).await?;
        for warning in &report.warnings {
            self.progress.say(&format!("warning: {warning}"));
        }
        match (report.code, report.committed.first()) {
            (Code::Ok | Code::Warnings, Some(committed)) => {
                Ok(json!({"backup": committed.manifest.id.to_string(), "repository": repository, "revision": committed.manifest.revision}))
            }
            _ => Err(Failure::new(Code::Unproven, "the members hold different data, so nothing is taken away")
                .object(repository)
                .cause("a backup of each state was kept; find out which member is wrong before anything else")
                .next(["lifeboat", "etcd", "hashkv"])),
        }
    }

    async fn save(&self, file: &Path) -> Outcome<Value> {
        let looked = look(&self.access).await?;
        let leads = looked.view.leader();
        let working = looked.view.members.iter().filter(|member| member.is_working_voter());
        // A follower where there is one: the leader has enough to do.
        let member = working
            .max_by_key(|member| (leads != Some(member.id), member.status().map_or(0, |status| status.raft_applied_index)))
            .ok_or_else(|| Failure::failed("no voting member works").next(["lifeboat", "etcd", "health"]))?;
        let at = vec![member.endpoint.clone()];
        let source = match &self.access {
            Access::Etcd(options) => Access::Etcd(SourceOptions { endpoints: at, ..options.clone() }),
            Access::Talos(options) => {
                Access::Talos(TalosOptions { nodes: vec![node_of(&looked, member)], direct: false, ..options.clone() })
            }
        };
        let request = SaveRequest {
            source,
            keepalive_time: None,
            keepalive_timeout: None,
            timeout: None,
            target: Target::File(file.to_owned()),
            check: true,
        };
        let saved = snapshot_file::save(request, Arc::clone(&self.progress)).await?;
        Ok(json!({"file": file, "sha256": saved.sha256, "size": saved.database_size}))
    }

    async fn compact(&self, revision: Revision) -> Outcome<Value> {
        let looked = look(&self.access).await?;
        match leader(&looked)?.compact(revision, true).await {
            Ok(_) => {}
            Err(error) => match error.kind() {
                ErrorKind::Compacted(_) => self.progress.say("it is compacted as far already"),
                // It goes on by itself, and the sizes show when it has ended.
                ErrorKind::Timeout(_) => {}
                _ => return Err(failure("the history was not compacted", &error)),
            },
        }
        self.settled().await?;
        Ok(json!({"revision": revision.0}))
    }

    /// Every member removes the old rows in its own time: waits until none has less in use than a moment ago.
    async fn settled(&self) -> Outcome<()> {
        let until = Instant::now() + COMPACTION_SETTLES_WITHIN;
        let (mut last, mut same) = (None, 0);
        while same < SETTLED_LOOKS && Instant::now() < until {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            let view = look(&self.access).await?.view;
            let in_use: Vec<u64> = view.members.iter().filter_map(|member| Some(member.status()?.db_size_in_use)).collect();
            let falls = |before: &Vec<u64>| before.iter().zip(&in_use).any(|(before, now)| now < before);
            same = if last.as_ref().is_some_and(|before: &Vec<u64>| before.len() == in_use.len() && !falls(before)) { same + 1 } else { 0 };
            last = Some(in_use);
        }
        Ok(())
    }

    /// A member whose file holds hardly any free page needs no further turn.
    async fn defragmented(&self, member: &str) -> Outcome<Option<Facts>> {
        // etcd goes on with what it was told, whoever asked: it does not answer until then.
        let size = look(&self.access).await.ok().and_then(|looked| looked.view.answering().map(|(_, answer)| answer.status.db_size).max());
        let limit = defrag_run::limit_for(size.unwrap_or_default());
        let view = act::caught_up(&self.access, limit).await?.view;
        let status = view.find(member).and_then(|member| member.status()).map(|status| (status.db_size, status.db_size_in_use));
        let small = status.filter(|(size, in_use)| size.saturating_sub(*in_use) <= WORTH_DEFRAGMENTING.max(size / 10));
        Ok(small.map(|(size, _)| facts(json!({"member": member, "size_after": size}))))
    }

    async fn defragment(&self, member: &str, label: &str) -> Outcome<Value> {
        let id: MemberId =
            member.parse().map_err(|error| Failure::failed("the plan names a member by what is no id").cause(error).again())?;
        let keys = look(&self.access).await?.known_by(&self.access);
        let _alone: Vec<_> = keys.iter().map(|key| self.alone(key)).collect::<Outcome<Vec<_>>>()?;
        let turn = defrag::Step::Defragment { member: id, label: label.to_owned(), size: 0, in_use: 0 };
        let plan = defrag::Plan { steps: vec![turn], skipped: Vec::new() };
        self.keep_others_away().await?;
        let ran = tokio::select! {
            ran = defrag_run::run(&self.access, &plan, Duration::ZERO, self.progress.as_ref()) => ran,
            never = self.holder.keep(self.progress.as_ref()) => match never {},
        };
        self.holder.release().await;
        match (ran.stopped, ran.turns.first()) {
            (Some(failure), _) => Err(failure),
            (None, Some(turn)) => {
                Ok(json!({"member": member, "size_before": turn.before, "size_after": turn.after, "seconds": turn.took.as_secs_f64()}))
            }
            (None, None) => Err(Failure::failed(format!("{label} had no turn; this is a bug in Lifeboat"))),
        }
    }

    /// No other host begins a backup while a member is rewritten, where a repository is there whose lease can say so.
    async fn keep_others_away(&self) -> Outcome<()> {
        let Some((options, name)) = &self.repository else { return Ok(()) };
        let Ok(opened) = place::open(options).await else { return Ok(()) };
        let Ok(name) = place::cluster(&opened, options, name.as_ref()).await else { return Ok(()) };
        if let Some(word) = self.holder.take(opened.store(), &name, lease::DEFRAG, lease::Mode::Auto).await? {
            self.progress.say(&format!("note: backups of other hosts are not seen: {word}"));
        }
        Ok(())
    }

    fn alone(&self, cluster: &Key) -> Outcome<Option<Exclusion>> {
        match exclusion::alone(exclusion::state_directory().as_deref(), cluster) {
            Asked::Free(exclusion) => Ok(Some(exclusion)),
            Asked::Taken => Err(Failure::failed("a backup or a defragmentation of this cluster runs on this machine")
                .cause("a member that is being read stops serving when it is defragmented; wait until the other one has ended")
                .again()),
            Asked::Unknown(reason) => {
                self.progress.say(&format!("note: whether a backup runs beside this cannot be known: {reason}"));
                Ok(None)
            }
        }
    }

    /// Where a file is as large as its quota, the next write would raise the alarm again, and the applications would see it: then it stays.
    async fn disarm(&self, before: &[Space]) -> Outcome<Value> {
        let looked = look(&self.access).await?;
        let full: Vec<String> =
            spaces(&looked.view, self.quota, before).into_iter().filter(Space::is_full).map(|space| space.name).collect();
        if !full.is_empty() {
            self.progress.say(&format!("NOSPACE stays: {} is as large as its quota", full.join(", ")));
            return Ok(json!({"disarmed": false, "full": full}));
        }
        let raised = looked.view.alarms.iter().flatten().filter(|alarm| alarm.kind == AlarmKind::NoSpace).cloned().collect::<Vec<_>>();
        act::disarm(&looked, &raised).await?;
        Ok(json!({"disarmed": true}))
    }

    async fn verify(&self, before: &[Space]) -> Outcome<Value> {
        // A write that waited raises the alarm again at once where there is no room.
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        let view = look(&self.access).await?.view;
        defrag::healthy(&view)?;
        Ok(json!({"alarms": alarmed(&view)?, "members": spaces(&view, self.quota, before)}))
    }
}

/// The node a member runs on; with `talos.direct` the member was asked at etcd's own address.
fn node_of(looked: &Looked, member: &MemberView) -> String {
    let url = member.client_urls.first().and_then(|url| host_of(url));
    if looked.talos.is_some() { member.endpoint.clone() } else { url.unwrap_or(&member.endpoint).to_owned() }
}

/// A snapshot that reaches at least as far as the plan began is there.
async fn saved(file: &Path, plan: &Plan) -> Outcome<Option<Facts>> {
    if !file.exists() {
        return Ok(None);
    }
    let path = file.to_owned();
    let status = on_thread("status", move || Ok(snapshot_file::status(&path))).await?;
    let made = file.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|time| Timestamp::try_from(time).ok());
    let reaches = |revision: i64| made.is_some_and(|made| plan.reaches(revision, made));
    Ok(status.ok().filter(|status| reaches(status.revision)).map(|status| facts(json!({"file": file, "size": status.total_size}))))
}
