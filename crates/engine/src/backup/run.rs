//! The whole of a backup, from looking round to the commit.

use std::collections::BTreeSet;
use std::sync::Arc;

use etcd_api::ErrorKind;
use etcd_store::id::{MemberId, Revision};
use jiff::Timestamp;
use vault::backup_id::BackupId;
use vault::key::SnapshotObject;
use vault::repository::Catalog;
use vault::seal::{Recipients, SecretString};
use vault::sign::SigningKey;

use super::attempt::{self, AttemptError, Examined, Taken};
use super::commit::{Context, commit};
use super::outlast::{self, Past};
use super::prove::{self, Answers};
use super::stores::{Stores, catch_up};
use super::{Committed, PlannedMember, Report, Request};
use crate::choice::{Choice, Wish, choose};
use crate::failure::{Code, Failure, Outcome};
use crate::judge::{Judgement, Testimony, Verdict};
use crate::lease::{Holder, Mode};
use crate::limits::{BACKUP_WAITS_FOR_DEFRAG, IDENTITY};
use crate::progress::Progress;
use crate::seal_pipeline::{self, SealPlan, on_thread};
use crate::source::Source;
use crate::{exclusion, place, source_failure, store_failure};

/// A snapshot together with what the members say of it.
pub(super) struct Judged {
    pub(super) from: usize,
    pub(super) taken: Taken,
    pub(super) testimonies: Vec<Testimony>,
    pub(super) judgement: Judgement,
}

/// Something that was not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remark {
    pub(super) text: String,
    /// Whether it is on the closed list of exit 3.
    pub(super) serious: bool,
    /// The command that settles it, where there is one.
    pub(super) next: Option<Vec<String>>,
}

impl Remark {
    pub(super) fn note(text: String) -> Self {
        Self { text, serious: false, next: None }
    }

    pub(super) fn serious(text: String) -> Self {
        Self { text, serious: true, next: None }
    }

    pub(super) fn settled_by(self, command: Vec<String>) -> Self {
        Self { next: Some(command), ..self }
    }
}

/// Who can open what is written, and who signs it.
pub(super) struct Keys {
    pub(super) signing: Option<SigningKey>,
    pub(super) recipients: Option<Arc<Recipients>>,
    pub(super) extra_recipients: Option<Arc<Recipients>>,
}

impl Keys {
    fn of(request: &Request) -> Outcome<Self> {
        Ok(Self {
            signing: request.signing_key.as_deref().map(place::signing_key).transpose()?,
            recipients: recipients(&request.recipients, request.passphrase.as_ref())?,
            extra_recipients: extra_recipients(request)?,
        })
    }
}

/// Backs a cluster up. `holder` gets the lease, and has it still when this is dropped: release it then.
pub async fn run(request: Request, holder: &Holder, progress: Arc<dyn Progress>) -> Outcome<Report> {
    let work = back_up(request, holder, Arc::clone(&progress));
    let outcome = tokio::select! {
        outcome = work => outcome,
        never = holder.keep(progress.as_ref()) => match never {},
    };
    holder.release().await;
    outcome
}

