//! Hooks: commands around each backup.

use std::time::Duration;

use engine::Failure;
use engine::config::{Hook, IfHookFails};

use crate::child::{self, Call, End};
use crate::limits::VARIABLE_MOST;

/// When hooks are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the backup.
    Before,
    /// After one that was committed.
    After,
    /// After one that failed.
    Failed,
    /// At the end, whatever came of it.
    Finally,
}

impl Moment {
    /// The word for it, as the configuration and `LIFEBOAT_EVENT` have it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
            Self::Failed => "failed",
            Self::Finally => "finally",
        }
    }
}

/// What hooks are told, in their environment; nothing where it is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The cluster's name.
    pub cluster: String,
    /// The repository's URL.
    pub repository: Option<String>,
    /// The id of the backup.
    pub backup_id: Option<String>,
    /// Its revision.
    pub revision: Option<i64>,
    /// The exit code the backup came to.
    pub exit: Option<u8>,
    /// Why it failed.
    pub error: Option<String>,
}

impl Facts {
    /// The variables for one moment.
    fn variables(&self, moment: Moment) -> Vec<(String, String)> {
        let all = [
            ("CLUSTER", Some(self.cluster.clone())),
            ("EVENT", Some(moment.word().to_owned())),
            ("REPOSITORY", self.repository.clone()),
            ("BACKUP_ID", self.backup_id.clone()),
            ("REVISION", self.revision.map(|revision| revision.to_string())),
            ("EXIT", self.exit.map(|exit| exit.to_string())),
            ("ERROR", self.error.clone()),
        ];
        all.into_iter().filter_map(|(name, value)| Some((format!("LIFEBOAT_{name}"), fit(value?)))).collect()
    }
}

/// What an environment can hold.
fn fit(mut value: String) -> String {
    value.retain(|c| c != '\0');
    let at = (0..=VARIABLE_MOST.min(value.len())).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
    value.truncate(at);
    value
}

/// One hook that was run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// When.
    pub moment: Moment,
    /// Its command in one line.
    pub command: String,
    /// How it ended.
    pub end: End,
    /// The last of what it said.
    pub output: String,
    /// How long it took.
    pub took: Duration,
}

/// What came of the hooks of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Why no backup is taken. Hooks behind the one that says so were not run.
    pub aborted: Option<Failure>,
    /// Hooks that failed and are to be spoken of, in words.
    pub warnings: Vec<String>,
    /// The hooks that were run, in order.
    pub ran: Vec<Ran>,
}

/// Runs hooks one after another, each to its end. Only those before a backup can abort it; at other moments `abort` is `warn`.
pub async fn run(hooks: &[Hook], moment: Moment, facts: &Facts) -> Report {
    let mut report = Report::default();
    for hook in hooks {
        let mut environment: Vec<(String, String)> = hook.environment.clone().into_iter().collect();
        environment.extend(facts.variables(moment));
        let call = Call { command: &hook.command, environment, input: Vec::new(), timeout: hook.timeout() };
        let ended = child::run(call).await;
        let command = engine::next::line(&hook.command);
        if !ended.end.is_success() {
            match hook.if_it_fails {
                IfHookFails::Abort if moment == Moment::Before => {
                    let what = "a hook before the backup failed, and no backup is taken";
                    report.aborted = Some(Failure::failed(what).object(&command).cause(ended.told()).again());
                }
                IfHookFails::Abort | IfHookFails::Warn => {
                    report.warnings.push(format!("the hook '{command}' ({}) failed: {}", moment.word(), ended.told()));
                }
                IfHookFails::Ignore => {}
            }
        }
        report.ran.push(Ran { moment, command, end: ended.end, output: ended.output, took: ended.took });
        if report.aborted.is_some() {
            break;
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn hook(script: &str, if_it_fails: IfHookFails) -> Hook {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let environment = BTreeMap::from([("MINE".to_owned(), "x".to_owned())]);
        Hook { command, environment, timeout: Some("30s".to_owned()), if_it_fails }
    }

    #[tokio::test]
    async fn a_hook_is_told_what_is_known() {
        let facts = Facts {
            cluster: "prod".to_owned(),
            repository: Some("file:///r".to_owned()),
            backup_id: Some("b1".to_owned()),
            revision: Some(7),
            exit: Some(0),
            error: None,
        };
        let all = [hook("env | grep -e LIFEBOAT_ -e MINE | sort", IfHookFails::Warn)];
        let report = run(&all, Moment::After, &facts).await;
        assert_eq!(
            report.ran[0].output,
            "LIFEBOAT_BACKUP_ID=b1\nLIFEBOAT_CLUSTER=prod\nLIFEBOAT_EVENT=after\nLIFEBOAT_EXIT=0\nLIFEBOAT_REPOSITORY=file:///r\nLIFEBOAT_REVISION=7\nMINE=x\n"
        );
        let bare = run(&all, Moment::Before, &Facts { cluster: "prod".to_owned(), ..Facts::default() }).await;
        assert_eq!(bare.ran[0].output, "LIFEBOAT_CLUSTER=prod\nLIFEBOAT_EVENT=before\nMINE=x\n");
    }

    #[tokio::test]
    async fn what_follows_a_failure_is_the_hooks_word() {
        let hooks = [
            hook("echo first; exit 1", IfHookFails::Ignore),
            hook("echo second; exit 2", IfHookFails::Warn),
            hook("echo third; exit 3", IfHookFails::Abort),
            hook("echo fourth", IfHookFails::Abort),
        ];
        let report = run(&hooks, Moment::Before, &Facts::default()).await;
        let outputs: Vec<&str> = report.ran.iter().map(|ran| ran.output.trim()).collect();
        assert_eq!(outputs, ["first", "second", "third"]);
        assert!(report.warnings.len() == 1 && report.warnings[0].contains("exit status 2; its last words: second"), "{report:?}");
        let aborted = report.aborted.unwrap();
        assert!(aborted.cause.unwrap().contains("exit status 3") && aborted.object.unwrap().contains("/bin/sh -c"));
        let late = run(&hooks, Moment::Finally, &Facts::default()).await;
        assert!(late.aborted.is_none() && late.warnings.len() == 2 && late.ran.len() == 4, "{late:?}");
    }

    #[test]
    fn any_text_fits_into_an_environment() {
        let long = fit(format!("a\0{}", "é".repeat(VARIABLE_MOST)));
        assert!(long.len() <= VARIABLE_MOST && long.len() >= VARIABLE_MOST - 1 && !long.contains('\0') && long.starts_with('a'));
        assert_eq!(fit("short".to_owned()), "short");
    }
}
