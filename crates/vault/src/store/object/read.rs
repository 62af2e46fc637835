//! Reading: continued where an answer broke off, always of one version of the object.

use std::ops::Range;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::{GetOptions, GetRange, GetResult};

use super::super::limits::{ATTEMPTS, RETRY_BUDGET, RETRY_PAUSE};
use super::super::{ObjectInfo, StoreError, check_range};
use super::Bucket;

/// No more than this is reserved before bytes arrive, whatever size the store claims.
const RESERVE: u64 = 8 << 20;

/// Reads a whole object of at most `limit` bytes.
pub(super) async fn whole(bucket: &Bucket, key: &str, limit: u64) -> Result<(ObjectInfo, Bytes), StoreError> {
    let first = open(bucket, key, None, None).await?;
    let info = ObjectInfo { key: key.to_owned(), size: first.meta.size, etag: first.meta.e_tag.clone() };
    if info.size > limit {
        return Err(StoreError::Corrupt { key: key.to_owned(), detail: format!("{} bytes, at most {limit} are expected", info.size) });
    }
    let bytes = drain(bucket, key, first, 0..info.size).await?;
    Ok((info, bytes))
}

/// Reads a range that must lie inside the object.
pub(super) async fn range(bucket: &Bucket, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
    if range.start >= range.end {
        check_range(key, &range, bucket.head(key).await?.size)?;
        return Ok(Bytes::new());
    }
    let first = match open(bucket, key, Some(range.clone()), None).await {
        // What a store answers where nothing of the range is there is not always an error that says so.
        Err(error @ StoreError::Other { .. }) => {
            check_range(key, &range, bucket.head(key).await?.size)?;
            return Err(error);
        }
        other => other?,
    };
    check_range(key, &range, first.meta.size)?;
    drain(bucket, key, first, range).await
}

async fn open(bucket: &Bucket, key: &str, range: Option<Range<u64>>, etag: Option<String>) -> Result<GetResult, StoreError> {
    let options = GetOptions { range: range.map(GetRange::Bounded), if_match: etag, ..GetOptions::default() };
    bucket.clients.read.get_opts(&bucket.path(key)?, options).await.map_err(|error| bucket.error(key, error))
}

/// Takes all bytes of `range`, beginning with an answer that should hold them, asking again for what is missing.
async fn drain(bucket: &Bucket, key: &str, first: GetResult, range: Range<u64>) -> Result<Bytes, StoreError> {
    let etag = first.meta.e_tag.clone();
    let want = range.end - range.start;
    // At most `RESERVE`.
    let mut got = BytesMut::with_capacity(want.min(RESERVE) as usize);
    let begun = Instant::now();
    let mut answer = Some(first);
    let mut fruitless = 0;
    loop {
        let before = got.len();
        let broken = match answer.take() {
            Some(answer) => take(bucket, key, answer, range.start + before as u64, want, &mut got).await,
            None => match open(bucket, key, Some(range.start + before as u64..range.end), etag.clone()).await {
                Ok(answer) => take(bucket, key, answer, range.start + before as u64, want, &mut got).await,
                Err(error) => return Err(error),
            },
        }?;
        if got.len() as u64 == want {
            return Ok(got.freeze());
        }
        fruitless = if got.len() > before { 0 } else { fruitless + 1 };
        if fruitless >= ATTEMPTS || (fruitless > 0 && begun.elapsed() > RETRY_BUDGET) {
            let detail = format!("the answer ended after {} of {want} bytes", got.len());
            return Err(broken.unwrap_or(StoreError::Corrupt { key: key.to_owned(), detail }));
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Appends what one answer holds. Returns what broke it off, if anything did.
async fn take(
    bucket: &Bucket,
    key: &str,
    answer: GetResult,
    at: u64,
    want: u64,
    got: &mut BytesMut,
) -> Result<Option<StoreError>, StoreError> {
    if answer.range.start != at {
        let detail = format!("asked from byte {at}, answered from byte {}", answer.range.start);
        return Err(StoreError::Corrupt { key: key.to_owned(), detail });
    }
    let mut pieces = answer.into_stream();
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => got.extend_from_slice(&piece),
            Err(error) => return Ok(Some(bucket.error(key, error))),
        }
        if got.len() as u64 > want {
            return Err(StoreError::Corrupt { key: key.to_owned(), detail: format!("more bytes came than the {want} asked for") });
        }
    }
    Ok(None)
}
