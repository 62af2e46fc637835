//! `lifeboat etcd …`: the daily care of a cluster. One file per verb.

mod alarm;
mod change;
mod defrag;
mod hashkv;
mod health;
mod members;
mod nospace;
mod status;
mod top;

use clap::Subcommand;
use engine::care::look::{Looked, look};
use engine::care::{ClusterView, MemberView};
use engine::source::SourceOptions;
use engine::{Code, Outcome};

use crate::args::{GlobalArgs, SourceArgs};
use crate::output;
use crate::resolve::Resolved;

/// Arguments of `lifeboat etcd`.
#[derive(clap::Args, Debug)]
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
    fn options(&self, global: &GlobalArgs) -> Outcome<SourceOptions> {
        Resolved::new(global, self.cluster.as_deref(), true)?.source(&self.source)
    }

    /// The name that consent is given by: the configured or given one, else the cluster's id.
    fn name(&self, global: &GlobalArgs, view: &ClusterView) -> Outcome<String> {
        let named = Resolved::new(global, self.cluster.as_deref(), true)?.cluster;
        Ok(named.map(|name| name.to_string()).or_else(|| view.cluster_id().map(|id| id.to_string())).unwrap_or_else(|| "etcd".to_owned()))
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
    }
}

/// Looks round and says what was odd on the way.
async fn seen(options: &SourceOptions) -> Outcome<Looked> {
    let looked = look(options).await?;
    say_oddities(&looked.view);
    Ok(looked)
}

fn say_oddities(view: &ClusterView) {
    for note in &view.notes {
        output::say(&format!("note: {note}"));
    }
    for (endpoint, silence) in &view.strangers {
        output::say(&format!("note: nobody answers at {endpoint}: {}", silence.reason));
    }
}

/// Where a member was asked, for the first column.
fn node(member: &MemberView) -> String {
    if member.endpoint.is_empty() { "-".to_owned() } else { member.endpoint.clone() }
}

fn yes(value: bool) -> String {
    if value { "true" } else { "false" }.to_owned()
}
