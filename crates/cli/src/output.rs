//! What is printed, in which form. Reports go to standard output, everything else to standard error.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use engine::Failure;
use serde::Serialize;

/// The form of a report (`-o`, and `-w` as etcdctl calls it).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// One JSON object; its fields are documented and only ever added to.
    Json,
    /// The same object as YAML.
    Yaml,
    /// One line per thing, comma separated, without a header.
    Simple,
    /// One `"name" : value` per line, as etcdctl prints it.
    Fields,
}

/// Writes to standard output. A reader that went away (`lifeboat list | head -1`) is not an error.
pub(crate) fn print(text: &str) {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if written.is_err_and(|error| error.kind() != io::ErrorKind::BrokenPipe) {
        LOST.store(true, Ordering::Relaxed);
    }
}

/// A report did not reach its reader, and nobody closed a pipe: the disk is full, or standard output was closed.
static LOST: AtomicBool = AtomicBool::new(false);

/// Whether something that was printed is lost.
pub(crate) fn is_lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// Says something that is not the report itself: progress in words, a warning, a hint.
pub(crate) fn say(text: &str) {
    let mut out = io::stderr().lock();
    let _ = writeln!(out, "{}", tame(text));
}

/// What a restore of a backup goes to: a Talos node takes a snapshot file, everything else a data directory.
pub(crate) fn restore_target(manifest: &vault::manifest::Manifest) -> &'static [&'static str] {
    if is_of_talos(manifest) { &["--snapshot-file", "snapshot.db", "--for", "talos"] } else { &["--data-dir", "DIR"] }
}

fn is_of_talos(manifest: &vault::manifest::Manifest) -> bool {
    manifest.source == vault::manifest::Source::Talos || manifest.versions.talos.is_some()
}

/// The step after it, where there is one.
pub(crate) fn after_restore(manifest: &vault::manifest::Manifest) -> Option<&'static str> {
    is_of_talos(manifest).then_some("talosctl -n NODE bootstrap --recover-from=snapshot.db (docs/talos.md)")
}

/// Whether a person sits in front of standard error.
pub(crate) fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Names, versions and errors come from outside: what steers a terminal is not printed.
fn tame(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// A report that can be printed in every form.
pub(crate) trait Report: Serialize {
    /// `lifeboat.<verb>/<version>`.
    const SCHEMA: &'static str;

    /// The form for people.
    fn table(&self) -> String;

    /// One line per thing. The table serves where there is nothing shorter.
    fn simple(&self) -> String {
        self.table()
    }
}

#[derive(Serialize)]
struct WithSchema<'a, R> {
    schema: &'static str,
    #[serde(flatten)]
    report: &'a R,
}

/// Prints a report in the form asked for.
pub(crate) fn report<R: Report>(format: Format, report: &R) -> Result<(), Failure> {
    let text = match format {
        Format::Table => tame(&report.table()),
        Format::Simple => tame(&report.simple()),
        Format::Json | Format::Yaml | Format::Fields => {
            let value = serde_json::to_value(WithSchema { schema: R::SCHEMA, report })
                .map_err(|error| Failure::failed(format!("the report cannot be written as JSON: {error}")))?;
            match format {
                Format::Yaml => yaml(&value),
                Format::Fields => fields(&value),
                _ => format!("{value}\n"),
            }
        }
    };
    print(&text);
    Ok(())
}

/// Prints a JSON value as JSON, YAML or fields, with its schema.
pub(crate) fn value(format: Format, schema: &str, mut value: serde_json::Value) -> Result<(), Failure> {
    if let Some(map) = value.as_object_mut() {
        map.insert("schema".to_owned(), schema.into());
    }
    print(&match format {
        Format::Yaml => yaml(&value),
        Format::Fields => fields(&value),
        _ => format!("{value}\n"),
    });
    Ok(())
}

/// `"name" : value` lines; nested names are joined by dots.
fn fields(value: &serde_json::Value) -> String {
    fn walk(out: &mut String, name: &str, value: &serde_json::Value) {
        use std::fmt::Write as _;
        let inner = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
        match value {
            serde_json::Value::Object(map) => map.iter().for_each(|(key, value)| walk(out, &inner(key), value)),
            serde_json::Value::Array(list) => list.iter().enumerate().for_each(|(at, value)| walk(out, &inner(&at.to_string()), value)),
            plain => {
                let _ = writeln!(out, "\"{name}\" : {plain}");
            }
        }
    }
    let mut out = String::new();
    walk(&mut out, "", value);
    out
}

/// Block-style YAML of a JSON value. Every string is quoted as JSON quotes it, which YAML 1.2 reads as it is.
pub(crate) fn yaml(value: &serde_json::Value) -> String {
    fn is_leaf(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::Object(map) => map.is_empty(),
            serde_json::Value::Array(list) => list.is_empty(),
            _ => true,
        }
    }
    fn walk(out: &mut String, indent: usize, value: &serde_json::Value) {
        use std::fmt::Write as _;
        let pad = "  ".repeat(indent);
        let mut entry = |head: String, value: &serde_json::Value| {
            if is_leaf(value) {
                let _ = writeln!(out, "{pad}{head} {value}");
            } else {
                let _ = writeln!(out, "{pad}{head}");
                walk(out, indent + 1, value);
            }
        };
        match value {
            serde_json::Value::Object(map) => map.iter().for_each(|(key, value)| entry(format!("{key}:"), value)),
            serde_json::Value::Array(list) => list.iter().for_each(|value| entry("-".to_owned(), value)),
            plain => {
                let _ = writeln!(out, "{pad}{plain}");
            }
        }
    }
    let mut out = String::new();
    walk(&mut out, 0, value);
    out
}

/// Says why something was not done, for a person or (with `-o json`) for a program.
pub(crate) fn failure(format: Format, failure: &Failure) {
    if format == Format::Json {
        let error = serde_json::json!({"error": {
            "code": failure.code.word(),
            "exit": failure.code as u8,
            "what": failure.what,
            "object": failure.object,
            "cause": failure.cause,
            "next": failure.next.as_ref().map(ToString::to_string),
        }});
        say(&error.to_string());
    } else {
        say(&format!("lifeboat: {failure}"));
    }
}

/// Columns for people: two spaces between them, the last one unpadded. `right` names the columns of numbers.
pub(crate) fn columns(header: &[&str], right: &[usize], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|name| name.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let mut line = |cells: &[&str]| {
        let mut text = String::new();
        for (at, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let fill = " ".repeat(width - cell.chars().count().min(*width));
            if at > 0 {
                text.push_str("  ");
            }
            if right.contains(&at) {
                text.push_str(&fill);
                text.push_str(cell);
            } else {
                text.push_str(cell);
                text.push_str(&fill);
            }
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(header);
    for row in rows {
        line(&row.iter().map(String::as_str).collect::<Vec<_>>());
    }
    out
}

/// Bytes in the unit a person reads: `812.4 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_the_unit_a_person_reads() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(5 << 30), "5.0 GiB");
    }

    #[test]
    fn what_steers_a_terminal_is_not_printed() {
        assert_eq!(tame("a\u{1b}[2Jb\r\u{9b}c\n\td"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\n\td");
    }

    #[test]
    fn yaml_nests_and_quotes() {
        let value = serde_json::json!({"a": [1, {"b": "x: y"}], "c": {}, "d": "no"});
        assert_eq!(yaml(&value), "a:\n  - 1\n  -\n    b: \"x: y\"\nc: {}\nd: \"no\"\n");
    }
}
