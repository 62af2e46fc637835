//! Adding up what ran, and the closing lines.

use std::collections::{BTreeMap, BTreeSet};

use super::parse::{Binary, Parser};
use crate::peers::report::align;

/// Everything that is said at the end.
#[derive(Debug, Default)]
pub(super) struct Summary {
    passed: u64,
    failed: u64,
    skipped: Vec<String>,
    notes: Vec<String>,
    failures: Vec<String>,
    /// etcd version -> names of the tests that passed on it.
    matrix: BTreeMap<String, BTreeSet<String>>,
}

impl Summary {
    /// Adds a finished test binary and prints its line, and its failures in full.
    pub(super) fn binary(&mut self, binary: &Binary) {
        // A test that says it skipped everything returned "ok" to libtest; it is not a test that passed.
        let skipping: BTreeSet<&str> = binary.skipped.iter().map(|skipped| skipped.test.as_str()).filter(|test| !test.is_empty()).collect();
        let passed = binary.passed.saturating_sub(skipping.len() as u64);
        self.passed += passed;
        self.failed += binary.failed;
        self.skipped.extend(binary.skipped.iter().map(|skipped| skipped.why.clone()));
        if binary.ignored > 0 {
            self.skipped.push(format!("{}: {} ignored tests", binary.name, binary.ignored));
        }
        for (version, test) in &binary.matrix {
            self.matrix.entry(version.clone()).or_default().insert(format!("{} {test}", binary.name));
        }
        if passed + binary.failed + binary.skipped.len() as u64 > 0 {
            let skipped = if binary.skipped.is_empty() { String::new() } else { format!(", {} skipped", binary.skipped.len()) };
            println!("   {:<56} {passed:>5} passed, {} failed{skipped} ({})", binary.name, binary.failed, binary.took);
        }
        if binary.failed > 0 {
            for line in &binary.failures {
                println!("{line}");
            }
            self.failures.push(format!("{}: {} failed: {}", binary.name, binary.failed, failed_names(&binary.failures)));
        }
    }

    /// Counts what `binary` cannot have seen: a binary that died half way, a build that failed.
    pub(super) fn end_of_tests(&mut self, phase: &str, parser: &Parser, ok: bool) {
        let died: Vec<&Binary> = parser.binaries.iter().filter(|binary| !binary.finished).collect();
        for binary in &died {
            self.gate(phase, vec![format!("{} ended without a result", binary.name)]);
        }
        let explained = !died.is_empty() || parser.binaries.iter().any(|binary| binary.failed > 0);
        if !ok && !explained {
            let said = if parser.errors.is_empty() { vec!["cargo failed; see the log".to_owned()] } else { parser.errors.clone() };
            self.gate(phase, said);
        }
    }

    /// A check that is not a test: findings are printed and count as one failure.
    pub(super) fn gate(&mut self, name: &str, findings: Vec<String>) {
        let Some(first) = findings.first() else { return };
        self.failed += 1;
        self.failures.push(format!("{name}: {first}"));
        println!("== {name} FAILED");
        for finding in &findings {
            println!("{finding}");
        }
    }

    /// Something that was not run.
    pub(super) fn skip(&mut self, why: String) {
        self.skipped.push(why);
    }

    /// Something that could not be had.
    pub(super) fn note(&mut self, what: String) {
        self.notes.push(what);
    }

    /// Whether any test reported success on this etcd version (`3.6`).
    pub(super) fn ran_on(&self, version: &str) -> bool {
        self.matrix.contains_key(version)
    }

    pub(super) fn passed_all(&self) -> bool {
        self.failed == 0
    }

    /// What could not be had, what was skipped, what failed, the table of versions, and the line of totals.
    pub(super) fn closing(&self) -> String {
        let mut text = String::new();
        for note in &self.notes {
            text.push_str(&format!("NOT AVAILABLE: {note}\n"));
        }
        for why in &self.skipped {
            text.push_str(&format!("SKIPPED: {why}\n"));
        }
        for failure in &self.failures {
            text.push_str(&format!("FAILED: {failure}\n"));
        }
        if !self.matrix.is_empty() {
            let mut rows = vec![["ETCD".to_owned(), "TESTS RUN".to_owned()]];
            rows.extend(self.matrix.iter().map(|(version, tests)| [version.clone(), tests.len().to_string()]));
            text.push_str(&align(&rows));
        }
        text.push_str(&format!("{} passed, {} failed, {} skipped\n", self.passed, self.failed, self.skipped.len()));
        text
    }
}

/// The names listed after the last `failures:`.
fn failed_names(failures: &[String]) -> String {
    let start = failures.iter().rposition(|line| line == "failures:").map_or(0, |at| at + 1);
    let names: Vec<&str> = failures[start..].iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::parse::Skipped;

    #[test]
    fn totals_tell_skipped_from_passed() {
        let mut summary = Summary::default();
        summary.binary(&Binary {
            name: "e2e".to_owned(),
            passed: 3,
            skipped: vec![Skipped { test: "x::etcd_3_4".to_owned(), why: "x on etcd 3.4".to_owned() }],
            matrix: vec![("3.5".to_owned(), "x".to_owned()), ("3.6".to_owned(), "x".to_owned())],
            finished: true,
            ..Binary::default()
        });
        assert!(summary.passed_all());
        assert!(summary.ran_on("3.6") && !summary.ran_on("3.4"));
        assert_eq!(summary.closing(), "SKIPPED: x on etcd 3.4\nETCD  TESTS RUN\n3.5   1\n3.6   1\n2 passed, 0 failed, 1 skipped\n");
    }

    #[test]
    fn a_gate_counts_only_when_it_found_something() {
        let mut summary = Summary::default();
        summary.gate("tidy", Vec::new());
        assert!(summary.passed_all());
        summary.gate("tidy", vec!["src/x.rs: 800 lines".to_owned()]);
        assert!(!summary.passed_all());
        assert_eq!(summary.closing(), "FAILED: tidy: src/x.rs: 800 lines\n0 passed, 1 failed, 0 skipped\n");
    }

    #[test]
    fn a_binary_that_dies_is_a_failure() {
        let mut summary = Summary::default();
        let mut parser = Parser::default();
        parser.line("     Running tests/e2e.rs (target/debug/deps/e2e-0123)");
        parser.line("running 3 tests");
        summary.end_of_tests("end-to-end", &parser, false);
        assert_eq!(summary.failed, 1);
    }
}
