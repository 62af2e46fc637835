//! Reading what `cargo test` prints: which binary runs, what each test said, how it ended.

/// One test binary's run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Binary {
    /// As cargo names it, e.g. `unittests src/lib.rs (bbolt)`.
    pub(super) name: String,
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) ignored: u64,
    /// `finished in` as printed.
    pub(super) took: String,
    /// From `failures:` to the result line, when something failed.
    pub(super) failures: Vec<String>,
    /// `SKIPPED:` lines with the test that printed them.
    pub(super) skipped: Vec<Skipped>,
    /// `MATRIX:` lines: etcd version and test name.
    pub(super) matrix: Vec<(String, String)>,
    /// The result line was seen.
    pub(super) finished: bool,
}

impl Binary {
    /// The tests listed after the last `failures:`.
    pub(super) fn failed_names(&self) -> Vec<&str> {
        let Some(start) = self.failures.iter().rposition(|line| line == "failures:") else { return Vec::new() };
        self.failures[start + 1..].iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect()
    }
}

/// A test, or a part of one, that did not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Skipped {
    /// The test that said so; empty outside of any test's output.
    pub(super) test: String,
    pub(super) why: String,
}

/// Fed line by line with the merged output of `cargo test ... -- --show-output`.
#[derive(Debug, Default)]
pub(super) struct Parser {
    pub(super) binaries: Vec<Binary>,
    /// Lines of cargo itself from the first compile error on.
    pub(super) errors: Vec<String>,
    test: String,
    in_failures: bool,
}

impl Parser {
    /// Takes one line; returns the binary when the line was its result.
    pub(super) fn line(&mut self, line: &str) -> Option<&Binary> {
        let plain = strip_ansi(line);
        let plain = plain.as_str();
        if let Some(name) = starts_binary(plain) {
            self.binaries.push(Binary { name, ..Binary::default() });
            self.test.clear();
            self.in_failures = false;
            return None;
        }
        let running = self.binaries.last_mut().filter(|binary| !binary.finished);
        let Some(binary) = running else {
            self.note_error(plain);
            return None;
        };
        if let Some(result) = plain.strip_prefix("test result: ") {
            read_result(binary, result);
            binary.finished = true;
            self.in_failures = false;
            return self.binaries.last();
        }
        match plain {
            "failures:" => self.in_failures = true,
            "successes:" => self.in_failures = false,
            _ => {}
        }
        if self.in_failures {
            binary.failures.push(plain.to_owned());
        }
        if let Some(test) = plain.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            test.clone_into(&mut self.test);
        } else if let Some(why) = plain.strip_prefix("SKIPPED: ") {
            binary.skipped.push(Skipped { test: self.test.clone(), why: why.trim().to_owned() });
        } else if let Some(entry) = plain.strip_prefix("MATRIX: ")
            && let Some((version, test)) = entry.strip_suffix(" ok").and_then(|entry| entry.split_once(' '))
        {
            binary.matrix.push((version.to_owned(), test.to_owned()));
        }
        None
    }

    fn note_error(&mut self, line: &str) {
        let error = line.starts_with("error") || !self.errors.is_empty();
        if error {
            self.errors.push(line.to_owned());
        }
    }
}

fn starts_binary(line: &str) -> Option<String> {
    let trimmed = line.trim_start();
    if let Some(rest) = trimmed.strip_prefix("Running ")
        && line.starts_with(' ')
        && let Some((what, path)) = rest.rsplit_once(" (")
    {
        let file = path.trim_end_matches(')').rsplit('/').next().unwrap_or(path);
        let crate_name = file.rsplit_once('-').map_or(file, |(name, _hash)| name);
        let what = what.strip_prefix("unittests ").unwrap_or(what);
        return Some(format!("{crate_name}: {what}"));
    }
    let docs = trimmed.strip_prefix("Doc-tests ").filter(|_| line.starts_with(' '))?;
    Some(format!("{docs}: documentation"))
}

/// `ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s`
fn read_result(binary: &mut Binary, result: &str) {
    for part in result.split([';', '.']) {
        let mut words = part.split_whitespace();
        match (words.next().map(str::parse::<u64>), words.next()) {
            (Some(Ok(n)), Some("passed")) => binary.passed = n,
            (Some(Ok(n)), Some("failed")) => binary.failed = n,
            (Some(Ok(n)), Some("ignored")) => binary.ignored = n,
            _ => {}
        }
    }
    if let Some((_, took)) = result.split_once("finished in ") {
        took.trim().clone_into(&mut binary.took);
    }
}

fn strip_ansi(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            for c in chars.by_ref() {
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LOG: &str = "\
   Compiling bbolt v0.1.0
     Running unittests src/lib.rs (target/debug/deps/bbolt-0123456789abcdef)

running 2 tests
test a ... ok
test b ... ok

test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

     Running tests/e2e.rs (/elsewhere/debug/deps/e2e-0123456789abcdef)

running 3 tests
test x::etcd_3_4 ... ok
test x::etcd_3_6 ... ok
test y ... FAILED

successes:

---- x::etcd_3_4 stdout ----
SKIPPED: x on etcd 3.4: not available

---- x::etcd_3_6 stdout ----
MATRIX: 3.6 x ok

successes:
    x::etcd_3_4
    x::etcd_3_6

failures:

---- y stdout ----
thread 'y' panicked at tests/e2e.rs:3:5:
boom

failures:
    y

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 12.34s

error: test failed, to rerun pass `-p lifeboat-tests --test e2e`
   Doc-tests bbolt
";

    fn parsed(log: &str) -> Parser {
        let mut parser = Parser::default();
        for line in log.lines() {
            parser.line(line);
        }
        parser
    }

    #[test]
    fn counts_names_and_messages_are_found() {
        let parser = parsed(LOG);
        let [unit, e2e, docs] = parser.binaries.as_slice() else { panic!("{:?}", parser.binaries) };
        assert_eq!((unit.name.as_str(), unit.passed, unit.ignored, unit.took.as_str()), ("bbolt: src/lib.rs", 2, 1, "0.01s"));
        assert_eq!((e2e.name.as_str(), e2e.passed, e2e.failed), ("e2e: tests/e2e.rs", 2, 1));
        assert_eq!(e2e.skipped, [Skipped { test: "x::etcd_3_4".to_owned(), why: "x on etcd 3.4: not available".to_owned() }]);
        assert_eq!(e2e.matrix, [("3.6".to_owned(), "x".to_owned())]);
        assert_eq!(e2e.failed_names(), ["y"]);
        assert!(e2e.failures.iter().any(|line| line == "boom"), "{:?}", e2e.failures);
        assert!(!e2e.failures.iter().any(|line| line.contains("MATRIX")), "{:?}", e2e.failures);
        assert_eq!((docs.name.as_str(), docs.finished), ("bbolt: documentation", false));
    }

    #[test]
    fn compile_errors_are_kept_whole() {
        let parser =
            parsed("   Compiling x\nwarning: unused\nerror[E0308]: mismatched types\n  --> src/lib.rs:1\nerror: could not compile\n");
        assert_eq!(parser.errors.len(), 3);
        assert!(parser.binaries.is_empty());
    }

    #[test]
    fn colours_do_not_hide_anything() {
        assert_eq!(strip_ansi("\u{1b}[1m\u{1b}[32mRunning\u{1b}[0m x"), "Running x");
    }
}
