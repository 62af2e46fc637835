//! `lifeboat etcd leave / remove-member / add-member / promote / forfeit-leadership`.

use engine::care::act::{self, Changed};
use engine::care::change::{self, Change, ChangePlan};
use engine::care::look::{Looked, look};
use engine::care::{ClusterView, Quorum};
use engine::progress::Progress;
use engine::{Access, Code, Failure, Outcome};
use serde::Serialize;

use super::ClusterArgs;
use crate::args::{ConsentArgs, GlobalArgs};
use crate::output::{self, Report};
use crate::progress::Teller;
use crate::{consent, signals};

/// What every change takes.
#[derive(clap::Args, Debug)]
struct Common {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Show what would be done, and the sum
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `lifeboat etcd remove-member`.
#[derive(clap::Args, Debug)]
pub(crate) struct RemoveArgs {
    /// Name, id or client URL of the member
    #[arg(value_name = "MEMBER")]
    member: String,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    consent: ConsentArgs,
}

/// Arguments of `lifeboat etcd leave`.
#[derive(clap::Args, Debug)]
pub(crate) struct LeaveArgs {
    /// Name, id or client URL of the member that leaves [default: the one at the only endpoint named]
    #[arg(value_name = "MEMBER")]
    member: Option<String>,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    consent: ConsentArgs,
}

/// Arguments of `lifeboat etcd add-member`.
#[derive(clap::Args, Debug)]
pub(crate) struct AddArgs {
    /// Where the other members will reach it, such as https://10.0.0.4:2380
    #[arg(value_name = "PEER-URL", required = true)]
    peer_urls: Vec<String>,
    /// Without a vote at first: it cannot harm the quorum, and is promoted when it has caught up
    #[arg(long)]
    learner: bool,
    /// Name the new member will have, for the lines printed
    #[arg(long, value_name = "NAME", default_value = "NAME")]
    name: String,
    #[command(flatten)]
    common: Common,
    /// Consent without a question
    #[arg(long, help_heading = "Consent")]
    yes: bool,
}

/// Arguments of `lifeboat etcd promote`.
#[derive(clap::Args, Debug)]
pub(crate) struct PromoteArgs {
    /// Name, id or client URL of the learner
    #[arg(value_name = "MEMBER")]
    member: String,
    #[command(flatten)]
    common: Common,
    /// Consent without a question
    #[arg(long, help_heading = "Consent")]
    yes: bool,
}

/// Arguments of `lifeboat etcd forfeit-leadership` and `move-leader`.
#[derive(clap::Args, Debug)]
pub(crate) struct MoveArgs {
    /// Who shall lead [default: the voting follower that is furthest on]
    #[arg(value_name = "MEMBER")]
    member: Option<String>,
    #[command(flatten)]
    common: Common,
    /// Consent without a question
    #[arg(long, help_heading = "Consent")]
    yes: bool,
}

/// What was done, or would be.
#[derive(Serialize)]
struct Done {
    done: bool,
    change: String,
    member: Option<String>,
    before: Sum,
    after: Sum,
    next: Vec<String>,
}

#[derive(Serialize)]
struct Sum {
    voters: usize,
    working: usize,
    needed: usize,
    survives: usize,
    #[serde(skip)]
    words: String,
}

impl From<Quorum> for Sum {
    fn from(quorum: Quorum) -> Self {
        Self { voters: quorum.voters, working: quorum.working, needed: quorum.needed(), survives: quorum.spare(), words: quorum.words() }
    }
}

impl Report for Done {
    const SCHEMA: &'static str = "lifeboat.etcd-change/1";

