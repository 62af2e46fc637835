//! `lifeboat copy`.

use std::path::PathBuf;
use std::sync::Arc;

use engine::copy::{ClusterReport, Fate, Outcome as One, Refusal, Report, Request};
use engine::{Code, Outcome};
use serde_json::{Value, json};

use crate::args::{GlobalArgs, RepositoryArgs, StoreArgs};
use crate::output::{self, Format, size};
use crate::progress::Teller;
use crate::resolve::Resolved;
use crate::signals;

/// Arguments of `lifeboat copy`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Backups go over sealed, as they are, and only those that are missing; each object is held against its manifest on the way. What was given up with a tombstone is not brought back. Stopped anywhere, the same command goes on."
)]
pub(crate) struct Args {
    /// Which backups: id, unique prefix, last six characters, latest, latest~N, @REVISION [default: all]
    #[arg(value_name = "WHICH")]
    which: Vec<String>,
    /// Every backup
    #[arg(long, conflicts_with = "which", env = "LIFEBOAT_ALL")]
    all: bool,
    /// The store that is read: a URL, or a name from the configuration
    #[arg(long, value_name = "STORE", env = "LIFEBOAT_COPY_FROM", help_heading = "Stores")]
    from: String,
    /// The store that gets what it lacks; an empty one becomes the same repository
    #[arg(long, value_name = "STORE", env = "LIFEBOAT_COPY_TO", help_heading = "Stores")]
    to: String,
    /// Name of the cluster in the repository, or in the configuration [default: all clusters]
    #[arg(long, alias = "profile", value_name = "NAME", env = "LIFEBOAT_CLUSTER", help_heading = "Stores")]
    cluster: Option<String>,
    /// Region of the S3 store that is read
    #[arg(long, value_name = "NAME", env = "LIFEBOAT_FROM_S3_REGION", help_heading = "Stores")]
    from_s3_region: Option<String>,
    /// Endpoint of the S3-compatible store that is read
    #[arg(long, value_name = "URL", env = "LIFEBOAT_FROM_S3_ENDPOINT", help_heading = "Stores")]
    from_s3_endpoint: Option<String>,
    /// File with the credentials of the S3 store that is read
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_FROM_S3_CREDENTIALS_FILE", help_heading = "Stores")]
    from_s3_credentials_file: Option<PathBuf>,
    /// Region of the S3 store that is written
    #[arg(long, value_name = "NAME", env = "LIFEBOAT_TO_S3_REGION", help_heading = "Stores")]
    to_s3_region: Option<String>,
    /// Endpoint of the S3-compatible store that is written
    #[arg(long, value_name = "URL", env = "LIFEBOAT_TO_S3_ENDPOINT", help_heading = "Stores")]
    to_s3_endpoint: Option<String>,
    /// File with the credentials of the S3 store that is written
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_TO_S3_CREDENTIALS_FILE", help_heading = "Stores")]
    to_s3_credentials_file: Option<PathBuf>,
    /// Endpoint of the gs:// or az:// store that is read
    #[arg(long, value_name = "URL", env = "LIFEBOAT_FROM_STORE_ENDPOINT", help_heading = "Stores")]
    from_store_endpoint: Option<String>,
    /// File with the credentials of the gs:// or az:// store that is read
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_FROM_STORE_CREDENTIALS_FILE", help_heading = "Stores")]
    from_store_credentials_file: Option<PathBuf>,
    /// Endpoint of the gs:// or az:// store that is written
    #[arg(long, value_name = "URL", env = "LIFEBOAT_TO_STORE_ENDPOINT", help_heading = "Stores")]
    to_store_endpoint: Option<String>,
    /// File with the credentials of the gs:// or az:// store that is written
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_TO_STORE_CREDENTIALS_FILE", help_heading = "Stores")]
    to_store_credentials_file: Option<PathBuf>,
    /// minisign public key whose signatures count (repeatable; text or file)
    #[arg(long, value_name = "KEY", env = "LIFEBOAT_TRUSTED_SIGNER", value_delimiter = ',', help_heading = "Stores")]
    trusted_signer: Vec<String>,
    /// Copy backups whose signature is missing or foreign, although trusted signers are configured
    #[arg(long, help_heading = "Stores")]
    allow_unsigned: bool,
    /// Print what would be copied, and copy nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs `lifeboat copy`.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Outcome<Code> {
    let report = signals::run(engine::copy::run(request(global, args)?, Arc::new(Teller::new(global))))?;
    let failure = report.failure();
    let code = failure.as_ref().map_or(Code::Ok, |failure| failure.code);
    match global.format() {
        Format::Table => output::print(&table(&report)),
        Format::Simple => output::print(&simple(&report)),
        format => output::value(format, "lifeboat.copy/1", json(&report, code))?,
    }
    for warning in report.clusters.iter().flat_map(|cluster| &cluster.warnings) {
        output::say(&format!("warning: {warning}"));
    }
    failure.map_or(Ok(Code::Ok), Err)
}

