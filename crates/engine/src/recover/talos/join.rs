//! Waiting until a node has joined: a learner first, promoted by Talos itself, then a voting member that works.

use std::time::Instant;

use serde_json::{Value, json};
use talos_api::Member;

use super::drive::{POLL, Recovery, text};
use super::evidence::Data;
use super::plan::{Goal, Plan, PlannedNode, is_of};
use super::seen::{self, see};
use crate::failure::{Failure, Outcome};
use crate::journal::{Facts, Notebook, Turn};

/// How many times the patience for one state all states together may take: a learner that gets further, an etcd that is started anew for ever.
const PATIENCES: u32 = 4;

/// How far a node has come on its way in.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// It has a vote and works.
    In,
    /// It is on its way; in words.
    OnItsWay(String),
    /// Its member is a learner; in words, how far.
    Learner(String),
    /// Its service failed, with the reason.
    Failed(String),
    /// It runs with data of another cluster.
    Alien(String),
}

fn alien(plan: &Plan, node: &PlannedNode, reason: &str) -> Failure {
    let works = plan.nodes.first().map_or("", |first| first.name.as_str());
    Failure::failed(format!("{} belongs to another cluster", node.name))
        .object(&node.address)
        .cause(format!(
            "{reason}. etcd is restored and runs on {works}; nothing more is wiped by this plan: give it up, then replace the member on {}",
            node.name
        ))
        .next(["lifeboat", "recover", "talos", "--abandon"])
}

