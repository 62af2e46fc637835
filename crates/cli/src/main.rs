//! The `lifeboat` command: arguments, output, exit codes. One file per verb; what the verbs do is in the crate `engine`.

mod again;
mod args;
mod consent;
mod escape;
mod metrics_file;
mod output;
mod passphrase;
mod progress;
mod resolve;
mod signals;
mod source;
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
            again::settle(&mut failure, &arguments);
            output::failure(format, &failure);
            failure.code as u8
        }
    };
    disk::crash::report();
    if output::is_lost() {
        output::failure(format, &Failure::failed("the report could not be written to standard output; the work itself ended as it says"));
        return ExitCode::from(if code == Code::Ok as u8 { Code::Failed as u8 } else { code });
    }
    ExitCode::from(code)
}

/// Help and version are asked for and go to standard output; anything else is a usage error.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let wants_json = std::env::args().any(|argument| argument == "--json") || std::env::args().any(|argument| argument == "-ojson");
    if wants_json {
        let text = error.to_string();
        output::failure(Format::Json, &Failure::usage(text.trim_end()).next(["lifeboat", "--help"]));
    } else {
        let _ = error.print();
    }
    ExitCode::from(Code::Usage as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        verb::Lifeboat::command().debug_assert();
    }
}
