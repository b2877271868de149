//! Keys: cryptography, states, limits and permissions.

use std::num::NonZeroU32;
use std::time::Duration;

use data_encoding::BASE64;
use dew_provider::cloud::{EncryptionAlgorithm, ErrorKind, KeyState, NewKey, SigningAlgorithm};
use dew_provider::sim::huawei::{Account, Config, Rights};
use dew_provider::util::secret_bytes::SecretBytes;
use ring::digest::{SHA256, SHA384, SHA512, digest};
use ring::signature as verify;
use serde_json::json;

use super::service::{Service, assert_error, deadline};

const AAD: Option<&str> = Some("shop/app");

fn secret(text: &str) -> SecretBytes {
    SecretBytes::from(text.to_owned())
}

async fn key(service: &Service, spec: &str, usage: Option<&str>) -> String {
    let new = NewKey {
        alias: "test".into(),
        spec: Some(spec.into()),
        usage: usage.map(Into::into),
        description: None,
    };
    let (kms, caller) = (&service.kms, &service.caller);
    kms.create_key(caller, &new, deadline()).await.unwrap()
}

#[tokio::test]
async fn data_is_opened_by_its_key_and_with_its_data_only() {
    let service = Service::start(Config::default()).await;
    let (kms, caller) = (&service.kms, &service.caller);
    let id = key(&service, "AES_256", None).await;
    let other = key(&service, "AES_256", None).await;
    for text in ["x", "pässwörd", &"x".repeat(4096)] {
        let sealed = kms
            .encrypt_data(caller, &id, &secret(text), AAD, deadline())
            .await;
        let sealed = sealed.unwrap();
        assert!((128..=5648).contains(&sealed.len()), "{}", sealed.len());
        let open = |id, sealed, aad| kms.decrypt_data(caller, id, sealed, aad, deadline());
        assert_eq!(open(None, &sealed, AAD).await.unwrap(), secret(text));
        assert_eq!(open(Some(&id), &sealed, AAD).await.unwrap(), secret(text));
        let wrong = open(Some(&other), &sealed, AAD).await.unwrap_err();
        assert!(wrong.message.contains("another key"), "{wrong}");
        for aad in [None, Some("shop/other")] {
            assert_error(open(None, &sealed, aad).await, 400, "KMS.2201");
        }
        let mut bytes = BASE64.decode(sealed.as_bytes()).unwrap();
        for at in [0, 9, 50, 90, bytes.len() - 1] {
            bytes[at] ^= 1;
            let changed = BASE64.encode(&bytes);
            let error = kms.decrypt_data(caller, None, &changed, AAD, deadline());
            let error = error.await.unwrap_err();
            bytes[at] ^= 1;
            assert!(matches!(error.status, Some(400 | 404)), "{at}: {error}");
        }
    }
    // The same text twice is not the same cipher text.
    let one = kms
        .encrypt_data(caller, &id, &secret("x"), None, deadline())
        .await;
    let two = kms
        .encrypt_data(caller, &id, &secret("x"), None, deadline())
        .await;
    assert_ne!(one.unwrap(), two.unwrap());
    let lines = kms
        .encrypt_data(caller, &id, &secret("a\nb"), None, deadline())
        .await;
    assert_error(lines, 400, "KMS.2101");
}

#[tokio::test]
async fn data_keys_are_made_wrapped_and_opened() {
    let service = Service::start(Config::default()).await;
    let (kms, caller) = (&service.kms, &service.caller);
    let id = key(&service, "AES_256", None).await;
    let other = key(&service, "AES_256", None).await;
    for bits in [128, 256, 512] {
        let made = kms.create_data_key(caller, &id, bits, AAD, deadline());
        let made = made.await.unwrap();
        let bytes = bits as usize / 8;
        assert_eq!(made.plain.len(), bytes);
        let open =
            |id, cipher, aad| kms.decrypt_data_key(caller, id, cipher, bytes, aad, deadline());
        assert_eq!(open(&id, &made.cipher, AAD).await.unwrap(), made.plain);
        assert_error(open(&id, &made.cipher, None).await, 400, "KMS.2201");
        assert_error(open(&other, &made.cipher, AAD).await, 400, "KMS.2201");
        // Another region's key wraps the same data key.
        let wrapped = kms.encrypt_data_key(caller, &other, &made.plain, AAD, deadline());
        let wrapped = wrapped.await.unwrap();
        assert_eq!(open(&other, &wrapped, AAD).await.unwrap(), made.plain);
        // A data key is not data.
        let as_data = kms
            .decrypt_data(caller, None, &BASE64.encode(&wrapped), AAD, deadline())
            .await;
        assert_error(as_data, 400, "KMS.2201");
    }
    let hidden = kms.create_data_key_without_plaintext(caller, &id, 256, None, deadline());
    let hidden = hidden.await.unwrap();
    let opened = kms.decrypt_data_key(caller, &id, &hidden, 32, None, deadline());
    assert_eq!(opened.await.unwrap().len(), 32);
    let random = async |bits| kms.random(caller, bits, deadline()).await.unwrap();
    let (one, two) = (random(512).await, random(512).await);
    assert!(one.len() == 64 && one != two);
}

