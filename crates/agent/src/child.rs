//! Commands of the user's: without a shell, with an environment of ours, in a process group that ends when their time is over.

use std::fmt;
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStdin, Command};

use crate::limits::{GRACE, LAST_WORDS, OUTPUT_AFTER_END, OUTPUT_KEPT};

/// What PATH is where this process has none.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How often is looked whether a command that was told to end has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A command about to be run.
#[derive(Clone, Debug, Default)]
pub struct Call<'a> {
    /// The program and its arguments.
    pub command: &'a [String],
    /// Its environment beside PATH, HOME and LANG.
    pub environment: Vec<(String, String)>,
    /// What it reads from its standard input.
    pub input: Vec<u8>,
    /// How long it may take.
    pub timeout: Duration,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this exit status.
    Exit(i32),
    /// By a signal that was not ours.
    Signal(i32),
    /// Its time was over, and its whole process group was ended.
    TimedOut(Duration),
    /// It could not be started.
    NotStarted(String),
}

impl End {
    /// Whether it did what it was there for.
    #[must_use]
    pub fn is_success(&self) -> bool {
        *self == Self::Exit(0)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "it ended with exit status {code}"),
            Self::Signal(signal) => write!(f, "it was ended by signal {signal}"),
            Self::TimedOut(limit) => write!(f, "it took longer than {} and was ended, with what it had started", words(*limit)),
            Self::NotStarted(why) => write!(f, "it cannot be started: {why}"),
        }
    }
}

/// A time as people read it.
fn words(time: Duration) -> String {
    if time.subsec_nanos() == 0 { format!("{} s", time.as_secs()) } else { format!("{} ms", time.as_millis()) }
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How it ended.
    pub end: End,
    /// What it wrote to standard output and standard error, in order: the last [`OUTPUT_KEPT`] bytes.
    pub output: String,
    /// How long it took.
    pub took: Duration,
}

impl Ended {
    /// How it ended, with its last words.
    #[must_use]
    pub fn told(&self) -> String {
        let output = self.output.trim();
        if output.is_empty() {
            return self.end.to_string();
        }
        let from = output.len().saturating_sub(LAST_WORDS);
        let from = (from..output.len()).find(|at| output.is_char_boundary(*at)).unwrap_or(from);
        let cut = if from > 0 { "…" } else { "" };
        format!("{}; its last words: {cut}{}", self.end, &output[from..])
    }
}

/// Runs a command to its end. Whatever it started and left behind in its process group is ended too when its time is over, or when this future is
/// dropped; what it left behind at an end of its own stays.
pub async fn run(call: Call<'_>) -> Ended {
    let begun = Instant::now();
    let not_started = |why: String| Ended { end: End::NotStarted(why), output: String::new(), took: begun.elapsed() };
    let started = match start(&call) {
        Ok(started) => started,
        Err(error) => return not_started(error.to_string()),
    };
    let (child, mut output) = started;
    let mut kept = Tail::default();
    let mut group = Group { child };
    let input = group.child.stdin.take();
    let work = async {
        let feed = feed(input, &call.input);
        let read = read(&mut output, &mut kept);
        let status = group.child.wait();
        tokio::pin!(feed, read, status);
        let (mut fed, mut all_read) = (false, false);
        loop {
            tokio::select! {
                () = &mut feed, if !fed => fed = true,
                () = &mut read, if !all_read => all_read = true,
                status = &mut status => return status.map(|status| (status, all_read)),
            }
        }
    };
    let end = match tokio::time::timeout(call.timeout, work).await {
        Ok(Ok((status, all_read))) => {
            if !all_read {
                let _held_open = tokio::time::timeout(OUTPUT_AFTER_END, read(&mut output, &mut kept)).await;
            }
            of(status)
        }
        Ok(Err(error)) => End::NotStarted(error.to_string()),
        Err(_) => {
            group.end(&mut output, &mut kept).await;
            End::TimedOut(call.timeout)
        }
    };
    Ended { end, output: kept.text(), took: begun.elapsed() }
}

fn start(call: &Call<'_>) -> std::io::Result<(Child, pipe::Receiver)> {
    let Some((program, arguments)) = call.command.split_first() else {
        return Err(std::io::Error::other("there is nothing to start"));
    };
    let (reader, writer) = std::io::pipe()?;
    let inherited = ["HOME", "LANG"].iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| USUAL_PATH.into()))
        .envs(inherited)
        .envs(call.environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(if call.input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    let child = command.spawn()?;
    // Its copies of the writing ends are the only ones from here on.
    drop(command);
    Ok((child, pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?))
}

fn of(status: ExitStatus) -> End {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exit(code),
        (None, signal) => End::Signal(signal.unwrap_or_default()),
    }
}

/// Writes the input and closes it. A command that does not read it is no failure.
async fn feed(input: Option<ChildStdin>, bytes: &[u8]) {
    if let Some(mut input) = input {
        let _unread = input.write_all(bytes).await;
    }
}

async fn read(output: &mut pipe::Receiver, kept: &mut Tail) {
    let mut piece = vec![0; 8 << 10];
    while let Ok(len @ 1..) = output.read(&mut piece).await {
        kept.add(&piece[..len]);
    }
}

