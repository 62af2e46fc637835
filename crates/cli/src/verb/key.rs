//! `lifeboat key new` and `lifeboat key check`.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Subcommand;
use engine::init::check_directory;
use engine::init::keys::{self, Fresh};
use engine::key_check::{Checked, ClusterKeys, Opened, SealedAlike, Signing};
use engine::limits::IDENTITY;
use engine::{Code, Failure, Outcome};
use serde_json::{Value, json};

use crate::args::{GlobalArgs, IdentityArgs, RepositoryArgs};
use crate::output::{self, Format};
use crate::resolve::{self, Resolved};
use crate::signals;

/// Arguments of `lifeboat key`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Make a recovery identity, a signing key, or both; existing files are never overwritten
    New(NewArgs),
    /// Say which backups the identities open, and whether what this machine signs counts
    Check(Box<CheckArgs>),
}

#[derive(clap::Args, Debug)]
struct NewArgs {
    /// Write a new age identity to this file [default: show it once, at a terminal]
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_IDENTITY_OUT")]
    identity_out: Option<PathBuf>,
    /// Write a new minisign signing key to this file
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_SIGNING_OUT")]
    signing_out: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
struct CheckArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    identity: IdentityArgs,
    /// The minisign secret key to look at [default: the configured one]
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_SIGNING_KEY", help_heading = "Keys")]
    signing_key: Option<PathBuf>,
}

/// Runs `lifeboat key …`.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Outcome<Code> {
    match args.what {
        What::New(args) => new(global, &args),
        What::Check(args) => check(global, &args),
    }
}

fn new(global: &GlobalArgs, args: &NewArgs) -> Outcome<Code> {
    let show = args.identity_out.is_none() && args.signing_out.is_none();
    if show && !io::stdout().is_terminal() {
        return Err(Failure::usage("a new identity is shown at a terminal only, and this is none")
            .cause("give --identity-out FILE, which makes the file readable by its owner alone; nothing was done")
            .again_with(["--identity-out", IDENTITY]));
    }
    let files = [(&args.identity_out, "the identity", "--identity-out"), (&args.signing_out, "the signing key", "--signing-out")];
    // Both are looked at before either is made.
    for (file, what, flag) in files {
        if let Some(file) = file {
            keys::refuse_existing(file, what, flag)?;
            check_directory(&keys::absolute(file)?, what)?;
        }
    }
    let fresh = (show || args.identity_out.is_some()).then(Fresh::make);
    if let (Some(fresh), Some(file)) = (&fresh, &args.identity_out) {
        fresh.keep(file)?;
    }
    let signing = args.signing_out.as_deref().map(keys::new_signing).transpose()?;
    let next = next(global, fresh.as_ref().map(|fresh| fresh.recipient.as_str()), args);
    match global.format() {
        Format::Table | Format::Simple => {
            let mut text = String::new();
            if let Some(fresh) = &fresh {
                match &args.identity_out {
                    Some(file) => text.push_str(&format!("identity   {} (made, readable by its owner alone)\n", file.display())),
                    None => text.push_str(&format!(
                        "identity   {}\n           shown once, and kept nowhere: put it where it can be found when this machine is gone\n",
                        fresh.reveal()
                    )),
                }
                text.push_str(&format!("recipient  {}\n", fresh.recipient));
            }
            if let (Some(public), Some(file)) = (&signing, &args.signing_out) {
                text.push_str(&format!(
                    "signing    {} (made, readable by its owner alone)\npublic     {}\n",
                    file.display(),
                    public.to_line()
                ));
            }
            text.push_str(&format!("next       {next}\n"));
            output::print(&text);
        }
        format => {
            let value = json!({
                "identity": args.identity_out,
                "recipient": fresh.as_ref().map(|fresh| fresh.recipient.clone()),
                "signing_key": args.signing_out,
                "public_key": signing.as_ref().map(vault::sign::PublicKey::to_line),
                "next": next,
            });
            // The secret itself is for eyes only; it is shown beside the object, which goes to standard output.
            if let Some(fresh) = fresh.filter(|_| show) {
                output::say(fresh.reveal());
            }
            output::value(format, "lifeboat.key-new/1", value)?;
        }
    }
    Ok(Code::Ok)
}

