//! `lifeboat verify`.

use std::path::PathBuf;
use std::sync::Arc;

use engine::backup::verdict_word;
use engine::opening::Opening;
use engine::verify::{Checked, Finding, Report, Request};
use engine::{Code, Outcome};
use serde_json::{Value, json};
use vault::manifest::Rung;
use vault::mark::Outcome as Ending;

use crate::args::{GlobalArgs, IdentityArgs, RepositoryArgs, SpoolArgs};
use crate::output::{self, Format, size};
use crate::progress::Teller;
use crate::resolve::Resolved;
use crate::signals;

/// Arguments of `lifeboat verify`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Rungs: stored looks at sizes and signatures; --read hashes every stored byte and needs no key; --deep opens the backup and checks structure, revision, counts and HashKV. 'list' shows the highest one passed under PROVEN. Exit 20 when anything is wrong."
)]
pub(crate) struct Args {
    /// Which backups: id, unique prefix, last six characters, latest, latest~N, @REVISION [default: latest]
    #[arg(value_name = "WHICH")]
    which: Vec<String>,
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    spool: SpoolArgs,
    /// Every backup of the cluster
    #[arg(long, conflicts_with = "which", env = "LIFEBOAT_ALL")]
    all: bool,
    /// Read and hash every stored byte
    #[arg(long, env = "LIFEBOAT_READ")]
    read: bool,
    /// Open the backup and hold everything in it against the manifest (wants an identity or the passphrase)
    #[arg(long, env = "LIFEBOAT_DEEP")]
    deep: bool,
    /// minisign secret key that signs the record of the result
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_SIGNING_KEY", help_heading = "Keys")]
    signing_key: Option<PathBuf>,
}

/// Runs `lifeboat verify`.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Outcome<Code> {
    let resolved = Resolved::new(global, args.repository.cluster.as_deref(), true)?;
    let request = Request {
        place: resolved.place_to_read(global, &args.repository)?,
        cluster: resolved.cluster.clone(),
        which: args.which,
        all: args.all,
        rung: match (args.deep, args.read) {
            (true, _) => Rung::Deep,
            (false, true) => Rung::Read,
            (false, false) => Rung::Stored,
        },
        // Nobody is asked for a passphrase that is not needed.
        opening: if args.deep { resolved.opening(&args.identity)? } else { Opening::default() },
        signing_key: resolved.signing_key(args.signing_key.as_ref()),
        spool: resolved.spool(&args.spool)?,
    };
    let report = signals::run(engine::verify::run(request, Arc::new(Teller::new(global))))?;
    let failure = report.failure();
    let code = failure.as_ref().map_or(Code::Ok, |failure| failure.code);
    match global.format() {
        Format::Table => output::print(&table(&report)),
        Format::Simple => output::print(&simple(&report)),
        format => output::value(format, "lifeboat.verify/1", json(&report, code))?,
    }
    for warning in &report.warnings {
        output::say(&format!("warning: {warning}"));
    }
    failure.map_or(Ok(Code::Ok), Err)
}

/// The word for what a check came to.
pub(crate) fn ending(result: Ending) -> &'static str {
    match result {
        Ending::Passed => "passed",
        Ending::Failed => "failed",
        Ending::Inconclusive => "inconclusive",
    }
}

fn line(checked: &Checked) -> String {
    let read = if checked.bytes > 0 { format!(", {} read", size(checked.bytes)) } else { String::new() };
    let hashkv = match checked.hashkv {
        Some(verdict) if checked.reached >= Rung::Deep => format!(", hashkv {}", verdict_word(verdict)),
        _ => String::new(),
    };
    match checked.result() {
        Ending::Passed => format!("{}  {} passed{read}{hashkv}", checked.id, checked.reached.as_str()),
        Ending::Inconclusive => {
            format!("{}  {} inconclusive, {} passed{read}", checked.id, checked.tried.as_str(), checked.reached.as_str())
        }
        Ending::Failed => {
            let rung = checked.failed_at.map_or("its signature", Rung::as_str);
            format!("{}  FAILED at {rung}{read}", checked.id)
        }
    }
}

fn table(report: &Report) -> String {
    let mut text = String::new();
    for checked in &report.checked {
        text.push_str(&format!("{}\n", line(checked)));
        checked.findings.iter().for_each(|finding| text.push_str(&format!("  wrong: {finding}\n")));
        checked.notes.iter().for_each(|note| text.push_str(&format!("  note:  {note}\n")));
    }
    report.problems.iter().for_each(|finding| text.push_str(&format!("wrong: {finding}\n")));
    if report.checked.len() > 1 {
        let passed = report.checked.iter().filter(|checked| checked.result() == Ending::Passed).count();
        text.push_str(&format!("{passed} of {} backups of '{}' passed\n", report.checked.len(), report.cluster));
    }
    text
}

fn simple(report: &Report) -> String {
    let line = |checked: &Checked| {
        format!("{}, {}, {}, {}\n", checked.id, checked.tried.as_str(), checked.reached.as_str(), ending(checked.result()))
    };
    report.checked.iter().map(line).collect()
}

fn finding(finding: &Finding) -> Value {
    json!({
        "object": finding.object,
        "from": finding.range.as_ref().map(|range| range.start),
        "to": finding.range.as_ref().map(|range| range.end),
        "what": finding.what,
    })
}

fn json(report: &Report, code: Code) -> Value {
    let findings = |of: &[Finding]| of.iter().map(finding).collect::<Vec<_>>();
    let backup = |checked: &Checked| {
        json!({
            "id": checked.id,
            "tried": checked.tried,
            "reached": checked.reached,
            "result": checked.result(),
            "failed_at": checked.failed_at,
            "untrusted": checked.untrusted,
            "locked": checked.locked,
            "hashkv": checked.hashkv,
            "findings": findings(&checked.findings),
            "notes": checked.notes,
            "bytes_read": checked.bytes,
        })
    };
    json!({
        "repository": report.repository,
        "cluster": report.cluster,
        "exit": code as u8,
        "backups": report.checked.iter().map(backup).collect::<Vec<_>>(),
        "problems": findings(&report.problems),
        "warnings": report.warnings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_told_by_its_ends_and_a_whole_object_by_none() {
        let part = Finding { object: "o".to_owned(), range: Some(8..16), what: "changed".to_owned() };
        let value = finding(&part);
        assert_eq!((value["object"].as_str(), value["from"].as_u64(), value["to"].as_u64()), (Some("o"), Some(8), Some(16)));
        let whole = finding(&Finding { range: None, ..part });
        assert!(whole["from"].is_null() && whole["to"].is_null() && whole["what"] == "changed");
    }
}
