//! `lifeboat snapshot`: what etcdctl and etcdutl do with plain snapshot files, with their flags, their words and their forms of output.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine::snapshot_file::{RestoreRequest, Restored, SaveRequest, Saved, Status, Target, Trailer};
use engine::{Code, Failure, Outcome};
use etcd_store::HashKv;
use etcd_store::id::Revision;
use etcd_store::schema::AlarmKind;
use serde::Serialize;

use crate::args::{GlobalArgs, SourceArgs};
use crate::output::{self, Format};
use crate::progress::Teller;
use crate::resolve::Resolved;
use crate::signals;

/// Arguments of `lifeboat snapshot`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Form of the output
    // Takes the place of the global argument of this name, whose default is another: etcdctl's and etcdutl's is this.
    #[arg(
        short = 'o',
        long = "output",
        alias = "write-out",
        short_alias = 'w',
        value_enum,
        global = true,
        value_name = "FORM",
        env = "LIFEBOAT_OUTPUT",
        default_value = "simple"
    )]
    output: Format,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand, Debug)]
enum Verb {
    /// Save one member's snapshot to a file, as etcdctl does
    Save(Box<SaveArgs>),
    /// Describe a snapshot file, as etcdutl does
    Status(StatusArgs),
    /// Make a data directory from a snapshot file, as etcdutl does
    #[command(after_help = "Revisions are bumped only when told; `lifeboat restore` bumps by itself, and clears stale alarms.")]
    Restore(Box<RestoreArgs>),
    /// Compute HashKV of a snapshot file or database, as etcdutl does, without changing it
    Hashkv(HashkvArgs),
}

/// Whose output is meant where versions differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Compat {
    /// No version; all keys of all buckets.
    #[value(name = "3.5")]
    V3_5,
    /// The storage version; live keys.
    #[value(name = "3.6")]
    V3_6,
    /// As 3.6, with tables drawn in lines.
    #[value(name = "3.7")]
    V3_7,
}

#[derive(clap::Args, Debug)]
struct SaveArgs {
    /// The file; - means standard output [default: etcd-<cluster id>-<UTC>.db]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Do not prove the database's structure before the file gets its name
    #[arg(long, env = "LIFEBOAT_NO_CHECK")]
    no_check: bool,
    /// Client URL of the one member that is asked [default: 127.0.0.1:2379]
    #[arg(long, value_delimiter = ',', value_name = "URL", env = "LIFEBOAT_ENDPOINTS", help_heading = "Source (ETCDCTL_* is read, too)")]
    endpoints: Vec<String>,
    /// Name of the cluster in the configuration
    #[arg(long, alias = "profile", value_name = "NAME", env = "LIFEBOAT_CLUSTER", help_heading = "Source (ETCDCTL_* is read, too)")]
    cluster: Option<String>,
    /// CA certificate of etcd
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_CACERT", help_heading = "Source (ETCDCTL_* is read, too)")]
    cacert: Option<PathBuf>,
    /// Client certificate for etcd
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_CERT", help_heading = "Source (ETCDCTL_* is read, too)")]
    cert: Option<PathBuf>,
    /// Key of the client certificate
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_KEY", help_heading = "Source (ETCDCTL_* is read, too)")]
    key: Option<PathBuf>,
    /// User of etcd's own authentication, as name or name:password
    #[arg(long, value_name = "NAME[:PASSWORD]", env = "LIFEBOAT_USER", help_heading = "Source (ETCDCTL_* is read, too)")]
    user: Option<String>,
    /// Password for --user (better: --password-file)
    #[arg(
        long,
        value_name = "PASSWORD",
        hide_env_values = true,
        env = "LIFEBOAT_PASSWORD",
        help_heading = "Source (ETCDCTL_* is read, too)"
    )]
    password: Option<String>,
    /// File that holds the password for --user
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_PASSWORD_FILE", help_heading = "Source (ETCDCTL_* is read, too)")]
    password_file: Option<PathBuf>,
    /// Name to expect in the server's certificate instead of the endpoint's
    #[arg(long, value_name = "NAME", env = "LIFEBOAT_TLS_SERVER_NAME", help_heading = "Source (ETCDCTL_* is read, too)")]
    tls_server_name: Option<String>,
    /// Do not check the server's certificate (for tests)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true, help_heading = "Source (ETCDCTL_* is read, too)")]
    insecure_skip_tls_verify: Option<bool>,
    /// Time to connect
    #[arg(long, value_name = "TIME", env = "LIFEBOAT_DIAL_TIMEOUT", help_heading = "Source (ETCDCTL_* is read, too)")]
    dial_timeout: Option<String>,
    /// Time for the whole snapshot [default: as long as it makes progress]
    #[arg(long, value_name = "TIME", env = "LIFEBOAT_COMMAND_TIMEOUT", help_heading = "Source (ETCDCTL_* is read, too)")]
    command_timeout: Option<String>,
    /// Silence after which the connection is probed; at least 10s
    #[arg(long, value_name = "TIME", env = "LIFEBOAT_KEEPALIVE_TIME", help_heading = "Source (ETCDCTL_* is read, too)")]
    keepalive_time: Option<String>,
    /// How long a probe may stay unanswered
    #[arg(long, value_name = "TIME", env = "LIFEBOAT_KEEPALIVE_TIMEOUT", help_heading = "Source (ETCDCTL_* is read, too)")]
    keepalive_timeout: Option<String>,
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

