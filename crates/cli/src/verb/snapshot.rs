//! `lifeboat snapshot`: what etcdctl and etcdutl do with plain snapshot files, with their flags, their words and their forms of output.

mod describe;
mod form;
mod restore;
pub(super) mod save;

use engine::{Code, Outcome};

use crate::args::GlobalArgs;
use crate::output::Format;

/// Arguments of `lifeboat snapshot`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Form of the output
    // Takes the place of the global argument of this name, whose default is another: etcdctl's and etcdutl's is this.
    #[arg(
        short = 'o',
        long = "output",
        alias = "write-out",
        short_alias = 'w',
        value_enum,
        global = true,
        value_name = "FORM",
        env = "LIFEBOAT_OUTPUT",
        default_value = "simple"
    )]
    output: Format,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand, Debug)]
enum Verb {
    /// Save one member's snapshot to a file, as etcdctl does
    Save(Box<save::SaveArgs>),
    /// Describe a snapshot file, as etcdutl does
    Status(describe::StatusArgs),
    /// Make a data directory from a snapshot file, as etcdutl does
    #[command(after_help = "Revisions are bumped only when told; `lifeboat restore` bumps by itself, and clears stale alarms.")]
    Restore(Box<restore::RestoreArgs>),
    /// Compute HashKV of a snapshot file or database, as etcdutl does, without changing it
    Hashkv(describe::HashkvArgs),
}

/// Runs `lifeboat snapshot`.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Outcome<Code> {
    let format = if global.json { Format::Json } else { args.output };
    match args.verb {
        Verb::Save(args) => save::run(global, format, *args),
        Verb::Status(args) => describe::status(global, format, &args),
        Verb::Restore(args) => restore::run(global, *args),
        Verb::Hashkv(args) => describe::hashkv(format, &args),
    }
}

/// `lifeboat etcd hashkv FILE`: the same as `snapshot hashkv`.
pub(crate) fn hashkv_of(global: &GlobalArgs, file: &std::path::Path) -> Outcome<Code> {
    describe::hashkv_of(global.format(), file)
}
