//! CRC-32 by one of two polynomials, four bits at a time: a table of 64 bytes is enough for the few
//! dozen bytes of a STUN message, and for control messages over SCTP.

/// Of Ethernet and zip, and of STUN's FINGERPRINT (RFC 8489 §14.7).
pub(super) const ETHERNET: [u32; 16] = table(0xEDB8_8320);
/// Castagnoli's, of SCTP (RFC 9260 appendix A).
pub(super) const CASTAGNOLI: [u32; 16] = table(0x82F6_3B78);

/// The checksum of all parts, one behind the other.
pub(super) fn crc32(table: &[u32; 16], parts: &[&[u8]]) -> u32 {
    !parts.iter().flat_map(|part| part.iter()).fold(!0, |crc, byte| {
        let crc = crc ^ u32::from(*byte);
        let crc = (crc >> 4) ^ table[(crc & 0xF) as usize];
        (crc >> 4) ^ table[(crc & 0xF) as usize]
    })
}

/// `polynomial` with its lowest power first.
const fn table(polynomial: u32) -> [u32; 16] {
    let mut table = [0; 16];
    let mut i = 0;
    while i < 16 {
        let (mut crc, mut bit) = (i as u32, 0);
        while bit < 4 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ polynomial } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

#[test]
fn the_check_values_are_right() {
    assert_eq!(crc32(&ETHERNET, &[b"1234", b"56789"]), 0xCBF4_3926);
    assert_eq!(crc32(&CASTAGNOLI, &[b"", b"123456789"]), 0xE306_9283);
    assert_eq!(crc32(&ETHERNET, &[]), 0);
}
