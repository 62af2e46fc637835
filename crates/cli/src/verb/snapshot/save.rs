//! `lifeboat snapshot save`.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine::snapshot_file::{SaveRequest, Saved, Target};
use engine::{Access, Code, Failure, Outcome};
use serde::Serialize;

use super::form::structured;
use crate::args::{GlobalArgs, SourceArgs, TalosArgs};
use crate::output::{self, Format};
use crate::progress::Teller;
use crate::resolve::Resolved;
use crate::signals;

/// Heading of the arguments that say where a snapshot comes from.
const SOURCE: &str = "Source (ETCDCTL_* is read, too)";

#[derive(clap::Args, Debug)]
pub(super) struct SaveArgs {
    /// The file; - means standard output [default: etcd-<cluster id>-<UTC>.db]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Do not prove the database's structure before the file gets its name
    #[arg(long, env = "LIFEBOAT_NO_CHECK")]
    no_check: bool,
    /// Client URL of the one member that is asked [default: 127.0.0.1:2379]
    #[arg(long, value_delimiter = ',', value_name = "URL", env = "LIFEBOAT_ENDPOINTS", help_heading = SOURCE)]
    endpoints: Vec<String>,
    /// Name of the cluster in the configuration
    #[arg(long, alias = "profile", value_name = "NAME", env = "LIFEBOAT_CLUSTER", help_heading = SOURCE)]
    cluster: Option<String>,
    /// CA certificate of etcd
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_CACERT", help_heading = SOURCE)]
    cacert: Option<PathBuf>,
    /// Client certificate for etcd
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_CERT", help_heading = SOURCE)]
    cert: Option<PathBuf>,
    /// Key of the client certificate
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_KEY", help_heading = SOURCE)]
    key: Option<PathBuf>,
    /// User of etcd's own authentication, as name or name:password
    #[arg(long, value_name = "NAME[:PASSWORD]", env = "LIFEBOAT_USER", help_heading = SOURCE)]
    user: Option<String>,
    /// Password for --user (better: --password-file)
    #[arg(
        long,
        value_name = "PASSWORD",
        hide_env_values = true,
        env = "LIFEBOAT_PASSWORD",
        help_heading = SOURCE
    )]
    password: Option<String>,
    /// File that holds the password for --user
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_PASSWORD_FILE", help_heading = SOURCE)]
    password_file: Option<PathBuf>,
    /// Name to expect in the server's certificate instead of the endpoint's
    #[arg(long, value_name = "NAME", env = "LIFEBOAT_TLS_SERVER_NAME", help_heading = SOURCE)]
    tls_server_name: Option<String>,
    /// Do not check the server's certificate (for tests)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true, help_heading = SOURCE)]
    insecure_skip_tls_verify: Option<bool>,
    /// Time to connect
    #[arg(long, value_name = "TIME", env = "LIFEBOAT_DIAL_TIMEOUT", help_heading = SOURCE)]
    dial_timeout: Option<String>,
    /// Time for the whole snapshot [default: as long as it makes progress]
    #[arg(long, value_name = "TIME", env = "LIFEBOAT_COMMAND_TIMEOUT", help_heading = SOURCE)]
    command_timeout: Option<String>,
    /// Silence after which the connection is probed; at least 10s
    #[arg(long, value_name = "TIME", env = "LIFEBOAT_KEEPALIVE_TIME", help_heading = SOURCE)]
    keepalive_time: Option<String>,
    /// How long a probe may stay unanswered
    #[arg(long, value_name = "TIME", env = "LIFEBOAT_KEEPALIVE_TIMEOUT", help_heading = SOURCE)]
    keepalive_timeout: Option<String>,
    #[command(flatten)]
    talos: TalosArgs,
    // The endpoint's scheme decides; the rest has no meaning here. Scripts written for etcdctl give them.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    insecure_transport: Option<bool>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    debug: Option<bool>,
    #[arg(long, hide = true)]
    max_request_bytes: Option<u64>,
    #[arg(long, hide = true)]
    max_recv_bytes: Option<u64>,
}

pub(super) fn run(global: &GlobalArgs, format: Format, args: SaveArgs) -> Outcome<Code> {
    let target = target(args.file.as_deref())?;
    let check = !args.no_check;
    let environment = if args.cluster.is_some() || args.talos.is_given() { Environment::ignored() } else { Environment::of_etcdctl() };
    let time = |given: &Option<String>, name| environment.or(given, name).map(|text| engine::config::duration(&text)).transpose();
    let request = SaveRequest {
        keepalive_time: time(&args.keepalive_time, "KEEPALIVE_TIME")?,
        keepalive_timeout: time(&args.keepalive_timeout, "KEEPALIVE_TIMEOUT")?,
        timeout: time(&args.command_timeout, "COMMAND_TIMEOUT")?.filter(|limit| *limit > Duration::ZERO),
        source: source(global, args, &environment)?,
        target,
        check,
    };
    save(global, format, request)
}

/// Saves from a cluster that is known already, with nothing of etcdctl's environment.
pub(in crate::verb) fn from(global: &GlobalArgs, source: Access, file: Option<&Path>, check: bool) -> Outcome<Code> {
    let request = SaveRequest { source, target: target(file)?, check, keepalive_time: None, keepalive_timeout: None, timeout: None };
    save(global, global.format(), request)
}

