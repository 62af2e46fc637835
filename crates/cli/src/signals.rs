//! Ctrl-C and SIGTERM: the work is dropped at the next await, which leaves nothing listed and no old state touched.

use std::future::Future;
use std::process::ExitStatus;

use engine::limits::GOODBYE_WITHIN;
use engine::{Code, Failure, Outcome};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Runs work on a fresh runtime until it ends or a signal asks to stop.
pub(crate) fn run<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    run_then(work, async {})
}

/// As [`run`]; after a signal there is a moment for a goodbye.
pub(crate) fn run_then<T>(work: impl Future<Output = Outcome<T>>, goodbye: impl Future<Output = ()>) -> Outcome<T> {
    run_then_within(GOODBYE_WITHIN, work, goodbye)
}

/// As [`run_then`], with a goodbye that may take longer.
pub(crate) fn run_then_within<T>(
    limit: std::time::Duration,
    work: impl Future<Output = Outcome<T>>,
    goodbye: impl Future<Output = ()>,
) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the runtime cannot be started: {error}")))?;
    let outcome = runtime.block_on(async {
        let failure = tokio::select! {
            // In this order: the work begins when signals are listened to.
            biased;
            failure = stopped() => failure,
            outcome = work => return outcome,
        };
        // The work is dropped by now, and what it held is free. A second signal ends the goodbye too.
        tokio::select! {
            _ = tokio::time::timeout(limit, goodbye) => {}
            _ = stopped() => {}
        }
        Err(failure)
    });
    // Threads that still hold a blocking call must not keep a stopped command alive.
    runtime.shutdown_background();
    outcome
}

/// As [`run_then`], and then a command of somebody's, made from what the work came to. From its start on, signals are no longer ours: they are passed on
/// to the command, and this waits for its end.
pub(crate) fn run_then_command<T>(
    work: impl Future<Output = Outcome<T>>,
    goodbye: impl Future<Output = ()>,
    command: impl FnOnce(&T) -> tokio::process::Command,
) -> Outcome<(T, ExitStatus)> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the runtime cannot be started: {error}")))?;
    let outcome = runtime.block_on(async {
        // Listening from the beginning: a signal between the work and the command is not lost.
        let mut heard = Heard::listen()?;
        let made = tokio::select! {
            biased;
            failure = heard.asked_to_stop() => Err(failure),
            outcome = work => outcome,
        };
        let made = match made {
            Ok(made) => made,
            Err(failure) if matches!(failure.code, Code::Interrupted | Code::Terminated) => {
                let _ = tokio::time::timeout(GOODBYE_WITHIN, goodbye).await;
                return Err(failure);
            }
            Err(failure) => return Err(failure),
        };
        let cannot = |error: std::io::Error| Failure::failed(format!("the command cannot be run: {error}")).again();
        let mut child = command(&made).spawn().map_err(cannot)?;
        loop {
            tokio::select! {
                status = child.wait() => return status.map(|status| (made, status)).map_err(cannot),
                signal = heard.next() => pass_on(&child, signal),
            }
        }
    });
    runtime.shutdown_background();
    outcome
}

/// Signals that ask a process to do something.
struct Heard {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    quit: Signal,
}

impl Heard {
    fn listen() -> Outcome<Self> {
        let on = |kind| signal(kind).map_err(|error| Failure::failed(format!("signals cannot be listened to: {error}")));
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hang_up: on(SignalKind::hangup())?,
            quit: on(SignalKind::quit())?,
        })
    }

    async fn next(&mut self) -> rustix::process::Signal {
        tokio::select! {
            _ = self.interrupt.recv() => rustix::process::Signal::INT,
            _ = self.terminate.recv() => rustix::process::Signal::TERM,
            _ = self.hang_up.recv() => rustix::process::Signal::HUP,
            _ = self.quit.recv() => rustix::process::Signal::QUIT,
        }
    }

    async fn asked_to_stop(&mut self) -> Failure {
        match self.next().await {
            rustix::process::Signal::INT | rustix::process::Signal::QUIT => interrupted(),
            _ => terminated(),
        }
    }
}

/// What a key at the terminal sends, the terminal sends to the whole foreground group, the command among it: then it has had it.
fn pass_on(child: &tokio::process::Child, signal: rustix::process::Signal) {
    let from_terminal = signal == rustix::process::Signal::INT || signal == rustix::process::Signal::QUIT;
    // The terminal of the session, whatever standard input is.
    let in_foreground = || {
        let terminal = std::fs::File::open("/dev/tty");
        terminal.is_ok_and(|terminal| rustix::termios::tcgetpgrp(terminal).is_ok_and(|group| group == rustix::process::getpgrp()))
    };
    if from_terminal && in_foreground() {
        return;
    }
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended just now.
        let _gone = rustix::process::kill_process(pid, signal);
    }
}

fn interrupted() -> Failure {
    Failure::new(Code::Interrupted, "interrupted; nothing half-done counts")
}

fn terminated() -> Failure {
    Failure::new(Code::Terminated, "terminated; nothing half-done counts")
}

/// Resolves when SIGINT or SIGTERM comes.
pub(crate) async fn stopped() -> Failure {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => interrupted(),
        _ = terminate.recv() => terminated(),
    }
}
