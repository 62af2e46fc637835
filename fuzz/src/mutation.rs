//! Damage for runs without coverage: the kinds of change that get past a first check, from a fixed sequence of numbers.

/// A sequence of numbers that looks random and is the same for the same start.
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// The sequence that begins at `start`.
    #[must_use]
    pub fn new(start: u64) -> Self {
        Self(start)
    }

    /// The next number below `end`; 0 for an `end` of 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % end.max(1)
    }
}

/// Values at which numbers in a format turn.
const EDGES: [u8; 12] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'[', b'0', b'9', b':', b'\n'];

/// `seed` with one to four changes, some of them pieces of `other`; at most `max_len` bytes.
#[must_use]
pub fn mutate(seed: &[u8], other: &[u8], max_len: usize, numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len() + 1);
        let run = numbers.below(64);
        match numbers.below(9) {
            0 if numbers.below(4) == 0 => bytes.truncate(at),
            1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << numbers.below(8)),
            2 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = EDGES[numbers.below(EDGES.len())]),
            3 => bytes.iter_mut().skip(at & !3).take(4).for_each(|byte| *byte = [0, 0xff, 0x7f, 0x80][run % 4]),
            4 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = byte.wrapping_add(1)),
            5 => drop(bytes.drain(at..(at + run).min(bytes.len()))),
            6 => {
                let from = numbers.below(other.len() + 1);
                let piece = other[from..(from + run).min(other.len())].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            7 => {
                let from = numbers.below(bytes.len() + 1);
                let piece = bytes[from..(from + run).min(bytes.len())].to_vec();
                let end = (at + piece.len()).min(bytes.len());
                drop(bytes.splice(at..end, piece));
            }
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = numbers.below(256) as u8),
        }
    }
    bytes.truncate(max_len);
    bytes
}
