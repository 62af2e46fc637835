//! Is a program static? Read from its ELF header, so that no tool of the machine has to be trusted with the answer.

use anyhow::{Context, Result, bail};

/// A segment that names the program's loader.
const PT_INTERP: u32 = 3;
/// The segment with the dynamic section; a static program that can be placed anywhere has one too.
const PT_DYNAMIC: u32 = 2;
/// An entry of the dynamic section that names a shared library.
const DT_NEEDED: u64 = 1;

/// The machines that releases are made for, as ELF numbers them.
pub(super) fn machine(arch: &str) -> Option<u16> {
    match arch {
        "x86_64" => Some(62),
        "aarch64" => Some(183),
        _ => None,
    }
}

/// Fails unless `program` is a 64-bit little-endian ELF program for `machine` that names neither a loader nor a shared library.
pub(super) fn check(program: &[u8], machine: u16) -> Result<()> {
    if program.get(..4) != Some(b"\x7fELF") {
        bail!("it is no ELF file");
    }
    if program.get(4..6) != Some(&[2, 1]) {
        bail!("it is not 64-bit little-endian");
    }
    let found = u16_at(program, 18)?;
    if found != machine {
        bail!("it is for machine {found}, not {machine}");
    }
    let (table, size, count) = (u64_at(program, 32)?, u64::from(u16_at(program, 54)?), u64::from(u16_at(program, 56)?));
    for number in 0..count {
        let header = offset(table, number, size)?;
        match u32_at(program, header)? {
            PT_INTERP => bail!("it wants a loader: it is not static"),
            PT_DYNAMIC => no_libraries(program, u64_at(program, header + 8)?, u64_at(program, header + 32)?)?,
            _ => {}
        }
    }
    Ok(())
}

fn no_libraries(program: &[u8], section: u64, bytes: u64) -> Result<()> {
    for number in 0..bytes / 16 {
        if u64_at(program, offset(section, number, 16)?)? == DT_NEEDED {
            bail!("it wants a shared library: it is not static");
        }
    }
    Ok(())
}

fn offset(table: u64, number: u64, size: u64) -> Result<usize> {
    let at = number.checked_mul(size).and_then(|past| past.checked_add(table)).context("an offset is too large")?;
    usize::try_from(at).context("an offset is too large")
}

fn bytes<const N: usize>(program: &[u8], at: usize) -> Result<[u8; N]> {
    let slice = at.checked_add(N).and_then(|end| program.get(at..end)).context("it ends in its headers")?;
    slice.try_into().context("it ends in its headers")
}

fn u16_at(program: &[u8], at: usize) -> Result<u16> {
    Ok(u16::from_le_bytes(bytes(program, at)?))
}

fn u32_at(program: &[u8], at: usize) -> Result<u32> {
    Ok(u32::from_le_bytes(bytes(program, at)?))
}

fn u64_at(program: &[u8], at: usize) -> Result<u64> {
    Ok(u64::from_le_bytes(bytes(program, at)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A header with these segments (kind, offset, size) behind it.
    fn program(segments: &[(u32, u64, u64)], tail: &[u64]) -> Vec<u8> {
        let mut elf = vec![0_u8; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18..20].copy_from_slice(&62_u16.to_le_bytes());
        elf[32..40].copy_from_slice(&64_u64.to_le_bytes());
        elf[54..56].copy_from_slice(&56_u16.to_le_bytes());
        elf[56..58].copy_from_slice(&u16::try_from(segments.len()).unwrap().to_le_bytes());
        for (kind, offset, size) in segments {
            let mut header = [0_u8; 56];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            header[8..16].copy_from_slice(&offset.to_le_bytes());
            header[32..40].copy_from_slice(&size.to_le_bytes());
            elf.extend(header);
        }
        for word in tail {
            elf.extend(word.to_le_bytes());
        }
        elf
    }

    #[test]
    fn what_wants_a_loader_or_a_library_is_not_static() {
        check(&program(&[(1, 0, 0)], &[]), 62).unwrap();
        check(&program(&[(2, 120, 32)], &[30, 8, 0, 0]), 62).unwrap();
        let refused = |elf: &[u8], machine| check(elf, machine).unwrap_err().to_string();
        assert!(refused(&program(&[(1, 0, 0), (3, 0, 0)], &[]), 62).contains("loader"));
        assert!(refused(&program(&[(2, 120, 32)], &[30, 8, 1, 5]), 62).contains("library"));
        assert!(refused(&program(&[], &[]), 183).contains("machine 62"));
        assert!(refused(b"#!/bin/sh\n", 62).contains("no ELF"));
    }

    #[test]
    fn damaged_headers_are_errors() {
        let whole = program(&[(2, u64::MAX - 3, 32)], &[]);
        for length in 0..whole.len() {
            assert!(check(&whole[..length], 62).is_err(), "{length}");
        }
        assert!(check(&whole, 62).is_err(), "the section lies behind the end");
    }

    #[test]
    fn this_very_program_is_not_static() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        if cfg!(target_env = "gnu") {
            assert!(check(&own, machine(std::env::consts::ARCH).unwrap()).unwrap_err().to_string().contains("loader"));
        }
    }
}
