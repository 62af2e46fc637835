//! `lifeboat status`: is every cluster protected as its policy says?

use std::time::Duration;

use agent::{observed, page};
use engine::config::{Cluster, Config};
use engine::status::{Standing, State, judge};
use engine::{Code, Failure, Outcome, place, stores};
use futures::future::join_all;
use jiff::Timestamp;
use vault::name::ClusterName;

use super::init::config_flag;
use super::list::age;
use crate::args::{GlobalArgs, RepositoryArgs};
use crate::metrics_file::{self, MetricsArgs};
use crate::output::{self, Format, size};
use crate::resolve::Resolved;
use crate::signals;

/// A store that does not answer within this time is said not to.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// A growth of so many bytes a day is worth a line.
const GROWTH_SHOWN: f64 = 1_048_576.0;

/// Arguments of `lifeboat status`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Exit 0: protected. 22: the newest good backup is too old. 23: there is none. 24: the last run failed while an older backup is young enough. 31: a store does not answer. Of several clusters the worst counts."
)]
pub(crate) struct Args {
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    metrics: MetricsArgs,
}

/// Runs `lifeboat status`.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Outcome<Code> {
    metrics_file::check(&args.metrics)?;
    let resolved = Resolved::new(global, args.repository.cluster.as_deref(), false)?;
    let now = Timestamp::now();
    let standings = signals::run(standings(&resolved, &args.repository, now))?;
    match global.format() {
        Format::Table => output::print(&table(&standings, &resolved, now)),
        Format::Simple => output::print(&simple(&standings)),
        format => output::value(format, page::SCHEMA, page::standings(&standings, now))?,
    }
    if let Some(file) = &args.metrics.metrics_file {
        let known = |standing: &Standing| observed::Cluster { standing: Some(standing.clone()), ..observed::Cluster::default() };
        let clusters = standings.iter().map(|standing| (standing.cluster.to_string(), known(standing))).collect();
        metrics_file::write(file, clusters, now)?;
    }
    let worst = standings.iter().map(|standing| standing.state).reduce(State::worse);
    for standing in standings.iter().filter(|standing| standing.state != State::Protected) {
        output::say(&format!("next: {}", next(global, standing)));
    }
    Ok(worst.map_or(Code::NeverRan, State::code))
}

/// Every cluster that is meant, each judged by its own policy.
async fn standings(resolved: &Resolved, args: &RepositoryArgs, now: Timestamp) -> Outcome<Vec<Standing>> {
    let config = resolved.config.clone().unwrap_or_default();
    let mut names: Vec<ClusterName> = resolved.cluster.iter().cloned().collect();
    if names.is_empty() && args.repo.is_none() {
        names.extend(config.clusters.keys().filter_map(|name| name.parse().ok()));
    }
    if names.is_empty() {
        let options = resolved.place(args)?;
        let repository = place::open(&options).await?;
        names = repository.clusters().await.map_err(|error| place::failure(&options, "the repository cannot be listed", &error))?;
    }
    Ok(join_all(names.iter().map(|name| standing(resolved, &config, args, name, now))).await)
}

async fn standing(resolved: &Resolved, config: &Config, args: &RepositoryArgs, name: &ClusterName, now: Timestamp) -> Standing {
    let section = config.clusters.get(name.as_str()).cloned();
    let policy = config.policy(&section.clone().unwrap_or_default());
    let look = async {
        let options = match (&args.repo, policy.stores.first()) {
            (None, Some(_)) => config.readable_place(&policy).await?,
            _ => resolved.place(args)?,
        };
        match place::open(&options).await {
            Ok(repository) => place::catalog(&repository, &options, name).await.map(|catalog| Some((catalog, options.url))),
            Err(failure) if failure.code == Code::NoRepository && is_configured(section.as_ref()) => Ok(None),
            Err(failure) => Err(failure),
        }
    };
    let catalog = match tokio::time::timeout(ANSWERS_WITHIN, look).await {
        Ok(catalog) => catalog,
        Err(_) => Err(Failure::new(Code::StoreUnreachable, "the store does not answer")),
    };
    match catalog {
        Ok(Some((catalog, read))) => {
            let places = if args.repo.is_some() { Vec::new() } else { stores::of_policy(&policy, &config.keys.trusted_signers, false) };
            Standing { behind: stores::behind(&places, &read, &catalog).await, ..judge(&catalog, &policy, now) }
        }
        Ok(None) => Standing { next: Some(now), ..Standing::empty(name.clone()) },
        Err(failure) => Standing::unknown(name.clone(), &failure),
    }
}

