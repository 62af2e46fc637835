//! A second look at the few tests that failed: each is run once more, alone.
//!
//! Tests of real clusters on two busy cores fail now and then for reasons of the machine. Such a failure is never hidden: its output is printed in
//! full and kept in the log, and the closing lines name the test as UNSTEADY, which is a fault to be mended. But it does not fail a run whose other
//! thousand tests passed. `--strict` turns this off, and more than [`MOST`] failures in a phase, or any crash of a test binary, are never looked at again.
//! Why so: `docs/decisions/0010-an-unsteady-test-is-named.md`.

use std::process::Command;

use super::parse::{Binary, Skipped};

/// With more failures than this in one phase something is broken, and running them again would only hide what.
pub(super) const MOST: usize = 2;

/// The failed tests of a phase, if a second look at them is due: no binary died, and there are few.
pub(super) fn due(binaries: &[Binary]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for binary in binaries {
        let failed = binary.failed_names();
        if !binary.finished || failed.len() as u64 != binary.failed {
            return None;
        }
        names.extend(failed.into_iter().map(str::to_owned));
    }
    (1..=MOST).contains(&names.len()).then_some(names)
}

/// The phase's command, for these tests only and one at a time.
pub(super) fn command(of: &Command, names: &[String]) -> Command {
    let mut command = Command::new(of.get_program());
    command.args(of.get_args().take_while(|arg| *arg != "--"));
    command.args(["--", "--show-output", "--test-threads=1", "--exact"]).args(names);
    if let Some(dir) = of.get_current_dir() {
        command.current_dir(dir);
    }
    for (name, value) in of.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    // It would have the last word over `--test-threads`' default only, but two numbers for one thing mislead.
    command.env_remove("RUST_TEST_THREADS");
    command
}

/// Whether every one of them passed this time. A test that skipped more of itself than when it failed may have skipped what failed, and did not pass;
/// what it skipped both times, such as a version that is not here, was not what failed.
pub(super) fn all_passed(first: &[Binary], second: &[Binary], names: &[String]) -> bool {
    let sound = second.iter().all(|binary| binary.finished && binary.failed == 0);
    let passed: u64 = second.iter().map(|binary| binary.passed).sum();
    let skipped_before = |binary: &Binary, skipped: &Skipped| {
        let same = first.iter().filter(|before| before.name == binary.name);
        same.flat_map(|before| &before.skipped).any(|before| before == skipped)
    };
    let skipped_more = second.iter().any(|binary| binary.skipped.iter().any(|skipped| !skipped_before(binary, skipped)));
    sound && !skipped_more && passed >= names.len() as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn failing(names: &[&str]) -> Binary {
        let mut failures = vec!["failures:".to_owned()];
        failures.extend(names.iter().map(|name| format!("    {name}")));
        Binary { name: "e2e".to_owned(), failed: names.len() as u64, failures, finished: true, ..Binary::default() }
    }

    #[test]
    fn only_few_failures_without_a_crash_are_looked_at_again() {
        assert_eq!(due(&[failing(&["a"]), failing(&[]), failing(&["b"])]).unwrap(), ["a", "b"]);
        assert_eq!(due(&[failing(&[])]), None);
        assert_eq!(due(&[failing(&["a", "b", "c"])]), None);
        assert_eq!(due(&[failing(&["a"]), Binary { finished: false, ..failing(&[]) }]), None);
        assert_eq!(due(&[Binary { failed: 2, ..failing(&["a"]) }]), None, "a failure without a name");
    }

    #[test]
    fn the_second_run_is_of_those_tests_alone() {
        let mut first = Command::new("cargo");
        first.args(["test", "-p", "x", "--", "--show-output", "filter"]).env("A", "1").env("RUST_TEST_THREADS", "3");
        let second = command(&first, &["a::b".to_owned()]);
        let args: Vec<_> = second.get_args().map(|arg| arg.to_str().unwrap()).collect();
        assert_eq!(args, ["test", "-p", "x", "--", "--show-output", "--test-threads=1", "--exact", "a::b"]);
        assert!(second.get_envs().any(|(name, value)| name == "A" && value.is_some()));
        assert!(second.get_envs().all(|(name, value)| name != "RUST_TEST_THREADS" || value.is_none()));
    }

    #[test]
    fn what_did_not_run_did_not_pass() {
        let names = ["a".to_owned()];
        let passed = Binary { passed: 1, finished: true, ..Binary::default() };
        assert!(all_passed(&[], &[passed.clone(), Binary { finished: true, ..Binary::default() }], &names));
        assert!(!all_passed(&[], &[Binary { finished: true, ..Binary::default() }], &names));
        assert!(!all_passed(&[], &[passed, failing(&["a"])], &names));
    }

    #[test]
    fn only_what_was_skipped_before_may_be_skipped_again() {
        let names = ["a".to_owned()];
        let skipping = |whys: &[&str]| {
            let skipped = whys.iter().map(|why| Skipped { test: "a".to_owned(), why: (*why).to_owned() }).collect();
            Binary { name: "e2e".to_owned(), skipped, passed: 1, finished: true, ..Binary::default() }
        };
        let mut before = [Binary { skipped: skipping(&["no etcd 3.4"]).skipped, ..failing(&["a"]) }];
        assert!(all_passed(&before, &[skipping(&["no etcd 3.4"])], &names));
        assert!(all_passed(&before, &[skipping(&[])], &names));
        assert!(!all_passed(&before, &[skipping(&["no etcd 3.4", "no moto"])], &names));
        assert!(!all_passed(&[failing(&["a"])], &[skipping(&["no etcd 3.4"])], &names));
        "other".clone_into(&mut before[0].name);
        assert!(!all_passed(&before, &[skipping(&["no etcd 3.4"])], &names), "another binary's test of that name");
    }
}
