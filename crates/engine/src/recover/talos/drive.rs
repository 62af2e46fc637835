//! Carrying a plan out. Everything that a step needs is in the plan or found anew, so that any process on this machine can go on with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use serde_json::{Value, json};
use talos_api::{Client, Node};
use vault::name::ClusterName;

use super::checks::{self, Verdict};
use super::plan::{Goal, Plan, PlannedNode, Source, Step, is_of};
use super::reset::Until;
use super::seen;
use crate::access::Access;
use crate::backup::RescueRequest;
use crate::care::health::{self, Certificates, Severity};
use crate::care::look::look;
use crate::failure::{Code, Failure, Outcome};
use crate::journal::{Driver, Facts, Journal, Notebook, Turn};
use crate::limits::{RECOVERY_ASKS_AGAIN_AFTER, RECOVERY_LOOKS_EVERY, RECOVERY_SETTLES_WITHIN};
use crate::opening::Opening;
use crate::place::{PlaceOptions, Which};
use crate::progress::Progress;
use crate::restore::bump::{self, Sighting};
use crate::restore::plan::UNKNOWN_LEASE_TTL;
use crate::restore::{self, BumpChoice};
use crate::seal_pipeline::on_thread;
use crate::snapshot_file::{self, PrepareRequest};
use crate::talos::{TalosOptions, reach};

/// How often a node is looked at while something is waited for.
pub(super) const POLL: Duration = RECOVERY_LOOKS_EVERY;

/// What opens the backup, where one in a repository is restored.
#[derive(Clone, Debug)]
pub struct Prepare {
    /// The repository.
    pub place: PlaceOptions,
    /// The cluster's name there.
    pub cluster: Option<ClusterName>,
    /// What opens it.
    pub opening: Opening,
    /// The minisign secret key that signs the record of the restore.
    pub signing_key: Option<PathBuf>,
}

/// What carries a plan out.
pub struct Recovery {
    pub(super) talos: TalosOptions,
    client: Client,
    prepare: Option<Prepare>,
    /// How rescues are kept in a repository as well; what is each one's own is left empty.
    pub(super) keep: Option<RescueRequest>,
    /// How long a step may show no change before it is given up for this run.
    pub(super) patience: Duration,
    /// How long an order is given to show an effect before it is taken for never given.
    pub(super) settle: Duration,
    /// How long a bootstrap that was answered is let alone before it is given anew.
    pub(super) ask_again: Duration,
    pub(super) progress: Arc<dyn Progress>,
}

impl std::fmt::Debug for Recovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recovery").field("talos", &self.talos).field("patience", &self.patience).finish_non_exhaustive()
    }
}

/// A note's text field.
pub(super) fn text(name: &str, value: &str) -> (String, Value) {
    (name.to_owned(), value.into())
}

fn facts(value: Value) -> Facts {
    match value {
        Value::Object(facts) => facts,
        _ => Facts::new(),
    }
}

impl Recovery {
    /// For a plan: its endpoints are the ones that are dialled, each node by itself.
    ///
    /// # Errors
    /// A talosconfig that cannot be used.
    pub fn new(
        options: &TalosOptions,
        plan: &Plan,
        prepare: Option<Prepare>,
        patience: Duration,
        progress: Arc<dyn Progress>,
    ) -> Outcome<Self> {
        Self::at(options, plan.endpoints.clone(), prepare, patience, progress)
    }

