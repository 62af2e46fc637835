//! `lifeboat init`.

mod again;
mod ask;

use std::path::{Path, PathBuf};

use engine::config::{self, Store};
use engine::extra::Extra;
use engine::init::file::Draft;
use engine::init::keys::{self, Fresh, Kept};
use engine::init::kit::Kit;
use engine::init::store::{self, Prepared, Tenant};
use engine::init::{check_directory, check_writable, cluster, here, name};
use engine::limits::IDENTITY;
use engine::place::PlaceOptions;
use engine::store_kind::{STORE_URLS, StoreKind};
use engine::{Access, Code, Failure, Outcome};
use serde_json::{Value, json};
use vault::name::ClusterName;
use vault::sign::PublicKey;

use crate::args::{GlobalArgs, SourceArgs, StoreArgs};
use crate::output::{self, Format};
use crate::resolve::Resolved;
use crate::signals;
use ask::Person;

/// Arguments of `lifeboat init`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    source: SourceArgs,
    /// Where backups go: file:///path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix
    #[arg(long, value_name = "URL", env = "LIFEBOAT_REPO", help_heading = "Repository")]
    repo: Option<String>,
    /// Name of the cluster in the repository [default: from this machine's name, else from the cluster's id]
    #[arg(long, alias = "profile", value_name = "NAME", env = "LIFEBOAT_CLUSTER", help_heading = "Repository")]
    cluster: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
    /// age recipient whose identity you have already (repeatable)
    #[arg(
        short = 'r',
        long = "recipient",
        value_name = "RECIPIENT",
        env = "LIFEBOAT_RECIPIENT",
        value_delimiter = ',',
        help_heading = "Keys"
    )]
    recipient: Vec<String>,
    /// File with one age recipient per line (repeatable)
    #[arg(short = 'R', long = "recipients-file", value_name = "FILE", env = "LIFEBOAT_RECIPIENTS_FILE", help_heading = "Keys")]
    recipients_file: Vec<PathBuf>,
    /// Write a new recovery identity to this file instead of showing it once
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_IDENTITY_OUT", help_heading = "Keys")]
    identity_out: Option<PathBuf>,
    /// Where the signing key goes [default: sign.key beside the configuration]
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_SIGNING_OUT", help_heading = "Keys")]
    signing_out: Option<PathBuf>,
    /// File or directory to keep beside each backup, or machine-config: that of every Talos node (repeatable; machine-config takes os:admin)
    #[arg(long, value_name = "PATH", env = "LIFEBOAT_EXTRA", value_delimiter = ',')]
    extra: Vec<PathBuf>,
    /// Write the recovery kit to this file: all that a recovery needs but the identity
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_KIT")]
    kit: Option<PathBuf>,
}

impl Args {
    fn store(&self, url: String) -> Outcome<Store> {
        let (region, endpoint, credentials_file) = self.store.of(&url);
        Ok(Store { url, region, endpoint, credentials_file: credentials_file.as_deref().map(keys::absolute).transpose()? })
    }

    /// The recipients that were named, checked.
    fn recipients(&self) -> Outcome<Vec<(String, String)>> {
        keys::recipients(&Resolved::without_configuration().recipients(&self.recipient, &self.recipients_file)?)
    }
}

fn place(store: &Store) -> PlaceOptions {
    PlaceOptions {
        url: store.url.clone(),
        region: store.region.clone(),
        endpoint: store.endpoint.clone(),
        credentials_file: store.credentials_file.clone(),
        ..PlaceOptions::default()
    }
}

/// Runs `lifeboat init`.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Outcome<Code> {
    let path = config_path(global)?;
    if path.symlink_metadata().is_ok() {
        return again::run(global, &args, &path);
    }
    let person = Person::present();
    let asked = asked(&args, &path, person)?;
    let report = signals::run(make(global, &args, asked, path, person))?;
    let format = global.format();
    match format {
        Format::Table | Format::Simple => output::print(&report.table()),
        _ => output::value(format, "lifeboat.init/1", report.json())?,
    }
    Ok(Code::Ok)
}

