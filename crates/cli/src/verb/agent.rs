//! `lifeboat agent`.

use std::sync::Arc;

use agent::run::Options;
use engine::{Code, Failure, Outcome};

use super::try_backup;
use crate::args::GlobalArgs;
use crate::{output, resolve};

/// Arguments of `lifeboat agent`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "What it does is lifeboat.yaml's to say: docs/agent.md. SIGHUP reads the configuration again; SIGTERM ends it, after what is under way (agent.stop_within). Everything it must remember is in the repository: another agent on another machine goes on."
)]
pub(crate) struct Args {
    /// Where to serve metrics and status: address and port, or off [default: agent.listen of the configuration, else 127.0.0.1:9790]
    #[arg(long, value_name = "ADDRESS", env = "LIFEBOAT_LISTEN")]
    listen: Option<String>,
}

/// Runs `lifeboat agent`.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Outcome<Code> {
    let (path, mut config) = resolve::configuration(global)?.ok_or_else(|| {
        Failure::usage("the agent has no configuration")
            .cause("it looks for /etc/lifeboat/lifeboat.yaml and lifeboat.yaml in the user's own directory; --config names another one")
            .next(["lifeboat", "init"])
    })?;
    if let Some(listen) = &args.listen {
        config.agent.get_or_insert_default().listen = Some(listen.clone());
    }
    engine::seal_pipeline::step_back_behind_etcd(false);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the runtime cannot be started: {error}")))?;
    let ended = runtime.block_on(agent::run::run(Options { path, config, tie: try_backup::tie() }, Arc::new(output::say)));
    // Threads that still hold a blocking call must not keep an agent alive that was told to end.
    runtime.shutdown_background();
    ended.map(|()| Code::Ok)
}
