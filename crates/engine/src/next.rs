//! The next command of a failure, word by word: what is printed can be pasted into a shell and run.
//!
//! Words instead of a text, so that prose cannot slip in, and so that whatever a path or a URL contains is quoted in one place.

use std::fmt;

/// What to run next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// This command.
    Run(Vec<String>),
    /// The command that failed, once the cause is mended. Only the command line knows its words.
    Again {
        /// Flags that are left out, with their values: `--member`.
        without: Vec<String>,
        /// Words that are added. A flag that is taken once replaces the one that was given.
        with: Vec<String>,
    },
}

impl Next {
    /// The command that failed, as it was.
    #[must_use]
    pub fn again() -> Self {
        Self::Again { without: Vec::new(), with: Vec::new() }
    }
}

impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(words) => f.write_str(&line(words)),
            // Seen by nobody but a developer: the command line puts its own words in first.
            Self::Again { without, with } => write!(f, "(again, without {without:?}, with {with:?})"),
        }
    }
}

/// Words as one line for a POSIX shell.
#[must_use]
pub fn line<W: AsRef<str>>(words: impl IntoIterator<Item = W>) -> String {
    words.into_iter().map(|word| quoted(word.as_ref())).collect::<Vec<_>>().join(" ")
}

/// A word as a POSIX shell takes it back.
#[must_use]
pub fn quoted(word: &str) -> String {
    // A tilde is plain only inside a word: a shell replaces one at its beginning.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@%+~".contains(&byte);
    if !word.is_empty() && !word.starts_with('~') && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("--repo=file:///a"), "--repo=file:///a");
        assert_eq!(quoted("2 hours ago"), "'2 hours ago'");
        assert_eq!(quoted("latest~1"), "latest~1");
        assert_eq!(quoted("~root"), "'~root'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
        assert_eq!(line(["mv", "/a b", "/c"]), "mv '/a b' /c");
    }

    /// What a shell makes of the line is what went in.
    #[test]
    fn a_shell_gives_the_words_back() {
        let words = ["a", "", "it's", "$HOME", "~", "*", "x\ny", "\"", "a;b", "--flag=ä"];
        let script = format!("for word in {}; do printf '%s\\0' \"$word\"; done", line(words));
        let said = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let back: Vec<&str> = std::str::from_utf8(&said.stdout).unwrap().split_terminator('\0').collect();
        assert_eq!(back, words);
    }
}
