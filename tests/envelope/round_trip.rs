//! What is written can be read: whole, in part, and from other implementations' bytes.

use dew_provider::envelope::{
    DEFAULT_FRAME, Destination, EncryptionContext, FrameSummary, Header, MAX_CONTEXT, OpenMessage,
    inspect_frames,
};
use dew_provider::util::secret_bytes::SecretBytes;
use serde_json::Value;

use super::keys::StaticKeys;
use super::{context, opened, part, sealed, text};

const FRAME: usize = DEFAULT_FRAME as usize;

#[tokio::test]
async fn every_length_can_be_read_again() {
    let keys = StaticKeys::two();
    for length in [0, 1, FRAME - 1, FRAME, FRAME + 1, 5 * FRAME, 5 * FRAME + 7] {
        let message = sealed(
            &keys,
            context(&[("ключ", "値-😀")]),
            DEFAULT_FRAME,
            &text(length),
        )
        .await;
        assert!(
            opened(&keys, &message).await.unwrap() == text(length),
            "{length}"
        );
        let mut input = &*message;
        let header = Header::read(&mut input).unwrap();
        let skip = |input: &mut &[u8], length: u64| {
            *input = &input[usize::try_from(length).unwrap()..];
            Ok(())
        };
        let summary = inspect_frames(&mut input, header.frame_length, skip).unwrap();
        // The last frame is full where the text ends with it, as in the AWS Encryption SDK.
        let frames = length.div_ceil(FRAME).max(1);
        let frames = u32::try_from(frames).unwrap();
        assert_eq!(
            summary,
            FrameSummary {
                frames,
                text_length: length as u64
            }
        );
    }
    // Frames of any length are read.
    for frame in [1, 2, 64, 4096, 1_000_000] {
        let message = sealed(&keys, context(&[]), frame, &text(2500)).await;
        assert!(
            opened(&keys, &message).await.unwrap() == text(2500),
            "{frame}"
        );
    }
}

#[tokio::test]
async fn either_of_two_keys_opens_a_message() {
    let both = StaticKeys::two();
    let message = sealed(&both, context(&[("a", "b")]), 64, b"text").await;
    for key in &both.0 {
        let one = StaticKeys(vec![key.clone()]);
        assert_eq!(opened(&one, &message).await.unwrap(), b"text");
    }
    let other = StaticKeys(vec![("cn-north-4/first".to_owned(), [3; 32])]);
    assert_eq!(
        opened(&other, &message).await.unwrap_err(),
        "no key opens it"
    );
}

#[tokio::test]
async fn a_part_is_read_from_its_frames() {
    let keys = StaticKeys::two();
    for length in [0, 1, 63, 64, 65, 200] {
        let message = sealed(&keys, context(&[]), 64, &text(length)).await;
        let length = length as u64;
        for start in 0..=length {
            for end in [start, start + 1, start + 64, start + 65, length, u64::MAX] {
                let expected = start..end.clamp(start, length);
                let expected = usize::try_from(expected.start).unwrap()
                    ..usize::try_from(expected.end).unwrap();
                let found = part(&keys, &message, start, end).await.unwrap();
                assert_eq!(
                    found,
                    text(length as usize)[expected],
                    "{start}..{end} of {length}"
                );
            }
        }
        let error = part(&keys, &message, length + 1, u64::MAX)
            .await
            .unwrap_err();
        assert!(
            error.contains(&format!("the text has {length} bytes")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_part_is_refused_if_its_frames_or_the_length_changed() {
    let keys = StaticKeys::two();
    let message = sealed(&keys, context(&[]), 64, &text(300)).await;
    let body = Header::read(&mut &*message).unwrap().length();
    let frame = |index: usize| body + index * (64 + 32);
    for at in [frame(1), frame(1) + 20, frame(4), frame(4) + 30] {
        let mut changed = message.clone();
        changed[at] ^= 1;
        let error = part(&keys, &changed, 64, 70).await.unwrap_err();
        assert!(error.starts_with("frame "), "{at}: {error}");
    }
    // Cut at a frame, inside one, and with bytes at the end.
    for cut in [frame(4), frame(3), frame(3) + 50, body, message.len() - 1] {
        assert!(part(&keys, &message[..cut], 64, 70).await.is_err(), "{cut}");
    }
    let longer = [message.as_slice(), &[0]].concat();
    assert!(part(&keys, &longer, 64, 70).await.is_err());
    let longer = [message.as_slice(), &message[frame(3)..]].concat();
    assert!(part(&keys, &longer, 64, 70).await.is_err());
}

/// A message that another implementation wrote, see `native-0478-2regions-frame64.json`.
#[test]
fn a_message_of_another_implementation_is_read() {
    let mut input: &[u8] = include_bytes!("../data/native-0478-2regions-frame64.bin");
    let facts: Value =
        serde_json::from_str(include_str!("../data/native-0478-2regions-frame64.json")).unwrap();
    let header = Header::read(&mut input).unwrap();
    assert_eq!(header.context.binding(), facts["kms_aad"]);
    assert_eq!(header.context.get("ключ"), Some("値-😀"));
    assert_eq!(header.frame_length, 64);
    for key in &header.keys {
        assert_eq!(key.provider, "huawei-kms");
        let info = std::str::from_utf8(&key.info).unwrap();
        let (region, id) = info.split_once('/').unwrap();
        assert_eq!(facts["masters"][region]["key_id"], id);
    }
    assert_eq!(
        EncryptionContext::new(header.context.iter().map(|(k, v)| (k.into(), v.into()))).unwrap(),
        header.context
    );
    let data_key = facts["dek_hex"].as_str().unwrap().as_bytes();
    let data_key = data_encoding::HEXLOWER.decode(data_key).unwrap();
    let message = OpenMessage::unlock(header, &SecretBytes::new(data_key)).unwrap();
    let mut output = Vec::new();
    message.decrypt(&mut input, &mut output).unwrap();
    assert_eq!(output, facts["plain"].as_str().unwrap().as_bytes());
}

#[test]
fn a_context_that_the_format_or_kms_does_not_take_is_refused() {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let long = "v".repeat(MAX_CONTEXT);
    for (pairs, reason) in [
        (vec![pair("", "a")], "a key is empty"),
        (vec![pair("a", "b"), pair("a", "c")], "\"a\" occurs twice"),
        (vec![pair("aws-crypto-public-key", "b")], "is reserved"),
        (vec![pair("a", &long)], "limit 8192"),
    ] {
        let error = EncryptionContext::new(pairs).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    let longest = "v".repeat(MAX_CONTEXT - 7);
    let context = EncryptionContext::new([pair("a", &longest)]).unwrap();
    assert_eq!(context.to_bytes().len(), MAX_CONTEXT);
}

#[test]
fn a_file_is_replaced_only_when_it_is_complete() {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    std::fs::write(&path, "before").unwrap();
    let names = || std::fs::read_dir(folder.path()).unwrap().count();
    let mut file = Destination::create(&path).unwrap();
    file.file().write_all(b"half").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"before");
    drop(file);
    assert_eq!(
        (std::fs::read(&path).unwrap(), names()),
        (b"before".to_vec(), 1)
    );
    let mut file = Destination::create(&path).unwrap();
    file.file().write_all(b"after").unwrap();
    // A process that is killed leaves nothing behind.
    assert_eq!(names(), 1);
    file.commit().unwrap();
    assert_eq!(
        (std::fs::read(&path).unwrap(), names()),
        (b"after".to_vec(), 1)
    );
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(Destination::is_replaceable(&path));
    assert!(!Destination::is_replaceable(std::path::Path::new(
        "/dev/null"
    )));
}
