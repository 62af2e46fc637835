//! `lifeboat etcd health`.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use engine::care::ClusterView;
use engine::care::health::{Certificates, Finding, Severity, examine, examine_machines, verdict};
use engine::care::look::look;
use engine::care::talos_facts::{self, TalosFacts};
use engine::limits::HEALTH_EVERY;
use engine::talos::reach;
use engine::{Access, Code, Failure, Outcome, config};
use serde::Serialize;

use super::ClusterArgs;
use crate::args::GlobalArgs;
use crate::output::{self, Report};
use crate::signals;

/// Arguments of `lifeboat etcd health`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Look again for so long while there is an alert, or advice that may pass by itself; then the last verdict counts
    #[arg(long, value_name = "TIME", env = "LIFEBOAT_WAIT_TIMEOUT")]
    wait_timeout: Option<String>,
    /// Go on looking, and print the verdict whenever a finding changes, until Ctrl-C
    #[arg(long, conflicts_with = "wait_timeout")]
    watch: bool,
}

/// Runs `lifeboat etcd health`.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Outcome<Code> {
    let access = args.cluster.access(global)?;
    let wait = args.wait_timeout.as_deref().map(config::duration).transpose()?;
    let format = global.format();
    if args.watch {
        return signals::run(watch(&Eye::new(global, &access), |report| output::report(format, report)));
    }
    let report = signals::run(judged(&Eye::new(global, &access), wait))?;
    output::report(format, &report)?;
    Ok(report.code())
}

#[derive(Serialize)]
struct Health {
    cluster_id: Option<String>,
    verdict: &'static str,
    findings: Vec<Line>,
    #[serde(skip)]
    severity: Severity,
}

#[derive(Clone, PartialEq, Serialize)]
struct Line {
    check: &'static str,
    verdict: &'static str,
    member: Option<String>,
    says: String,
    means: Option<String>,
    mend: Option<String>,
}

impl Health {
    fn of(seen: &Seen, earlier: Option<&ClusterView>) -> Self {
        let view = &seen.view;
        let mut findings = examine(view, earlier, &seen.certificates);
        findings.extend(seen.machines.iter().flat_map(|machines| examine_machines(view, machines)));
        let severity = verdict(&findings);
        Self {
            cluster_id: view.cluster_id().map(|id| id.to_string()),
            verdict: severity.word(),
            findings: findings.into_iter().map(Line::of).collect(),
            severity,
        }
    }

    /// Nobody answered at all: that is a finding too, not only a failed command.
    fn unreachable(failure: &Failure) -> Self {
        let line = Line {
            check: "answers",
            verdict: Severity::Alert.word(),
            member: failure.object.clone(),
            says: failure.what.clone(),
            means: failure.cause.clone(),
            mend: None,
        };
        Self { cluster_id: None, verdict: Severity::Alert.word(), findings: vec![line], severity: Severity::Alert }
    }

    fn may_pass(&self) -> bool {
        let advice = Severity::Advice.word();
        self.severity == Severity::Alert || self.findings.iter().any(|line| line.verdict == advice && PASSING.contains(&line.check))
    }

    fn code(&self) -> Code {
        match self.severity {
            Severity::Healthy | Severity::Unknown => Code::Ok,
            Severity::Advice => Code::Advice,
            Severity::Alert => Code::Alert,
        }
    }
}

impl Line {
    fn of(finding: Finding) -> Self {
        let Finding { check, severity, member, says, means, mend } = finding;
        Self { check, verdict: severity.word(), member, says, means, mend: mend.map(|command| super::with_source(&command)) }
    }
}

/// Who looks again and again, and says what was odd only when that is new.
struct Eye<'a> {
    global: &'a GlobalArgs,
    access: &'a Access,
    said: RefCell<Option<Vec<String>>>,
}

impl<'a> Eye<'a> {
    fn new(global: &'a GlobalArgs, access: &'a Access) -> Self {
        Self { global, access, said: RefCell::new(None) }
    }

