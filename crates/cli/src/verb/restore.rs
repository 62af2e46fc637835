//! `lifeboat restore`.

use std::path::PathBuf;

use engine::place::Which;
use engine::restore::owner::Owner;
use engine::restore::plan::PlannedMember;
use engine::restore::{BumpChoice, Goal, Report, Request};
use engine::{Code, Failure, Outcome};
use serde_json::{Value, json};

use crate::args::{ConsentArgs, GlobalArgs, IdentityArgs, RepositoryArgs};
use crate::consent;
use crate::output::{self, Format};
use crate::progress::Teller;
use crate::resolve::Resolved;
use crate::signals;

/// Arguments of `lifeboat restore`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Which backup: id, unique prefix, last six characters, latest, latest~N, @REVISION
    #[arg(value_name = "WHICH", default_value = "latest")]
    which: String,
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    /// The newest backup not later than this: RFC 3339, local time, or '2 hours ago'
    #[arg(long, value_name = "WHEN", conflicts_with = "which")]
    at: Option<String>,
    /// Data directory to make
    #[arg(long, value_name = "DIR", required_unless_present_any = ["snapshot_file", "plan_out"], conflicts_with = "snapshot_file")]
    data_dir: Option<PathBuf>,
    /// Make a snapshot file instead of a data directory
    #[arg(long, value_name = "FILE")]
    snapshot_file: Option<PathBuf>,
    /// Who restores the snapshot file: for Talos its own locks of the lost cluster (VIP election, mutexes) are left out
    #[arg(long = "for", value_name = "SYSTEM", value_enum, requires = "snapshot_file", conflicts_with = "data_dir")]
    system: Option<System>,
    /// Name of this member
    #[arg(long, default_value = "default", value_name = "NAME", help_heading = "Member")]
    name: String,
    /// All members, as name=url,name=url
    #[arg(long, value_name = "NAME=URL,…", help_heading = "Member")]
    initial_cluster: Option<String>,
    /// This member's peer URLs
    #[arg(long, value_name = "URL,…", value_delimiter = ',', help_heading = "Member")]
    initial_advertise_peer_urls: Vec<String>,
    /// Token of the new cluster [default: a fresh one]
    #[arg(long, value_name = "TOKEN", help_heading = "Member")]
    initial_cluster_token: Option<String>,
    /// Directory for the log, where it is not in the data directory
    #[arg(long, value_name = "DIR", help_heading = "Member")]
    wal_dir: Option<PathBuf>,
    /// Move the old data aside (wants the cluster's name)
    // No environment variable: see ConsentArgs.
    #[arg(long)]
    replace: bool,
    /// Who owns the result: user, user:group or uid:gid [default: the owner of the old data]
    #[arg(long, value_name = "OWNER")]
    owner: Option<String>,
    /// Move revisions on by this much, as etcdutl does [default: past everything ever recorded]
    #[arg(long, value_name = "N", conflicts_with = "no_bump")]
    bump_revision: Option<u64>,
    /// Leave revisions as they were: unsafe for Kubernetes and every other client that watches
    // No environment variable: see ConsentArgs.
    #[arg(long)]
    no_bump: bool,
    /// The etcd that will run, as 3.5; recorded versions that are newer are dropped
    #[arg(long, value_name = "VERSION")]
    target_version: Option<String>,
    /// Time to live for leases that keys refer to and the backup does not hold
    #[arg(long, value_name = "TIME", default_value = "1h")]
    unknown_lease_ttl: String,
    /// Write the plan to a file, for every node of the cluster to carry out, and do nothing else
    #[arg(long, value_name = "FILE", conflicts_with = "plan")]
    plan_out: Option<PathBuf>,
    /// Carry out a plan that --plan-out wrote
    #[arg(long, value_name = "FILE", conflicts_with_all = ["which", "at", "initial_cluster", "initial_cluster_token", "bump_revision", "no_bump", "target_version", "system"])]
    plan: Option<PathBuf>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    consent: ConsentArgs,
}

/// What restores a snapshot file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum System {
    /// A node of Talos Linux, by `talosctl bootstrap --recover-from`
    Talos,
}

