//! Every limit of this crate, in one place.

use std::time::Duration;

use jiff::SignedDuration;

/// Bytes of the database that one sealed frame holds, and the unit in which the stream is handed on. The vault's format fixes it.
pub const FRAME: usize = 4 << 20;
/// Plain bytes in one encrypted block of the spool. Small enough for single pages, large enough that the 16-byte tags do not count.
pub const SPOOL_BLOCK: usize = 16 << 10;
/// Room that a spool leaves free on its filesystem unless told otherwise.
pub const SPOOL_RESERVE: u64 = 2 << 30;
/// A spool above this share of the memory that is available is written out in small steps beside an etcd. Linux begins to write out by itself at a
/// tenth (`vm.dirty_background_ratio`); what stays well below that is mostly never written at all, for the spool is gone before.
pub const SPOOL_SHARE_OF_MEMORY: u64 = 20;
/// Compression workers at most; more do not help while one stream feeds them.
pub const MAX_WORKERS: usize = 4;
/// Frames kept in memory between the stream and the workers; a worker that comes later reads the spool.
pub const FRAMES_IN_MEMORY: usize = 3;
/// Sealed frames that wait for the upload at most, per worker. What more the workers could do, they wait with; the stream does not.
pub const SEALED_AHEAD: usize = 2;
/// How far a follower's applied index may be behind the leader's and still be taken for a backup, in raft entries.
pub const MAX_APPLIED_LAG: u64 = 1_000;
/// Time for all live HashKV questions of one backup together.
pub const HASHKV_BUDGET: Duration = Duration::from_secs(2);
/// The same for the member that has just sent its whole file, and so has it in memory (docs/decisions/0002).
pub const HASHKV_SPEED_WARM: u64 = 1_000_000_000;
/// The speed at which a member is assumed to hash, in bytes per second, when the budget is divided (design part 10).
pub const HASHKV_SPEED: u64 = 100_000_000;
/// A stream that is expected to last longer may outlast the snapshot's revision, so the members are asked for HashKV before it (design part 10).
pub const STREAM_OUTLASTS: Duration = Duration::from_secs(180);
/// The speed of a stream in bytes per second where none was measured: half of what a network of 1 Gbit/s carries.
pub const STREAM_SPEED: u64 = 50_000_000;
/// A stream that was over sooner says nothing about speed.
pub const STREAM_MEASURED: Duration = Duration::from_secs(1);
/// A writer commits within this time of its backup id, or gives up (design part 4): after that the pruner may take its objects for litter.
pub const COMMIT_WITHIN: Duration = Duration::from_secs(24 * 3600);
/// A hidden file beside a target that nobody wrote to for this long, and that nobody holds, was left by a run that was killed.
pub const LEFT_BEHIND_AFTER: Duration = COMMIT_WITHIN;
/// How long a lease is held without being renewed: so long a backup of a host that died holds up others that insist on it.
pub const LEASE_FOR: SignedDuration = SignedDuration::from_secs(180);
/// How often a lease is renewed while work runs.
pub const LEASE_RENEWED_EVERY: Duration = Duration::from_secs(60);
/// How long a run that was told to end may take to give its lease back.
pub const GOODBYE_WITHIN: Duration = Duration::from_secs(3);
/// Frames that a worker of a restore fetches at a time.
pub const FRAMES_PER_FETCH: usize = 2;
/// Members of a cluster that are looked at, at most. etcd itself advises seven.
pub const MAX_MEMBERS: usize = 64;
/// Blocks of a stored object that `verify` asks for at a time: one is hashed while others are on their way.
pub const VERIFY_READ_AHEAD: usize = 2;
/// Pairs of revision and compact revision at which `verify --deep` hashes a file at most; members that agree share one.
pub const VERIFY_HASHES: usize = 8;
/// How long a scratch etcd may take from its start until it serves. It reads every key of the database first.
pub const TRY_BOOT_WITHIN: Duration = Duration::from_secs(600);
/// The space quota of a scratch etcd at least, in bytes; twice the file where that is more.
pub const TRY_QUOTA_LEAST: u64 = 2 << 30;
/// The name that commands shown give to a new file for an identity, and to one that has to be found.
pub const IDENTITY: &str = "identity.txt";
/// Prefixes whose keys a drill counts in what was booted; with more only the whole is counted.
pub const DRILL_PREFIXES: usize = 512;
/// Time for one answer of a scratch etcd that is compared.
pub const DRILL_ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// How long a command that prints an identity may take.
pub const IDENTITY_COMMAND_WITHIN: Duration = Duration::from_secs(60);
/// Bytes of identities that a command may print.
pub const IDENTITY_COMMAND_BYTES: u64 = 1 << 20;
/// The name that commands shown give to the first cluster of a repository.
pub const NEW_CLUSTER: &str = "main";
/// Time for HashKV of a scratch etcd, beside what its size needs at [`TRY_HASH_SPEED`] bytes per second.
pub const TRY_HASH_LEAST: Duration = Duration::from_secs(60);
/// The speed at which a scratch etcd hashes at least.
pub const TRY_HASH_SPEED: u64 = 50_000_000;
/// etcd's space quota where nobody set one (server/storage/quota.go).
pub const DEFAULT_QUOTA: u64 = 2 << 30;
/// The largest database etcd's documentation advises.
pub const ADVISED_SIZE: u64 = 8 << 30;
/// The share of its quota from which a database is worth a word.
pub const QUOTA_ADVICE: f64 = 0.8;
/// The share of its quota from which a database is an alert.
pub const QUOTA_ALERT: f64 = 0.9;
/// Below this share of its file in use, a defragmentation is advised.
pub const IN_USE_ADVICE: f64 = 0.6;
/// Below this share it is an alert.
pub const IN_USE_ALERT: f64 = 0.5;
/// Smaller files are not judged by their share in use: there is nothing to be won.
pub const IN_USE_FROM: u64 = 64 << 20;
/// Raft entries from which a lag is worth a word: as far as a member may be behind and still be taken for a backup.
pub const LAG_ADVICE: u64 = MAX_APPLIED_LAG;
/// Raft entries from which a lag is an alert: beyond it the leader soon sends whole snapshots instead.
pub const LAG_ALERT: u64 = 5_000;
/// Time left to a certificate, below which it is worth a word.
pub const CERTIFICATE_ADVICE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Time left to a certificate, below which it is an alert.
pub const CERTIFICATE_ALERT: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Time until a quota is reached at the pace of the backups, below which that is worth a word.
pub const QUOTA_REACHED_ADVICE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The same, below which it is an alert.
pub const QUOTA_REACHED_ALERT: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Below so many bytes in use a backup's growth is not judged: a small cluster doubles by one more namespace.
pub const GROWTH_FROM: u64 = 16 << 20;
/// How long a member may take for its status before that is worth a word.
pub const LATENCY_ADVICE: Duration = Duration::from_millis(500);
/// How often `etcd health` looks while it waits or watches.
pub const HEALTH_EVERY: Duration = Duration::from_secs(2);
/// Below this share of its file in use, `etcd defrag` takes a member's turn.
pub const DEFRAG_IN_USE_BELOW: f64 = IN_USE_ADVICE;
/// Above so many free bytes, `etcd defrag` takes a member's turn.
pub const DEFRAG_FREE_ABOVE: u64 = 200 << 20;
/// How long a change of a cluster may take until every member that answers shows it. etcd refuses changes of the membership for five
/// seconds after a member connected.
pub const EFFECT_WITHIN: Duration = Duration::from_secs(60);
/// Time between two looks at a cluster while an effect is waited for.
pub const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Time for a defragmentation of one member, beside what its size needs at [`DEFRAG_SPEED`].
pub const DEFRAG_LEAST: Duration = Duration::from_secs(60);
/// The speed in bytes per second at which a member is rewritten at least.
pub const DEFRAG_SPEED: u64 = 10_000_000;
/// No defragmentation is waited for any longer.
pub const DEFRAG_MOST: Duration = Duration::from_secs(24 * 3600);
/// Time between two members of a defragmentation, unless told otherwise.
pub const DEFRAG_PAUSE: Duration = Duration::from_secs(10);
/// How long a repository may take to say how young its newest backup is.
pub const REPOSITORY_ANSWERS_WITHIN: Duration = Duration::from_secs(20);
/// How long a store may take to show whether a repository is there: a request or two, and all the tries of them.
pub const STORE_OPENS_WITHIN: Duration = Duration::from_secs(120);
/// How long one of several stores may take to tell what it holds.
pub const STORE_ANSWERS_WITHIN: Duration = Duration::from_secs(120);
/// A backup older than this is offered anew before a member is rewritten.
pub const BACKUP_BEFORE_DEFRAG: SignedDuration = SignedDuration::from_hours(1);
/// How long a backup waits for a defragmentation on the same machine. Longer ones are for another run: the caller is told.
pub const BACKUP_WAITS_FOR_DEFRAG: Duration = Duration::from_secs(120);
/// How often all members are asked for HashKV anew when a compaction came between their answers.
pub const HASHKV_ROUNDS: usize = 3;
/// Bytes of one journal. Real ones have some KiB.
pub const MAX_JOURNAL_BYTES: u64 = 16 << 20;
/// Bytes of one line of a journal, the plan's included.
pub const MAX_JOURNAL_LINE: usize = 1 << 20;
/// Journals in one directory. They are never deleted by Lifeboat, and one is written on a bad day.
pub const MAX_JOURNALS: usize = 10_000;
/// How often a plan may go back to an earlier step before it is given up.
pub const MAX_RETURNS: usize = 20;
/// How long members may take to remove old rows after a compaction before they are defragmented all the same.
pub const COMPACTION_SETTLES_WITHIN: Duration = Duration::from_secs(300);
/// So many looks in a row at which no member has less in use than at the one before mean that a compaction has ended.
pub const SETTLED_LOOKS: u32 = 4;
/// A file with fewer free bytes than this, or than a tenth of it, has just been defragmented or need not be.
pub const WORTH_DEFRAGMENTING: u64 = 4 << 20;

