//! `lifeboat show`: one backup in full.

use engine::backup::verdict_word;
use engine::place::Which;
use engine::{Code, Outcome};
use jiff::Timestamp;
use serde_json::{Value, json};
use vault::manifest::{HashKvValue, Manifest, plain_text};
use vault::mark::{Outcome as Ending, Statement};
use vault::repository::catalog::{Backup, MarkEntry};
use vault::repository::{Catalog, Problem};
use vault::restore_txt::pipeline;
use vault::retention::{self, View};

use super::list::{age, backup_json, proven};
use super::verify::ending;
use crate::args::{GlobalArgs, RepositoryArgs};
use crate::output::{self, Format, size};
use crate::resolve::Resolved;
use crate::{passphrase, signals};

/// Arguments of `lifeboat show`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Which backup: id, unique prefix, last six characters, latest, latest~N, @REVISION
    #[arg(value_name = "WHICH", default_value = "latest")]
    which: String,
    #[command(flatten)]
    repository: RepositoryArgs,
    /// The newest backup not later than this: RFC 3339, local time, or '2 hours ago'
    #[arg(long, value_name = "WHEN", conflicts_with = "which")]
    at: Option<String>,
}

/// One backup, and what is known of it beside its manifest.
struct Shown<'a> {
    url: &'a str,
    repository: String,
    catalog: &'a Catalog,
    backup: &'a Backup,
    /// Why it stays or goes, where a configuration has a policy.
    kept: Option<String>,
    now: Timestamp,
}

/// Runs `lifeboat show`.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Outcome<Code> {
    let resolved = Resolved::new(global, args.repository.cluster.as_deref(), false)?;
    let place = resolved.place_to_read(global, &args.repository)?;
    let which = Which::parse(&args.which, args.at.as_deref())?;
    let loaded = signals::run(engine::select::load(&place, resolved.cluster.as_ref()))?;
    let found = engine::select::find(&loaded.catalog, &which, &place).map_err(|failure| match &which {
        Which::Named(text) => engine::verify::lost(&loaded.catalog, text, &place).unwrap_or(failure),
        Which::At(_) => failure,
    })?;
    let now = Timestamp::now();
    let shown = Shown {
        url: &place.url,
        repository: loaded.repository.id().to_string(),
        catalog: &loaded.catalog,
        backup: found.backup,
        kept: kept(&resolved, &loaded.catalog, found.backup, now)?,
        now,
    };
    match global.format() {
        Format::Table => output::print(&shown.table()),
        Format::Simple => output::print(&shown.simple()),
        format => output::value(format, "lifeboat.show/1", shown.json())?,
    }
    if let Some(words) = engine::select::reach_words(&found) {
        output::say(&format!("note: {words}"));
    }
    Ok(Code::Ok)
}

/// What the configured policy says of a backup.
fn kept(resolved: &Resolved, catalog: &Catalog, backup: &Backup, now: Timestamp) -> Outcome<Option<String>> {
    let Some((section, config)) = resolved.section.as_ref().zip(resolved.config.as_ref()) else { return Ok(None) };
    let policy = engine::prune::policy(&config.policy(section).keep)?;
    let decisions = retention::decide(&View::of(catalog), &policy, now).ok();
    let verdict = decisions
        .and_then(|decisions| decisions.of.into_iter().find(|decision| decision.id == backup.id()))
        .map(|decision| decision.verdict);
    Ok(verdict.map(|verdict| if verdict.is_kept() { format!("yes: {verdict}") } else { format!("NO: {verdict}") }))
}