/// Runs `lifeboat restore`.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Outcome<Code> {
    let resolved = Resolved::new(global, args.repository.cluster.as_deref(), true)?;
    let place = resolved.place_to_read(global, &args.repository)?;
    if args.replace && !args.dry_run {
        let name = resolved.cluster.as_ref().map(ToString::to_string);
        consent::by_name(&args.consent, name.as_deref(), "The old data directory is moved aside, and etcd will start from the backup.")?;
    }
    let ttl = engine::config::duration(&args.unknown_lease_ttl)?.as_secs();
    let request = Request {
        place,
        cluster: resolved.cluster.clone(),
        which: if args.plan.is_some() { None } else { Some(Which::parse(&args.which, args.at.as_deref())?) },
        opening: resolved.opening(&args.identity)?,
        signing_key: resolved.signing_key(None),
        goal: goal(&args)?,
        bump: match (args.no_bump, args.bump_revision) {
            (true, _) => BumpChoice::None,
            (false, Some(by)) => BumpChoice::By(by),
            (false, None) => BumpChoice::Safe,
        },
        target_version: args.target_version,
        unknown_lease_ttl: i64::try_from(ttl)
            .ok()
            .filter(|ttl| *ttl > 0)
            .ok_or_else(|| Failure::usage("--unknown-lease-ttl is at least 1s").again())?,
        for_talos: args.system == Some(System::Talos),
        plan: args.plan,
        plan_out: args.plan_out,
        dry_run: args.dry_run,
        scratch: false,
    };
    let teller = std::sync::Arc::new(Teller::new(global));
    let report = signals::run(engine::restore::run(request, teller))?;
    let format = global.format();
    match format {
        Format::Table | Format::Simple => output::print(&table(&report)),
        _ => output::value(format, "lifeboat.restore/1", json(&report))?,
    }
    Ok(Code::Ok)
}

fn goal(args: &Args) -> Outcome<Goal> {
    if let Some(file) = &args.snapshot_file {
        return Ok(Goal::File(file.clone()));
    }
    const PEER: &str = "http://localhost:2380";
    let own = || if args.initial_advertise_peer_urls.is_empty() { PEER.to_owned() } else { args.initial_advertise_peer_urls.join(",") };
    let initial = match &args.initial_cluster {
        Some(initial) => initial.clone(),
        None => own().split(',').map(|url| format!("{}={url}", args.name)).collect::<Vec<_>>().join(","),
    };
    let members = etcd_store::cluster::parse_initial_cluster(&initial)
        .map_err(|error| Failure::usage("the members of the restored cluster do not fit").cause(error).again())?
        .into_iter()
        .map(|member| PlannedMember { name: member.name, peer_urls: member.peer_urls.iter().map(|url| url.as_str().to_owned()).collect() })
        .collect();
    Ok(Goal::DataDir {
        data_dir: args.data_dir.clone().unwrap_or_default(),
        wal_dir: args.wal_dir.clone(),
        name: args.name.clone(),
        members,
        advertise: args.initial_advertise_peer_urls.clone(),
        token: args.initial_cluster_token.clone(),
        replace: args.replace,
        owner: args.owner.as_deref().map(Owner::parse).transpose()?,
    })
}

fn table(report: &Report) -> String {
    let would = if report.dry_run { "would restore" } else { "restored" };
    let mut text = format!(
        "{would} backup {} of '{}', taken {}, revision {}, {} keys\n",
        report.id, report.cluster, report.taken, report.revision, report.keys
    );
    if let Some(plan) = &report.plan_out {
        text.push_str(&format!(
            "  plan     {}; on every node: lifeboat restore --plan {} --name NAME --data-dir DIR …\n",
            plan.display(),
            plan.display()
        ));
        return text;
    }
    text.push_str(&format!("  made     {}\n", report.made.display()));
    if let Some(before) = &report.before {
        text.push_str(&format!("  before   the old data is in {}\n", before.display()));
    }
    if let Some((id, token)) = &report.new_cluster {
        text.push_str(&format!("  cluster  {id}, token {token}\n"));
    }
    for change in &report.changes {
        text.push_str(&format!("  changed  {change}\n"));
    }
    for warning in &report.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}

fn json(report: &Report) -> Value {
    json!({
        "id": report.id,
        "cluster": report.cluster,
        "taken": report.taken,
        "revision": report.revision,
        "revision_after": report.revision_after,
        "keys": report.keys,
        "made": report.made,
        "before": report.before,
        "new_cluster": report.new_cluster.as_ref().map(|(id, token)| json!({"id": id, "token": token})),
        "changes": report.changes,
        "warnings": report.warnings,
        "dry_run": report.dry_run,
        "plan_out": report.plan_out,
    })
}
