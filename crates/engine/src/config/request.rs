//! What the engine is told when nobody but the configuration says anything: for the agent, and for whoever looks at every cluster.

use std::ffi::OsString;

use vault::manifest::Rung;
use vault::name::ClusterName;

use super::{Cluster, Config, Etcd, Policy, Store, bytes, duration};
use crate::access::Access;
use crate::choice::Wish;
use crate::extra::Extra;
use crate::failure::{Failure, Outcome};
use crate::lease::Mode;
use crate::limits::HASHKV_BUDGET;
use crate::opening::Opening;
use crate::place::PlaceOptions;
use crate::source::SourceOptions;
use crate::spool::SpoolOptions;
use crate::talos::{self, TalosOptions};
use crate::{backup, cache, drill, stores, verify};

impl Cluster {
    /// The way to it. `variable` is the environment, in which a talosconfig may be named.
    ///
    /// # Errors
    /// A usage failure where a file it names cannot be read, or there is no talosconfig.
    pub fn access(&self, variable: impl Fn(&str) -> Option<OsString>) -> Outcome<Access> {
        let Some(section) = &self.talos else { return self.etcd_options().map(Access::Etcd) };
        let (config_file, _) = talos::locate(section.config_file.as_deref(), variable)?;
        Ok(Access::Talos(TalosOptions {
            config_file,
            context: section.context.clone(),
            endpoints: section.endpoints.clone(),
            nodes: section.nodes.clone(),
            direct: section.direct,
            ..TalosOptions::default()
        }))
    }

