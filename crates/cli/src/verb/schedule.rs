//! `lifeboat schedule`.

use std::path::{Path, PathBuf};

use engine::config::{Config, Policy};
use engine::next::line;
use engine::schedule::{Distribution, Files, Kind, Request, files};
use engine::{Code, Failure, Outcome};
use serde_json::json;

use crate::args::GlobalArgs;
use crate::output::{self, Format};
use crate::resolve::{self, Resolved};

/// Arguments of `lifeboat schedule`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "It prints what it would write; --install writes it. The schedule is that of lifeboat.yaml (backup.every or backup.cron). Of several clusters one is named for a timer, a line of cron and a CronJob; the agent takes them all."
)]
pub(crate) struct Args {
    /// What is to run it
    #[arg(value_enum)]
    kind: KindArg,
    /// The cluster, where the configuration has several
    #[arg(long, value_name = "NAME", env = "LIFEBOAT_CLUSTER")]
    cluster: Option<String>,
    /// Write the files, in the place of printing them (systemd and cron)
    #[arg(long)]
    install: bool,
    /// Write below this directory
    #[arg(long, value_name = "DIR", default_value = "/", env = "LIFEBOAT_ROOT")]
    root: PathBuf,
    /// The program that is run [default: this one]
    #[arg(long, value_name = "PATH", env = "LIFEBOAT_PROGRAM")]
    program: Option<PathBuf>,
    /// How the Kubernetes cluster was set up
    #[arg(long, value_enum, default_value = "kubeadm", env = "LIFEBOAT_DISTRIBUTION")]
    distribution: DistributionArg,
    /// The container image, for Kubernetes
    #[arg(long, value_name = "IMAGE", default_value = "lifeboat:latest", env = "LIFEBOAT_IMAGE")]
    image: String,
    /// The namespace, for Kubernetes
    #[arg(long, value_name = "NAME", default_value = "kube-system", env = "LIFEBOAT_NAMESPACE")]
    namespace: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum KindArg {
    /// A timer of systemd and its service
    Timer,
    /// The agent as a service of systemd
    Agent,
    /// A line of cron
    Cron,
    /// A CronJob of Kubernetes
    Cronjob,
    /// The agent as a Deployment of Kubernetes
    Deployment,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum DistributionArg {
    Kubeadm,
    K3s,
    Talos,
}

impl KindArg {
    fn kind(self) -> Kind {
        match self {
            Self::Timer => Kind::Timer,
            Self::Agent => Kind::Agent,
            Self::Cron => Kind::Cron,
            Self::Cronjob => Kind::CronJob,
            Self::Deployment => Kind::Deployment,
        }
    }
}

impl DistributionArg {
    fn distribution(self) -> Distribution {
        match self {
            Self::Kubeadm => Distribution::Kubeadm,
            Self::K3s => Distribution::K3s,
            Self::Talos => Distribution::Talos,
        }
    }
}

/// Runs `lifeboat schedule`.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Outcome<Code> {
    let kind = args.kind.kind();
    let (path, config) = resolve::configuration(global)?
        .ok_or_else(|| Failure::usage("there is no configuration, so nothing says what is to be run when").next(["lifeboat", "init"]))?;
    let takes_all = matches!(kind, Kind::Agent | Kind::Deployment);
    let resolved = Resolved::new(global, args.cluster.as_deref(), !takes_all)?;
    if let Some(unknown) = resolved.cluster.as_ref().filter(|_| !takes_all && !resolved.is_configured()) {
        return Err(Failure::new(Code::WrongCluster, format!("the configuration knows no cluster '{unknown}'"))
            .object(path.display())
            .cause(format!("it has: {}", config.clusters.keys().cloned().collect::<Vec<_>>().join(", ")))
            .again_without("--cluster"));
    }
    let policy = config.policy(&resolved.section.clone().unwrap_or_default());
    let made = files(&Request {
        kind,
        program: match &args.program {
            Some(program) => program.clone(),
            None => std::env::current_exe().map_err(|error| Failure::failed(format!("this program does not know where it is: {error}")))?,
        },
        config: engine::init::keys::absolute(&path)?,
        cluster: resolved.cluster.filter(|_| !takes_all),
        writable: writable(&config, &policy, takes_all),
        backup: policy.backup,
        distribution: args.distribution.distribution(),
        image: args.image,
        namespace: args.namespace,
        prunes: resolved.section.as_ref().is_some_and(|section| section.keep.is_some()) || config.defaults.keep.is_some(),
        agent: config.agent.clone().unwrap_or_default(),
    })?;
    if args.install {
        return install(global.format(), &made, &args.root);
    }
    match global.format() {
        Format::Table | Format::Simple => output::print(&printed(&made)),
        format => {
            output::value(format, "lifeboat.schedule/1", json!({"files": described(&made), "then": then(&made), "installed": false}))?;
        }
    }
    Ok(Code::Ok)
}

/// Directories that a run writes to beside its own: stores in directories, the spool.
fn writable(config: &Config, policy: &Policy, all: bool) -> Vec<PathBuf> {
    let stores: Vec<&str> = if all {
        config.stores.values().map(|store| store.url.as_str()).collect()
    } else {
        policy.stores.iter().map(|(_, store)| store.url.as_str()).collect()
    };
    let mut paths: Vec<PathBuf> = stores.into_iter().filter_map(|url| url.strip_prefix("file://")).map(PathBuf::from).collect();
    paths.extend(config.spool.directory.clone());
    paths.sort();
    paths.dedup();
    paths
}

fn printed(made: &Files) -> String {
    let mut text = String::new();
    for file in &made.files {
        if let Some(path) = &file.path {
            text.push_str(&format!("# {}\n", path.display()));
        }
        text.push_str(&file.text);
        text.push('\n');
    }
    then(made).iter().for_each(|command| text.push_str(&format!("# then: {command}\n")));
    text
}

/// What is to be run next. What is applied to a cluster comes from this very command.
fn then(made: &Files) -> Vec<String> {
    if made.files.iter().any(|file| file.path.is_some()) {
        return made.then.clone();
    }
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let own = line(["lifeboat".to_owned()].into_iter().chain(words));
    made.then.iter().map(|command| format!("{own} | {command}")).collect()
}

fn described(made: &Files) -> serde_json::Value {
    made.files.iter().map(|file| json!({"path": file.path, "text": file.text})).collect()
}

fn install(format: Format, made: &Files, root: &Path) -> Outcome<Code> {
    let mut written = Vec::new();
    for file in &made.files {
        let Some(path) = &file.path else {
            return Err(Failure::usage("a manifest of Kubernetes is applied, not installed")
                .cause("without --install it is printed, for kubectl apply -f -")
                .again_without("--install"));
        };
        let path = root.join(path.strip_prefix("/").unwrap_or(path));
        let failed = |error: std::io::Error| Failure::failed(format!("the file cannot be written: {error}")).object(path.display()).again();
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(failed)?;
        }
        // Renamed into place: who reads it meanwhile sees the old one or the new one.
        let beside = path.with_file_name(format!(".{}.new", path.file_name().unwrap_or_default().to_string_lossy()));
        std::fs::write(&beside, &file.text).and_then(|()| std::fs::rename(&beside, &path)).map_err(failed)?;
        written.push(path);
    }
    match format {
        Format::Table | Format::Simple => {
            let mut text: String = written.iter().map(|path| format!("written  {}\n", path.display())).collect();
            made.then.iter().for_each(|command| text.push_str(&format!("then     {command}\n")));
            output::print(&text);
        }
        format => output::value(format, "lifeboat.schedule/1", json!({"files": written, "then": made.then, "installed": true}))?,
    }
    Ok(Code::Ok)
}