async fn back_up(mut request: Request, holder: &Holder, progress: Arc<dyn Progress>) -> Outcome<Report> {
    let keys = Keys::of(&request)?;
    let source = Source::connect(&request.source).await?;
    request.spool.flush_gently |= source.is_here().await?;
    say_source(&source, progress.as_ref());
    // What the cluster refuses is found out before a repository is made or anything else is left behind.
    choose(&source.candidates(), &request.wish)?;
    // Held to the end: nobody defragments a member that is being read.
    let _no_defrag = if request.dry_run {
        Vec::new()
    } else {
        exclusion::for_a_backup(source.known_by(), BACKUP_WAITS_FOR_DEFRAG, progress.as_ref()).await?
    };
    let mut remarks = Vec::new();
    let opening = if request.dry_run { None } else { opening_read(&source, &request.wish, &mut remarks).await? };
    let stores = Stores::open(&request, progress.as_ref()).await?;
    let (cluster, catalog) = stores.catalog(request.cluster.as_ref()).await?;
    request.place = stores.holder().options.clone();
    let repository = &stores.repository;
    let last_run_was_fine = crate::record::last(&catalog).is_none_or(|run| run.result == vault::mark::RunResult::Ok);
    let last = catalog.backups.last().and_then(|backup| backup.manifest.member.as_ref()).map(|member| member.id);
    let choices = choose(&source.candidates(), &Wish { last, ..request.wish.clone() })?;
    let plan = planned(&source, &choices);
    if request.dry_run {
        let (place, stores) = (request.place.clone(), stores.report());
        return Ok(Report {
            code: Code::Ok,
            place,
            cluster,
            committed: Vec::new(),
            plan,
            stores,
            warnings: Vec::new(),
            next: None,
            last_run_was_fine,
        });
    }
    if let Some(word) = holder.take(&stores.deciding(), &cluster, "backup", request.lease).await? {
        progress.say(&format!("note: {word}"));
    }
    let catalog = if request.lease == Mode::Yield { unless_done(&stores, catalog).await? } else { catalog };
    stores.bring_lineages(&cluster).await?;
    let context =
        Context { keys, request: &request, repository, stores: &stores, source: &source, cluster: cluster.clone(), catalog, opening };
    let (committed, majority) = take_all(&context, &choices, &mut remarks, &progress).await?;
    let ids: Vec<BackupId> = committed.iter().map(|backup| backup.manifest.id).collect();
    stores.committed_everywhere_needed(&ids, &cluster)?;
    remarks.extend(catch_up(&stores, &cluster).into_iter().map(|(text, command)| Remark::serious(text).settled_by(command)));
    let code = if !majority {
        Code::Unproven
    } else if remarks.iter().any(|remark| remark.serious) {
        Code::Warnings
    } else {
        Code::Ok
    };
    let next = remarks.iter().find_map(|remark| remark.next.clone());
    let warnings = remarks.into_iter().map(|remark| remark.text).collect();
    Ok(Report {
        code,
        place: stores.holder().options.clone(),
        cluster,
        committed,
        plan,
        stores: stores.report(),
        warnings,
        next,
        last_run_was_fine,
    })
}

/// The catalog as it is now that the lease is held.
///
/// # Errors
/// [`Code::LeaseHeld`] where somebody else has taken a backup since the catalog was read: he had the lease, and gave it back.
async fn unless_done(stores: &Stores, before: Catalog) -> Outcome<Catalog> {
    let (_, now) = stores.catalog(Some(&before.cluster)).await?;
    match now.backups.iter().find(|backup| backup.counts && before.backup(&backup.id()).is_none()) {
        None => Ok(now),
        Some(newer) => Err(Failure::new(Code::LeaseHeld, format!("somebody else has just backed '{}' up", before.cluster))
            .object(newer.id())
            .cause("it was committed while this run began")),
    }
}

fn say_source(source: &Source, progress: &dyn Progress) {
    let answering = source.asked.iter().filter(|asked| asked.candidate.state.is_ok()).count();
    let (asked, all) = (source.asked.len(), source.members.len());
    let of = if asked < all {
        format!("{answering} of {asked} asked answer, of {all} members")
    } else {
        format!("{answering} of {asked} members answer")
    };
    progress.say(&format!("source: {} at {}; {of}", named(source), asked_at(source)));
    for note in &source.notes {
        progress.say(&format!("note: {note}"));
    }
}

fn asked_at(source: &Source) -> String {
    source.asked.iter().map(|asked| asked.candidate.endpoint.as_str()).collect::<Vec<_>>().join(",")
}

/// What the cluster is called before its backups tell more.
fn named(source: &Source) -> String {
    let id = source.cluster_id.map(|id| format!("etcd cluster {id}"));
    match (&source.talos, id) {
        (Some(talos), Some(id)) => format!("Talos context '{}' and {id}", talos.context),
        (Some(talos), None) => format!("Talos context '{}' (its cluster id is not offered by this source)", talos.context),
        (None, id) => id.unwrap_or_else(|| "etcd".to_owned()),
    }
}

fn planned(source: &Source, choices: &[Choice]) -> Vec<PlannedMember> {
    let one = |choice: &Choice| {
        let candidate = &source.asked[choice.candidate].candidate;
        PlannedMember {
            id: candidate.id,
            name: candidate.name.clone(),
            endpoint: candidate.endpoint.clone(),
            reason: choice.reason.clone(),
        }
    };
    choices.iter().map(one).collect()
}

/// The recipients named, else the passphrase.
pub(super) fn recipients(texts: &[String], passphrase: Option<&SecretString>) -> Outcome<Option<Arc<Recipients>>> {
    if texts.is_empty() {
        return Ok(passphrase.map(|passphrase| Arc::new(Recipients::passphrase(passphrase.clone()))));
    }
    Recipients::keys(texts.iter().map(String::as_str)).map(|recipients| Some(Arc::new(recipients))).map_err(|error| {
        Failure::usage("the recipients cannot be used").cause(error).next(["lifeboat", "key", "new", "--identity-out", IDENTITY])
    })
}

