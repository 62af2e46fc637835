//! Reading segments, hostile or torn.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::{ALIGNMENT, SECTOR, kind};
use crate::conf_state::ConfState;
use crate::crc::Crc32c;
use crate::id::{ClusterId, MemberId};
use crate::limits::MAX_WAL_RECORD_BYTES;
use crate::proto::{Fields, Malformed};

/// Why a segment, or a directory of segments, cannot be read further.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// Reading failed.
    #[error("reading the write-ahead log: {0}")]
    Io(#[from] io::Error),
    /// The segment ends within a frame, or the frame holds a sector of zeros: the machine stopped while it was written. Everything
    /// before is sound; etcd repairs this in the last segment by cutting here.
    #[error("the write-ahead log ends in a torn record at byte {offset}")]
    Torn {
        /// Where the torn frame begins.
        offset: u64,
    },
    /// A record longer than [`MAX_WAL_RECORD_BYTES`].
    #[error("a record of {length} bytes at byte {offset} of the write-ahead log")]
    TooLong {
        /// Where the frame begins.
        offset: u64,
        /// The length it claims.
        length: u64,
    },
    /// The bytes of a record are not one.
    #[error("the record at byte {offset} of the write-ahead log is malformed: {source}")]
    Malformed {
        /// Where the frame begins.
        offset: u64,
        /// What is wrong.
        source: Malformed,
    },
    /// The running checksum does not fit.
    #[error("the record at byte {offset} of the write-ahead log has CRC {stored:08x}, computed {computed:08x}")]
    Crc {
        /// Where the frame begins.
        offset: u64,
        /// The checksum in the record.
        stored: u32,
        /// The checksum of everything so far.
        computed: u32,
    },
    /// A record of a type that no known version writes.
    #[error("the record at byte {offset} of the write-ahead log has the unknown type {kind}")]
    Kind {
        /// Where the frame begins.
        offset: u64,
        /// The type found.
        kind: u64,
    },
    /// Segment numbers are not consecutive.
    #[error("segment {missing} of the write-ahead log is missing in {}", dir.display())]
    Gap {
        /// The directory.
        dir: PathBuf,
        /// The number that was expected.
        missing: u64,
    },
    /// No segment at all.
    #[error("{} holds no write-ahead log", .0.display())]
    NoSegment(PathBuf),
}

/// One raft log entry.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Entry {
    /// 0 a request, 1 a configuration change, 2 one of the second kind.
    pub kind: u64,
    /// Term in which it was proposed.
    pub term: u64,
    /// Its index.
    pub index: u64,
    /// The serialised request or change.
    pub data: Vec<u8>,
}

/// What raft must not forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HardState {
    /// Current term.
    pub term: u64,
    /// Candidate voted for in this term; 0 for none.
    pub vote: MemberId,
    /// Highest index known to be committed.
    pub commit: u64,
}

/// One record of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Whose log this is.
    Metadata {
        /// The member.
        node: MemberId,
        /// Its cluster.
        cluster: ClusterId,
    },
    /// A log entry.
    Entry(Entry),
    /// A new hard state.
    HardState(HardState),
    /// The CRC with which a segment begins.
    Crc(u32),
    /// A raft snapshot exists at this point.
    Snapshot {
        /// Its index.
        index: u64,
        /// Its term.
        term: u64,
        /// The configuration at that index; absent in logs of etcd 3.4.
        conf_state: Option<ConfState>,
    },
}

/// The records of segments, in order, their checksums proven.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    offset: u64,
    crc: Crc32c,
    // Before the first record of a log that is read from a later segment on, the running value is unknown and taken from there.
    known_crc: bool,
}

impl<R: Read> Reader<R> {
    /// Reads from the first segment given; its leading CRC record sets the running value.
    pub fn new(source: R) -> Self {
        Self { source, offset: 0, crc: Crc32c::new(), known_crc: false }
    }

    /// Goes on with the next segment, checking that its leading CRC continues this one's.
    pub fn next_segment<N: Read>(self, source: N) -> Reader<N> {
        Reader { source, offset: 0, crc: self.crc, known_crc: self.known_crc }
    }

