//! Every limit and default of this crate, in one place.

use std::time::Duration;

/// How long one attempt to connect may take: name lookup, TCP and TLS together.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a unary call may take unless the caller says otherwise.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause without any received byte after which a connection with open streams is probed.
pub const KEEPALIVE_TIME: Duration = Duration::from_secs(20);

/// Shortest probing interval accepted: etcd closes connections that ping more often than every 5 s
/// (`--grpc-keepalive-min-time`), and operators raise that value.
pub const KEEPALIVE_TIME_MIN: Duration = Duration::from_secs(10);

/// How long the answer to a probe may take before the connection counts as dead.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// HTTP/2 receive window of one stream. At 32 KiB per snapshot message and 10 ms of round trip this allows 800 MB/s.
pub const STREAM_WINDOW: u32 = 8 << 20;

/// HTTP/2 receive window of the connection: larger, so that a stalled snapshot cannot starve the calls beside it.
pub const CONNECTION_WINDOW: u32 = 24 << 20;

/// Largest HTTP/2 frame we offer to take. Servers that use the offer spend fewer frame headers and wake-ups.
pub const FRAME_SIZE: u32 = 1 << 20;

/// Largest answer accepted from Range, Txn and Watch. etcd's own client accepts 2 GiB; a member cannot hold more in one
/// answer than its keys in that range, and 512 MiB is past every documented store layout.
pub const MESSAGE_MAX: usize = 512 << 20;

/// Largest answer accepted from the other unary calls, whose answers are small by nature.
pub const SMALL_MESSAGE_MAX: usize = 16 << 20;

/// Largest blob accepted in one snapshot message. Servers 3.4 to 3.7 send 32 KiB.
pub const SNAPSHOT_BLOB_MAX: usize = 4 << 20;

/// What a snapshot message may need beside its blob: field tags, lengths and the version text.
pub const SNAPSHOT_ENVELOPE_MAX: usize = 1 << 10;

/// Longest storage version text accepted ("3.6.0" is five bytes).
pub const SNAPSHOT_VERSION_MAX: usize = 64;

/// Empty messages in a row, with bytes still missing, after which a snapshot counts as looping. A server whose read of
/// its own file fails drops the error and sends empty blobs for ever (etcd 3.4 to 3.7, `maintenance.go`).
pub const SNAPSHOT_EMPTY_BLOBS_MAX: u32 = 16;

/// Largest database accepted: 1 TiB, far above the largest etcd reported anywhere (17 GB; vendors claim 100 GB).
pub const SNAPSHOT_DATABASE_MAX: u64 = 1 << 40;

/// Smallest database accepted: a bbolt file has at least four pages, and no page is below 512 bytes.
pub const SNAPSHOT_DATABASE_MIN: u64 = 4 * 512;

/// Every bbolt page size is a multiple of this, so every database size is.
pub const SNAPSHOT_GRANULE: u64 = 512;

/// How long to wait for the next snapshot message before the stream is cancelled.
pub const SNAPSHOT_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Time spent waiting on the server within which at least [`SNAPSHOT_PROGRESS_BYTES`] must arrive.
pub const SNAPSHOT_PROGRESS_WINDOW: Duration = Duration::from_secs(120);

/// See [`SNAPSHOT_PROGRESS_WINDOW`]: 1 MiB in 120 s is below any link worth a backup.
pub const SNAPSHOT_PROGRESS_BYTES: u64 = 1 << 20;

/// Requests that may wait on the sending side of one watch.
pub const WATCH_REQUEST_QUEUE: usize = 8;
