//! `lifeboat backup`.

use std::path::PathBuf;

use agent::hook::Moment;
use agent::hooked::Hooked;
use engine::backup::{Committed, Report, Request, StoreReport, verdict_word};
use engine::choice::Wish;
use engine::config::Hooks;
use engine::extra::Extra;
use engine::lease::{Holder, Mode};
use engine::limits::{GOODBYE_WITHIN, HASHKV_BUDGET, IDENTITY};
use engine::next::line;
use engine::stores::NamedPlace;
use engine::{Code, Failure, Outcome};
use serde_json::{Value, json};
use vault::manifest::Role;
use vault::name::Tag;

use super::of_run::OfRun;
use crate::args::{GlobalArgs, RepositoryArgs, SealArgs, SourceArgs, SpoolArgs};
use crate::metrics_file::{self, MetricsArgs};
use crate::output::{self, size};
use crate::progress::Teller;
use crate::resolve::Resolved;
use crate::{output::Format, passphrase, signals};

/// Arguments of `lifeboat backup`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct VerbArgs {
    #[command(flatten)]
    backup: Args,
    /// Do not run the hooks of the configuration
    #[arg(long, env = "LIFEBOAT_NO_HOOKS")]
    no_hooks: bool,
    /// Do not tell the receivers of the configuration
    #[arg(long, env = "LIFEBOAT_NO_NOTIFY")]
    no_notify: bool,
    #[command(flatten)]
    metrics: MetricsArgs,
}

/// Arguments of every verb that begins with a backup.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
    #[command(flatten)]
    seal: SealArgs,
    #[command(flatten)]
    spool: SpoolArgs,
    /// Take this member only: its name, id or endpoint
    #[arg(long, value_name = "MEMBER", env = "LIFEBOAT_MEMBER")]
    member: Option<String>,
    /// Word to keep with the backup (repeatable)
    #[arg(long, value_name = "TAG", env = "LIFEBOAT_TAG", value_delimiter = ',')]
    tag: Vec<String>,
    /// File or directory to keep beside the backup, sealed; machine-config: that of every Talos node (repeatable)
    #[arg(long, value_name = "PATH", env = "LIFEBOAT_EXTRA", value_delimiter = ',')]
    extra: Vec<PathBuf>,
    /// Do not encrypt: whoever reads the store reads every Secret
    // No environment variable: leaving backups open is decided for one run, by a person who looks.
    #[arg(long)]
    no_encrypt: bool,
    /// Do nothing while somebody else backs the same cluster up into this repository (exit 11)
    #[arg(long, env = "LIFEBOAT_REQUIRE_LEASE")]
    require_lease: bool,
    /// Fail unless every member answers and is healthy
    #[arg(long, env = "LIFEBOAT_REQUIRE_HEALTHY")]
    require_healthy: bool,
    /// Take a member without a leader or with an alarm as well (exit 3)
    #[arg(long, env = "LIFEBOAT_DEGRADED")]
    degraded: bool,
    /// Time for all live HashKV questions together [default: 2s]
    #[arg(long, value_name = "TIME", env = "LIFEBOAT_HASHKV_BUDGET")]
    hashkv_budget: Option<String>,
    /// One worker at low priority, for a member that must not feel it
    #[arg(long, env = "LIFEBOAT_GENTLE")]
    gentle: bool,
    /// Read the stored object back: none, or full
    #[arg(long, value_name = "HOW", value_enum, default_value = "none", env = "LIFEBOAT_READ_BACK")]
    read_back: ReadBack,
    /// Afterwards remove what the policy in lifeboat.yaml does not keep, as 'lifeboat prune --yes' does
    #[arg(long, env = "LIFEBOAT_PRUNE")]
    pub(crate) prune: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ReadBack {
    None,
    Full,
}

