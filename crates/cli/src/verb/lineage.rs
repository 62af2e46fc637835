//! `lineage list` and `lineage accept`.

use std::path::PathBuf;

use clap::Subcommand;
use engine::lineage::{Acceptance, standing_words};
use engine::{Code, Outcome, place};
use serde::Serialize;
use vault::repository::Catalog;

use crate::args::{ConsentArgs, GlobalArgs, RepositoryArgs};
use crate::output::{self, Report};
use crate::resolve::Resolved;
use crate::{consent, signals};

/// Arguments of `lifeboat lineage`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Show the histories of a cluster, and why each is accepted or not
    List(ListArgs),
    /// Take an unconfirmed history for this cluster's, so that its backups can be 'latest' (wants the cluster's name)
    Accept(AcceptArgs),
}

#[derive(clap::Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
}

#[derive(clap::Args, Debug)]
struct AcceptArgs {
    /// The lineage, or the beginning of its name
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    repository: RepositoryArgs,
    /// Which UID of kube-system is taken, where its backups have several; 'none' for backups without one
    #[arg(long, value_name = "UID")]
    fingerprint: Option<String>,
    /// minisign secret key that signs the acceptance
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_SIGNING_KEY", help_heading = "Keys")]
    signing_key: Option<PathBuf>,
    #[command(flatten)]
    consent: ConsentArgs,
}

/// Runs `lifeboat lineage …`.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Outcome<Code> {
    match args.what {
        What::List(args) => list(global, &args),
        What::Accept(args) => accept(global, &args),
    }
}

#[derive(Serialize)]
struct Listed {
    cluster: String,
    lineages: Vec<Line>,
}

/// One lineage.
#[derive(Serialize)]
struct Line {
    name: String,
    cluster_id: Option<String>,
    epoch: i64,
    parent: Option<String>,
    fingerprint: Option<String>,
    accepted: bool,
    standing: String,
    backups: usize,
    unconfirmed_backups: usize,
    first_revision: Option<i64>,
    last_revision: Option<i64>,
}

impl Report for Listed {
    const SCHEMA: &'static str = "lifeboat.lineage-list/1";

    fn table(&self) -> String {
        if self.lineages.is_empty() {
            return format!("no history of '{}' yet\n", self.cluster);
        }
        let rows: Vec<Vec<String>> = self.lineages.iter().map(row).collect();
        output::columns(&["NAME", "CLUSTER ID", "EPOCH", "PARENT", "BACKUPS", "REVISIONS", "KUBE-SYSTEM UID", "STANDING"], &[2, 4], &rows)
    }

    fn simple(&self) -> String {
        let line = |line: &Line| {
            format!("{}, {}, {}, {}\n", line.name, line.epoch, line.backups, if line.accepted { "accepted" } else { "unconfirmed" })
        };
        self.lineages.iter().map(line).collect()
    }
}

fn row(line: &Line) -> Vec<String> {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let revisions = line.first_revision.zip(line.last_revision).map(|(first, last)| format!("{first} to {last}"));
    let mut standing = line.standing.clone();
    if line.accepted && line.unconfirmed_backups > 0 {
        standing.push_str(&format!("; {} of its backups UNCONFIRMED", line.unconfirmed_backups));
    }
    vec![
        line.name.clone(),
        or_dash(&line.cluster_id),
        line.epoch.to_string(),
        or_dash(&line.parent),
        line.backups.to_string(),
        or_dash(&revisions),
        or_dash(&line.fingerprint),
        standing,
    ]
}

fn list(global: &GlobalArgs, args: &ListArgs) -> Outcome<Code> {
    let resolved = Resolved::new(global, args.repository.cluster.as_deref(), false)?;
    let place = resolved.place_to_read(global, &args.repository)?;
    let loaded = signals::run(engine::select::load(&place, resolved.cluster.as_ref()))?;
    output::report(global.format(), &listed(&loaded.catalog))?;
    for problem in &loaded.catalog.problems {
        output::say(&format!("warning: {problem}"));
    }
    Ok(Code::Ok)
}

