//! `lifeboat recover talos`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine::backup::RescueRequest;
use engine::drill::rehearse::rehearse;
use engine::exclusion::state_directory;
use engine::journal::{Desk, Journal, Journals, run, run_before};
use engine::limits::RECOVERY_PATIENCE;
use engine::place::{PlaceOptions, Which};
use engine::recover::talos::checks::{self, Backup, Member};
use engine::recover::talos::diagnosis::diagnose;
use engine::recover::talos::look::{self, find_out};
use engine::recover::talos::plan::{self, Wanted};
use engine::recover::talos::{Evidence, Goal, Plan, Prepare, Recovery, Source, Step, VERB};
use engine::talos::{TalosOptions, reach};
use engine::{Code, Failure, Outcome, config, drill, select, snapshot_file};
use etcd_store::version::Version;
use vault::name::{ClusterName, RepositoryId};

use super::found::{Found, with_source};
use super::rehearsal::Rehearsed;
use super::report::{Recovered, rescue_words};
use crate::args::{ConsentArgs, GlobalArgs, IdentityArgs, RepositoryArgs, SpoolArgs, TalosArgs};
use crate::progress::Teller;
use crate::resolve::Resolved;
use crate::{consent, output, passphrase, signals};

/// Arguments of `lifeboat recover talos`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Without WHICH, --file, --from-node or --replace nothing is changed: the state is shown, what each way out loses, and the command for each.\nA recovery is one plan with a journal: stopped anywhere, the same command goes on where it was, on the same node. docs/talos.md goes through the worst day step by step."
)]
pub(crate) struct Args {
    /// Restore this backup: id, unique prefix, last six characters, latest, latest~N, @REVISION
    #[arg(value_name = "WHICH", conflicts_with_all = ["file", "from_node", "replace"])]
    which: Option<String>,
    /// Restore the newest backup not later than this: RFC 3339, local time, or '2 hours ago'
    #[arg(long, value_name = "WHEN", conflicts_with_all = ["which", "file", "from_node", "replace"])]
    at: Option<String>,
    /// Restore this snapshot file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from_node", "replace"])]
    file: Option<PathBuf>,
    /// Take --file without a digest: a copy of a database. Its structure is checked, and the server's own check stays on
    #[arg(long, requires = "file")]
    recover_skip_hash_check: bool,
    /// Restore what this node still holds
    #[arg(long, value_name = "NODE", conflicts_with = "replace")]
    from_node: Option<String>,
    /// The cluster has a quorum: replace the member on this node
    #[arg(long, value_name = "NODE")]
    replace: Option<String>,
    /// The node to bootstrap [default: one is chosen, and said why]
    #[arg(long, value_name = "NODE", conflicts_with = "replace")]
    node: Option<String>,
    /// A node that is out of order and powered off, and is wiped before it is ever started again (repeatable)
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    node_gone: Vec<String>,
    /// Restore although etcd has a quorum: what it holds is given up (a rescue of it is kept)
    // No environment variable for these: each is decided for one run, by a person who looks.
    #[arg(long)]
    roll_back: bool,
    /// Restore although the data seem to be of another cluster
    #[arg(long)]
    foreign: bool,
    /// Wipe what cannot be read, without a rescue of it
    #[arg(long)]
    no_rescue: bool,
    /// Leave revisions as they were: unsafe for Kubernetes
    #[arg(long)]
    no_bump: bool,
    /// Take every endpoint for one node although no node has its address (address translation)
    #[arg(long)]
    endpoints_as_given: bool,
    /// Where rescue files go: a directory that is not there yet [default: one in the state directory]
    #[arg(long, value_name = "DIR", env = "LIFEBOAT_RESCUE_DIR")]
    directory: Option<PathBuf>,
    /// How long a step may show no change before this run gives up [default: 15m]
    #[arg(long, value_name = "TIME", env = "LIFEBOAT_PATIENCE")]
    patience: Option<String>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Look whether a recovery would have all it needs now (a backup, its key, room, nodes that answer), and do nothing
    #[arg(long, conflicts_with_all = ["file", "from_node", "replace", "dry_run", "abandon"])]
    rehearse: bool,
    /// Give the plan up that was begun, and say in what state things are
    #[arg(long)]
    abandon: bool,
    #[command(flatten)]
    talos: TalosArgs,
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    /// age recipient to seal rescues to that go into the repository too [default: the configured ones] (repeatable)
    #[arg(short = 'r', long, value_name = "RECIPIENT", env = "LIFEBOAT_RECIPIENT", value_delimiter = ',', help_heading = "Keys")]
    recipient: Vec<String>,
    #[command(flatten)]
    consent: ConsentArgs,
}

