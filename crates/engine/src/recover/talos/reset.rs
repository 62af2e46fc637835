//! Wiping nodes of etcd's data, and waiting until each is empty and waits for a bootstrap or for a cluster to join.

use std::collections::BTreeMap;
use std::time::Instant;

use futures::future::join_all;
use serde_json::{Value, json};
use talos_api::{MachineStage, ResetRequest};

use super::drive::{POLL, Recovery, text};
use super::evidence::Data;
use super::guard::Standing;
use super::plan::{Plan, PlannedNode};
use super::seen::{self, Seen, see};
use crate::failure::{Failure, Outcome};
use crate::journal::{Facts, Notebook};

/// How often one node is told to wipe itself before it is given up.
const TRIES: usize = 4;

/// What a node has to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Empty, and waiting: nobody is there whom it could join.
    Empty,
    /// Started anew: it joins the others at once.
    StartedAnew,
}

/// What was asked of a node, as the journal remembers it: the boots in which it was told to wipe itself.
fn told_in<'a>(notes: &'a [Facts], node: &str) -> Vec<&'a str> {
    let of_node = notes.iter().filter(|note| note.get("node").and_then(Value::as_str) == Some(node));
    of_node.filter_map(|note| note.get("told_in")?.as_str()).collect()
}

impl Recovery {
    /// Whether every node is empty already.
    pub(super) async fn all_empty(&self, nodes: &[PlannedNode]) -> Outcome<bool> {
        let looks = join_all(nodes.iter().map(|node| async move { Ok::<_, Failure>(see(&self.node(node)?).await) })).await;
        for look in looks {
            if !look?.is_ok_and(|seen| seen.is_clean()) {
                return Ok(false);
            }
        }
        for node in nodes {
            if seen::has_upload(&self.node(node)?).await {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Carries the step out. Every node is told at once: one that is empty must find no old member to join.
    pub(super) async fn reset(&self, notebook: &mut Notebook<'_, Plan>, nodes: &[PlannedNode], until: Until) -> Outcome<Value> {
        let mut begun = Instant::now();
        let mut told: BTreeMap<String, Instant> = BTreeMap::new();
        let mut last = BTreeMap::new();
        loop {
            let looks = join_all(nodes.iter().map(|node| async move { Ok::<_, Failure>((node, see(&self.node(node)?).await)) })).await;
            let mut waiting = Vec::new();
            for look in looks {
                let (node, look) = look?;
                let word = match &look {
                    Ok(seen) => seen.words(),
                    Err(reason) => format!("it does not answer: {reason}"),
                };
                let mark = look.as_ref().map(Seen::mark).map_err(|_| ());
                if last.insert(node.name.clone(), mark.clone()).is_some_and(|before| before != mark) {
                    // Something goes on: patience is for standing still.
                    begun = Instant::now();
                }
                let done = match look {
                    Ok(seen) => self.one(notebook, node, &seen, until, &mut told).await?,
                    Err(_) => false,
                };
                if !done {
                    waiting.push(format!("{}: {word}", node.name));
                }
            }
            if waiting.is_empty() {
                return Ok(json!({"nodes": nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>()}));
            }
            if begun.elapsed() > self.patience {
                return Err(Failure::failed("not every node came up empty after its reset")
                    .object(waiting.join("; "))
                    .cause(format!("nothing changed for {} s; look at the machine's console. A node that stays away is left out by --abandon, and then --node-gone", self.patience.as_secs()))
                    .again());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Looks after one node; whether it is as it has to be.
    async fn one(
        &self,
        notebook: &mut Notebook<'_, Plan>,
        node: &PlannedNode,
        seen: &Seen,
        until: Until,
        told: &mut BTreeMap<String, Instant>,
    ) -> Outcome<bool> {
        let boots: Vec<String> = told_in(notebook.notes(), &node.name).into_iter().map(str::to_owned).collect();
        let is_new_boot = !boots.is_empty() && !boots.contains(&seen.boot_id);
        let asked = self.node(node)?;
        let done = match until {
            // An upload that lies there may have an order to restore it in the machine's memory, which only a reboot takes away.
            Until::Empty => seen.is_clean() && (is_new_boot || !seen::has_upload(&asked).await),
            Until::StartedAnew if seen.data == Data::None => is_new_boot || (boots.is_empty() && seen.is_clean()),
            Until::StartedAnew => match self.standing(notebook.plan(), node).await? {
                Standing::Rejoined => true,
                // Since it was told it started anew, and may be about to join: what it holds may be the living cluster's.
                Standing::Unknown if is_new_boot && seen.state != "Failed" => return Ok(false),
                Standing::Unknown | Standing::Removed => false,
            },
        };
        if done || seen.stage == MachineStage::Resetting || (seen.data == Data::None && !seen.is_clean()) {
            return Ok(done);
        }
        if boots.contains(&seen.boot_id) {
            // Told in this boot: it is about to go down, unless a run was killed before it could say so.
            let since = told.entry(node.name.clone()).or_insert_with(Instant::now);
            if since.elapsed() < self.settle {
                return Ok(false);
            }
        }
        if boots.len() >= TRIES {
            return Err(Failure::failed(format!("{} was told {TRIES} times to wipe {}, and still holds data", node.name, node.wipe))
                .object(&node.address)
                .cause("it takes the order and does not carry it out, or another member fills it again: look at its console and at who else still runs")
                .next(["lifeboat", "recover", "talos"]));
        }
        if until == Until::Empty {
            self.refuse_a_living_cluster(notebook).await?;
            self.refuse_the_living_dead(notebook.plan()).await?;
        }
        self.rescue_again(notebook, node, seen).await?;
        notebook.note(Facts::from_iter([text("node", &node.name), text("told_in", &seen.boot_id)]))?;
        told.insert(node.name.clone(), Instant::now());
        if seen.data == Data::None {
            self.progress
                .say(&format!("{}: an upload lies there, and an order to restore it may be in its memory: it is rebooted", node.name));
            return match asked.reboot().await {
                Ok(()) => Ok(false),
                Err(error) if seen::may_pass(&error) => Ok(false),
                Err(error) => Err(seen::refused("the node was not rebooted", &error)),
            };
        }
        self.progress.say(&format!("{}: wipe {} and reboot", node.name, node.wipe));
        let order = ResetRequest { graceful: false, reboot: true, wipe: vec![node.wipe.clone()] };
        match asked.reset(order).await {
            Ok(_) => Ok(false),
            Err(error) if seen::may_pass(&error) => Ok(false),
            Err(error) => Err(seen::refused("the node was not reset", &error)),
        }
    }
}