impl Shown<'_> {
    fn manifest(&self) -> &Manifest {
        &self.backup.manifest
    }

    fn restore_command(&self) -> String {
        let manifest = self.manifest();
        let identity = passphrase::flag(manifest);
        format!(
            "lifeboat restore {} --repo {} --cluster {}{identity} {}",
            manifest.id.suffix(),
            self.url,
            manifest.cluster,
            output::restore_target(manifest).join(" ")
        )
    }

    fn problems(&self) -> Vec<&Problem> {
        let directory = vault::key::snapshot_prefix(&self.manifest().cluster, &self.backup.id());
        self.catalog.problems.iter().filter(|problem| problem.key.starts_with(&directory)).collect()
    }

    fn history(&self) -> Vec<&MarkEntry> {
        self.catalog.marks.iter().filter(|entry| entry.mark.statement.backup() == Some(&self.backup.id())).collect()
    }

    fn simple(&self) -> String {
        let manifest = self.manifest();
        let proof = self.backup.proof.word();
        format!("{}, {}, {}, {}, {proof}\n", manifest.cluster, manifest.id, manifest.revision, manifest.snapshot.db_size)
    }

    fn table(&self) -> String {
        let manifest = self.manifest();
        let mut text = format!("backup {} of '{}'\n", manifest.id, manifest.cluster);
        for (name, value) in self.lines() {
            text.push_str(&format!("  {name:<12} {value}\n"));
        }
        self.problems().iter().for_each(|problem| text.push_str(&format!("  WRONG        {problem}\n")));
        manifest.warnings.iter().for_each(|warning| text.push_str(&format!("  warning      {warning}\n")));
        text.push_str("objects\n");
        text.push_str(&self.objects());
        let history = self.history();
        if !history.is_empty() {
            text.push_str("history\n");
            history.into_iter().for_each(|entry| text.push_str(&format!("  {}\n", told(entry))));
        }
        text.push_str(&format!("restore        {}\n", self.restore_command()));
        text.push_str(&format!("by other tools {}\n", pipeline(manifest.layers)));
        text
    }

    fn lines(&self) -> Vec<(&'static str, String)> {
        let (manifest, backup) = (self.manifest(), self.backup);
        let ago = age(self.now.duration_since(manifest.moment()));
        let latest = backup.not_latest().map_or_else(|| "can be".to_owned(), |why| format!("never: {why}"));
        let mut lines = vec![
            ("repository", format!("{} ({})", self.url, self.repository)),
            ("taken", format!("{}, {ago} ago, {}", manifest.moment(), source(manifest))),
            ("lineage", self.lineage()),
            ("revision", revision(manifest)),
            ("holds", format!("{} rows, {} keys, {} leases", manifest.counts.rows, manifest.counts.live_keys, manifest.counts.leases)),
            ("database", database(manifest)),
            ("snapshot.db", format!("{} bytes, SHA-256 {}", manifest.snapshot.file_size, manifest.snapshot.file_sha256)),
            ("sealed", sealed(manifest)),
            ("signature", self.signature()),
            ("hashkv", hash_kv(manifest)),
            ("proven", self.proof()),
            ("latest", latest),
            ("cluster", cluster(manifest)),
        ];
        let words = |words: Vec<String>| if words.is_empty() { "none".to_owned() } else { words.join(", ") };
        lines.push(("tags", words(backup.tags.iter().map(ToString::to_string).collect())));
        lines.push(("pins", words(backup.pins.iter().map(ToString::to_string).collect())));
        lines.extend(self.kept.iter().map(|kept| ("kept", kept.clone())));
        lines.push(("parents", words(manifest.parents.iter().map(|parent| parent.id.to_string()).collect())));
        let took = manifest.times.committed.duration_since(manifest.times.started).as_secs_f64();
        lines.push(("written", format!("{} by Lifeboat {}, after {took:.1} s", manifest.times.committed, manifest.tool.version)));
        lines
    }

    fn lineage(&self) -> String {
        let name = self.manifest().lineage;
        let standing = self.catalog.lineages.get(&name).map(|entry| engine::lineage::standing_words(&entry.standing));
        let standing = standing.unwrap_or_else(|| "its object is missing".to_owned());
        match &self.backup.unconfirmed {
            Some(doubt) => format!("{name}, UNCONFIRMED: {doubt}"),
            None => format!("{name}, {standing}"),
        }
    }

    fn signature(&self) -> String {
        let status = &self.backup.signature;
        let words = match status {
            vault::sign::Status::Trusted(_) => format!("{status}, which is trusted"),
            vault::sign::Status::Invalid(_) => format!("BAD: {status}"),
            vault::sign::Status::Unsigned => "NOT SIGNED".to_owned(),
            vault::sign::Status::Untrusted(key) => format!("by {key}, NOT CHECKED: no trusted signer has this key"),
        };
        if self.backup.counts { words } else { format!("{words}; the backup does not count") }
    }

    fn proof(&self) -> String {
        let word = proven(self.backup, self.now);
        match &self.backup.proof.failed {
            Some(failure) => {
                let detail = failure.detail.as_deref().map(plain_text).unwrap_or_else(|| "damaged".to_owned());
                format!("{word}; FAILED at {} on {}: {detail}", failure.rung.as_str(), failure.at)
            }
            None => word,
        }
    }

    fn objects(&self) -> String {
        let rows: Vec<Vec<String>> = self
            .manifest()
            .objects
            .iter()
            .map(|object| vec![format!("  {}", object.name), object.size.to_string(), object.sha256.to_string()])
            .collect();
        output::columns(&["  NAME", "BYTES", "SHA-256"], &[1], &rows)
    }

    fn json(&self) -> Value {
        let backup = self.backup;
        let mut judgement = backup_json(backup);
        if let Some(map) = judgement.as_object_mut() {
            let failed = backup.proof.failed.as_ref();
            let lineage = self.catalog.lineages.get(&backup.manifest.lineage);
            map.insert("latest".to_owned(), json!(backup.not_latest().is_none()));
            map.insert("not_latest".to_owned(), json!(backup.not_latest().map(|why| why.to_string())));
            map.insert("lineage_standing".to_owned(), json!(lineage.map(|entry| engine::lineage::standing_words(&entry.standing))));
            map.insert("pins".to_owned(), json!(backup.pins));
            map.insert(
                "failure".to_owned(),
                json!(failed.map(|failure| json!({"rung": failure.rung, "at": failure.at, "detail": failure.detail}))),
            );
            map.insert(
                "problems".to_owned(),
                json!(
                    self.problems()
                        .iter()
                        .map(|problem| json!({"object": problem.key, "what": problem.kind.to_string()}))
                        .collect::<Vec<_>>()
                ),
            );
        }
        json!({
            "repository": self.url,
            "repository_id": self.repository,
            "cluster": backup.manifest.cluster,
            "id": backup.id(),
            "manifest": backup.manifest,
            "judgement": judgement,
            "history": self.history().into_iter().map(mark_json).collect::<Vec<_>>(),
            "restore": self.restore_command(),
            "pipeline": pipeline(backup.manifest.layers),
        })
    }
}