/// Time before the end of a talosconfig's certificate from which on it is said.
pub const TALOSCONFIG_WARN: Duration = Duration::from_secs(30 * 24 * 3600);

/// The share of a short-lived certificate's life (a service account's is six hours) that counts as its end.
pub const TALOSCONFIG_WARN_SHARE: u32 = 10;

/// Most nodes whose machine configs are kept with a backup.
pub const MACHINE_CONFIGS_MAX: usize = 5_000;

/// Nodes asked for their machine config at the same time.
pub const MACHINE_CONFIGS_AT_ONCE: usize = 8;

/// Least memory of a Talos control plane node that `talosctl health` passes, in bytes (1848 MiB less 150 MiB that the firmware may keep).
pub const TALOS_MEMORY_CONTROL_PLANE: u64 = (1848 - 150) << 20;

/// Least memory of a Talos worker, likewise (1024 MiB less 150 MiB).
pub const TALOS_MEMORY_WORKER: u64 = (1024 - 150) << 20;

/// Least size of the volume EPHEMERAL, likewise: 6 GiB less the system partitions (EFI 100 MiB, STATE 100 MiB, META 1 MiB) and 10 MiB.
pub const TALOS_DISK_LEAST: u64 = (6 * 1024 - 211) << 20;

/// Bytes of one machine config that are kept: real ones have some tens of KiB.
pub const MACHINE_CONFIG_BYTES_MAX: usize = 4 << 20;