#[derive(clap::Args, Debug)]
struct StatusArgs {
    /// The snapshot file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print as this version of etcdutl does
    #[arg(long, value_name = "VERSION", value_enum, default_value = "3.6", env = "LIFEBOAT_COMPAT")]
    compat: Compat,
}

#[derive(clap::Args, Debug)]
struct HashkvArgs {
    /// The snapshot file or database
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Highest revision to hash [default: the file's own]
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true, allow_negative_numbers = true)]
    rev: i64,
    /// Print as this version of etcdutl does
    #[arg(long, value_name = "VERSION", value_enum, default_value = "3.6", env = "LIFEBOAT_COMPAT")]
    compat: Compat,
}

#[derive(clap::Args, Debug)]
struct RestoreArgs {
    /// The snapshot file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Data directory to make; absent or empty [default: <name>.etcd]
    #[arg(long, value_name = "DIR", env = "LIFEBOAT_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Directory for the log, where it is not in the data directory; absent or empty
    #[arg(long, value_name = "DIR", env = "LIFEBOAT_WAL_DIR")]
    wal_dir: Option<PathBuf>,
    /// Name of this member
    #[arg(long, value_name = "NAME", default_value = "default", env = "LIFEBOAT_NAME", help_heading = "Member")]
    name: String,
    /// All members, as name=url,name=url
    #[arg(
        long,
        value_name = "NAME=URL,…",
        default_value = "default=http://localhost:2380",
        env = "LIFEBOAT_INITIAL_CLUSTER",
        help_heading = "Member"
    )]
    initial_cluster: String,
    /// Token of the new cluster
    #[arg(long, value_name = "TOKEN", default_value = etcd_store::cluster::DEFAULT_TOKEN, env = "LIFEBOAT_INITIAL_CLUSTER_TOKEN", help_heading = "Member")]
    initial_cluster_token: String,
    /// This member's peer URLs
    #[arg(
        long,
        value_name = "URL,…",
        default_value = "http://localhost:2380",
        env = "LIFEBOAT_INITIAL_ADVERTISE_PEER_URLS",
        help_heading = "Member"
    )]
    initial_advertise_peer_urls: String,
    /// Take a file without SHA-256 trailer (copied from a data directory)
    // No environment variables for these three: they are decided for one run, by a person who looks.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_name = "BOOL", hide_default_value = true, hide_possible_values = true)]
    skip_hash_check: bool,
    /// Move the revision this far beyond the last one
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    bump_revision: u64,
    /// Mark everything up to the new revision as compacted (goes with --bump-revision)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", value_name = "BOOL", hide_default_value = true, hide_possible_values = true)]
    mark_compacted: bool,
    // Nothing is mapped into memory here.
    #[arg(long, hide = true)]
    initial_memory_map_size: Option<u64>,
}