    /// Byte at which the next frame begins.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record; none at the end of the segment or where its preallocated zeros begin.
    ///
    /// # Errors
    ///
    /// [`WalError`]; the reader must not be used further.
    pub fn next_record(&mut self) -> Result<Option<Record>, WalError> {
        let offset = self.offset;
        let Some((record, frame_length)) = self.frame()? else {
            return Ok(None);
        };
        let read = self.record(offset, &record);
        if let Err(WalError::Crc { .. } | WalError::Malformed { .. }) = read
            && has_zero_sector(offset + ALIGNMENT as u64, &record)
        {
            return Err(WalError::Torn { offset });
        }
        self.offset += frame_length;
        read.map(Some)
    }

    /// The bytes of the next record and the length of its frame.
    fn frame(&mut self) -> Result<Option<(Vec<u8>, u64)>, WalError> {
        let offset = self.offset;
        let mut head = Vec::with_capacity(ALIGNMENT);
        self.source.by_ref().take(ALIGNMENT as u64).read_to_end(&mut head)?;
        let Ok(head) = <[u8; ALIGNMENT]>::try_from(head.as_slice()) else {
            return if head.is_empty() { Ok(None) } else { Err(WalError::Torn { offset }) };
        };
        let field = u64::from_le_bytes(head);
        if field == 0 {
            return Ok(None);
        }
        let length = field & 0x00ff_ffff_ffff_ffff;
        let padding = if field >> 63 == 1 { field >> 56 & 7 } else { 0 };
        if length > MAX_WAL_RECORD_BYTES {
            return Err(WalError::TooLong { offset, length });
        }
        let mut record = Vec::new();
        // `take` bounds the allocation by what is really there.
        let read = self.source.by_ref().take(length + padding).read_to_end(&mut record)? as u64;
        if read < length + padding {
            return Err(WalError::Torn { offset });
        }
        record.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        Ok(Some((record, ALIGNMENT as u64 + length + padding)))
    }

    fn record(&mut self, offset: u64, bytes: &[u8]) -> Result<Record, WalError> {
        let malformed = |source| WalError::Malformed { offset, source };
        let (kind, stored, data) = envelope(bytes).map_err(malformed)?;
        if kind == kind::CRC {
            if self.known_crc && self.crc.value() != stored {
                return Err(WalError::Crc { offset, stored, computed: self.crc.value() });
            }
            self.crc = Crc32c::resume(stored);
            self.known_crc = true;
            return Ok(Record::Crc(stored));
        }
        self.known_crc = true;
        self.crc.update(data);
        if self.crc.value() != stored {
            return Err(WalError::Crc { offset, stored, computed: self.crc.value() });
        }
        match kind {
            kind::METADATA => metadata(data),
            kind::ENTRY => entry(data),
            kind::STATE => hard_state(data),
            kind::SNAPSHOT => snapshot(data),
            _ => return Err(WalError::Kind { offset, kind }),
        }
        .map_err(malformed)
    }
}

pub(super) fn envelope(bytes: &[u8]) -> Result<(u64, u32, &[u8]), Malformed> {
    let (mut kind, mut crc, mut data) = (0, 0, &[][..]);
    let mut fields = Fields::of(bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => kind = value.varint(field)?,
            2 => crc = value.varint(field)? as u32,
            3 => data = value.bytes(field)?,
            _ => {}
        }
    }
    Ok((kind, crc, data))
}

fn metadata(data: &[u8]) -> Result<Record, Malformed> {
    let (mut node, mut cluster) = (0, 0);
    let mut fields = Fields::of(data);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => node = value.varint(field)?,
            2 => cluster = value.varint(field)?,
            _ => {}
        }
    }
    Ok(Record::Metadata { node: MemberId(node), cluster: ClusterId(cluster) })
}

fn entry(data: &[u8]) -> Result<Record, Malformed> {
    let mut entry = Entry::default();
    let mut fields = Fields::of(data);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => entry.kind = value.varint(field)?,
            2 => entry.term = value.varint(field)?,
            3 => entry.index = value.varint(field)?,
            4 => entry.data = value.bytes(field)?.to_vec(),
            _ => {}
        }
    }
    Ok(Record::Entry(entry))
}