    /// With these endpoints.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn at(
        options: &TalosOptions,
        endpoints: Vec<String>,
        prepare: Option<Prepare>,
        patience: Duration,
        progress: Arc<dyn Progress>,
    ) -> Outcome<Self> {
        let talos = TalosOptions { endpoints, nodes: Vec::new(), direct: false, ..options.clone() };
        let client = reach::client(&talos)?;
        let (settle, ask_again) = (RECOVERY_SETTLES_WITHIN.min(patience / 4), RECOVERY_ASKS_AGAIN_AFTER.min(patience / 2));
        Ok(Self { talos, client, prepare, keep: None, patience, settle, ask_again, progress })
    }

    /// Keeps rescues in a repository too.
    #[must_use]
    pub fn keeping(mut self, keep: Option<RescueRequest>) -> Self {
        self.keep = keep;
        self
    }

    pub(super) fn node(&self, planned: &PlannedNode) -> Outcome<Node> {
        seen::node(&self.client, planned)
    }

    /// Saves what a node holds before there is a plan: to restore from it. Returns the file, and whether it is a snapshot with a trailer.
    ///
    /// # Errors
    /// Where it cannot be had, or is damaged.
    pub async fn save(&self, node: &super::Node, directory: &Path) -> Outcome<(PathBuf, bool)> {
        let planned = PlannedNode { name: node.name.clone(), address: node.address.clone(), addresses: Vec::new(), wipe: String::new() };
        let saved = self.rescue(&planned, &directory.join("from-node"), false).await?;
        let path = PathBuf::from(saved.get("file").and_then(Value::as_str).unwrap_or_default());
        if saved.get("sound").and_then(Value::as_bool) != Some(true) {
            return Err(Failure::new(Code::Unproven, format!("what {} holds is not sound, so nothing can be restored from it", node.name))
                .object(path.display())
                .cause(saved.get("why").and_then(Value::as_str).unwrap_or_default())
                .next(["lifeboat", "recover", "talos"]));
        }
        Ok((path, saved.get("clean").and_then(Value::as_bool) == Some(true)))
    }

    /// Makes the file for the upload: the whole of what the node restores, proven before anything is wiped.
    async fn prepare(&self, notebook: &mut Notebook<'_, Plan>, from: &Source, file: &Path) -> Outcome<Value> {
        if let Some(directory) = file.parent() {
            disk::create_dir_all(directory, 0o700).map_err(|error| {
                Failure::failed(format!("the directory for the file cannot be made: {error}")).object(directory.display()).again()
            })?;
        }
        let keep = matches!(notebook.plan().goal, Goal::Restore { keep_revisions: true, .. });
        let changes = match from {
            Source::Backup { repository, id, .. } => self.fetch(repository, id, file, keep).await?,
            Source::File { path, raw } => self.edit(notebook, path, *raw, file, keep).await?,
        };
        let described = described(notebook.plan(), file, highest_rescued(&notebook.all_facts("rescue"))).await?;
        let mut all = facts(described);
        all.insert("changes".to_owned(), changes.into());
        Ok(Value::Object(all))
    }

    async fn fetch(&self, repository: &str, id: &str, file: &Path, keep: bool) -> Outcome<Vec<String>> {
        let missing = || {
            Failure::usage("the plan restores a backup, and its repository was not named")
                .object(repository)
                .again_with(["--repo", repository])
        };
        let prepare = self.prepare.clone().ok_or_else(missing)?;
        if prepare.place.url != repository {
            return Err(missing().cause(format!("{} was named, which is another one", prepare.place.url)));
        }
        let request = restore::Request {
            place: prepare.place,
            cluster: prepare.cluster,
            which: Some(Which::Named(id.to_owned())),
            opening: prepare.opening,
            signing_key: prepare.signing_key,
            goal: restore::Goal::File(file.to_owned()),
            bump: if keep { BumpChoice::None } else { BumpChoice::Safe },
            target_version: None,
            unknown_lease_ttl: i64::try_from(UNKNOWN_LEASE_TTL.as_secs()).unwrap_or(i64::MAX),
            plan: None,
            plan_out: None,
            dry_run: false,
            scratch: false,
            for_talos: !keep,
        };
        let report = restore::run(request, Arc::clone(&self.progress)).await?;
        for warning in &report.warnings {
            self.progress.say(&format!("warning: {warning}"));
        }
        Ok(report.changes)
    }

    async fn edit(&self, notebook: &mut Notebook<'_, Plan>, path: &Path, raw: bool, file: &Path, keep: bool) -> Outcome<Vec<String>> {
        let target = if keep { None } else { Some(self.target(notebook, path, raw).await?) };
        let request = PrepareRequest {
            snapshot: path.to_owned(),
            out: file.to_owned(),
            target_revision: target,
            for_talos: !keep,
            skip_hash_check: raw,
            unknown_lease_ttl: i64::try_from(UNKNOWN_LEASE_TTL.as_secs()).unwrap_or(i64::MAX),
        };
        Ok(snapshot_file::prepare(request, Arc::clone(&self.progress)).await?.changes)
    }

    /// How far revisions move on: past the file and past every survivor. Chosen once, and remembered.
    async fn target(&self, notebook: &mut Notebook<'_, Plan>, path: &Path, raw: bool) -> Outcome<i64> {
        if let Some(target) = notebook.notes().iter().rev().find_map(|note| note.get("target")?.as_i64()) {
            return Ok(target);
        }
        let own = path.to_owned();
        let held = on_thread("look", move || Ok(snapshot_file::facts(&own, raw))).await??;
        let made = path.metadata().and_then(|metadata| metadata.modified()).unwrap_or_else(|_| SystemTime::now());
        let seconds = |at: Timestamp| at.as_millisecond() as f64 / 1000.0;
        let made = Timestamp::try_from(made).map_or_else(|_| seconds(Timestamp::now()), seconds);
        let highest = held.revision.max(highest_rescued(&notebook.all_facts("rescue")));
        let seen = Sighting { revision: etcd_store::id::Revision(highest), at: made };
        let target = bump::target(&[seen], None, seconds(Timestamp::now()), restore::random_fraction()?).0;
        notebook.note(Facts::from_iter([("target".to_owned(), target.into())]))?;
        Ok(target)
    }

    async fn removed(&self, plan: &Plan, member: &str) -> Outcome<Option<bool>> {
        let id = member_id(member)?;
        // Never the node itself: in a split it may have another word for it.
        for node in plan.nodes.iter().filter(|node| !matches!(&plan.goal, Goal::Replace { node: replaced } if *replaced == node.name)) {
            if let Ok(members) = self.node(node)?.etcd_members(true).await {
                return Ok(Some(members.iter().all(|member| member.id != id)));
            }
        }
        Ok(None)
    }

    async fn remove(&self, plan: &Plan, member: &str, label: &str) -> Outcome<Value> {
        let id = member_id(member)?;
        let begun = Instant::now();
        let mut last = None;
        while begun.elapsed() < self.patience {
            if self.removed(plan, member).await? == Some(true) {
                return Ok(json!({"member": member, "name": label}));
            }
            for node in &plan.nodes {
                if matches!(&plan.goal, Goal::Replace { node: replaced } if *replaced == node.name) {
                    continue;
                }
                match self.node(node)?.etcd_remove_member(id).await {
                    Ok(()) => break,
                    Err(error) => last = Some(error),
                }
            }
            tokio::time::sleep(POLL).await;
        }
        Err(match last {
            Some(error) => seen::refused("the member was not removed", &error),
            None => Failure::failed(format!("member {label} is still there")).again(),
        })
    }

    /// Every node a voting member that works, one leader, nobody behind, no alarm, no alert; and the content is what was restored.
    async fn verify(&self, notebook: &Notebook<'_, Plan>) -> Outcome<Value> {
        let access = Access::Talos(self.talos.clone());
        let begun = Instant::now();
        let (view, findings) = loop {
            let wrong = match look(&access).await {
                Ok(looked) => {
                    let findings = health::examine(&looked.view, None, &Certificates::default());
                    let missing = notebook.plan().nodes.iter().filter(|node| !is_in(&looked.view, node)).map(|node| node.name.clone());
                    let missing: Vec<String> = missing.collect();
                    let alerts: Vec<&health::Finding> = findings.iter().filter(|finding| finding.severity == Severity::Alert).collect();
                    match (missing.is_empty(), alerts.first()) {
                        (true, None) => break (looked.view, findings),
                        (false, _) => format!("{} has no voting member that works", missing.join(", ")),
                        (true, Some(alert)) => format!("{}: {}", alert.check, alert.says),
                    }
                }
                Err(failure) => failure.to_string(),
            };
            if begun.elapsed() > self.patience {
                return Err(Failure::failed("the cluster runs, and is not well").cause(wrong).next(["lifeboat", "etcd", "health"]));
            }
            tokio::time::sleep(POLL).await;
        };
        let first = notebook.plan().nodes.first().ok_or_else(|| Failure::failed("the plan has no node; this is a bug in Lifeboat"))?;
        let content = loop {
            match self.proven(notebook, first).await {
                Ok(content) => break content,
                // A node that starts anew at this moment proves nothing, either way.
                Err(failure) if !matches!(failure.code, Code::Unproven | Code::WrongCluster) && begun.elapsed() < self.patience => {
                    self.progress.say(&format!("{}: {}; it is asked again", first.name, failure.what));
                    tokio::time::sleep(POLL).await;
                }
                Err(failure) => return Err(failure),
            }
        };
        let mut listed: Vec<_> = view.members.iter().collect();
        listed.sort_by_key(|member| member.label());
        let members: Vec<Value> = listed.into_iter().map(|member| member_json(member, view.leader())).collect();
        let advice: Vec<String> = findings
            .iter()
            .filter(|finding| finding.severity == Severity::Advice)
            .map(|finding| format!("{}: {}", finding.check, finding.says))
            .collect();
        Ok(json!({"members": members, "alarms": view.alarms.as_ref().map(Vec::len), "content": content, "advice": advice}))
    }
}

