//! Messages that the official SDK wrote, and what others made of them.

use data_encoding::HEXLOWER;
use dew_provider::envelope_sdk::{
    DataKeys, LocalKeys, OpenLimits, SdkError, SdkForm, SdkKeyInfo, SdkReader,
};
use dew_provider::util::secret_bytes::SecretBytes;
use ring::digest::{SHA256, digest};

use super::{KnownDeks, Trickle, Vectors, hex, open, text};

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest(&SHA256, bytes).as_ref())
}

#[tokio::test]
async fn messages_of_the_official_sdk_are_opened() {
    let vectors = Vectors::load();
    let keys = KnownDeks::of(&vectors);
    for vector in vectors.list("vectors") {
        let name = text(&vector["name"]);
        let message = vectors.message(vector);
        assert_eq!(sha256(&message), text(&vector["sha256"]), "{name}");
        let reader = SdkReader::read(message.as_slice()).unwrap();

        let is_file = reader.form() == SdkForm::File;
        assert_eq!(is_file, vector["form"] == "file", "{name}");
        let header = reader.header();
        assert_eq!(u64::from(header.algorithm().id()), vector["alg"], "{name}");
        assert_eq!(header.context().bytes(), hex(&vector["aad_hex"]), "{name}");
        let context: Vec<_> = header.context().entries().to_vec();
        let expected: Vec<(String, String)> =
            serde_json::from_value(vector["context_in_header"].clone()).unwrap();
        assert_eq!(context, expected, "{name}");
        for (key, info) in header
            .wrapped()
            .iter()
            .zip(vector["discovery_info"].as_array().unwrap())
        {
            match &key.info {
                SdkKeyInfo::Unnamed => assert!(info.is_null(), "{name}"),
                SdkKeyInfo::Discovery(named) => {
                    let named = [
                        &named.key_id,
                        &named.region,
                        &named.project,
                        &named.endpoint,
                    ];
                    assert_eq!(serde_json::to_value(named).unwrap(), *info, "{name}");
                }
            }
        }

        let dek = keys.unwrap(header).await.unwrap();
        let mut plain = Vec::new();
        let report = reader
            .open(&dek, OpenLimits::default(), &mut plain)
            .unwrap();
        assert_eq!(sha256(&plain), text(&vector["plain_sha256"]), "{name}");
        assert_eq!(report.text_bytes, vector["plain_len"], "{name}");
        let warnings = report.warnings().join("\n");
        assert_eq!(
            warnings.contains("was not used"),
            vector["discovery"] == true,
            "{warnings}"
        );
        assert!(warnings.contains("this format does not"), "{warnings}");
    }
}

/// The context is the one that the SDK serialized, whatever the order in which it was given.
#[test]
fn contexts_are_ordered_as_the_official_sdk_does() {
    let vectors = Vectors::load();
    for vector in vectors.list("vectors") {
        let given: Vec<(String, String)> =
            serde_json::from_value(vector["context_given"].clone()).unwrap();
        let reversed = given.iter().rev().cloned().collect();
        for entries in [given, reversed] {
            let context = dew_provider::envelope_sdk::SdkContext::new(entries).unwrap();
            assert_eq!(context.bytes(), hex(&vector["aad_hex"]));
        }
    }
}

#[tokio::test]
async fn messages_with_local_keys_are_opened_by_these_keys() {
    let vectors = Vectors::load();
    let mut opened = 0;
    for vector in vectors.list("vectors") {
        let Some(master) = vector["wrapped_by"][0]["raw_master"].as_str() else {
            continue;
        };
        let master = data_encoding::BASE64.decode(master.as_bytes()).unwrap();
        let message = vectors.message(vector);
        let reader = SdkReader::read(message.as_slice()).unwrap();
        let keys = [vec![1; 16], master].map(SecretBytes::new);
        let dek = LocalKeys::new(&keys)
            .unwrap()
            .unwrap(reader.header())
            .await
            .unwrap();
        assert_eq!(dek.expose(), hex(&vector["dek_hex"]));
        let wrong = LocalKeys::new(&keys[..1]).unwrap();
        let error = wrong.unwrap(reader.header()).await.unwrap_err();
        assert!(
            error.to_string().contains("none of the local keys"),
            "{error}"
        );
        opened += 1;
    }
    assert_eq!(opened, 4);
}

