//! `cargo xtask tidy`: rules about the sources that no compiler checks.
//!
//! - a Rust file has at most [`MAX_LINES`] lines: past that it holds two ideas;
//! - no unfinished work, no host name of a package registry, no path of one developer's machine in any committed text file;
//! - every relative link in the documentation leads to a file that exists.

use std::path::{Component, Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{process, workspace};

/// Longest Rust file, tests included.
const MAX_LINES: usize = 700;

/// Words that must not appear. They are put together here so that this file passes its own check.
fn forbidden() -> Vec<(String, &'static str)> {
    let mut words: Vec<(String, &'static str)> = Vec::new();
    for [parent, child] in [["work", "main"], ["work", "shared"], ["tmp", "brief"]] {
        words.push((format!("/{parent}/{child}"), "a path of one machine"));
    }
    for [first, second] in [["FIX", "ME"], ["XX", "X:"], ["todo", "!("], ["unimplemented", "!("]] {
        words.push((format!("{first}{second}"), "unfinished work"));
    }
    words
}

/// The `tidy` subcommand.
pub(crate) fn command() -> Result<ExitCode> {
    let findings = findings()?;
    for finding in &findings {
        println!("{finding}");
    }
    println!("{} findings", findings.len());
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every broken rule as `file:line: what`.
pub(crate) fn findings() -> Result<Vec<String>> {
    let words = forbidden();
    let mut findings = Vec::new();
    for file in committed_files()? {
        let path = workspace::root().join(&file);
        // Listed but deleted in the work tree, or not text: nothing to read.
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let extension = file.extension().and_then(|ext| ext.to_str()).unwrap_or_default();
        if extension == "rs" {
            let lines = text.lines().count();
            if lines > MAX_LINES {
                findings.push(format!("{}: {lines} lines, more than {MAX_LINES}: split it at its seam", file.display()));
            }
        }
        find_words(&file, &text, &words, &mut findings);
        if extension == "md" {
            find_dead_links(&file, &text, &mut findings);
        }
    }
    Ok(findings)
}

/// What git knows, and new files it does not ignore; without git, everything outside `target`.
fn committed_files() -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(workspace::root());
    if let Ok(list) = process::output(&mut git) {
        return Ok(list.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect());
    }
    let mut files = Vec::new();
    walk(workspace::root(), &mut files)?;
    Ok(files.iter().filter_map(|file| file.strip_prefix(workspace::root()).ok().map(Path::to_owned)).collect())
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", dir.display()))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !path.is_symlink() {
            if name != "target" && name != ".git" {
                walk(&path, files)?;
            }
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn find_words(file: &Path, text: &str, words: &[(String, &'static str)], findings: &mut Vec<String>) {
    // Lock files and checksums are written by tools and may name anything.
    if matches!(file.extension().and_then(|ext| ext.to_str()), Some("lock" | "sum")) {
        return;
    }
    for (number, line) in text.lines().enumerate() {
        for (word, why) in words {
            if line.contains(word.as_str()) {
                findings.push(format!("{}:{}: {word}: {why}", file.display(), number + 1));
            }
        }
        for host in line.split(|c: char| !c.is_ascii_alphanumeric() && !"-.".contains(c)).filter(|word| is_registry(word)) {
            findings.push(format!("{}:{}: {host}: a registry's host: use its ordinary client", file.display(), number + 1));
        }
    }
}

/// Whether a word has the shape of a package registry's host: the registries are told by their servers' names, for theirs are not to stand here either.
fn is_registry(word: &str) -> bool {
    let labels: Vec<&str> = word.trim_matches('.').split('.').collect();
    let [server, _, top] = labels[..] else { return false };
    matches!(server, "static" | "index" | "proxy" | "sum" | "files") && matches!(top, "io" | "org")
}

fn find_dead_links(file: &Path, text: &str, findings: &mut Vec<String>) {
    let base = workspace::root().join(file.parent().unwrap_or(Path::new("")));
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for target in links(line) {
            let path = target.split(['#', '?']).next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            let inside = lexical(&base.join(path)).starts_with(workspace::root());
            if !inside || !base.join(path).exists() {
                findings.push(format!("{}:{}: dead link {target}", file.display(), number + 1));
            }
        }
    }
}

/// The targets of inline links `[text](target)` and references `[name]: target` outside of code spans.
fn links(line: &str) -> Vec<&str> {
    if let Some((name, target)) = line.split_once("]: ")
        && name.starts_with('[')
    {
        return target.split_whitespace().next().into_iter().collect();
    }
    let prose: Vec<&str> = line.split('`').step_by(2).collect();
    let mut found = Vec::new();
    for piece in prose {
        let mut rest = piece;
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, tail)) = after.split_once(')') else { break };
            found.extend(target.split_whitespace().next());
            rest = tail;
        }
    }
    found
}

/// `path` without `.` and `..`, by its text alone.
fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_host_is_told_by_its_shape() {
        for (server, top) in [("proxy", "org"), ("static", "io"), ("files", "org.")] {
            assert!(is_registry(&format!("{server}.example.{top}")), "{server}");
        }
        assert!(["example.org", "docs.example.org", "files.list.len", "a.proxy.example.org"].iter().all(|word| !is_registry(word)));
    }

    #[test]
    fn links_are_found_in_prose_and_not_in_code() {
        assert_eq!(links("see [a](b.md), [c](d/e.md#f) and `[x](y.md)`"), ["b.md", "d/e.md#f"]);
        assert_eq!(links("[ref]: docs/format.md \"title\""), ["docs/format.md"]);
        assert!(links("no link ](").is_empty());
    }

    #[test]
    fn dead_links_and_links_out_of_the_checkout_are_reported() {
        let mut findings = Vec::new();
        let text = "[ok](Cargo.toml)\n[gone](nowhere.md)\n[out](../../etc/passwd)\n```\n[code](nowhere.md)\n```\n";
        find_dead_links(Path::new("x.md"), text, &mut findings);
        assert_eq!(findings, ["x.md:2: dead link nowhere.md", "x.md:3: dead link ../../etc/passwd"]);
    }

    #[test]
    fn every_forbidden_word_is_found_with_its_line() {
        for (word, _) in forbidden() {
            let mut findings = Vec::new();
            find_words(Path::new("a.rs"), &format!("fine\nxx {word} yy"), &forbidden(), &mut findings);
            assert_eq!(findings.len(), 1, "{word}: {findings:?}");
            assert!(findings[0].starts_with("a.rs:2: "), "{findings:?}");
        }
    }
}