    /// The way to its etcd, of a cluster that is none of Talos's.
    ///
    /// # Errors
    /// A usage failure where the password's file cannot be read.
    pub fn etcd_options(&self) -> Outcome<SourceOptions> {
        let etcd = match (&self.etcd, self.kubeadm) {
            (Some(etcd), _) => etcd.clone(),
            (None, Some(kubeadm)) => kubeadm.etcd(),
            (None, None) => Etcd::default(),
        };
        let credentials = match (&etcd.user, &etcd.password_file) {
            (Some(user), Some(file)) => {
                let password = std::fs::read_to_string(file)
                    .map_err(|error| Failure::usage(format!("the password cannot be read: {error}")).object(file.display()).again())?;
                let password = password.trim_end_matches(['\n', '\r']).to_owned();
                Some(etcd_api::Credentials { user: user.clone(), password: password.into() })
            }
            (Some(user), None) => {
                return Err(Failure::usage(format!("the user '{user}' has no password")).cause("name its file as password_file").again());
            }
            (None, _) => None,
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
}

impl Config {
    /// A store as it is opened.
    #[must_use]
    pub fn place(&self, store: &Store) -> PlaceOptions {
        PlaceOptions {
            url: store.url.clone(),
            region: store.region.clone(),
            endpoint: store.endpoint.clone(),
            credentials_file: store.credentials_file.clone(),
            trusted_signers: self.keys.trusted_signers.clone(),
            allow_unsigned: false,
        }
    }

    /// The store of a cluster that decides.
    ///
    /// # Errors
    /// A usage failure where it has none.
    pub fn first_place(&self, policy: &Policy) -> Outcome<PlaceOptions> {
        let first = policy.stores.first().ok_or_else(|| {
            Failure::usage("the cluster has no store")
                .cause("name one under stores, and its name under the cluster's or the defaults' stores")
        })?;
        Ok(self.place(&first.1))
    }

    /// The first store of a cluster that holds its repository and can be read.
    ///
    /// # Errors
    /// A usage failure where it has none; that of the first store, where none can be read.
    pub async fn readable_place(&self, policy: &Policy) -> Outcome<PlaceOptions> {
        let first = self.first_place(policy)?;
        let places = stores::of_policy(policy, &self.keys.trusted_signers, false);
        let (at, _) = stores::first_readable(&places).await?;
        Ok(places.into_iter().nth(at).map_or(first, |place| place.options))
    }

    /// The files that are named as holding identities that open backups, each once.
    #[must_use]
    pub fn identity_files(&self) -> Vec<&std::path::Path> {
        let drills = self.clusters.values().filter_map(|cluster| cluster.drill.as_ref()).chain(&self.defaults.drill);
        let all = self.keys.identity_file.iter().chain(drills.filter_map(|drill| drill.identity_file.as_ref()));
        let mut files: Vec<&std::path::Path> = all.map(std::path::PathBuf::as_path).collect();
        files.sort_unstable();
        files.dedup();
        files
    }

    /// Whether backups of a cluster take the lease of the repository.
    #[must_use]
    pub fn lease(&self, cluster: &Cluster) -> Mode {
        cluster.lease.or(self.defaults.lease).unwrap_or_default()
    }

    /// Where snapshots lie meanwhile.
    ///
    /// # Errors
    /// A usage failure; none for a configuration that was checked.
    pub fn spool_options(&self) -> Outcome<SpoolOptions> {
        let mut options = SpoolOptions { directory: self.spool.directory.clone(), ..SpoolOptions::default() };
        if let Some(reserve) = &self.spool.reserve {
            options.reserve = bytes(reserve)?;
        }
        Ok(options)
    }

    /// A backup of one cluster as the configuration has it.
    ///
    /// # Errors
    /// A usage failure where it has no store, nobody could open it, or a file it names cannot be read.
    pub fn backup_request(
        &self,
        name: &ClusterName,
        cluster: &Cluster,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Outcome<backup::Request> {
        let policy = self.policy(cluster);
        if self.keys.recipients.is_empty() {
            return Err(
                Failure::usage("no recipient is configured, so nobody could ever open the backup").cause("name one under keys.recipients")
            );
        }
        let budget = cluster.hashkv_budget.as_ref().or(self.defaults.hashkv_budget.as_ref());
        Ok(backup::Request {
            source: cluster.access(variable)?,
            place: self.first_place(&policy)?,
            stores: if policy.stores.len() > 1 { stores::of_policy(&policy, &self.keys.trusted_signers, false) } else { Vec::new() },
            min_stores: policy.min_stores,
            cluster: Some(name.clone()),
            wish: Wish::default(),
            tags: Vec::new(),
            extras: self.extra(cluster).iter().map(|path| Extra::of(path)).collect(),
            recipients: self.keys.recipients.clone(),
            passphrase: None,
            person: crate::opening::Person::default(),
            extra_recipients: self.keys.extra_recipients.clone(),
            plain: false,
            signing_key: self.keys.signing_file.clone(),
            spool: self.spool_options()?,
            hashkv_budget: budget.map_or(Ok(HASHKV_BUDGET), |text| duration(text))?,
            gentle: false,
            read_back: false,
            lease: self.lease(cluster),
            content_shrinks_by: Some(policy.content_shrinks_by()),
            dry_run: false,
            cache: cache::default_directory(),
        })
    }

    /// A run of drills of one cluster as the configuration has it. `tie` is as in [`drill::Request`].
    ///
    /// # Errors
    /// As [`Config::readable_place`].
    pub async fn drill_request(&self, name: &ClusterName, cluster: &Cluster, tie: &[OsString]) -> Outcome<drill::Request> {
        let policy = self.policy(cluster);
        let section = policy.drill.clone().unwrap_or_default();
        let identity =
            section.identity_file.clone().or_else(|| self.keys.identity_file.clone().filter(|_| section.identity_command.is_empty()));
        let spool = self.spool_options()?;
        let directory = spool.directory.clone();
        Ok(drill::Request {
            place: self.readable_place(&policy).await?,
            cluster: Some(name.clone()),
            which: Vec::new(),
            all: false,
            budget: section.budget.as_deref().map(duration).transpose()?,
            opening: Opening { identities: identity.into_iter().collect(), ..Opening::default() },
            identity_command: section.identity_command,
            etcd: section.etcd,
            search: std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default(),
            canaries: section.canary,
            credentials: None,
            signing_key: self.keys.signing_file.clone(),
            directory_named: directory.is_some(),
            directory: directory.unwrap_or_else(crate::spool::default_directory),
            spool,
            tie: tie.to_vec(),
            dry_run: false,
        })
    }

    /// A verification of the newest backup of one cluster as the configuration has it.
    ///
    /// # Errors
    /// As [`Config::readable_place`].
    pub async fn verify_request(&self, name: &ClusterName, cluster: &Cluster) -> Outcome<verify::Request> {
        let policy = self.policy(cluster);
        let rung = policy.verify.as_ref().and_then(|verify| verify.rung).unwrap_or(Rung::Read);
        let identities = self.keys.identity_file.iter().filter(|_| rung == Rung::Deep).cloned().collect();
        Ok(verify::Request {
            place: self.readable_place(&policy).await?,
            cluster: Some(name.clone()),
            which: vec!["latest".to_owned()],
            all: false,
            rung,
            opening: Opening { identities, ..Opening::default() },
            signing_key: self.keys.signing_file.clone(),
            spool: self.spool_options()?,
        })
    }
}
