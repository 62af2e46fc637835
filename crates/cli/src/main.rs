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

/// Puts the command that failed where a failure says "again".
fn say_again(failure: &mut Failure, arguments: &[std::ffi::OsString]) {
    let Some(next) = &mut failure.next else { return };
    if next.contains(engine::failure::AGAIN) {
        let words: Vec<String> =
            std::iter::once("lifeboat".to_owned()).chain(arguments.iter().skip(1).map(|word| quoted(&word.to_string_lossy()))).collect();
        *next = next.replace(engine::failure::AGAIN, &words.join(" "));
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
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("--repo=file:///a"), "--repo=file:///a");
        assert_eq!(quoted("2 hours ago"), "'2 hours ago'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