/// Where the configuration is, or will be.
fn config_path(global: &GlobalArgs) -> Outcome<PathBuf> {
    if let Some(path) = &global.config {
        return keys::absolute(path);
    }
    let places = config::usual_places();
    if let Some(there) = places.iter().find(|path| path.is_file()) {
        return Ok(there.clone());
    }
    let own = if here::is_root() { places.first() } else { places.last() };
    own.cloned()
        .ok_or_else(|| Failure::usage("it is not known where the configuration would go").cause("name it with --config FILE").again())
}

/// What was asked for, with everything checked that can be checked before anything is looked at.
struct Asked {
    source: Access,
    section: config::Cluster,
    cluster: Option<ClusterName>,
    recipients: Vec<(String, String)>,
    signing: PathBuf,
}

fn asked(args: &Args, path: &Path, person: Option<Person>) -> Outcome<Asked> {
    let missing = |what: &str, cause: &str, flag: [&str; 2]| {
        let cause = format!("{cause}, and there is no terminal to ask at; nothing was done");
        Err(Failure::usage(what).cause(cause).again_with(flag))
    };
    if args.repo.is_none() && person.is_none() {
        return missing(
            "no place for backups is named",
            &format!("name one with --repo: {STORE_URLS}"),
            ["--repo", "file:///var/backups/lifeboat"],
        );
    }
    let recipients = args.recipients()?;
    if recipients.is_empty() && args.identity_out.is_none() && person.is_none() {
        return missing(
            "nobody is named who could open the backups",
            "give --identity-out FILE for a new recovery identity, or --recipient age1… for one that you have",
            ["--identity-out", IDENTITY],
        );
    }
    let signing = match &args.signing_out {
        Some(file) => keys::absolute(file)?,
        None => path.with_file_name("sign.key"),
    };
    check_writable(path, "the configuration")?;
    check_writable(&signing, "the signing key")?;
    for (file, what) in [(&args.identity_out, "the identity"), (&args.kit, "the kit")] {
        if let Some(file) = file {
            check_directory(&keys::absolute(file)?, what)?;
        }
    }
    // What is there must be what is wanted; what is not is made later.
    if let Some(file) = args.identity_out.as_deref().filter(|file| file.symlink_metadata().is_ok()) {
        keys::recipient_of(file)?;
    }
    if signing.symlink_metadata().is_ok() {
        keys::signing(&signing)?;
    }
    if let Some(kit) = &args.kit {
        keys::refuse_existing(kit, "the kit", "--kit")?;
    }
    let cluster = args.cluster.as_deref().map(named).transpose().map_err(|error| Failure::usage(error).again())?;
    let source = Resolved::without_configuration().source(&args.source)?;
    let mut section = cluster::section(&source, args.source.user.as_deref(), args.source.password_file.as_deref())?;
    section.extra = extras(args, &source)?;
    Ok(Asked { source, section, cluster, recipients, signing })
}

/// The extras that were named, checked; none leaves the defaults.
fn extras(args: &Args, source: &Access) -> Outcome<Option<Vec<PathBuf>>> {
    for extra in &args.extra {
        match Extra::of(extra) {
            Extra::MachineConfig if source.talos().is_none() => {
                return Err(
                    Failure::usage("machine configs are Talos's, and this cluster is reached by etcd's own API").again_without("--extra")
                );
            }
            Extra::Path(path) if !path.is_absolute() => {
                return Err(Failure::usage("an extra is named by its absolute path").object(path.display()).again());
            }
            Extra::Path(_) | Extra::MachineConfig => {}
        }
    }
    Ok((!args.extra.is_empty()).then(|| args.extra.clone()))
}

fn named(text: &str) -> Result<ClusterName, String> {
    text.parse().map_err(|error| format!("'{text}' cannot be a cluster's name: {error}"))
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(true),
        "n" | "no" => Ok(false),
        _ => Err("yes or no is expected".to_owned()),
    }
}

