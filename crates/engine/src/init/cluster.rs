//! The cluster that was found, and how the configuration says where it is.

use std::path::{Path, PathBuf};

use etcd_store::id::ClusterId;

use super::here;
use crate::access::Access;
use crate::config::{self, Etcd, Kubeadm};
use crate::failure::{Failure, Outcome};
use crate::source::{Source, SourceOptions};
use crate::talos::TalosOptions;

/// A cluster that answers.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its id; `None` where the source tells none (Talos).
    pub id: Option<ClusterId>,
    /// The talosconfig's context, where it is reached over Talos.
    pub context: Option<String>,
    /// Whether our role may keep the nodes' machine configs.
    pub may_keep_machine_configs: bool,
    /// The newest etcd version among those that answered.
    pub version: Option<String>,
    /// The endpoints that were asked.
    pub endpoints: Vec<String>,
    /// Members, by the member list.
    pub members: usize,
    /// How many of those asked answered.
    pub answering: usize,
    /// Client URLs of members that were not asked.
    pub others: Vec<String>,
    /// Whether a member runs on this machine, as far as addresses tell.
    pub here: bool,
    /// What was odd on the way.
    pub notes: Vec<String>,
}

/// Looks at the cluster. Writes nothing.
pub async fn find(access: &Access) -> Outcome<Found> {
    let source = Source::connect(access).await?;
    let asked: Vec<_> = source.asked.iter().map(|asked| asked.candidate.id).collect();
    let others = source
        .members
        .iter()
        .filter(|member| !asked.contains(&member.id))
        .filter_map(|member| member.client_urls.first().cloned())
        .collect();
    // A loopback address in the member list is the member's own loopback, wherever that is.
    let listed = source.members.iter().flat_map(|member| &member.client_urls).filter(|url| !here::is_loopback(url));
    let named: Vec<String> = match access {
        Access::Etcd(options) => options.endpoints.clone(),
        Access::Talos(_) => source.asked.iter().map(|asked| asked.candidate.endpoint.clone()).collect(),
    };
    let here = named.iter().chain(listed).any(|url| here::is_here(url));
    Ok(Found {
        id: source.cluster_id,
        context: source.talos.as_ref().map(|talos| talos.context.clone()),
        may_keep_machine_configs: source.talos.as_ref().is_some_and(|talos| talos.client.roles().has(&talos_api::Role::Admin)),
        version: source
            .asked
            .iter()
            .filter_map(|asked| asked.version.clone())
            .max_by_key(|text| text.parse::<etcd_store::version::Version>().ok()),
        endpoints: named,
        members: source.members.len().max(source.asked.len()),
        answering: source.asked.iter().filter(|asked| asked.candidate.state.is_ok()).count(),
        others,
        here,
        notes: source.notes,
    })
}

/// How the configuration says where a cluster is that was reached by `options`. `user` and `password_file` are what the options' credentials came from.
///
/// Refuses what a configuration cannot say: a password without a file, a skipped check of the certificate, another name to expect in it.
pub fn section(access: &Access, user: Option<&str>, password_file: Option<&Path>) -> Outcome<config::Cluster> {
    match access {
        Access::Etcd(options) => of_etcd(options, user, password_file),
        Access::Talos(options) => of_talos(options),
    }
}

/// The path of the talosconfig, and of what it says only what flags changed: it is read anew on every run.
fn of_talos(options: &TalosOptions) -> Outcome<config::Cluster> {
    let talos = config::Talos {
        config_file: absolute(Some(&options.config_file))?,
        context: options.context.clone(),
        endpoints: options.endpoints.clone(),
        nodes: options.nodes.clone(),
        direct: options.direct,
    };
    Ok(config::Cluster { talos: Some(talos), ..config::Cluster::default() })
}

fn of_etcd(options: &SourceOptions, user: Option<&str>, password_file: Option<&Path>) -> Outcome<config::Cluster> {
    let cannot = |what: &str, cause: &str| Err(Failure::usage(what).cause(cause).again());
    if options.credentials.is_some() && (user.is_none() || password_file.is_none()) {
        return cannot(
            "the password cannot be written into the configuration",
            "secrets are named by file there: give --user NAME and --password-file FILE",
        );
    }
    if options.insecure_skip_verify || options.server_name.is_some() {
        return cannot(
            "--insecure-skip-tls-verify and --tls-server-name cannot be kept in the configuration",
            "use an endpoint whose name or address is in the certificate, and name its CA with --cacert",
        );
    }
    let kubeadm = Kubeadm {}.etcd();
    let is_kubeadm = options.endpoints == kubeadm.endpoints
        && [(&options.cacert, &kubeadm.cacert), (&options.cert, &kubeadm.cert), (&options.key, &kubeadm.key)].iter().all(|(a, b)| a == b)
        && options.credentials.is_none()
        && !options.discover;
    if is_kubeadm {
        return Ok(config::Cluster { kubeadm: Some(Kubeadm {}), ..config::Cluster::default() });
    }
    let etcd = Etcd {
        endpoints: options.endpoints.clone(),
        cacert: absolute(options.cacert.as_deref())?,
        cert: absolute(options.cert.as_deref())?,
        key: absolute(options.key.as_deref())?,
        user: user.map(|user| user.split_once(':').map_or(user, |(name, _)| name).to_owned()).filter(|_| options.credentials.is_some()),
        password_file: absolute(password_file.filter(|_| options.credentials.is_some()))?,
        discover: options.discover,
    };
    Ok(config::Cluster { etcd: Some(etcd), ..config::Cluster::default() })
}

/// A path as it is right from every directory.
fn absolute(path: Option<&Path>) -> Outcome<Option<PathBuf>> {
    path.map(std::path::absolute).transpose().map_err(|error| Failure::usage("a path cannot be made absolute").cause(error).again())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn options(endpoint: &str) -> SourceOptions {
        SourceOptions { endpoints: vec![endpoint.to_owned()], ..SourceOptions::default() }
    }

    #[test]
    fn kubeadm_is_known_by_its_files() {
        let etcd = Kubeadm {}.etcd();
        let mut found = options(&etcd.endpoints[0]);
        (found.cacert, found.cert, found.key) = (etcd.cacert, etcd.cert, etcd.key);
        assert_eq!(of_etcd(&found, None, None).unwrap().kubeadm, Some(Kubeadm {}));
        found.endpoints = vec!["https://10.0.0.1:2379".to_owned()];
        let named = of_etcd(&found, None, None).unwrap();
        assert_eq!((named.kubeadm, named.etcd.unwrap().endpoints), (None, vec!["https://10.0.0.1:2379".to_owned()]));
    }

    #[test]
    fn paths_become_absolute_and_secrets_stay_out() {
        let mut found = options("https://etcd:2379");
        found.cacert = Some("ca.crt".into());
        found.credentials = Some(etcd_api::Credentials { user: "root".to_owned(), password: "hunter2".to_owned().into() });
        assert_eq!(of_etcd(&found, Some("root:hunter2"), None).unwrap_err().code, crate::Code::Usage);
        let etcd = of_etcd(&found, Some("root"), Some(Path::new("pw"))).unwrap().etcd.unwrap();
        assert!(etcd.cacert.unwrap().is_absolute() && etcd.password_file.unwrap().is_absolute());
        assert_eq!(etcd.user.as_deref(), Some("root"));
        found.insecure_skip_verify = true;
        assert!(of_etcd(&found, Some("root"), Some(Path::new("pw"))).is_err());
    }
}
