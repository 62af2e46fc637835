//! What a fuzzer says, as numbers.

/// What came of one target's run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Inputs tried.
    pub(super) executions: u64,
    /// Inputs kept because each reaches something of its own.
    pub(super) corpus: u64,
    /// Files with inputs that must not do what they do.
    pub(super) findings: Vec<String>,
    /// The first line that says what was wrong.
    pub(super) why: String,
}

/// Reads the whole output of libFuzzer, or of `mutate`.
pub(super) fn read(text: &str) -> Outcome {
    let mut outcome = Outcome::default();
    let number = |text: &str| text.trim().parse().ok();
    let mut told_by_panic = false;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(executions) = line.strip_prefix("stat::number_of_executed_units:").and_then(number) {
            outcome.executions = executions;
        } else if let Some(rest) = line.strip_prefix("executions ") {
            let mut words = rest.split_whitespace();
            outcome.executions = words.next().and_then(number).unwrap_or(0);
            outcome.corpus = words.nth(1).and_then(number).unwrap_or(0);
        } else if let Some((_, file)) = line.split_once("Test unit written to ") {
            outcome.findings.push(file.trim().to_owned());
        } else if let Some(file) = line.strip_prefix("finding ") {
            outcome.findings.push(file.trim().to_owned());
        } else if line.contains(" panicked at ") && !told_by_panic {
            // The message stands on the next line.
            outcome.why = [line, lines.next().unwrap_or_default()].join(" ");
            told_by_panic = true;
        } else if outcome.why.is_empty() && line.contains("ERROR: ") {
            line.clone_into(&mut outcome.why);
        } else if let Some(executions) = executed(line) {
            // A crash ends without the closing numbers.
            outcome.executions = outcome.executions.max(executions);
        }
    }
    outcome
}

/// The number in libFuzzer's progress lines: `#1024 NEW cov: …`.
fn executed(line: &str) -> Option<u64> {
    line.strip_prefix('#')?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_run_has_its_numbers() {
        let text = "#2\tINITED cov: 3\n#8176\tDONE   cov: 900\nDone 8176 runs in 3 second(s)\nstat::number_of_executed_units: 8176\nstat::peak_rss_mb: 415\n";
        assert_eq!(read(text), Outcome { executions: 8176, ..Outcome::default() });
        assert_eq!(read("executions 42 corpus 5\n"), Outcome { executions: 42, corpus: 5, ..Outcome::default() });
    }

    #[test]
    fn a_finding_is_told_with_its_file_and_reason() {
        let text = "#512\tNEW cov: 3\nthread '<unnamed>' (7) panicked at src/a.rs:3:9:\nindex out of bounds\n==7== ERROR: libFuzzer: deadly signal\n\
            artifact_prefix='f/'; Test unit written to f/crash-ab\n";
        let outcome = read(text);
        assert_eq!((outcome.executions, outcome.findings), (512, vec!["f/crash-ab".to_owned()]));
        assert_eq!(outcome.why, "thread '<unnamed>' (7) panicked at src/a.rs:3:9: index out of bounds");
        let slow = read("==7== ERROR: libFuzzer: timeout after 25 seconds\nartifact_prefix='f/'; Test unit written to f/timeout-1\n");
        assert_eq!((slow.why.as_str(), slow.findings.len()), ("==7== ERROR: libFuzzer: timeout after 25 seconds", 1));
        assert_eq!(read("finding f/crash-1\nexecutions 3 corpus 2\n").findings, ["f/crash-1"]);
    }
}
