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
    /// Failed once, passed when run again.
    unsteady: Vec<String>,
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
            self.failures.push(failed(binary));
        }
    }

    /// The failures of these binaries, which were added before, passed when they were run again alone: they are named, and count as passed.
    pub(super) fn unsteady(&mut self, binaries: &[Binary]) {
        for binary in binaries.iter().filter(|binary| binary.failed > 0) {
            let text = failed(binary);
            self.failures.retain(|failure| *failure != text);
            self.failed -= binary.failed;
            self.passed += binary.failed;
            self.unsteady.extend(binary.failed_names().iter().map(|test| format!("{}: {test}", binary.name)));
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
        for test in &self.unsteady {
            text.push_str(&format!("UNSTEADY: {test}: failed once, passed when run again alone\n"));
        }
        for failure in &self.failures {
            text.push_str(&format!("FAILED: {failure}\n"));
        }
        if !self.matrix.is_empty() {
            let mut rows = vec![["ETCD".to_owned(), "TESTS RUN".to_owned()]];
            rows.extend(self.matrix.iter().map(|(version, tests)| [version.clone(), tests.len().to_string()]));
            text.push_str(&align(&rows));
        }
        let unsteady = if self.unsteady.is_empty() { String::new() } else { format!(" ({} unsteady)", self.unsteady.len()) };
        text.push_str(&format!("{} passed{unsteady}, {} failed, {} skipped\n", self.passed, self.failed, self.skipped.len()));
        text
    }
}

fn failed(binary: &Binary) -> String {
    format!("{}: {} failed: {}", binary.name, binary.failed, binary.failed_names().join(" "))
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
    fn an_unsteady_test_is_named_and_fails_nothing() {
        let mut summary = Summary::default();
        let failures = ["failures:", "    x::y"].map(str::to_owned).to_vec();
        let binary = Binary { name: "e2e".to_owned(), passed: 1, failed: 1, failures, finished: true, ..Binary::default() };
        summary.binary(&binary);
        assert!(!summary.passed_all());
        summary.unsteady(&[binary]);
        assert!(summary.passed_all());
        let closing = "UNSTEADY: e2e: x::y: failed once, passed when run again alone\n2 passed (1 unsteady), 0 failed, 0 skipped\n";
        assert_eq!(summary.closing(), closing);
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
