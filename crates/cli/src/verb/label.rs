//! `lifeboat pin`, `unpin` and `tag`: what is said of a backup afterwards.

use std::path::PathBuf;

use engine::label::{self, Scribe, Wish};
use engine::place::{self, Which};
use engine::{Code, Failure, Outcome, select};
use jiff::Timestamp;
use serde::Serialize;
use vault::name::Tag;

use crate::args::{GlobalArgs, RepositoryArgs};
use crate::output::{self, Report};
use crate::resolve::Resolved;
use crate::signals;

/// Which backup, and who says it.
#[derive(clap::Args, Debug)]
struct Target {
    /// Which backup: id, unique prefix, last six characters, latest, latest~N, @REVISION
    #[arg(value_name = "WHICH")]
    which: String,
    #[command(flatten)]
    repository: RepositoryArgs,
    /// minisign secret key that signs the mark
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_SIGNING_KEY", help_heading = "Keys")]
    signing_key: Option<PathBuf>,
}

/// Arguments of `lifeboat pin`.
#[derive(clap::Args, Debug)]
pub(crate) struct PinArgs {
    #[command(flatten)]
    target: Target,
    /// Why, for people
    #[arg(long, value_name = "TEXT", env = "LIFEBOAT_REASON")]
    reason: Option<String>,
}

/// Arguments of `lifeboat unpin`.
#[derive(clap::Args, Debug)]
pub(crate) struct UnpinArgs {
    #[command(flatten)]
    target: Target,
}

/// Arguments of `lifeboat tag`.
#[derive(clap::Args, Debug)]
pub(crate) struct TagArgs {
    #[command(flatten)]
    target: Target,
    /// The tags
    #[arg(value_name = "TAG", required = true)]
    tags: Vec<String>,
    /// Take these tags off
    #[arg(long)]
    remove: bool,
}

#[derive(Serialize)]
struct Labelled {
    id: String,
    cluster: String,
    /// None where it was so already.
    mark: Option<String>,
    signed: bool,
    pinned: bool,
    tags: Vec<String>,
}

impl Report for Labelled {
    const SCHEMA: &'static str = "lifeboat.label/1";

    fn table(&self) -> String {
        let pinned = if self.pinned { "pinned" } else { "not pinned" };
        let tags = if self.tags.is_empty() { "no tags".to_owned() } else { format!("tags {}", self.tags.join(", ")) };
        let already = if self.mark.is_none() { " (it was so already)" } else { "" };
        format!("backup {} of '{}': {pinned}, {tags}{already}\n", self.id, self.cluster)
    }
}

/// Runs `lifeboat pin`.
pub(crate) fn pin(global: &GlobalArgs, args: PinArgs) -> Outcome<Code> {
    run(global, args.target, &Wish::Pin(args.reason), "a pin")
}

/// Runs `lifeboat unpin`.
pub(crate) fn unpin(global: &GlobalArgs, args: UnpinArgs) -> Outcome<Code> {
    run(global, args.target, &Wish::Unpin, "taking a pin off")
}

/// Runs `lifeboat tag`.
pub(crate) fn tag(global: &GlobalArgs, args: TagArgs) -> Outcome<Code> {
    let tags: Result<Vec<Tag>, _> = args.tags.iter().map(|tag| tag.parse()).collect();
    let tags = tags.map_err(|error| Failure::usage(format!("a tag is not sound: {error}")).again())?;
    let wish = if args.remove { Wish::Untag(tags) } else { Wish::Tag(tags) };
    run(global, args.target, &wish, "a tag")
}

fn run(global: &GlobalArgs, target: Target, wish: &Wish, what: &str) -> Outcome<Code> {
    let resolved = Resolved::new(global, target.repository.cluster.as_deref(), true)?;
    let (places, _) = resolved.places(&target.repository)?;
    let options = places[0].options.clone();
    let signing = resolved.signing_key(target.signing_key.as_ref()).as_deref().map(place::signing_key).transpose()?;
    let which = Which::Named(target.which);
    let report = signals::run(async {
        let loaded = select::load(&options, resolved.cluster.as_ref()).await?;
        let catalog = &loaded.catalog;
        let id = select::find(catalog, &which, &options)?.backup.id();
        let backup = |catalog: &vault::repository::Catalog| catalog.backup(&id).cloned();
        let gone = || Failure::failed("the backup is gone").object(id).again();
        let before = backup(catalog).ok_or_else(gone)?;
        let mut mark = None;
        let mut missing = Vec::new();
        let mut after = before.clone();
        if let Some(statement) = label::statement(&before, wish) {
            label::check_signer(loaded.repository.signers(), signing.as_ref(), what)?;
            let mut scribe = Scribe::new(&loaded.repository, &catalog.cluster, signing.as_ref(), catalog.newest_mark());
            let written = scribe.write(statement, Timestamp::now()).await;
            let written = written.map_err(|error| place::failure(&options, "the mark cannot be written", &error))?.id;
            // Each store is pruned by its own marks.
            for place in &places[1..] {
                if let Err(failure) = label::bring(&loaded.repository, &catalog.cluster, written, &place.options).await {
                    missing.push(format!("store {} does not have it: {}", place.described(), engine::stores::reason(&failure)));
                }
            }
            mark = Some(written.to_string());
            // Read back: a pruner at work may have been faster.
            after = backup(&place::catalog(&loaded.repository, &options, &catalog.cluster).await?).ok_or_else(gone)?;
        }
        Ok((
            missing,
            Labelled {
                id: id.to_string(),
                cluster: catalog.cluster.to_string(),
                signed: mark.is_some() && signing.is_some(),
                mark,
                pinned: !after.pins.is_empty(),
                tags: after.tags.iter().map(ToString::to_string).collect(),
            },
        ))
    })?;
    let (missing, report) = report;
    output::report(global.format(), &report)?;
    missing.iter().for_each(|word| output::say(&format!("warning: {word}; lifeboat copy brings it there")));
    Ok(if missing.is_empty() { Code::Ok } else { Code::Warnings })
}
