//! `lifeboat list`.

use engine::{Code, Outcome};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use vault::manifest::Source;
use vault::repository::Catalog;
use vault::repository::catalog::Backup;

use crate::args::{GlobalArgs, RepositoryArgs};
use crate::output::{self, Format, size};
use crate::resolve::Resolved;
use crate::signals;

/// Arguments of `lifeboat list`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    repository: RepositoryArgs,
}

/// Runs `lifeboat list`.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Outcome<Code> {
    let resolved = Resolved::new(global, args.repository.cluster.as_deref(), false)?;
    let place = resolved.place_to_read(global, &args.repository)?;
    let catalogs = signals::run(async {
        let repository = engine::place::open(&place).await?;
        let names = match &resolved.cluster {
            Some(name) if resolved.is_configured() => vec![name.clone()],
            Some(name) => return Ok(vec![engine::place::known_catalog(&repository, &place, name).await?]),
            None => {
                repository.clusters().await.map_err(|error| engine::place::failure(&place, "the repository cannot be listed", &error))?
            }
        };
        let mut catalogs = Vec::new();
        for name in names {
            catalogs.push(engine::place::catalog(&repository, &place, &name).await?);
        }
        Ok(catalogs)
    })?;
    let now = Timestamp::now();
    match global.format() {
        Format::Table => output::print(&table(&catalogs, now)),
        Format::Simple => output::print(&simple(&catalogs)),
        format => output::value(format, "lifeboat.list/1", json!({"clusters": catalogs.iter().map(json_of).collect::<Vec<_>>()}))?,
    }
    for catalog in &catalogs {
        for problem in &catalog.problems {
            output::say(&format!("warning: {problem}"));
        }
    }
    Ok(Code::Ok)
}

/// Newest first: by the second of their ids, then revision; of one second and one revision as `latest` is chosen.
fn newest_first(catalog: &Catalog) -> Vec<&Backup> {
    let mut backups: Vec<&Backup> = catalog.backups.iter().collect();
    backups.sort_by_key(|backup| std::cmp::Reverse((backup.id().start(), backup.manifest.revision, backup.age_order())));
    backups
}

fn table(catalogs: &[Catalog], now: Timestamp) -> String {
    const HEADER: [&str; 10] = ["ID", "AGE", "LINEAGE", "REVISION", "SIZE", "STORED", "SEALED", "SIGNED", "HASHKV", "PROVEN"];
    let mut text = String::new();
    for catalog in catalogs {
        if catalogs.len() > 1 {
            text.push_str(&format!("cluster {}\n", catalog.cluster));
        }
        if catalog.backups.is_empty() {
            text.push_str(&format!("no backup of '{}' yet\n", catalog.cluster));
            continue;
        }
        let mut rows: Vec<Vec<String>> = newest_first(catalog).into_iter().map(|backup| row(backup, now)).collect();
        let mut header = HEADER.to_vec();
        let labels: Vec<String> = newest_first(catalog).into_iter().map(labels).collect();
        // Most repositories have none, and the table is wide already.
        if labels.iter().any(|labels| !labels.is_empty()) {
            header.push("LABELS");
            rows.iter_mut().zip(labels).for_each(|(row, labels)| row.push(labels));
        }
        text.push_str(&output::columns(&header, &[1, 3, 4, 5], &rows));
    }
    if catalogs.is_empty() {
        text.push_str("no backup yet\n");
    }
    text
}

