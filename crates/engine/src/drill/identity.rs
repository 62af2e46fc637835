//! An identity that a command prints: from a password manager, or a secret store. It lies in memory alone.

use std::process::Stdio;

use tokio::io::AsyncReadExt as _;
use vault::seal::SecretString;

use crate::failure::{Failure, Outcome};
use crate::limits::{IDENTITY_COMMAND_BYTES, IDENTITY_COMMAND_WITHIN};
use crate::opening::InMemory;

/// Runs a command, word by word and without a shell, and takes what it prints for identities. Nothing it printed is ever repeated, and neither are its
/// arguments: a secret may be among them.
///
/// # Errors
/// It cannot be run, fails, takes too long, prints too much, or what it prints is not text.
pub async fn from_command(command: &[String]) -> Outcome<InMemory> {
    let Some((program, arguments)) = command.split_first() else { return Err(Failure::usage("identity_command names no program")) };
    let failed = |cause: String| Failure::usage("the command that prints the identity failed").object(program).cause(cause).again();
    let mut prepared = tokio::process::Command::new(program);
    prepared.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let work = async {
        let mut child = prepared.spawn().map_err(|error| failed(error.to_string()))?;
        let mut printed = Vec::new();
        if let Some(out) = child.stdout.take() {
            out.take(IDENTITY_COMMAND_BYTES + 1).read_to_end(&mut printed).await.map_err(|error| failed(error.to_string()))?;
        }
        if printed.len() as u64 > IDENTITY_COMMAND_BYTES {
            return Err(failed(format!("it prints more than {IDENTITY_COMMAND_BYTES} bytes")));
        }
        let status = child.wait().await.map_err(|error| failed(error.to_string()))?;
        if !status.success() {
            return Err(failed(status.to_string()));
        }
        // The bytes are not repeated by the error.
        let content = String::from_utf8(printed).map_err(|_| failed("what it prints is not text".to_owned()))?;
        Ok(InMemory { source: format!("what {program} printed"), content: SecretString::from(content) })
    };
    match tokio::time::timeout(IDENTITY_COMMAND_WITHIN, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(failed(format!("it did not end within {} s", IDENTITY_COMMAND_WITHIN.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use vault::seal::ExposeSecret as _;

    async fn of(script: &str) -> Outcome<InMemory> {
        from_command(&["sh", "-c", script].map(str::to_owned)).await
    }

    #[tokio::test]
    async fn what_it_prints_is_taken_and_never_shown() {
        let told = of("echo AGE-SECRET-KEY-1").await.unwrap();
        assert_eq!((told.source.as_str(), told.content.expose_secret()), ("what sh printed", "AGE-SECRET-KEY-1\n"));
        assert!(!format!("{told:?}").contains("AGE"));
    }

    #[tokio::test]
    async fn whatever_goes_wrong_is_said_without_the_secret() {
        for (script, why) in
            [("echo secret; exit 3", "exit status: 3"), ("head -c 1048577 /dev/zero; exit 0", "more than"), ("printf '\\377'", "not text")]
        {
            let failure = of(script).await.unwrap_err().to_string();
            assert!(failure.contains(why) && !failure.contains("secret"), "{failure}");
        }
        assert!(from_command(&[]).await.is_err());
        let none = from_command(&["/nonexistent/program".to_owned()]).await.unwrap_err();
        assert_eq!(none.object.as_deref(), Some("/nonexistent/program"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_end_is_ended() {
        let failure = of("exec sleep 1000").await.unwrap_err();
        assert!(failure.cause.unwrap().contains("did not end within"));
    }
}
