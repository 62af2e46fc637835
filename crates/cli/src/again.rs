//! The command that a failure says to run next, in words that can be run as they are printed.
//!
//! A failure that says "again" gets the words that this process was started with, without the secrets among them, and with or without the flags it
//! names. What is said once replaces what was given; clap would refuse it twice.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command, CommandFactory};
use engine::next::Next;
use engine::{Code, Failure};

use crate::verb::Lifeboat;

/// Flags whose value is not shown again.
const SECRET: [&str; 2] = ["password", "user"];
/// What stands in the place of a secret. It is the one word of a command that has to be filled in by hand.
const HIDDEN: &str = "PASSWORD";

/// Settles what to run next. A failure that names nothing means the same command, once its cause is mended.
pub(crate) fn settle(failure: &mut Failure, arguments: &[OsString]) {
    let asked_to_end = matches!(failure.code, Code::Interrupted | Code::Terminated);
    let next = match failure.next.take() {
        None if asked_to_end => return,
        None => Next::again(),
        Some(next) => *next,
    };
    let words = match next {
        Next::Run(words) => same_source(words, arguments),
        Next::Again { without, with } => {
            let given: Vec<String> = arguments.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
            again(&given, &without, &with)
        }
    };
    debug_assert_eq!(runnable(&words), Ok(()), "the next command of {failure}");
    failure.next = Some(Box::new(Next::Run(words)));
}

/// Another verb of the care of a cluster, with the flags that lead to the cluster that this process was asked about.
fn same_source(mut words: Vec<String>, arguments: &[OsString]) -> Vec<String> {
    words.extend(source_flags(&words, arguments));
    words
}

/// The flags given to this process that say which cluster is meant, for another verb of the care of clusters; none for anything else.
pub(crate) fn source_flags(words: &[String], arguments: &[OsString]) -> Vec<String> {
    let given: Vec<String> = arguments.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let mut root = Lifeboat::command();
    root.build();
    if words.first().map(String::as_str) != Some("lifeboat") {
        return Vec::new();
    }
    let (target, source) = (command(&root, &words[1..]), command(&root, &given));
    let recovery = root.find_subcommand("recover").is_some_and(|recover| is_within(recover, source) && is_within(recover, target));
    let is_care =
        |one: &Command| ["etcd", "recover"].into_iter().filter_map(|name| root.find_subcommand(name)).any(|care| is_within(care, one));
    if !is_care(target) || !is_care(source) {
        return Vec::new();
    }
    let said = parse(&root, &words[1..]);
    let mut flags = Vec::new();
    for one in parse(&root, &given) {
        let Some(arg) = one.arg else { continue };
        let is_known = target.get_arguments().any(|known| known.get_id() == arg.get_id());
        let heading = arg.get_help_heading().unwrap_or_default();
        let leads_there =
            heading.starts_with("Source") || arg.get_id() == "config" || arg.get_id() == "cluster" || (recovery && heading == "Repository");
        let is_said = said.iter().any(|one| one.arg.is_some_and(|other| other.get_id() == arg.get_id()));
        if is_known && leads_there && !is_said {
            flags.extend(shown(&one));
        }
    }
    flags
}

fn is_within(command: &Command, one: &Command) -> bool {
    std::ptr::eq(command, one) || command.get_subcommands().any(|sub| is_within(sub, one))
}

/// One argument of a command line: its words, and what it is.
struct Given<'a> {
    words: Vec<&'a str>,
    arg: Option<&'a Arg>,
}

fn again(given: &[String], without: &[String], with: &[String]) -> Vec<String> {
    let mut root = Lifeboat::command();
    root.build();
    let mut without: Vec<&Arg> = without.iter().filter_map(|flag| find(&root, given, flag)).collect();
    let unset: Vec<String> = without.iter().filter_map(|arg| variable(arg)).collect();
    without.extend(with.iter().filter_map(|word| find(&root, given, word)).filter(|arg| !matches!(arg.get_action(), ArgAction::Append)));
    let mut words = Vec::new();
    for name in unset {
        // What the environment says cannot be left out otherwise.
        words.extend(if words.is_empty() { vec!["env".to_owned()] } else { Vec::new() });
        words.extend(["-u".to_owned(), name]);
    }
    words.push("lifeboat".to_owned());
    let mut added = false;
    for one in parse(&root, given) {
        if one.arg.is_some_and(|arg| without.iter().any(|other| other.get_id() == arg.get_id())) {
            continue;
        }
        if one.words == ["--"] && !added {
            words.extend_from_slice(with);
            added = true;
        }
        words.extend(shown(&one));
    }
    if !added {
        words.extend_from_slice(with);
    }
    words
}

