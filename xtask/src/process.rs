//! Running other programs: captured, in line order, and never longer than allowed.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The file a program name stands for on `PATH`, if there is one that may be executed.
pub(crate) fn find_on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| is_executable(file))
}

/// Whether `file` is a regular file with an execute bit.
pub(crate) fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Runs `command` to its end and returns its standard output; an exit code other than 0 is an error that carries the end of what it said.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = describe(command);
    let out = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {name}"))?;
    let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
    if out.status.success() {
        return Ok(stdout);
    }
    let mut said = String::from_utf8_lossy(&out.stderr).into_owned();
    said.push_str(&stdout);
    bail!("{name}: {}: {}", out.status, tail(&said, 6));
}

/// A command that yields to whatever else the machine does (compiling the peers runs beside compiling the project).
pub(crate) fn nice(program: impl AsRef<OsStr>) -> Command {
    if find_on_path("nice").is_some() {
        let mut command = Command::new("nice");
        command.arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// The program and its arguments, for messages.
pub(crate) fn describe(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}

/// The last `lines` non-empty lines, joined for a one-line message.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join(" | ")
}

/// Runs a program and hands every line of its output and errors, in the order written, to `line`.
/// After `limit` the program and all its descendants are killed and `Ok(None)` is returned.
pub(crate) fn stream(command: &Command, limit: Duration, mut line: impl FnMut(&str)) -> Result<Option<ExitStatus>> {
    let name = describe(command);
    let mut child = merged(command).spawn().with_context(|| format!("cannot run {name}"))?;
    let Some(stdout) = child.stdout.take() else { bail!("{name}: no output pipe") };
    let watchdog = Watchdog::start(&child, limit);
    let mut reader = BufReader::new(stdout);
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        if reader.read_until(b'\n', &mut buffer).with_context(|| format!("reading from {name}"))? == 0 {
            break;
        }
        line(String::from_utf8_lossy(&buffer).trim_end_matches(['\n', '\r']));
    }
    let status = child.wait().with_context(|| format!("waiting for {name}"))?;
    Ok(if watchdog.finish() { None } else { Some(status) })
}

/// `command` with errors redirected into its output: one pipe keeps lines in order, two would not.
fn merged(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(key, value),
            None => shell.env_remove(key),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        shell.current_dir(dir);
    }
    shell.stdin(Stdio::null()).stdout(Stdio::piped());
    shell
}

struct Watchdog {
    done: Arc<(Mutex<bool>, Condvar)>,
    fired: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Watchdog {
    fn start(child: &Child, limit: Duration) -> Self {
        let done = Arc::new((Mutex::new(false), Condvar::new()));
        let fired = Arc::new(AtomicBool::new(false));
        let (watch, mark, pid) = (Arc::clone(&done), Arc::clone(&fired), child.id());
        let thread = std::thread::spawn(move || {
            let (lock, wake) = &*watch;
            let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
            let (guard, wait) = wake.wait_timeout_while(guard, limit, |finished| !*finished).unwrap_or_else(PoisonError::into_inner);
            if wait.timed_out() && !*guard {
                mark.store(true, Ordering::SeqCst);
                kill_tree(pid);
            }
        });
        Self { done, fired, thread }
    }

    /// Ends the watch; true when the limit had passed and the program was killed.
    fn finish(self) -> bool {
        *self.done.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.done.1.notify_all();
        drop(self.thread.join());
        self.fired.load(Ordering::SeqCst)
    }
}

/// Kills a process and everything it started. The shell's builtin is used because `kill(1)` is missing from slim images.
fn kill_tree(pid: u32) {
    let mut doomed = vec![pid];
    let mut next = 0;
    while let Some(&parent) = doomed.get(next) {
        doomed.extend(children(parent));
        next += 1;
    }
    let list: Vec<String> = doomed.iter().map(u32::to_string).collect();
    drop(Command::new("sh").arg("-c").arg(format!("kill -9 {}", list.join(" "))).stderr(Stdio::null()).status());
}

fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .ok()
                .and_then(|stat| stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok())
                == Some(parent)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Instant;

    use super::*;

    #[test]
    fn lines_of_both_streams_arrive_in_order() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; echo three; exit 3"]);
        let mut lines = Vec::new();
        let status = stream(&command, Duration::from_secs(20), |line| lines.push(line.to_owned())).unwrap().unwrap();
        assert_eq!(lines, ["one", "two", "three"]);
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "sh -c 'echo $$; sleep 600' & wait"]);
        let mut pid = String::new();
        let status = stream(&command, Duration::from_millis(400), |line| line.clone_into(&mut pid)).unwrap();
        assert!(status.is_none());
        // It was killed, and may still be about to end.
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z ") {
                break;
            }
            assert!(Instant::now() < until, "grandchild survived: {stat}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_failure_carries_what_the_program_said() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 4"])).unwrap_err().to_string();
        assert!(error.contains("why") && error.contains('4'), "{error}");
    }
}
