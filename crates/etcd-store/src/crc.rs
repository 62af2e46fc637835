//! CRC-32C (Castagnoli), running, and the arithmetic that takes a stretch out of the middle of what was hashed.
//!
//! The register's conventions are those of Go's `hash/crc32` and zlib: a checksum continues from the previous checksum's value.

use crc_fast::{CrcAlgorithm, Digest};

/// The polynomial, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// A running CRC-32C.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crc32c(Digest);

impl Crc32c {
    pub(crate) fn new() -> Self {
        Self::resume(0)
    }

    /// Continues from the checksum of what came before.
    pub(crate) fn resume(checksum: u32) -> Self {
        Self(Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!checksum)))
    }

    #[inline]
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of everything so far.
    #[inline]
    pub(crate) fn value(&self) -> u32 {
        // The algorithm is 32 bits wide; the upper half is zero.
        self.0.finalize() as u32
    }
}

/// The checksum of `bytes` alone.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(bytes);
    crc.value()
}

/// The checksum of A followed by B, from those of A and B and B's length.
pub(crate) fn concatenate(first: u32, second: u32, second_length: u64) -> u32 {
    shift(first, second_length) ^ second
}

/// The checksum of B, from those of A and of A followed by B, and B's length.
pub(crate) fn suffix(first: u32, both: u32, second_length: u64) -> u32 {
    shift(first, second_length) ^ both
}

/// Multiplies by x^(8·length): what `length` more bytes do to a checksum's share.
fn shift(checksum: u32, length: u64) -> u32 {
    if checksum == 0 {
        return 0;
    }
    let mut product = checksum;
    let mut rest = length;
    let mut power = 3;
    while rest != 0 {
        if rest & 1 == 1 {
            product = multiply(POWERS[power], product);
        }
        rest >>= 1;
        power += 1;
    }
    product
}

/// x^(2^n) modulo the polynomial, for every bit of a 64-bit byte count.
const POWERS: [u32; 67] = {
    let mut powers = [0; 67];
    // x itself: bits are reversed, so x^0 is the top bit.
    powers[0] = 1 << 30;
    let mut n = 1;
    while n < powers.len() {
        powers[n] = multiply(powers[n - 1], powers[n - 1]);
        n += 1;
    }
    powers
};

/// The product of two polynomials over GF(2), modulo the CRC's polynomial.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 1_u32 << 31;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = if b & 1 == 1 { b >> 1 ^ POLYNOMIAL } else { b >> 1 };
        bit >>= 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_check_value_of_the_catalogue_is_met() {
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
        assert_eq!(checksum(b""), 0);
    }

    proptest! {
        #[test]
        fn parts_are_put_together_and_taken_apart(a: Vec<u8>, b: Vec<u8>) {
            let both = [a.clone(), b.clone()].concat();
            let length = b.len() as u64;
            prop_assert_eq!(concatenate(checksum(&a), checksum(&b), length), checksum(&both));
            prop_assert_eq!(suffix(checksum(&a), checksum(&both), length), checksum(&b));
            let mut running = Crc32c::resume(checksum(&a));
            running.update(&b);
            prop_assert_eq!(running.value(), checksum(&both));
        }

        #[test]
        fn a_long_shift_is_many_short_ones(crc: u32, parts in prop::collection::vec(0_u64..1 << 40, 0..5)) {
            let step_by_step = parts.iter().fold(crc, |crc, &part| shift(crc, part));
            prop_assert_eq!(step_by_step, shift(crc, parts.iter().sum()));
        }
    }
}