fn extra_recipients(request: &Request) -> Outcome<Option<Arc<Recipients>>> {
    let texts = if request.extra_recipients.is_empty() { &request.recipients } else { &request.extra_recipients };
    let recipients = recipients(texts, request.passphrase.as_ref())?;
    if recipients.is_none() && !request.extras.is_empty() {
        return Err(Failure::usage("extras are always sealed, and no recipient is named")
            .cause("name one with --recipient, or leave the extras out")
            .again());
    }
    Ok(recipients)
}

/// How new the cluster is, by a linearizable read. Without a quorum there is none; that is refused unless a degraded backup is allowed.
async fn opening_read(source: &Source, wish: &Wish, remarks: &mut Vec<Remark>) -> Outcome<Option<(Revision, Timestamp)>> {
    if source.is_talos_only() {
        return Ok(None);
    }
    let mut last = None;
    for client in source.asked.iter().filter_map(|asked| asked.link.as_ref()?.etcd()) {
        match client.linearizable_read().await {
            Ok(header) => return Ok(Some((header.revision, Timestamp::now()))),
            Err(error) => last = Some(error),
        }
    }
    let what = "the cluster does not answer a linearizable read";
    let Some(error) = last else { return Err(Failure::new(Code::SourceUnreachable, "no member answers a read").again()) };
    let failure = source_failure::failure(what, &error);
    // A cluster in trouble gives its snapshot all the same; one that says no gives nothing.
    let says_no = matches!(error.kind(), ErrorKind::PermissionDenied(_) | ErrorKind::Unauthenticated(_) | ErrorKind::AuthenticationFailed);
    if says_no {
        return Err(failure);
    }
    if !wish.degraded {
        return Err(failure.again_with(["--degraded"]));
    }
    remarks.push(Remark::serious(format!(
        "the cluster does not answer a linearizable read, so nobody knows how new the backup is ({})",
        failure.cause.unwrap_or_default()
    )));
    Ok(None)
}

/// Takes a backup of the first member that gives a good one; and where members differ, one of each state.
async fn take_all(
    context: &Context<'_>,
    choices: &[Choice],
    remarks: &mut Vec<Remark>,
    progress: &Arc<dyn Progress>,
) -> Outcome<(Vec<Committed>, bool)> {
    let mut committed = Vec::new();
    let mut covered: BTreeSet<MemberId> = BTreeSet::new();
    let mut differing: BTreeSet<MemberId> = BTreeSet::new();
    let mut majority = true;
    let mut failures = Vec::new();
    for choice in choices {
        let member = context.source.asked[choice.candidate].candidate.id;
        let is_wanted = committed.is_empty() || (differing.contains(&member) && !covered.contains(&member));
        if !is_wanted {
            continue;
        }
        let name = name_of(context.source, choice.candidate);
        progress.say(&format!("member: {name}: {}", choice.reason));
        match take_one(context, choice, remarks, progress).await {
            Ok((backup, judgement)) => {
                covered.insert(member);
                covered.extend(&judgement.agree);
                differing.extend(&judgement.differ);
                majority &= judgement.majority;
                committed.push(backup);
            }
            Err(AttemptError::Member(failure)) => {
                progress.say(&format!(
                    "member {name} is given up: {}{}",
                    failure.what,
                    failure.cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default()
                ));
                remarks.push(Remark::note(format!("member {name} gave no good backup: {}", failure.what)));
                failures.push(failure);
            }
            Err(AttemptError::Here(failure)) => return Err(failure),
        }
    }
    if committed.is_empty() {
        // At least one member was tried, for a choice is never empty.
        return Err(failures.into_iter().next_back().unwrap_or_else(|| Failure::failed("no member gave a good backup")));
    }
    for member in differing.difference(&covered) {
        remarks.push(Remark::note(format!("member {member} holds something else than the others, and no backup of it could be taken")));
    }
    Ok((committed, majority))
}

fn name_of(source: &Source, at: usize) -> String {
    let candidate = &source.asked[at].candidate;
    if candidate.id == MemberId(0) {
        return candidate.endpoint.clone();
    }
    if candidate.name.is_empty() { candidate.id.to_string() } else { format!("{} ({})", candidate.name, candidate.id) }
}