impl Recovery {
    /// Carries the step out.
    pub(super) async fn join(&self, notebook: &mut Notebook<'_, Plan>, node: &PlannedNode) -> Outcome<Turn> {
        let entered = Instant::now();
        let mut begun = entered;
        let mut last = None;
        loop {
            let stage = self.stage(notebook.plan(), node).await?;
            if last.as_ref() != Some(&stage) {
                if let Stage::OnItsWay(word) | Stage::Learner(word) | Stage::Failed(word) | Stage::Alien(word) = &stage {
                    self.progress.say(&format!("{}: {word}", node.name));
                }
                // A learner that gets further still gets further: its word has the raft index in it.
                begun = Instant::now();
                last = Some(stage.clone());
            }
            match &stage {
                Stage::In => {
                    let facts = json!({"node": node.name});
                    return Ok(Turn::Done(facts.as_object().cloned().unwrap_or_default()));
                }
                // One node alone: where a member is replaced it is wiped again; a restored cluster goes on without it.
                Stage::Alien(reason) => match notebook.plan().goal {
                    Goal::Replace { .. } => return Ok(Self::back_to_reset(notebook.plan(), format!("{}: {reason}", node.name))),
                    Goal::Restore { .. } => return Err(alien(notebook.plan(), node, reason)),
                },
                Stage::Failed(reason) => self.start_anew(notebook, node, reason).await?,
                Stage::OnItsWay(_) | Stage::Learner(_) => {}
            }
            if begun.elapsed() > self.patience || entered.elapsed() > self.patience * PATIENCES {
                return Err(self.stuck(notebook.plan(), node, &stage));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The member list, by the first node that gives one of those that were bootstrapped or stayed.
    async fn members(&self, plan: &Plan, but: &PlannedNode) -> Outcome<Option<Vec<Member>>> {
        for node in plan.nodes.iter().filter(|node| node.name != but.name) {
            if let Ok(members) = self.node(node)?.etcd_members(true).await {
                return Ok(Some(members));
            }
        }
        Ok(None)
    }

    async fn stage(&self, plan: &Plan, node: &PlannedNode) -> Outcome<Stage> {
        let asked = self.node(node)?;
        let seen = match see(&asked).await {
            Ok(seen) => seen,
            Err(reason) => return Ok(Stage::OnItsWay(format!("it does not answer: {reason}"))),
        };
        let Some(members) = self.members(plan, node).await? else {
            return Ok(Stage::OnItsWay("no other member tells who belongs to the cluster".to_owned()));
        };
        let member = members.iter().find(|member| is_of(member, &node.name, &node.addresses));
        let status = asked.etcd_status().await.ok();
        // Addresses may be translated or change; an id is an id.
        let member = status.as_ref().and_then(|status| members.iter().find(|member| member.id == status.member_id)).or(member);
        Ok(match (member, status) {
            (Some(member), Some(status)) if status.member_id != member.id && seen.data != Data::None => {
                Stage::Alien(format!("it runs as member {}, and the cluster knows it as {}", status.member_id, member.id))
            }
            (Some(member), Some(status)) if member.is_learner => {
                Stage::Learner(format!("its member is a learner, at raft index {}", status.raft_applied_index))
            }
            (Some(member), Some(status)) if status.leader.is_some() && seen.is_well() => {
                debug_assert_eq!(status.member_id, member.id, "the arm above");
                Stage::In
            }
            (None, Some(status)) if seen.state == "Running" && status.leader.is_some() => {
                Stage::Alien(format!("it runs as member {} of another cluster", status.member_id))
            }
            _ if seen.state == "Failed" => Stage::Failed(seen.event),
            _ => Stage::OnItsWay(seen.words()),
        })
    }

    /// Talos gives up joining after half an hour, and tries again when it starts; a node that holds what it must not is wiped.
    async fn start_anew(&self, notebook: &mut Notebook<'_, Plan>, node: &PlannedNode, reason: &str) -> Outcome<()> {
        let asked = self.node(node)?;
        let Ok(seen) = see(&asked).await else { return Ok(()) };
        let is_told = |note: &Facts| note.get("rebooted").and_then(Value::as_str) == Some(seen.boot_id.as_str());
        if seen.state != "Failed" || notebook.notes().iter().any(is_told) {
            return Ok(());
        }
        if notebook.notes().iter().filter(|note| note.contains_key("rebooted")).count() >= 2 {
            return Err(Failure::failed(format!("{} does not join: its etcd fails again and again", node.name))
                .object(&node.address)
                .cause(reason)
                .next(["lifeboat", "etcd", "logs", &node.address]));
        }
        notebook.note(Facts::from_iter([text("rebooted", &seen.boot_id)]))?;
        self.progress.say(&format!("{}: its etcd failed ({reason}); it is rebooted, for then it tries again", node.name));
        match asked.reboot().await {
            Ok(()) => Ok(()),
            Err(error) if seen::may_pass(&error) => Ok(()),
            Err(error) => Err(seen::refused("the node was not rebooted", &error)),
        }
    }

    fn stuck(&self, plan: &Plan, node: &PlannedNode, stage: &Stage) -> Failure {
        let seconds = self.patience.as_secs();
        let works = match plan.goal {
            Goal::Restore { .. } => {
                format!("etcd is restored and runs on {}; ", plan.nodes.first().map_or("the first node", |first| first.name.as_str()))
            }
            Goal::Replace { .. } => "the other members go on; ".to_owned(),
        };
        match stage {
            Stage::Learner(word) => Failure::failed(format!("{} is not promoted", node.name))
                .object(&node.address)
                .cause(format!(
                    "{works}{word}, and stayed there for {seconds} s. Talos promotes learners by itself, one at a time; some releases of 1.13 are slow at it. \
                     The same command goes on waiting; to give the vote by hand:"
                ))
                .next(["lifeboat", "etcd", "promote", &node.name, "--talos-direct"]),
            Stage::OnItsWay(word) | Stage::Failed(word) | Stage::Alien(word) => Failure::failed(format!("{} does not join", node.name))
                .object(&node.address)
                .cause(format!("{works}{word}; nothing changed for {seconds} s. The same command goes on waiting; a reboot of the node makes Talos try again"))
                .again(),
            Stage::In => Failure::failed("a node that has joined is waited for; this is a bug in Lifeboat"),
        }
    }
}