/// Runs `lifeboat snapshot`.
pub(crate) fn run(global: &GlobalArgs, args: Args) -> Outcome<Code> {
    let format = if global.json { Format::Json } else { args.output };
    match args.verb {
        Verb::Save(args) => save(global, format, *args),
        Verb::Status(args) => status(global, format, &args),
        Verb::Restore(args) => restore(global, *args),
        Verb::Hashkv(args) => hashkv(format, &args),
    }
}

fn save(global: &GlobalArgs, format: Format, args: SaveArgs) -> Outcome<Code> {
    let target = match &args.file {
        None => Target::In(PathBuf::new()),
        Some(file) if file == Path::new("-") => standard_output()?,
        Some(file) => Target::File(file.clone()),
    };
    let check = !args.no_check;
    let environment = if args.cluster.is_some() { Environment::ignored() } else { Environment::of_etcdctl() };
    let time = |given: &Option<String>, name| environment.or(given, name).map(|text| engine::config::duration(&text)).transpose();
    let request = SaveRequest {
        keepalive_time: time(&args.keepalive_time, "KEEPALIVE_TIME")?,
        keepalive_timeout: time(&args.keepalive_timeout, "KEEPALIVE_TIMEOUT")?,
        timeout: time(&args.command_timeout, "COMMAND_TIMEOUT")?.filter(|limit| *limit > Duration::ZERO),
        source: source(global, args, &environment)?,
        target,
        check,
    };
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
            .next("lifeboat snapshot save"));
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

    /// A cluster that was named beats the environment.
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
fn source(global: &GlobalArgs, args: SaveArgs, environment: &Environment) -> Outcome<engine::source::SourceOptions> {
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
        ..SourceArgs::default()
    };
    let names_tls = source.cacert.is_some() || source.cert.is_some() || skip_verify;
    let source = if source.endpoints.is_empty() && args.cluster.is_none() && names_tls {
        // Without a scheme the certificates make it https, as with etcdctl.
        SourceArgs { endpoints: vec!["127.0.0.1:2379".to_owned()], ..source }
    } else {
        source
    };
    let named = source.endpoints.is_empty();
    Resolved::new(global, args.cluster.as_deref(), named)?.source(&source)
}

fn status(global: &GlobalArgs, format: Format, args: &StatusArgs) -> Outcome<Code> {
    let status = engine::snapshot_file::status(&args.file)?;
    if status.trailer == Trailer::Absent && !global.quiet {
        output::say("note: the file has no SHA-256 trailer (copied from a data directory?); only its structure was checked");
    }
    output::print(&status_text(format, args.compat, &status)?);
    Ok(Code::Ok)
}

