//! The RFCs' own vectors, and what must be refused.

use super::cipher::Cipher;
use super::session_keys::{SessionKeys, Usage, key_stream};
use super::*;
use aes::cipher::KeyInit as _;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.bytes().filter_map(|c| char::from(c).to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    hex(text).try_into().unwrap()
}

/// A pair that send to each other, with both directions' keys alike.
fn pair(profile: SrtpProfile) -> (SrtpSender, SrtpReceiver) {
    let material: Vec<u8> = (0..profile.exporter_len() as u8).collect();
    let camera = SrtpKeys::from_exporter(profile, &material, false).unwrap();
    let viewer = SrtpKeys::from_exporter(profile, &material, true).unwrap();
    (SrtpSender::new(&camera), SrtpReceiver::new(&viewer))
}

/// With session keys as given, for vectors that do not begin at the master key.
fn gcm_pair_of_rfc_7714() -> (SrtpSender, SrtpReceiver) {
    let cipher = || {
        let mut salt = [0; SALT_LEN];
        salt[..12].copy_from_slice(b"Quid pro quo");
        let keys = SessionKeys {
            cipher_key: array("000102030405060708090a0b0c0d0e0f"),
            auth_key: [0; 20],
            salt,
        };
        Cipher::from_session(SrtpProfile::AeadAes128Gcm, &keys)
    };
    let keys = SrtpKeys {
        profile: SrtpProfile::AeadAes128Gcm,
        local_key: [0; 16],
        local_salt: [0; 14],
        remote_key: [0; 16],
        remote_salt: [0; 14],
    };
    let sender = SrtpSender::from_ciphers(&keys, cipher(), cipher());
    (sender, SrtpReceiver::from_ciphers(cipher(), cipher()))
}