/// How long a look through the extras for the key of encryption at rest may take.
pub const EXTRAS_LOOK_WITHIN: Duration = Duration::from_secs(20);

/// The share of a file that must be free for a defragmentation to be the advice where it nears its quota.
pub const WORTH_FREEING: f64 = 0.1;

/// How long a tombstone stands: a run of the pruner once a month still removes what the one before it found due.
pub const TOMBSTONE_LASTS: jiff::SignedDuration = jiff::SignedDuration::from_hours(35 * 24);

/// How far the clocks of two hosts may differ without a word: what is further ahead was done by a wrong clock.
pub const CLOCKS_DIFFER: Duration = Duration::from_secs(5 * 60);

/// How often a node is looked at while a step of a recovery waits for its effect.
pub const RECOVERY_LOOKS_EVERY: Duration = Duration::from_millis(500);

/// How long a step of a recovery may show no change before it is given up for this run. Joining takes Talos up to ten minutes.
pub const RECOVERY_PATIENCE: Duration = Duration::from_secs(15 * 60);

/// How long an order to a node is given to show an effect before it is taken for one that was never heard.
pub const RECOVERY_SETTLES_WITHIN: Duration = Duration::from_secs(60);

/// How long a bootstrap that Talos answered is let alone before it is given anew: a second one would cut a restore off that runs.
pub const RECOVERY_ASKS_AGAIN_AFTER: Duration = Duration::from_secs(5 * 60);

/// A backup that is due is removed no sooner than this after the pruner has said so.
pub const PRUNE_GRACE: SignedDuration = SignedDuration::from_hours(24);

/// Data without a manifest is left over when its id is this old: a writer gives up after a day.
pub const STRAY_AFTER: SignedDuration = SignedDuration::from_hours(7 * 24);

/// A record of a check or a run that changes nothing any more is kept this long.
pub const MARKS_KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);
