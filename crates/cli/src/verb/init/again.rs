//! `lifeboat init` where a configuration is already: what is there, whether it is what was asked for, and what comes next. Nothing is changed.

use std::path::Path;

use engine::config::{self, Config, Store};
use engine::init::existing::{Asked, disagreements};
use engine::init::kit::Kit;
use engine::init::{keys, store};
use engine::{Code, Failure, Outcome};
use serde_json::json;

use super::{Args, config_flag, place};
use crate::args::GlobalArgs;
use crate::output::{self, Format};
use crate::signals;

pub(super) fn run(global: &GlobalArgs, args: &Args, path: &Path) -> Outcome<Code> {
    let config = config::load(path)?;
    let asked = asked(args)?;
    let otherwise = disagreements(&config, &asked);
    if !otherwise.is_empty() {
        return Err(Failure::usage("there is a configuration already, and it says otherwise; nothing was changed")
            .object(path.display())
            .cause(otherwise.join("; "))
            .next(["lifeboat", "config", "show", "--config", &path.to_string_lossy()]));
    }
    let (mut lines, mut warnings) = (vec![("config", format!("{} was there, and is not changed", path.display()))], Vec::new());
    for name in config.clusters.keys() {
        lines.push(("cluster", format!("'{name}'")));
    }
    let mut repositories = Vec::new();
    for (name, store) in &config.stores {
        let (line, id) = stand_of(name, store);
        lines.push(("store", line));
        repositories.push((store.clone(), id));
    }
    for recipient in &config.keys.recipients {
        lines.push(("opens", recipient.clone()));
    }
    signing(&config, &mut lines, &mut warnings);
    let kit = match &args.kit {
        None => None,
        Some(file) => {
            let file = keys::absolute(file)?;
            let made = kit(&config, &repositories)?.write(&file)?;
            lines.push(("kit", format!("{} ({})", file.display(), if made { "made" } else { "was there" })));
            Some(file)
        }
    };
    let next = format!("lifeboat backup{}", config_flag(global));
    match global.format() {
        Format::Table | Format::Simple => {
            let mut text: String = lines.iter().map(|(name, line)| format!("{name:<10}{line}\n")).collect();
            text.extend(warnings.iter().map(|warning| format!("warning: {warning}\n")));
            text.push_str(&format!("next      {next}\n"));
            output::print(&text);
        }
        format => {
            let value = json!({
                "config": path,
                "made": false,
                "clusters": config.clusters.keys().collect::<Vec<_>>(),
                "stores": repositories.iter().map(|(store, id)| json!({"url": store.url, "repository": id})).collect::<Vec<_>>(),
                "recipients": config.keys.recipients,
                "kit": kit,
                "warnings": warnings,
                "next": next,
            });
            output::value(format, "lifeboat.init/1", value)?;
        }
    }
    Ok(Code::Ok)
}

fn asked(args: &Args) -> Outcome<Asked> {
    let mut recipients: Vec<String> = args.recipients()?.into_iter().map(|(recipient, _)| recipient).collect();
    // An identity that was moved to a safe place is as it should be.
    if let Some(file) = args.identity_out.as_deref().filter(|file| file.symlink_metadata().is_ok()) {
        recipients.push(keys::recipient_of(file)?);
    }
    Ok(Asked {
        repo: args.repo.clone(),
        cluster: args.cluster.clone(),
        endpoints: args.source.endpoints.clone(),
        recipients,
        signing_file: args.signing_out.as_deref().map(keys::absolute).transpose()?,
    })
}

/// What is at a store, in words, and the repository's id where there is one. A store that does not answer is said, not failed for.
fn stand_of(name: &str, store: &Store) -> (String, Option<String>) {
    match signals::run(store::look(&place(store))) {
        Ok(Some(id)) => (format!("{name}: {}: repository {id}", store.url), Some(id.to_string())),
        Ok(None) => (format!("{name}: {}: empty; the first backup makes the repository", store.url), None),
        Err(failure) => (format!("{name}: {}: {} ({})", store.url, failure.what, failure.cause.unwrap_or_default()), None),
    }
}

fn signing(config: &Config, lines: &mut Vec<(&'static str, String)>, warnings: &mut Vec<String>) {
    let Some(file) = &config.keys.signing_file else {
        warnings.push("no signing key is configured: backups are unsigned".to_owned());
        return;
    };
    match engine::place::signing_key(file) {
        Err(failure) => warnings.push(format!("{}: {} ({})", file.display(), failure.what, failure.cause.unwrap_or_default())),
        Ok(key) => {
            let public = key.public().to_line();
            lines.push(("signing", format!("{}; public key {public}", file.display())));
            if !config.keys.trusted_signers.is_empty() && !config.keys.trusted_signers.contains(&public) {
                warnings.push(
                    "the signing key is not among keys.trusted_signers as text: lifeboat key check tells whether its backups count"
                        .to_owned(),
                );
            }
        }
    }
}

fn kit(config: &Config, repositories: &[(Store, Option<String>)]) -> Outcome<Kit> {
    let (store, id) = repositories.iter().find_map(|(store, id)| Some((store, id.clone()?))).ok_or_else(|| {
        Failure::new(Code::NoRepository, "the kit names the repository, and none was found")
            .cause("no store of the configuration holds one yet")
            .next(["lifeboat", "backup"])
    })?;
    Ok(Kit::of(config, store, id, keys::recipients(&config.keys.recipients)?))
}