/// RFC 7714 16.1.1 and 16.1.2.
#[test]
fn rfc_7714_rtp() {
    let plain = hex("8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976
                     69736120 696e2070 61727465 73207472 6573");
    let sealed = hex("8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5
                      0d294e6f 42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439
                      0cce");
    let (sender, mut receiver) = gcm_pair_of_rfc_7714();
    let mut packet = plain.clone();
    packet.resize(plain.len() + sender.rtp_overhead(), 0);
    sender.seal_rtp(&mut packet, 12, 0x5501_a0b2, 0xf17b).unwrap();
    assert_eq!(packet, sealed);
    assert_eq!(receiver.open_rtp(&mut packet), Ok(&plain[..]));
}

/// RFC 7714 17.1 and 17.2.
#[test]
fn rfc_7714_rtcp() {
    let plain = hex("81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61
                     deadbeef deadbeef deadbeef deadbeef deadbeef");
    let sealed = hex("81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d
                      c676a5f1 730d6fda 4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872
                      45d9eade 800005d4");
    let (mut sender, mut receiver) = gcm_pair_of_rfc_7714();
    sender.next_rtcp_index_for_test(0x5d4);
    let mut packet = plain.clone();
    sender.seal_rtcp(&mut packet, 0).unwrap();
    assert_eq!(packet, sealed);
    assert_eq!(receiver.open_rtcp(&mut packet), Ok(&plain[..]));
}

/// RFC 3711 B.2: the key stream of AES in counter mode, seen by sealing zeros.
#[test]
fn rfc_3711_b_2() {
    let salt = array("F0F1F2F3F4F5F6F7F8F9FAFBFCFD");
    let key: [u8; 16] = array("2B7E151628AED2A6ABF7158809CF4F3C");
    let keys = SessionKeys { cipher_key: key, auth_key: [0; 20], salt };
    let cipher = Cipher::from_session(SrtpProfile::AesCm128HmacSha1_80, &keys);
    let mut packet = vec![0; 16 * 0xff02 + 10];
    cipher.seal_rtp(&mut packet, 0, 0, 0).unwrap();
    let first = hex("E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB
                     41E95B3BB0A2E8DD477901E4FCA894C0");
    assert_eq!(packet[..48], first);
    let last = hex("EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE
                    6A2CC3787889374FBEB4C81B17BA6C44");
    assert_eq!(packet[16 * 0xfeff..][..48], last);
}

/// RFC 3711 B.3: key derivation. The RFC shows 94 bytes for the authentication key.
#[test]
fn rfc_3711_b_3() {
    let key: [u8; 16] = array("E1F97A0D3E018BE0D64FA32C06DE4139");
    let salt = array("0EC675AD498AFEEBB6960B3AABE6");
    let keys = SessionKeys::derive(&key, &salt, Usage::Rtp);
    assert_eq!(keys.cipher_key, array("C61E7A93744F39EE10734AFE3FF7A087"));
    assert_eq!(keys.salt, array("30CBBC08863D8C85D49DB34A9AE1"));
    let mut auth = [0; 94];
    key_stream(&aes::Aes128::new(&key.into()), &salt, 1, &mut auth);
    assert_eq!(
        auth[..],
        hex("CEBE321F6FF7716B6FD4AB49AF256A15 6D38BAA48F0A0ACF3C34E2359E6CDBCE
             E049646C43D9327AD175578EF7227098 6371C10C9A369AC2F94A8C5FBCDDDC25
             6D6E919A48B610EF17C2041E47403576 6B68642C59BBFC2F34DB60DBDFB2")
    );
    assert_eq!(keys.auth_key, auth[..20]);
}

/// Whole packets from the master key on, as other implementations seal them (libsrtp's validation
/// vectors).
#[test]
fn whole_packets_of_both_profiles() {
    let rtp = hex("800f1234 decafbad cafebabe abababab abababab abababab abababab");
    let rtcp = hex("81c8000b cafebabe abababab abababab abababab abababab");
    let cases = [
        (
            SrtpProfile::AesCm128HmacSha1_80,
            "e1f97a0d3e018be0d64fa32c06de4139",
            "0ec675ad498afeebb6960b3aabe6",
            "800f1234 decafbad cafebabe 4e55dc4c e79978d8 8ca4d215 949d2402 b78d6acc 99ea179b
             8dbb",
            "81c8000b cafebabe 7128035b e487b9bd bef89041 f977a5a8 80000001 993e08cd 54d6c123
             0798",
        ),
        (
            SrtpProfile::AeadAes128Gcm,
            "000102030405060708090a0b0c0d0e0f",
            "a0a1a2a3a4a5a6a7a8a9aaab0000",
            "800f1234 decafbad cafebabe c5002ede 04cfdd2e b91159e0 880aa06e d2976826 f796b201
             df3131a1 27e8a392",
            "81c8000b cafebabe c98b8b5d f0392a55 852b6c21 ac8e7025 c52c6fbe a2b3b446 ea31123b
             a88ce61e 80000001",
        ),
    ];
    for (profile, key, salt, sealed_rtp, sealed_rtcp) in cases {
        let keys = SrtpKeys {
            profile,
            local_key: array(key),
            local_salt: array(salt),
            remote_key: array(key),
            remote_salt: array(salt),
        };
        let (mut sender, mut receiver) = (SrtpSender::new(&keys), SrtpReceiver::new(&keys));
        let mut packet = rtp.clone();
        packet.resize(rtp.len() + sender.rtp_overhead(), 0);
        sender.seal_rtp(&mut packet, 12, 0xcafe_babe, 0x1234).unwrap();
        assert_eq!(packet, hex(sealed_rtp), "{profile:?}");
        assert_eq!(receiver.open_rtp(&mut packet), Ok(&rtp[..]));

        let mut packet = rtcp.clone();
        sender.seal_rtcp(&mut packet, 0).unwrap();
        assert_eq!(packet, hex(sealed_rtcp), "{profile:?}");
        assert_eq!(receiver.open_rtcp(&mut packet), Ok(&rtcp[..]));
    }
}

#[test]
fn the_exporters_bytes_are_client_key_server_key_client_salt_server_salt() {
    for (profile, salt_len) in
        [(SrtpProfile::AeadAes128Gcm, 12), (SrtpProfile::AesCm128HmacSha1_80, 14)]
    {
        let mut material = vec![1; 16];
        material.extend([2; 16]);
        material.extend(vec![3; salt_len]);
        material.extend(vec![4; salt_len]);
        let server = SrtpKeys::from_exporter(profile, &material, false).unwrap();
        assert_eq!((server.local_key, server.remote_key), ([2; 16], [1; 16]));
        assert_eq!(server.local_salt[..salt_len], vec![4; salt_len]);
        assert_eq!(server.remote_salt[..salt_len], vec![3; salt_len]);
        let client = SrtpKeys::from_exporter(profile, &material, true).unwrap();
        assert_eq!((client.local_key, client.remote_key), ([1; 16], [2; 16]));
        material.push(0);
        assert!(SrtpKeys::from_exporter(profile, &material, true).is_none());
        assert_eq!(SrtpProfile::from_id(profile.id()), Some(profile));
        assert!(!format!("{server:?}").contains("2, 2"), "keys stay out of logs");
    }
}

#[test]
fn every_changed_byte_is_noticed_and_what_came_before_is_refused() {
    for profile in SrtpProfile::ALL {
        let (mut sender, mut receiver) = pair(profile);
        let mut rtp = hex("80600001 00000002 00000003 aabbcc");
        rtp.resize(rtp.len() + sender.rtp_overhead(), 0);
        sender.seal_rtp(&mut rtp, 12, 3, 1).unwrap();
        let mut rtcp = hex("80c80001 00000003 aabbccdd");
        sender.seal_rtcp(&mut rtcp, 0).unwrap();

        for at in 0..rtp.len() {
            let mut changed = rtp.clone();
            changed[at] ^= 1;
            assert!(receiver.open_rtp(&mut changed).is_err(), "{profile:?} byte {at}");
            assert!(receiver.open_rtp(&mut rtp[..at].to_vec()).is_err());
        }
        for at in 0..rtcp.len() {
            let mut changed = rtcp.clone();
            changed[at] ^= 1;
            assert!(receiver.open_rtcp(&mut changed).is_err(), "{profile:?} byte {at}");
            assert!(receiver.open_rtcp(&mut rtcp[..at].to_vec()).is_err());
        }
        assert!(receiver.open_rtp(&mut rtp.clone()).is_ok());
        assert_eq!(receiver.open_rtp(&mut rtp), Err(OpenError::Replayed));
        assert!(receiver.open_rtcp(&mut rtcp.clone()).is_ok());
        assert_eq!(receiver.open_rtcp(&mut rtcp), Err(OpenError::Replayed));
    }
}

#[test]
fn the_rollover_counter_is_followed() {
    for profile in SrtpProfile::ALL {
        let (sender, mut receiver) = pair(profile);
        for index in 0xfff0..0x2_0010_u64 {
            if index > 0x1_0010 && index < 0x1_fff0 && index % 1000 != 0 {
                continue;
            }
            let mut packet = hex("80600000 00000002 00000003 aabbcc");
            packet[2..4].copy_from_slice(&(index as u16).to_be_bytes());
            packet.resize(packet.len() + sender.rtp_overhead(), 0);
            sender.seal_rtp(&mut packet, 12, 3, index).unwrap();
            assert!(receiver.open_rtp(&mut packet).is_ok(), "{profile:?} index {index:x}");
        }
    }
}

#[test]
fn a_key_that_is_worn_out_seals_no_more() {
    let (mut sender, mut receiver) = pair(SrtpProfile::AeadAes128Gcm);
    let rtcp = hex("80c80001 00000003 aabbccdd");
    sender.next_rtcp_index_for_test((1 << 31) - 1);
    let mut last = rtcp.clone();
    sender.seal_rtcp(&mut last, 0).unwrap();
    assert_eq!(receiver.open_rtcp(&mut last), Ok(&rtcp[..]));
    assert_eq!(sender.seal_rtcp(&mut rtcp.clone(), 0), Err(SealError::KeyWornOut));
    let mut rtp = vec![0x80; 40];
    assert_eq!(sender.seal_rtp(&mut rtp, 12, 3, 1 << 48), Err(SealError::KeyWornOut));
}

#[test]
fn a_viewer_has_a_bounded_number_of_sources() {
    let (mut sender, mut receiver) = pair(SrtpProfile::AeadAes128Gcm);
    let opened = (0..100_u8)
        .filter(|&ssrc| {
            let mut rtcp = vec![0x80, 200, 0, 1, 0, 0, 0, ssrc];
            sender.seal_rtcp(&mut rtcp, 0).unwrap();
            receiver.open_rtcp(&mut rtcp).is_ok()
        })
        .count();
    assert_eq!(opened, 8);
}