fn hard_state(data: &[u8]) -> Result<Record, Malformed> {
    let mut state = HardState { term: 0, vote: MemberId(0), commit: 0 };
    let mut fields = Fields::of(data);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => state.term = value.varint(field)?,
            2 => state.vote = MemberId(value.varint(field)?),
            3 => state.commit = value.varint(field)?,
            _ => {}
        }
    }
    Ok(Record::HardState(state))
}

fn snapshot(data: &[u8]) -> Result<Record, Malformed> {
    let (mut index, mut term, mut conf_state) = (0, 0, None);
    let mut fields = Fields::of(data);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => index = value.varint(field)?,
            2 => term = value.varint(field)?,
            3 => conf_state = Some(ConfState::decode(value.bytes(field)?)?),
            _ => {}
        }
    }
    Ok(Record::Snapshot { index, term, conf_state })
}

/// True when a sector-aligned part of the record is all zeros: etcd's sign of a torn write.
fn has_zero_sector(position: u64, record: &[u8]) -> bool {
    let mut at = position;
    let mut rest = record;
    while !rest.is_empty() {
        let room = usize::try_from(SECTOR - at % SECTOR).unwrap_or(rest.len()).min(rest.len());
        let (sector, after) = rest.split_at(room);
        if sector.iter().all(|&byte| byte == 0) {
            return true;
        }
        at += room as u64;
        rest = after;
    }
    false
}

/// What a member's log says in all.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Summary {
    /// Number of segments.
    pub segments: u64,
    /// Whose log this is.
    pub node: Option<MemberId>,
    /// Its cluster.
    pub cluster: Option<ClusterId>,
    /// The last hard state.
    pub hard_state: Option<HardState>,
    /// Index and term of the last snapshot record.
    pub snapshot: Option<(u64, u64)>,
    /// Number of entry records (an overwritten index counts again).
    pub entries: u64,
    /// Index and term of the last entry.
    pub last_entry: Option<(u64, u64)>,
    /// Where the last segment is torn, if it is.
    pub torn_at: Option<u64>,
}

impl Summary {
    fn add(&mut self, record: Record) {
        match record {
            Record::Metadata { node, cluster } => {
                self.node = Some(node);
                self.cluster = Some(cluster);
            }
            Record::Entry(entry) => {
                self.entries += 1;
                self.last_entry = Some((entry.index, entry.term));
            }
            Record::HardState(state) => self.hard_state = Some(state),
            Record::Snapshot { index, term, .. } => self.snapshot = Some((index, term)),
            Record::Crc(_) => {}
        }
    }
}

/// Reads every segment in `dir`, proving checksums and their chain. A torn end of the last segment is reported, not an error.
///
/// # Errors
///
/// [`WalError`] for damage anywhere else, a missing segment, or none at all.
pub fn summarize(dir: &Path) -> Result<Summary, WalError> {
    let segments = segments(dir)?;
    let mut summary = Summary::default();
    let Some((_, first)) = segments.first() else {
        return Err(WalError::NoSegment(dir.to_owned()));
    };
    let mut reader = Reader::new(BufReader::new(File::open(first)?));
    for (position, (_, path)) in segments.iter().enumerate() {
        if position > 0 {
            reader = reader.next_segment(BufReader::new(File::open(path)?));
        }
        summary.segments += 1;
        loop {
            match reader.next_record() {
                Ok(Some(record)) => summary.add(record),
                Ok(None) => break,
                Err(WalError::Torn { offset }) if position + 1 == segments.len() => {
                    summary.torn_at = Some(offset);
                    return Ok(summary);
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(summary)
}

/// The segments of a directory by ascending number, which must be consecutive.
fn segments(dir: &Path) -> Result<Vec<(u64, PathBuf)>, WalError> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if let Some(sequence) = entry.file_name().to_str().and_then(parse_segment_name) {
            segments.push((sequence, entry.path()));
        }
    }
    segments.sort();
    for pair in segments.windows(2) {
        if let [(before, _), (after, _)] = pair
            && before.checked_add(1) != Some(*after)
        {
            return Err(WalError::Gap { dir: dir.to_owned(), missing: before.saturating_add(1) });
        }
    }
    Ok(segments)
}

fn parse_segment_name(name: &str) -> Option<u64> {
    let (sequence, index) = name.strip_suffix(".wal")?.split_once('-')?;
    let number = |text: &str| (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten();
    number(index)?;
    number(sequence)
}