/// What etcdutl prints; JSON has both counts of keys beside it, under names that mean the same in every form.
fn status_text(format: Format, compat: Compat, status: &Status) -> Outcome<String> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Json<'a> {
        hash: u32,
        revision: i64,
        total_key: u64,
        total_size: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        version: Option<&'a str>,
        total_key_live: u64,
        total_key_all_buckets: u64,
        trailer: &'static str,
    }
    let with_version = compat != Compat::V3_5;
    let total_key = if with_version { status.live_keys } else { status.all_bucket_keys };
    let version = with_version.then(|| status.version.as_deref().unwrap_or_default());
    match format {
        Format::Json | Format::Yaml => structured(
            format,
            &Json {
                hash: status.hash,
                revision: status.revision,
                total_key,
                total_size: status.total_size,
                version,
                total_key_live: status.live_keys,
                total_key_all_buckets: status.all_bucket_keys,
                trailer: match status.trailer {
                    Trailer::Matches => "match",
                    Trailer::Absent => "absent",
                },
            },
        ),
        Format::Fields => Ok(fields(&[
            ("Hash", Some(&status.hash.to_string())),
            ("Revision", Some(&status.revision.to_string())),
            ("Keys", Some(&total_key.to_string())),
            ("Size", Some(&status.total_size.to_string())),
            ("Version", version),
        ])),
        Format::Simple | Format::Table => {
            let mut header = vec!["hash", "revision", "total keys", "total size"];
            let mut row =
                vec![format!("{:x}", status.hash), status.revision.to_string(), total_key.to_string(), decimal_size(status.total_size)];
            if let Some(version) = version {
                header.push("version");
                row.push(version.to_owned());
            }
            Ok(row_text(format, compat, &header, &row))
        }
    }
}

fn hashkv(format: Format, args: &HashkvArgs) -> Outcome<Code> {
    let hash = engine::snapshot_file::hash_kv(&args.file, Revision(args.rev))?;
    output::print(&hashkv_text(format, args.compat, &hash)?);
    Ok(Code::Ok)
}

fn hashkv_text(format: Format, compat: Compat, hash: &HashKv) -> Outcome<String> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Json {
        hash: u32,
        hash_revision: i64,
        compact_revision: i64,
    }
    let row = [hash.hash.to_string(), hash.revision.to_string(), hash.compact_revision.to_string()];
    match format {
        Format::Json | Format::Yaml => {
            structured(format, &Json { hash: hash.hash, hash_revision: hash.revision.0, compact_revision: hash.compact_revision })
        }
        Format::Fields => Ok(fields(&[("Hash", Some(&row[0])), ("Hash revision", Some(&row[1])), ("Compact revision", Some(&row[2]))])),
        Format::Simple | Format::Table => Ok(row_text(format, compat, &["hash", "hash revision", "compact revision"], &row)),
    }
}

fn restore(global: &GlobalArgs, args: RestoreArgs) -> Outcome<Code> {
    if (args.bump_revision > 0) != args.mark_compacted {
        return Err(Failure::usage("--mark-compacted required if --bump-revision > 0, and disallowed otherwise")
            .cause("clients that saw revisions of the lost future are safe only when those count as compacted")
            .again());
    }
    let data_dir = args.data_dir.unwrap_or_else(|| PathBuf::from(format!("{}.etcd", args.name)));
    let request = RestoreRequest {
        snapshot: args.file.clone(),
        data_dir: data_dir.clone(),
        wal_dir: args.wal_dir,
        name: args.name.clone(),
        initial_cluster: args.initial_cluster,
        token: args.initial_cluster_token,
        advertise: args.initial_advertise_peer_urls,
        skip_hash_check: args.skip_hash_check,
        bump: (args.bump_revision > 0).then_some(args.bump_revision),
    };
    let restored = signals::run(engine::snapshot_file::restore(request, Arc::new(Teller::new(global))))?;
    for warning in warnings(&restored) {
        output::say(&format!("warning: {warning}"));
    }
    if !global.quiet {
        let moved = if restored.revision == restored.revision_before {
            String::new()
        } else {
            format!(", bumped from {}", restored.revision_before)
        };
        output::say(&format!(
            "restored {} to {}: member '{}' ({}) of cluster {}, revision {}{moved}",
            args.file.display(),
            data_dir.display(),
            args.name,
            restored.member,
            restored.cluster,
            restored.revision
        ));
    }
    Ok(Code::Ok)
}