fn target(file: Option<&Path>) -> Outcome<Target> {
    match file {
        None => Ok(Target::In(PathBuf::new())),
        Some(file) if file == Path::new("-") => standard_output(),
        Some(file) => Ok(Target::File(file.to_owned())),
    }
}

fn save(global: &GlobalArgs, format: Format, request: SaveRequest) -> Outcome<Code> {
    let saved = signals::run(engine::snapshot_file::save(request, Arc::new(Teller::new(global))))?;
    if !global.quiet {
        let structure = if saved.checked { "structure sound" } else { "structure not checked" };
        output::say(&format!(
            "{} from {} in {:.1} s; SHA-256 {} agrees; {structure}",
            output::size(saved.database_size),
            saved.endpoint,
            saved.took.as_secs_f64(),
            saved.sha256
        ));
    }
    if let Some(path) = &saved.path {
        output::print(&saved_text(format, path, &saved)?);
    }
    Ok(Code::Ok)
}

fn standard_output() -> Outcome<Target> {
    let stdout = io::stdout();
    if stdout.is_terminal() {
        return Err(Failure::usage("a snapshot is not written to a terminal")
            .cause("'-' is for a pipe or a redirection")
            .next(["lifeboat", "snapshot", "save"]));
    }
    // Past the standard library's buffer, which would look for line ends.
    let out =
        stdout.as_fd().try_clone_to_owned().map_err(|error| Failure::failed(format!("standard output cannot be used: {error}")).again())?;
    Ok(Target::Stream(Box::new(std::fs::File::from(out))))
}

fn saved_text(format: Format, path: &Path, saved: &Saved) -> Outcome<String> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Json<'a> {
        path: &'a Path,
        version: &'a str,
        total_size: u64,
        sha256: &'a str,
    }
    if matches!(format, Format::Json | Format::Yaml) {
        let version = saved.version.as_deref().unwrap_or_default();
        return structured(format, &Json { path, version, total_size: saved.database_size, sha256: &saved.sha256 });
    }
    let mut text = format!("Snapshot saved at {}\n", path.display());
    if let Some(version) = &saved.version {
        text.push_str(&format!("Server version {version}\n"));
    }
    Ok(text)
}

/// Variables that etcdctl reads in place of flags.
struct Environment(fn(&str) -> Option<String>);

impl Environment {
    fn of_etcdctl() -> Self {
        Self(|name| std::env::var(format!("ETCDCTL_{name}")).ok().filter(|value| !value.is_empty()))
    }

    /// A cluster that was named beats the environment, and so does Talos.
    fn ignored() -> Self {
        Self(|_| None)
    }

    fn get(&self, name: &str) -> Option<String> {
        (self.0)(name)
    }

    fn or(&self, given: &Option<String>, name: &str) -> Option<String> {
        given.clone().or_else(|| self.get(name))
    }

    fn path(&self, given: Option<PathBuf>, name: &str) -> Option<PathBuf> {
        given.or_else(|| self.get(name).map(PathBuf::from))
    }
}

/// Flags beat the cluster that is named, which beats etcdctl's environment, which beats the configuration's only cluster, which beats looking round.
fn source(global: &GlobalArgs, args: SaveArgs, environment: &Environment) -> Outcome<Access> {
    let mut endpoints = args.endpoints;
    if endpoints.is_empty()
        && let Some(text) = environment.get("ENDPOINTS")
    {
        endpoints = text.split(',').map(|endpoint| endpoint.trim().to_owned()).collect();
    }
    let skip_verify =
        args.insecure_skip_tls_verify.unwrap_or_else(|| environment.get("INSECURE_SKIP_TLS_VERIFY").is_some_and(|value| value == "true"));
    let source = SourceArgs {
        cacert: environment.path(args.cacert, "CACERT"),
        cert: environment.path(args.cert, "CERT"),
        key: environment.path(args.key, "KEY"),
        user: environment.or(&args.user, "USER"),
        password: environment.or(&args.password, "PASSWORD"),
        password_file: args.password_file,
        tls_server_name: args.tls_server_name,
        insecure_skip_tls_verify: skip_verify,
        dial_timeout: environment.or(&args.dial_timeout, "DIAL_TIMEOUT").unwrap_or_default(),
        endpoints,
        talos: args.talos,
        ..SourceArgs::default()
    };
    let names_tls = source.cacert.is_some() || source.cert.is_some() || skip_verify;
    let source = if source.endpoints.is_empty() && args.cluster.is_none() && names_tls && !source.talos.is_given() {
        // Without a scheme the certificates make it https, as with etcdctl.
        SourceArgs { endpoints: vec!["127.0.0.1:2379".to_owned()], ..source }
    } else {
        source
    };
    if args.cluster.is_none() && (!source.endpoints.is_empty() || source.talos.is_given()) {
        // A configuration that cannot be read must not stand in the way of an emergency's snapshot.
        return Resolved::without_configuration().source(&source);
    }
    Resolved::new(global, args.cluster.as_deref(), true)?.source(&source)
}
