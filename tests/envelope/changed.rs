//! A message with any change gives an error and no text that is not authenticated; a random header never makes the
//! reader panic or allocate more than its limits.

use dew_provider::envelope::{
    EncryptionContext, Header, KeyProvider, MAX_HEADER, MAX_WRAPPED_KEYS, MessageError,
    OpenMessage, WrappedKey,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::keys::StaticKeys;
use super::{context, opened, sealed, text};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

fn a_message(length: usize) -> Vec<u8> {
    let pairs = context(&[("purpose", "tls"), ("ключ", "値")]);
    block_on(sealed(&StaticKeys::two(), pairs, 64, &text(length)))
}

#[test]
fn every_changed_bit_and_every_cut_is_refused() {
    let message = a_message(150);
    let keys = StaticKeys::two();
    // One key that opens it must not depend on the other being intact, so both must be authenticated.
    for key in 0..2 {
        let one = StaticKeys(vec![keys.0[key].clone()]);
        for at in 0..message.len() {
            for bit in 0..8 {
                let mut changed = message.clone();
                changed[at] ^= 1 << bit;
                let result = block_on(opened(&one, &changed));
                assert!(result.is_err(), "byte {at}, bit {bit}");
            }
        }
        for length in 0..message.len() {
            assert!(
                block_on(opened(&one, &message[..length])).is_err(),
                "{length}"
            );
        }
    }
    let longer = [message.as_slice(), b"x"].concat();
    let error = block_on(opened(&keys, &longer)).unwrap_err();
    assert!(error.contains("bytes follow"), "{error}");
    let twice = [message.as_slice(), &message].concat();
    assert!(block_on(opened(&keys, &twice)).is_err());
}

#[test]
fn a_data_key_that_was_not_committed_to_is_refused() {
    let message = a_message(10);
    let header = Header::read(&mut &*message).unwrap();
    let other = block_on(StaticKeys::two().generate(&header.context))
        .unwrap()
        .0;
    let error = OpenMessage::unlock(header, &other).map(|_| ()).unwrap_err();
    assert!(matches!(error, MessageError::Commitment), "{error}");
}

/// The header of a message, field by field.
fn header(context: &[u8], keys: &[WrappedKey], kind: u8, frame: u32) -> Vec<u8> {
    let put = |to: &mut Vec<u8>, bytes: &[u8]| {
        to.extend_from_slice(&u16::try_from(bytes.len()).unwrap().to_be_bytes());
        to.extend_from_slice(bytes);
    };
    let mut bytes = vec![2, 0x04, 0x78];
    bytes.extend_from_slice(&[9; 32]);
    put(&mut bytes, context);
    bytes.extend_from_slice(&u16::try_from(keys.len()).unwrap().to_be_bytes());
    for key in keys {
        put(&mut bytes, key.provider.as_bytes());
        put(&mut bytes, &key.info);
        put(&mut bytes, &key.ciphertext);
    }
    bytes.push(kind);
    bytes.extend_from_slice(&frame.to_be_bytes());
    bytes.extend_from_slice(&[0; 48]);
    bytes
}

#[test]
fn limits_and_other_formats_are_named() {
    let key = |length| WrappedKey {
        provider: "huawei-kms".to_owned(),
        info: b"r/k".to_vec(),
        ciphertext: vec![0; length],
    };
    let one = [key(80)];
    let many = vec![key(80); MAX_WRAPPED_KEYS + 1];
    let long = vec![key(60_000); 2];
    let twice = [0, 2, 0, 1, b'a', 0, 0, 0, 1, b'a', 0, 0];
    let mut other_suite = header(&[], &one, 2, 64);
    other_suite[1] = 0x05;
    for (bytes, expected) in [
        (header(&[], &one, 2, 64), ""),
        (header(&[], &[], 2, 64), "number of wrapped keys: 0"),
        (
            header(&[], &many, 2, 64),
            "number of wrapped keys: 17, expected 1 to 16",
        ),
        (header(&[], &long, 2, 64), "header: longer than 65536 bytes"),
        (header(&[], &one, 2, 0), "frame length: 0 bytes"),
        (
            header(&[], &one, 2, 16 * 1024 * 1024 + 1),
            "frame length: 16777217 bytes",
        ),
        (
            header(&[], &one, 1, 0),
            "a message without frames is not supported",
        ),
        (header(&[], &one, 3, 64), "content type: 3"),
        (
            header(&[0; 8193], &one, 2, 64),
            "encryption context: 8193 bytes (limit 8192)",
        ),
        (
            header(&twice, &one, 2, 64),
            "encryption context: the key \"a\" occurs twice",
        ),
        (
            header(&[0, 0], &one, 2, 64),
            "its length does not match its pairs",
        ),
        (
            header(&[0, 1, 0, 9, b'a'], &one, 2, 64),
            "longer than the context",
        ),
        (header(&[0, 1, 0, 1, 255, 0, 0], &one, 2, 64), "not UTF-8"),
        (
            other_suite,
            "suite 0x0578, with a signature, is not supported",
        ),
        (vec![1, 0x80, 0x03], "format version 1"),
        (b"age-encryption.org/v1".to_vec(), "it starts with 61 67 65"),
        (Vec::new(), "it is empty"),
        (vec![2], "it starts with 02,"),
        (vec![2, 4, 0x78, 1], "it ends in the header"),
    ] {
        let found = Header::read(&mut &*bytes).map(|_| String::new());
        let found = found.unwrap_or_else(|error| error.to_string());
        assert!(found.contains(expected), "{expected}: {found}");
        assert_eq!(found.is_empty(), expected.is_empty(), "{expected}: {found}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, rng_seed: RngSeed::Random, ..ProptestConfig::default() })]

    /// Frames that are moved, lost, repeated or taken from another message, in any combination.
    #[test]
    fn frames_in_any_other_order_are_refused(order in prop::collection::vec(0..8_usize, 0..6)) {
        let (message, other) = (a_message(200), a_message(200));
        let body = Header::read(&mut &*message).unwrap().length();
        let frames = |message: &[u8]| -> Vec<Vec<u8>> {
            message[body..].chunks(64 + 32).map(<[u8]>::to_vec).collect()
        };
        let all = [frames(&message), frames(&other)].concat();
        prop_assert_eq!(all.len(), 8);
        prop_assume!(order != [0, 1, 2, 3]);
        let mut changed = message[..body].to_vec();
        changed.extend(order.iter().flat_map(|frame| &all[*frame]));
        prop_assert!(block_on(opened(&StaticKeys::two(), &changed)).is_err());
    }

    /// Any part of a message overwritten, removed or inserted.
    #[test]
    fn any_edit_is_refused(at in 0..1000_usize, remove in 0..100_usize, insert in prop::collection::vec(any::<u8>(), 0..100)) {
        let message = a_message(200);
        let at = at % (message.len() + 1);
        let to = (at + remove).min(message.len());
        let changed = [&message[..at], &insert, &message[to..]].concat();
        prop_assume!(changed != message);
        prop_assert!(block_on(opened(&StaticKeys::two(), &changed)).is_err());
    }

    #[test]
    fn random_headers_are_refused_or_written_back(bytes in prop::collection::vec(any::<u8>(), 0..300), lengths in prop::collection::vec(any::<u16>(), 0..8)) {
        let mut random = vec![2, 4, 0x78];
        random.extend_from_slice(&[0; 32]);
        for length in lengths {
            random.extend_from_slice(&length.to_be_bytes());
            random.extend_from_slice(&bytes);
        }
        for bytes in [&random, &bytes] {
            let mut reader = Counted { bytes, read: 0, largest: 0 };
            let header = Header::read(&mut reader);
            prop_assert!(reader.read <= MAX_HEADER + 16 && reader.largest <= MAX_HEADER);
            if let Ok(header) = header {
                prop_assert!(bytes.starts_with(&header.to_bytes()));
            }
        }
    }

    #[test]
    fn any_context_is_read_as_it_was_written(pairs in prop::collection::btree_map(".{1,20}", ".{0,20}", 0..20)) {
        prop_assume!(!pairs.keys().any(|key| key.starts_with("aws-crypto-")));
        let context = EncryptionContext::new(pairs.clone()).unwrap();
        let keys = StaticKeys::two();
        let message = block_on(sealed(&keys, context.clone(), 64, b"text"));
        prop_assert_eq!(&Header::read(&mut &*message).unwrap().context, &context);
        prop_assert!(context.iter().map(|(key, _)| key).eq(pairs.keys().map(String::as_str)));
    }
}

/// An input without end that remembers how much was asked of it.
struct Counted<'a> {
    bytes: &'a [u8],
    read: usize,
    largest: usize,
}

impl std::io::Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.read += buffer.len();
        self.largest = self.largest.max(buffer.len());
        let known = self.bytes.len().min(buffer.len());
        buffer.fill(255);
        buffer[..known].copy_from_slice(&self.bytes[..known]);
        self.bytes = &self.bytes[known..];
        Ok(buffer.len())
    }
}
