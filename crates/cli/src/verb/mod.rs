//! The verbs, one file each. A verb resolves its arguments, has `engine` do the work, and prints the report.

pub(crate) mod agent;
pub(crate) mod backup;
pub(crate) mod bare;
pub(crate) mod config;
pub(crate) mod copy;
pub(crate) mod drill;
pub(crate) mod etcd;
pub(crate) mod guard;
pub(crate) mod init;
pub(crate) mod key;
pub(crate) mod label;
pub(crate) mod lineage;
pub(crate) mod list;
pub(crate) mod notify;
mod of_run;
pub(crate) mod prune;
pub(crate) mod recover;
pub(crate) mod restore;
pub(crate) mod schedule;
pub(crate) mod shell;
pub(crate) mod show;
pub(crate) mod snapshot;
pub(crate) mod status;
pub(crate) mod try_backup;
pub(crate) mod verify;

use clap::{Parser, Subcommand};
use engine::Outcome;

use crate::args::GlobalArgs;

/// Backs etcd up, proves that the backups restore, and brings the cluster back.
#[derive(Parser, Debug)]
#[command(name = "lifeboat", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(
    after_help = "restore makes files; recover brings a cluster back.\nExit codes: 0 ok, 1 failed, 2 usage or consent, 3 committed with warnings, 4 advice, 5 alert, 10 no repository, 11 lease held,\n12 no key opens it, 13 wrong or ambiguous cluster, 20 verification failed or disputed, 21 drill failed, 22 too old, 23 never ran, 24 last run failed,\n30 etcd unreachable, 31 store unreachable."
)]
pub(crate) struct Lifeboat {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Find the cluster, make keys and a repository, write lifeboat.yaml
    Init(init::Args),
    /// Back the cluster up: stream, seal, prove, commit
    Backup(backup::VerbArgs),
    /// Show the backups, newest first
    List(list::Args),
    /// Is every cluster protected as its policy says? Exits 0, 22, 23, 24
    Status(status::Args),
    /// Take backups of all configured clusters on schedule, verify them, and tell how they stand
    Agent(agent::Args),
    /// Print, or install, what has Lifeboat run on schedule: systemd, cron, Kubernetes
    Schedule(schedule::Args),
    /// Show one backup in full
    Show(show::Args),
    /// Check that backups are there, whole, and what they claim to be
    Verify(verify::Args),
    /// Bring one store of a repository what it lacks of another: sealed, unopened, checked on the way
    Copy(copy::Args),
    /// Boot a real etcd from a backup, and hold what it answers against what was backed up
    Drill(Box<drill::Args>),
    /// Remove what the policy does not keep: marked first, removed by a later run
    Prune(prune::Args),
    /// Keep a backup whatever the policy says
    Pin(label::PinArgs),
    /// Take the pins off a backup
    Unpin(label::UnpinArgs),
    /// Put words on a backup, or take them off
    Tag(label::TagArgs),
    /// Make a data directory, or a snapshot file, from a backup
    Restore(restore::Args),
    /// Bring a cluster back: find out first, plan, rescue, wipe, restore, wait until all is well; stopped anywhere it goes on
    Recover(recover::Args),
    /// Run a scratch etcd from a backup on loopback, until Ctrl-C
    Try(try_backup::Args),
    /// Care for a cluster: members, status, health, alarms, defragmentation, changes of the membership
    Etcd(etcd::Args),
    /// Take and verify a backup, then run a command that may go wrong; if it fails, say how to go back
    Guard(Box<guard::Args>),
    /// Save, describe and restore plain snapshot files, as etcdctl and etcdutl do
    Snapshot(snapshot::Args),
    /// Make and check keys
    Key(key::Args),
    /// Check and show the configuration
    Config(config::Args),
    /// Show the histories of a cluster, and accept a new one
    Lineage(lineage::Args),
    /// Tell the receivers of the configuration that this is a test, and show what each answered
    Notify(notify::Args),
    /// Print a completion script for a shell
    Completions(shell::CompletionsArgs),
    /// Print the manual, or write its pages to a directory
    Man(shell::ManArgs),
    /// Run a program that ends with this one; for `try`
    #[command(name = try_backup::TIED, hide = true)]
    Tied(try_backup::TiedArgs),
}

/// Runs what was asked for. The answer is what the process exits with.
pub(crate) fn run(lifeboat: Lifeboat) -> Outcome<u8> {
    let global = lifeboat.global;
    let code = match lifeboat.verb {
        // The one verb whose exit code is somebody else's.
        Some(Verb::Guard(args)) => return guard::run(&global, *args),
        None => bare::run(&global),
        Some(Verb::Init(args)) => init::run(&global, args),
        Some(Verb::Backup(args)) => backup::run(&global, args),
        Some(Verb::List(args)) => list::run(&global, args),
        Some(Verb::Status(args)) => status::run(&global, &args),
        Some(Verb::Agent(args)) => agent::run(&global, &args),
        Some(Verb::Schedule(args)) => schedule::run(&global, args),
        Some(Verb::Show(args)) => show::run(&global, args),
        Some(Verb::Verify(args)) => verify::run(&global, args),
        Some(Verb::Copy(args)) => copy::run(&global, args),
        Some(Verb::Drill(args)) => drill::run(&global, *args),
        Some(Verb::Prune(args)) => prune::run(&global, args),
        Some(Verb::Pin(args)) => label::pin(&global, args),
        Some(Verb::Unpin(args)) => label::unpin(&global, args),
        Some(Verb::Tag(args)) => label::tag(&global, args),
        Some(Verb::Restore(args)) => restore::run(&global, args),
        Some(Verb::Recover(args)) => recover::run(&global, args),
        Some(Verb::Try(args)) => try_backup::run(&global, args),
        Some(Verb::Etcd(args)) => etcd::run(&global, args),
        Some(Verb::Snapshot(args)) => snapshot::run(&global, args),
        Some(Verb::Key(args)) => key::run(&global, args),
        Some(Verb::Config(args)) => config::run(&global, args),
        Some(Verb::Lineage(args)) => lineage::run(&global, args),
        Some(Verb::Notify(args)) => notify::run(&global, args),
        Some(Verb::Completions(args)) => shell::completions(args),
        Some(Verb::Man(args)) => shell::man(args),
        Some(Verb::Tied(args)) => try_backup::tied(&args),
    };
    code.map(|code| code as u8)
}