/// A URL of a store, told by its form alone.
fn stored_at(text: &str) -> Result<String, String> {
    if vault::store::is_store_url(text) { Ok(text.to_owned()) } else { Err(format!("{STORE_URLS} is expected")) }
}

async fn make(global: &GlobalArgs, args: &Args, mut asked: Asked, path: PathBuf, person: Option<Person>) -> Outcome<Report> {
    let found = cluster::find(&asked.source).await?;
    let described = describe(&found);
    say(global, &format!("found: {described}"));
    // The default context of a talosconfig may be another cluster's tomorrow.
    if let (Some(talos), Some(context)) = (&mut asked.section.talos, &found.context) {
        talos.context.get_or_insert_with(|| context.clone());
    }
    let url = match (&args.repo, person) {
        (Some(url), _) => url.clone(),
        (None, Some(person)) => person.ask(&format!("Where shall backups go ({STORE_URLS})"), None, stored_at).await?,
        (None, None) => return Err(Failure::usage("no place for backups is named").again()),
    };
    let store = args.store(url)?;
    let prepared = store::prepare(&place(&store)).await?;
    say(global, &format!("store: {}, repository {} {}", store.url, prepared.repository.id(), if prepared.made { "made" } else { "found" }));
    let (cluster, tenant) = name_it(&asked, &prepared, &place(&store), &found, person).await?;

    if let Some(person) = person.filter(|_| found.may_keep_machine_configs && asked.section.extra.is_none()) {
        let question = "Keep every node's machine config beside each backup, sealed (a cluster cannot be rebuilt without; yes or no)";
        if person.ask(question, Some("yes"), yes_or_no).await? {
            asked.section.extra = Some(vec![config::MACHINE_CONFIG.into()]);
        }
    }
    let keeps_nothing = found.context.is_some() && asked.section.extra.is_none();
    let (recipients, identity) = who_opens(args, asked.recipients, person).await?;
    if let Some(parent) = asked.signing.parent() {
        disk::create_dir_all(parent, 0o755).map_err(|error| {
            Failure::usage(format!("the directory of the signing key cannot be made: {error}")).object(parent.display()).again()
        })?;
    }
    let signing = keys::signing(&asked.signing)?;
    let draft = Draft {
        cluster: cluster.clone(),
        described: described.clone(),
        section: asked.section,
        others: found.others.clone(),
        store: store.clone(),
        recipients: recipients.iter().map(|(recipient, _)| recipient.clone()).collect(),
        signing_file: signing.path.clone(),
        trusted_signers: vec![signing.public.to_line()],
        release: env!("CARGO_PKG_VERSION"),
        date: store::today(),
    };
    draft.write(&path)?;
    let kit = match &args.kit {
        None => None,
        Some(file) => {
            let file = keys::absolute(file)?;
            let kit = Kit::of(&config::load(&path)?, &store, prepared.repository.id().to_string(), recipients.clone());
            kit.write(&file)?;
            Some(file)
        }
    };
    let mut warnings = warnings(&found, &store, &prepared, tenant, &cluster, &recipients, identity.as_ref(), &signing);
    if keeps_nothing {
        let how = if found.may_keep_machine_configs {
            "say extra: [machine-config] in the configuration (or --extra machine-config here)"
        } else {
            "keep them yourself, or give this talosconfig os:admin and say extra: [machine-config]"
        };
        warnings.push(format!("no machine config is kept with the backups, and a Talos cluster cannot be rebuilt without one: {how}"));
    }
    Ok(Report {
        next: format!("lifeboat backup{}", config_flag(global)),
        cluster,
        described,
        cluster_id: found.id.map(|id| id.to_string()),
        store,
        prepared,
        recipients,
        identity,
        signing,
        config: path,
        kit,
        warnings,
    })
}

fn say(global: &GlobalArgs, text: &str) {
    if !global.quiet {
        output::say(text);
    }
}