/// The environment variable that says the same as a flag, where it is set.
fn variable(arg: &Arg) -> Option<String> {
    let name = arg.get_env()?;
    std::env::var_os(name)?;
    Some(name.to_string_lossy().into_owned())
}

/// The command that the words lead to: `lifeboat snapshot save` of `snapshot save FILE`.
fn command<'a>(root: &'a Command, given: &[String]) -> &'a Command {
    let mut command = root;
    let mut words = given.iter();
    while let Some(word) = words.next() {
        if let Some(sub) = command.find_subcommand(word) {
            command = sub;
        } else if let Some((arg, None)) = flag(command, word)
            && arg.get_action().takes_values()
        {
            // The value of a global flag before the verb is not a verb.
            words.next();
        }
    }
    command
}

fn find<'a>(root: &'a Command, given: &[String], word: &str) -> Option<&'a Arg> {
    flag(command(root, given), word).map(|(arg, _)| arg)
}

/// The argument that a word such as `--repo`, `--repo=x`, `-i` or `-ix` stands for, and the value that is in it.
fn flag<'a, 'w>(command: &'a Command, word: &'w str) -> Option<(&'a Arg, Option<&'w str>)> {
    if let Some(long) = word.strip_prefix("--") {
        let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        let is = |arg: &&Arg| arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name));
        return command.get_arguments().find(is).map(|arg| (arg, value));
    }
    let mut letters = word.strip_prefix('-')?.chars();
    let letter = letters.next()?;
    let is = |arg: &&Arg| arg.get_short() == Some(letter) || arg.get_all_short_aliases().is_some_and(|aliases| aliases.contains(&letter));
    let rest = letters.as_str();
    command.get_arguments().find(is).map(|arg| (arg, (!rest.is_empty() && arg.get_action().takes_values()).then_some(rest)))
}

fn parse<'a>(root: &'a Command, given: &'a [String]) -> Vec<Given<'a>> {
    let command = command(root, given);
    let mut found = Vec::new();
    let mut words = given.iter().map(String::as_str);
    while let Some(word) = words.next() {
        if word == "--" {
            found.push(Given { words: vec![word], arg: None });
            found.extend(words.by_ref().map(|word| Given { words: vec![word], arg: None }));
            break;
        }
        let known = flag(command, word);
        let mut one = Given { words: vec![word], arg: known.map(|(arg, _)| arg) };
        if let Some((arg, None)) = known
            && arg.get_action().takes_values()
        {
            one.words.extend(words.next());
        }
        found.push(one);
    }
    found
}

/// The words of an argument, without the secret in them.
fn shown(one: &Given<'_>) -> Vec<String> {
    let plain = || one.words.iter().map(|word| (*word).to_owned()).collect();
    let Some(id) = one.arg.map(|arg| arg.get_id().as_str()).filter(|id| SECRET.contains(id)) else { return plain() };
    let hide = |value: &str| match (id, value.split_once(':')) {
        ("user", Some((name, _))) => format!("{name}:{HIDDEN}"),
        ("user", None) => value.to_owned(),
        _ => HIDDEN.to_owned(),
    };
    match one.words[..] {
        [flag, value] => vec![flag.to_owned(), hide(value)],
        [word] => vec![word.split_once('=').map_or_else(|| word.to_owned(), |(flag, value)| format!("{flag}={}", hide(value)))],
        _ => plain(),
    }
}

