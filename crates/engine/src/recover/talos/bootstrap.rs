//! Uploading the file, bootstrapping one node from it, and waiting until etcd really runs.
//!
//! Talos answers Bootstrap when the service is started, not when the restore ran. The order to recover lives in the memory of the machine: a reboot before
//! the restore loses it, one during the restore leaves half of it behind, from which etcd would start. So the boot id is remembered before the call, and
//! whatever follows under another one is proven or done again.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use talos_api::ErrorKind;

use super::drive::{POLL, Recovery, text};
use super::evidence::Data;
use super::plan::{Plan, PlannedNode, Step};
use super::seen::{self, Seen, see};
use crate::failure::{Code, Failure, Outcome};
use crate::journal::{Facts, Notebook, Turn};
use crate::seal_pipeline::on_thread;

/// How many times the patience for one state all states together may take.
const PATIENCES: u32 = 4;
/// Bytes read from the file at a time.
const PIECE: usize = 1 << 20;

/// How soon a node that was not ready is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// How often the content of a member that does not get well is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The last call of this run.
#[derive(Default)]
struct LastCall {
    /// When it was made; the first look, where an earlier run made it.
    since: Option<Instant>,
    /// Whether the node said that it is not ready: then it certainly began nothing.
    refused: bool,
    /// When the content of a member that does not get well was looked at.
    looked: Option<Instant>,
    /// Since when such a member answers nobody.
    silent: Option<Instant>,
}

/// What the journal remembers of the last try.
struct Try {
    boot_id: String,
    /// Whether Talos answered OK.
    answered: bool,
}

fn last_try(notes: &[Facts]) -> Option<Try> {
    let note = notes.last()?;
    let boot_id = note.get("boot_id")?.as_str()?.to_owned();
    Some(Try { boot_id, answered: note.get("answered").and_then(Value::as_bool) == Some(true) })
}

impl Recovery {
    /// Where the plan goes back to when a node has to be wiped anew.
    pub(super) fn back_to_reset(plan: &Plan, reason: String) -> Turn {
        let step = plan.steps.iter().position(|step| matches!(step, Step::Reset { .. })).unwrap_or(0);
        Turn::BackTo { step, reason }
    }

    fn back_to_upload(plan: &Plan, reason: String) -> Turn {
        let step = plan.steps.iter().position(|step| matches!(step, Step::Upload { .. })).unwrap_or(0);
        Turn::BackTo { step, reason }
    }

    /// A node that holds data although every one was wiped; nothing may be bootstrapped beside it.
    async fn old_member(&self, plan: &Plan, but: Option<&PlannedNode>) -> Outcome<Option<String>> {
        for node in plan.nodes.iter().filter(|node| but.is_none_or(|but| but.name != node.name)) {
            // One that does not answer was seen empty before.
            if let Ok(seen) = see(&self.node(node)?).await
                && matches!(seen.data, Data::There { .. })
            {
                return Ok(Some(format!("{} holds data of etcd again: {}", node.name, seen.words())));
            }
        }
        Ok(None)
    }

    /// Carries the step `upload` out.
    pub(super) async fn upload(&self, notebook: &Notebook<'_, Plan>, node: &PlannedNode, path: &std::path::Path) -> Outcome<Turn> {
        if let Some(reason) = self.old_member(notebook.plan(), None).await? {
            return Ok(Self::back_to_reset(notebook.plan(), reason));
        }
        let begun = Instant::now();
        loop {
            match self.send(node, path).await? {
                Ok(sent) => return Ok(Turn::Done(Facts::from_iter([text("node", &node.name), ("bytes".to_owned(), sent.into())]))),
                Err(error) if seen::may_pass(&error) && begun.elapsed() < self.patience => {
                    self.progress.say(&format!("{}: {}; it is tried again", node.name, error.kind()));
                    tokio::time::sleep(POLL).await;
                }
                Err(error) => return Err(seen::refused("the file cannot be uploaded", &error)),
            }
        }
    }

    async fn send(&self, node: &PlannedNode, path: &std::path::Path) -> Outcome<Result<u64, talos_api::Error>> {
        let cannot = |error: std::io::Error| {
            Failure::failed(format!("the file for the upload cannot be read: {error}")).object(path.display()).again()
        };
        let file = std::sync::Arc::new(disk::File::open_read(path).map_err(cannot)?);
        let length = file.len().map_err(cannot)?;
        let mut upload = match self.node(node)?.etcd_recover().await {
            Ok(upload) => upload,
            Err(error) => return Ok(Err(error)),
        };
        let mut sent = 0;
        while sent < length {
            let size = usize::try_from(length - sent).unwrap_or(usize::MAX).min(PIECE);
            let from = std::sync::Arc::clone(&file);
            let at = sent;
            let piece = on_thread("read", move || {
                let mut piece = vec![0; size];
                Ok(from.read_exact_at(&mut piece, at).map(|()| piece))
            });
            let piece = piece.await?.map_err(cannot)?;
            if let Err(error) = upload.send(Bytes::from(piece)).await {
                self.progress.done();
                return Ok(Err(error));
            }
            sent += size as u64;
            self.progress.bytes("upload", sent, Some(length));
        }
        self.progress.done();
        Ok(upload.finish().await.map(|()| length))
    }

