//! Channel binding `tls-server-end-point` (RFC 5929): the hash of the server's certificate, by the hash function of
//! the certificate's own signature, with MD5 and SHA-1 raised to SHA-256. Reads just enough DER to find that
//! algorithm; anything unexpected gives `None`, and the caller decides what a missing binding means.

use ring::digest;

const TAG_SEQUENCE: u8 = 0x30;
const TAG_OID: u8 = 0x06;

/// The binding of a certificate, or `None` where RFC 5929 defines none (Ed25519, RSA-PSS) or the DER is not understood.
pub fn server_end_point(certificate_der: &[u8]) -> Option<Vec<u8>> {
    let algorithm =
        match signature_oid(certificate_der)? {
            // md5WithRSA, sha1WithRSA, ecdsa-with-SHA1: raised to SHA-256 by RFC 5929, section 4.1.
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04 | 0x05]
            | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01] => &digest::SHA256,
            // shaNNNWithRSAEncryption and ecdsa-with-SHANNN.
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b]
            | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02] => &digest::SHA256,
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c]
            | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03] => &digest::SHA384,
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d]
            | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04] => &digest::SHA512,
            _ => return None,
        };
    Some(digest::digest(algorithm, certificate_der).as_ref().to_vec())
}

/// `Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { OID, … }, … }`
fn signature_oid(certificate: &[u8]) -> Option<&[u8]> {
    let (outer, _) = element(TAG_SEQUENCE, certificate)?;
    let (_to_be_signed, rest) = element(TAG_SEQUENCE, outer)?;
    let (algorithm, _signature) = element(TAG_SEQUENCE, rest)?;
    let (oid, _parameters) = element(TAG_OID, algorithm)?;
    Some(oid)
}

/// One DER element of the wanted tag: its content and what follows it.
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    if found != tag {
        return None;
    }
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // Long form: a certificate's parts are below 16 MiB, so at most three length bytes.
        0x81..=0x83 => {
            let (length_bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length_bytes.iter().fold(0_usize, |sum, &byte| (sum << 8) | usize::from(byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}
