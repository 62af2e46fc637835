//! `lifeboat recover …`: bringing a cluster back. `restore` makes files; this brings the cluster they are for back to life.

mod found;
mod rehearsal;
mod report;
mod talos;

use clap::Subcommand;
use engine::{Code, Outcome};

use crate::args::GlobalArgs;

/// Arguments of `lifeboat recover`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Bring etcd of a Talos Linux cluster back; without a backup named: find out what state it is in, and the ways out
    Talos(Box<talos::Args>),
}

/// Runs `lifeboat recover …`.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Outcome<Code> {
    match args.what {
        What::Talos(args) => talos::run_verb(global, &args),
    }
}
