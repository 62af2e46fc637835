//! Limits of what is told and run.

use std::time::Duration;

/// How much of what a command says is kept: its last words.
pub const OUTPUT_KEPT: usize = 64 << 10;
/// How long the group of a command that took too long has between SIGTERM and SIGKILL.
pub const GRACE: Duration = Duration::from_secs(5);
/// How long is read on after a command's end, where something it started holds its output open.
pub const OUTPUT_AFTER_END: Duration = Duration::from_secs(1);
/// The longest value of a variable that a hook gets.
pub const VARIABLE_MOST: usize = 4 << 10;
/// How much of a command's last words is told with its failure.
pub const LAST_WORDS: usize = 500;
/// How long failed and finally hooks have in all after a signal.
pub const HOOKS_AFTER_SIGNAL: Duration = Duration::from_secs(60);

/// How long one try of telling somebody may take.
pub const TELL_WITHIN: Duration = Duration::from_secs(10);
/// How long the connection to a receiver may take.
pub const DIAL_WITHIN: Duration = Duration::from_secs(5);
/// Pauses between tries: one try more than there are pauses.
pub const TELL_PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];
/// How much of a receiver's answer is read.
pub const ANSWER_MOST: usize = 4 << 10;
/// How much of it is shown.
pub const ANSWER_SHOWN: usize = 200;
/// A file with an address, a token or a password is not larger.
pub const SECRET_MOST: u64 = 64 << 10;
/// A file with certificates is not larger.
pub const CERTIFICATES_MOST: u64 = 1 << 20;
/// Redirections within one host that are followed.
pub const REDIRECTS_MOST: usize = 3;
/// How long an exec notifier may take where nothing says otherwise.
pub const EXEC_WITHIN: Duration = Duration::from_secs(30);
/// The longest text for Slack; it cuts longer ones into several messages.
pub const SLACK_TEXT: usize = 3_000;
/// The longest text for ntfy, in bytes; longer ones become attachments.
pub const NTFY_TEXT: usize = 4_000;
/// The longest body of a ping, in bytes.
pub const PING_TEXT: usize = 10_000;
/// The longest title, in characters.
pub const TITLE_MOST: usize = 200;

/// The least time between two changes told to one receiver: whatever comes and goes within it is told as it is at its end.
pub const CHANGES_APART: Duration = Duration::from_secs(5 * 60);
/// How long a receiver that could not be told is left alone; it doubles with each time.
pub const TOLD_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// The longest such pause.
pub const TOLD_AGAIN_AFTER_MOST: Duration = Duration::from_secs(30 * 60);
