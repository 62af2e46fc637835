//! Arguments that several verbs share.

use std::path::PathBuf;

use clap::Args;
use engine::store_kind::StoreKind;

use crate::output::Format;

/// Taken by every verb.
#[derive(Args, Clone, Debug)]
pub(crate) struct GlobalArgs {
    /// Form of the output
    #[arg(
        short = 'o',
        long = "output",
        alias = "write-out",
        short_alias = 'w',
        value_enum,
        global = true,
        value_name = "FORM",
        env = "LIFEBOAT_OUTPUT",
        default_value = "table"
    )]
    pub(crate) output: Format,
    /// Same as -o json
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Configuration file [default: /etc/lifeboat/lifeboat.yaml, then ~/.config/lifeboat/lifeboat.yaml]
    #[arg(long, global = true, value_name = "FILE", env = "LIFEBOAT_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Say nothing but the report and errors
    #[arg(short, long, global = true, env = "LIFEBOAT_QUIET")]
    pub(crate) quiet: bool,
}

impl GlobalArgs {
    /// The form in which reports and errors are printed.
    pub(crate) fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }
}

/// Which cluster, and how etcd is reached.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct SourceArgs {
    /// Client URLs of etcd, comma separated; only these are dialled (the etcd verbs follow the member list)
    #[arg(long, value_delimiter = ',', value_name = "URL,…", env = "LIFEBOAT_ENDPOINTS", help_heading = "Source")]
    pub(crate) endpoints: Vec<String>,
    /// CA certificate of etcd
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_CACERT", help_heading = "Source")]
    pub(crate) cacert: Option<PathBuf>,
    /// Client certificate for etcd
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_CERT", help_heading = "Source")]
    pub(crate) cert: Option<PathBuf>,
    /// Key of the client certificate
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_KEY", help_heading = "Source")]
    pub(crate) key: Option<PathBuf>,
    /// User of etcd's own authentication, as name or name:password
    #[arg(long, value_name = "NAME[:PASSWORD]", env = "LIFEBOAT_USER", help_heading = "Source")]
    pub(crate) user: Option<String>,
    /// Password for --user (better: --password-file)
    #[arg(long, value_name = "PASSWORD", hide_env_values = true, env = "LIFEBOAT_PASSWORD", help_heading = "Source")]
    pub(crate) password: Option<String>,
    /// File that holds the password for --user
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_PASSWORD_FILE", help_heading = "Source")]
    pub(crate) password_file: Option<PathBuf>,
    /// Name to expect in the server's certificate instead of the endpoint's
    #[arg(long, value_name = "NAME", env = "LIFEBOAT_TLS_SERVER_NAME", help_heading = "Source")]
    pub(crate) tls_server_name: Option<String>,
    /// Do not check the server's certificate (for tests)
    #[arg(long, help_heading = "Source")]
    pub(crate) insecure_skip_tls_verify: bool,
    /// Follow the member list to members that were not named
    #[arg(long, env = "LIFEBOAT_DISCOVER", help_heading = "Source")]
    pub(crate) discover: bool,
    /// Time to connect to one member
    #[arg(long, value_name = "TIME", default_value = "5s", env = "LIFEBOAT_DIAL_TIMEOUT", help_heading = "Source")]
    pub(crate) dial_timeout: String,
    /// Time for one answer of a member (streams have their own limits)
    #[arg(long, value_name = "TIME", default_value = "5s", env = "LIFEBOAT_COMMAND_TIMEOUT", help_heading = "Source")]
    pub(crate) command_timeout: String,
    #[command(flatten)]
    pub(crate) talos: TalosArgs,
}

impl SourceArgs {
    /// Whether flags say where the cluster is, whatever a configuration says.
    pub(crate) fn leads_elsewhere(&self) -> bool {
        let talos = &self.talos;
        !self.endpoints.is_empty() || talos.talosconfig.is_some() || talos.context.is_some() || !talos.talos_endpoints.is_empty()
    }
}