/// A message that the SDK wrote and cannot open itself.
#[test]
fn a_message_with_equal_values_in_another_order_is_opened() {
    let vectors = Vectors::load();
    for vector in vectors.list("not_opened_by_the_sdk_itself") {
        let dek = SecretBytes::new(hex(&vector["dek_hex"]));
        let (plain, _) = open(&vectors.message(vector), &dek).unwrap();
        assert_eq!(sha256(&plain), text(&vector["plain_sha256"]));
    }
}

#[test]
fn tampered_messages_are_refused_or_reported() {
    let vectors = Vectors::load();
    for tampered in vectors.list("tampered") {
        let file = text(&tampered["file"]);
        let of = vectors.named(text(&tampered["of"]));
        let dek = SecretBytes::new(hex(&of["dek_hex"]));
        let message = vectors.message(tampered);
        let result = open(&message, &dek);
        match (text(&tampered["strict_reader"]), result) {
            // What the format cannot show is reported, with what it does show.
            ("opens, wrong text", Ok((plain, report))) => {
                assert_ne!(sha256(&plain), text(&of["plain_sha256"]), "{file}");
                assert_eq!(report.text_bytes, plain.len() as u64);
                assert!(!report.is_declared);
                let warnings = report.warnings();
                assert!(
                    warnings[0].contains("order and number of blocks"),
                    "{file}: {warnings:?}"
                );
            }
            // Stricter than the SDK and the first reader.
            ("opens", Err(SdkError::TrailingBytes)) => {
                assert_eq!(file, "tampered/mem-trailing-garbage.bin");
            }
            (expected, Err(_)) if expected.starts_with("refuses") => {}
            (expected, result) => panic!("{file}: {expected}, but {result:?}"),
        }
    }
}

#[test]
fn refused_messages_name_what_is_wrong() {
    let vectors = Vectors::load();
    let expected = [
        ("file-cut-inside-head", "ends inside the head of a block"),
        ("file-cut-inside-block", "ends inside a block"),
        ("file-header-tag-bit", "its tag does not match"),
        (
            "file-content-type-byte",
            "invalid content type in the message's header: it is",
        ),
        ("file-context-order-reversed", "header was changed"),
        ("file-context-bit", "header was changed"),
        ("file-block-bit", "block 1 was changed"),
        (
            "file-alg-byte-128",
            "the data key has 32 bytes; AES-128-GCM needs 16",
        ),
        ("file-empty-file", "ends inside the header (it is empty)"),
        ("mem-trailing-garbage", "bytes after the end"),
        ("mem-header-tag-bit", "header was changed"),
        ("mem-ctx-order", "header was changed"),
        ("mem-cut", "ends inside a block"),
        ("mem-header-only", "ends inside the body"),
    ];
    for tampered in vectors.list("tampered") {
        let file = text(&tampered["file"]);
        let of = vectors.named(text(&tampered["of"]));
        let dek = SecretBytes::new(hex(&of["dek_hex"]));
        let result = open(&vectors.message(tampered), &dek);
        let case = expected.iter().find(|(name, _)| file.contains(*name));
        match (case, result) {
            (Some((_, message)), Err(error)) => {
                assert!(error.to_string().contains(message), "{file}: {error}");
            }
            (None, Ok(_)) => {}
            (case, result) => panic!("{file}: {case:?}, but {result:?}"),
        }
    }
}

/// The SDK opens a file that was cut 20 bytes into a block after 256 full blocks; and fails when the header
/// arrives in more than one read.
#[test]
fn cuts_and_short_reads_are_handled_where_the_sdk_fails() {
    let vectors = Vectors::load();
    let vector = vectors.named("file-kms1-a256-c1-1024");
    let dek = SecretBytes::new(hex(&vector["dek_hex"]));
    let message = vectors.message(vector);
    for step in [1, 7, 100] {
        let reader = SdkReader::read(Trickle {
            bytes: &message,
            step,
        });
        let mut plain = Vec::new();
        let report = reader
            .unwrap()
            .open(&dek, OpenLimits::default(), &mut plain)
            .unwrap();
        assert_eq!(report.blocks, 1);
        assert_eq!(sha256(&plain), text(&vector["plain_sha256"]));
    }
    let cut = [&message[..], &message[158..178]].concat();
    let error = open(&cut, &dek).unwrap_err();
    assert!(matches!(error, SdkError::Truncated(_)), "{error}");
    let repeated = [&message[..], &message[158..]].concat();
    let error = open(&repeated, &dek).unwrap_err();
    assert!(matches!(error, SdkError::RepeatedBlock(2)), "{error}");
}
