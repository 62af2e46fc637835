//! Files that have Lifeboat run on schedule: units of systemd, lines of cron, manifests of Kubernetes. Pure; the caller prints or writes them.

mod calendar;
mod kubernetes;
mod systemd;

use std::path::PathBuf;
use std::time::Duration;

use vault::name::ClusterName;

pub use calendar::{NoCalendar, on_calendar};
pub use kubernetes::Distribution;

use crate::config::{Agent, Backup};
use crate::failure::{Failure, Outcome};

/// What an agent that ends may take beyond `agent.stop_within`: hooks that are owed, a lease that is given back.
const STOP_MARGIN: Duration = Duration::from_secs(60);

/// How Lifeboat is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A oneshot service and a timer of systemd.
    Timer,
    /// The agent as a service of systemd.
    Agent,
    /// A line for `/etc/cron.d`.
    Cron,
    /// A CronJob of Kubernetes.
    CronJob,
    /// The agent as a Deployment of Kubernetes.
    Deployment,
}

/// What has to be known of the installation.
#[derive(Clone, Debug)]
pub struct Request {
    /// How it is run.
    pub kind: Kind,
    /// The program, by its absolute path.
    pub program: PathBuf,
    /// The configuration, by its absolute path.
    pub config: PathBuf,
    /// The cluster, for a run that is of one cluster.
    pub cluster: Option<ClusterName>,
    /// When.
    pub backup: Backup,
    /// Directories that it writes to beside its own: stores of `file://`, the spool.
    pub writable: Vec<PathBuf>,
    /// Where it runs in Kubernetes.
    pub distribution: Distribution,
    /// The container image.
    pub image: String,
    /// The namespace.
    pub namespace: String,
    /// Whether a run also removes what the policy does not keep: where the configuration says what that is.
    pub prunes: bool,
    /// The agent's own section: where it listens, and how long it may take to end.
    pub agent: Agent,
}

impl Request {
    /// How long whoever stops the agent waits before he kills it, in seconds: longer than it may take by itself.
    fn stop_seconds(&self) -> u64 {
        (self.agent.stop_within() + STOP_MARGIN).as_secs()
    }
}

/// A file as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Where it goes; none for what is applied to a cluster.
    pub path: Option<PathBuf>,
    /// Its content.
    pub text: String,
}

/// The files, and the commands that put them in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The files.
    pub files: Vec<Planned>,
    /// What is to be run when they are there. For what has no path it reads the file on its standard input.
    pub then: Vec<String>,
}

/// Makes the files.
///
/// # Errors
/// A usage failure for a schedule that the form cannot say: the agent can.
pub fn files(request: &Request) -> Outcome<Files> {
    for path in [&request.program, &request.config].into_iter().chain(&request.writable) {
        plain(path)?;
    }
    match request.kind {
        Kind::Timer => systemd::timer(request),
        Kind::Agent => Ok(systemd::agent(request)),
        Kind::Cron => cron(request),
        Kind::CronJob => kubernetes::cron_job(request),
        Kind::Deployment => kubernetes::deployment(request),
    }
}

/// The five fields of cron for a schedule.
///
/// # Errors
/// A usage failure for a distance that cron cannot say.
fn five_fields(backup: &Backup) -> Outcome<String> {
    if let Some(cron) = &backup.cron {
        return Ok(cron.clone());
    }
    let every = backup.every.as_deref().unwrap_or("6h");
    let minutes = crate::config::duration(every).map(|every| every.as_secs() / 60).or_else(|_| {
        crate::config::span(every)
            .map(|span| i64::from(span.get_days()).unsigned_abs() * 1_440 + i64::from(span.get_hours()).unsigned_abs() * 60)
    })?;
    match minutes {
        1_440 => Ok("0 0 * * *".to_owned()),
        hours if hours % 60 == 0 && (60..1_440).contains(&hours) && 1_440 % hours == 0 => Ok(format!("0 */{} * * *", hours / 60)),
        minutes if (1..60).contains(&minutes) && 60 % minutes == 0 => Ok(format!("*/{minutes} * * * *")),
        _ => Err(Failure::usage(format!("cron cannot say 'every {every}'"))
            .cause("it knows parts of an hour and of a day that have no rest; give backup.cron, or use a systemd timer or the agent")
            .again()),
    }
}