/// Heading of the arguments about Talos.
const TALOS: &str = "Source: Talos Linux";

/// Which Talos nodes, and how they are reached. Any of them means Talos.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TalosArgs {
    /// Nodes that are meant [default: the talosconfig's, else every control plane node]
    #[arg(short = 'n', long, value_delimiter = ',', value_name = "NODE,…", env = "LIFEBOAT_NODES", help_heading = TALOS)]
    pub(crate) nodes: Vec<String>,
    /// Where Talos' API is dialled, in the place of the talosconfig's endpoints
    #[arg(short = 'e', long, value_delimiter = ',', value_name = "HOST,…", env = "LIFEBOAT_TALOS_ENDPOINTS", help_heading = TALOS)]
    pub(crate) talos_endpoints: Vec<String>,
    /// The talosconfig [default: TALOSCONFIG, ~/.talos/config, a service account's mount]
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_TALOSCONFIG", help_heading = TALOS)]
    pub(crate) talosconfig: Option<PathBuf>,
    /// Context of the talosconfig
    #[arg(long, value_name = "NAME", env = "LIFEBOAT_CONTEXT", help_heading = TALOS)]
    pub(crate) context: Option<String>,
    /// Ask etcd itself for what Talos does not pass on: HashKV, learners, compaction (takes os:admin)
    #[arg(long, env = "LIFEBOAT_TALOS_DIRECT", help_heading = TALOS)]
    pub(crate) talos_direct: bool,
}

impl TalosArgs {
    /// Whether any of them was given.
    pub(crate) fn is_given(&self) -> bool {
        !self.nodes.is_empty()
            || !self.talos_endpoints.is_empty()
            || self.talosconfig.is_some()
            || self.context.is_some()
            || self.talos_direct
    }
}

/// How the store of a repository is reached, where its URL does not say it. Each of these is for one kind of store and nothing to another: the
/// environment may hold those of several.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct StoreArgs {
    /// Region of an S3 store
    #[arg(long, value_name = "NAME", env = "LIFEBOAT_S3_REGION", help_heading = "Repository")]
    pub(crate) s3_region: Option<String>,
    /// Endpoint of an S3-compatible store
    #[arg(long, value_name = "URL", env = "LIFEBOAT_S3_ENDPOINT", help_heading = "Repository")]
    pub(crate) s3_endpoint: Option<String>,
    /// File with AWS_ACCESS_KEY_ID=… and AWS_SECRET_ACCESS_KEY=… lines
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_S3_CREDENTIALS_FILE", help_heading = "Repository")]
    pub(crate) s3_credentials_file: Option<PathBuf>,
    /// Endpoint of a gs:// or az:// store that is not the cloud's own
    #[arg(long, value_name = "URL", env = "LIFEBOAT_STORE_ENDPOINT", help_heading = "Repository")]
    pub(crate) store_endpoint: Option<String>,
    /// File with the credentials of a gs:// store (JSON) or an az:// store (AZURE_STORAGE_ACCOUNT_NAME=… and so on)
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_STORE_CREDENTIALS_FILE", help_heading = "Repository")]
    pub(crate) store_credentials_file: Option<PathBuf>,
}

impl StoreArgs {
    /// Those that are for the store at `url`: region, endpoint, file with credentials.
    pub(crate) fn of(&self, url: &str) -> (Option<String>, Option<String>, Option<PathBuf>) {
        match StoreKind::of(url) {
            StoreKind::Directory => (None, None, None),
            StoreKind::S3 => (self.s3_region.clone(), self.s3_endpoint.clone(), self.s3_credentials_file.clone()),
            StoreKind::Google | StoreKind::Azure => (None, self.store_endpoint.clone(), self.store_credentials_file.clone()),
        }
    }
}

