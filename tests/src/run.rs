//! Running a program to its end, with everything a test wants to know afterwards.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::process::{Process, guarded};
use crate::sampler::{ProcSampler, Usage};

/// A program that takes longer hangs, unless [`Run::timeout`] says otherwise.
const TIMEOUT: Duration = Duration::from_secs(180);

/// How long after a program's end its pipes may stay open.
const PIPE_GRACE: Duration = Duration::from_secs(5);

/// A program about to be run.
#[derive(Debug, Clone)]
pub struct Run {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    clear_env: bool,
    dir: Option<PathBuf>,
    stdin: Vec<u8>,
    timeout: Duration,
    kill_after: Option<(Duration, Signal)>,
}

impl Run {
    /// A program by path, or by name from `PATH`.
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            clear_env: false,
            dir: None,
            stdin: Vec::new(),
            timeout: TIMEOUT,
            kill_after: None,
        }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts from an empty environment.
    #[must_use]
    pub fn clear_env(mut self) -> Self {
        self.clear_env = true;
        self
    }

    /// The working directory.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// What it reads from its standard input; nothing by default.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// How long it may take before it is killed and counts as hanging.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Sends SIGKILL after `delay`, to see what a sudden end leaves behind.
    #[must_use]
    pub fn kill_after(self, delay: Duration) -> Self {
        self.signal_after(delay, Signal::KILL)
    }

    /// Sends a signal after `delay`.
    #[must_use]
    pub fn signal_after(mut self, delay: Duration, signal: Signal) -> Self {
        self.kill_after = Some((delay, signal));
        self
    }

    /// Runs it to its end.
    #[must_use]
    pub fn run(self) -> Finished {
        self.start().finish()
    }

    /// Starts it and returns at once.
    #[must_use]
    pub fn start(self) -> Running {
        let mut command = guarded(&self.program);
        if self.clear_env {
            command.env_clear();
        }
        command.args(&self.args).envs(self.env.iter().map(|(key, value)| (key, value)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let name = self.describe();
        let begun = Instant::now();
        let mut process = Process::start_with_streams(&name, command).unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let sampler = ProcSampler::start(process.pid());
        let child = process.child();
        let mut stdin = child.stdin.take().unwrap();
        let stdout = Collector::start(child.stdout.take().unwrap());
        let stderr = Collector::start(child.stderr.take().unwrap());
        let input = self.stdin;
        // A program that does not read its input closes the pipe; that is its right.
        std::thread::spawn(move || drop(stdin.write_all(&input)));
        Running { name, process, sampler, stdout, stderr, begun, timeout: self.timeout, kill_after: self.kill_after }
    }

    fn describe(&self) -> String {
        let mut text = self.program.to_string_lossy().into_owned();
        for arg in &self.args {
            text.push(' ');
            text.push_str(&arg.to_string_lossy());
        }
        text
    }
}

/// A program that runs.
#[derive(Debug)]
pub struct Running {
    name: String,
    process: Process,
    sampler: ProcSampler,
    stdout: Collector,
    stderr: Collector,
    begun: Instant,
    timeout: Duration,
    kill_after: Option<(Duration, Signal)>,
}

impl Running {
    /// The process, to look at it or to send it signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it wrote to its output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it wrote to its errors so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until `text` appears in its output or errors; panics when it ends or `limit` passes before.
    pub fn wait_for(&mut self, text: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            let ended = !self.process.running();
            if self.stdout().contains(text) || self.stderr().contains(text) {
                return;
            }
            assert!(!ended, "{} ended before it said {text:?}\n{}\n{}", self.name, self.stdout(), self.stderr());
            assert!(Instant::now() < deadline, "{} did not say {text:?}\n{}\n{}", self.name, self.stdout(), self.stderr());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal and waits for the end.
    #[must_use]
    pub fn signal(self, signal: Signal) -> Finished {
        self.process.signal(signal);
        self.finish()
    }

    /// Waits for the end.
    #[must_use]
    pub fn finish(mut self) -> Finished {
        let deadline = self.begun + self.timeout;
        if let Some((delay, signal)) = self.kill_after {
            let left = (self.begun + delay).saturating_duration_since(Instant::now());
            if !self.process.wait_exited(left) {
                self.process.signal(signal);
            }
        }
        let timed_out = !self.process.wait_exited(deadline.saturating_duration_since(Instant::now()));
        let took = self.begun.elapsed();
        let usage = self.sampler.stop();
        let orphans = if timed_out { Vec::new() } else { self.process.companions() };
        let status = self.process.kill();
        Finished { name: self.name, status, stdout: self.stdout.finish(), stderr: self.stderr.finish(), took, usage, orphans, timed_out }
    }
}

/// A program that ended.
#[derive(Debug, Clone)]
pub struct Finished {
    name: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its output.
    pub stdout: Vec<u8>,
    /// Its errors.
    pub stderr: Vec<u8>,
    /// Wall-clock time.
    pub took: Duration,
    /// Memory and processor time.
    pub usage: Usage,
    /// Processes it started and left running (they are killed).
    pub orphans: Vec<u32>,
    /// It had to be killed because it hung.
    pub timed_out: bool,
}

impl Finished {
    /// The exit code; `None` when a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The number of the signal that ended it.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Its output as text.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Its errors as text.
    #[must_use]
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Its output as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }

    /// Insists on exit code 0.
    #[must_use = "or call `drop` on it"]
    pub fn ok(self) -> Self {
        self.exit(0)
    }

    /// Insists on an exit code.
    #[must_use = "or call `drop` on it"]
    pub fn exit(self, code: i32) -> Self {
        assert!(!self.timed_out, "hung and was killed: {self}");
        assert_eq!(self.code(), Some(code), "{self}");
        self
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{} after {:.1?}\n--- output\n{}\n--- errors\n{}", self.name, self.status, self.took, self.out(), self.err())
    }
}

/// Reads a pipe to its end on a thread.
#[derive(Debug)]
struct Collector {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Collector {
    fn start(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                sink.lock().unwrap().extend_from_slice(&buffer[..n]);
            }
        });
        Self { bytes, thread }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    fn finish(self) -> Vec<u8> {
        // A daemon that left the process group may hold the pipe open for ever.
        let deadline = Instant::now() + PIPE_GRACE;
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::mem::take(&mut self.bytes.lock().unwrap())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_about_a_run_is_known() {
        let finished = Run::new("sh").args(["-c", "cat; echo bad >&2; exit 5"]).stdin("good").run().exit(5);
        assert_eq!((finished.out().as_str(), finished.err().as_str()), ("good", "bad\n"));
        assert!(finished.orphans.is_empty() && !finished.timed_out);
    }

    #[test]
    fn memory_and_time_are_measured() {
        // tail keeps what it reads until it sees the end of a line; there is none.
        let script =
            "head -c 60000000 /dev/zero | (tail -c 50000000; sleep 0.3) >/dev/null; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let finished = Run::new("sh").args(["-c", script]).run().ok();
        assert!(finished.usage.samples > 5, "{:?}", finished.usage);
        assert!(finished.usage.peak_memory > 0 && finished.usage.peak_memory < 50_000_000, "only the shell itself: {:?}", finished.usage);
        assert!(finished.usage.cpu() > Duration::from_millis(20), "{:?}", finished.usage);
    }

    #[test]
    fn what_is_left_behind_is_noticed_and_removed() {
        let finished = Run::new("sh").args(["-c", "sleep 600 >/dev/null 2>&1 & echo $!"]).run().ok();
        let left: u32 = finished.out().trim().parse().unwrap();
        assert_eq!(finished.orphans, [left]);
    }

    #[test]
    fn a_hang_and_a_kill_are_told_apart() {
        assert!(Run::new("sleep").arg("600").timeout(Duration::from_millis(50)).run().timed_out);
        let killed = Run::new("sleep").arg("600").kill_after(Duration::from_millis(50)).run();
        assert_eq!((killed.timed_out, killed.signal()), (false, Some(9)));
    }
}