/// Checks a signature with code that shares nothing with the emulator's.
fn is_valid(pem: &str, algorithm: SigningAlgorithm, message: &[u8], signature: &[u8]) -> bool {
    let base64: String = pem
        .lines()
        .filter(|line| !line.starts_with("---"))
        .collect();
    let info = BASE64.decode(base64.as_bytes()).unwrap();
    // The last part of a SubjectPublicKeyInfo is a BIT STRING with the key as ring wants it.
    let (method, key): (&dyn verify::VerificationAlgorithm, _) = match algorithm {
        SigningAlgorithm::EcdsaSha256 => {
            (&verify::ECDSA_P256_SHA256_ASN1, &info[info.len() - 65..])
        }
        SigningAlgorithm::EcdsaSha384 => {
            (&verify::ECDSA_P384_SHA384_ASN1, &info[info.len() - 97..])
        }
        // SEQUENCE, AlgorithmIdentifier, BIT STRING: 4 + 15 + 5 bytes.
        SigningAlgorithm::RsaPssSha256 => (&verify::RSA_PSS_2048_8192_SHA256, &info[24..]),
        SigningAlgorithm::RsaPssSha384 => (&verify::RSA_PSS_2048_8192_SHA384, &info[24..]),
        SigningAlgorithm::RsaPssSha512 => (&verify::RSA_PSS_2048_8192_SHA512, &info[24..]),
        SigningAlgorithm::RsaPkcs1Sha256 => (&verify::RSA_PKCS1_2048_8192_SHA256, &info[24..]),
        SigningAlgorithm::RsaPkcs1Sha384 => (&verify::RSA_PKCS1_2048_8192_SHA384, &info[24..]),
        SigningAlgorithm::RsaPkcs1Sha512 => (&verify::RSA_PKCS1_2048_8192_SHA512, &info[24..]),
        other => panic!("{other}"),
    };
    let key = verify::UnparsedPublicKey::new(method, key);
    key.verify(message, signature).is_ok()
}

#[tokio::test]
async fn signatures_are_valid_for_everybody() {
    let service = Service::start(Config::default()).await;
    let (kms, caller) = (&service.kms, &service.caller);
    let rsa = [
        SigningAlgorithm::RsaPssSha256,
        SigningAlgorithm::RsaPssSha384,
        SigningAlgorithm::RsaPssSha512,
        SigningAlgorithm::RsaPkcs1Sha256,
        SigningAlgorithm::RsaPkcs1Sha384,
        SigningAlgorithm::RsaPkcs1Sha512,
    ];
    for (spec, algorithms) in [
        ("RSA_2048", &rsa[..]),
        ("RSA_3072", &rsa[..1]),
        ("RSA_4096", &rsa[..1]),
        ("EC_P256", &[SigningAlgorithm::EcdsaSha256]),
        ("EC_P384", &[SigningAlgorithm::EcdsaSha384]),
    ] {
        let id = key(&service, spec, None).await;
        let pem = kms.public_key(caller, &id, deadline()).await.unwrap();
        for algorithm in algorithms.iter().copied() {
            let message = b"what is signed";
            let kind = match algorithm.digest_len() {
                32 => &SHA256,
                48 => &SHA384,
                _ => &SHA512,
            };
            let hash = digest(kind, message);
            let signature = kms.sign(caller, &id, algorithm, hash.as_ref(), deadline());
            let signature = signature.await.unwrap();
            assert!(
                is_valid(&pem, algorithm, message, &signature),
                "{spec} {algorithm}"
            );
            let verified = async |hash: &[u8], signature: &[u8]| {
                let verified = kms.verify(caller, &id, algorithm, hash, signature, deadline());
                verified.await.unwrap()
            };
            assert!(
                verified(hash.as_ref(), &signature).await,
                "{spec} {algorithm}"
            );
            let other = digest(kind, b"something else");
            assert!(!verified(other.as_ref(), &signature).await);
            let mut changed = signature.clone();
            *changed.last_mut().unwrap() ^= 1;
            assert!(!verified(hash.as_ref(), &changed).await);
            assert!(!verified(hash.as_ref(), b"no signature").await);
        }
        let unfit = SigningAlgorithm::EcdsaSha512;
        let unfit = kms.sign(caller, &id, unfit, &[0; 64], deadline());
        assert_error(unfit.await, 400, "KMS.0332");
    }
}

