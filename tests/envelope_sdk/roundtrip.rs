//! What is written is read again.

use dew_provider::envelope_sdk::{
    DataKeys, Declaration, Discovery, KMS_PROVIDER, OpenLimits, SdkAlgorithm, SdkContext, SdkError,
    SdkForm, SdkKeyInfo, SdkReader, SdkSealer, WrappedDek,
};
use proptest::prelude::*;

use super::{Trickle, entries, local_keys, open, sealer};

const SIZES: [usize; 9] = [0, 1, 1023, 1024, 1025, 2048, 65_536, 65_537, 1 << 20];

fn sample(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + i / 251) as u8).collect()
}

#[tokio::test]
async fn both_forms_and_algorithms_round_trip() {
    for algorithm in [SdkAlgorithm::Aes128Gcm, SdkAlgorithm::Aes256Gcm] {
        for length in SIZES {
            let plain = sample(length);
            let context = || SdkContext::new(entries(&[("ключ", "値-😀"), ("a", "b")])).unwrap();
            let (memory, dek) = sealer(algorithm, context()).await;
            let message = memory.seal(&plain).unwrap();
            let (text, report) = open(&message, &dek).unwrap();
            assert!(text == plain && report.form == SdkForm::Memory);

            let (file, dek) = sealer(algorithm, context()).await;
            let mut message = Vec::new();
            // Blocks are full, however the text arrives.
            let text = Trickle {
                bytes: &plain,
                step: 700,
            };
            assert_eq!(file.seal_file(text, &mut message).unwrap(), length as u64);
            let reader = SdkReader::read(message.as_slice()).unwrap();
            assert_eq!(reader.form(), SdkForm::File);
            let unwrapped = local_keys().unwrap(reader.header()).await.unwrap();
            assert_eq!(unwrapped, dek);
            let (text, report) = open(&message, &dek).unwrap();
            assert!(text == plain, "{length}");
            assert_eq!(report.blocks, length.div_ceil(1024) as u64);
            assert_eq!(report.short_block, None);
        }
    }
}

/// A header of 256 bytes makes a file message begin like a memory message.
#[tokio::test]
async fn the_forms_are_told_apart_for_every_header_length() {
    let mut ambiguous = 0;
    for algorithm in [SdkAlgorithm::Aes128Gcm, SdkAlgorithm::Aes256Gcm] {
        for length in 0..300 {
            let context = SdkContext::new(entries(&[("k", &"v".repeat(length))])).unwrap();
            let (file, dek) = sealer(algorithm, context.clone()).await;
            let mut message = Vec::new();
            file.seal_file(&b"text"[..], &mut message).unwrap();
            ambiguous += usize::from(message[..2] == [1, 0]);
            assert_eq!(open(&message, &dek).unwrap().1.form, SdkForm::File);
            let (memory, dek) = sealer(algorithm, context).await;
            let message = memory.seal(b"text").unwrap();
            assert_eq!(open(&message, &dek).unwrap().1.form, SdkForm::Memory);
        }
    }
    assert_eq!(ambiguous, 2);
}

/// A declared text is protected against all that the format leaves open.
#[tokio::test]
async fn a_declared_text_cannot_be_cut_or_reordered() {
    let plain = sample(5000);
    let declaration = Declaration::of(plain.as_slice()).unwrap();
    let context = declaration.add_to(entries(&[("a", "b")])).unwrap();
    let (file, dek) = sealer(SdkAlgorithm::Aes256Gcm, context).await;
    let mut message = Vec::new();
    file.seal_file(plain.as_slice(), &mut message).unwrap();
    let (text, report) = open(&message, &dek).unwrap();
    assert!(text == plain && report.is_declared);
    assert_eq!(report.warnings(), Vec::<String>::new());

    let header = 2 + SdkReader::read(message.as_slice())
        .unwrap()
        .header()
        .length();
    let block = 12 + 8 + 1024 + 16;
    let part = |from: usize, to: usize| &message[header + from * block..header + to * block];
    let head = &message[..header];
    let end = &message[header + 4 * block..];
    for changed in [
        head.to_vec(),
        [head, part(0, 3)].concat(),
        [head, part(1, 4), end].concat(),
        [head, part(1, 2), part(0, 1), part(2, 4), end].concat(),
        [head, end, part(0, 4)].concat(),
    ] {
        let error = open(&changed, &dek).unwrap_err();
        assert!(matches!(error, SdkError::Declaration { .. }), "{error}");
    }
    // A block of the file as a memory message.
    let piece = [
        &message[2..header],
        &part(0, 1)[..12],
        &1024_u64.to_be_bytes(),
        &part(0, 1)[20..],
    ];
    let error = open(&piece.concat(), &dek).unwrap_err();
    assert!(matches!(error, SdkError::Declaration { .. }), "{error}");
}