impl Args {
    fn wants_nothing(&self) -> bool {
        self.which.is_none() && self.at.is_none() && self.file.is_none() && self.from_node.is_none() && self.replace.is_none()
    }
}

impl Args {
    /// The words that say which recovery is meant. Whoever says the same goes on with it.
    fn asked(&self) -> Vec<String> {
        let path = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string();
        let named = [
            ("", self.which.clone()),
            ("--at", self.at.clone()),
            ("--file", self.file.as_ref().map(path)),
            ("--from-node", self.from_node.clone()),
            ("--replace", self.replace.clone()),
            ("--node", self.node.clone()),
        ];
        let flags = [
            ("--roll-back", self.roll_back),
            ("--foreign", self.foreign),
            ("--no-rescue", self.no_rescue),
            ("--no-bump", self.no_bump),
            ("--recover-skip-hash-check", self.recover_skip_hash_check),
        ];
        let mut words: Vec<String> =
            named.into_iter().filter_map(|(flag, value)| Some(format!("{flag} {}", value?).trim().to_owned())).collect();
        words.extend(self.node_gone.iter().map(|node| format!("--node-gone {node}")));
        words.extend(flags.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag.to_owned()));
        words
    }
}

/// Runs `lifeboat recover talos`.
pub(crate) fn run_verb(global: &GlobalArgs, args: &Args) -> Outcome<Code> {
    let resolved = Resolved::new(global, args.repository.cluster.as_deref(), true)?;
    let options = resolved.talos_source(&args.talos)?;
    let (context, known_as) = reach::identity(&options)?;
    // A flag that leads elsewhere takes the configured name away: it would be consent to another cluster.
    let elsewhere = args.repository.cluster.is_none()
        && (args.talos.talosconfig.is_some() || args.talos.context.is_some() || !args.talos.talos_endpoints.is_empty());
    let name = resolved.cluster.as_ref().filter(|_| !elsewhere).map_or_else(|| context.clone(), ToString::to_string);
    let patience = args.patience.as_deref().map(config::duration).transpose()?.unwrap_or(RECOVERY_PATIENCE);
    if patience < Duration::from_secs(1) {
        return Err(Failure::usage("--patience is at least 1s").again());
    }
    let run = Run { global, args, resolved: &resolved, options, name, patience };
    if args.rehearse {
        return run.rehearse();
    }
    let held = Journals::usual()?.hold(VERB, &known_as);
    if args.wants_nothing() && !args.abandon {
        let under_way = match held {
            Ok(desk) => desk.find::<Plan>()?.map(|journal| journal.path().display().to_string()),
            Err(_) => Some("another process is at it".to_owned()),
        };
        return run.find_out(under_way);
    }
    let desk = held?;
    match (desk.find::<Plan>()?, args.abandon) {
        (open, true) => run.abandon(open),
        (Some(journal), false) => run.go_on(journal),
        (None, false) => run.begin(&desk),
    }
}

/// What every part of a run needs.
struct Run<'a> {
    global: &'a GlobalArgs,
    args: &'a Args,
    resolved: &'a Resolved,
    options: TalosOptions,
    /// What consent is given by.
    name: String,
    patience: Duration,
}

/// The data that are to be restored, as far as they are known before anything is fetched.
struct Chosen {
    backup: Backup,
    repository: Option<RepositoryId>,
}

