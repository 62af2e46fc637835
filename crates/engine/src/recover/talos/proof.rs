//! That a running cluster holds what was restored: by a snapshot of it.

use serde_json::{Value, json};

use super::drive::Recovery;
use super::plan::{Goal, Plan, PlannedNode};
use crate::failure::{Code, Failure, Outcome};
use crate::journal::Notebook;
use crate::progress::Silent;
use crate::seal_pipeline::on_thread;
use crate::snapshot_file;
use crate::talos::failure::failure;

impl Recovery {
    /// Takes a snapshot of a node and holds it against the file that was uploaded: sound, at least as far, with the very row that moved its revisions on,
    /// and with a raft log that reaches as far as its database says. A restore that a reboot cut in half fails the last one: etcd would have started a
    /// new log under an old database, and dropped every write without a word.
    ///
    /// # Errors
    /// [`Code::Unproven`] for a restore that was cut in half, [`Code::WrongCluster`] for another content; anything else says nothing of the content.
    pub(super) async fn proven(&self, notebook: &Notebook<'_, Plan>, node: &PlannedNode) -> Outcome<Value> {
        let facts = self.content(notebook.plan(), node).await?;
        held_against(notebook, node, &facts)
    }

    /// What a running node holds, by a snapshot of it.
    pub(super) async fn content(&self, plan: &Plan, node: &PlannedNode) -> Outcome<snapshot_file::Facts> {
        let path = plan.directory.join("proof.db");
        self.snapshot(node, &path, false, std::sync::Arc::new(Silent)).await?;
        let file = path.clone();
        let facts = on_thread("look", move || Ok(snapshot_file::facts(&file, false))).await?;
        // It was only looked at; what it holds is in the clear.
        let _ = disk::remove_file(&path);
        let facts = facts?;
        let status =
            self.node(node)?.etcd_status().await.map_err(|error| failure("the restored member does not tell its status", &error))?;
        let index = facts.consistent_index.unwrap_or(0);
        if index > status.raft_applied_index {
            return Err(Failure::new(Code::Unproven, format!("{} does not hold what was restored", node.name))
                .object(&node.address)
                .cause(format!(
                    "its database is at raft index {index}, and its log at {}: the restore was cut in half",
                    status.raft_applied_index
                )));
        }
        Ok(facts)
    }
}

fn held_against(notebook: &Notebook<'_, Plan>, node: &PlannedNode, facts: &snapshot_file::Facts) -> Outcome<Value> {
    let Goal::Restore { keep_revisions, .. } = &notebook.plan().goal else {
        return Ok(json!({"revision": facts.revision, "keys": facts.live_keys}));
    };
    let prepared = notebook.facts("prepare").cloned().unwrap_or_default();
    let number = |name: &str| prepared.get(name).and_then(Value::as_i64).unwrap_or(0);
    let target = number("revision_after");
    let other = |what: String| {
        Failure::new(Code::WrongCluster, format!("{} runs, and not from the file that was restored", node.name))
            .object(&node.address)
            .cause(format!(
                "{what}: somebody else brought it back, or it joined another cluster. Nothing is wiped; give the plan up and look"
            ))
            .next(["lifeboat", "recover", "talos", "--abandon"])
    };
    if facts.revision < target {
        return Err(other(format!("it is at revision {}, and the file ended at {target}", facts.revision)));
    }
    if !keep_revisions && facts.epoch != target {
        return Err(other(format!("its revisions were moved on to {}, and the file's to {target}", facts.epoch)));
    }
    Ok(json!({"revision": facts.revision, "keys": facts.live_keys, "epoch": facts.epoch}))
}
