//! From arguments, configuration and environment to what the engine is told. Flags beat the configuration, which beats the environment of etcdctl,
//! which beats looking round on this machine.

use std::path::PathBuf;

use engine::config::{self, Config};
use engine::lease::Mode;
use engine::opening::Opening;
use engine::place::PlaceOptions;
use engine::spool::SpoolOptions;
use engine::store_kind::STORE_URLS;
use engine::stores::{self, NamedPlace};
use engine::{Failure, Outcome};

use crate::args::{GlobalArgs, IdentityArgs, RepositoryArgs, SpoolArgs};
use crate::{output, passphrase, signals};

/// The configuration in force: the one named, else the first that is there, else none.
pub(crate) fn configuration(global: &GlobalArgs) -> Outcome<Option<(PathBuf, Config)>> {
    if let Some(path) = &global.config {
        return Ok(Some((path.clone(), config::load(path)?)));
    }
    match config::usual_places().into_iter().find(|path| path.is_file()) {
        Some(path) => config::load(&path).map(|config| Some((path, config))),
        None => Ok(None),
    }
}

/// What arguments and configuration say together.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The configuration, where there is one.
    pub(crate) config: Option<Config>,
    /// The cluster's name, where it is known.
    pub(crate) cluster: Option<vault::name::ClusterName>,
    /// The cluster's section in the configuration.
    pub(crate) section: Option<config::Cluster>,
}

impl Resolved {
    /// Reads the configuration and picks the cluster. `writes` says that the verb needs one cluster and not all of them.
    pub(crate) fn new(global: &GlobalArgs, cluster: Option<&str>, writes: bool) -> Outcome<Self> {
        let config = configuration(global)?.map(|(_, config)| config);
        let name = match (cluster, &config) {
            (Some(name), _) => Some(name.to_owned()),
            (None, Some(config)) if config.clusters.len() == 1 => config.clusters.keys().next().cloned(),
            (None, Some(config)) if config.clusters.len() > 1 && writes => {
                let names: Vec<&str> = config.clusters.keys().map(String::as_str).collect();
                let flags: Vec<String> = names.iter().map(|name| format!("--cluster {name}")).collect();
                return Err(Failure::usage("the configuration has several clusters, and one must be named")
                    .cause(format!("name one of: {}", flags.join(", ")))
                    .again_with(["--cluster", names[0]]));
            }
            _ => None,
        };
        let section = name.as_ref().zip(config.as_ref()).and_then(|(name, config)| config.clusters.get(name).cloned());
        let cluster = name
            .map(|name| {
                name.parse::<vault::name::ClusterName>()
                    .map_err(|error| Failure::usage(format!("'{name}' cannot be a cluster's name: {error}")).again())
            })
            .transpose()?;
        Ok(Self { config, cluster, section })
    }

    /// Whether the cluster has a section in the configuration: such a one is no slip of the pen, though the store holds nothing of it yet.
    pub(crate) fn is_configured(&self) -> bool {
        self.section.is_some()
    }

    /// Arguments and environment alone: for `init`, which makes the configuration, and for what has its own etcd.
    pub(crate) fn without_configuration() -> Self {
        Self { config: None, cluster: None, section: None }
    }

    /// Where the repository is and whose signatures count.
    pub(crate) fn place(&self, args: &RepositoryArgs) -> Outcome<PlaceOptions> {
        let store = self.section.as_ref().zip(self.config.as_ref()).and_then(|(section, config)| config.store_of(section));
        let only = self.config.as_ref().filter(|config| config.stores.len() == 1).and_then(|config| config.stores.values().next());
        let store = store.or(only);
        let url = args.repo.clone().or_else(|| store.map(|store| store.url.clone())).ok_or_else(|| {
            Failure::usage("no repository is named")
                .cause("name it by --repo or LIFEBOAT_REPO, or in lifeboat.yaml")
                .next(["lifeboat", "init"])
        })?;
        let from_config = |pick: fn(&config::Store) -> Option<String>| if args.repo.is_some() { None } else { store.and_then(pick) };
        let signers = if args.trusted_signer.is_empty() {
            self.config.as_ref().map(|config| config.keys.trusted_signers.clone()).unwrap_or_default()
        } else {
            args.trusted_signer.clone()
        };
        let (region, endpoint, credentials_file) = args.store.of(&url);
        let credentials_file =
            credentials_file.or_else(|| if args.repo.is_some() { None } else { store.and_then(|store| store.credentials_file.clone()) });
        Ok(PlaceOptions {
            url,
            region: region.or_else(|| from_config(|store| store.region.clone())),
            endpoint: endpoint.or_else(|| from_config(|store| store.endpoint.clone())),
            credentials_file,
            trusted_signers: signers,
            allow_unsigned: args.allow_unsigned,
        })
    }

    /// All stores of the repository in the order of the configuration, and how many of them a backup must reach. A repository that is named by flag or
    /// environment is one store.
    pub(crate) fn places(&self, args: &RepositoryArgs) -> Outcome<(Vec<NamedPlace>, usize)> {
        let first = self.place(args)?;
        let policy = self.section.as_ref().zip(self.config.as_ref()).map(|(section, config)| config.policy(section));
        let Some(policy) = policy.filter(|policy| args.repo.is_none() && !policy.stores.is_empty()) else {
            return Ok((vec![NamedPlace::unnamed(first)], 1));
        };
        let mut places = stores::of_policy(&policy, &first.trusted_signers, args.allow_unsigned);
        // Flags for a store are about the one that would be taken alone.
        places[0].options = first;
        Ok((places, policy.min_stores))
    }

