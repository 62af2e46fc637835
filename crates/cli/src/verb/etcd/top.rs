//! `lifeboat etcd top`: who fills the database.

use std::path::PathBuf;
use std::sync::Arc;

use engine::place::Which;
use engine::top::{Lists, OfBackup, Report, ResourceUse, Subject};
use engine::{Code, Failure, Outcome};
use etcd_store::usage::{By, Named, Sums};
use serde_json::{Value, json};

use crate::args::{GlobalArgs, IdentityArgs, RepositoryArgs, SpoolArgs};
use crate::output::{self, Format, size};
use crate::progress::Teller;
use crate::resolve::Resolved;
use crate::{escape, signals};

/// Lines of each list, unless told otherwise.
const LINES: usize = 15;

/// Arguments of `lifeboat etcd top`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "BYTES counts every revision that is in the file; LIVE of these what is current, which a compaction leaves. CHURN is changes per key since the last compaction. Bytes that cannot be printed are shown as \\xNN, and --prefix takes them so."
)]
pub(crate) struct Args {
    /// A snapshot file, the database of a member that does not run, or a backup: id, unique prefix, last six characters, latest, latest~N, @REVISION [default: latest]
    #[arg(value_name = "BACKUP|FILE")]
    what: Option<String>,
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    spool: SpoolArgs,
    /// What comes first
    #[arg(long, value_name = "WHAT", value_enum, default_value = "bytes", env = "LIFEBOAT_BY")]
    by: Order,
    /// Lines of each list
    #[arg(short = 'n', long, value_name = "N", default_value_t = LINES, env = "LIFEBOAT_LINES")]
    lines: usize,
    /// Only keys that begin with this
    #[arg(long, value_name = "PREFIX", env = "LIFEBOAT_PREFIX")]
    prefix: Option<String>,
    /// Parts between slashes that a prefix in the list has [default: 2, or one more than --prefix]
    #[arg(long, value_name = "N", env = "LIFEBOAT_DEPTH")]
    depth: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Order {
    /// Bytes of all revisions in the file
    Bytes,
    /// Revisions in the file
    Revisions,
    /// Changes per key since the last compaction
    Churn,
}

impl Order {
    fn word(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Revisions => "revisions",
            Self::Churn => "churn",
        }
    }
}

/// Runs `lifeboat etcd top`.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Outcome<Code> {
    let by = match args.by {
        Order::Bytes => By::Bytes,
        Order::Revisions => By::Revisions,
        Order::Churn => By::Churn,
    };
    let prefix = escape::read(args.prefix.as_deref().unwrap_or_default()).map_err(|why| {
        Failure::usage("the prefix cannot be read").object(args.prefix.as_deref().unwrap_or_default()).cause(why).again_without("--prefix")
    })?;
    if args.lines == 0 {
        return Err(Failure::usage("a list without lines shows nothing").again_without("--lines"));
    }
    let lists = Lists { by, lines: args.lines, prefix, depth: args.depth };
    let order = args.by;
    let subject = subject(global, args)?;
    let report = signals::run(engine::top::run(subject, lists, Arc::new(Teller::new(global))))?;
    for note in &report.notes {
        output::say(&format!("note: {note}"));
    }
    match global.format() {
        Format::Table => output::print(&table(&report)),
        Format::Simple => output::print(&simple(&report)),
        format => output::value(format, "lifeboat.etcd-top/1", json(&report, order))?,
    }
    Ok(Code::Ok)
}

fn subject(global: &GlobalArgs, args: Args) -> Outcome<Subject> {
    if let Some(what) = &args.what {
        let path = PathBuf::from(what);
        if path.exists() || what.contains('/') || path.extension().is_some_and(|extension| extension == "db") {
            return Ok(Subject::File(path));
        }
    }
    let resolved = Resolved::new(global, args.repository.cluster.as_deref(), true)?;
    let place = resolved.place_to_read(global, &args.repository).map_err(|failure| match &args.what {
        Some(_) => failure,
        None => Failure::usage("nothing is named to look at")
            .cause("name a snapshot file, or a repository with --repo or in lifeboat.yaml; a running member's database is looked at through a snapshot of it")
            .next(["lifeboat", "snapshot", "save", "snapshot.db"]),
    })?;
    Ok(Subject::Backup(Box::new(OfBackup {
        place,
        which: Which::parse(args.what.as_deref().unwrap_or("latest"), None)?,
        opening: resolved.opening(&args.identity)?,
        spool: resolved.spool(&args.spool)?,
        cluster: resolved.cluster,
    })))
}

fn share(bytes: u64, total: u64) -> String {
    format!("{:.1} %", if total == 0 { 0.0 } else { bytes as f64 * 100.0 / total as f64 })
}

fn name(named: &Named) -> String {
    let mut text = escape::shown(&named.name);
    if named.cut {
        text.push('…');
    }
    text
}

fn prefix_name(named: &Named) -> String {
    if named.name.is_empty() { "(keys without a slash)".to_owned() } else { name(named) }
}

fn resource_name(resource: &ResourceUse) -> String {
    resource.resource.clone().unwrap_or_else(|| "(no resource)".to_owned())
}

