//! What a run tells while it works. The engine does not print: whoever called it decides what a person sees.

/// Takes what a run tells. Called from several threads.
pub trait Progress: Send + Sync {
    /// One line of words: what was decided and why, or a warning.
    fn say(&self, line: &str);

    /// Work in bytes: how far, of how much where that is known. Called often.
    fn bytes(&self, what: &str, done: u64, total: Option<u64>);

    /// Whatever [`Progress::bytes`] showed is over.
    fn done(&self);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn say(&self, _: &str) {}
    fn bytes(&self, _: &str, _: u64, _: Option<u64>) {}
    fn done(&self) {}
}
