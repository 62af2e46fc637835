//! What a failed piece of work says: what, which object, the likely cause, the next command; and the exit code that goes with it.

use std::fmt;

use crate::next::Next;

/// How a run ended, as the process says it to its caller (design part 6). The numbers are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// Done.
    Ok = 0,
    /// Failed.
    Failed = 1,
    /// The command line is wrong, or consent is missing; nothing was done.
    Usage = 2,
    /// Committed, with warnings from the closed list in `docs/exit-codes.md`.
    Warnings = 3,
    /// The cluster is not as it should be, and that can wait for working hours (`etcd health`).
    Advice = 4,
    /// The cluster is not as it should be, and that cannot wait (`etcd health`).
    Alert = 5,
    /// There is no repository at the place named.
    NoRepository = 10,
    /// Somebody else works there (only with `--require-lease`).
    LeaseHeld = 11,
    /// No identity opens it.
    NoKey = 12,
    /// The wrong cluster or lineage, or more than one fits.
    WrongCluster = 13,
    /// Verification failed, or the members dispute the content.
    Unproven = 20,
    /// A drill failed.
    DrillFailed = 21,
    /// The newest backup is too old.
    Stale = 22,
    /// No backup ever ran.
    NeverRan = 23,
    /// The last run failed while an older backup is still fresh.
    LastRunFailed = 24,
    /// etcd or Talos cannot be reached.
    SourceUnreachable = 30,
    /// The store cannot be reached.
    StoreUnreachable = 31,
    /// Ended by SIGINT.
    Interrupted = 130,
    /// Ended by SIGTERM.
    Terminated = 143,
}

impl Code {
    /// The stable word for this code, as JSON errors carry it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Warnings => "warnings",
            Self::Advice => "advice",
            Self::Alert => "alert",
            Self::NoRepository => "no-repository",
            Self::LeaseHeld => "lease-held",
            Self::NoKey => "no-key",
            Self::WrongCluster => "wrong-cluster",
            Self::Unproven => "unproven",
            Self::DrillFailed => "drill-failed",
            Self::Stale => "stale",
            Self::NeverRan => "never-ran",
            Self::LastRunFailed => "last-run-failed",
            Self::SourceUnreachable => "source-unreachable",
            Self::StoreUnreachable => "store-unreachable",
            Self::Interrupted => "interrupted",
            Self::Terminated => "terminated",
        }
    }
}

/// Why work was not done. `what` is always there; the rest wherever it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: Code,
    /// What did not happen, as a sentence without a full stop.
    pub what: String,
    /// The object concerned: a path, an endpoint, a key in the store.
    pub object: Option<String>,
    /// The likely cause.
    pub cause: Option<String>,
    /// The next command, ready to be run.
    pub next: Option<Box<Next>>,
}

impl Failure {
    /// A failure of which only the code and the fact are known yet.
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), object: None, cause: None, next: None }
    }

    /// A usage error: nothing was done.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Code::Usage, what)
    }

    /// A plain failure.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(Code::Failed, what)
    }

    /// Names the object concerned.
    #[must_use]
    pub fn object(mut self, object: impl fmt::Display) -> Self {
        self.object = Some(object.to_string());
        self
    }

    /// Names the likely cause.
    #[must_use]
    pub fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// Says that the same command is the next one, once the cause is mended.
    #[must_use]
    pub fn again(self) -> Self {
        Self { next: Some(Box::new(Next::again())), ..self }
    }

    /// Says that the same command is the next one, with these words added; a flag among them replaces one that was given.
    #[must_use]
    pub fn again_with<W: AsRef<str>>(self, with: impl IntoIterator<Item = W>) -> Self {
        Self { next: Some(Box::new(Next::Again { without: Vec::new(), with: owned(with) })), ..self }
    }

    /// Says that the same command is the next one, without this flag and its value.
    #[must_use]
    pub fn again_without(self, flag: &str) -> Self {
        Self { next: Some(Box::new(Next::Again { without: vec![flag.to_owned()], with: Vec::new() })), ..self }
    }

    /// Says that the same command is the next one, with these words in the place of this flag and its value.
    #[must_use]
    pub fn again_instead<W: AsRef<str>>(self, flag: &str, with: impl IntoIterator<Item = W>) -> Self {
        Self { next: Some(Box::new(Next::Again { without: vec![flag.to_owned()], with: owned(with) })), ..self }
    }

    /// Names the next command, word by word; nothing in it is quoted yet.
    #[must_use]
    pub fn next<W: AsRef<str>>(self, words: impl IntoIterator<Item = W>) -> Self {
        Self { next: Some(Box::new(Next::Run(owned(words)))), ..self }
    }
}

fn owned<W: AsRef<str>>(words: impl IntoIterator<Item = W>) -> Vec<String> {
    words.into_iter().map(|word| word.as_ref().to_owned()).collect()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(object) = &self.object {
            write!(f, "\n  object: {object}")?;
        }
        if let Some(cause) = &self.cause {
            write!(f, "\n  cause:  {cause}")?;
        }
        if let Some(next) = &self.next {
            write!(f, "\n  next:   {next}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// The result of everything in this crate.
pub type Outcome<T> = Result<T, Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    /// The page of the exit codes has these numbers and words; those that no verb gives yet may be missing.
    #[test]
    fn the_page_of_exit_codes_is_true() {
        let all = [
            Code::Ok,
            Code::Failed,
            Code::Usage,
            Code::Warnings,
            Code::Advice,
            Code::Alert,
            Code::NoRepository,
            Code::LeaseHeld,
            Code::NoKey,
            Code::WrongCluster,
            Code::Unproven,
            Code::DrillFailed,
            Code::Stale,
            Code::NeverRan,
            Code::LastRunFailed,
            Code::SourceUnreachable,
            Code::StoreUnreachable,
        ];
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/exit-codes.md")).unwrap();
        let mut rows = 0;
        for line in page.lines().filter(|line| line.starts_with("| ") && line.contains('`')) {
            let mut cells = line.split('|').skip(1).map(str::trim);
            let (Some(number), Some(word)) = (cells.next(), cells.next()) else { continue };
            let Ok(number) = number.parse::<u8>() else { continue };
            let code = all.iter().find(|code| **code as u8 == number).unwrap_or_else(|| panic!("no exit code {number}"));
            assert_eq!(word, format!("`{}`", code.word()));
            rows += 1;
        }
        assert!(rows >= 13, "the page is a table with the columns code and word");
    }
}