#[tokio::test]
async fn keys_do_only_what_they_are_for() {
    let service = Service::start(Config::default()).await;
    let (kms, caller) = (&service.kms, &service.caller);
    let aes = key(&service, "AES_256", None).await;
    let signing = key(&service, "EC_P256", None).await;
    let rsa = key(&service, "RSA_2048", Some("ENCRYPT_DECRYPT")).await;
    let pss = SigningAlgorithm::RsaPssSha256;
    let sign = |id, algorithm| kms.sign(caller, id, algorithm, &[0; 32], deadline());
    assert_error(sign(&aes, pss).await, 400, "KMS.0331");
    assert_error(sign(&rsa, pss).await, 400, "KMS.0334");
    assert_error(
        kms.public_key(caller, &aes, deadline()).await,
        400,
        "KMS.0331",
    );
    let make = |id| kms.create_data_key(caller, id, 256, None, deadline());
    assert_error(make(&signing).await, 400, "KMS.0325");
    let text = secret("to an RSA key");
    let encrypt = |id| kms.encrypt_data(caller, id, &text, None, deadline());
    assert_error(encrypt(&signing).await, 400, "KMS.0335");
    assert_error(encrypt(&rsa).await, 400, "KMS.0325");
    let oaep = EncryptionAlgorithm::RsaOaepSha256;
    let sealed = kms
        .encrypt_data_with(caller, &rsa, oaep, &text, None, deadline())
        .await;
    let sealed = sealed.unwrap();
    let opened = kms.decrypt_data_with(caller, Some(&rsa), oaep, &sealed, None, deadline());
    assert_eq!(opened.await.unwrap(), text);
    let long = secret(&"x".repeat(191));
    let long = kms.encrypt_data_with(caller, &rsa, oaep, &long, None, deadline());
    assert_error(long.await, 400, "KMS.2108");

    for spec in ["SM2", "SM4", "HMAC_256", "nonsense"] {
        let new = NewKey {
            alias: "a".into(),
            spec: Some(spec.into()),
            ..NewKey::default()
        };
        let error = kms.create_key(caller, &new, deadline()).await.unwrap_err();
        assert!(
            error
                .message
                .contains(&format!("key_spec {spec} is not emulated")),
            "{error}"
        );
    }
    for (alias, usage) in [("not an alias", None), ("a", Some("SIGN_VERIFY"))] {
        let new = NewKey {
            alias: alias.into(),
            usage: usage.map(Into::into),
            ..NewKey::default()
        };
        let made = kms.create_key(caller, &new, deadline()).await;
        assert_error(made, 400, "KMS.0308");
    }
}

#[tokio::test]
async fn states_decide_what_a_key_does() {
    let service = Service::start(Config::default()).await;
    let (kms, caller) = (&service.kms, &service.caller);
    let id = key(&service, "AES_256", None).await;
    let text = secret("x");
    let sealed = kms.encrypt_data(caller, &id, &text, None, deadline()).await;
    let sealed = sealed.unwrap();
    let open = || kms.decrypt_data(caller, None, &sealed, None, deadline());
    let state = async || {
        let key = kms.describe_key(caller, &id, deadline()).await.unwrap();
        (key.state(), key.scheduled_deletion_date.is_empty())
    };
    assert_eq!(state().await, (KeyState::Enabled, true));
    kms.disable_key(caller, &id, deadline()).await.unwrap();
    assert_eq!(state().await, (KeyState::Disabled, true));
    assert_error(open().await, 400, "KMS.0209");
    assert_eq!(open().await.unwrap_err().kind, ErrorKind::KeyUnavailable);
    kms.enable_key(caller, &id, deadline()).await.unwrap();
    assert_eq!(open().await.unwrap(), text);

    let schedule = |days| kms.schedule_key_deletion(caller, &id, days, deadline());
    assert_eq!(
        schedule(7).await.unwrap().state(),
        KeyState::PendingDeletion
    );
    assert_eq!(state().await, (KeyState::PendingDeletion, false));
    assert_error(open().await, 400, "KMS.0210");
    assert_error(schedule(7).await, 400, "KMS.0210");
    assert_error(
        kms.enable_key(caller, &id, deadline()).await,
        400,
        "KMS.0210",
    );
    let cancelled = kms
        .cancel_key_deletion(caller, &id, deadline())
        .await
        .unwrap();
    assert_eq!(cancelled.state(), KeyState::Disabled);
    assert_error(
        kms.cancel_key_deletion(caller, &id, deadline()).await,
        400,
        "KMS.0308",
    );

    let unknown = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";
    assert_error(
        kms.describe_key(caller, unknown, deadline()).await,
        404,
        "KMS.0207",
    );
    for days in [6, 1097] {
        assert_eq!(schedule(days).await.unwrap_err().attempts, 0);
    }
}