/// What one does with new keys: they go into the configuration that is there, or are used to make one.
fn next(global: &GlobalArgs, recipient: Option<&str>, args: &NewArgs) -> String {
    if let Ok(Some((path, _))) = resolve::configuration(global) {
        return format!("lifeboat config check --config {}", engine::next::quoted(&path.to_string_lossy()));
    }
    let mut command = "lifeboat init".to_owned();
    if let Some(recipient) = recipient {
        command.push_str(&format!(" --recipient {recipient}"));
    }
    if let Some(file) = &args.signing_out {
        command.push_str(&format!(" --signing-out {}", engine::next::quoted(&file.to_string_lossy())));
    }
    command
}

fn check(global: &GlobalArgs, args: &CheckArgs) -> Outcome<Code> {
    let resolved = Resolved::new(global, args.repository.cluster.as_deref(), false)?;
    let place = resolved.place_to_read(global, &args.repository)?;
    let opening = resolved.opening(&args.identity)?;
    let signing = resolved.signing_key(args.signing_key.as_ref());
    let checked = signals::run(engine::key_check::run(&place, resolved.cluster.as_ref(), &opening, signing.as_deref()))?;
    match global.format() {
        Format::Table | Format::Simple => output::print(&table(&checked)),
        format => output::value(format, "lifeboat.key-check/1", json(&checked))?,
    }
    Ok(checked.code())
}

fn table(checked: &Checked) -> String {
    let mut text = String::new();
    for cluster in &checked.clusters {
        if cluster.sets.is_empty() {
            text.push_str(&format!("no backup of '{}' yet\n", cluster.cluster));
        }
        for (at, set) in cluster.sets.iter().enumerate() {
            text.push_str(&described(cluster, set, at == 0));
        }
    }
    if checked.clusters.is_empty() {
        text.push_str("no backup yet\n");
    }
    match &checked.signing {
        None => text.push_str("signing key: none, so what this machine backs up is unsigned\n"),
        Some(signing) => text.push_str(&signed(signing)),
    }
    text
}

fn described(cluster: &ClusterKeys, set: &SealedAlike, newest: bool) -> String {
    let which = if newest { "the newest backup" } else { "older backups" };
    let verdict = match &set.opened {
        Opened::Yes => "OPENED by what was given (the header was unwrapped)".to_owned(),
        Opened::No => "NOT opened by anything given".to_owned(),
        Opened::NotTried => {
            if set.passphrase { "not tried: no passphrase was given (--passphrase)" } else { "not tried: no identity was given (-i FILE)" }
                .to_owned()
        }
        Opened::NotSealed => "NOT ENCRYPTED: whoever reads the store reads it".to_owned(),
        Opened::Unreadable(why) => format!("UNREADABLE: {why}"),
    };
    let mut text = format!("'{}', {which} {}: {verdict}\n", cluster.cluster, set.newest);
    let fingerprints: Vec<String> = set.recipients.iter().map(ToString::to_string).collect();
    let sealed = match (set.passphrase, &set.opened) {
        (_, Opened::NotSealed) => return text,
        (true, _) => "a passphrase".to_owned(),
        (false, _) => format!("the recipients with the fingerprints {}", fingerprints.join(", ")),
    };
    text.push_str(&format!("  sealed to {sealed}; {} backup(s) are sealed so\n", set.backups));
    text
}

fn signed(signing: &Signing) -> String {
    let verdict = match signing.trusted {
        Some(true) => "is among the trusted signers",
        Some(false) => "is NOT among the trusted signers: what it signs does not count",
        None => "no trusted signers are configured, so no signature counts for more than another",
    };
    format!("signing key: {} (key {}): {verdict}\n  public key {}\n", signing.file.display(), signing.id, signing.public)
}

fn json(checked: &Checked) -> Value {
    let word = |opened: &Opened| match opened {
        Opened::Yes => "yes",
        Opened::No => "no",
        Opened::NotTried => "not-tried",
        Opened::NotSealed => "not-sealed",
        Opened::Unreadable(_) => "unreadable",
    };
    let set = |set: &SealedAlike| {
        json!({
            "recipients": set.recipients,
            "passphrase": set.passphrase,
            "backups": set.backups,
            "newest": set.newest,
            "opened": word(&set.opened),
            "why": if let Opened::Unreadable(why) = &set.opened { Some(why) } else { None },
        })
    };
    json!({
        "clusters": checked.clusters.iter().map(|cluster| json!({"cluster": cluster.cluster, "sealed": cluster.sets.iter().map(set).collect::<Vec<_>>()})).collect::<Vec<_>>(),
        "signing": checked.signing.as_ref().map(|signing| json!({"file": signing.file, "id": signing.id, "public": signing.public, "trusted": signing.trusted})),
        "exit": checked.code() as u8,
    })
}
