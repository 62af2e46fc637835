//! The `lifeboat` command: arguments, output, exit codes. One file per verb; what the verbs do is in the crate `engine`.

mod args;
mod consent;
mod output;
mod progress;
mod resolve;
mod signals;
mod verb;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use engine::{Code, Failure};

use crate::output::Format;

fn main() -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let matches = match verb::Lifeboat::command().try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(error) => return refuse(&error),
    };
    let lifeboat = match verb::Lifeboat::from_arg_matches(&matches) {
        Ok(lifeboat) => lifeboat,
        Err(error) => return refuse(&error),
    };
    let format = lifeboat.global.format();
    let code = match verb::run(lifeboat) {
        Ok(code) => code,
        Err(mut failure) => {
            say_again(&mut failure, &arguments);
            output::failure(format, &failure);
            failure.code
        }
    };
    disk::crash::report();
    output::exit(code)
}

/// Help and version are asked for and go to standard output; anything else is a usage error.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return output::exit(Code::Ok);
    }
    let wants_json = std::env::args().any(|argument| argument == "--json") || std::env::args().any(|argument| argument == "-ojson");
    if wants_json {
        let text = error.to_string();
        output::failure(Format::Json, &Failure::usage(text.trim_end()).next("lifeboat --help"));
    } else {
        let _ = error.print();
    }
    output::exit(Code::Usage)
}

/// Puts the command that failed where a failure says "again", without the secrets that were on it.
fn say_again(failure: &mut Failure, arguments: &[std::ffi::OsString]) {
    let Some(next) = &mut failure.next else { return };
    if next.contains(engine::failure::AGAIN) {
        let words: Vec<String> = arguments.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
        *next = next.replace(engine::failure::AGAIN, &again(&words));
    }
}

fn again(words: &[String]) -> String {
    const SECRET: [&str; 2] = ["--password", "--user"];
    let mut line = vec!["lifeboat".to_owned()];
    let mut hide_next = false;
    for word in words {
        let (flag, value) = word.split_once('=').map_or((word.as_str(), None), |(flag, value)| (flag, Some(value)));
        let secret =
            if hide_next { Some((None, word.as_str())) } else { value.filter(|_| SECRET.contains(&flag)).map(|value| (Some(flag), value)) };
        hide_next = !hide_next && value.is_none() && SECRET.contains(&flag);
        line.push(match secret {
            Some((None, value)) => quoted(&without_password(value)),
            Some((Some(flag), value)) => quoted(&format!("{flag}={}", without_password(value))),
            None => quoted(word),
        });
    }
    line.join(" ")
}

/// `name:password` becomes `name:PASSWORD`; a bare password is hidden whole, a bare name is none.
fn without_password(value: &str) -> String {
    match value.split_once(':') {
        Some((name, _)) => format!("{name}:PASSWORD"),
        None => "PASSWORD".to_owned(),
    }
}

/// A word as a POSIX shell takes it back.
fn quoted(word: &str) -> String {
    let plain = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=,@%+~".contains(&byte));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        verb::Lifeboat::command().debug_assert();
    }

    #[test]
    fn the_command_to_run_again_shows_no_password() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(again(&words("backup --user root:secret --repo x")), "lifeboat backup --user root:PASSWORD --repo x");
        assert_eq!(again(&words("backup --password=secret")), "lifeboat backup --password=PASSWORD");
        assert_eq!(again(&words("backup --password secret -o json")), "lifeboat backup --password PASSWORD -o json");
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("--repo=file:///a"), "--repo=file:///a");
        assert_eq!(quoted("2 hours ago"), "'2 hours ago'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
