//! The body of the fuzz target `sdk_message`. The property tests run it too.

use std::io;

use dew_provider::envelope_sdk::{
    OpenLimits, SdkContext, SdkDataKey, SdkHeader, SdkReader, SdkSealer,
};
use dew_provider::util::secret_bytes::SecretBytes;

const TEXT: &[u8] = b"some text";

fn sealer_like(header: &SdkHeader) -> Option<(SdkSealer, SecretBytes)> {
    let dek = SecretBytes::new(vec![7; header.algorithm().key_length()]);
    let key = SdkDataKey {
        dek: dek.clone(),
        wrapped: header.wrapped().to_vec(),
        left_out: Vec::new(),
    };
    let context = SdkContext::new(header.context().entries().to_vec()).ok()?;
    let sealer = SdkSealer::new(header.algorithm(), context, key).ok()?;
    Some((sealer, dek))
}

/// Reads a message. A header that can be read can be written, and its message opened; and `data` after an
/// authentic header opens only if it is empty.
pub(crate) fn sdk_message(data: &[u8]) {
    let Ok(reader) = SdkReader::read(data) else {
        return;
    };
    let header = reader.header().clone();
    if let Some((sealer, dek)) = sealer_like(&header) {
        let Ok(message) = sealer.seal(TEXT) else {
            return;
        };
        let mut text = Vec::new();
        let opened = SdkReader::read(message.as_slice());
        let opened = opened.and_then(|reader| {
            assert_eq!(reader.header().wrapped(), header.wrapped());
            reader.open(&dek, OpenLimits::default(), &mut text)
        });
        assert!(opened.is_ok() && text == TEXT, "{opened:?}");
    }
    if let Some((sealer, dek)) = sealer_like(&header) {
        let mut message = Vec::new();
        if sealer.seal_file(io::empty(), &mut message).is_ok() {
            message.extend(data);
            let reader = SdkReader::read(message.as_slice());
            let opened =
                reader.and_then(|reader| reader.open(&dek, OpenLimits::default(), io::sink()));
            assert!(opened.is_err());
        }
    }
    let dek = SecretBytes::new(vec![7; header.algorithm().key_length()]);
    assert!(
        reader
            .open(&dek, OpenLimits::default(), io::sink())
            .is_err()
    );
}