fn member_json(member: &crate::care::MemberView, leader: Option<etcd_store::id::MemberId>) -> Value {
    let status = member.status();
    json!({
        "name": member.label(),
        "id": member.id.to_string(),
        "node": member.endpoint,
        "leader": leader == Some(member.id),
        "db_size": status.map(|status| status.db_size),
        "raft_applied_index": status.map(|status| status.raft_applied_index),
    })
}

fn is_in(view: &crate::care::ClusterView, node: &PlannedNode) -> bool {
    let as_listed = |member: &crate::care::MemberView| talos_api::Member {
        id: member.id,
        name: member.name.clone(),
        peer_urls: member.peer_urls.clone(),
        client_urls: member.client_urls.clone(),
        is_learner: member.is_learner,
    };
    view.working_voters().any(|member| is_of(&as_listed(member), &node.name, &node.addresses))
}

fn member_id(text: &str) -> Outcome<etcd_store::id::MemberId> {
    text.parse().map_err(|error| Failure::failed("the plan names a member by what is no id").object(text).cause(error).again())
}

/// The highest revision that any rescue holds.
fn highest_rescued(rescues: &[&Facts]) -> i64 {
    rescues.iter().filter_map(|facts| facts.get("revision")?.as_i64()).max().unwrap_or(0)
}

