//! Frames of zstd and their seek table, by hand.

/// One zstd frame with its size and a checksum.
pub(crate) fn frame(content: &[u8]) -> Vec<u8> {
    let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
    compressor.include_checksum(true).unwrap();
    compressor.compress(content).unwrap()
}

/// Frames with these ends, and their seek table.
pub(crate) fn pack(tar: &[u8], cuts: &[usize]) -> Vec<u8> {
    if cuts.is_empty() {
        return tar.to_vec();
    }
    let (mut out, mut frames, mut from) = (Vec::new(), Vec::new(), 0);
    for &to in cuts {
        let frame = frame(&tar[from..to]);
        frames.push((frame.len() as u32, (to - from) as u32));
        out.extend_from_slice(&frame);
        from = to;
    }
    out.extend_from_slice(&seek_table(&frames));
    out
}

/// The seek table of frames of these compressed and plain lengths.
pub(crate) fn seek_table(frames: &[(u32, u32)]) -> Vec<u8> {
    let mut out = 0x184D_2A5E_u32.to_le_bytes().to_vec();
    out.extend_from_slice(&(frames.len() as u32 * 8 + 9).to_le_bytes());
    for (packed, raw) in frames {
        out.extend_from_slice(&packed.to_le_bytes());
        out.extend_from_slice(&raw.to_le_bytes());
    }
    out.extend_from_slice(&(frames.len() as u32).to_le_bytes());
    out.push(0);
    out.extend_from_slice(&0x8F92_EAB1_u32.to_le_bytes());
    out
}