/// The same piece without a declaration is a valid message: the format's fault, which the report names.
#[tokio::test]
async fn a_piece_of_a_file_as_a_memory_message_is_reported() {
    let (file, dek) = sealer(SdkAlgorithm::Aes256Gcm, SdkContext::default()).await;
    let mut message = Vec::new();
    file.seal_file(sample(1500).as_slice(), &mut message)
        .unwrap();
    let reader = SdkReader::read(message.as_slice()).unwrap();
    let start = 2 + reader.header().length();
    let mut piece = message[2..start + 12].to_vec();
    piece.extend(1024_u64.to_be_bytes());
    piece.extend(&message[start + 20..start + 20 + 1024 + 16]);
    let (text, report) = open(&piece, &dek).unwrap();
    assert_eq!(text, sample(1500)[..1024]);
    assert!(report.warnings()[0].contains("a piece of a longer one"));
}

#[tokio::test]
async fn a_text_that_changes_while_it_is_encrypted_is_noticed() {
    let declaration = Declaration::of(&b"before"[..]).unwrap();
    let context = declaration.add_to([]).unwrap();
    let (file, _) = sealer(SdkAlgorithm::Aes256Gcm, context.clone()).await;
    let error = file.seal_file(&b"after"[..], std::io::sink()).unwrap_err();
    assert!(error.to_string().contains("had 6 bytes"), "{error}");
    let (memory, _) = sealer(SdkAlgorithm::Aes256Gcm, context).await;
    memory.seal(b"after").unwrap_err();
}

/// Entries of an application that only look like a declaration do not count as one.
#[tokio::test]
async fn other_entries_named_like_a_declaration_are_no_declaration() {
    let digest = "0".repeat(64);
    for (sha256, length) in [("x", "4"), (&*digest, "04"), (&*digest, "4 m")] {
        let context = SdkContext::new(entries(&[("sha256", sha256), ("length", length)])).unwrap();
        let (memory, dek) = sealer(SdkAlgorithm::Aes256Gcm, context).await;
        let message = memory.seal(b"any text").unwrap();
        assert!(!open(&message, &dek).unwrap().1.is_declared);
    }
    let declaration = Declaration::of(&b""[..]).unwrap();
    let error = declaration.add_to(entries(&[("length", "1")])).unwrap_err();
    assert!(error.to_string().contains("length"), "{error}");
}

#[tokio::test]
async fn blocks_of_a_pipe_are_opened_and_reported() {
    // Two messages under one data key give blocks of different sizes under one header.
    let context = SdkContext::default();
    let key = local_keys()
        .wrap(SdkAlgorithm::Aes256Gcm, &context)
        .await
        .unwrap();
    let dek = key.dek.clone();
    let file = SdkSealer::new(SdkAlgorithm::Aes256Gcm, context, key).unwrap();
    let mut message = Vec::new();
    file.seal_file(sample(1500).as_slice(), &mut message)
        .unwrap();
    let start = 2 + SdkReader::read(message.as_slice())
        .unwrap()
        .header()
        .length();
    let first = start + 36 + 1024;
    let swapped = [&message[..start], &message[first..], &message[start..first]];
    let (text, report) = open(&swapped.concat(), &dek).unwrap();
    assert_eq!(text.len(), 1500);
    assert_eq!(report.short_block, Some(1));
    assert!(report.warnings()[1].contains("block 1 is shorter"));
}

