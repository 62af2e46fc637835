//! Defragmenting a cluster's members in the window that its configuration opens for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::care::defrag::plan;
use engine::care::defrag_run::{Ran, run_until};
use engine::care::look::look;
use engine::config::{Cluster, Config, Policy};
use engine::exclusion::{self, Asked};
use engine::lease::{DEFRAG, Holder, Mode};
use engine::limits::DEFRAG_PAUSE;
use engine::progress::Progress;
use engine::{Code, Failure, Outcome, place};
use tokio::time::timeout;
use vault::name::ClusterName;

/// How long the members may take to be looked at, and the repository to give its lease.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

/// Defragments the members that need it by the rule of the window. Nobody's turn begins after `until`. That the window is configured is the consent.
///
/// # Errors
/// Where nothing could be begun: a member does not answer, somebody else works on the cluster, the repository that would tell cannot be reached. What
/// stopped half way is in the answer.
pub(crate) async fn defragment(
    config: &Config,
    name: &ClusterName,
    cluster: &Cluster,
    policy: &Policy,
    until: Instant,
    progress: &dyn Progress,
) -> Outcome<Ran> {
    let Some(window) = &policy.defrag else { return Ok(Ran { turns: Vec::new(), stopped: None }) };
    let access = cluster.access(|variable| std::env::var_os(variable))?;
    let away = |what: &str, code| Failure::new(code, format!("{what} in time"));
    let looked =
        timeout(ANSWERS_WITHIN, look(&access)).await.map_err(|_| away("the members did not answer", Code::SourceUnreachable))??;
    let plan = plan(&looked.view, &window.rule()?)?;
    if plan.steps.is_empty() {
        return Ok(Ran { turns: Vec::new(), stopped: None });
    }
    looked.may_defragment(plan.hands_over())?;
    let mut held = Vec::new();
    for key in looked.known_by(&access) {
        match exclusion::alone(exclusion::state_directory().as_deref(), &key) {
            Asked::Free(exclusion) => held.push(exclusion),
            Asked::Taken => return Err(Failure::failed("a backup or a defragmentation of this cluster runs on this machine")),
            // The lease tells it too.
            Asked::Unknown(_) => {}
        }
    }
    let everywhere = looked.everywhere(&access);
    let store = async {
        let options = config.readable_place(policy).await?;
        place::open(&options).await.map(|repository| Arc::clone(repository.store()))
    };
    let store = timeout(ANSWERS_WITHIN, store).await.map_err(|_| away("the repository did not answer", Code::StoreUnreachable))??;
    let holder = Holder::default();
    if let Some(word) = holder.take(&store, name, DEFRAG, Mode::Auto).await? {
        progress.say(&format!("note: backups of other hosts are not seen: {word}"));
    }
    let ran = tokio::select! {
        ran = run_until(&everywhere, &plan, DEFRAG_PAUSE, Some(until), progress) => ran,
        never = holder.keep(progress) => match never {},
    };
    holder.release().await;
    Ok(ran)
}
