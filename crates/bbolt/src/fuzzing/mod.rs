//! Entry points for fuzzing: arbitrary bytes in, no panic out.

mod model;

use std::collections::BTreeMap;

use crate::meta::{META_PAGE_BYTES, Metas};
use crate::page::{HEADER_SIZE, u32_at};
use crate::{Database, Edit, Error, Memory, Meta, PageId, Visitor};

pub use model::model;

/// Most keys one run looks at, so that a run stays short.
const STEPS: usize = 4096;

/// Opens, walks and reads `data` as a database: as it is, then with meta pages whose checksums fit, which no fuzzer
/// would find by itself.
pub fn read(data: &[u8]) {
    let _ = read_all(data.to_vec());
    if let Some(data) = with_valid_metas(data) {
        let _ = read_all(data);
    }
}

/// Edits the database in `data` as its first bytes say. A database that passes the check must pass it afterwards, and
/// hold what the edit put.
pub fn edit(data: &[u8]) {
    let Some((script, image)) = data.split_at_checked(24) else { return };
    let _ = edit_all(script, image.to_vec());
    if let Some(image) = with_valid_metas(image) {
        let _ = edit_all(script, image);
    }
}

fn read_all(data: Vec<u8>) -> Result<(), Error> {
    struct Counting(u64);
    impl Visitor for Counting {
        type Error = Error;
        fn item(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
            self.0 += (key.len() + value.len()) as u64;
            Ok(())
        }
    }
    let database = Database::open(data)?;
    let mut counting = Counting(0);
    let walked = database.walk(&mut counting);
    if let Ok(report) = &walked {
        assert!(counting.0 <= report.item_bytes, "the visitor saw more than was counted");
    }
    for name in database.bucket_names()?.into_iter().take(STEPS) {
        let Some(bucket) = database.bucket(&name)? else { continue };
        let forward = steps(&bucket, true);
        let backward = steps(&bucket, false);
        if walked.is_ok() {
            assert_eq!(forward?, backward?, "a sound bucket has as many keys forward as backward");
        }
    }
    walked.map(|_| ())
}

fn steps<S: crate::ReadAt>(bucket: &crate::Bucket<'_, S>, forward: bool) -> Result<usize, Error> {
    let mut cursor = bucket.cursor();
    let mut count = 0;
    while count < STEPS {
        let item = if forward { cursor.next()? } else { cursor.prev()? };
        let Some((key, _)) = item else { break };
        if count % 16 == 0 {
            let key = key.to_vec();
            bucket.get(&key)?;
        }
        count += 1;
    }
    Ok(count)
}

fn edit_all(script: &[u8], image: Vec<u8>) -> Result<(), Error> {
    let database = Database::open(Memory::new(image))?;
    let sound = database.check().is_ok();
    let names = database.bucket_names()?;
    let mut edit = Edit::begin(database)?;
    edit.create_bucket(b"fuzzed")?;
    let mut expected = BTreeMap::new();
    for (step, action) in script.chunks_exact(3).enumerate() {
        let name = names.get(usize::from(action[0])).map_or(b"fuzzed".as_slice(), Vec::as_slice);
        let key = first_key(&edit, name, usize::from(action[1] % 64))?.unwrap_or_else(|| vec![b'k', action[1]]);
        match action[2] % 8 {
            0..4 => {
                edit.delete(name, &key)?;
                expected.insert((name, key), None);
            }
            7 if step % 4 == 0 => {
                edit.clear_bucket(name)?;
                expected.retain(|(bucket, _), _| *bucket != name);
            }
            _ => {
                let value = vec![action[2]; usize::from(action[2]) * 40];
                edit.put(name, &key, &value)?;
                expected.insert((name, key), Some(value));
            }
        }
    }
    let database = edit.commit()?;
    if sound {
        assert!(database.check().is_ok(), "an edit broke a sound database: {:?}", database.check());
        for ((name, key), value) in &expected {
            let found = database.bucket(name)?.map(|bucket| bucket.get(key)).transpose()?.flatten();
            assert_eq!(&found, value, "an edit was lost");
        }
    }
    Ok(())
}

fn first_key(edit: &Edit<Memory>, bucket: &[u8], skip: usize) -> Result<Option<Vec<u8>>, Error> {
    let Some(bucket) = edit.database().bucket(bucket)? else { return Ok(None) };
    let mut cursor = bucket.cursor();
    for _ in 0..skip {
        cursor.next()?;
    }
    let key = cursor.next()?.map(|(key, _)| key.to_vec());
    Ok(if cursor.is_bucket() { None } else { key })
}

/// The same bytes with the numbers of the meta pages kept and their magic, version and checksum put right. `None` when
/// they are right already, or the page size is none.
fn with_valid_metas(data: &[u8]) -> Option<Vec<u8>> {
    if Metas::read(&data.to_vec()).is_ok() {
        return None;
    }
    let mut data = data.to_vec();
    let page_size = u32_at(data.get(HEADER_SIZE..META_PAGE_BYTES)?, 8);
    for page in [PageId(0), PageId(1)] {
        let start = usize::try_from(page.0.checked_mul(u64::from(page_size))?).ok()?;
        let Some(bytes) = data.get_mut(start..start.checked_add(META_PAGE_BYTES)?) else { continue };
        let fixed = Meta::with_numbers_of(page, bytes);
        bytes.copy_from_slice(&fixed.encode());
    }
    Some(data)
}