/// A cluster that somebody configured and of which nothing was ever stored is one without a backup, not a wrong address.
fn is_configured(section: Option<&Cluster>) -> bool {
    section.is_some()
}

fn next(global: &GlobalArgs, standing: &Standing) -> String {
    let verb = if standing.state == State::Unknown { "list" } else { "backup" };
    format!("lifeboat {verb} --cluster {}{}", standing.cluster, config_flag(global))
}

fn table(standings: &[Standing], resolved: &Resolved, now: Timestamp) -> String {
    const HEADER: [&str; 9] = ["CLUSTER", "STATE", "NEWEST GOOD", "AGE", "TOO OLD", "NEXT", "PROVEN", "BACKUPS", "STORED"];
    let rows: Vec<Vec<String>> = standings.iter().map(|standing| row(standing, now)).collect();
    let mut text = output::columns(&HEADER, &[3, 7, 8], &rows);
    for standing in standings {
        for line in remarks(standing, now) {
            text.push_str(&format!("{}: {line}\n", standing.cluster));
        }
    }
    if standings.is_empty() {
        text.push_str("no cluster yet\n");
    }
    text.push_str(&key_line(resolved));
    text
}

fn row(standing: &Standing, now: Timestamp) -> Vec<String> {
    let newest = standing.newest.as_ref();
    let until = |moment: Option<Timestamp>| match moment.map(|moment| moment.duration_since(now)) {
        None => "-".to_owned(),
        Some(left) if left.is_zero() => "now".to_owned(),
        Some(left) if left.is_negative() => format!("{} ago", age(left.abs())),
        Some(left) => format!("in {}", age(left)),
    };
    vec![
        standing.cluster.to_string(),
        standing.state.to_string(),
        newest.map_or_else(|| "-".to_owned(), |newest| newest.id.to_string()),
        newest.map_or_else(|| "-".to_owned(), |newest| age(now.duration_since(newest.moment))),
        until(standing.late_at),
        until(standing.next),
        newest.map_or_else(|| "-".to_owned(), |newest| newest.proof.word().to_owned()),
        standing.backups.to_string(),
        size(standing.stored_bytes),
    ]
}

/// What is worth a line of its own.
fn remarks(standing: &Standing, now: Timestamp) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(failed) = &standing.failed {
        let detail = failed.detail.as_deref().unwrap_or("no reason is on record");
        lines.push(format!("runs fail since {} ago, exit {}: {detail}", age(now.duration_since(failed.since)), failed.exit));
    }
    if !standing.unconfirmed.is_empty() {
        lines.push(format!("unconfirmed: {}; look, then: lifeboat lineage accept", standing.unconfirmed.join(", ")));
    }
    if !standing.damaged.is_empty() {
        let ids: Vec<String> = standing.damaged.iter().map(ToString::to_string).collect();
        lines.push(format!("damaged: {}", ids.join(", ")));
    }
    lines.extend(standing.behind.iter().map(ToString::to_string));
    if let Some(growth) = standing.growth.filter(|growth| growth.bytes_per_day.abs() >= GROWTH_SHOWN) {
        let (sign, bytes) = if growth.bytes_per_day < 0.0 { ("less", -growth.bytes_per_day) } else { ("more", growth.bytes_per_day) };
        lines.push(format!("{} {sign} in use each day, {} now", size(bytes as u64), size(growth.in_use)));
    }
    lines.extend(standing.warnings.iter().cloned());
    lines
}

/// Whether this machine could open the backups, which a machine of the cluster better cannot.
fn key_line(resolved: &Resolved) -> String {
    let files = resolved.config.iter().flat_map(|config| config.identity_files()).filter(|file| file.exists());
    let files: Vec<String> = files.map(|file| file.display().to_string()).collect();
    if files.is_empty() {
        return String::new();
    }
    format!("note: an identity that opens the backups is on this machine ({}); make sure that it is not the only one\n", files.join(", "))
}

fn simple(standings: &[Standing]) -> String {
    let line = |standing: &Standing| {
        let newest = standing.newest.as_ref().map(|newest| newest.id.to_string()).unwrap_or_default();
        format!("{}, {}, {newest}\n", standing.cluster, standing.state.word())
    };
    standings.iter().map(line).collect()
}