impl Run<'_> {
    fn looking(&self, repository: Option<RepositoryId>) -> look::Wanted {
        look::Wanted { gone: self.args.node_gone.clone(), repository, endpoints_as_given: self.args.endpoints_as_given }
    }

    fn see(&self, repository: Option<RepositoryId>) -> Outcome<Evidence> {
        let evidence = signals::run(find_out(&self.options, &self.looking(repository)))?;
        if !self.global.quiet {
            let answer = evidence.answering().count();
            output::say(&format!(
                "source: Talos context '{}'; {answer} of {} control plane nodes answer",
                evidence.context,
                evidence.nodes.len()
            ));
        }
        for note in &evidence.notes {
            output::say(&format!("note: {note}"));
        }
        Ok(evidence)
    }

    fn find_out(&self, under_way: Option<String>) -> Outcome<Code> {
        let evidence = self.see(None)?;
        let newest = self.newest();
        let named = newest.as_ref().map(|(id, age)| (id.as_str(), age.as_str()));
        let diagnosis = diagnose(&evidence, named);
        output::report(self.global.format(), &Found::of(&evidence, &diagnosis, under_way))?;
        Ok(Code::Ok)
    }

    /// The newest backup, where a repository is known and answers.
    fn newest(&self) -> Option<(String, String)> {
        let place = self.resolved.place(&self.args.repository).ok()?;
        let loaded = signals::run(select::load(&place, self.resolved.cluster.as_ref())).ok()?;
        let found = select::find(&loaded.catalog, &Which::Named("latest".to_owned()), &place).ok()?;
        let manifest = &found.backup.manifest;
        Some((manifest.id.suffix().to_owned(), format!("{}, when it was taken", manifest.moment())))
    }

    /// Could it be brought back now? The rehearsal needs neither a journal nor a broken cluster.
    fn rehearse(&self) -> Outcome<Code> {
        let wanted = self.wanted(true)?;
        let chosen = self.of_repository()?;
        let evidence = self.see(chosen.repository)?;
        let checks = plan::rehearse(&evidence, &chosen.backup, &wanted)?;
        let teller = Arc::new(Teller::new(self.global));
        let rehearsal = signals::run(rehearse(self.drill_request(&chosen.backup)?, teller))?;
        Rehearsed::of(rehearsal, &evidence, checks, chosen.backup.size).print(self.global)
    }

    /// A look at just the backup that was chosen, whatever is the newest one by now.
    fn drill_request(&self, chosen: &Backup) -> Outcome<drill::Request> {
        let which = match &chosen.source {
            Source::Backup { id, .. } => vec![id.clone()],
            Source::File { .. } => Vec::new(),
        };
        let spool = self.resolved.spool(&SpoolArgs::default())?;
        let directory = spool.directory.clone().unwrap_or_else(engine::spool::default_directory);
        Ok(drill::Request {
            place: self.resolved.place_to_read(self.global, &self.args.repository)?,
            cluster: self.resolved.cluster.clone(),
            which,
            all: false,
            budget: None,
            opening: self.resolved.opening(&self.args.identity)?,
            identity_command: Vec::new(),
            etcd: None,
            search: Vec::new(),
            canaries: Vec::new(),
            credentials: None,
            signing_key: None,
            directory: engine::init::keys::absolute(&directory)?,
            directory_named: true,
            spool,
            tie: Vec::new(),
            dry_run: true,
        })
    }

    fn wanted(&self, roll_back: bool) -> Outcome<Wanted> {
        let directory = self.directory()?;
        Ok(Wanted {
            node: self.args.node.clone(),
            gone: self.args.node_gone.clone(),
            roll_back,
            foreign: self.args.foreign,
            no_rescue: self.args.no_rescue,
            keep_revisions: self.args.no_bump,
            asked: self.args.asked(),
            free: free(&directory),
            directory,
        })
    }

    fn abandon(&self, open: Option<Journal<Plan>>) -> Outcome<Code> {
        let Some(journal) = open else {
            output::say("no recovery is under way");
            return Ok(Code::Ok);
        };
        let report = Recovered::of(&journal, &self.name).headed(where_things_are(&journal));
        journal.abandon()?;
        output::report(self.global.format(), &report)?;
        Ok(Code::Ok)
    }

    fn begin(&self, desk: &Desk) -> Outcome<Code> {
        let wanted = self.wanted(self.args.roll_back)?;
        let plan = match &self.args.replace {
            Some(node) => plan::replace(&self.see(None)?, node, &wanted)?,
            None => self.plan_restore(&wanted)?,
        };
        if self.args.dry_run {
            output::report(self.global.format(), &Recovered::planned(&plan))?;
            return Ok(Code::Ok);
        }
        // Who cannot consent is told before anything is begun, not behind a rescue of gigabytes.
        if self.args.consent.confirm.is_some() || !std::io::stdin().is_terminal() {
            consent::by_name(&self.args.consent, Some(&self.name), &question(&plan))?;
        }
        self.carry_out(desk.begin(plan)?)
    }

    fn plan_restore(&self, wanted: &Wanted) -> Outcome<Plan> {
        if let Some(node) = &self.args.from_node {
            let evidence = self.see(None)?;
            let survivor = evidence.node(node).filter(|node| node.has_data()).ok_or_else(|| {
                Failure::usage(format!("no node called '{node}' holds data of etcd")).next(["lifeboat", "recover", "talos"])
            })?;
            // Whether it may be done at all is found out before gigabytes are read.
            let none = Backup {
                source: Source::File { path: PathBuf::new(), raw: false },
                size: 0,
                etcd: None,
                secrets: Default::default(),
                members: Vec::new(),
                warnings: Vec::new(),
            };
            drop(plan::restore(&evidence, &none, wanted)?);
            let teller = Arc::new(Teller::new(self.global));
            let recovery = Recovery::at(&self.options, evidence.endpoints.clone(), None, self.patience, teller)?;
            let (path, clean) = signals::run(recovery.save(survivor, &wanted.directory))?;
            let chosen = of_file(&path, !clean)?;
            return plan::restore(&evidence, &chosen.backup, wanted);
        }
        let chosen = match &self.args.file {
            Some(file) => of_file(file, self.args.recover_skip_hash_check)?,
            None => self.of_repository()?,
        };
        plan::restore(&self.see(chosen.repository)?, &chosen.backup, wanted)
    }

    fn which(&self) -> Outcome<Which> {
        Which::parse(self.args.which.as_deref().unwrap_or("latest"), self.args.at.as_deref())
    }

    fn of_repository(&self) -> Outcome<Chosen> {
        let place = self.resolved.place(&self.args.repository)?;
        let which = self.which()?;
        let opening = self.resolved.opening(&self.args.identity)?;
        signals::run(async {
            let loaded = select::load(&place, self.resolved.cluster.as_ref()).await?;
            let resolved = select::find(&loaded.catalog, &which, &place)?;
            let mut warnings = select::usable(resolved.backup, &place)?;
            warnings.extend(select::reach_words(&resolved));
            let manifest = &resolved.backup.manifest;
            // A key that is missing is found out now, and not when the nodes are empty. A plan that is only shown needs none.
            let opened = match opening.read().map(Arc::new) {
                Ok(identities) => select::open(&loaded.repository, resolved.backup, &identities).await.map(drop),
                Err(failure) => Err(failure),
            };
            match opened {
                Err(failure) if self.args.dry_run || self.args.rehearse => {
                    warnings.push(format!("the backup was not opened: {}", failure.what))
                }
                opened => opened?,
            }
            let version = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<Version>().ok());
            let etcd = version(&manifest.versions.storage).max(version(&manifest.versions.cluster)).or(version(&manifest.versions.etcd));
            let member = manifest.member.as_ref().filter(|member| !member.name.is_empty());
            let backup = Backup {
                source: Source::Backup {
                    repository: place.url.clone(),
                    cluster: manifest.cluster.to_string(),
                    id: manifest.id.to_string(),
                },
                size: manifest.snapshot.file_size,
                etcd,
                secrets: manifest.secrets.clone(),
                members: member.map(|member| plain_member(member.id, &member.name)).into_iter().collect(),
                warnings,
            };
            Ok(Chosen { backup, repository: Some(*loaded.repository.id()) })
        })
    }

    /// A directory for this recovery alone.
    fn directory(&self) -> Outcome<PathBuf> {
        let named = self.args.directory.clone().map(std::path::absolute).transpose();
        let named = named.map_err(|error| Failure::usage("the directory for rescue files cannot be named").cause(error).again())?;
        let directory = match named {
            Some(directory) => directory,
            None => {
                let state = state_directory().ok_or_else(|| {
                    Failure::usage("there is no place for rescue files")
                        .cause("neither HOME nor XDG_STATE_HOME is set")
                        .again_with(["--directory", "DIR"])
                })?;
                let plain: String =
                    self.name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).take(60).collect();
                state.join("recover").join(format!("{}-{plain}", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ")))
            }
        };
        if directory.exists() {
            return Err(Failure::usage("the directory for rescue files is there already, and each recovery has one of its own")
                .object(directory.display())
                .again_instead("--directory", ["--directory", &format!("{}.new", directory.display())]));
        }
        Ok(directory)
    }

    /// A plan that an earlier run left.
    fn go_on(&self, journal: Journal<Plan>) -> Outcome<Code> {
        output::say(&format!(
            "a recovery of {} is under way ({}): this goes on with it; --abandon gives it up",
            journal.head().created,
            journal.path().display()
        ));
        self.same(&journal)?;
        if self.args.dry_run {
            output::report(self.global.format(), &Recovered::of(&journal, &self.name).headed("would go on with what is not done"))?;
            return Ok(Code::Ok);
        }
        if self.args.consent.confirm.is_some() || !std::io::stdin().is_terminal() {
            consent::by_name(&self.args.consent, Some(&self.name), &question(journal.plan()))?;
        }
        self.carry_out(journal)
    }

    /// Whoever asks for something else than what is under way means another recovery.
    fn same(&self, journal: &Journal<Plan>) -> Outcome<()> {
        let (plan, asked) = (journal.plan(), self.args.asked());
        if plan.asked == asked {
            return Ok(());
        }
        Err(Failure::usage("another recovery of this cluster is under way")
            .object(journal.path().display())
            .cause(format!(
                "it was begun with '{}', and this asks for '{}': the same words go on with it, --abandon gives it up",
                plan.asked.join(" "),
                asked.join(" ")
            ))
            .next(["lifeboat", "recover", "talos", "--abandon"]))
    }

    fn prepare(&self, journal: &Journal<Plan>) -> Outcome<Option<Prepare>> {
        let next = journal.next_step().unwrap_or(usize::MAX);
        let source = journal.plan().steps.iter().enumerate().find_map(|(at, step)| match step {
            Step::Prepare { from: Source::Backup { cluster, .. }, .. } if at >= next => Some(cluster),
            _ => None,
        });
        let Some(cluster) = source else { return Ok(None) };
        let place: PlaceOptions = self.resolved.place(&self.args.repository)?;
        let cluster = cluster.parse::<ClusterName>().ok();
        Ok(Some(Prepare {
            place,
            cluster,
            opening: self.resolved.opening(&self.args.identity)?,
            signing_key: self.resolved.signing_key(None),
        }))
    }

    /// How rescues are kept in the repository, where one is named and recipients are known: off this machine, and sealed.
    fn keep(&self) -> Option<RescueRequest> {
        let place = self.resolved.place(&self.args.repository).ok()?;
        let recipients = self.resolved.recipients(&self.args.recipient, &[]).ok().filter(|recipients| !recipients.is_empty())?;
        Some(RescueRequest {
            file: PathBuf::new(),
            clean: false,
            member: None,
            etcd: None,
            talos: None,
            place,
            cluster: self.resolved.cluster.clone(),
            tags: Vec::new(),
            recipients,
            passphrase: None,
            person: passphrase::person(),
            plain: false,
            signing_key: self.resolved.signing_key(None),
            spool: self.resolved.spool(&SpoolArgs::default()).ok()?,
            read_back: false,
        })
    }

    fn carry_out(&self, mut journal: Journal<Plan>) -> Outcome<Code> {
        let teller = Arc::new(Teller::new(self.global));
        let progress = Arc::<Teller>::clone(&teller);
        let prepare = self.prepare(&journal)?;
        let again = Arc::<Teller>::clone(&teller);
        let mut recovery = Recovery::new(&self.options, journal.plan(), prepare.clone(), self.patience, again)?.keeping(self.keep());
        let end = journal.plan().point_of_no_return();
        let begun = signals::run(run_before(&mut journal, &mut recovery, teller.as_ref(), end));
        begun.map_err(|failure| hinted(failure, &journal))?;
        for rescued in journal.all_facts("rescue") {
            output::say(&rescue_words(&serde_json::Value::Object(rescued.clone())));
        }
        if self.args.consent.confirm.is_none() {
            consent::by_name(&self.args.consent, Some(&self.name), &question(journal.plan()))
                .map_err(|failure| hinted(failure, &journal))?;
        }
        // Connections end with the run that made them.
        let mut recovery = Recovery::new(&self.options, journal.plan(), prepare, self.patience, progress)?;
        let ran = signals::run(run(&mut journal, &mut recovery, teller.as_ref()));
        ran.map_err(|failure| hinted(failure, &journal))?;
        // What was uploaded is in the cluster now; here it lies in the clear.
        if let Some(file) = journal.plan().file() {
            let _ = std::fs::remove_file(file);
        }
        output::report(self.global.format(), &Recovered::of(&journal, &self.name))?;
        Ok(Code::Ok)
    }
}

