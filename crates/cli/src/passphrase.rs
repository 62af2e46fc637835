//! A passphrase: asked for at the terminal, or from a file, or from a command. Never from the environment, which others can read.

use std::io::{self, IsTerminal, Read, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use engine::opening::Person;
use engine::{Code, Failure, Outcome};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use vault::manifest::Manifest;
use vault::seal::{ExposeSecret as _, SecretString};

use crate::args::PassphraseArgs;
use crate::output;

/// The longest passphrase, in bytes. More is a file that was not meant.
const LONGEST: usize = 4 << 10;
/// The name that commands shown give to a file with a passphrase.
const FILE: &str = "passphrase.txt";

/// What a command that is shown says to open a backup.
pub(crate) fn flag(manifest: &Manifest) -> &'static str {
    match (manifest.layers.age, manifest.sealing.passphrase) {
        (false, _) => "",
        (true, true) => " --passphrase",
        (true, false) => " -i IDENTITY",
    }
}

/// Who answers while a backup is sealed or opened.
pub(crate) fn person() -> Person {
    Person { tell: output::say, ask: |question| at_terminal(question).ok().flatten() }
}

/// The passphrase that the arguments lead to: `--passphrase` beats the file, which beats the command. One that is about to seal something is asked for
/// twice.
pub(crate) fn given(args: &PassphraseArgs, to_seal: bool) -> Outcome<Option<SecretString>> {
    if args.passphrase {
        asked(to_seal).map(Some)
    } else if let Some(file) = &args.passphrase_file {
        from_file(file).map(Some)
    } else if let Some(command) = &args.passphrase_command {
        from_command(command).map(Some)
    } else {
        Ok(None)
    }
}

fn asked(to_seal: bool) -> Outcome<SecretString> {
    let ask = |question: &str| {
        let answer = at_terminal(question).map_err(|error| {
            Failure::usage("the passphrase is asked for at a terminal only, and this is none")
                .cause(format!("{error}; name a file that holds it, or a command that prints it (--passphrase-command)"))
                .again_instead("--passphrase", ["--passphrase-file", FILE])
        })?;
        answer.ok_or_else(|| Failure::new(Code::Interrupted, "interrupted; nothing was done"))
    };
    let first = sound(ask("Passphrase")?, None)?;
    if to_seal && ask("The same passphrase again")?.expose_secret() != first.expose_secret() {
        return Err(Failure::usage("the two passphrases are not the same; nothing was done").again());
    }
    Ok(first)
}

fn from_file(file: &Path) -> Outcome<SecretString> {
    let failed = |error: io::Error| Failure::usage("the passphrase cannot be read").object(file.display()).cause(error).again();
    let opened = std::fs::File::open(file).map_err(failed)?;
    let text = bounded(opened).map_err(failed)?;
    sound(text, Some(&file.display().to_string()))
}

fn from_command(command: &str) -> Outcome<SecretString> {
    // The command is not repeated: a secret may be in it.
    let failed =
        |cause: String| Failure::usage("the command that prints the passphrase failed").object("--passphrase-command").cause(cause).again();
    let spawned = Command::new("sh").args(["-c", command]).stdout(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| failed(error.to_string()))?;
    let text = child.stdout.take().map(bounded).transpose();
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        return Err(failed(status.to_string()));
    }
    let text = text.map_err(|error| failed(error.to_string()))?;
    sound(text.unwrap_or_else(|| SecretString::from(String::new())), Some("what --passphrase-command printed"))
}

fn bounded(from: impl Read) -> io::Result<SecretString> {
    let mut bytes = Vec::with_capacity(LONGEST + 1);
    from.take(LONGEST as u64 + 1).read_to_end(&mut bytes)?;
    // The bytes are not repeated by the error.
    String::from_utf8(bytes).map(SecretString::from).map_err(|_| io::Error::other("it is not text"))
}

