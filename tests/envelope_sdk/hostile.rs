//! Messages that were changed, and bytes that are none.

use std::io::{self, Read};

use dew_provider::envelope_sdk::{
    Declaration, MAX_HEADER, OpenLimits, SdkAlgorithm, SdkContext, SdkError, SdkReader,
};
use dew_provider::util::secret_bytes::SecretBytes;
use proptest::prelude::*;

use super::{entries, open, sealer};

#[path = "../fuzz/sdk_message.rs"]
mod fuzz;

/// A memory message, and a file message whose text is declared.
async fn messages() -> Vec<(Vec<u8>, SecretBytes)> {
    let plain = vec![b'x'; 2500];
    let pairs = entries(&[("encryption", "context"), ("ключ", "値-😀")]);
    let context = SdkContext::new(pairs.clone()).unwrap();
    let (memory, memory_dek) = sealer(SdkAlgorithm::Aes256Gcm, context).await;
    let declaration = Declaration::of(plain.as_slice()).unwrap();
    let context = declaration.add_to(pairs).unwrap();
    let (file, file_dek) = sealer(SdkAlgorithm::Aes128Gcm, context).await;
    let mut message = Vec::new();
    file.seal_file(plain.as_slice(), &mut message).unwrap();
    vec![
        (memory.seal(&plain).unwrap(), memory_dek),
        (message, file_dek),
    ]
}

#[tokio::test]
async fn every_changed_bit_and_every_cut_is_refused() {
    for (message, dek) in messages().await {
        open(&message, &dek).unwrap();
        for at in 0..message.len() {
            open(&message[..at], &dek).unwrap_err();
            for bit in 0..8 {
                let mut changed = message.clone();
                changed[at] ^= 1 << bit;
                open(&changed, &dek).unwrap_err();
            }
        }
        for extra in [&[0][..], &message] {
            open(&[&message, extra].concat(), &dek).unwrap_err();
        }
    }
}

/// A memory message is released whole or not at all.
#[tokio::test]
async fn a_refused_memory_message_writes_nothing() {
    let (message, dek) = messages().await.remove(0);
    for at in 0..message.len() {
        let mut changed = message.clone();
        changed[at] ^= 1;
        let Ok(reader) = SdkReader::read(changed.as_slice()) else {
            continue;
        };
        let mut text = Vec::new();
        reader
            .open(&dek, OpenLimits::default(), &mut text)
            .unwrap_err();
        assert!(text.is_empty());
    }
}

/// Counts what is read of an endless input.
#[derive(Debug)]
struct Endless<'a> {
    start: &'a [u8],
    fill: u8,
    read: usize,
}

impl Read for Endless<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let taken = self.start.read(buffer)?;
        buffer[taken..].fill(self.fill);
        self.read += buffer.len();
        Ok(buffer.len())
    }
}

/// A header may promise 127 keys of 32 KiB and a context of 32 KiB: it is refused at the limit.
#[test]
fn headers_end_at_their_limit_on_endless_input() {
    let mut many_keys = vec![1, 0, 2, 0, 0, 127];
    for _ in 0..127 {
        many_keys.extend([1, b'p', 1, 2, 0x7f, 0xff]);
        many_keys.extend([0; 0x7fff]);
    }
    let context = [1, 0, 2, 0x7f, 0xff, 0x7f, 0xff];
    let file = [0xff, 0xff, 1, 0, 2, 0x7f, 0xff];
    for start in [&many_keys[..], &context, &file] {
        for fill in [0, 1, 2, 0x7f, 0xff] {
            let mut input = Endless {
                start,
                fill,
                read: 0,
            };
            let error = SdkReader::read(&mut input).unwrap_err();
            assert!(matches!(error, SdkError::Header { .. }), "{error}");
            assert!(input.read <= MAX_HEADER + 64 * 1024, "{}", input.read);
        }
    }
}

#[tokio::test]
async fn lengths_over_the_limits_are_refused_before_anything_is_read() {
    for (message, dek) in messages().await {
        let reader = SdkReader::read(message.as_slice()).unwrap();
        let is_file = message[0] == 0;
        let start = usize::from(is_file) * 2 + reader.header().length() + 12;
        for length in [(16 << 20) + 17, (256 << 20) + 1, 1 << 40, 1 << 63, u64::MAX] {
            let mut changed = message.clone();
            changed[start..start + 8].copy_from_slice(&length.to_be_bytes());
            let error = open(&changed, &dek).unwrap_err();
            // The smallest is within the limit of a memory message, which then is too short.
            assert!(
                matches!(error, SdkError::BlockLength { .. })
                    || !is_file && length < 256 << 20 && matches!(error, SdkError::Truncated(_)),
                "{error}"
            );
        }
        let limits = OpenLimits {
            memory_text: 100,
            block: 100,
        };
        let error = SdkReader::read(message.as_slice())
            .unwrap()
            .open(&dek, limits, io::sink());
        let error = error.unwrap_err();
        assert!(error.to_string().contains("16 to 116"), "{error}");
    }
}

#[test]
fn other_formats_and_algorithms_are_refused_by_name() {
    let read = |bytes: &[u8]| SdkReader::read(bytes).unwrap_err().to_string();
    for (algorithm, name) in [(3, "SM4-GCM"), (4, "SM4-CBC")] {
        let memory = read(&[1, 0, algorithm, 0, 0, 1]);
        let file = read(&[0, 100, 1, 0, algorithm, 0, 0, 1]);
        let long = read(&[1, 0, 1, 0, algorithm, 0, 0, 1]);
        for error in [memory, file, long] {
            assert!(error.contains(name), "{error}");
        }
    }
    assert!(read(&[1, 0, 5, 0, 0, 1]).contains("unknown algorithm 5"));
    for other in [
        &b"age-encryption.org/v1\n"[..],
        &[2, 4, 0x78, 0, 0, 0, 0],
        b"hello world",
        &[0; 64],
        &[0xff; 64],
    ] {
        let error = read(other);
        assert!(
            error.contains("not a message of Huawei's Encryption SDK"),
            "{error}"
        );
    }
    assert!(read(&[]).contains("empty"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_and_random_headers_do_not_panic(
        start in prop::sample::select(vec![
            &[][..], &[1, 0, 2], &[1, 0, 1, 0, 0, 1], &[0, 60, 1, 0, 2, 0, 0, 1], &[1, 0, 1, 0, 2, 0, 0],
        ]),
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        fuzz::sdk_message(&[start, &bytes].concat());
    }

    #[test]
    fn random_changes_do_not_panic(
        at in any::<prop::sample::Index>(),
        bytes in prop::collection::vec(any::<u8>(), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (mut message, dek) in runtime.block_on(messages()) {
            let at = at.index(message.len());
            let original = message.clone();
            message.splice(at..(at + bytes.len()).min(original.len()), bytes.iter().copied());
            prop_assert!(message == original || open(&message, &dek).is_err());
        }
    }
}