fn plain_member(id: etcd_store::id::MemberId, name: &str) -> Member {
    Member { id, name: name.to_owned(), peer_urls: Vec::new(), client_urls: Vec::new(), is_learner: false }
}

fn of_file(path: &Path, raw: bool) -> Outcome<Chosen> {
    let path = std::path::absolute(path).map_err(|error| Failure::usage("the snapshot file cannot be named").cause(error).again())?;
    let facts = snapshot_file::facts(&path, raw)?;
    let version = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<Version>().ok());
    let backup = Backup {
        size: facts.size,
        etcd: version(&facts.storage_version).max(version(&facts.cluster_version)),
        secrets: Default::default(),
        members: checks::members_of(&facts),
        warnings: Vec::new(),
        source: Source::File { path, raw },
    };
    Ok(Chosen { backup, repository: None })
}

/// Bytes that are free where a directory will be.
fn free(directory: &Path) -> Option<u64> {
    let mut existing = directory;
    while !existing.exists() {
        existing = existing.parent()?;
    }
    disk::free_space(existing).ok()
}

fn question(plan: &Plan) -> String {
    let steps: Vec<String> =
        plan.steps.iter().enumerate().map(|(at, step)| format!("  {}. {}", at + 1, engine::journal::Step::words(step))).collect();
    let gone = if plan.gone.is_empty() {
        String::new()
    } else {
        format!("\nPowered off, and never started again unwiped: {}.", plan.gone.join(", "))
    };
    let warnings: String = plan
        .checks
        .iter()
        .filter(|check| check.verdict == engine::recover::talos::Verdict::Warned)
        .map(|check| format!("\nwarning: {}", check.says))
        .collect();
    format!(
        "{}\nThe plan:\n{}\nWhat the nodes hold is saved to {} first.{gone}{warnings}",
        plan.words,
        steps.join("\n"),
        plan.directory.display()
    )
}

