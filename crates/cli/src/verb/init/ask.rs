//! Asking a person, where there is one: a terminal on standard input. Questions go to standard error.

use std::io::{self, BufRead, IsTerminal};

use engine::{Failure, Outcome};

use crate::output;

/// How often a wrong answer may be given.
const TRIES: usize = 3;

/// Somebody to ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Person(());

impl Person {
    /// A person, if one sits at the terminal.
    pub(super) fn present() -> Option<Self> {
        (io::stdin().is_terminal() && output::is_watched()).then_some(Self(()))
    }

    /// Asks until there is an answer that `check` takes. An empty line takes the proposal.
    pub(super) async fn ask<T>(self, question: &str, proposal: Option<&str>, check: impl Fn(&str) -> Result<T, String>) -> Outcome<T> {
        for _ in 0..TRIES {
            output::say(&match proposal {
                Some(proposal) => format!("{question} [{proposal}]:"),
                None => format!("{question}:"),
            });
            match answer(&line().await?, proposal, &check) {
                Ok(value) => return Ok(value),
                Err(why) => output::say(&format!("  {why}")),
            }
        }
        Err(Failure::usage(format!("no answer in {TRIES} tries to: {question}")).again())
    }
}

/// What a line means: the proposal when it is empty.
fn answer<T>(line: &str, proposal: Option<&str>, check: impl Fn(&str) -> Result<T, String>) -> Result<T, String> {
    match (line.trim(), proposal) {
        ("", Some(proposal)) => check(proposal),
        ("", None) => Err("an answer is needed".to_owned()),
        (line, _) => check(line),
    }
}

/// Whether what was typed is the secret that was shown. Letters may have changed their case on the way.
pub(super) fn is_same_secret(typed: &str, shown: &str) -> Result<(), String> {
    if typed.trim().eq_ignore_ascii_case(shown) { Ok(()) } else { Err("that is not the identity that was shown".to_owned()) }
}

/// A line from standard input, read on a thread of its own so that Ctrl-C is heard meanwhile.
async fn line() -> Outcome<String> {
    let (done, read) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = done.send(io::stdin().lock().read_line(&mut line).map(|length| (length > 0).then_some(line)));
    });
    match read.await {
        Ok(Ok(Some(line))) => Ok(line),
        Ok(Ok(None)) => Err(Failure::usage("the input ended before the question was answered").again()),
        Ok(Err(error)) => Err(Failure::usage(format!("nothing could be read: {error}")).again()),
        Err(_) => Err(Failure::failed("nothing could be read")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Result<u8, String> {
        text.parse().map_err(|_| "not a number".to_owned())
    }

    #[test]
    fn an_empty_line_takes_the_proposal() {
        assert_eq!(answer("\n", Some("7"), number), Ok(7));
        assert_eq!(answer(" 8 \n", Some("7"), number), Ok(8));
        assert!(answer("\n", None, number).is_err());
        assert_eq!(answer("x", Some("7"), number), Err("not a number".to_owned()));
    }

    #[test]
    fn the_secret_is_known_again_in_either_case() {
        assert!(is_same_secret(" age-secret-key-1abc\n", "AGE-SECRET-KEY-1ABC").is_ok());
        assert!(is_same_secret("AGE-SECRET-KEY-1ABD", "AGE-SECRET-KEY-1ABC").is_err());
    }
}