fn source(manifest: &Manifest) -> String {
    let word = serde_json::to_value(manifest.source).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default();
    let stopped = match manifest.clean {
        Some(true) => " (etcd was stopped in order)",
        Some(false) => " (etcd was not stopped in order: what it wrote last may be missing)",
        None => "",
    };
    let member = manifest.member.as_ref().map(|member| format!(" from member {} ({})", member.name, member.id)).unwrap_or_default();
    let versions: Vec<String> = [
        ("etcd", &manifest.versions.etcd),
        ("cluster", &manifest.versions.cluster),
        ("storage", &manifest.versions.storage),
        ("Talos", &manifest.versions.talos),
        ("Kubernetes", &manifest.versions.kubernetes),
    ]
    .into_iter()
    .filter_map(|(name, version)| version.as_ref().map(|version| format!("{name} {version}")))
    .collect();
    let versions = if versions.is_empty() { String::new() } else { format!("; {}", versions.join(", ")) };
    format!("{word}{stopped}{member}{versions}")
}

fn revision(manifest: &Manifest) -> String {
    let floor = manifest.floor();
    let floor = if floor > 0 { format!(", readable from {floor} on") } else { String::new() };
    let row = manifest.last_row.as_ref().map(|row| format!(", last row {}/{}", row.main, row.sub)).unwrap_or_default();
    let older = if manifest.older { ", OLDER than its lineage" } else { "" };
    let check = match manifest.lineage_check {
        vault::manifest::LineageCheck::Compared => "compared with its history",
        vault::manifest::LineageCheck::Uncompared => "not compared with its history",
    };
    format!(
        "{}{floor}{row}, epoch {}, raft term {} index {}; {check}{older}",
        manifest.revision, manifest.epoch, manifest.raft.term, manifest.raft.index
    )
}

fn database(manifest: &Manifest) -> String {
    let snapshot = &manifest.snapshot;
    let in_use = snapshot.in_use.map(|bytes| format!(" ({} in use)", size(bytes))).unwrap_or_default();
    let encrypted = match manifest.encryption_at_rest {
        Some(true) => "; values of the API server are encrypted at rest",
        _ => "",
    };
    format!("{}{in_use}, SHA-256 {}{encrypted}", size(snapshot.db_size), snapshot.db_sha256)
}

