//! The two checksums and the numbers of the xz format.

/// CRC32 as in gzip.
pub(super) fn crc32(bytes: &[u8]) -> [u8; 4] {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum().to_le_bytes()
}

/// CRC64 of ECMA-182, reflected. Eight bytes at a time: decompressing would wait for a simpler one.
pub(super) fn crc64(bytes: &[u8]) -> [u8; 8] {
    let mut crc = !0_u64;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let x = (crc ^ u64::from_le_bytes(*word)).to_le_bytes();
        crc = (0..8).fold(0, |sum, i| sum ^ TABLES[7 - i][usize::from(x[i])]);
    }
    for byte in rest {
        crc = TABLES[0][usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
    }
    (!crc).to_le_bytes()
}

/// `TABLES[n][b]`: what the byte `b` comes to when `n` more bytes have followed it.
static TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { 0xC96C_5795_D787_0F42 ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut byte = 0;
    while byte < 256 {
        let mut n = 1;
        while n < 8 {
            let before = tables[n - 1][byte];
            tables[n][byte] = tables[0][(before & 0xFF) as usize] ^ (before >> 8);
            n += 1;
        }
        byte += 1;
    }
    tables
}

/// A number of seven bits a byte, the lowest first.
pub(super) fn write_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The number at the beginning, which is taken away. Numbers above 2^35 are in no file of ours.
pub(super) fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for i in 0..5 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7F) << (7 * i);
        if *byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_their_specifications() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926_u32.to_le_bytes());
        assert_eq!(crc64(b"123456789"), 0x995D_C9BB_DF19_39FA_u64.to_le_bytes());
        assert_eq!(crc64(b""), [0; 8]);
    }

    #[test]
    fn numbers_come_back() {
        for number in [0, 1, 0x7F, 0x80, 300, u64::from(u32::MAX)] {
            let mut out = Vec::new();
            write_number(number, &mut out);
            let mut rest = &out[..];
            assert_eq!((read_number(&mut rest), rest), (Some(number), &[][..]));
        }
        assert_eq!(read_number(&mut &[0x80; 6][..]), None);
        assert_eq!(read_number(&mut &[0x80; 2][..]), None);
    }
}