/// Which repository, and what opens it.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct RepositoryArgs {
    /// The repository: file:///path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix
    #[arg(long, value_name = "URL", env = "LIFEBOAT_REPO", help_heading = "Repository")]
    pub(crate) repo: Option<String>,
    /// Name of the cluster in the repository, or in the configuration
    #[arg(long, alias = "profile", value_name = "NAME", env = "LIFEBOAT_CLUSTER", help_heading = "Repository")]
    pub(crate) cluster: Option<String>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// minisign public key whose signatures count (repeatable; text or file)
    #[arg(long, value_name = "KEY", env = "LIFEBOAT_TRUSTED_SIGNER", value_delimiter = ',', help_heading = "Repository")]
    pub(crate) trusted_signer: Vec<String>,
    /// Take backups whose signature is missing or foreign, although trusted signers are configured
    #[arg(long, help_heading = "Repository")]
    pub(crate) allow_unsigned: bool,
}

/// What opens a sealed backup.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct IdentityArgs {
    /// File with age identities (repeatable)
    #[arg(short = 'i', long = "identity", value_name = "FILE", env = "LIFEBOAT_IDENTITY", help_heading = "Keys")]
    pub(crate) identity: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

/// A passphrase in the place of keys.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct PassphraseArgs {
    /// A passphrase instead of a key, asked for at the terminal
    // No environment variable: somebody would put the passphrase itself there, where other processes can read it.
    #[arg(short = 'p', long, help_heading = "Keys")]
    pub(crate) passphrase: bool,
    /// File that holds the passphrase, in one line
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_PASSPHRASE_FILE", help_heading = "Keys")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Command (for sh) that prints the passphrase, in one line
    #[arg(long, value_name = "COMMAND", env = "LIFEBOAT_PASSPHRASE_COMMAND", help_heading = "Keys")]
    pub(crate) passphrase_command: Option<String>,
}

impl PassphraseArgs {
    /// Whether a passphrase is meant at all.
    pub(crate) fn is_given(&self) -> bool {
        self.passphrase || self.passphrase_file.is_some() || self.passphrase_command.is_some()
    }
}

/// Who can open what is written, and who signs it.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct SealArgs {
    /// age recipient to seal to (repeatable)
    #[arg(
        short = 'r',
        long = "recipient",
        value_name = "RECIPIENT",
        env = "LIFEBOAT_RECIPIENT",
        value_delimiter = ',',
        help_heading = "Keys"
    )]
    pub(crate) recipient: Vec<String>,
    /// File with one age recipient per line (repeatable)
    #[arg(short = 'R', long = "recipients-file", value_name = "FILE", env = "LIFEBOAT_RECIPIENTS_FILE", help_heading = "Keys")]
    pub(crate) recipients_file: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
    /// minisign secret key that signs the manifest; without one it is unsigned
    #[arg(long, value_name = "FILE", env = "LIFEBOAT_SIGNING_KEY", help_heading = "Keys")]
    pub(crate) signing_key: Option<PathBuf>,
}

/// The spool.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct SpoolArgs {
    /// Directory for the (encrypted, nameless) spool [default: /var/lib/lifeboat/spool, or ~/.cache/lifeboat/spool]
    #[arg(long, value_name = "DIR", env = "LIFEBOAT_SPOOL_DIR", help_heading = "Spool")]
    pub(crate) spool_dir: Option<PathBuf>,
    /// Room the spool leaves free on its filesystem [default: 2GiB]
    #[arg(long, value_name = "BYTES", env = "LIFEBOAT_SPOOL_RESERVE", help_heading = "Spool")]
    pub(crate) spool_reserve: Option<String>,
}

/// The consent that destroys or replaces.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ConsentArgs {
    /// Consent without a question: the cluster's name
    // Neither this nor any other consent has an environment variable: it is given for one run, by a person who looks.
    #[arg(long, value_name = "NAME", help_heading = "Consent")]
    pub(crate) confirm: Option<String>,
}
