//! A backup with its hooks around it: before, the backup, after or failed, finally.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::backup::{Report, Request};
use engine::config::Hooks;
use engine::lease::Holder;
use engine::progress::Progress;
use engine::{Code, Failure, Outcome};

use crate::hook::{self, Facts, Moment};
use crate::limits::HOOKS_AFTER_SIGNAL;

/// The hooks around one backup, and how far they are. It is asked for a goodbye when the work was dropped.
#[derive(Debug)]
pub struct Hooked {
    hooks: Hooks,
    facts: Mutex<Facts>,
    stage: Mutex<Stage>,
}

/// What is owed to somebody who ran the hooks before a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing: nothing has begun.
    NotBegun,
    /// `failed` or `after`, and `finally`.
    AtWork,
    /// `finally`.
    Ended,
    /// Nothing any more.
    Over,
}

impl Hooked {
    /// Hooks around a backup of a cluster into a repository.
    #[must_use]
    pub fn new(hooks: Hooks, cluster: &str, repository: &str) -> Self {
        let facts = Facts { cluster: cluster.to_owned(), repository: Some(repository.to_owned()), ..Facts::default() };
        Self { hooks, facts: Mutex::new(facts), stage: Mutex::new(Stage::NotBegun) }
    }

    /// Backs a cluster up as [`engine::backup::run`] does, with the hooks around it. A plan runs no hooks.
    ///
    /// Warnings of hooks are in the report beside the backup's own, and do not change its code; those of a backup that failed are said.
    ///
    /// # Errors
    /// That of the backup, or of the hook that aborted it.
    pub async fn backup(&self, request: Request, holder: &Holder, progress: Arc<dyn Progress>) -> Outcome<Report> {
        if request.dry_run {
            return engine::backup::run(request, holder, progress).await;
        }
        self.set(Stage::AtWork);
        let before = self.run(Moment::Before, progress.as_ref()).await;
        let mut warnings = before.warnings;
        let mut outcome = match before.aborted {
            Some(failure) => Err(failure),
            None => engine::backup::run(request, holder, Arc::clone(&progress)).await,
        };
        let moment = self.learn(&outcome);
        self.set(Stage::Ended);
        // That somebody else has it in hand is no failure.
        if !matches!(&outcome, Err(failure) if failure.code == Code::LeaseHeld) {
            warnings.extend(self.run(moment, progress.as_ref()).await.warnings);
        }
        warnings.extend(self.run(Moment::Finally, progress.as_ref()).await.warnings);
        self.set(Stage::Over);
        match &mut outcome {
            Ok(report) => report.warnings.extend(warnings),
            Err(_) => warnings.iter().for_each(|warning| progress.say(&format!("warning: {warning}"))),
        }
        outcome
    }

    /// The hooks that are owed when the backup was dropped on the way, because somebody asked the process to end.
    pub async fn goodbye(&self, progress: &dyn Progress) {
        let stage = std::mem::replace(&mut *self.stage.lock().unwrap_or_else(PoisonError::into_inner), Stage::Over);
        if stage == Stage::AtWork {
            let why = "the backup was asked to end before it was done";
            self.facts.lock().unwrap_or_else(PoisonError::into_inner).error = Some(why.to_owned());
            say_warnings(&self.run(Moment::Failed, progress).await.warnings, progress);
        }
        if matches!(stage, Stage::AtWork | Stage::Ended) {
            say_warnings(&self.run(Moment::Finally, progress).await.warnings, progress);
        }
    }

    /// The hooks there are, in the order of their moments; either those after a backup or those after a failed one are run.
    #[must_use]
    pub fn plan(&self) -> Vec<(Moment, String)> {
        let hooks = &self.hooks;
        let all = [
            (Moment::Before, &hooks.before),
            (Moment::After, &hooks.after),
            (Moment::Failed, &hooks.failed),
            (Moment::Finally, &hooks.finally),
        ];
        let lines = |(moment, hooks): (Moment, &'_ Vec<engine::config::Hook>)| {
            hooks.iter().map(|hook| (moment, engine::next::line(&hook.command))).collect::<Vec<_>>()
        };
        all.into_iter().flat_map(lines).collect()
    }

    /// How long the goodbye may take.
    #[must_use]
    pub fn goodbye_within(&self) -> Duration {
        let late = self.hooks.failed.iter().chain(&self.hooks.finally);
        late.map(engine::config::Hook::timeout).sum::<Duration>().min(HOOKS_AFTER_SIGNAL)
    }