fn cron(request: &Request) -> Outcome<Files> {
    let fields = five_fields(&request.backup)?;
    if let Some(zone) = &request.backup.timezone {
        return Err(Failure::usage(format!("cron runs by the clock of its machine, and backup.timezone is {zone}"))
            .cause("what sets another zone for one line (CRON_TZ) is passed over by the cron of Debian and Ubuntu")
            .next(["lifeboat", "schedule", "timer"]));
    }
    let name = request.cluster.as_ref().map_or_else(|| "lifeboat".to_owned(), |cluster| format!("lifeboat-{cluster}"));
    let text = format!(
        "# Made by `lifeboat schedule cron`. What it says on standard error is mailed to root by cron.\n# The hours are those of this machine. Verifications and drills are the agent's: lifeboat schedule agent.\n{fields} root {}\n",
        command(request).join(" ")
    );
    // cron passes over names with a dot in them.
    let path = PathBuf::from("/etc/cron.d").join(name.replace('.', "-"));
    Ok(Files { files: vec![Planned { path: Some(path), text }], then: Vec::new() })
}

/// The command of one run.
fn command(request: &Request) -> Vec<String> {
    let mut words = vec![request.program.display().to_string(), "backup".to_owned()];
    words.extend(["--config".to_owned(), request.config.display().to_string()]);
    words.extend(request.cluster.iter().flat_map(|cluster| ["--cluster".to_owned(), cluster.to_string()]));
    words.extend(request.prunes.then(|| "--prune".to_owned()));
    words
}

/// Refuses a path that units, cron and YAML would each have to quote in their own way.
fn plain(path: &std::path::Path) -> Outcome<()> {
    let is_plain = path
        .to_str()
        .is_some_and(|text| text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+@,=".contains(&byte)));
    if is_plain {
        return Ok(());
    }
    Err(Failure::usage("a path with blanks or signs in it cannot stand in a unit, a line of cron and a manifest alike")
        .object(path.display())
        .cause("only absolute paths of letters, digits and ._-+@,= are taken")
        .again())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn request(kind: Kind) -> Request {
        Request {
            kind,
            program: "/usr/local/bin/lifeboat".into(),
            config: "/etc/lifeboat/lifeboat.yaml".into(),
            cluster: "prod".parse().ok(),
            backup: Backup { every: Some("6h".to_owned()), ..Backup::default() },
            writable: vec!["/var/backups/etcd".into()],
            distribution: Distribution::Kubeadm,
            image: "registry.example/lifeboat:0.1.0".to_owned(),
            namespace: "kube-system".to_owned(),
            prunes: false,
            agent: Agent::default(),
        }
    }

    #[test]
    fn cron_says_what_it_can_and_refuses_the_rest() {
        for (every, fields) in [("6h", "0 */6 * * *"), ("1d", "0 0 * * *"), ("15m", "*/15 * * * *"), ("1h", "0 */1 * * *")] {
            let backup = Backup { every: Some(every.to_owned()), ..Backup::default() };
            assert_eq!(five_fields(&backup).unwrap(), fields, "{every}");
        }
        for every in ["5h", "7m", "90m", "2d"] {
            let backup = Backup { every: Some(every.to_owned()), ..Backup::default() };
            assert!(five_fields(&backup).unwrap_err().what.contains(every), "{every}");
        }
        let made = files(&request(Kind::Cron)).unwrap();
        assert!(
            made.files[0]
                .text
                .ends_with("0 */6 * * * root /usr/local/bin/lifeboat backup --config /etc/lifeboat/lifeboat.yaml --cluster prod\n")
        );
        assert_eq!(made.files[0].path.as_deref(), Some(std::path::Path::new("/etc/cron.d/lifeboat-prod")));
    }

    #[test]
    fn a_path_that_would_have_to_be_quoted_is_refused() {
        let odd = Request { config: "/etc/my files/lifeboat.yaml".into(), ..request(Kind::Timer) };
        assert!(files(&odd).unwrap_err().object.unwrap().contains("my files"));
        let relative = Request { config: "lifeboat.yaml".into(), ..request(Kind::Timer) };
        assert!(files(&relative).is_err());
    }
}
