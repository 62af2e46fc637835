//! Bare `lifeboat`: where things stand, in five lines. It answers whatever is broken, and ends with 0.

use std::time::Duration;

use engine::place::PlaceOptions;
use engine::status::State;
use engine::{Code, Outcome};
use jiff::Timestamp;
use serde_json::{Value, json};
use vault::name::ClusterName;
use vault::repository::Catalog;
use vault::repository::catalog::Backup;

use super::init::config_flag;
use super::list::{age, proven};
use crate::args::{GlobalArgs, RepositoryArgs};
use crate::output::{self, Format};
use crate::resolve::Resolved;
use crate::{passphrase, signals};

/// A store that does not answer within this time does not hold up five lines.
const STORE_ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// The five lines.
#[derive(Debug, PartialEq, Eq)]
struct Lines {
    cluster: String,
    backup: String,
    proven: String,
    key: String,
    next: String,
}

impl Lines {
    fn text(&self) -> String {
        let Self { cluster, backup, proven, key, next } = self;
        format!("cluster      {cluster}\nlast backup  {backup}\nproven       {proven}\nkey          {key}\nnext         {next}\n")
    }

    fn json(&self) -> Value {
        json!({"cluster": self.cluster, "last_backup": self.backup, "proven": self.proven, "key": self.key, "next": self.next})
    }
}

/// Runs bare `lifeboat`.
pub(crate) fn run(global: &GlobalArgs) -> Outcome<Code> {
    let lines = lines(global);
    match global.format() {
        Format::Table | Format::Simple => output::print(&lines.text()),
        format => output::value(format, "lifeboat.overview/1", lines.json())?,
    }
    Ok(Code::Ok)
}

fn lines(global: &GlobalArgs) -> Lines {
    let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let repository = RepositoryArgs { repo: text("LIFEBOAT_REPO"), cluster: text("LIFEBOAT_CLUSTER"), ..RepositoryArgs::default() };
    let resolved = match Resolved::new(global, repository.cluster.as_deref(), false) {
        Ok(resolved) => resolved,
        Err(failure) => {
            let why = format!("unknown: {} ({})", failure.what, failure.cause.unwrap_or_default().lines().next().unwrap_or_default());
            return Lines { cluster: why, next: format!("lifeboat config check{}", config_flag(global)), ..nothing() };
        }
    };
    let Ok(place) = resolved.place(&repository) else { return nothing() };
    let key = key_line(&resolved);
    let names: Vec<ClusterName> = match (&resolved.cluster, &resolved.config) {
        (Some(name), _) => vec![name.clone()],
        (None, Some(config)) => config.clusters.keys().filter_map(|name| name.parse().ok()).collect(),
        (None, None) => Vec::new(),
    };
    match signals::run(within(look(&place, names))) {
        Ok(catalogs) => {
            let now = Timestamp::now();
            let judged: Vec<(&Catalog, State)> = catalogs.iter().map(|catalog| (catalog, state(&resolved, catalog, now))).collect();
            let worst = judged
                .iter()
                .copied()
                .min_by_key(|(catalog, state)| (*state == State::Protected, newest(catalog).map(|backup| backup.manifest.moment())));
            match worst {
                Some(worst) => of(global, worst, catalogs.len() - 1, &place, key, now),
                None => Lines {
                    cluster: format!("none yet in {}", place.url),
                    backup: "none".to_owned(),
                    key,
                    next: format!("lifeboat backup{}", config_flag(global)),
                    ..nothing()
                },
            }
        }
        Err(failure) => Lines {
            cluster: resolved.cluster.map_or_else(|| format!("those of {}", place.url), |name| format!("'{name}' in {}", place.url)),
            backup: format!("unknown: {} ({})", failure.what, failure.cause.unwrap_or_default()),
            proven: "unknown".to_owned(),
            key,
            next: match failure.code {
                Code::NoRepository if resolved.config.is_some() => format!("lifeboat backup{}", config_flag(global)),
                Code::NoRepository => format!("lifeboat init --repo {}", engine::next::quoted(&place.url)),
                _ => format!("lifeboat list{}", config_flag(global)),
            },
        },
    }
}