/// ` --config FILE` where it was said, for the commands that are shown.
pub(crate) fn config_flag(global: &GlobalArgs) -> String {
    global.config.as_ref().map(|path| format!(" --config {}", engine::next::quoted(&path.to_string_lossy()))).unwrap_or_default()
}

fn describe(found: &cluster::Found) -> String {
    let which = match (found.id, &found.context) {
        (Some(id), None) => format!("cluster {id}"),
        (Some(id), Some(context)) => format!("Talos context '{context}', cluster {id}"),
        (None, context) => format!("Talos context '{}'", context.as_deref().unwrap_or_default()),
    };
    format!(
        "etcd {}, {which}, {} of {} member(s) answer, at {}{}",
        found.version.as_deref().unwrap_or("of an unknown version"),
        found.answering,
        found.members,
        found.endpoints.join(","),
        if found.here { ", on this machine" } else { "" }
    )
}

/// The cluster's name: as given, as proposed, or as a person says it. Never one under which the repository keeps another cluster, unless it was given.
async fn name_it(
    asked: &Asked,
    prepared: &Prepared,
    place: &PlaceOptions,
    found: &cluster::Found,
    person: Option<Person>,
) -> Outcome<(ClusterName, Tenant)> {
    let tenant = async |name: &ClusterName| store::tenant(&prepared.repository, place, name, found.id).await;
    if let Some(name) = &asked.cluster {
        return Ok((name.clone(), tenant(name).await?));
    }
    let none = || Failure::usage("no name for the cluster can be proposed").cause("give one with --cluster NAME").again();
    let hostname = here::hostname();
    let known = name::Known { hostname: hostname.as_deref(), here: found.here, id: found.id, context: found.context.as_deref() };
    let mut proposal = name::propose(&known).ok_or_else(none)?;
    if tenant(&proposal).await? == Tenant::Other {
        proposal = found.id.and_then(name::of_id).ok_or_else(none)?;
    }
    let name = match person {
        Some(person) => person.ask("Name of the cluster", Some(proposal.as_str()), named).await?,
        None => proposal,
    };
    let tenant = tenant(&name).await?;
    Ok((name, tenant))
}

/// Who can open the backups: those named, and the identity that is made for it.
async fn who_opens(
    args: &Args,
    mut recipients: Vec<(String, String)>,
    person: Option<Person>,
) -> Outcome<(Vec<(String, String)>, Option<Kept<String>>)> {
    let made = match (&args.identity_out, person) {
        (Some(file), _) => Some(keys::identity(file)?),
        (None, Some(person)) if recipients.is_empty() => {
            let fresh = Fresh::make();
            output::say(&format!(
                "\nThis is the recovery identity, the only thing that opens the backups. It is shown once, and kept nowhere:\n\n    {}\n\n\
                 Put it where it can be found when this machine is gone (a password manager, a safe).",
                fresh.reveal()
            ));
            person.ask("Then give it back from there, to go on", None, |typed| ask::is_same_secret(typed, fresh.reveal())).await?;
            recipients.extend(keys::recipients(&[fresh.recipient])?);
            None
        }
        _ => None,
    };
    if let Some(kept) = &made {
        for new in keys::recipients(std::slice::from_ref(&kept.public))? {
            if !recipients.contains(&new) {
                recipients.push(new);
            }
        }
    }
    Ok((recipients, made))
}