    /// The first store of the repository that can be read. That it is not the first one is said.
    pub(crate) fn place_to_read(&self, global: &GlobalArgs, args: &RepositoryArgs) -> Outcome<PlaceOptions> {
        let (mut places, _) = self.places(args)?;
        if places.len() == 1 {
            return Ok(places.remove(0).options);
        }
        let (at, notes) = signals::run(stores::first_readable(&places))?;
        for note in notes.iter().filter(|_| !global.quiet) {
            output::say(&format!("warning: {note}"));
        }
        Ok(places.swap_remove(at).options)
    }

    /// A store by its name in the configuration, or by its URL; what a URL does not say comes from `args`, then from the store configured under it.
    pub(crate) fn store_named(&self, word: &str, args: &RepositoryArgs) -> Outcome<NamedPlace> {
        let named = self.config.as_ref().and_then(|config| {
            config.stores.iter().find(|(name, store)| *name == word || store.url.trim_end_matches('/') == word.trim_end_matches('/'))
        });
        if named.is_none() && !word.contains("://") {
            let known: Vec<&str> = self.config.iter().flat_map(|config| config.stores.keys()).map(String::as_str).collect();
            let known = if known.is_empty() { "no configuration names one".to_owned() } else { format!("there are: {}", known.join(", ")) };
            return Err(Failure::usage(format!("'{word}' is neither a URL nor the name of a store"))
                .cause(format!("{known}; a URL is {STORE_URLS}"))
                .again());
        }
        let url = named.map_or(word, |(_, store)| store.url.as_str()).to_owned();
        let mut options = self.place(&RepositoryArgs { repo: Some(url), ..args.clone() })?;
        let Some((name, store)) = named else { return Ok(NamedPlace::unnamed(options)) };
        options.region = options.region.or_else(|| store.region.clone());
        options.endpoint = options.endpoint.or_else(|| store.endpoint.clone());
        options.credentials_file = options.credentials_file.or_else(|| store.credentials_file.clone());
        Ok(NamedPlace { name: name.clone(), options })
    }

    /// What opens backups: the identity files named, and the passphrase; the configured file where none is named.
    pub(crate) fn opening(&self, args: &IdentityArgs) -> Outcome<Opening> {
        let passphrase = passphrase::given(&args.passphrase, false)?;
        let mut identities = args.identity.clone();
        if identities.is_empty() {
            let configured = self.config.iter().filter_map(|config| config.keys.identity_file.clone());
            // The passphrase may be the one of that file, or it may be what the file is not there for.
            identities.extend(configured.filter(|file| passphrase.is_none() || file.exists()));
        }
        Ok(Opening { identities, passphrase, person: passphrase::person(), ..Opening::default() })
    }

    /// Recipients as text: those named and those in the files named, else the configured ones.
    pub(crate) fn recipients(&self, named: &[String], files: &[PathBuf]) -> Outcome<Vec<String>> {
        let mut recipients = named.to_vec();
        for file in files {
            let text = std::fs::read_to_string(file)
                .map_err(|error| Failure::usage(format!("the recipients cannot be read: {error}")).object(file.display()).again())?;
            recipients.extend(text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned));
        }
        if recipients.is_empty()
            && let Some(config) = &self.config
        {
            recipients.clone_from(&config.keys.recipients);
        }
        Ok(recipients)
    }

    /// Recipients of extra files; those of the backup without.
    pub(crate) fn extra_recipients(&self) -> Vec<String> {
        self.config.as_ref().map(|config| config.keys.extra_recipients.clone()).unwrap_or_default()
    }

    /// The file of the key that signs.
    pub(crate) fn signing_key(&self, named: Option<&PathBuf>) -> Option<PathBuf> {
        named.cloned().or_else(|| self.config.as_ref()?.keys.signing_file.clone())
    }

    /// Files kept beside each backup: those named and those configured.
    pub(crate) fn extras(&self, named: &[PathBuf]) -> Vec<PathBuf> {
        let mut extras = named.to_vec();
        if let (Some(config), Some(section)) = (&self.config, &self.section) {
            extras.extend(config.extra(section).iter().filter(|path| !named.contains(path)).cloned());
        }
        extras
    }

    /// The configured time for live HashKV questions.
    pub(crate) fn hashkv_budget(&self) -> Option<String> {
        let section = self.section.as_ref().and_then(|section| section.hashkv_budget.clone());
        section.or_else(|| self.config.as_ref()?.defaults.hashkv_budget.clone())
    }

    /// The share of keys whose loss pins the backup before it.
    pub(crate) fn content_shrinks_by(&self) -> f64 {
        let configured = self.section.as_ref().zip(self.config.as_ref()).map(|(section, config)| config.policy(section));
        configured.map_or_else(engine::config::content_shrinks_by, |policy| policy.content_shrinks_by())
    }

    /// Whether a backup takes the lease of the repository.
    pub(crate) fn lease(&self) -> Mode {
        let section = self.section.as_ref().and_then(|section| section.lease);
        section.or_else(|| self.config.as_ref()?.defaults.lease).unwrap_or_default()
    }

    /// The commands around each backup of the cluster; none where it has no section.
    pub(crate) fn hooks(&self) -> config::Hooks {
        let section = self.section.as_ref().zip(self.config.as_ref());
        section.map(|(section, config)| config.policy(section).hooks).unwrap_or_default()
    }

    /// Where the spool goes.
    pub(crate) fn spool(&self, args: &SpoolArgs) -> Outcome<SpoolOptions> {
        let configured = self.config.as_ref().map(|config| config.spool.clone()).unwrap_or_default();
        let reserve = args.spool_reserve.clone().or(configured.reserve);
        let mut options = SpoolOptions { directory: args.spool_dir.clone().or(configured.directory), ..SpoolOptions::default() };
        if let Some(reserve) = reserve {
            options.reserve = config::bytes(&reserve)?;
        }
        Ok(options)
    }
}
