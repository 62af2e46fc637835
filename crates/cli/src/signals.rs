//! Ctrl-C and SIGTERM: the work is dropped at the next await, which leaves nothing listed and no old state touched.

use std::future::Future;

use engine::limits::GOODBYE_WITHIN;
use engine::{Code, Failure, Outcome};
use tokio::signal::unix::{SignalKind, signal};

/// Runs work on a fresh runtime until it ends or a signal asks to stop.
pub(crate) fn run<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    run_then(work, async {})
}

/// As [`run`]; after a signal there is a moment for a goodbye.
pub(crate) fn run_then<T>(work: impl Future<Output = Outcome<T>>, goodbye: impl Future<Output = ()>) -> Outcome<T> {
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
            _ = tokio::time::timeout(GOODBYE_WITHIN, goodbye) => {}
            _ = stopped() => {}
        }
        Err(failure)
    });
    // Threads that still hold a blocking call must not keep a stopped command alive.
    runtime.shutdown_background();
    outcome
}

/// Resolves when SIGINT or SIGTERM comes.
pub(crate) async fn stopped() -> Failure {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => Failure::new(Code::Interrupted, "interrupted; nothing half-done counts"),
        _ = terminate.recv() => Failure::new(Code::Terminated, "terminated; nothing half-done counts"),
    }
}