#[tokio::test]
async fn keys_are_named_for_discovery_and_limits_hold() {
    let context = SdkContext::default();
    let key = local_keys()
        .wrap(SdkAlgorithm::Aes256Gcm, &context)
        .await
        .unwrap();
    let named = |endpoint: &str| WrappedDek {
        provider: KMS_PROVIDER.to_owned(),
        info: SdkKeyInfo::Discovery(Discovery {
            key_id: "k".repeat(36),
            region: "ap-southeast-1".to_owned(),
            project: "p".repeat(32),
            endpoint: endpoint.to_owned(),
        }),
        wrapped: vec![1; 80],
    };
    let seal = |wrapped: Vec<WrappedDek>| {
        let key = dew_provider::envelope_sdk::SdkDataKey {
            dek: key.dek.clone(),
            wrapped,
            left_out: Vec::new(),
        };
        SdkSealer::new(SdkAlgorithm::Aes256Gcm, context.clone(), key)
    };
    let message = seal(vec![named(""); 3]).unwrap().seal(b"text").unwrap();
    let reader = SdkReader::read(message.as_slice()).unwrap();
    assert_eq!(reader.header().wrapped(), vec![named(""); 3]);
    let report = reader.open(&key.dek, OpenLimits::default(), std::io::sink());
    assert_eq!(report.unwrap().endpoints, Vec::<String>::new());

    // 127 bytes of information are the most that the SDK can write.
    seal(vec![named(&"e".repeat(40))]).unwrap();
    let too_long = [
        seal(vec![named(&"e".repeat(41))]),
        seal(vec![named(&"e".repeat(300))]),
        seal(vec![]),
        seal(vec![named(""); 128]),
    ];
    for result in too_long {
        let error = result.err().unwrap();
        assert!(matches!(error, SdkError::Header { .. }), "{error}");
    }
}

#[tokio::test]
async fn contexts_that_the_official_sdk_cannot_open_again_are_refused() {
    let error = SdkContext::new(entries(&[("a", "1"), ("a", "2")])).unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
    let error = SdkContext::new(entries(&[("a", &"v".repeat(32_763))])).unwrap_err();
    assert!(error.to_string().contains("32767"), "{error}");
    // Nine keys with one hash and equal values: Java's map makes a tree of them.
    let mut keys = vec![String::new()];
    for _ in 0..4 {
        let longer = keys
            .iter()
            .flat_map(|key| [format!("{key}Aa"), format!("{key}BB")]);
        keys = longer.collect();
    }
    let equal = keys.iter().map(|key| (key.clone(), "same".to_owned()));
    SdkContext::new(equal.clone().take(8)).unwrap();
    let error = SdkContext::new(equal.take(9)).unwrap_err();
    assert!(error.to_string().contains("same hash"), "{error}");
    let other = keys.iter().map(|key| (key.clone(), key.clone()));
    SdkContext::new(other).unwrap();

    // The SDK writes a header of more than 32,767 bytes, and cannot read it.
    let context = SdkContext::new(entries(&[("a", &"v".repeat(32_700))])).unwrap();
    let key = local_keys()
        .wrap(SdkAlgorithm::Aes256Gcm, &context)
        .await
        .unwrap();
    let error = SdkSealer::new(SdkAlgorithm::Aes256Gcm, context, key)
        .err()
        .unwrap();
    assert!(error.to_string().contains("32767"), "{error}");
}

/// A data key never fits a message of the other algorithm, and no other message.
#[tokio::test]
async fn a_wrong_data_key_opens_nothing() {
    let (memory, dek) = sealer(SdkAlgorithm::Aes256Gcm, SdkContext::default()).await;
    let message = memory.seal(b"text").unwrap();
    let (_, other) = sealer(SdkAlgorithm::Aes256Gcm, SdkContext::default()).await;
    assert_ne!(dek, other);
    assert!(matches!(open(&message, &other), Err(SdkError::HeaderTag)));
    let (_, short) = sealer(SdkAlgorithm::Aes128Gcm, SdkContext::default()).await;
    let error = open(&message, &short).unwrap_err();
    assert!(error.to_string().contains("has 16 bytes"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_context_round_trips(
        map in prop::collection::btree_map(".{0,12}", "[a-c]{0,2}", 0..40),
        length in 0_usize..3000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let context = SdkContext::new(map.clone()).unwrap();
        let mut given: Vec<_> = context.entries().to_vec();
        given.sort();
        prop_assert_eq!(given, map.into_iter().collect::<Vec<_>>());
        let (file, dek) = runtime.block_on(sealer(SdkAlgorithm::Aes128Gcm, context.clone()));
        let mut message = Vec::new();
        file.seal_file(sample(length).as_slice(), &mut message).unwrap();
        let reader = SdkReader::read(message.as_slice()).unwrap();
        prop_assert_eq!(reader.header().context(), &context);
        prop_assert_eq!(open(&message, &dek).unwrap().0, sample(length));
    }
}