    fn set(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    /// Takes down what came of the backup; the answer is whose moment it is.
    fn learn(&self, outcome: &Outcome<Report>) -> Moment {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(report) => {
                facts.exit = Some(report.code as u8);
                let manifest = report.committed.first().map(|committed| &committed.manifest);
                facts.backup_id = manifest.map(|manifest| manifest.id.to_string());
                facts.revision = manifest.map(|manifest| manifest.revision);
                if matches!(report.code, Code::Ok | Code::Warnings) {
                    return Moment::After;
                }
                facts.error = Some(if report.warnings.is_empty() { report.code.word().to_owned() } else { report.warnings.join("; ") });
            }
            Err(failure) => {
                facts.exit = Some(failure.code as u8);
                facts.error = Some(in_one_line(failure));
            }
        }
        Moment::Failed
    }

    async fn run(&self, moment: Moment, progress: &dyn Progress) -> hook::Report {
        let hooks = match moment {
            Moment::Before => &self.hooks.before,
            Moment::After => &self.hooks.after,
            Moment::Failed => &self.hooks.failed,
            Moment::Finally => &self.hooks.finally,
        };
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let report = hook::run(hooks, moment, &facts).await;
        for ran in &report.ran {
            progress.say(&format!("hook ({}): {}: {} s", moment.word(), ran.command, ran.took.as_secs()));
            ran.output.lines().for_each(|line| progress.say(&format!("  {line}")));
        }
        report
    }
}

fn say_warnings(warnings: &[String], progress: &dyn Progress) {
    warnings.iter().for_each(|warning| progress.say(&format!("warning: {warning}")));
}

/// A failure without its next command.
fn in_one_line(failure: &Failure) -> String {
    let mut text = failure.what.clone();
    if let Some(object) = &failure.object {
        text.push_str(&format!(" ({object})"));
    }
    if let Some(cause) = &failure.cause {
        text.push_str(&format!(": {cause}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use engine::config::{Hook, IfHookFails};

    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Progress for Heard {
        fn say(&self, line: &str) {
            self.0.lock().unwrap().push(line.to_owned());
        }
        fn bytes(&self, _: &str, _: u64, _: Option<u64>) {}
        fn done(&self) {}
    }

    fn hooks() -> Hooks {
        let one = |word: &str| {
            let script = format!("echo {word} $LIFEBOAT_EXIT $LIFEBOAT_ERROR");
            vec![Hook {
                command: ["/bin/sh".to_owned(), "-c".to_owned(), script].to_vec(),
                environment: std::collections::BTreeMap::default(),
                timeout: Some("40s".to_owned()),
                if_it_fails: IfHookFails::Warn,
            }]
        };
        Hooks { before: one("B"), after: one("A"), failed: one("F"), finally: one("E") }
    }

    fn outputs(heard: &Heard) -> Vec<String> {
        heard.0.lock().unwrap().iter().filter_map(|line| line.strip_prefix("  ")).map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn a_goodbye_pays_what_is_owed_and_only_once() {
        let heard = Heard::default();
        let hooked = Hooked::new(hooks(), "prod", "file:///r");
        hooked.goodbye(&heard).await;
        assert!(outputs(&heard).is_empty(), "nothing had begun");
        assert_eq!(hooked.goodbye_within(), HOOKS_AFTER_SIGNAL);
        let hooked = Hooked::new(hooks(), "prod", "file:///r");
        hooked.set(Stage::AtWork);
        hooked.goodbye(&heard).await;
        hooked.goodbye(&heard).await;
        assert_eq!(
            outputs(&heard),
            ["F the backup was asked to end before it was done", "E the backup was asked to end before it was done"]
        );
        let hooked = Hooked::new(hooks(), "prod", "file:///r");
        hooked.set(Stage::Ended);
        hooked.goodbye(&heard).await;
        assert_eq!(outputs(&heard).len(), 3);
    }

    #[test]
    fn a_failure_in_one_line() {
        let failure = Failure::new(Code::SourceUnreachable, "etcd cannot be reached").object("http://h:1").cause("refused").again();
        assert_eq!(in_one_line(&failure), "etcd cannot be reached (http://h:1): refused");
        let hooked = Hooked::new(hooks(), "prod", "file:///r");
        assert_eq!(hooked.learn(&Err(failure)), Moment::Failed);
        let facts = hooked.facts.into_inner().unwrap();
        assert_eq!((facts.exit, facts.backup_id), (Some(30), None));
    }
}