    fn table(&self) -> String {
        let verb = if self.done { "done" } else { "would do" };
        let mut text = format!("{verb:<9}{}\n", self.change);
        if let Some(member) = self.member.as_ref().filter(|_| self.done) {
            text.push_str(&format!("member   {member}\n"));
        }
        text.push_str(&format!("before   {}\n{}    {}\n", self.before.words, if self.done { "after" } else { "then " }, self.after.words));
        for line in &self.next {
            text.push_str(&format!("next     {line}\n"));
        }
        text
    }
}

/// How consent is given to a change.
enum Consent<'a> {
    Yes(bool),
    Name(&'a ConsentArgs),
}

/// Runs `remove-member`.
pub(crate) fn remove(global: &GlobalArgs, args: &RemoveArgs) -> Outcome<Code> {
    let access = &args.common.cluster.access(global)?;
    let plan = |looked: &Looked| {
        let member = change::meant(&looked.view, &args.member)?;
        if looked.view.over_talos && member.answer.is_ok() {
            output::say(&format!(
                "note: {} answers: 'lifeboat etcd leave' makes its node stop etcd and delete its data; this only takes it off the list",
                member.label()
            ));
        }
        change::remove(&looked.view, member)
    };
    let work = Work { plan: &plan, first: &nothing, consent: Consent::Name(&args.consent) };
    carry_out(global, (&args.common, access), &work, &|_, _| {
        vec![
            match access {
                Access::Etcd(_) => "stop that etcd if it still runs, and keep its data directory away from the cluster",
                Access::Talos(_) => {
                    "its node is reset (talosctl reset), or replaced by another one with its machine config (talosctl apply-config); a node that still runs leaves better by 'leave'"
                }
            }
            .to_owned(),
        ]
    })
}

/// Runs `leave`: the leadership first, then the membership.
pub(crate) fn leave(global: &GlobalArgs, args: &LeaveArgs) -> Outcome<Code> {
    // A node leaves by itself, also where etcd could be asked directly: then its data is cleaned up.
    let access = args.common.cluster.access(global)?.without_direct();
    let text = match (&args.member, access.only_member()) {
        (Some(member), _) => member.clone(),
        (None, Some(only)) => only.to_owned(),
        (None, None) => {
            return Err(Failure::usage("it is not said which member leaves")
                .cause("name it, or name its endpoint alone with --endpoints (over Talos its node with -n)")
                .next(["lifeboat", "etcd", "members"]));
        }
    };
    let plan = |looked: &Looked| change::leave(&looked.view, change::meant(&looked.view, &text)?);
    let hand_over = |looked: &Looked| {
        let leaves = change::meant(&looked.view, &text)?.id;
        if looked.view.leader() == Some(leaves) { change::move_leader(&looked.view, None).map(Some) } else { Ok(None) }
    };
    let work = Work { plan: &plan, first: &hand_over, consent: Consent::Name(&args.consent) };
    let next = match &access {
        Access::Etcd(_) => {
            "on that machine: stop etcd, and move its data directory away; it joins again by add-member --learner, with an empty one"
        }
        Access::Talos(_) => {
            "its etcd is stopped and its data deleted; it joins again as a learner when it reboots (talosctl reboot). To take the node out for good: talosctl reset"
        }
    };
    carry_out(global, (&args.common, &access), &work, &|_, _| vec![next.to_owned()])
}

/// Runs `add-member`.
pub(crate) fn add(global: &GlobalArgs, args: &AddArgs) -> Outcome<Code> {
    let plan = |looked: &Looked| {
        act::offered(looked, "to add a member: its nodes join by themselves")?;
        change::add(&looked.view, args.peer_urls.clone(), args.learner)
    };
    let next = |view: &ClusterView, changed: &Changed| {
        let of = |member: &engine::care::MemberView| {
            let name = if Some(member.id) == changed.added { args.name.as_str() } else { member.name.as_str() };
            member.peer_urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",")
        };
        let initial: Vec<String> =
            view.members.iter().filter(|member| !member.name.is_empty() || Some(member.id) == changed.added).map(of).collect();
        let mut lines = vec![format!(
            "start it with an empty data directory: etcd --name {} --initial-advertise-peer-urls {} --initial-cluster {} --initial-cluster-state existing",
            args.name,
            args.peer_urls.join(","),
            initial.join(",")
        )];
        if args.learner {
            let id = changed.added.map(|id| id.to_string()).unwrap_or_default();
            lines.push(format!("when it has caught up: {}", super::with_source(&format!("lifeboat etcd promote {id}"))));
        }
        lines
    };
    let work = Work { plan: &plan, first: &nothing, consent: Consent::Yes(args.yes) };
    carry_out(global, (&args.common, &args.common.cluster.access(global)?), &work, &next)
}

/// Runs `promote`.
pub(crate) fn promote(global: &GlobalArgs, args: &PromoteArgs) -> Outcome<Code> {
    let plan = |looked: &Looked| {
        act::offered(looked, "to promote a learner: its nodes see to that by themselves")?;
        change::promote(&looked.view, change::meant(&looked.view, &args.member)?)
    };
    let work = Work { plan: &plan, first: &nothing, consent: Consent::Yes(args.yes) };
    carry_out(global, (&args.common, &args.common.cluster.access(global)?), &work, &|_, _| vec![super::with_source("lifeboat etcd health")])
}