fn warnings(restored: &Restored) -> Vec<String> {
    let mut warnings = Vec::new();
    if restored.kubernetes_keys > 0 && restored.revision == restored.revision_before {
        warnings.push(format!(
            "this is Kubernetes' data ({} keys under /registry), and revisions were not bumped: controllers that saw later revisions will miss changes; \
             restore with --bump-revision 1000000000 --mark-compacted, or with `lifeboat restore`, which bumps by itself",
            restored.kubernetes_keys
        ));
    }
    if !restored.alarms.is_empty() {
        let kinds: Vec<String> = restored.alarms.iter().map(|alarm| format!("{:?} of member {}", alarm.kind, alarm.member)).collect();
        warnings.push(format!(
            "alarms of the old cluster are still raised ({}), as after etcdutl's restore: `etcdctl alarm disarm` once etcd runs",
            kinds.join(", ")
        ));
    }
    if restored.missing_leases > 0 {
        warnings.push(format!(
            "{} lease(s) that keys refer to are not in the snapshot; `put --ignore-lease` to such a key ends etcd; `lifeboat restore` adds them",
            restored.missing_leases
        ));
    }
    for leftover in &restored.leftovers {
        warnings.push(format!("an earlier restore left {}; it is not needed", leftover.display()));
    }
    warnings
}

/// An alarm as etcdctl names it.
fn alarm_word(kind: AlarmKind) -> String {
    match kind {
        AlarmKind::NoSpace => "NOSPACE".to_owned(),
        AlarmKind::Corrupt => "CORRUPT".to_owned(),
        AlarmKind::Other(number) => format!("alarm {number}"),
    }
}

/// One object, its fields in their order, as JSON or YAML.
fn structured(format: Format, value: &impl Serialize) -> Outcome<String> {
    let cannot = |error: serde_json::Error| Failure::failed(format!("the report cannot be written as JSON: {error}"));
    if format == Format::Yaml {
        return Ok(output::yaml(&serde_json::to_value(value).map_err(cannot)?));
    }
    Ok(format!("{}\n", serde_json::to_string(value).map_err(cannot)?))
}

/// etcdutl's `"Name" : value` lines.
fn fields(lines: &[(&str, Option<&str>)]) -> String {
    lines.iter().filter_map(|(name, value)| value.map(|value| format!("\"{name}\" : {value}\n"))).collect()
}

/// etcdutl's line or table of one row.
fn row_text(format: Format, compat: Compat, header: &[&str], row: &[String]) -> String {
    if format == Format::Simple {
        return format!("{}\n", row.join(", "));
    }
    let widths: Vec<usize> = header.iter().zip(row).map(|(name, cell)| name.len().max(cell.chars().count())).collect();
    let (across, down, [top, middle, bottom]) = match compat {
        Compat::V3_7 => ("─", "│", [["┌", "┬", "┐"], ["├", "┼", "┤"], ["└", "┴", "┘"]]),
        _ => ("-", "|", [["+", "+", "+"]; 3]),
    };
    let rule = |[left, cross, right]: [&str; 3]| {
        let parts: Vec<String> = widths.iter().map(|width| across.repeat(width + 2)).collect();
        format!("{left}{}{right}\n", parts.join(cross))
    };
    let line = |cells: Vec<String>| format!("{down} {} {down}\n", cells.join(&format!(" {down} ")));
    let names = header.iter().zip(&widths).map(|(name, &width)| {
        let gap = width - name.len();
        format!("{}{}{}", " ".repeat(gap / 2), name.to_uppercase(), " ".repeat(gap - gap / 2))
    });
    let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:>width$}"));
    [rule(top), line(names.collect()), rule(middle), line(cells.collect()), rule(bottom)].concat()
}

