//! Damage as a disk or a bug does it: nothing but a comparison with other members can see it.

use std::path::Path;

/// Changes one byte of the newest row's value in the database file of a stopped member. The file stays sound in itself: bbolt has no checksums.
pub fn falsify_last_row(database: &Path) {
    let file = etcd_store::DatabaseFile::open_for_edit(database).unwrap();
    let opened = bbolt::Database::open(file).unwrap();
    let (key, mut value) = {
        let bucket = opened.bucket(b"key").unwrap().unwrap();
        let mut cursor = bucket.cursor();
        let mut item = cursor.last().unwrap();
        loop {
            let (key, value) = item.expect("a row that is no deletion");
            if key.len() == 17 && value.len() > 8 {
                break (key.to_vec(), value.to_vec());
            }
            item = cursor.prev().unwrap();
        }
    };
    // The key stays; near the end lies the user's value, or the number of its lease.
    let near_end = value.len() - 4;
    value[near_end] ^= 0x01;
    let mut edit = bbolt::Edit::begin(opened).unwrap();
    edit.put(b"key", &key, &value).unwrap();
    drop(edit.commit().unwrap());
}
