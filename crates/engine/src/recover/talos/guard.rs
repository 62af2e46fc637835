//! What is looked at again right before something is lost: a plan may be hours old when it is gone on with.

use futures::future::join_all;
use serde_json::Value;

use super::drive::{Recovery, text};
use super::evidence::Data;
use super::plan::{Plan, PlannedNode, Step};
use super::seen::{Seen, see};
use crate::failure::{Code, Failure, Outcome};
use crate::journal::{Facts, Notebook};

impl Recovery {
    /// Nodes of the plan whose etcd follows a leader: somebody takes writes there.
    async fn living(&self, plan: &Plan) -> Outcome<Vec<PlannedNode>> {
        let asked =
            join_all(plan.nodes.iter().map(|node| async move { Ok::<_, Failure>((node, self.node(node)?.etcd_status().await)) })).await;
        let mut living = Vec::new();
        for one in asked {
            let (node, status) = one?;
            if status.is_ok_and(|status| status.leader.is_some()) {
                living.push(node.clone());
            }
        }
        Ok(living)
    }

    /// Refuses to go on where nodes would be wiped that a working cluster lives on: it came back by itself, or somebody brought it back. What is wiped all
    /// the same is the cluster that is rolled back, in the first round of its plan, and a restore of ours that a reboot cut in half.
    pub(super) async fn refuse_a_living_cluster(&self, notebook: &Notebook<'_, Plan>) -> Outcome<()> {
        let plan = notebook.plan();
        if plan.roll_back && notebook.returns() == 0 {
            return Ok(());
        }
        for node in self.living(plan).await? {
            if self.is_half_restored(&node, plan).await {
                continue;
            }
            return Err(Failure::failed(format!("etcd works on {}, so no node is wiped", node.name))
                .object(&node.address)
                .cause(
                    "since this plan was made the cluster came back, or somebody brought it back: what it holds is newer than what the plan restores. Look \
                     at it first: lifeboat etcd health. To go on with it as it is, give the plan up",
                )
                .next(["lifeboat", "recover", "talos", "--abandon"]));
        }
        Ok(())
    }

    /// Refuses where a node that is said to be powered off answers.
    pub(super) async fn refuse_the_living_dead(&self, plan: &Plan) -> Outcome<()> {
        for node in &plan.away {
            if see(&self.node(node)?).await.is_ok() {
                return Err(Failure::failed(format!("{} was said to be gone, and it answers", node.name))
                    .object(&node.address)
                    .cause("nodes that are wiped may join what it still holds: power it off; or give the plan up and make one without --node-gone, which wipes it too")
                    .again());
            }
        }
        Ok(())
    }

    /// Saves what a node holds right before it is wiped, unless a rescue of this very state is there.
    pub(super) async fn rescue_again(&self, notebook: &mut Notebook<'_, Plan>, node: &PlannedNode, seen: &Seen) -> Outcome<()> {
        if !matches!(seen.data, Data::There { database: Some(_) }) {
            if let (Data::Unknown(reason), false) = (&seen.data, notebook.plan().no_rescue) {
                return Err(Failure::failed(format!("what {} holds cannot be told, so it is not wiped", node.name))
                    .object(&node.address)
                    .cause(reason)
                    .again());
            }
            return Ok(());
        }
        let applied = self.node(node)?.etcd_status().await.ok().map(|status| status.raft_applied_index);
        let covers = |facts: &Facts| {
            facts.get("node").and_then(Value::as_str) == Some(node.name.as_str())
                && facts.get("boot_id").and_then(Value::as_str) == Some(seen.boot_id.as_str())
                && facts.get("applied").and_then(Value::as_u64) == applied
        };
        let is_covered = notebook.all_facts("rescue").into_iter().any(covers) || notebook.notes().iter().any(covers);
        if is_covered {
            return Ok(());
        }
        let number = notebook.notes().iter().filter(|note| note.contains_key("file")).count() + 1;
        let round = notebook.returns();
        let to = notebook.plan().directory.join(format!("{}-again-{round}-{number}", super::plan::plain(&node.name)));
        self.progress.say(&format!("{}: it holds data that no rescue has yet; it is saved first", node.name));
        let no_rescue = notebook.plan().no_rescue;
        let rescued = self.rescue(node, &to, no_rescue).await?;
        let mut facts = rescued.as_object().cloned().unwrap_or_default();
        facts.extend([text("boot_id", &seen.boot_id)]);
        notebook.note(facts)
    }

    /// Whether a node runs a database with a new raft log beneath it: a restore that a reboot cut in half.
    async fn is_half_restored(&self, node: &PlannedNode, plan: &Plan) -> bool {
        matches!(self.content(plan, node).await, Err(failure) if failure.code == Code::Unproven)
    }

    /// How the node that is replaced stands to the others.
    pub(super) async fn standing(&self, plan: &Plan, node: &PlannedNode) -> Outcome<Standing> {
        let removed = plan.steps.iter().find_map(|step| match step {
            Step::Remove { member, .. } => Some(member.as_str()),
            _ => None,
        });
        let Ok(status) = self.node(node)?.etcd_status().await else { return Ok(Standing::Unknown) };
        if removed == Some(status.member_id.to_string().as_str()) {
            return Ok(Standing::Removed);
        }
        for other in plan.nodes.iter().filter(|other| other.name != node.name) {
            if let Ok(members) = self.node(other)?.etcd_members(true).await {
                let is_listed = members.iter().any(|member| member.id == status.member_id);
                return Ok(if is_listed { Standing::Rejoined } else { Standing::Unknown });
            }
        }
        Ok(Standing::Unknown)
    }
}

/// How a node that is replaced stands to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It runs as a member that they list, and that is not the one that was removed.
    Rejoined,
    /// It runs as the member that was removed.
    Removed,
    /// It does not say, or nobody knows it.
    Unknown,
}