    /// Carries the step `bootstrap` out: done when etcd runs on the node, from this file.
    pub(super) async fn bootstrap(&self, notebook: &mut Notebook<'_, Plan>, node: &PlannedNode) -> Outcome<Turn> {
        let entered = Instant::now();
        let (mut begun, mut last_call) = (entered, LastCall::default());
        let mut last = String::new();
        loop {
            let word = match see(&self.node(node)?).await {
                Ok(seen) => match self.judge(notebook, node, &seen, &mut last_call).await? {
                    Some(turn) => return Ok(turn),
                    None => seen.words(),
                },
                Err(reason) => format!("it does not answer: {reason}"),
            };
            if word != last {
                self.progress.say(&format!("{}: {word}", node.name));
                (begun, last) = (Instant::now(), word);
            }
            // An etcd that is started anew for ever changes its words each time.
            if begun.elapsed() > self.patience || entered.elapsed() > self.patience * PATIENCES {
                return Err(Failure::failed(format!("etcd does not come up on {}", node.name))
                    .object(&node.address)
                    .cause(format!("nothing changed for {} s: {last}", self.patience.as_secs()))
                    .next(["lifeboat", "etcd", "logs", &node.address]));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// What follows from a look; nothing as long as it is to be waited.
    async fn judge(
        &self,
        notebook: &mut Notebook<'_, Plan>,
        node: &PlannedNode,
        seen: &Seen,
        last_call: &mut LastCall,
    ) -> Outcome<Option<Turn>> {
        let tried = last_try(notebook.notes());
        let same_boot = tried.as_ref().is_some_and(|tried| tried.boot_id == seen.boot_id);
        // What a reboot cut in half may also not start at all. It came from our file; without another reboot the next try ends one way or the other.
        if seen.state == "Failed" && tried.is_some() && !same_boot && seen.data != Data::None {
            let reason = format!("{} was rebooted during the restore, and the etcd it started then failed: {}", node.name, seen.event);
            return Ok(Some(Self::back_to_reset(notebook.plan(), reason)));
        }
        if seen.state == "Failed" && (tried.is_some() || seen.data != Data::None) {
            return self.failed(notebook, node, seen).map(Some);
        }
        if seen.is_well() {
            // It runs: from the whole of the file, from half of it where the machine started anew meanwhile, or from something else.
            return match self.proven(notebook, node).await {
                Ok(_) => Ok(Some(done(node, seen))),
                // Half a restore is nobody's data. Anything else is somebody's, and stops the plan; a node that cannot be read is no evidence.
                Err(failure) if failure.code == Code::Unproven => {
                    Ok(Some(Self::back_to_reset(notebook.plan(), format!("{} runs, and not from this file: {failure}", node.name))))
                }
                Err(failure) if failure.code == Code::WrongCluster => Err(failure),
                Err(failure) => {
                    self.progress.say(&format!("{}: {}; it is asked again", node.name, failure.what));
                    Ok(None)
                }
            };
        }
        // It runs and is not well, and since the order was given the machine started anew: half a restore never gets well, for the new log is behind what
        // its database says it holds, and drops every write.
        if seen.state == "Running" && tried.is_some() && !same_boot && last_call.looked.is_none_or(|at| at.elapsed() > LOOK_AGAIN) {
            last_call.looked = Some(Instant::now());
            if let Some(reason) = self.half_restored(notebook.plan(), node, last_call).await {
                return Ok(Some(Self::back_to_reset(notebook.plan(), reason)));
            }
        }
        if seen.data != Data::None {
            // The restore is under way, or a start from what it left; with nothing of ours before it is somebody else's.
            let foreign = (tried.is_none() && matches!(seen.data, Data::There { .. }))
                .then(|| format!("{} holds data of etcd: {}", node.name, seen.words()));
            return Ok(foreign.map(|reason| Self::back_to_reset(notebook.plan(), reason)));
        }
        match tried {
            Some(_) if !same_boot => {
                let reason = format!("{} was rebooted before the restore ran, and with it the order to restore was lost", node.name);
                Ok(Some(Self::back_to_upload(notebook.plan(), reason)))
            }
            Some(tried) => {
                let waited = last_call.since.get_or_insert_with(Instant::now).elapsed();
                // A call that was not answered may not have been made; one that was answered is let work, for a second one would cut it off.
                if !tried.answered && (waited > self.settle || (last_call.refused && waited > ASK_AGAIN)) {
                    return self.call(notebook, node, seen, last_call).await.map(|()| None);
                }
                let reason = format!("{} has shown nothing of the restore for {} s", node.name, waited.as_secs());
                Ok((waited > self.ask_again).then(|| Self::back_to_upload(notebook.plan(), reason)))
            }
            None => {
                if let Some(reason) = self.old_member(notebook.plan(), Some(node)).await? {
                    return Ok(Some(Self::back_to_reset(notebook.plan(), reason)));
                }
                self.refuse_the_living_dead(notebook.plan()).await?;
                self.call(notebook, node, seen, last_call).await.map(|()| None)
            }
        }
    }

    /// Why a member that runs and does not get well after a reboot stands on half a restore. Where the new log is far behind its database, etcd never gets
    /// to the point of answering: then that it stays silent is all there is to see. What it holds came from our file, and is saved again before the wipe.
    async fn half_restored(&self, plan: &Plan, node: &PlannedNode, last_call: &mut LastCall) -> Option<String> {
        match self.content(plan, node).await {
            Ok(_) => {
                last_call.silent = None;
                None
            }
            Err(failure) if failure.code == Code::Unproven => Some(format!("{} runs from half a restore: {failure}", node.name)),
            Err(_) => {
                let silence = last_call.silent.get_or_insert_with(Instant::now).elapsed();
                (silence > self.ask_again).then(|| {
                    let seconds = silence.as_secs();
                    format!(
                        "{} was rebooted during the restore, and the etcd it started then has answered nobody for {seconds} s",
                        node.name
                    )
                })
            }
        }
    }

    async fn call(&self, notebook: &mut Notebook<'_, Plan>, node: &PlannedNode, seen: &Seen, last_call: &mut LastCall) -> Outcome<()> {
        notebook.note(Facts::from_iter([text("boot_id", &seen.boot_id)]))?;
        let answer = self.node(node)?.bootstrap(true, false).await;
        let was_refused = last_call.refused;
        *last_call = LastCall { since: Some(Instant::now()), ..LastCall::default() };
        match answer {
            Ok(()) => notebook.note(Facts::from_iter([text("boot_id", &seen.boot_id), ("answered".to_owned(), true.into())])),
            // Whether it took effect shows in the next look.
            Err(error) if seen::may_pass(&error) || matches!(error.kind(), ErrorKind::AlreadyExists(_)) => {
                last_call.refused = matches!(error.kind(), ErrorKind::NotReady(_));
                if !(was_refused && last_call.refused) {
                    self.progress.say(&format!("{}: {}; it is asked again", node.name, error.kind()));
                }
                Ok(())
            }
            Err(error) => Err(seen::refused("the node was not bootstrapped", &error)),
        }
    }

    /// The service says why it failed, and nothing else does. A transfer that was damaged is tried again.
    fn failed(&self, notebook: &mut Notebook<'_, Plan>, node: &PlannedNode, seen: &Seen) -> Outcome<Turn> {
        if last_try(notebook.notes()).is_none() || is_of_transfer(&seen.event) {
            return Ok(Self::back_to_reset(notebook.plan(), format!("{}: {}", node.name, seen.event)));
        }
        if seen.data == Data::None {
            return Ok(Self::back_to_upload(notebook.plan(), format!("{}: {}", node.name, seen.event)));
        }
        // Without a boot id: the next run finds no try of its own, and wipes what this one left.
        notebook.note(Facts::from_iter([text("failed", &seen.event)]))?;
        Err(Failure::failed(format!("the restore failed on {}", node.name))
            .object(&node.address)
            .cause(format!("{}{}; the same command wipes what it left and tries again", seen.event, advice(&seen.event)))
            .again())
    }
}

fn done(node: &PlannedNode, seen: &Seen) -> Turn {
    let facts = json!({"node": node.name, "boot_id": seen.boot_id});
    Turn::Done(facts.as_object().cloned().unwrap_or_default())
}

/// Whether the event tells of a file that did not arrive as it was sent, or was not there.
fn is_of_transfer(event: &str) -> bool {
    ["expected sha256", "no such file", "sha256 checksum", "error verifying snapshot", "unexpected EOF", "hash"]
        .iter()
        .any(|part| event.contains(part))
}

fn advice(event: &str) -> &'static str {
    if event.contains("URL scheme must be") {
        "; this Talos restores onto no node with several advertised addresses (mended in 1.10.5): set cluster.etcd.advertisedSubnets to one network, or choose another node"
    } else if event.contains("no space left") {
        "; its disk is full: choose a node with a larger one"
    } else if event.contains("storage version") || event.contains("downgrade") {
        "; the data are of a newer etcd than this Talos runs"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_restore_says_is_told_apart() {
        assert!(is_of_transfer("error recovering from the snapshot: expected sha256 [1 2], got [3 4]"));
        assert!(is_of_transfer(
            "Failed to run pre stage: error verifying snapshot: stat /var/lib/etcd.snapshot: no such file or directory"
        ));
        assert!(!is_of_transfer("error recovering from the snapshot: URL scheme must be http, https, unix, or unixs: x"));
        assert!(advice("URL scheme must be http, https").contains("advertisedSubnets"));
        assert!(advice("write: no space left on device").contains("full") && advice("x").is_empty());
    }
}