/// Runs `forfeit-leadership`, which is `move-leader`.
pub(crate) fn move_leader(global: &GlobalArgs, args: &MoveArgs) -> Outcome<Code> {
    let plan = |looked: &Looked| {
        if args.member.is_some() {
            act::offered(looked, "a choice of who leads next: the leader hands over to whom it likes")?;
        }
        let to = args.member.as_deref().map(|text| change::meant(&looked.view, text)).transpose()?;
        change::move_leader(&looked.view, to)
    };
    let work = Work { plan: &plan, first: &nothing, consent: Consent::Yes(args.yes) };
    carry_out(global, (&args.common, &args.common.cluster.access(global)?), &work, &|_, _| Vec::new())
}

type Planner<'a> = &'a dyn Fn(&Looked) -> Outcome<ChangePlan>;
type First<'a> = &'a dyn Fn(&Looked) -> Outcome<Option<ChangePlan>>;
type Follow<'a> = &'a dyn Fn(&ClusterView, &Changed) -> Vec<String>;

/// What a verb does.
struct Work<'a> {
    plan: Planner<'a>,
    /// What must come before it.
    first: First<'a>,
    consent: Consent<'a>,
}

fn nothing(_: &Looked) -> Outcome<Option<ChangePlan>> {
    Ok(None)
}

fn carry_out(global: &GlobalArgs, (common, access): (&Common, &Access), work: &Work<'_>, follow: Follow<'_>) -> Outcome<Code> {
    let looked = signals::run(super::seen(global, access))?;
    let plan = (work.plan)(&looked)?;
    let first = (work.first)(&looked)?;
    let words = first.iter().map(|first| format!("{}, then ", first.words)).collect::<String>() + &plan.words;
    let mut report =
        Done { done: false, change: words.clone(), member: None, before: plan.before.into(), after: plan.after.into(), next: Vec::new() };
    if !common.dry_run {
        let what = format!("This will {words}. {}", plan.sum());
        match work.consent {
            Consent::Yes(yes) => consent::by_yes(yes, &what)?,
            Consent::Name(args) => consent::by_name(args, Some(&common.cluster.name(global, &looked)?), &what)?,
        }
        let changed = signals::run(carried_out(access, work, (&looked, &plan), &Teller::new(global)))?;
        report.done = true;
        report.member = changed.added.map(|id| id.to_string());
        report.after = Quorum::of(&changed.view).into();
        report.next = follow(&changed.view, &changed);
    }
    output::report(global.format(), &report)?;
    Ok(Code::Ok)
}

/// Looks again first: time went by while somebody was asked, and the arithmetic must hold now.
async fn carried_out(access: &Access, work: &Work<'_>, shown: (&Looked, &ChangePlan), progress: &dyn Progress) -> Outcome<Changed> {
    let mut looked = look(access).await?;
    let access = &looked.everywhere(access);
    is_what_was_shown(shown, &looked, &(work.plan)(&looked)?)?;
    if let Some(first) = (work.first)(&looked)? {
        act::change(access, &looked, &first, progress).await?;
        progress.say(&format!("done: {}", first.words));
        looked = look(access).await?;
    }
    let plan = (work.plan)(&looked)?;
    is_what_was_shown(shown, &looked, &plan)?;
    act::change(access, &looked, &plan, progress).await
}

/// That a name or an endpoint still means the member and the cluster that consent was given for. Who leads next may have changed: that harms nobody.
fn is_what_was_shown((before, shown): (&Looked, &ChangePlan), now: &Looked, plan: &ChangePlan) -> Outcome<()> {
    let same_cluster = before.view.cluster_ids() == now.view.cluster_ids()
        && now.view.members.iter().any(|member| before.view.member(member.id).is_some());
    let same_change = plan.change == shown.change || matches!(plan.change, Change::MoveLeader { .. });
    if same_cluster && same_change {
        return Ok(());
    }
    Err(Failure::usage("nothing was done: meanwhile this means another member, or another cluster, than was shown")
        .cause(format!("shown: {}; now: {}", shown.words, plan.words))
        .next(["lifeboat", "etcd", "members"]))
}
