//! Measures the walk: `cargo run --release -p bbolt --example walk -- FILE [make SIZE_MIB VALUE_BYTES]`.
//!
//! With `make` the file is written first: keys of 17 bytes as etcd has them, each value one byte repeated.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;
use std::{env, io};

use bbolt::build::Builder;
use bbolt::{Database, ReadAt, WriteAt};

struct Disk(File);

impl ReadAt for Disk {
    fn size(&self) -> u64 {
        self.0.metadata().map_or(0, |metadata| metadata.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(&self.0, buffer, offset)
    }
}

impl WriteAt for Disk {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(&self.0, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let path = arguments.first().ok_or("which file?")?;
    if let [_, verb, size, value] = arguments.as_slice()
        && verb == "make"
    {
        make(path, size.parse::<u64>()? << 20, value.parse()?)?;
    }
    let database = Database::open(Disk(File::open(path)?))?;
    for _ in 0..5 {
        let begin = Instant::now();
        let report = database.check()?;
        let seconds = begin.elapsed().as_secs_f64();
        let bytes = report.bytes_in_use as f64;
        println!("{:.3} s, {:.2} GB/s, {} items, depth {}", seconds, bytes / seconds / 1e9, report.items, report.depth);
    }
    Ok(())
}

fn make(path: &str, size: u64, value: usize) -> Result<(), Box<dyn Error>> {
    let disk = Disk(File::options().read(true).write(true).create(true).truncate(true).open(path)?);
    let mut builder = Builder::new(&disk, 4096)?;
    builder.bucket(b"key", 0)?;
    let mut bytes = vec![0; value];
    let mut number = 0_u64;
    while number * (value as u64 + 33) < size {
        bytes.fill((number % 251) as u8);
        let mut key = [0; 17];
        key[..8].copy_from_slice(&number.to_be_bytes());
        key[8] = b'_';
        builder.item(&key, &bytes)?;
        number += 1;
    }
    builder.finish(false)?;
    Ok(())
}