#[tokio::test]
async fn keys_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        state: Some(folder.path().join("state.json")),
        ..Config::default()
    };
    let before = Service::start(config.clone()).await;
    let (kms, caller) = (&before.kms, &before.caller);
    let id = key(&before, "AES_256", None).await;
    let sealed = kms
        .encrypt_data(caller, &id, &secret("kept"), AAD, deadline())
        .await;
    let sealed = sealed.unwrap();
    let mut public = Vec::new();
    for spec in ["RSA_2048", "EC_P256", "EC_P384"] {
        let id = key(&before, spec, None).await;
        public.push((
            id.clone(),
            kms.public_key(caller, &id, deadline()).await.unwrap(),
        ));
    }
    let (url, listed) = (
        before.emulator.url(),
        kms.list_keys(caller, deadline()).await.unwrap(),
    );
    drop(before);

    let after = Service::start(config).await;
    assert_ne!(after.emulator.url(), url);
    let (kms, caller) = (&after.kms, &after.caller);
    let opened = kms.decrypt_data(caller, Some(&id), &sealed, AAD, deadline());
    assert_eq!(opened.await.unwrap(), secret("kept"));
    for (id, pem) in public {
        assert_eq!(kms.public_key(caller, &id, deadline()).await.unwrap(), pem);
    }
    assert_eq!(kms.list_keys(caller, deadline()).await.unwrap(), listed);
    assert_eq!(listed.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_rate_can_be_limited_as_the_service_does() {
    let config = Config {
        kms_qps: NonZeroU32::new(20),
        ..Config::default()
    };
    let service = Service::in_memory(config);
    let (kms, caller) = (&service.kms, &service.caller);
    let statuses = || service.emulator.answers("CreateRandom");
    for _ in 0..20 {
        kms.random(caller, 8, deadline()).await.unwrap();
    }
    // Time stands still while calls are made, and the next one is repeated until it has passed.
    let first = kms.random(caller, 8, deadline()).await;
    assert_eq!(statuses()[..21], [&[200; 20][..], &[429]].concat());
    assert_eq!(first.is_ok(), statuses().last() == Some(&200));
    tokio::time::sleep(Duration::from_secs(1)).await;
    kms.random(caller, 8, deadline()).await.unwrap();
    assert_eq!(statuses().last(), Some(&200));
}

#[tokio::test]
async fn faults_hit_keys_and_regions() {
    let service = Service::start(Config::default()).await;
    let (kms, caller) = (&service.kms, &service.caller);
    let id = key(&service, "AES_256", None).await;
    let other = key(&service, "AES_256", None).await;
    let make = |id| kms.create_data_key(caller, id, 256, None, deadline());
    let fault = |matches, fault| {
        let rule = json!({"match": matches, "fault": fault});
        service.emulator.add_faults(&rule.to_string()).unwrap();
    };
    fault(json!({"key": id}), json!({"status": 503}));
    let error = make(&id).await.unwrap_err();
    assert_eq!(
        (error.code.as_deref(), error.attempts),
        (Some("KMS.0102"), 5)
    );
    make(&other).await.unwrap();
    service.emulator.clear_faults();
    fault(
        json!({"region": "cn-north-4"}),
        json!({"status": 400, "code": "KMS.0209"}),
    );
    assert_error(make(&other).await, 400, "KMS.0209");
}

#[tokio::test]
async fn an_account_needs_the_right_to_use_keys() {
    let rights = Rights {
        kms: false,
        ..Rights::default()
    };
    let account = Account {
        rights,
        ..Account::demo()
    };
    let service = Service::start(Config {
        accounts: vec![account],
        ..Config::default()
    })
    .await;
    let made = service.kms.random(&service.caller, 8, deadline()).await;
    let error = made.unwrap_err();
    assert_eq!(
        (error.kind, error.code.as_deref()),
        (ErrorKind::Denied, Some("KMS.0306"))
    );
    assert!(error.message.contains("kms:cmk:generate"), "{error}");
}