/// Runs `lifeboat backup`.
pub(crate) fn run(global: &GlobalArgs, args: VerbArgs) -> Outcome<Code> {
    let VerbArgs { backup: args, no_hooks, no_notify, metrics } = args;
    metrics_file::check(&metrics)?;
    let dry_run = args.dry_run;
    // Before the runtime, whose threads take over the priority of the one that starts them.
    engine::seal_pipeline::step_back_behind_etcd(args.gentle);
    let resolved = Resolved::new(global, args.repository.cluster.as_deref(), true)?;
    let hooks = if no_hooks { Hooks::default() } else { resolved.hooks() };
    // A policy that is missing is said before the backup, not after it.
    let policy = if args.prune { Some(policy(&resolved)?) } else { None };
    let request = request_of(&resolved, args)?;
    let lease = request.lease;
    let pruning = policy.map(|policy| (prune_request(&request, policy), request.stores.clone()));
    let cluster = request.cluster.as_ref().map(ToString::to_string).unwrap_or_default();
    let hooked = Hooked::new(hooks, &cluster, &request.place.url);
    let teller = std::sync::Arc::new(Teller::new(global));
    let holder = Holder::default();
    let of_run = OfRun::of(&request, resolved.config, !no_notify, metrics.metrics_file);
    let goodbye = async {
        let release = tokio::time::timeout(GOODBYE_WITHIN, holder.release());
        let _late = futures::future::join(release, of_run.stopped()).await;
        hooked.goodbye(teller.as_ref()).await;
    };
    let work = of_run.around(hooked.backup(request, &holder, std::sync::Arc::<Teller>::clone(&teller)));
    let mut report = signals::run_then_within(GOODBYE_WITHIN + hooked.goodbye_within(), work, goodbye)?;
    let pruning = pruning.filter(|_| !dry_run && !report.committed.is_empty());
    let pruned = pruning.and_then(|pruning| pruned(global, &mut report, pruning, lease));
    match global.format() {
        Format::Table | Format::Simple => output::print(&format!("{}{}", table(&report, dry_run), planned_hooks(&hooked, dry_run))),
        format => {
            let mut value = json(&report);
            value["prune"] = pruned.unwrap_or_default();
            if dry_run {
                let line = |(moment, command): (Moment, String)| json!({"event": moment.word(), "command": command});
                value["hooks"] = hooked.plan().into_iter().map(line).collect();
            }
            output::value(format, "lifeboat.backup/1", value)?;
        }
    }
    Ok(report.code)
}

/// Prunes behind a backup; what does not go well is a warning of the report.
fn pruned(global: &GlobalArgs, report: &mut Report, pruning: (engine::prune::Request, Vec<NamedPlace>), lease: Mode) -> Option<Value> {
    let lease = if lease == Mode::Required { Mode::Auto } else { lease };
    let (pruning, places) = pruning;
    let missing = |place: &&NamedPlace| report.stores.iter().any(|store| store.name == place.name && store.why.is_some());
    let mut places: Vec<NamedPlace> = places.iter().filter(|place| !missing(place)).cloned().collect();
    if places.is_empty() {
        places.push(NamedPlace::unnamed(report.place.clone()));
    }
    let request = engine::prune::Request { cluster: Some(report.cluster.clone()), ..pruning };
    let (pruned, words) = super::prune::after_backup(global, &request, &places, lease);
    report.warnings.extend(words);
    pruned
}

/// The hooks that would be run, for people.
fn planned_hooks(hooked: &Hooked, dry_run: bool) -> String {
    let plan = if dry_run { hooked.plan() } else { Vec::new() };
    plan.iter().map(|(moment, command)| format!("  hook, {}: {command}\n", moment.word())).collect()
}

/// What is kept, by the configuration alone.
fn policy(resolved: &Resolved) -> Outcome<vault::retention::Policy> {
    let keep = super::prune::keep(resolved, &super::prune::KeepArgs::default());
    // The flags that would say it are those of `prune`.
    engine::prune::policy(&keep.map_err(|failure| failure.again_without("--prune"))?)
}

fn prune_request(request: &Request, policy: vault::retention::Policy) -> engine::prune::Request {
    engine::prune::Request {
        place: request.place.clone(),
        cluster: request.cluster.clone(),
        policy,
        signing_key: request.signing_key.clone(),
        state: engine::exclusion::state_directory(),
        dry_run: false,
    }
}

/// The backup that is meant; for other verbs that begin with one, too.
pub(crate) fn request(global: &GlobalArgs, args: Args) -> Outcome<Request> {
    let resolved = Resolved::new(global, args.repository.cluster.as_deref(), true)?;
    request_of(&resolved, args)
}

