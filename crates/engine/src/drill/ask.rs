//! What the booted etcd answers.

use std::collections::BTreeSet;
use std::time::Duration;

use etcd_api::{AlarmKind, Client, ConnectOptions, Credentials, Endpoint, Error, KeyRange, RangeRequest};
use etcd_store::id::Revision;
use vault::manifest::HashKvValue;

use super::compare::{Answer, Answered, Listed, Stated};
use crate::failure::{Failure, Outcome};
use crate::limits::{DRILL_ANSWER_WITHIN, TRY_HASH_LEAST, TRY_HASH_SPEED, VERIFY_HASHES};
use crate::source_failure;

/// Asks everything that is compared.
///
/// # Errors
/// The booted etcd cannot be reached any more.
pub(super) async fn ask(
    endpoint: &str,
    credentials: Option<Credentials>,
    stated: &Stated,
    canaries: &[String],
    bytes: u64,
) -> Outcome<Answered> {
    let parsed = Endpoint::parse(endpoint, false).map_err(|error| Failure::failed(format!("'{endpoint}' is not an endpoint: {error}")))?;
    let options = ConnectOptions { credentials, request_timeout: DRILL_ANSWER_WITHIN, ..ConnectOptions::default() };
    let client = Client::connect(parsed, &options)
        .await
        .map_err(|error| source_failure::failure("the booted etcd cannot be asked what it holds", &error))?;
    let limit = TRY_HASH_LEAST + Duration::from_secs(bytes / TRY_HASH_SPEED);
    Ok(Answered {
        revision: client.linearizable_read().await.map(|header| header.revision.0).map_err(words),
        hashes: hashes(&client, stated, limit).await,
        keys: count(&client, KeyRange::all(), stated.revision).await,
        prefixes: prefixes(&client, stated).await,
        canaries: held(&client, canaries, stated.revision).await,
        members: client
            .members(true)
            .await
            .map_err(words)
            .map(|list| list.members.into_iter().map(|member| Listed { name: member.name, learner: member.is_learner }).collect()),
        alarms: client.alarms().await.map_err(words).map(|alarms| alarms.iter().map(|alarm| alarm_words(alarm.kind).to_owned()).collect()),
    })
}

fn words(error: Error) -> String {
    error.kind().to_string()
}

fn alarm_words(kind: AlarmKind) -> &'static str {
    match kind {
        AlarmKind::NoSpace => "NOSPACE",
        AlarmKind::Corrupt => "CORRUPT",
        AlarmKind::Other(_) => "an unknown alarm",
    }
}

/// One that it does not answer, because the revision is compacted for one, is left out.
async fn hashes(client: &Client, stated: &Stated, limit: Duration) -> Vec<HashKvValue> {
    let revisions: BTreeSet<i64> = stated.answers.iter().map(|answer| answer.revision).collect();
    let mut hashes = Vec::new();
    for revision in revisions.into_iter().rev().take(VERIFY_HASHES) {
        if let Ok(answer) = client.hash_kv(Some(Revision(revision)), limit).await {
            hashes.push(HashKvValue { hash: answer.hash, revision, compact_revision: answer.compact_revision.0 });
        }
    }
    hashes
}

async fn count(client: &Client, keys: KeyRange, revision: i64) -> Answer<u64> {
    let request = RangeRequest { revision: Some(Revision(revision)), count_only: true, ..RangeRequest::new(keys) };
    let answer = client.range(request).await.map_err(words)?;
    u64::try_from(answer.count).map_err(|_| "a count below zero".to_owned())
}

async fn prefixes(client: &Client, stated: &Stated) -> Answer<Vec<(Vec<u8>, u64)>> {
    let mut answers = Vec::new();
    for prefix in stated.counted.prefixes.keys() {
        answers.push((prefix.clone(), count(client, KeyRange::prefix(prefix.clone()), stated.revision).await?));
    }
    Ok(answers)
}

async fn held(client: &Client, canaries: &[String], revision: i64) -> Answer<Vec<(String, Option<usize>)>> {
    let mut answers = Vec::new();
    for key in canaries {
        let request = RangeRequest { revision: Some(Revision(revision)), ..RangeRequest::new(KeyRange::single(key.clone().into_bytes())) };
        let answer = client.range(request).await.map_err(words)?;
        answers.push((key.clone(), answer.kvs.first().map(|pair| pair.value.len())));
    }
    Ok(answers)
}
