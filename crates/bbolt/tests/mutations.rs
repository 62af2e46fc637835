//! Several damages at once, through the entry points that the fuzzer uses too. They must not panic; they prove by
//! themselves that an edit of a file that is sound despite its damage leaves it sound.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Keys, Model, image, keys};

/// A fixed sequence of numbers that looks random.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 29
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let small = Model::from([
        (b"branch".to_vec(), keys(120, 40)),
        (b"empty".to_vec(), Keys::new()),
        (b"inline".to_vec(), keys(2, 20)),
        (b"wide".to_vec(), keys(2, 1500)),
    ]);
    let deep = Model::from([(b"deep".to_vec(), keys(3000, 10))]);
    vec![
        image(&small, 1024, true, true),
        image(&small, 1024, false, false),
        image(&small, 4096, true, false),
        image(&deep, 1024, false, false),
    ]
}

/// Damages of the kinds that get past a first check: numbers near limits, copies of other parts, single bits.
fn damage(image: &mut Vec<u8>, numbers: &mut Numbers) {
    let page_size = if image[16 + 9] == 4 { 1024 } else { 4096 };
    for _ in 0..=numbers.below(4) {
        let page = numbers.below(image.len() / page_size) * page_size;
        // Most structure is at a page's beginning.
        let area = if numbers.below(3) == 0 { page_size } else { 96 };
        let at = page + (numbers.below(area) & !3);
        match numbers.below(6) {
            0 => image[at] ^= 1 << numbers.below(8),
            1 => image[at] = numbers.below(8) as u8,
            2 => image[at..at + 4].copy_from_slice(&(numbers.below(4096) as u32).to_le_bytes()),
            3 => image[at..at + 4].fill([0, 0xFF, 0x7F, 0x80][numbers.below(4)]),
            4 => {
                let from = numbers.below(image.len() - 64);
                let length = 32.min(image.len() - at);
                image.copy_within(from..from + length, at);
            }
            _ if numbers.below(8) == 0 => image.truncate(at),
            _ => image[at] = numbers.next() as u8,
        }
        if image.len() < 2 * page_size {
            return;
        }
    }
}

#[test]
fn several_damages_at_once_never_panic() {
    let rounds = std::env::var("BBOLT_MUTATIONS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(3000);
    let seeds = seeds();
    let mut numbers = Numbers(20_261_121);
    for round in 0..rounds {
        let mut image = seeds[round % seeds.len()].clone();
        damage(&mut image, &mut numbers);
        bbolt::fuzzing::read(&image);
        let mut input: Vec<u8> = (0..24).map(|_| numbers.next() as u8).collect();
        input.iter_mut().step_by(3).for_each(|name| *name %= 6);
        input.extend(image);
        bbolt::fuzzing::edit(&input);
    }
}

#[test]
fn sound_files_stay_sound_whatever_the_script() {
    let mut numbers = Numbers(7);
    for image in seeds() {
        for _ in 0..300 {
            let mut input: Vec<u8> = (0..24).map(|_| numbers.next() as u8).collect();
            input.iter_mut().step_by(3).for_each(|name| *name %= 6);
            input.extend(&image);
            bbolt::fuzzing::edit(&input);
        }
    }
}

#[test]
fn edits_and_a_map_agree_whatever_the_script() {
    let mut numbers = Numbers(29);
    for _ in 0..60 {
        let script: Vec<u8> = (0..4 + 4 * numbers.below(300)).map(|_| numbers.next() as u8).collect();
        bbolt::fuzzing::model(&script);
    }
}

#[test]
fn bytes_that_are_no_database_are_refused() {
    let mut numbers = Numbers(3);
    for length in (0..9000).step_by(37) {
        let bytes: Vec<u8> = (0..length).map(|_| numbers.next() as u8).collect();
        bbolt::fuzzing::read(&bytes);
        bbolt::fuzzing::edit(&bytes);
        assert!(bbolt::Database::open(bytes).is_err());
    }
}
