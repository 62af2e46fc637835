//! Every limit and default of this crate, in one place.

use std::time::Duration;

/// Port of apid where an endpoint names none.
pub const APID_PORT: u16 = 50_000;

/// How long one attempt to connect to one endpoint may take: name lookup, TCP and TLS together.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a unary call may take unless the caller says otherwise. apid itself may first have to dial the node.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// How long leaving a cluster may take: Talos retries the removal for 5 minutes and waits 3 for the member's id.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(9 * 60);

/// How long giving up leadership may take: Talos waits up to 3 minutes for the member's id.
pub const FORFEIT_TIMEOUT: Duration = Duration::from_secs(4 * 60);

/// How long a log that is followed may say nothing at first: as long as anybody waits. A connection that died is noticed by
/// the kernel's probes.
pub const FOLLOW_TIMEOUT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Silence on a connection after which the kernel probes it. HTTP/2 pings are out: apid runs with Go's defaults, which
/// close a connection that pings more often than every 5 minutes.
pub const TCP_KEEPALIVE_TIME: Duration = Duration::from_secs(20);

/// Time between two such probes.
pub const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// HTTP/2 receive window of one stream. Snapshots come in messages of 1 KiB; what counts is bytes per round trip.
pub const STREAM_WINDOW: u32 = 8 << 20;

/// HTTP/2 receive window of the connection.
pub const CONNECTION_WINDOW: u32 = 16 << 20;

/// Largest HTTP/2 frame we offer to take.
pub const FRAME_SIZE: u32 = 1 << 20;

/// Largest message that client, apid and machined exchange (`GRPCMaxMessageSize`).
pub const MESSAGE_MAX: usize = 32 << 20;

/// Piece in which a snapshot is uploaded: well below [`MESSAGE_MAX`], well above talosctl's 4 KiB.
pub const UPLOAD_PIECE: usize = 256 << 10;

/// Snapshot bytes gathered before they are handed out, as the server sends 1 KiB at a time.
pub const SNAPSHOT_PIECE: usize = 128 << 10;

/// Most resources of one kind taken from one node.
pub const RESOURCES_MAX: usize = 10_000;

/// Most bytes of such a list.
pub const RESOURCES_BYTES_MAX: usize = 64 << 20;

/// Most bytes taken of `/proc/sys/kernel/random/boot_id`, which is 37 bytes long.
pub const BOOT_ID_MAX: usize = 100;

/// Most bytes taken of `/proc/stat`: its line of interrupts is long on a large machine.
pub const PROC_STAT_MAX: usize = 1 << 20;

/// Most bytes taken of `/proc/uptime`, which is two numbers.
pub const PROC_UPTIME_MAX: usize = 100;

/// A talosconfig larger than this is not one.
pub const TALOSCONFIG_MAX: u64 = 1 << 20;

/// Most endpoints or nodes taken from a talosconfig or from flags.
pub const ADDRESSES_MAX: usize = 1_000;

/// Longest name of a node, as DNS has it.
pub const NODE_NAME_MAX: usize = 253;
