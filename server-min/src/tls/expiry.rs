//! Until when a certificate is good, out of its DER (RFC 5280 §4.1). Only this, so that no X.509
//! library needs to be linked for one metric.

/// Unix seconds; `None` where it cannot be read.
pub(super) fn not_after_s(certificate: &[u8]) -> Option<u64> {
    let body = read(certificate, SEQUENCE)?.content;
    let mut fields = read(body, SEQUENCE)?.content;
    if let Some(version) = read(fields, VERSION) {
        fields = version.rest;
    }
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        // Serial number, signature algorithm, issuer.
        fields = read(fields, tag)?.rest;
    }
    let validity = read(fields, SEQUENCE)?.content;
    let not_after = Element::first_of(Element::first_of(validity)?.rest)?;
    time_s(not_after.tag, not_after.content)
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT`
const VERSION: u8 = 0xa0;

struct Element<'d> {
    tag: u8,
    content: &'d [u8],
    /// What follows it.
    rest: &'d [u8],
}

impl Element<'_> {
    fn first_of(data: &[u8]) -> Option<Element<'_>> {
        let (&tag, rest) = data.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        Some(Element { tag, content, rest })
    }
}

/// The first element, if it has this tag.
fn read(data: &[u8], tag: u8) -> Option<Element<'_>> {
    Element::first_of(data).filter(|element| element.tag == tag)
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280 §4.1.2.5).
fn time_s(tag: u8, text: &[u8]) -> Option<u64> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0'));
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year = number(&digits[..2]);
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let parts: Vec<u64> = rest.chunks(2).map(number).collect();
    let &[month, day, hour, minute, second] = parts.as_slice() else { return None };
    let days = days_since_1970(year, month, day)?;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year < 1970 {
        return None;
    }
    // Years begin on 1 March, so that the leap day is the last one.
    let (year, from_march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let in_year = (153 * from_march + 2) / 5 + day - 1;
    Some(year * 365 + year / 4 - year / 100 + year / 400 + in_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn times_are_read_in_both_forms() {
        assert_eq!(time_s(UTC_TIME, b"700101000000Z"), Some(0));
        // date -u -d '2026-11-26 09:00:01' +%s, and 2049-12-31 23:59:59, 2050-02-28, 2400-02-29.
        assert_eq!(time_s(UTC_TIME, b"261126090001Z"), Some(1_795_683_601));
        assert_eq!(time_s(UTC_TIME, b"491231235959Z"), Some(2_524_607_999));
        assert_eq!(time_s(GENERALIZED_TIME, b"20500228000000Z"), Some(2_529_619_200));
        assert_eq!(time_s(GENERALIZED_TIME, b"24000229000000Z"), Some(13_574_563_200));
        for bad in ["", "Z", "261126090001", "2611260900Z", "26112609000xZ", "261326090001Z"] {
            assert_eq!(time_s(UTC_TIME, bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_certificate_says_until_when_it_is_good() {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        for (year, expected) in [(2031, 1_935_273_600), (2061, 2_882_044_800)] {
            params.not_after = rcgen::date_time_ymd(year, 4, 30);
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            let der = certificate.der().to_vec();
            assert_eq!(not_after_s(&der), Some(expected), "{year}");
            // Cut off anywhere, it is refused or says the same.
            for end in 0..der.len() {
                assert_eq!(not_after_s(&der[..end]), None);
            }
            for (at, bit) in (0..der.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                let mut changed = der.clone();
                changed[at] ^= 1 << bit;
                not_after_s(&changed);
            }
        }
    }

    /// What openssl makes and prints is what is read.
    #[test]
    fn openssl_agrees() {
        let run = |arguments: &[&str], input: &[u8]| {
            use std::io::Write as _;
            use std::process::{Command, Stdio};
            let mut child = Command::new("openssl")
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("openssl (package openssl)");
            child.stdin.take().unwrap().write_all(input).unwrap();
            child.wait_with_output().unwrap().stdout
        };
        let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null \
                   -subj /O=p2pcam/CN=localhost -days 4321";
        let pem = run(&new.split_whitespace().collect::<Vec<_>>(), b"");
        let der = CertificateDer::from_pem_slice(&pem).unwrap();
        let printed = run(&["x509", "-noout", "-enddate", "-dateopt", "iso_8601"], &pem);
        let printed = String::from_utf8(printed).unwrap();
        let ours = crate::clock::rfc3339(not_after_s(&der).unwrap() * 1000);
        let ours = format!("notAfter={}", ours.replace('T', " ").replace(".000", ""));
        assert_eq!(printed.trim(), ours);
    }
}