/// Without a configuration and without a repository.
fn nothing() -> Lines {
    Lines {
        cluster: "none is set up here".to_owned(),
        backup: "none known".to_owned(),
        proven: "nothing".to_owned(),
        key: "none".to_owned(),
        next: "lifeboat init".to_owned(),
    }
}

async fn within<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    match tokio::time::timeout(STORE_ANSWERS_WITHIN, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(engine::Failure::new(Code::StoreUnreachable, "the store does not answer")
            .cause(format!("waited {} s", STORE_ANSWERS_WITHIN.as_secs()))),
    }
}

async fn look(place: &PlaceOptions, mut names: Vec<ClusterName>) -> Outcome<Vec<Catalog>> {
    let repository = engine::place::open(place).await?;
    if names.is_empty() {
        names = repository.clusters().await.map_err(|error| engine::place::failure(place, "the repository cannot be listed", &error))?;
    }
    let mut catalogs = Vec::new();
    for name in names {
        catalogs.push(engine::place::catalog(&repository, place, &name).await?);
    }
    Ok(catalogs)
}

/// How a cluster stands by its policy, as `status` says it.
fn state(resolved: &Resolved, catalog: &Catalog, now: Timestamp) -> State {
    let config = resolved.config.clone().unwrap_or_default();
    let section = config.clusters.get(catalog.cluster.as_str()).cloned().unwrap_or_default();
    engine::status::judge(catalog, &config.policy(&section), now).state
}

/// The newest backup that `latest` would find.
fn newest(catalog: &Catalog) -> Option<&Backup> {
    catalog.eligible().first().copied()
}

/// The lines of the cluster that needs attention most; `others` are in better shape.
fn of(global: &GlobalArgs, (catalog, state): (&Catalog, State), others: usize, place: &PlaceOptions, key: String, now: Timestamp) -> Lines {
    let flag = config_flag(global);
    let more = if others > 0 { format!(", and {others} more in no worse shape (lifeboat status)") } else { String::new() };
    let cluster = format!("'{}' in {}{more}", catalog.cluster, place.url);
    // Several clusters in one configuration: what writes needs the name.
    let which = if others > 0 { format!(" --cluster {}", catalog.cluster) } else { String::new() };
    let Some(backup) = newest(catalog) else {
        let (backup, next) = if catalog.backups.is_empty() {
            ("none yet".to_owned(), format!("lifeboat backup{which}{flag}"))
        } else {
            (format!("none that counts; {} that do not", catalog.backups.len()), format!("lifeboat list{which}{flag}"))
        };
        return Lines { cluster, backup, proven: "nothing".to_owned(), key, next };
    };
    let manifest = &backup.manifest;
    let age_now = now.duration_since(manifest.moment());
    let is_well = state == State::Protected;
    Lines {
        cluster,
        backup: format!(
            "{}, {} ago{}, revision {}, {} keys",
            manifest.id,
            age(age_now),
            if is_well { String::new() } else { format!(" ({state})") },
            manifest.revision,
            manifest.counts.live_keys
        ),
        proven: format!("{}; hashkv {} when it was taken", proven(backup, now), engine::backup::verdict_word(manifest.hashkv.verdict)),
        key,
        next: if !is_well {
            format!("lifeboat status{which}{flag}")
        } else if backup.proof.rung < vault::manifest::Rung::Read {
            format!("lifeboat verify latest --read{which}{flag}")
        } else {
            format!("lifeboat try latest{}{which}{flag}", passphrase::flag(manifest))
        },
    }
}

fn key_line(resolved: &Resolved) -> String {
    let Some(config) = &resolved.config else { return "no configuration says who can open the backups".to_owned() };
    let recipients = &config.keys.recipients;
    let identity = match config.identity_files().first() {
        Some(file) if file.exists() => format!("an identity is on this machine: {}", file.display()),
        Some(file) => format!("the identity {} is NOT there", file.display()),
        None => "no identity is configured on this machine, as it should be".to_owned(),
    };
    match &recipients[..] {
        [] => "no recipient is configured, so nothing can be sealed".to_owned(),
        [only] => format!("opened by the identity of {only}; {identity}"),
        several => format!("opened by the identity of any of {} recipients; {identity}", several.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_lines_whatever_is_known() {
        let text = nothing().text();
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(text.ends_with("next         lifeboat init\n"), "{text}");
    }
}