fn sealed(manifest: &Manifest) -> String {
    let sealing = &manifest.sealing;
    let names = |of: &[vault::seal::RecipientFingerprint]| of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let snapshot = match (manifest.layers.age, sealing.passphrase) {
        (false, _) => "NOT ENCRYPTED".to_owned(),
        (true, true) => "with a passphrase".to_owned(),
        (true, false) => format!("to {} recipient(s): {}", sealing.recipients.len(), names(&sealing.recipients)),
    };
    if sealing.extra_recipients.is_empty() { snapshot } else { format!("{snapshot}; extras to {}", names(&sealing.extra_recipients)) }
}

fn hash_kv(manifest: &Manifest) -> String {
    let value = |value: &HashKvValue| {
        let compact = if value.compact_revision >= 0 { format!(", compacted at {}", value.compact_revision) } else { String::new() };
        format!("{:08x} at revision {}{compact}", value.hash, value.revision)
    };
    let mut text = verdict_word(manifest.hashkv.verdict).to_owned();
    if let Some(computed) = &manifest.hashkv.computed {
        text.push_str(&format!("; the file: {}", value(computed)));
    }
    for answer in &manifest.hashkv.answers {
        let named = manifest.cluster_state.members.iter().find(|member| member.id == answer.member).map(|member| member.name.as_str());
        let name = named.filter(|name| !name.is_empty()).map_or_else(|| answer.member.to_string(), str::to_owned);
        let said = answer.answer.as_ref().map_or_else(|| "no answer".to_owned(), value);
        text.push_str(&format!("; {name}: {said}"));
    }
    text
}

fn cluster(manifest: &Manifest) -> String {
    let state = &manifest.cluster_state;
    let id = manifest.cluster_id.map_or_else(|| "unknown id".to_owned(), |id| format!("id {id}"));
    let fingerprint = manifest.fingerprint.as_ref().map(|uid| format!(", kube-system {uid}")).unwrap_or_default();
    let answered = state.members.iter().filter(|member| member.answered).count();
    let names: Vec<String> = state
        .members
        .iter()
        .map(|member| {
            let name = if member.name.is_empty() { member.id.to_string() } else { member.name.clone() };
            let marks = [
                (state.leader == Some(member.id)).then_some("leader"),
                member.learner.then_some("learner"),
                (!member.answered).then_some("silent"),
            ];
            let marks: Vec<&str> = marks.into_iter().flatten().collect();
            if marks.is_empty() { name } else { format!("{name} ({})", marks.join(", ")) }
        })
        .collect();
    let members =
        if names.is_empty() { String::new() } else { format!("; {answered} of {} members answered: {}", names.len(), names.join(", ")) };
    let alarms: Vec<String> = state.alarms.iter().map(|alarm| format!("{} on {}", alarm.alarm, alarm.member)).collect();
    let alarms = if alarms.is_empty() { String::new() } else { format!("; ALARMS: {}", alarms.join(", ")) };
    format!("{id}{fingerprint}{members}{alarms}")
}

/// One mark in words. Its texts come from whoever wrote it.
fn told(entry: &MarkEntry) -> String {
    let tail = |detail: &Option<String>| detail.as_deref().map(|detail| format!(": {}", plain_text(detail))).unwrap_or_default();
    let loud = |result: Ending| if result == Ending::Failed { "FAILED" } else { ending(result) };
    let words = match &entry.mark.statement {
        Statement::Verify(_, data) => format!("verified: {} {}{}", data.rung.as_str(), loud(data.result), tail(&data.detail)),
        Statement::Drill(_, data) => format!("drill: {}{}", loud(data.result), tail(&data.detail)),
        Statement::Restore(_, data) => format!("restored, revisions from {} on", data.target_revision),
        Statement::Pin(_, data) => format!("pinned{}", tail(&data.reason)),
        Statement::Unpin(_, data) => format!("{} pin(s) cancelled", data.pins.len()),
        Statement::Tag(_, data) => format!("tagged {}", data.tags.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        Statement::Untag(_, data) => format!("untagged {}", data.tags.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        Statement::Tombstone(_, data) => format!("due for removal since {}{}", data.due, tail(&data.reason)),
        other => plain_text(other.kind()),
    };
    let counts = if entry.counts { "" } else { ", which does not count" };
    format!("{}  {words} ({}{counts})", entry.mark.id.time(), entry.signature)
}

fn mark_json(entry: &MarkEntry) -> Value {
    json!({
        "mark": entry.mark.id,
        "at": entry.mark.id.time(),
        "kind": entry.mark.statement.kind(),
        "words": told(entry),
        "signature": entry.signature.to_string(),
        "counts": entry.counts,
    })
}