/// What the file for the upload holds. Refuses one that is of another cluster, where the plan could not know it.
async fn described(plan: &Plan, file: &Path, rescued: i64) -> Outcome<Value> {
    let own = file.to_owned();
    let held = on_thread("look", move || Ok(snapshot_file::facts(&own, false))).await??;
    let nodes = plan.nodes.iter().map(|node| (node.name.as_str(), node.addresses.clone()));
    if let Some(check) =
        checks::members_fit(&checks::members_of(&held), nodes, plan.foreign).filter(|check| check.verdict == Verdict::Refused)
    {
        return Err(Failure::new(Code::WrongCluster, "nothing was wiped: the backup seems to be of another cluster")
            .object(file.display())
            .cause(format!("{}; give the plan up by --abandon, and take the right one, or this one with --foreign", check.says))
            .next(["lifeboat", "recover", "talos", "--abandon"]));
    }
    if matches!(plan.goal, Goal::Restore { keep_revisions: false, .. }) && held.revision <= rescued {
        return Err(Failure::failed("nothing was wiped: the revisions would not be moved past everything that a survivor has handed out")
            .object(file.display())
            .cause(format!("the file ends at {}, a survivor at {rescued}", held.revision))
            .next(["lifeboat", "recover", "talos", "--abandon"]));
    }
    Ok(json!({"file": file, "size": held.size, "revision_after": held.revision, "keys": held.live_keys}))
}

impl Driver<Plan> for Recovery {
    async fn already(&mut self, step: usize, journal: &Journal<Plan>) -> Outcome<Option<Facts>> {
        let plan = journal.plan();
        Ok(match &plan.steps[step] {
            Step::Rescue { node, to } => self.rescued(node, to).await.map(facts),
            // It appears complete or not at all.
            Step::Prepare { file, .. } if file.exists() => {
                Some(facts(described(plan, file, highest_rescued(&journal.all_facts("rescue"))).await?))
            }
            Step::Remove { member, label } => {
                let is_gone = self.removed(plan, member).await?;
                (is_gone == Some(true)).then(|| facts(json!({"member": member, "name": label})))
            }
            Step::Reset { nodes } if matches!(plan.goal, Goal::Restore { .. }) => {
                self.all_empty(nodes).await?.then(|| facts(json!({"nodes": nodes.iter().map(|node| &node.name).collect::<Vec<_>>()})))
            }
            // Carrying them out is finding out.
            Step::Prepare { .. } | Step::Reset { .. } | Step::Upload { .. } | Step::Bootstrap { .. } | Step::Join { .. } | Step::Verify => {
                None
            }
        })
    }

    async fn carry_out(&mut self, step: usize, notebook: &mut Notebook<'_, Plan>) -> Outcome<Turn> {
        let plan = notebook.plan();
        let until = if matches!(plan.goal, Goal::Restore { .. }) { Until::Empty } else { Until::StartedAnew };
        Ok(match plan.steps[step].clone() {
            Step::Rescue { node, to } => Turn::Done(facts(self.rescue(&node, &to, plan.no_rescue).await?)),
            Step::Prepare { from, file } => Turn::Done(facts(self.prepare(notebook, &from, &file).await?)),
            Step::Remove { member, label } => Turn::Done(facts(self.remove(plan, &member, &label).await?)),
            Step::Reset { nodes } => Turn::Done(facts(self.reset(notebook, &nodes, until).await?)),
            Step::Upload { node, file } => self.upload(notebook, &node, &file).await?,
            Step::Bootstrap { node } => self.bootstrap(notebook, &node).await?,
            Step::Join { node } => self.join(notebook, &node).await?,
            Step::Verify => Turn::Done(facts(self.verify(notebook).await?)),
        })
    }
}
