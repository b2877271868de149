//! Public keys, as KMS's `get-publickey` returns them.

use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;

use super::error::SignatureError;
use super::key_kind::PublicKeyKind;

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// Algorithm identifiers, without their SEQUENCE. RFC 3279, 2.3.1; RFC 5480, 2.1.1.
const RSA: &[u8] = &[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];
const P256: &[u8] = &[
    0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
    0x03, 0x01, 0x07,
];
const P384: &[u8] = &[
    0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22,
];

/// A public key: RSA, or EC on P-256 or P-384.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    kind: PublicKeyKind,
    /// RSA: DER of `RSAPublicKey`; EC: the uncompressed point.
    bytes: Vec<u8>,
}

impl PublicKey {
    /// Parses PEM with one `PUBLIC KEY`.
    ///
    /// # Errors
    /// [`SignatureError::PublicKey`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, SignatureError> {
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(pem);
        let spki = spki.map_err(|_| {
            SignatureError::PublicKey("expected PEM that begins with -----BEGIN PUBLIC KEY-----")
        })?;
        let invalid = || SignatureError::PublicKey("its PEM does not contain a public key");
        let mut rest: &[u8] = &spki;
        let mut inner = element(&mut rest, SEQUENCE)
            .filter(|_| rest.is_empty())
            .ok_or_else(invalid)?;
        let algorithm = element(&mut inner, SEQUENCE).ok_or_else(invalid)?;
        let bits = element(&mut inner, BIT_STRING).filter(|_| inner.is_empty());
        let bytes = bits.and_then(|bits| bits.strip_prefix(&[0]));
        let kind = match algorithm {
            RSA => PublicKeyKind::Rsa,
            P256 => PublicKeyKind::P256,
            P384 => PublicKeyKind::P384,
            _ => {
                return Err(SignatureError::PublicKey(
                    "it is neither RSA nor EC P-256 nor EC P-384; verify with KMS",
                ));
            }
        };
        Ok(Self {
            kind,
            bytes: bytes.ok_or_else(invalid)?.to_vec(),
        })
    }

    /// The key's kind.
    pub fn kind(&self) -> PublicKeyKind {
        self.kind
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Takes the contents of a DER element of at most 64 KiB with this tag.
fn element<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let after = rest.strip_prefix(&[tag])?;
    let (length, after) = match *after {
        [short @ 0..=0x7f, ref after @ ..] => (usize::from(short), after),
        [0x81, length @ 0x80..=0xff, ref after @ ..] => (usize::from(length), after),
        [0x82, high @ 1..=0xff, low, ref after @ ..] => {
            (usize::from(u16::from_be_bytes([high, low])), after)
        }
        _ => return None,
    };
    let (contents, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(contents)
}