    async fn look(&self) -> Outcome<Seen> {
        let looked = look(self.access).await?;
        let certificates = looked.certificates(self.access);
        let before = self.said.replace(Some(looked.view.notes.clone()));
        match before {
            None => super::say_source(self.global, self.access, &looked),
            Some(notes) if notes != looked.view.notes => super::say_oddities(&looked.view),
            Some(_) => {}
        }
        let machines = match (&looked.talos, self.access.talos()) {
            (Some(reached), _) => Some(talos_facts::facts(reached).await),
            (None, Some(options)) => Some(talos_facts::facts(&reach(options, true).await?).await),
            (None, None) => None,
        };
        Ok(Seen { view: looked.view, certificates, machines })
    }
}

/// Everything that is judged.
struct Seen {
    view: ClusterView,
    certificates: Certificates,
    machines: Option<TalosFacts>,
}

/// Advice that may pass by itself: somebody starts, catches up, or is elected. All other advice stays until somebody acts, and is not waited for.
const PASSING: [&str; 7] = ["answers", "leader", "member-lists", "raft-lag", "leader-changes", "latency", "talos-apid"];

/// Looks until nothing is left that is worth waiting for, or the time is over; the last look counts.
async fn judged(eye: &Eye<'_>, wait: Option<Duration>) -> Outcome<Health> {
    let until = wait.map(|wait| Instant::now() + wait);
    let mut earlier = None;
    loop {
        let looked = eye.look().await;
        let over = until.is_none_or(|until| Instant::now() + HEALTH_EVERY >= until);
        match looked {
            Ok(seen) => {
                let health = Health::of(&seen, earlier.as_ref());
                if over || !health.may_pass() {
                    return Ok(health);
                }
                // Elections are counted from look to look: the one that ended the trouble must not keep the cluster ill.
                earlier = Some(seen.view);
            }
            Err(failure) if over || failure.code != Code::SourceUnreachable => return Err(failure),
            Err(_) => {}
        }
        tokio::time::sleep(HEALTH_EVERY).await;
    }
}

/// Prints whenever something changed, compared by what is found and not by its numbers.
async fn watch(eye: &Eye<'_>, print: impl Fn(&Health) -> Outcome<()>) -> Outcome<Code> {
    let mut earlier: Option<ClusterView> = None;
    let mut last: Option<Vec<(&'static str, &'static str, Option<String>)>> = None;
    loop {
        let health = match eye.look().await {
            Ok(seen) => {
                let health = Health::of(&seen, earlier.as_ref());
                earlier = Some(seen.view);
                health
            }
            Err(failure) if failure.code == Code::SourceUnreachable => Health::unreachable(&failure),
            Err(failure) => return Err(failure),
        };
        let shape: Vec<_> = health.findings.iter().map(|line| (line.check, line.verdict, line.member.clone())).collect();
        // The first look has no earlier one to count elections from; that this check appears is no change.
        let news = last.as_ref().is_none_or(|last| {
            let odd = |shape: &[(&'static str, &'static str, Option<String>)]| -> Vec<_> {
                shape.iter().filter(|(_, verdict, _)| *verdict != Severity::Healthy.word()).cloned().collect()
            };
            odd(last) != odd(&shape)
        });
        if news {
            print(&health)?;
        }
        last = Some(shape);
        tokio::time::sleep(HEALTH_EVERY).await;
    }
}

impl Report for Health {
    const SCHEMA: &'static str = "lifeboat.etcd-health/1";

    fn table(&self) -> String {
        let mut text = String::new();
        for line in &self.findings {
            let member = line.member.as_ref().map(|member| format!("{member} ")).unwrap_or_default();
            text.push_str(&format!("{:<8} {:<17} {member}{}\n", line.verdict, line.check, line.says));
            if let Some(means) = &line.means {
                text.push_str(&format!("{:26} means: {means}\n", ""));
            }
            if let Some(mend) = &line.mend {
                text.push_str(&format!("{:26} mend:  {mend}\n", ""));
            }
        }
        let cluster = self.cluster_id.as_ref().map(|id| format!("cluster {id} ")).unwrap_or_default();
        text.push_str(&format!("{cluster}in all: {}\n", self.verdict));
        text
    }

    fn simple(&self) -> String {
        let line =
            |line: &Line| format!("{}, {}, {}, {}\n", line.verdict, line.check, line.member.as_deref().unwrap_or_default(), line.says);
        self.findings.iter().map(line).collect::<String>() + &format!("{}, in-all, , \n", self.verdict)
    }
}
