//! `config check` and `config show`.

use std::path::PathBuf;

use clap::Subcommand;
use engine::extra::Extra;
use engine::talos::TalosOptions;
use engine::{Code, Failure, Outcome};
use serde::Serialize;

use crate::args::GlobalArgs;
use crate::output::{self, Report};
use crate::resolve;

/// Arguments of `lifeboat config`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Read lifeboat.yaml and say what is wrong with it
    Check,
    /// Print the configuration as Lifeboat understands it
    Show,
}

#[derive(Serialize)]
struct Checked {
    path: PathBuf,
    stores: Vec<String>,
    clusters: Vec<String>,
    warnings: Vec<String>,
}

impl Report for Checked {
    const SCHEMA: &'static str = "lifeboat.config-check/1";

    fn table(&self) -> String {
        let mut text = format!("{}: sound; clusters: {}; stores: {}\n", self.path.display(), words(&self.clusters), words(&self.stores));
        for warning in &self.warnings {
            text.push_str(&format!("warning: {warning}\n"));
        }
        text
    }
}

fn words(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[derive(Serialize)]
struct Shown {
    path: PathBuf,
    config: engine::config::Config,
}

impl Report for Shown {
    const SCHEMA: &'static str = "lifeboat.config/1";

    fn table(&self) -> String {
        match serde_json::to_value(&self.config) {
            Ok(value) => format!("# {}\n{}", self.path.display(), output::yaml(&value)),
            Err(error) => format!("# {}: {error}\n", self.path.display()),
        }
    }
}

/// Runs `lifeboat config …`.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Outcome<Code> {
    let (path, config) = resolve::configuration(global)?.ok_or_else(|| {
        let places: Vec<String> = engine::config::usual_places().iter().map(|place| place.display().to_string()).collect();
        Failure::usage("there is no configuration").cause(format!("looked at {}", places.join(" and "))).next(["lifeboat", "init"])
    })?;
    match args.what {
        What::Check => {
            let warnings = warnings(&config);
            let checked = Checked {
                stores: config.stores.keys().cloned().collect(),
                clusters: config.clusters.keys().cloned().collect(),
                warnings,
                path,
            };
            output::report(global.format(), &checked)?;
        }
        What::Show => output::report(global.format(), &Shown { path, config })?,
    }
    Ok(Code::Ok)
}

/// That the talosconfig can be read, has the context, and is not expired.
fn check_talosconfig(talos: &engine::config::Talos) -> Outcome<()> {
    let (config_file, _) = engine::talos::locate(talos.config_file.as_deref(), |name| std::env::var_os(name))?;
    let options = TalosOptions {
        config_file,
        context: talos.context.clone(),
        endpoints: talos.endpoints.clone(),
        nodes: talos.nodes.clone(),
        ..TalosOptions::default()
    };
    engine::talos::reach::check(&options)
}

/// What is sound but will not work on this machine as it is now.
fn warnings(config: &engine::config::Config) -> Vec<String> {
    let mut files: Vec<(String, PathBuf)> = Vec::new();
    let mut add = |what: String, path: &Option<PathBuf>| files.extend(path.iter().map(|path| (what.clone(), path.clone())));
    add("keys.signing_file".to_owned(), &config.keys.signing_file);
    add("keys.identity_file".to_owned(), &config.keys.identity_file);
    for (name, store) in &config.stores {
        add(format!("stores.{name}.credentials_file"), &store.credentials_file);
    }
    for (name, cluster) in &config.clusters {
        let etcd = cluster.etcd.clone().or_else(|| cluster.kubeadm.map(engine::config::Kubeadm::etcd)).unwrap_or_default();
        for (what, path) in [("cacert", &etcd.cacert), ("cert", &etcd.cert), ("key", &etcd.key), ("password_file", &etcd.password_file)] {
            add(format!("clusters.{name}: {what}"), path);
        }
        for extra in config.extra(cluster) {
            if let Extra::Path(path) = Extra::of(extra) {
                add(format!("clusters.{name}.extra"), &Some(path));
            }
        }
        if let Some(talos) = &cluster.talos {
            add(format!("clusters.{name}.talos.config_file"), &talos.config_file);
        }
    }
    let mut warnings: Vec<String> = files
        .into_iter()
        .filter(|(_, path)| !path.exists())
        .map(|(what, path)| format!("{what}: {} is not there", path.display()))
        .collect();
    for (name, cluster) in &config.clusters {
        // One that is not there is told above.
        let talos = cluster.talos.as_ref().filter(|talos| talos.config_file.as_ref().is_none_or(|file| file.exists()));
        if let Some(Err(failure)) = talos.map(check_talosconfig) {
            warnings.push(format!("clusters.{name}.talos: {}", failure.cause.unwrap_or(failure.what)));
        }
    }
    if config.keys.recipients.is_empty() {
        warnings.push("keys.recipients: none, so every backup needs --recipient or --no-encrypt".to_owned());
    }
    warnings
}
