//! Every bound that a reader of outside bytes obeys, in one place.
//!
//! A limit that a writer obeys as well is part of the format: raising it makes objects that an older release refuses.

/// The largest manifest, in bytes (format: part of version 1).
pub const MANIFEST_BYTES: usize = 64 << 10;
/// The largest mark, lineage, marker or lease, in bytes.
pub const SMALL_JSON_BYTES: usize = 64 << 10;
/// The largest detached signature, in bytes. A real one is below 500.
pub const SIGNATURE_BYTES: usize = 4 << 10;
/// The deepest nesting of arrays and objects in any JSON object of the repository.
pub const JSON_DEPTH: usize = 16;

/// The raw bytes of one frame; every frame but the last one holds exactly as many when Lifeboat writes.
pub const FRAME_RAW: usize = 4 << 20;
/// The most compressed bytes one frame can have: zstd's own bound for [`FRAME_RAW`] bytes (`ZSTD_COMPRESSBOUND`, for sizes above 128 KiB).
pub const FRAME_COMPRESSED: usize = FRAME_RAW + (FRAME_RAW >> 8);
/// The largest zstd window a reader allocates, as a power of two: 8 MiB.
pub const ZSTD_WINDOW_LOG: u32 = 23;
/// The stored object is hashed in blocks of this many bytes, so that damage is named by range without a key.
pub const HASH_BLOCK: u64 = 8 << 20;
/// The largest `frames.bin`, in bytes. Enough for a database of 900 GiB, and no more than a store takes as a small object.
pub const FRAMES_BYTES: usize = 8 << 20;

/// The longest age header (recipient stanzas and MAC) a reader takes, with the nonce behind it, in bytes.
pub const AGE_HEADER_BYTES: usize = 64 << 10;
/// The most recipients one object is sealed to.
pub const RECIPIENTS: usize = 32;
/// The largest scrypt work factor a reader accepts, as a power of two: 2^20 takes 1 GiB and some seconds.
pub const SCRYPT_LOG_N: u8 = 20;
/// The scrypt work factor a writer uses, as a power of two; the age tool's own.
pub const SCRYPT_LOG_N_WRITTEN: u8 = 18;
/// The largest identity file, in bytes, before and after decryption.
pub const IDENTITY_FILE_BYTES: usize = 1 << 20;

/// The most small objects read at once while a catalog is loaded.
pub const PARALLEL_READS: usize = 16;
/// The longest time a writer may take from its backup id to its manifest, in seconds: 24 h.
pub const COMMIT_WITHIN_SECONDS: i64 = 24 * 3600;
/// The longest time a lease can be held without renewal, in seconds; a longer expiry is damage.
pub const LEASE_SECONDS: i64 = 3600;
/// The most warnings, tags, parents, members, alarms or answers one manifest carries each.
pub const MANIFEST_LIST: usize = 256;
/// The longest free text field (a version, a member's name, a warning), in bytes.
pub const TEXT_BYTES: usize = 1024;
