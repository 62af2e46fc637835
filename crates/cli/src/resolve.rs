//! From arguments, configuration and environment to what the engine is told. Flags beat the configuration, which beats the environment of etcdctl,
//! which beats looking round on this machine.

use std::path::{Path, PathBuf};

use engine::config::{self, Config, Etcd};
use engine::lease::Mode;
use engine::opening::Opening;
use engine::place::PlaceOptions;
use engine::source::SourceOptions;
use engine::spool::SpoolOptions;
use engine::{Failure, Outcome};

use crate::args::{GlobalArgs, IdentityArgs, RepositoryArgs, SourceArgs, SpoolArgs};
use crate::{output, passphrase};

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
    section: Option<config::Cluster>,
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

    /// How etcd is reached.
    pub(crate) fn source(&self, args: &SourceArgs) -> Outcome<SourceOptions> {
        let mut options = if !args.endpoints.is_empty() {
            SourceOptions { endpoints: args.endpoints.clone(), ..SourceOptions::default() }
        } else if let Some(section) = &self.section {
            from_section(section)?
        } else {
            from_environment().unwrap_or_else(look_round)
        };
        if args.cacert.is_some() {
            options.cacert.clone_from(&args.cacert);
        }
        if args.cert.is_some() {
            options.cert.clone_from(&args.cert);
            options.key.clone_from(&args.key);
        } else if args.key.is_some() {
            options.key.clone_from(&args.key);
        }
        if options.cert.is_some() != options.key.is_some() {
            return Err(Failure::usage("a client certificate and its key go together").cause("give both --cert and --key").again());
        }
        if let Some(user) = &args.user {
            options.credentials = Some(credentials(user, args.password.as_deref(), args.password_file.as_deref())?);
        }
        options.server_name = args.tls_server_name.clone().or(options.server_name);
        options.insecure_skip_verify |= args.insecure_skip_tls_verify;
        options.discover |= args.discover;
        if !args.dial_timeout.is_empty() {
            options.dial_timeout = config::duration(&args.dial_timeout)?;
        }
        if !args.command_timeout.is_empty() {
            options.request_timeout = config::duration(&args.command_timeout)?;
        }
        Ok(options)
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
        let credentials_file = args
            .s3_credentials_file
            .clone()
            .or_else(|| if args.repo.is_some() { None } else { store.and_then(|store| store.credentials_file.clone()) });
        Ok(PlaceOptions {
            url,
            region: args.s3_region.clone().or_else(|| from_config(|store| store.region.clone())),
            endpoint: args.s3_endpoint.clone().or_else(|| from_config(|store| store.endpoint.clone())),
            credentials_file,
            trusted_signers: signers,
            allow_unsigned: args.allow_unsigned,
        })
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
        Ok(Opening { identities, passphrase, person: passphrase::person() })
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

    /// Whether a backup takes the lease of the repository.
    pub(crate) fn lease(&self) -> Mode {
        let section = self.section.as_ref().and_then(|section| section.lease);
        section.or_else(|| self.config.as_ref()?.defaults.lease).unwrap_or_default()
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

fn from_section(section: &config::Cluster) -> Outcome<SourceOptions> {
    let etcd = match (&section.etcd, section.kubeadm) {
        (Some(etcd), _) => etcd.clone(),
        (None, Some(kubeadm)) => kubeadm.etcd(),
        (None, None) => Etcd::default(),
    };
    let credentials = match &etcd.user {
        Some(user) => Some(credentials(user, None, etcd.password_file.as_deref())?),
        None => None,
    };
    Ok(SourceOptions {
        endpoints: etcd.endpoints,
        cacert: etcd.cacert,
        cert: etcd.cert,
        key: etcd.key,
        credentials,
        discover: etcd.discover,
        ..SourceOptions::default()
    })
}

/// What etcdctl would take from its environment.
fn from_environment() -> Option<SourceOptions> {
    let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let endpoints = text("ETCDCTL_ENDPOINTS")?;
    let file = |name: &str| text(name).map(PathBuf::from);
    let user = text("ETCDCTL_USER");
    let credentials = user.and_then(|user| credentials(&user, text("ETCDCTL_PASSWORD").as_deref(), None).ok());
    Some(SourceOptions {
        endpoints: endpoints.split(',').map(|endpoint| endpoint.trim().to_owned()).collect(),
        cacert: file("ETCDCTL_CACERT"),
        cert: file("ETCDCTL_CERT"),
        key: file("ETCDCTL_KEY"),
        credentials,
        insecure_skip_verify: text("ETCDCTL_INSECURE_SKIP_TLS_VERIFY").is_some_and(|value| value == "true"),
        ..SourceOptions::default()
    })
}

/// What can be found on this machine: kubeadm's etcd, else plain etcd on its usual port.
pub(crate) fn look_round() -> SourceOptions {
    let kubeadm = config::Kubeadm {}.etcd();
    let is_kubeadm = [&kubeadm.cacert, &kubeadm.cert, &kubeadm.key].into_iter().flatten().all(|file| file.is_file());
    if is_kubeadm {
        output::say("source: kubeadm's etcd on this machine (https://127.0.0.1:2379, certificates of /etc/kubernetes/pki/etcd)");
        return SourceOptions {
            endpoints: kubeadm.endpoints,
            cacert: kubeadm.cacert,
            cert: kubeadm.cert,
            key: kubeadm.key,
            ..SourceOptions::default()
        };
    }
    SourceOptions { endpoints: vec!["http://127.0.0.1:2379".to_owned()], ..SourceOptions::default() }
}

/// `name`, `name:password`, or a name with its password elsewhere.
fn credentials(user: &str, password: Option<&str>, password_file: Option<&Path>) -> Outcome<etcd_api::Credentials> {
    let from_file = |path: &Path| {
        std::fs::read_to_string(path)
            .map(|text| text.trim_end_matches(['\n', '\r']).to_owned())
            .map_err(|error| Failure::usage(format!("the password cannot be read: {error}")).object(path.display()).again())
    };
    let (user, password) = match (password_file, password, user.split_once(':')) {
        (Some(path), _, _) => (user, from_file(path)?),
        (None, Some(password), _) => (user, password.to_owned()),
        (None, None, Some((user, password))) => {
            output::say("warning: a password on the command line can be read by every user of this machine; better: --password-file");
            (user, password.to_owned())
        }
        (None, None, None) => {
            return Err(Failure::usage(format!("the user '{user}' has no password")).cause("give --password-file").again());
        }
    };
    Ok(etcd_api::Credentials { user: user.to_owned(), password: password.into() })
}