/// The last bytes of a stream.
#[derive(Debug, Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn add(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        // Not at every piece, which would move all of it each time.
        if self.0.len() > 2 * OUTPUT_KEPT {
            self.0.drain(..self.0.len() - OUTPUT_KEPT);
        }
    }

    fn text(mut self) -> String {
        let from = self.0.len().saturating_sub(OUTPUT_KEPT);
        self.0.drain(..from);
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

/// A process group under its leader. Its number cannot be another's while the leader is not waited for.
struct Group {
    child: Child,
}

impl Group {
    fn leader(&self) -> Option<Pid> {
        self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader() {
            let _gone = kill_process_group(leader, signal);
        }
    }

    /// Ends all of it, kindly first, and reads what is said meanwhile.
    async fn end(&mut self, output: &mut pipe::Receiver, kept: &mut Tail) {
        self.signal(Signal::TERM);
        let leader = async {
            while !self.leader_has_ended() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        // Whoever of the group is still there holds the output open, or has nothing more to say.
        let all = async { tokio::join!(leader, read(output, kept)) };
        let _told_to_end = tokio::time::timeout(GRACE, all).await;
        self.signal(Signal::KILL);
        let _status = self.child.wait().await;
        let _held_open = tokio::time::timeout(LOOK_EVERY, read(output, kept)).await;
    }

    /// Looks without waiting for it in the kernel's sense, which would free its number.
    fn leader_has_ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.leader().is_none_or(|leader| !matches!(waitid(WaitId::Pid(leader), look), Ok(None)))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Without an id it has ended and was waited for.
        self.signal(Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    async fn run_sh(script: &str, input: &[u8], timeout: Duration) -> Ended {
        run(Call { command: &sh(script), environment: vec![("MINE".into(), "a b".into())], input: input.to_vec(), timeout }).await
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn what_it_says_and_how_it_ends() {
        let ended = run_sh("echo out; echo err >&2; exit 3", b"", LONG).await;
        assert_eq!((ended.end.clone(), ended.output.as_str()), (End::Exit(3), "out\nerr\n"));
        assert_eq!(ended.told(), "it ended with exit status 3; its last words: out\nerr");
        assert_eq!(run_sh("kill -9 $$", b"", LONG).await.end, End::Signal(9));
        assert!(run_sh("exit 0", b"", LONG).await.end.is_success());
        let missing = run(Call { command: &["/no/such/program".to_owned()], timeout: LONG, ..Call::default() }).await;
        assert!(matches!(missing.end, End::NotStarted(_)), "{missing:?}");
    }

    #[tokio::test]
    async fn its_environment_is_ours() {
        let ended = run_sh("env | cut -d= -f1 | sort | tr '\\n' ' '; pwd; echo \"$MINE\"", b"", LONG).await;
        for word in ended.output.lines().next().unwrap().split(' ').filter(|word| !word.starts_with('/')) {
            assert!(["HOME", "LANG", "MINE", "PATH", "PWD", "_", "SHLVL", "OLDPWD"].contains(&word), "{word}: {}", ended.output);
        }
        assert!(ended.output.ends_with("a b\n"), "{}", ended.output);
    }

    #[tokio::test]
    async fn its_input_is_given_and_need_not_be_read() {
        let input = vec![b'x'; 1 << 20];
        assert_eq!(run_sh("wc -c", &input, LONG).await.output.trim(), (1 << 20).to_string());
        assert_eq!(run_sh("exec <&-; exit 0", &input, LONG).await.end, End::Exit(0));
    }

    #[tokio::test]
    async fn of_much_output_the_end_is_kept() {
        let ended = run_sh("head -c 1000000 /dev/zero | tr '\\0' x; echo end", b"", LONG).await;
        assert_eq!(ended.output.len(), OUTPUT_KEPT);
        assert!(ended.output.ends_with("xxend\n") && ended.told().len() < LAST_WORDS + 100);
    }

    fn is_alive(pid: &str) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| !stat.contains(") Z "))
    }

    async fn is_soon_gone(pid: &str) -> bool {
        for _ in 0..500 {
            if !is_alive(pid) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    #[tokio::test]
    async fn what_takes_too_long_is_ended_with_its_children() {
        // The grandchild does not hear SIGTERM, and the child ends at it.
        let script = "sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' & wait";
        // Long enough for two shells to begin on a busy machine.
        let limit = Duration::from_secs(3);
        let ended = run_sh(script, b"", limit).await;
        assert_eq!(ended.end, End::TimedOut(limit));
        let pid = ended.output.lines().next().unwrap();
        assert!(is_soon_gone(pid).await, "{pid} lives");
        assert!(ended.took < GRACE + LONG && ended.told().contains("took longer than 3 s"), "{ended:?}");
    }

    #[tokio::test]
    async fn whoever_drops_it_ends_it() {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("pid");
        let script = format!("sh -c 'echo $$ > {0}.new; mv {0}.new {0}; while :; do sleep 1; done' & wait", file.display());
        let work = run_sh(&script, b"", LONG);
        let written = async {
            while !file.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            ended = work => panic!("{ended:?}"),
            () = written => {}
        }
        assert!(is_soon_gone(&std::fs::read_to_string(&file).unwrap()).await);
    }

    #[tokio::test]
    async fn a_daemon_it_leaves_behind_holds_nobody_up() {
        let ended = run_sh("sleep 30 & echo $!", b"", LONG).await;
        assert!(ended.end.is_success() && ended.took < Duration::from_secs(20), "{ended:?}");
        let pid = ended.output.trim().parse().unwrap();
        assert!(is_alive(&ended.output));
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
}
