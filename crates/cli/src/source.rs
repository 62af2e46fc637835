//! Which cluster, and how it is reached: flags beat the configuration, which beats the environment, which beats looking round on this machine.

use std::path::{Path, PathBuf};

use engine::config;
use engine::source::SourceOptions;
use engine::talos::{self, TalosOptions};
use engine::{Access, Failure, Outcome};

use crate::args::{SourceArgs, TalosArgs};
use crate::output;
use crate::resolve::Resolved;

impl Resolved {
    /// The way to the cluster.
    ///
    /// # Errors
    /// A usage failure where flags or the environment name both etcd and Talos, or more than one cluster is found.
    pub(crate) fn source(&self, args: &SourceArgs) -> Outcome<Access> {
        let section = self.section.as_ref().and_then(|section| section.talos.as_ref());
        let names_etcd = names_etcd(args);
        if args.talos.is_given() && (names_etcd || (!args.endpoints.is_empty() && !args.talos.talos_endpoints.is_empty())) {
            return Err(Failure::usage("the flags name etcd and Talos both")
                .cause("--cacert, --cert, --key and --user are etcd's; -n, -e, --talosconfig and --context are Talos's")
                .again());
        }
        // With a Talos flag, or a cluster that is Talos's, --endpoints are Talos's endpoints.
        let is_talos = args.talos.is_given() || (section.is_some() && !names_etcd);
        if is_talos {
            return talos(args, section);
        }
        if !args.endpoints.is_empty() {
            let options = SourceOptions { endpoints: args.endpoints.clone(), ..SourceOptions::default() };
            return etcd(options, args).map(Access::Etcd);
        }
        if let Some(section) = self.section.as_ref().filter(|section| section.talos.is_none()) {
            return etcd(section.etcd_options()?, args).map(Access::Etcd);
        }
        match (from_environment(), talosconfig_of_environment()) {
            (Some(options), Some(file)) if !names_etcd => Err(two_clusters(&options, &file)),
            (Some(options), _) => etcd(options, args).map(Access::Etcd),
            (None, Some(_)) if !names_etcd => talos(args, None),
            _ => look_round(args),
        }
    }
}

impl Resolved {
    /// The way to a Talos cluster, for a verb that is about nothing else.
    ///
    /// # Errors
    /// A usage failure where the configuration's cluster is none of Talos's and no flag says otherwise; where there is no talosconfig.
    pub(crate) fn talos_source(&self, args: &TalosArgs) -> Outcome<TalosOptions> {
        let section = self.section.as_ref().and_then(|section| section.talos.as_ref());
        if let (Some(own), None, false) = (&self.section, section, args.is_given())
            && (own.etcd.is_some() || own.kubeadm.is_some())
        {
            return Err(Failure::usage("this cluster is none of Talos's")
                .object(self.cluster.as_ref().map(ToString::to_string).unwrap_or_default())
                .cause("lifeboat.yaml says how its etcd is reached directly; --talosconfig names another one")
                .again_with(["--talosconfig", "FILE"]));
        }
        let source = SourceArgs { talos: args.clone(), ..SourceArgs::default() };
        match talos(&source, section)? {
            Access::Talos(options) => Ok(TalosOptions { direct: false, ..options }),
            Access::Etcd(_) => Err(Failure::failed("a talosconfig led to etcd; this is a bug in Lifeboat")),
        }
    }
}

/// Whether a flag that only etcd has was given.
fn names_etcd(args: &SourceArgs) -> bool {
    args.cacert.is_some()
        || args.cert.is_some()
        || args.key.is_some()
        || args.user.is_some()
        || args.tls_server_name.is_some()
        || args.insecure_skip_tls_verify
}

fn talosconfig_of_environment() -> Option<PathBuf> {
    std::env::var_os("TALOSCONFIG").filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn two_clusters(etcd: &SourceOptions, talosconfig: &Path) -> Failure {
    let endpoints = etcd.endpoints.join(",");
    Failure::usage("the environment names two clusters, and one must be chosen")
        .cause(format!("ETCDCTL_ENDPOINTS: --endpoints {endpoints}; TALOSCONFIG: --talosconfig {}", talosconfig.display()))
        .again_with(["--endpoints", &endpoints])
}

/// etcd's flags on top of what is known already.
pub(crate) fn etcd(mut options: SourceOptions, args: &SourceArgs) -> Outcome<SourceOptions> {
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

/// Talos's flags on top of the cluster's section.
fn talos(args: &SourceArgs, section: Option<&config::Talos>) -> Outcome<Access> {
    let TalosArgs { nodes, talos_endpoints, talosconfig, context, talos_direct } = &args.talos;
    // Another talosconfig is another cluster's: what the configuration says of contexts and nodes is not about it.
    let of_section = section.filter(|_| talosconfig.is_none()).cloned().unwrap_or_default();
    let first = |lists: [&Vec<String>; 3]| lists.into_iter().find(|list| !list.is_empty()).cloned().unwrap_or_default();
    let named = talosconfig.as_deref().or(of_section.config_file.as_deref());
    let (config_file, word) = talos::locate(named, |name| std::env::var_os(name))?;
    if let Some(word) = word {
        output::say(&format!("note: {word}"));
    }
    let mut options = TalosOptions {
        config_file,
        context: context.clone().or(of_section.context),
        endpoints: first([talos_endpoints, &args.endpoints, &of_section.endpoints]),
        nodes: first([nodes, &of_section.nodes, &Vec::new()]),
        direct: *talos_direct || of_section.direct,
        ..TalosOptions::default()
    };
    if !args.dial_timeout.is_empty() {
        options.dial_timeout = config::duration(&args.dial_timeout)?;
    }
    Ok(Access::Talos(options))
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

/// What can be found on this machine: kubeadm's etcd, a talosconfig where talosctl would look for one, else plain etcd on its usual port.
fn look_round(args: &SourceArgs) -> Outcome<Access> {
    let kubeadm = config::Kubeadm {}.etcd();
    let is_kubeadm = [&kubeadm.cacert, &kubeadm.cert, &kubeadm.key].into_iter().flatten().all(|file| file.is_file());
    let talosconfig = if names_etcd(args) { Ok(None) } else { talos::found(|name| std::env::var_os(name)) };
    let talosconfig = talosconfig.unwrap_or_else(|failure| {
        let object = failure.object.unwrap_or_default();
        output::say(&format!("note: the talosconfig {object} is passed over: {}", failure.cause.unwrap_or(failure.what)));
        None
    });
    if let (true, Some(file)) = (is_kubeadm, &talosconfig) {
        return Err(Failure::usage("more than one cluster is found here, and one must be chosen")
            .cause(format!(
                "kubeadm's etcd on this machine: --endpoints {}; a talosconfig: --talosconfig {}",
                kubeadm.endpoints.join(","),
                file.display()
            ))
            .again_with(["--talosconfig", &file.to_string_lossy()]));
    }
    if let Some(file) = talosconfig {
        output::say(&format!("source: Talos, by {}", file.display()));
        return talos(args, None);
    }
    if is_kubeadm {
        output::say("source: kubeadm's etcd on this machine (https://127.0.0.1:2379, certificates of /etc/kubernetes/pki/etcd)");
        let options = config::Cluster { kubeadm: Some(config::Kubeadm {}), ..config::Cluster::default() }.etcd_options()?;
        return etcd(options, args).map(Access::Etcd);
    }
    let options = SourceOptions { endpoints: vec!["http://127.0.0.1:2379".to_owned()], ..SourceOptions::default() };
    etcd(options, args).map(Access::Etcd)
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
