use std::ffi::OsStr;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::Command;

use backup_core::tar::{Extent, Limits, Member, TarError, TarReader, padded};

/// Runs a program that must be there and succeed; returns what it printed.
pub(crate) fn run<A: AsRef<OsStr>>(
    program: &str,
    folder: &Path,
    arguments: impl IntoIterator<Item = A>,
) -> String {
    let package = if program == "tar" {
        "tar"
    } else if program == "setfattr" {
        "attr"
    } else {
        "acl"
    };
    let output = match Command::new(program).args(arguments).current_dir(folder).env("LC_ALL", "C").output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("the program {program} is missing: install the package {package}")
        }
        Err(error) => panic!("cannot run {program}: {error}"),
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {}: {errors}", output.status);
    // tar warns of what it does not understand, and goes on.
    assert!(errors.is_empty(), "{program}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn must_be_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test makes devices and foreign owners: run it as root"
    );
}

/// A whole archive, ends included.
pub(crate) fn archive(members: &[(Member, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (member, data) in members {
        assert_eq!(member.size, data.len() as u64);
        member.encode(&mut out);
        out.extend_from_slice(data);
        out.resize(padded(out.len() as u64) as usize, 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

pub(crate) fn strict() -> Limits {
    Limits { strict: true, ..Limits::default() }
}

/// All members with their data, sparse ones expanded.
pub(crate) fn read_all(stream: impl Read, limits: Limits) -> Result<Vec<(Member, Vec<u8>)>, TarError> {
    let mut reader = TarReader::new(stream, limits);
    let mut members = Vec::new();
    while let Some((member, start, data_start)) = reader.next_member()? {
        assert!(start < data_start && data_start % 512 == 0);
        let map = reader.read_sparse_map(&member)?;
        let mut data = Vec::new();
        let mut buf = [0; 999];
        loop {
            match reader.read_data(&mut buf)? {
                0 => break,
                read => data.extend_from_slice(&buf[..read]),
            }
        }
        if let Some(map) = map {
            data = expand(&map, &data, member.sparse_size.unwrap());
        }
        members.push((member, data));
    }
    reader.finish()?;
    Ok(members)
}

fn expand(map: &[Extent], mut data: &[u8], size: u64) -> Vec<u8> {
    assert!(size < 1 << 30, "too large for a test");
    let mut whole = vec![0; size as usize];
    for extent in map {
        let (now, rest) = data.split_at(extent.length as usize);
        whole[extent.offset as usize..][..now.len()].copy_from_slice(now);
        data = rest;
    }
    assert!(data.is_empty());
    whole
}

/// splitmix64: the same members for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    /// Numbers of every magnitude.
    pub(crate) fn any_size(&mut self) -> u64 {
        let bits = self.below(64);
        self.next() >> bits
    }
    pub(crate) fn bytes(&mut self, most: u64, from: &[u8]) -> Vec<u8> {
        (0..1 + self.below(most)).map(|_| from[self.below(from.len() as u64) as usize]).collect()
    }
}
