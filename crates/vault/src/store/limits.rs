//! Sizes and times of the store layer.

use std::time::Duration;

/// Every part of a multipart upload but the last has this size: some stores want equal parts, all want at least 5 MiB.
pub const PART_SIZE: usize = 8 << 20;

/// How many parts are under way at once, beside the one being filled.
pub const PARTS_IN_FLIGHT: usize = 2;

/// The number of parts that S3 and Google allow (Azure: 50,000); with [`PART_SIZE`] an object has at most 78 GiB.
pub const MAX_PARTS: usize = 10_000;

/// How often one request is tried.
pub const ATTEMPTS: usize = 3;

/// No retry begins later than this after the first try.
pub const RETRY_BUDGET: Duration = Duration::from_secs(30);

/// The first pause between two tries; it doubles up to [`RETRY_PAUSE_MAX`].
pub const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The longest pause between two tries.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Within this a connection is there or the try has failed.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One try of a small request (look, list, delete, small write), with its answer.
pub const SMALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Silence that ends one try of a read: from the request to the answer, or between two pieces of it.
pub const READ_STALL: Duration = Duration::from_secs(15);

/// One try of a write of up to [`PART_SIZE`] (a part goes through at half a megabit per second).
pub const PART_TIMEOUT: Duration = Duration::from_secs(150);

/// Writes up to this size use [`SMALL_TIMEOUT`], in bytes.
pub const SMALL_WRITE: usize = 256 << 10;

/// How long giving up an upload may take.
pub const ABORT_TIMEOUT: Duration = Duration::from_secs(10);

/// More objects than this in one listing are refused: no repository of ours comes near, and each costs memory.
pub const MAX_LISTED: usize = 5_000_000;

/// The longest time one listing may take, whatever the store answers.
pub const LIST_BUDGET: Duration = Duration::from_secs(600);

/// The longest key, in bytes: all of them take 1024 with the prefix.
pub const MAX_KEY: usize = 800;

/// The longest part of a key, in bytes: what a file name may have, less the room for a temporary one.
pub const MAX_KEY_PART: usize = 200;

/// The deepest key, in parts.
pub const MAX_KEY_PARTS: usize = 16;

/// How much of a credentials or certificate file is read, in bytes.
pub const MAX_SETTINGS_FILE: u64 = 1 << 20;

/// How long a conditional replacement on `file://` waits for another one.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// How long one of several stores may take for one piece of an object while the others wait for it. One that takes longer drops out. Above what a
/// part takes that is tried [`ATTEMPTS`] times at the lowest speed.
pub const MIRROR_WRITE_WITHIN: Duration = Duration::from_secs(480);

/// How long one of several stores may take to make an object durable and visible: `file://` reads it back in full.
pub const MIRROR_COMPLETE_WITHIN: Duration = Duration::from_secs(3600);