fn listed(catalog: &Catalog) -> Listed {
    let lines = catalog.lineages.values().map(|entry| {
        let lineage = &entry.lineage;
        let backups = || catalog.backups.iter().filter(|backup| backup.manifest.lineage == lineage.name);
        let revisions = || backups().map(|backup| backup.manifest.revision);
        Line {
            name: lineage.name.to_string(),
            cluster_id: match lineage.cluster_id {
                vault::lineage::LineageCluster::Id(id) => Some(id.to_string()),
                _ => None,
            },
            epoch: lineage.epoch,
            parent: lineage.parent.map(|parent| parent.to_string()),
            fingerprint: lineage.fingerprint.as_ref().map(ToString::to_string),
            accepted: entry.standing.is_accepted(),
            standing: standing_words(&entry.standing),
            backups: backups().count(),
            unconfirmed_backups: backups().filter(|backup| backup.unconfirmed.is_some()).count(),
            first_revision: revisions().min(),
            last_revision: revisions().max(),
        }
    });
    Listed { cluster: catalog.cluster.to_string(), lineages: lines.collect() }
}

#[derive(Serialize)]
struct Accepted {
    cluster: String,
    lineage: String,
    fingerprint: Option<String>,
    /// None where it was accepted already.
    mark: Option<String>,
    signed: bool,
    standing: String,
    backups: usize,
}

impl Report for Accepted {
    const SCHEMA: &'static str = "lifeboat.lineage-accept/1";

    fn table(&self) -> String {
        match &self.mark {
            None => format!("lineage {} of '{}' is accepted already ({}); nothing was done\n", self.lineage, self.cluster, self.standing),
            Some(_) => {
                let signed = if self.signed { "signed" } else { "unsigned" };
                let backups = self.backups;
                format!(
                    "lineage {} of '{}' is accepted ({signed}); {backups} backup(s) of it count from now on\n",
                    self.lineage, self.cluster
                )
            }
        }
    }
}

fn accept(global: &GlobalArgs, args: &AcceptArgs) -> Outcome<Code> {
    let resolved = Resolved::new(global, args.repository.cluster.as_deref(), true)?;
    let (places, _) = resolved.places(&args.repository)?;
    let options = places[0].options.clone();
    let mut missing = Vec::new();
    let signing = resolved.signing_key(args.signing_key.as_ref()).as_deref().map(place::signing_key).transpose()?;
    let loaded = signals::run(engine::select::load(&options, resolved.cluster.as_ref()))?;
    let catalog = &loaded.catalog;
    let name = engine::lineage::find(catalog, &args.name, &options)?;
    let acceptance = engine::lineage::plan(catalog, name, args.fingerprint.as_deref())?;
    let mut report = Accepted {
        cluster: catalog.cluster.to_string(),
        lineage: name.to_string(),
        fingerprint: acceptance.fingerprint.as_ref().map(ToString::to_string),
        mark: None,
        signed: false,
        standing: catalog.lineages.get(&name).map(|entry| standing_words(&entry.standing)).unwrap_or_default(),
        backups: acceptance.backups,
    };
    if !acceptance.is_accepted {
        engine::lineage::check_signer(loaded.repository.signers(), signing.as_ref())?;
        consent::by_name(&args.consent, Some(catalog.cluster.as_str()), &question(catalog, &acceptance))?;
        let written = engine::lineage::accept(&loaded.repository, &options, catalog, &acceptance, signing.as_ref());
        let (mark, standing) = signals::run(written)?;
        // Each store is read and pruned by its own marks.
        for place in &places[1..] {
            let brought = signals::run(engine::label::bring(&loaded.repository, &catalog.cluster, mark.id, &place.options));
            if let Err(failure) = brought {
                missing.push(format!("store {} does not have it: {}", place.described(), engine::stores::reason(&failure)));
            }
        }
        report.mark = Some(mark.id.to_string());
        report.signed = signing.is_some();
        report.standing = standing_words(&standing);
    }
    output::report(global.format(), &report)?;
    missing.iter().for_each(|word| output::say(&format!("warning: {word}; lifeboat copy brings it there")));
    Ok(if missing.is_empty() { Code::Ok } else { Code::Warnings })
}

/// What is about to be taken for this cluster's, in words.
fn question(catalog: &Catalog, acceptance: &Acceptance) -> String {
    let uid = acceptance.fingerprint.as_ref().map_or_else(|| "no kube-system UID".to_owned(), |uid| format!("the kube-system UID {uid}"));
    let reach = acceptance.revision.map(|revision| format!(" up to revision {revision}")).unwrap_or_default();
    format!(
        "Lineage {} is taken for the history of '{}': {} unconfirmed backup(s){reach} with {uid}. They can then be 'latest', and older histories expire.",
        acceptance.lineage, catalog.cluster, acceptance.backups
    )
}