/// What is wrong with a command that is about to be shown as one to be run; checked in builds for development, so by every test that provokes an error.
fn runnable(words: &[String]) -> Result<(), String> {
    const PROGRAMS: [&str; 8] = ["lifeboat", "chmod", "chown", "env", "etcdctl", "mv", "rm", "sh"];
    let first = words.first().map_or("", String::as_str);
    if !PROGRAMS.contains(&first) {
        return Err(format!("'{first}' is no program that is named here"));
    }
    if let Some(word) = words.iter().find(|word| word.contains('…')) {
        return Err(format!("'{word}' is not meant for a machine"));
    }
    if first != "lifeboat" {
        return Ok(());
    }
    match Lifeboat::command().try_get_matches_from(words) {
        Err(error) if error.use_stderr() => Err(error.to_string()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn after(given: &str, without: &str, with: &str) -> String {
        let again = again(&words(given), &words(without), &words(with));
        assert_eq!(runnable(&again), Ok(()), "{again:?}");
        engine::next::line(again)
    }

    #[test]
    fn the_command_to_run_again_shows_no_password() {
        for (given, shown) in [
            ("backup --user root:secret --repo x", "lifeboat backup --user root:PASSWORD --repo x"),
            ("backup --user root --password-file f", "lifeboat backup --user root --password-file f"),
            ("backup --user=root:secret", "lifeboat backup --user=root:PASSWORD"),
            ("backup --password=secret", "lifeboat backup --password=PASSWORD"),
            ("backup --password secret -o json", "lifeboat backup --password PASSWORD -o json"),
        ] {
            assert_eq!(after(given, "", ""), shown);
        }
    }

    #[test]
    fn a_flag_that_is_added_replaces_one_that_was_given() {
        for (given, with, shown) in [
            ("backup --member m9 --repo x", "--member m1", "lifeboat backup --repo x --member m1"),
            ("backup --member=m9", "--member m1", "lifeboat backup --member m1"),
            ("-o json backup --profile a", "--cluster b", "lifeboat -o json backup --cluster b"),
            ("restore -i a.txt --data-dir d", "-i b.txt", "lifeboat restore -i a.txt --data-dir d -i b.txt"),
            ("restore --data-dir d -- latest", "--replace", "lifeboat restore --data-dir d --replace -- latest"),
            ("--config backup lineage accept 2", "--confirm prod", "lifeboat --config backup lineage accept 2 --confirm prod"),
        ] {
            assert_eq!(after(given, "", with), shown);
        }
    }

    #[test]
    fn another_verb_of_the_same_cluster_has_its_flags() {
        for (given, next, shown) in [
            ("etcd defrag --endpoints a:1 --yes --cacert=c", "lifeboat etcd health", "lifeboat etcd health --endpoints a:1 --cacert=c"),
            ("etcd health --endpoints a:1", "lifeboat etcd status --endpoints b:1", "lifeboat etcd status --endpoints b:1"),
            ("--config f etcd alarm disarm --user root:x", "lifeboat etcd hashkv", "lifeboat etcd hashkv --config f --user root:PASSWORD"),
            ("etcd remove-member m2 --confirm x --profile p", "lifeboat etcd members", "lifeboat etcd members --profile p"),
            ("backup --endpoints a:1 --cluster etcd", "lifeboat etcd health", "lifeboat etcd health"),
            ("etcd health --endpoints a:1", "lifeboat backup --degraded", "lifeboat backup --degraded"),
        ] {
            let arguments: Vec<OsString> = std::iter::once("lifeboat".to_owned()).chain(words(given)).map(OsString::from).collect();
            let settled = same_source(words(next), &arguments);
            assert_eq!(runnable(&settled), Ok(()), "{settled:?}");
            assert_eq!(engine::next::line(settled), shown);
        }
    }

    #[test]
    fn a_flag_is_left_out_with_its_value() {
        for (given, without, shown) in [
            ("backup --member m9 --repo x", "--member", "lifeboat backup --repo x"),
            ("backup --require-healthy --repo x", "--require-healthy", "lifeboat backup --repo x"),
            ("backup --repo --member", "--member", "lifeboat backup --repo --member"),
        ] {
            let again = again(&words(given), &words(without), &[]);
            assert_eq!(engine::next::line(again), shown);
        }
    }

    #[test]
    fn what_no_machine_could_run_is_found() {
        for line in ["see the log", "lifeboat backup … --repo x", "lifeboat backup without --member", "lifeboat frobnicate", ""] {
            assert!(runnable(&words(line)).is_err(), "{line}");
        }
        assert_eq!(runnable(&words("lifeboat key check -i identity.txt")), Ok(()));
    }

    #[test]
    fn a_failure_that_says_nothing_means_the_same_command() {
        let arguments: Vec<OsString> = ["lifeboat", "list"].map(OsString::from).to_vec();
        let mut failure = Failure::failed("x");
        settle(&mut failure, &arguments);
        assert_eq!(failure.next, Some(Box::new(Next::Run(words("lifeboat list")))));
        let mut ended = Failure::new(Code::Interrupted, "x");
        settle(&mut ended, &arguments);
        assert_eq!(ended.next, None);
    }
}
