//! `lifeboat etcd …`: the daily care of a cluster. One file per verb.

mod alarm;
mod beside;
mod change;
mod defrag;
mod hashkv;
mod health;
mod logs;
mod members;
mod nospace;
mod snapshot;
mod status;
mod top;

use clap::Subcommand;
use engine::care::look::{Looked, look};
use engine::care::{ClusterView, MemberView};
use engine::next::line;
use engine::{Access, Code, Outcome};

use crate::args::{GlobalArgs, SourceArgs};
use crate::resolve::Resolved;
use crate::{again, output};

/// Arguments of `lifeboat etcd`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "The members named lead to all others: the member list is always followed. docs/care.md explains every verb and every finding."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Show every member, found from one
    Members(members::Args),
    /// Show what every member says of itself
    Status(status::Args),
    /// Show alarms, and take them back
    Alarm(alarm::Args),
    /// Give free pages back: the members that need it, one at a time, the leader last
    Defrag(defrag::Args),
    /// Ask all members for HashKV at one revision and name the odd one; or compute it of a snapshot file
    Hashkv(hashkv::Args),
    /// Let a member leave the cluster: another one leads, then it is removed (wants the cluster's name)
    Leave(change::LeaveArgs),
    /// Remove a member for good (wants the cluster's name)
    RemoveMember(change::RemoveArgs),
    /// Add a member, best as a learner
    AddMember(change::AddArgs),
    /// Give a learner its vote
    Promote(change::PromoteArgs),
    /// Let another member lead
    #[command(visible_alias = "move-leader")]
    ForfeitLeadership(change::MoveArgs),
    /// Mend a full database (NOSPACE): backup, compact, defragment each, disarm, verify; stopped anywhere it can be run again
    Nospace(Box<nospace::Args>),
    /// Show who fills the database: the largest resources, prefixes and keys of a backup or a snapshot file
    Top(top::Args),
    /// Judge the cluster: a verdict per check and in all (exit 0 healthy, 4 advice, 5 alert)
    Health(health::Args),
    /// Show etcd's log (over Talos; elsewhere: say where it is)
    Logs(logs::Args),
    /// Save one member's snapshot into a file, verified
    Snapshot(snapshot::Args),
}

/// Which cluster is cared for.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct ClusterArgs {
    /// Name of the cluster in the configuration
    #[arg(long, alias = "profile", value_name = "NAME", env = "LIFEBOAT_CLUSTER", help_heading = "Source")]
    pub(crate) cluster: Option<String>,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

impl ClusterArgs {
    /// How it is reached.
    fn access(&self, global: &GlobalArgs) -> Outcome<Access> {
        Resolved::new(global, self.cluster.as_deref(), true)?.source(&self.source)
    }

    /// The name that consent is given by: `--cluster`, or the configured one where the configuration leads there; else the Talos context's, else the
    /// cluster's id. Flags that lead elsewhere take the configured name away: it would be consent to another cluster.
    fn name(&self, global: &GlobalArgs, looked: &Looked) -> Outcome<String> {
        let leads_elsewhere = self.cluster.is_none() && self.source.leads_elsewhere();
        let named = Resolved::new(global, self.cluster.as_deref(), true)?.cluster.map(|name| name.to_string()).filter(|_| !leads_elsewhere);
        let context = || looked.talos.as_ref().map(|talos| talos.context.clone());
        Ok(named.or_else(context).or_else(|| looked.view.cluster_id().map(|id| id.to_string())).unwrap_or_else(|| "etcd".to_owned()))
    }
}

/// Runs `lifeboat etcd …`.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Outcome<Code> {
    match args.what {
        What::Members(args) => members::run(global, &args),
        What::Status(args) => status::run(global, &args),
        What::Alarm(args) => alarm::run(global, &args),
        What::Defrag(args) => defrag::run(global, &args),
        What::Hashkv(args) => hashkv::run(global, &args),
        What::Leave(args) => change::leave(global, &args),
        What::RemoveMember(args) => change::remove(global, &args),
        What::AddMember(args) => change::add(global, &args),
        What::Promote(args) => change::promote(global, &args),
        What::ForfeitLeadership(args) => change::move_leader(global, &args),
        What::Nospace(args) => nospace::run(global, *args),
        What::Top(args) => top::run(global, args),
        What::Health(args) => health::run(global, &args),
        What::Logs(args) => logs::run(global, &args),
        What::Snapshot(args) => snapshot::run(global, args),
    }
}

/// Looks round, says whose cluster this is, and what was odd on the way.
async fn seen(global: &GlobalArgs, access: &Access) -> Outcome<Looked> {
    let looked = look(access).await?;
    say_source(global, access, &looked);
    Ok(looked)
}

fn say_source(global: &GlobalArgs, access: &Access, looked: &Looked) {
    let view = &looked.view;
    if !global.quiet {
        let id = view.cluster_id().map(|id| format!(" {id}")).unwrap_or_default();
        let source = match (access, &looked.talos) {
            (_, Some(talos)) => format!("Talos context '{}' (its cluster id is not offered by this source)", talos.context),
            (Access::Etcd(options), None) => format!("etcd cluster{id} at {}", options.endpoints.join(",")),
            (Access::Talos(_), None) => format!("etcd cluster{id} directly, with a certificate made from a Talos machine config"),
        };
        output::say(&format!("source: {source}; {} of {} members answer", view.answering().count(), view.members.len()));
    }
    say_oddities(view);
}

fn say_oddities(view: &ClusterView) {
    if view.cluster_ids().len() > 1 {
        output::say(&format!("warning: the members that answer belong to different clusters: {}", view.clusters()));
    }
    for note in &view.notes {
        output::say(&format!("note: {note}"));
    }
    for (endpoint, silence) in &view.strangers {
        output::say(&format!("note: nobody answers at {endpoint}: {}", silence.reason));
    }
}

/// A command of these verbs, with the flags that lead to the same cluster.
fn with_source(command: &str) -> String {
    let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let flags = again::source_flags(&words, &arguments);
    if flags.is_empty() { command.to_owned() } else { format!("{command} {}", line(flags)) }
}

/// Where a member was asked, for the first column.
fn node(member: &MemberView) -> String {
    if member.endpoint.is_empty() { "-".to_owned() } else { member.endpoint.clone() }
}

/// The cluster a member belongs to, where several were found.
fn cluster_of(view: &ClusterView, member: &MemberView) -> Option<String> {
    let own = member.answer.as_ref().ok()?.cluster_id?;
    (view.cluster_ids().len() > 1).then(|| own.to_string())
}

fn yes(value: bool) -> String {
    if value { "true" } else { "false" }.to_owned()
}