fn hinted(mut failure: Failure, journal: &Journal<Plan>) -> Failure {
    let hint = format!("what was done is on record in {}; the same command goes on from there", journal.path().display());
    failure.cause = Some(failure.cause.map_or_else(|| hint.clone(), |cause| format!("{cause}; {hint}")));
    failure
}

/// In what state things are when a plan is given up.
fn where_things_are(journal: &Journal<Plan>) -> String {
    let plan = journal.plan();
    let next = journal.next_step();
    let of = |name: &str| plan.steps.iter().position(|step| engine::journal::Step::name(step) == name);
    let begun = |name: &str| {
        of(name).is_some_and(|at| next.is_none_or(|next| next > at) || *journal.standing(at) != engine::journal::Standing::Waiting)
    };
    let done = |name: &str| of(name).is_some_and(|at| next.is_none_or(|next| next > at));
    let files = format!("rescue files: {}", plan.directory.display());
    let first = plan.nodes.first().map_or("", |node| node.name.as_str());
    let look = with_source(&["lifeboat".to_owned(), "recover".to_owned(), "talos".to_owned()]);
    let words = match plan.goal {
        Goal::Restore { .. } if done("bootstrap") => {
            format!("etcd is restored and runs on {first}; the other nodes join by themselves, if they can")
        }
        Goal::Restore { .. } if begun("bootstrap") => format!("{first} was told to restore; whether it did is not known"),
        Goal::Restore { .. } if done("reset") => {
            "every node is empty of etcd's data and waits; nothing runs until one is bootstrapped".to_owned()
        }
        Goal::Restore { .. } if begun("reset") => "nodes were told to wipe etcd's data; some may be empty, some not".to_owned(),
        Goal::Replace { .. } if begun("reset") => "the node was told to wipe its data; it joins again by itself when it is up".to_owned(),
        Goal::Replace { .. } if begun("remove") => "the member is removed, or about to be; its node still holds its data".to_owned(),
        _ if journal.returns() > 0 => "nodes were wiped, and are to be wiped again; some may be empty, some not".to_owned(),
        _ => "nothing was changed".to_owned(),
    };
    format!("given up here: {words}\n{files}\nwhat is the case now, and the ways out: {look}")
}