fn request(global: &GlobalArgs, args: Args) -> Outcome<Request> {
    let resolved = Resolved::new(global, args.cluster.as_deref(), false)?;
    let signers = RepositoryArgs { trusted_signer: args.trusted_signer, allow_unsigned: args.allow_unsigned, ..RepositoryArgs::default() };
    let from = StoreArgs {
        s3_region: args.from_s3_region,
        s3_endpoint: args.from_s3_endpoint,
        s3_credentials_file: args.from_s3_credentials_file,
        store_endpoint: args.from_store_endpoint,
        store_credentials_file: args.from_store_credentials_file,
    };
    let to = StoreArgs {
        s3_region: args.to_s3_region,
        s3_endpoint: args.to_s3_endpoint,
        s3_credentials_file: args.to_s3_credentials_file,
        store_endpoint: args.to_store_endpoint,
        store_credentials_file: args.to_store_credentials_file,
    };
    let [from, to] = [from, to].map(|store| RepositoryArgs { store, ..signers.clone() });
    Ok(Request {
        from: resolved.store_named(&args.from, &from)?,
        to: resolved.store_named(&args.to, &to)?,
        // The only cluster of a configuration need not be the only one of the store.
        cluster: resolved.cluster.filter(|_| args.cluster.is_some()),
        which: args.which,
        allow_unsigned: args.allow_unsigned,
        dry_run: args.dry_run,
    })
}

fn table(report: &Report) -> String {
    let mut text = String::new();
    if report.made {
        let made = if report.dry_run { "is empty and would become" } else { "was empty and is now" };
        text.push_str(&format!("store {} {made} the repository {}\n", report.to.described(), report.repository));
    }
    for cluster in &report.clusters {
        for One { id, fate } in &cluster.backups {
            match fate {
                Fate::Copied(bytes) if report.dry_run => text.push_str(&format!("{id}  would be copied, {}\n", size(*bytes))),
                Fate::Copied(bytes) => text.push_str(&format!("{id}  copied, {}\n", size(*bytes))),
                Fate::Skipped(why) => text.push_str(&format!("{id}  left out: {why}\n")),
                Fate::Refused(refusal) => text.push_str(&format!("{id}  NOT COPIED: {refusal}\n")),
                Fate::There => {}
            }
        }
        cluster.refused.iter().for_each(|refusal| text.push_str(&format!("NOT COPIED: {refusal}\n")));
        text.push_str(&sum(report, cluster));
    }
    if report.clusters.is_empty() {
        text.push_str("the source holds no backup yet\n");
    }
    text
}

fn sum(report: &Report, cluster: &ClusterReport) -> String {
    let (count, bytes) = cluster.copied();
    let there = cluster.backups.iter().filter(|outcome| outcome.fate == Fate::There).count();
    let done = if report.dry_run { "to copy" } else { "copied" };
    format!(
        "cluster '{}' from {} to {}: {count} backup(s) {done} ({}), {there} there already, {} lineage(s) and {} mark(s) {done}\n",
        cluster.cluster,
        report.from.described(),
        report.to.described(),
        size(bytes),
        cluster.lineages,
        cluster.marks
    )
}

/// The stable word for what became of a backup.
fn word(fate: &Fate, dry_run: bool) -> &'static str {
    match fate {
        Fate::Copied(_) if dry_run => "would-copy",
        Fate::Copied(_) => "copied",
        Fate::There => "there",
        Fate::Skipped(_) => "skipped",
        Fate::Refused(_) => "refused",
    }
}

fn simple(report: &Report) -> String {
    let of = |cluster: &ClusterReport| {
        let line = |one: &One| format!("{}, {}, {}\n", cluster.cluster, one.id, word(&one.fate, report.dry_run));
        cluster.backups.iter().map(line).collect::<String>()
    };
    report.clusters.iter().map(of).collect()
}

fn refused(refusal: &Refusal) -> Value {
    json!({"object": refusal.object, "trouble": refusal.trouble.word(), "why": refusal.why})
}

fn json(report: &Report, code: Code) -> Value {
    let backup = |one: &One| {
        let bytes = if let Fate::Copied(bytes) = one.fate { bytes } else { 0 };
        let why = match &one.fate {
            Fate::Skipped(why) => Some(why),
            Fate::Refused(refusal) => Some(&refusal.why),
            Fate::Copied(_) | Fate::There => None,
        };
        let trouble = if let Fate::Refused(refusal) = &one.fate { Some(refused(refusal)) } else { None };
        json!({"id": one.id, "outcome": word(&one.fate, report.dry_run), "bytes": bytes, "why": why, "refused": trouble})
    };
    let cluster = |cluster: &ClusterReport| {
        json!({
            "cluster": cluster.cluster,
            "backups": cluster.backups.iter().map(backup).collect::<Vec<_>>(),
            "lineages": cluster.lineages,
            "marks": cluster.marks,
            "refused": cluster.refused.iter().map(refused).collect::<Vec<_>>(),
            "warnings": cluster.warnings,
        })
    };
    let bytes: u64 = report.clusters.iter().map(|cluster| cluster.copied().1).sum();
    json!({
        "from": report.from.options.url,
        "to": report.to.options.url,
        "repository": report.repository.to_string(),
        "made": report.made,
        "dry_run": report.dry_run,
        "exit": code as u8,
        "bytes": bytes,
        "clusters": report.clusters.iter().map(cluster).collect::<Vec<_>>(),
    })
}