/// Bytes as etcd's tools write them: decimal units, one digit after the point below ten.
///
/// Source: the Go package `humanize`, function `Bytes`.
fn decimal_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let (mut unit, mut scale) = (0, 1_u64);
    while unit + 1 < UNITS.len() && bytes / scale >= 1000 {
        scale *= 1000;
        unit += 1;
    }
    let value = (bytes as f64 / scale as f64 * 10.0 + 0.5).floor() / 10.0;
    if value < 10.0 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(version: Option<&str>) -> Status {
        Status {
            hash: 0x8cb0_719e,
            revision: 5,
            live_keys: 2,
            all_bucket_keys: 11,
            total_size: 20480,
            version: version.map(str::to_owned),
            trailer: Trailer::Matches,
        }
    }

    fn text(format: Format, compat: Compat) -> String {
        status_text(format, compat, &example(Some("3.6.0"))).unwrap()
    }

    #[test]
    fn status_prints_as_etcdutl_3_6_does() {
        assert_eq!(text(Format::Simple, Compat::V3_6), "8cb0719e, 5, 2, 20 kB, 3.6.0\n");
        assert_eq!(
            text(Format::Table, Compat::V3_6),
            "+----------+----------+------------+------------+---------+\n\
             |   HASH   | REVISION | TOTAL KEYS | TOTAL SIZE | VERSION |\n\
             +----------+----------+------------+------------+---------+\n\
             | 8cb0719e |        5 |          2 |      20 kB |   3.6.0 |\n\
             +----------+----------+------------+------------+---------+\n"
        );
        assert_eq!(
            text(Format::Fields, Compat::V3_6),
            "\"Hash\" : 2360373662\n\"Revision\" : 5\n\"Keys\" : 2\n\"Size\" : 20480\n\"Version\" : 3.6.0\n"
        );
        assert_eq!(
            text(Format::Json, Compat::V3_6),
            "{\"hash\":2360373662,\"revision\":5,\"totalKey\":2,\"totalSize\":20480,\"version\":\"3.6.0\",\
             \"totalKeyLive\":2,\"totalKeyAllBuckets\":11,\"trailer\":\"match\"}\n"
        );
    }

    #[test]
    fn status_prints_as_etcdutl_3_5_does() {
        assert_eq!(text(Format::Simple, Compat::V3_5), "8cb0719e, 5, 11, 20 kB\n");
        assert!(!text(Format::Table, Compat::V3_5).contains("VERSION"));
        assert_eq!(text(Format::Fields, Compat::V3_5), "\"Hash\" : 2360373662\n\"Revision\" : 5\n\"Keys\" : 11\n\"Size\" : 20480\n");
        assert!(
            text(Format::Json, Compat::V3_5)
                .starts_with("{\"hash\":2360373662,\"revision\":5,\"totalKey\":11,\"totalSize\":20480,\"totalKeyLive\":2")
        );
    }

    #[test]
    fn a_file_without_version_leaves_its_place_empty() {
        let status = example(None);
        assert_eq!(status_text(Format::Simple, Compat::V3_6, &status).unwrap(), "8cb0719e, 5, 2, 20 kB, \n");
        assert!(status_text(Format::Table, Compat::V3_6, &status).unwrap().contains("|      20 kB |         |\n"));
    }

    #[test]
    fn tables_of_3_7_are_drawn_in_lines() {
        let hash = HashKv { hash: 706_405_891, compact_revision: 4, revision: Revision(7) };
        assert_eq!(
            hashkv_text(Format::Table, Compat::V3_7, &hash).unwrap(),
            "┌───────────┬───────────────┬──────────────────┐\n\
             │   HASH    │ HASH REVISION │ COMPACT REVISION │\n\
             ├───────────┼───────────────┼──────────────────┤\n\
             │ 706405891 │             7 │                4 │\n\
             └───────────┴───────────────┴──────────────────┘\n"
        );
    }

    #[test]
    fn sizes_are_those_of_the_go_package() {
        for (bytes, expected) in [
            (0, "0 B"),
            (9, "9 B"),
            (82, "82 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (8192, "8.2 kB"),
            (20480, "20 kB"),
            (999_950, "1000 kB"),
            (1_384_820_736, "1.4 GB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(decimal_size(bytes), expected, "{bytes}");
        }
    }
}