fn row(backup: &Backup, now: Timestamp) -> Vec<String> {
    let manifest = &backup.manifest;
    let mut lineage = manifest.lineage.seq().to_string();
    if backup.unconfirmed.is_some() {
        lineage.push_str(" UNCONFIRMED");
    }
    if manifest.source == Source::Rescue {
        lineage.push_str(" rescue");
    }
    let signed = match &backup.signature {
        vault::sign::Status::Trusted(key) => format!("{key} trusted"),
        vault::sign::Status::Untrusted(key) => key.to_string(),
        vault::sign::Status::Unsigned => "no".to_owned(),
        vault::sign::Status::Invalid(_) => "BAD".to_owned(),
    };
    vec![
        manifest.id.to_string(),
        age(now.duration_since(manifest.moment())),
        lineage,
        manifest.revision.to_string(),
        size(manifest.snapshot.db_size),
        size(stored_size(backup)),
        if manifest.layers.age { "yes".to_owned() } else { "NO".to_owned() },
        signed,
        engine::backup::verdict_word(manifest.hashkv.verdict).to_owned(),
        proven(backup, now),
    ]
}

/// What was said of it: pinned, and its tags.
fn labels(backup: &Backup) -> String {
    let pinned = (!backup.pins.is_empty()).then(|| "pinned".to_owned());
    let words: Vec<String> = pinned.into_iter().chain(backup.tags.iter().map(|tag| format!("#{tag}"))).collect();
    words.join(" ")
}

/// The highest rung and its age; a failure beats every rung.
pub(crate) fn proven(backup: &Backup, now: Timestamp) -> String {
    if backup.incomplete {
        return "INCOMPLETE".to_owned();
    }
    let word = backup.proof.word().to_owned();
    match backup.proof.age(now) {
        Some(old) => format!("{word} {} ago", age(old)),
        None => word,
    }
}

/// Bytes of the stored snapshot object.
pub(crate) fn stored_size(backup: &Backup) -> u64 {
    backup.manifest.data().map_or(0, |object| object.size)
}

/// An age in its largest unit: `3d`, `14h`, `5m`, `20s`.
pub(crate) fn age(old: SignedDuration) -> String {
    let seconds = old.as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn simple(catalogs: &[Catalog]) -> String {
    let mut text = String::new();
    for catalog in catalogs {
        for backup in newest_first(catalog) {
            let manifest = &backup.manifest;
            text.push_str(&format!(
                "{}, {}, {}, {}, {}\n",
                catalog.cluster,
                manifest.id,
                manifest.revision,
                manifest.snapshot.db_size,
                backup.proof.word()
            ));
        }
    }
    text
}

fn json_of(catalog: &Catalog) -> Value {
    json!({
        "cluster": catalog.cluster,
        "backups": newest_first(catalog).into_iter().map(backup_json).collect::<Vec<_>>(),
        "problems": catalog.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "uncommitted": catalog.uncommitted.iter().map(|attempt| json!({"id": attempt.id, "objects": attempt.objects, "bytes": attempt.bytes})).collect::<Vec<_>>(),
    })
}

/// One backup as JSON, for `list` and `show`.
pub(crate) fn backup_json(backup: &Backup) -> Value {
    let manifest = &backup.manifest;
    json!({
        "id": manifest.id,
        "lineage": manifest.lineage,
        "source": manifest.source,
        "clean": manifest.clean,
        "taken": manifest.moment(),
        "revision": manifest.revision,
        "size": manifest.snapshot.db_size,
        "stored_size": stored_size(backup),
        "sealed": manifest.layers.age,
        "signature": backup.signature.to_string(),
        "counts": backup.counts,
        "unconfirmed": backup.unconfirmed.as_ref().map(ToString::to_string),
        "hashkv": manifest.hashkv.verdict,
        "proven": {"rung": backup.proof.rung, "at": backup.proof.at, "failed": backup.proof.failed.is_some()},
        "incomplete": backup.incomplete,
        "keys": manifest.counts.live_keys,
        "rows": manifest.counts.rows,
        "tags": backup.tags,
        "pinned": !backup.pins.is_empty(),
        "manifest_sha256": backup.sha256,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_in_their_largest_unit() {
        for (seconds, text) in [(-5, "0s"), (59, "59s"), (300, "5m"), (7_200, "2h"), (200_000, "2d")] {
            assert_eq!(age(SignedDuration::from_secs(seconds)), text);
        }
    }
}