#[allow(clippy::too_many_arguments, reason = "each fact of a run can be a reason to warn, and they are only gathered here")]
fn warnings(
    found: &cluster::Found,
    store: &Store,
    prepared: &Prepared,
    tenant: Tenant,
    cluster: &ClusterName,
    recipients: &[(String, String)],
    identity: Option<&Kept<String>>,
    signing: &Kept<PublicKey>,
) -> Vec<String> {
    let mut warnings = found.notes.clone();
    warnings.extend(prepared.warnings.iter().cloned());
    if found.here && here::is_local_store(&store.url) {
        warnings.push(format!("the store {} is on the cluster's own machine: what destroys the cluster destroys the backups", store.url));
    }
    if StoreKind::of(&store.url).wants_credentials() && store.credentials_file.is_none() {
        warnings.push(
            "the store's credentials came from this environment; what runs backups later needs them too (or credentials_file)".to_owned(),
        );
    }
    if let Some(identity) = identity.filter(|_| recipients.len() == 1) {
        let where_it_is = if found.here { "on the cluster's own machine" } else { "on this machine" };
        warnings.push(format!(
            "the only identity that opens the backups is {where_it_is}: copy {} to a safe place, then remove it from here",
            identity.path.display()
        ));
    }
    if keys::is_open_to_others(&signing.path) {
        warnings.push(format!("others can read the signing key: chmod 600 {}", signing.path.display()));
    }
    if tenant == Tenant::Other {
        warnings.push(format!(
            "the repository holds backups of another etcd under the name '{cluster}': the first backup says what becomes of that"
        ));
    }
    warnings
}

/// What was found and made.
struct Report {
    cluster: ClusterName,
    described: String,
    cluster_id: Option<String>,
    store: Store,
    prepared: Prepared,
    recipients: Vec<(String, String)>,
    identity: Option<Kept<String>>,
    signing: Kept<PublicKey>,
    config: PathBuf,
    kit: Option<PathBuf>,
    warnings: Vec<String>,
    next: String,
}

fn made(was_there: bool) -> &'static str {
    if was_there { "was there, and is used" } else { "made, readable by its owner alone" }
}

impl Report {
    fn table(&self) -> String {
        let mut text = format!("cluster   '{}': {}\n", self.cluster, self.described);
        let made_now = if self.prepared.made { "made" } else { "was there" };
        text.push_str(&format!("store     {}: repository {} ({made_now})\n", self.store.url, self.prepared.repository.id()));
        let does: Vec<String> = self.prepared.abilities.iter().map(|(name, word)| format!("{name} {word}")).collect();
        text.push_str(&format!("          {}\n", does.join(", ")));
        for (recipient, fingerprint) in &self.recipients {
            text.push_str(&format!("opens     {recipient} (fingerprint {fingerprint})\n"));
        }
        if let Some(identity) = &self.identity {
            text.push_str(&format!("identity  {} ({})\n", identity.path.display(), made(identity.was_there)));
        }
        text.push_str(&format!(
            "signing   {} ({}); public key {}\n",
            self.signing.path.display(),
            made(self.signing.was_there),
            self.signing.public.to_line()
        ));
        text.push_str(&format!("config    {} (made)\n", self.config.display()));
        if let Some(kit) = &self.kit {
            text.push_str(&format!("kit       {} (made; print it, and keep it away from the identity)\n", kit.display()));
        }
        for warning in &self.warnings {
            text.push_str(&format!("warning: {warning}\n"));
        }
        text.push_str(&format!("next      {}\n", self.next));
        text
    }

    fn json(&self) -> Value {
        json!({
            "cluster": self.cluster,
            "cluster_id": self.cluster_id,
            "store": {
                "url": self.store.url,
                "repository": self.prepared.repository.id().to_string(),
                "made": self.prepared.made,
                "abilities": self.prepared.abilities.iter().map(|(name, word)| ((*name).to_owned(), word.clone().into())).collect::<serde_json::Map<String, Value>>(),
            },
            "recipients": self.recipients.iter().map(|(recipient, fingerprint)| json!({"recipient": recipient, "fingerprint": fingerprint})).collect::<Vec<_>>(),
            "identity": self.identity.as_ref().map(|kept| json!({"file": kept.path, "made": !kept.was_there})),
            "signing": {"file": self.signing.path, "made": !self.signing.was_there, "public": self.signing.public.to_line()},
            "config": self.config,
            "made": true,
            "kit": self.kit,
            "warnings": self.warnings,
            "next": self.next,
        })
    }
}
