//! Whose certificate it is. The TLS handshake has verified it by then; this only reads a name.

use x509_parser::prelude::{FromDer, X509Certificate};

/// The subject's common name (CN), under which devices' certificates carry the serial number. Empty
/// where there is none, or more than one: nobody's name.
///
/// The subject, not an alternative name: those are for hosts and addresses, and a device has neither.
pub(crate) fn common_name(der: &[u8]) -> Box<str> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return "".into() };
    let mut names = certificate.subject().iter_common_name();
    match (names.next(), names.next()) {
        (Some(name), None) => name.as_str().unwrap_or_default().into(),
        _ => "".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["elsewhere".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), *name);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_common_name_is_the_serial_number() {
        let maker = (DnType::OrganizationName, "maker");
        let der = certificate(&[maker.clone(), (DnType::CommonName, "cam_1")]);
        assert_eq!(&*common_name(&der), "cam_1");
        assert_eq!(&*common_name(&certificate(&[maker])), "");
        // Cut off anywhere, or with any byte changed, it is somebody's or nobody's; it never panics.
        for len in 0..der.len() {
            assert_eq!(&*common_name(&der[..len]), "");
        }
        for at in 0..der.len() {
            let mut other = der.clone();
            other[at] ^= 0x41;
            common_name(&other);
        }
    }
}