async fn take_one(
    context: &Context<'_>,
    choice: &Choice,
    remarks: &mut Vec<Remark>,
    progress: &Arc<dyn Progress>,
) -> Result<(Committed, Judgement), AttemptError> {
    let started = Timestamp::now();
    let id = BackupId::new(started).map_err(|error| Failure::failed(error.to_string()))?;
    let asked = &context.source.asked[choice.candidate];
    let (Some(link), Ok(state)) = (&asked.link, &asked.candidate.state) else {
        return Err(AttemptError::Member(
            Failure::new(Code::SourceUnreachable, "the member does not answer").object(&asked.candidate.endpoint),
        ));
    };
    let request = context.request;
    let plan = SealPlan {
        layers: context.layers(),
        recipients: context.keys.recipients.clone(),
        workers: seal_pipeline::workers(request.gentle),
        person: request.person,
    };
    let early = ask_early(context, choice, progress.as_ref()).await;
    let key = context.key(id, SnapshotObject::Data(context.layers()));
    let upload =
        context.repository.store().upload(&key).await.map_err(|error| store_failure::failure("the snapshot cannot be stored", &error))?;
    let ask = async |examined: &Examined| {
        let (revision, floor) = (examined.inspection.revision, Revision(examined.hash_kv.compact_revision));
        early.complete(context.source, choice.candidate, revision, floor, request.hashkv_budget).await
    };
    let member = attempt::Source { link, size: Some(state.db_size).filter(|size| *size > 0) };
    let taken = attempt::take(attempt::Origin::Member(member), &request.spool, plan, upload, ask, progress).await?;
    let (taken, testimonies, judgement) = judge(context.source.clone(), choice.candidate, taken).await?;
    if judgement.verdict == Verdict::Failed {
        taken.upload.abort().await;
        return Err(AttemptError::Member(
            Failure::new(Code::Unproven, "the snapshot does not hold what its own member holds")
                .object(&asked.candidate.endpoint)
                .cause(
                    "HashKV of the stream differs from the member's answer for the same revision: the member's file or memory is damaged",
                )
                .next(["etcdctl", "endpoint", "hashkv", "--cluster"]),
        ));
    }
    judge_remarks(choice, &judgement, &testimonies, remarks);
    let judged = Judged { from: choice.candidate, taken, testimonies, judgement: judgement.clone() };
    let committed = commit(context, id, started, judged, remarks, progress).await?;
    Ok((committed, judgement))
}

/// What the members say of the opening read's revision, where the stream may outlast the snapshot's.
async fn ask_early(context: &Context<'_>, choice: &Choice, progress: &dyn Progress) -> Answers {
    let candidate = &context.source.asked[choice.candidate].candidate;
    let (Some((revision, _)), Ok(state)) = (context.opening, &candidate.state) else { return Answers::default() };
    let manifests = context.catalog.backups.iter().map(|backup| &backup.manifest);
    let expected = outlast::expected(state.db_size, Past::newest(manifests, candidate.id));
    if !outlast::may_outlast(expected) {
        return Answers::default();
    }
    progress.say(&format!(
        "the stream may take {} minutes, and the snapshot's revision be compacted meanwhile: members are asked for HashKV of revision {revision} first",
        expected.as_secs().div_ceil(60)
    ));
    Answers::early(context.source, choice.candidate, revision, context.request.hashkv_budget).await
}

/// Compares on a thread of its own, for the file may have to be hashed again.
async fn judge(source: Source, from: usize, mut taken: Taken) -> Outcome<(Taken, Vec<Testimony>, Judgement)> {
    let spool = Arc::clone(&taken.spool);
    let own = taken.examined.hash_kv;
    let raw = std::mem::take(&mut taken.answers.raw);
    let (testimonies, judgement) = on_thread("compare", move || Ok(prove::compare(&raw, &source, from, &spool, &own))).await?;
    Ok((taken, testimonies, judgement))
}

fn judge_remarks(choice: &Choice, judgement: &Judgement, testimonies: &[Testimony], remarks: &mut Vec<Remark>) {
    let names = |ids: &[MemberId]| {
        let named = testimonies.iter().filter(|testimony| ids.contains(&testimony.member));
        named.map(|testimony| testimony.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    match judgement.verdict {
        Verdict::Inconclusive => {
            remarks.push(Remark::serious("hashkv inconclusive: no member's answer could be compared with the backup".to_owned()))
        }
        Verdict::Disputed => remarks.push(Remark::note(format!(
            "DISPUTED: {} hold(s) something else than this backup; it is never 'latest'. Find the member that diverged and replace it",
            names(&judgement.differ)
        ))),
        Verdict::Match if !judgement.differ.is_empty() => remarks.push(Remark::note(format!(
            "member {} DIVERGED from the majority: what it serves is wrong. Replace it: etcdctl member remove, then add it again empty",
            names(&judgement.differ)
        ))),
        Verdict::Match | Verdict::Failed | Verdict::NotOffered => {}
    }
    if choice.degraded {
        remarks.push(Remark::serious(format!("taken from a member in trouble (--degraded): {}", choice.reason)));
    }
}