fn request_of(resolved: &Resolved, args: Args) -> Outcome<Request> {
    // Asked first: who has set nothing up at all is better served by `init` than by one answer after the other.
    let (stores, min_stores) = resolved.places(&args.repository)?;
    let place = resolved.place(&args.repository)?;
    let recipients = recipients(resolved, &args)?;
    let passphrase = if args.no_encrypt { None } else { passphrase::given(&args.seal.passphrase, true)? };
    if recipients.is_empty() && passphrase.is_none() && !args.no_encrypt {
        return Err(Failure::usage("no recipient is named, so nobody could ever open the backup")
            .cause(
                "name who can open it by --recipient age1…, or give --passphrase; --no-encrypt leaves it open to whoever reads the store",
            )
            .next(["lifeboat", "key", "new", "--identity-out", IDENTITY]));
    }
    let tags: Result<Vec<Tag>, _> = args.tag.iter().map(|tag| tag.parse()).collect();
    let budget = args.hashkv_budget.clone().or_else(|| resolved.hashkv_budget());
    Ok(Request {
        source: resolved.source(&args.source)?,
        place,
        stores,
        min_stores,
        wish: Wish { member: args.member, require_healthy: args.require_healthy, degraded: args.degraded, last: None },
        tags: tags.map_err(|error| Failure::usage(format!("a tag is not sound: {error}")).again())?,
        extras: resolved.extras(&args.extra).iter().map(|path| Extra::of(path)).collect(),
        recipients,
        passphrase,
        person: passphrase::person(),
        extra_recipients: resolved.extra_recipients(),
        plain: args.no_encrypt,
        signing_key: resolved.signing_key(args.seal.signing_key.as_ref()),
        spool: resolved.spool(&args.spool)?,
        hashkv_budget: budget.map_or(Ok(HASHKV_BUDGET), |text| engine::config::duration(&text))?,
        gentle: args.gentle,
        read_back: args.read_back == ReadBack::Full,
        lease: if args.require_lease { Mode::Required } else { resolved.lease() },
        content_shrinks_by: Some(resolved.content_shrinks_by()),
        dry_run: args.dry_run,
        cache: engine::cache::default_directory(),
        cluster: resolved.cluster.clone(),
    })
}

/// Who can open the backup by a key of their own; nobody where a passphrase was given, which can only stand alone.
fn recipients(resolved: &Resolved, args: &Args) -> Outcome<Vec<String>> {
    let seal = &args.seal;
    if args.no_encrypt {
        return Ok(Vec::new());
    }
    if !seal.passphrase.is_given() {
        return resolved.recipients(&seal.recipient, &seal.recipients_file);
    }
    if seal.recipient.is_empty() && seal.recipients_file.is_empty() {
        return Ok(Vec::new());
    }
    let flag = if seal.recipient.is_empty() { "--recipients-file" } else { "--recipient" };
    Err(Failure::usage("a backup is sealed either to recipients or with a passphrase")
        .cause("both were given; the age format has no place for a passphrase beside a key")
        .again_without(flag))
}

/// A report for people.
pub(crate) fn table(report: &Report, dry_run: bool) -> String {
    let mut text = String::new();
    if dry_run {
        text.push_str(&format!(
            "Would back up cluster '{}' into {}, from the first of these that gives a sound stream:\n",
            report.cluster, report.place.url
        ));
        for (at, member) in report.plan.iter().enumerate() {
            text.push_str(&format!("  {}. {} ({}) at {}: {}\n", at + 1, member.name, member.id, member.endpoint, member.reason));
        }
    }
    if dry_run && report.stores.len() > 1 {
        text.push_str(&format!("Stores: {}\n", stores(report)));
    }
    for committed in &report.committed {
        text.push_str(&described(report, committed));
    }
    for warning in &report.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    if let Some(next) = &report.next {
        text.push_str(&format!("next:    {}\n", line(next)));
    }
    text
}