fn table(report: &Report) -> String {
    let mut text = format!(
        "{}: {} at revision {}, compacted at {}\n\n",
        escape::shown(report.subject.as_bytes()),
        size(report.total),
        report.revision,
        report.compact_revision
    );
    text.push_str(&parts(report));
    if !report.lists.prefix.is_empty() {
        let matched = &report.matched;
        text.push_str(&format!(
            "\n{}: {}, {} of the file, {} revisions of {} keys\n",
            escape::shown(&report.lists.prefix),
            size(matched.bytes),
            share(matched.bytes, report.total),
            matched.rows,
            matched.keys
        ));
    }
    let lists: [(&str, Vec<Row>, usize); 3] = [
        (
            "RESOURCE",
            report.resources.iter().take(report.lists.lines).map(|resource| (resource_name(resource), resource.sums)).collect(),
            report.resources.len(),
        ),
        ("PREFIX", report.prefixes.iter().map(|named| (prefix_name(named), named.sums)).collect(), 0),
        ("KEY", report.keys.iter().map(|named| (name(named), named.sums)).collect(), 0),
    ];
    let has_resources = report.resources.iter().any(|resource| resource.resource.is_some());
    for (what, lines, of) in lists {
        if lines.is_empty() || what == "RESOURCE" && !has_resources {
            continue;
        }
        text.push('\n');
        text.push_str(&list(what, &lines, report.total));
        if of > lines.len() {
            text.push_str(&format!("and {} more\n", of - lines.len()));
        }
    }
    text
}

/// One line of a list: what it is called, and its sums.
type Row = (String, Sums);

fn list(what: &str, lines: &[Row], total: u64) -> String {
    let cells = |(name, sums): &Row| {
        vec![
            size(sums.bytes),
            share(sums.bytes, total),
            size(sums.live_bytes),
            sums.rows.to_string(),
            sums.keys.to_string(),
            format!("{:.1}", sums.churn()),
            name.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = lines.iter().map(cells).collect();
    output::columns(&["BYTES", "SHARE", "LIVE", "REVISIONS", "KEYS", "CHURN", what], &[0, 1, 2, 3, 4, 5], &rows)
}

/// What the file is made of; the sum is its size.
fn parts(report: &Report) -> String {
    let key = |bucket: &&etcd_store::usage::BucketUse| bucket.name == b"key";
    let others: u64 = report.buckets.iter().filter(|bucket| !key(bucket)).map(|bucket| bucket.bytes).sum();
    let all = &report.all;
    let lines = [
        (all.live_bytes, format!("{} live keys", all.live_keys)),
        (all.bytes - all.live_bytes, format!("{} old revisions and deletions, which a compaction may take away", all.rows - all.live_keys)),
        (others, "other buckets: leases, members, auth and the like".to_owned()),
        (report.overhead, "pages in use: headers, branches, what is left empty in them".to_owned()),
        (report.free, "free pages, which a defragmentation gives back".to_owned()),
    ];
    let rows: Vec<Vec<String>> = lines.into_iter().map(|(bytes, words)| vec![size(bytes), share(bytes, report.total), words]).collect();
    output::columns(&["BYTES", "SHARE", "PART"], &[0, 1], &rows)
}

fn simple(report: &Report) -> String {
    let line = |kind: &str, name: String, sums: &Sums| {
        format!("{kind}, {name}, {}, {}, {}, {}, {:.3}\n", sums.bytes, sums.live_bytes, sums.rows, sums.keys, sums.churn())
    };
    let mut text: String = report
        .resources
        .iter()
        .take(report.lists.lines)
        .map(|resource| line("resource", resource_name(resource), &resource.sums))
        .collect();
    text.extend(report.prefixes.iter().map(|named| line("prefix", prefix_name(named), &named.sums)));
    text.extend(report.keys.iter().map(|named| line("key", name(named), &named.sums)));
    text
}

fn sums(sums: &Sums, total: u64) -> Value {
    json!({
        "bytes": sums.bytes,
        "share": if total == 0 { 0.0 } else { sums.bytes as f64 / total as f64 },
        "live_bytes": sums.live_bytes,
        "revisions": sums.rows,
        "deletions": sums.tombstones,
        "keys": sums.keys,
        "live_keys": sums.live_keys,
        "changes": sums.changes,
        "churn": sums.churn(),
    })
}

fn json(report: &Report, order: Order) -> Value {
    let with = |field: &str, name: Value, cut: Option<bool>, of: &Sums| {
        let mut value = sums(of, report.total);
        if let Some(map) = value.as_object_mut() {
            map.insert(field.to_owned(), name);
            map.extend(cut.map(|cut| ("cut".to_owned(), json!(cut))));
        }
        value
    };
    let buckets: Vec<Value> = report
        .buckets
        .iter()
        .map(|bucket| json!({"bucket": escape::shown(&bucket.name), "items": bucket.items, "bytes": bucket.bytes}))
        .collect();
    let named = |field: &str, list: &[Named]| -> Vec<Value> {
        list.iter().map(|named| with(field, escape::shown(&named.name).into(), Some(named.cut), &named.sums)).collect()
    };
    json!({
        "subject": report.subject,
        "revision": report.revision,
        "compact_revision": report.compact_revision,
        "size": report.total,
        "free": report.free,
        "overhead": report.overhead,
        "behind": report.behind,
        "buckets": buckets,
        "all": sums(&report.all, report.total),
        "by": order.word(),
        "prefix": escape::shown(&report.lists.prefix),
        "depth": report.depth,
        "matched": sums(&report.matched, report.total),
        "resources": report.resources.iter().map(|of| with("resource", json!(of.resource), None, &of.sums)).collect::<Vec<_>>(),
        "prefixes": named("prefix", &report.prefixes),
        "keys": named("key", &report.keys),
        "notes": report.notes,
    })
}
