//! The tar reader: any bytes end in entries or an error, and a member that was read can be written and read again.
#![no_main]

use backup_core::tar::{Limits, Member, TarReader};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for strict in [false, true] {
        let _ = read(data, strict);
    }
    if let Ok(Some((member, headers))) = Member::decode(data) {
        assert!(headers <= data.len());
        written_again(member);
    }
});

fn read(data: &[u8], strict: bool) -> Result<(), backup_core::tar::TarError> {
    let mut reader = TarReader::new(data, Limits { strict, ..Limits::default() });
    let mut buffer = [0; 4096];
    while let Some((member, header, begin)) = reader.next_member()? {
        assert!(header < begin && begin <= data.len() as u64);
        if let Some(map) = reader.read_sparse_map(&member)? {
            let ends = map.iter().map(|extent| extent.offset.checked_add(extent.length).expect("an end"));
            assert!(ends.max() <= member.sparse_size, "an extent lies beyond the file");
        }
        while reader.read_data(&mut buffer)? > 0 {}
    }
    reader.finish().map(drop)
}

fn written_again(mut member: Member) {
    // Names of users are the caller's to translate; they are not written.
    member.named_acls.clear();
    if member.path.starts_with(b"/") {
        return; // not ready to be written
    }
    let mut headers = Vec::new();
    member.encode(&mut headers);
    match Member::decode(&headers) {
        Ok(Some((again, length))) => assert_eq!((again, length), (member, headers.len())),
        other => panic!("{member:?} cannot be read again: {other:?}"),
    }
}