/// Without the line end behind it. `source` is named in errors; none for what was typed.
fn sound(text: SecretString, source: Option<&str>) -> Outcome<SecretString> {
    let line = text.expose_secret();
    let line = line.strip_suffix('\n').unwrap_or(line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let wrong = match line {
        "" => "it is empty",
        line if line.len() > LONGEST => "it is too long for a passphrase",
        line if line.contains(['\n', '\r']) => "it has more than one line, and nobody could type it again",
        line => return Ok(SecretString::from(line.to_owned())),
    };
    let failure = Failure::usage("the passphrase cannot be used").cause(wrong).again();
    Err(match source {
        Some(source) => failure.object(source),
        None => failure,
    })
}

/// Asks for a secret on the terminal at standard input, without showing it. None when the person gives up (Ctrl-C, Ctrl-D); an error without a terminal.
///
/// The terminal's own line editing is off meanwhile, and with it the signal of Ctrl-C: nobody is left with a terminal that shows nothing.
fn at_terminal(question: &str) -> io::Result<Option<SecretString>> {
    let input = io::stdin();
    if !input.is_terminal() || !output::is_watched() {
        return Err(io::Error::other("there is nobody to ask"));
    }
    let before = tcgetattr(&input)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    // What was typed before the question counts as its answer.
    tcsetattr(&input, OptionalActions::Now, &silent)?;
    let mut error = io::stderr().lock();
    let _ = write!(error, "{question}: ");
    let typed = line(io::stdin().lock().bytes());
    tcsetattr(&input, OptionalActions::Now, &before)?;
    let _ = writeln!(error);
    typed
}

/// What is typed up to the end of the line.
fn line(bytes: impl Iterator<Item = io::Result<u8>>) -> io::Result<Option<SecretString>> {
    const INTERRUPT: u8 = 3;
    const END: u8 = 4;
    const ERASE_LINE: u8 = 0x15;
    const BACKSPACE: u8 = 8;
    const DELETE: u8 = 0x7f;
    let mut typed = Vec::with_capacity(LONGEST);
    for byte in bytes {
        match byte? {
            b'\n' | b'\r' => break,
            INTERRUPT | END => return Ok(None),
            ERASE_LINE => typed.clear(),
            BACKSPACE | DELETE => erase(&mut typed),
            byte if typed.len() < LONGEST => typed.push(byte),
            _ => {}
        }
    }
    String::from_utf8(typed).map(|text| Some(SecretString::from(text))).map_err(|_| io::Error::other("what was typed is not text"))
}

/// Takes the last character away, which may have several bytes.
fn erase(typed: &mut Vec<u8>) {
    const CONTINUES: u8 = 0b1000_0000;
    while typed.pop().is_some_and(|byte| byte & 0b1100_0000 == CONTINUES) {}
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn typed(bytes: &str) -> Option<String> {
        line(bytes.bytes().map(Ok)).unwrap().map(|text| text.expose_secret().to_owned())
    }

    #[test]
    fn a_line_is_typed_with_its_corrections() {
        assert_eq!(typed("secret\nmore"), Some("secret".to_owned()));
        assert_eq!(typed("sö\u{7f}ecret\r"), Some("secret".to_owned()));
        assert_eq!(typed("wrong\u{15}right\n"), Some("right".to_owned()));
        assert_eq!(typed("\u{7f}x"), Some("x".to_owned()));
        assert_eq!(typed("sec\u{3}"), None);
        assert_eq!(typed("sec\u{4}\n"), None);
    }

    #[test]
    fn one_line_is_a_passphrase() {
        let sound = |text: &str| sound(SecretString::from(text.to_owned()), Some("f")).map(|text| text.expose_secret().to_owned());
        assert_eq!(sound(" a b \n").unwrap(), " a b ");
        assert_eq!(sound("a\r\n").unwrap(), "a");
        for (bad, why) in [("", "empty"), ("\n", "empty"), ("a\nb\n", "more than one line"), (&"x".repeat(LONGEST + 1), "too long")] {
            let failure = sound(bad).unwrap_err();
            assert!(failure.cause.as_ref().unwrap().contains(why) && failure.object.as_deref() == Some("f"), "{failure}");
        }
    }
}