/// `main, offsite (missing)`.
fn stores(report: &Report) -> String {
    let one = |store: &StoreReport| match &store.why {
        None => store.name.clone(),
        Some(_) => format!("{} (missing)", store.name),
    };
    report.stores.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn described(report: &Report, committed: &Committed) -> String {
    let manifest = &committed.manifest;
    let took = manifest.times.committed.duration_since(manifest.times.started).as_secs_f64();
    let mut text = format!(
        "backup {} of '{}': revision {}, {} stored as {} in {took:.1} s\n",
        manifest.id,
        report.cluster,
        manifest.revision,
        size(manifest.snapshot.db_size),
        size(committed.stored_size)
    );
    text.push_str(&format!("  proof    hashkv {}", verdict_word(manifest.hashkv.verdict)));
    if !committed.proof.is_empty() {
        text.push_str(&format!(": {}", committed.proof.join("; ")));
    }
    text.push('\n');
    let sealed = match (manifest.layers.age, manifest.sealing.passphrase) {
        (false, _) => "NOT ENCRYPTED".to_owned(),
        (true, true) => "with a passphrase".to_owned(),
        (true, false) => format!("to {} recipient(s)", manifest.sealing.recipients.len()),
    };
    let signed = manifest.signer.map_or_else(|| "unsigned".to_owned(), |key| format!("signed by {key}"));
    text.push_str(&format!("  sealed   {sealed}; {signed}\n"));
    text.push_str(&format!(
        "  holds    {} rows, {} keys, {} leases\n",
        manifest.counts.rows, manifest.counts.live_keys, manifest.counts.leases
    ));
    if !committed.resources.is_empty() {
        text.push_str(&format!("           {}\n", resources(committed)));
    }
    if report.stores.len() > 1 {
        text.push_str(&format!("  stores   {}\n", stores(report)));
    }
    let identity = passphrase::flag(manifest);
    let restore = report.place.cluster_command(&["restore", manifest.id.suffix()], &report.cluster);
    let extras: Vec<String> =
        manifest.objects.iter().filter(|object| object.role == Role::Extra).map(|object| object.name.to_string()).collect();
    if !extras.is_empty() {
        text.push_str(&format!("  extras   {}\n", extras.join(", ")));
    }
    text.push_str(&format!("  restore  {}{identity} {}\n", line(restore), output::restore_target(manifest).join(" ")));
    if let Some(then) = output::after_restore(manifest) {
        text.push_str(&format!("  then     {then}\n"));
    }
    text
}

/// `14 namespaces, 212 pods (+3)`: the most frequent ones, what changed marked.
fn resources(committed: &Committed) -> String {
    const SHOWN: usize = 12;
    let shown: Vec<String> = committed
        .resources
        .iter()
        .take(SHOWN)
        .map(|line| match line.change {
            Some(change) if change != 0 => format!("{} {} ({change:+})", line.count, line.resource),
            _ => format!("{} {}", line.count, line.resource),
        })
        .collect();
    let more = committed.resources.len().saturating_sub(SHOWN);
    let tail = if more > 0 { format!(" and {more} more kinds") } else { String::new() };
    format!("{}{tail}", shown.join(", "))
}

/// Where the time went: reading the stream, waiting for the members' HashKV, and in all.
fn seconds(committed: &Committed) -> Value {
    let times = &committed.manifest.times;
    json!({
        "stream": times.stream_ended.duration_since(times.stream_started).as_secs_f64(),
        "hashkv": committed.hashkv_took.as_secs_f64(),
        "total": times.committed.duration_since(times.started).as_secs_f64(),
    })
}

fn json(report: &Report) -> Value {
    let committed: Vec<Value> = report
        .committed
        .iter()
        .map(|committed| {
            json!({
                "id": committed.manifest.id.to_string(),
                "stored_size": committed.stored_size,
                "manifest": committed.manifest,
                "proof": committed.proof,
                "seconds": seconds(committed),
                "resources": committed.resources.iter().map(|line| json!({"resource": line.resource, "count": line.count, "change": line.change})).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "repository": report.place.url,
        "cluster": report.cluster,
        "exit": report.code as u8,
        "backups": committed,
        "plan": report.plan.iter().map(|member| json!({"id": member.id.to_string(), "name": member.name, "endpoint": member.endpoint, "reason": member.reason})).collect::<Vec<_>>(),
        "stores": report.stores.iter().map(|store| json!({"name": store.name, "url": store.url, "holds": store.why.is_none(), "why": store.why})).collect::<Vec<_>>(),
        "warnings": report.warnings,
        "next": report.next.as_ref().map(line),
    })
}
