//! Requests and responses of each operation, and which are repeated.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::cloud::error::{ApiError, ErrorKind};
use crate::cloud::testing::{caller, client, reply};
use crate::util::env::Env;
use crate::util::secret_bytes::SecretBytes;

const KEY: &str = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";
const OTHER: &str = "11111111-e727-4d9c-b35d-f84bb474a37f";
/// 32 bytes as hex, and their SHA-256.
const DATA_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const DATA_KEY_DIGEST: &str = "630dcd2966c4336691125448bbb25b4ff412a49c732db2c8abc1b8581bd710dd";
const AAD: Option<&str> = Some("ns/app");

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(45)
}

fn plain_key() -> SecretBytes {
    SecretBytes::new((0..32).collect())
}

/// Makes a call against a server that answers `body`; gives the request line and body that it got.
async fn sent<T>(body: Value, call: impl AsyncFnOnce(Kms) -> T) -> (T, String, Value) {
    let body = body.to_string();
    let (cloud, log) = client(&Env::default(), move |_, _| reply(200, "", &body));
    let result = call(Kms::new(cloud)).await;
    let request = log.all().remove(0);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1");
    let body = serde_json::from_str(body).unwrap();
    (result, line.to_owned(), body)
}

#[tokio::test(start_paused = true)]
async fn keys() {
    let new = NewKey {
        alias: "a".into(),
        spec: Some("RSA_2048".into()),
        ..NewKey::default()
    };
    let made = json!({"key_info": {"key_id": KEY, "domain_id": "d"}});
    let (id, line, body) = sent(made, async |kms| {
        kms.create_key(&caller(), &new, soon()).await.unwrap()
    })
    .await;
    assert_eq!(
        (id.as_str(), line.as_str()),
        (KEY, "POST /v1.0/p1/kms/create-key")
    );
    assert_eq!(body, json!({"key_alias": "a", "key_spec": "RSA_2048"}));

    // Numbers are accepted as numbers too, and what is missing is empty.
    let detail = json!({"key_id": KEY, "key_state": 4, "creation_date": 17, "key_alias": null});
    let info = json!({"key_info": detail.clone()});
    let (key, line, _) = sent(info, async |kms| {
        kms.describe_key(&caller(), KEY, soon()).await.unwrap()
    })
    .await;
    assert_eq!(line, "POST /v1.0/p1/kms/describe-key");
    assert_eq!(key.state(), KeyState::PendingDeletion);
    assert_eq!(
        (key.creation_date.as_str(), key.key_alias.as_str()),
        ("17", "")
    );

    let list = json!({"keys": [KEY], "key_details": [detail], "truncated": "false", "total": 1});
    let (keys, line, body) = sent(list, async |kms| {
        kms.list_keys(&caller(), soon()).await.unwrap()
    })
    .await;
    assert_eq!(
        (keys.len(), line.as_str()),
        (1, "POST /v1.0/p1/kms/list-keys")
    );
    assert_eq!(body, json!({"limit": "100", "key_spec": "ALL"}));

    let status = json!({"key_info": {"key_id": KEY, "key_state": "3"}});
    let (status, line, body) = sent(status, async |kms| {
        kms.disable_key(&caller(), KEY, soon()).await.unwrap()
    })
    .await;
    assert_eq!(status.state(), KeyState::Disabled);
    assert_eq!(line, "POST /v1.0/p1/kms/disable-key");
    assert_eq!(body, json!({"key_id": KEY}));
    let status = json!({"key_info": {"key_id": KEY, "key_state": "2"}});
    let (status, line, _) = sent(status, async |kms| {
        kms.enable_key(&caller(), KEY, soon()).await.unwrap()
    })
    .await;
    assert_eq!(status.state(), KeyState::Enabled);
    assert_eq!(line, "POST /v1.0/p1/kms/enable-key");

    let status = json!({"key_id": KEY, "key_state": "4"});
    let (_, line, body) = sent(status, async |kms| {
        kms.schedule_key_deletion(&caller(), KEY, 7, soon())
            .await
            .unwrap()
    })
    .await;
    assert_eq!(line, "POST /v1.0/p1/kms/schedule-key-deletion");
    assert_eq!(body, json!({"key_id": KEY, "pending_days": "7"}));
    let status = json!({"key_id": KEY, "key_state": "3"});
    let (_, line, _) = sent(status, async |kms| {
        kms.cancel_key_deletion(&caller(), KEY, soon())
            .await
            .unwrap()
    })
    .await;
    assert_eq!(line, "POST /v1.0/p1/kms/cancel-key-deletion");
}

#[tokio::test(start_paused = true)]
async fn data() {
    let text = SecretBytes::from("pässwörd \"1\"".to_owned());
    let answer = json!({"key_id": KEY, "cipher_text": "AAEC"});
    let (cipher, line, body) = sent(answer, async |kms| {
        kms.encrypt_data(&caller(), KEY, &text, AAD, soon())
            .await
            .unwrap()
    })
    .await;
    assert_eq!(
        (cipher.as_str(), line.as_str()),
        ("AAEC", "POST /v1.0/p1/kms/encrypt-data")
    );
    let expected = json!({"key_id": KEY, "plain_text": "pässwörd \"1\"", "additional_authenticated_data": "ns/app"});
    assert_eq!(body, expected);

    let answer = json!({"key_id": KEY, "plain_text": "two", "plain_text_base64": "dHdv"});
    let (plain, line, body) = sent(answer.clone(), async |kms| {
        kms.decrypt_data(&caller(), Some(KEY), " AAEC\n", None, soon())
            .await
            .unwrap()
    })
    .await;
    assert_eq!(
        (plain.expose(), line.as_str()),
        (&b"two"[..], "POST /v1.0/p1/kms/decrypt-data")
    );
    assert_eq!(body, json!({"key_id": KEY, "cipher_text": "AAEC"}));
    let (error, ..) = sent(answer, async |kms| {
        kms.decrypt_data(&caller(), Some(OTHER), "AAEC", None, soon())
            .await
            .unwrap_err()
    })
    .await;
    assert!(
        error.message.contains("another key") && !error.message.contains("two"),
        "{error}"
    );

    let rsa = EncryptionAlgorithm::RsaOaepSha256;
    let answer = json!({"key_id": KEY, "cipher_text": "AAEC"});
    let (_, _, body) = sent(answer, async |kms| {
        kms.encrypt_data_with(&caller(), KEY, rsa, &text, None, soon())
            .await
            .unwrap()
    })
    .await;
    assert_eq!(body["encryption_algorithm"], "RSAES_OAEP_SHA_256");
}

#[tokio::test(start_paused = true)]
async fn data_keys() {
    let made = json!({"key_id": KEY, "plain_text": DATA_KEY, "cipher_text": "0aFF"});
    let (key, line, body) = sent(made, async |kms| {
        kms.create_data_key(&caller(), KEY, 256, AAD, soon())
            .await
            .unwrap()
    })
    .await;
    assert_eq!(line, "POST /v1.0/p1/kms/create-datakey");
    let expected =
        json!({"key_id": KEY, "datakey_length": "256", "additional_authenticated_data": "ns/app"});
    assert_eq!(body, expected);
    assert_eq!(
        (&key.plain, key.cipher.as_slice()),
        (&plain_key(), &[10, 255][..])
    );
    assert!(!format!("{key:?}").contains("0, 1, 2"), "{key:?}");

    let made = json!({"key_id": KEY, "cipher_text": "0aFF"});
    let (cipher, line, _) = sent(made.clone(), async |kms| {
        let made = kms
            .create_data_key_without_plaintext(&caller(), KEY, 512, None, soon())
            .await;
        made.unwrap()
    })
    .await;
    assert_eq!(cipher, [10, 255]);
    assert_eq!(line, "POST /v1.0/p1/kms/create-datakey-without-plaintext");

    let (cipher, line, body) = sent(made, async |kms| {
        kms.encrypt_data_key(&caller(), KEY, &plain_key(), AAD, soon())
            .await
            .unwrap()
    })
    .await;
    assert_eq!(
        (cipher.as_slice(), line.as_str()),
        (&[10, 255][..], "POST /v1.0/p1/kms/encrypt-datakey")
    );
    let expected = json!({
        "key_id": KEY,
        "plain_text": format!("{DATA_KEY}{DATA_KEY_DIGEST}"),
        "datakey_plain_length": "32",
        "additional_authenticated_data": "ns/app",
    });
    assert_eq!(body, expected);

    let shown = json!({"data_key": DATA_KEY, "datakey_length": "32", "datakey_dgst": DATA_KEY_DIGEST.to_uppercase()});
    let (plain, line, body) = sent(shown, async |kms| {
        let plain = kms
            .decrypt_data_key(&caller(), KEY, &[10, 255], 32, AAD, soon())
            .await;
        plain.unwrap()
    })
    .await;
    assert_eq!(
        (plain, line.as_str()),
        (plain_key(), "POST /v1.0/p1/kms/decrypt-datakey")
    );
    let expected = json!({
        "key_id": KEY,
        "cipher_text": "0aff",
        "datakey_cipher_length": "32",
        "additional_authenticated_data": "ns/app",
    });
    assert_eq!(body, expected);
}

#[tokio::test(start_paused = true)]
async fn signatures_and_random_numbers() {
    let algorithm: SigningAlgorithm = "RSASSA_PSS_SHA_256".parse().unwrap();
    let digest = [7; 32];
    let message = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    let (signature, line, body) = sent(json!({"key_id": KEY, "signature": "AQI="}), async |kms| {
        kms.sign(&caller(), KEY, algorithm, &digest, soon())
            .await
            .unwrap()
    })
    .await;
    assert_eq!(
        (signature.as_slice(), line.as_str()),
        (&[1, 2][..], "POST /v1.0/p1/kms/sign")
    );
    let expected = json!({"key_id": KEY, "message": message, "signing_algorithm": "RSASSA_PSS_SHA_256", "message_type": "DIGEST"});
    assert_eq!(body, expected);
    for (answer, expected) in [
        (json!("true"), true),
        (json!("false"), false),
        (json!(true), true),
    ] {
        let answer = json!({"key_id": KEY, "signature_valid": answer});
        let (valid, line, body) = sent(answer, async |kms| {
            let valid = kms
                .verify(&caller(), KEY, algorithm, &digest, &[1, 2], soon())
                .await;
            valid.unwrap()
        })
        .await;
        assert_eq!(
            (valid, line.as_str()),
            (expected, "POST /v1.0/p1/kms/verify")
        );
        assert_eq!(body["signature"], "AQI=");
    }
    let (pem, line, _) = sent(
        json!({"key_id": KEY, "public_key": "-----BEGIN"}),
        async |kms| kms.public_key(&caller(), KEY, soon()).await.unwrap(),
    )
    .await;
    assert_eq!(
        (pem.as_str(), line.as_str()),
        ("-----BEGIN", "POST /v1.0/p1/kms/get-publickey")
    );
    let (random, line, body) = sent(json!({"random_data": "00ff"}), async |kms| {
        kms.random(&caller(), 16, soon()).await.unwrap()
    })
    .await;
    assert_eq!(
        (random.expose(), line.as_str()),
        (&[0, 255][..], "POST /v1.0/p1/kms/gen-random")
    );
    assert_eq!(body, json!({"random_data_length": "16"}));
}

/// The kind and the text of a call that an answer makes fail.
async fn failure<T>(body: Value, call: impl AsyncFnOnce(Kms) -> Result<T, ApiError>) -> ApiError {
    let (result, ..) = sent(body, call).await;
    result.err().unwrap()
}

#[tokio::test(start_paused = true)]
async fn answers_that_do_not_fit_are_refused_and_not_quoted() {
    for answer in [
        json!({}),
        json!({"key_id": OTHER, "plain_text": DATA_KEY, "cipher_text": "00"}),
        json!({"key_id": KEY, "plain_text": &DATA_KEY[2..], "cipher_text": "00"}),
        json!({"key_id": KEY, "plain_text": format!("{DATA_KEY}zz"), "cipher_text": "00"}),
        json!({"key_id": KEY, "plain_text": DATA_KEY, "cipher_text": ""}),
        json!({"key_id": KEY, "plain_text": [DATA_KEY], "cipher_text": "00"}),
    ] {
        let error = failure(answer, async |kms| {
            kms.create_data_key(&caller(), KEY, 256, None, soon()).await
        })
        .await;
        assert_eq!(error.kind, ErrorKind::Malformed, "{error}");
        assert!(!error.to_string().contains("0405"), "{error}");
    }
    for answer in [
        json!({"data_key": DATA_KEY, "datakey_dgst": DATA_KEY}),
        json!({"data_key": DATA_KEY_DIGEST, "datakey_dgst": DATA_KEY_DIGEST}),
        json!({"data_key": "00"}),
    ] {
        let error = failure(answer, async |kms| {
            kms.decrypt_data_key(&caller(), KEY, &[1], 32, None, soon())
                .await
        })
        .await;
        assert_eq!(error.kind, ErrorKind::Malformed, "{error}");
    }
    let error = failure(
        json!({"key_id": KEY, "signature_valid": "maybe"}),
        async |kms| {
            let algorithm = SigningAlgorithm::EcdsaSha256;
            kms.verify(&caller(), KEY, algorithm, &[0; 32], &[1], soon())
                .await
        },
    )
    .await;
    assert_eq!(error.kind, ErrorKind::Malformed, "{error}");
}

#[tokio::test(start_paused = true)]
async fn calls_that_only_use_a_key_are_repeated_and_creating_one_is_not() {
    for (status, repeated) in [(500, false), (502, false), (504, false), (429, true)] {
        let (cloud, log) = client(&Env::default(), move |_, _| {
            reply(
                status,
                "",
                r#"{"error":{"error_code":"KMS.0102","error_msg":"m"}}"#,
            )
        });
        let kms = Kms::new(cloud);
        let new = NewKey::default();
        let error = kms.create_key(&caller(), &new, soon()).await.unwrap_err();
        assert_eq!(error.attempts > 1, repeated, "{error}");
        let before = log.len();
        let made = kms.create_data_key(&caller(), KEY, 256, None, soon()).await;
        assert_eq!(made.unwrap_err().attempts, 5);
        let signed = kms
            .sign(
                &caller(),
                KEY,
                SigningAlgorithm::EcdsaSha256,
                &[0; 32],
                soon(),
            )
            .await;
        assert_eq!(signed.unwrap_err().attempts, 5);
        assert_eq!(log.len(), before + 10);
    }
    // Throttling is known by its text, whatever the status.
    let (cloud, _) = client(&Env::default(), |at, _| match at {
        0 => reply(
            403,
            "",
            r#"{"error_code":"APIG.0302","error_msg":"The throttling threshold has been reached"}"#,
        ),
        _ => reply(200, "", r#"{"random_data":"00"}"#),
    });
    Kms::new(cloud).random(&caller(), 8, soon()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn errors_of_kms_say_what_to_do() {
    for (status, code, kind, advice) in [
        (
            404,
            "KMS.0207",
            ErrorKind::KeyUnavailable,
            "check the key ID",
        ),
        (400, "KMS.0209", ErrorKind::KeyUnavailable, "enable the key"),
        (
            400,
            "KMS.0210",
            ErrorKind::KeyUnavailable,
            "cancel the deletion",
        ),
        (400, "KMS.0320", ErrorKind::KeyUnavailable, "frozen"),
        (403, "KMS.0306", ErrorKind::Denied, "kms:dek:create"),
        (400, "KMS.0335", ErrorKind::Invalid, "ENCRYPT_DECRYPT"),
        (400, "KMS.2204", ErrorKind::Invalid, "was changed or cut"),
    ] {
        let body = json!({"error": {"error_code": code, "error_msg": "said"}}).to_string();
        let (cloud, log) = client(&Env::default(), move |_, _| reply(status, "", &body));
        let kms = Kms::new(cloud);
        let made = kms.create_data_key(&caller(), KEY, 256, None, soon()).await;
        let error = made.unwrap_err();
        assert_eq!(
            (error.kind, error.code.as_deref()),
            (kind, Some(code)),
            "{error}"
        );
        assert!(
            error.message.contains("said") && error.message.contains(advice),
            "{error}"
        );
        assert!(
            !error.is_definitive() && !error.concerns_whole_secret(),
            "{error}"
        );
        assert_eq!(log.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_was_scheduled_by_a_lost_attempt_is_a_success() {
    let (cloud, _) = client(&Env::default(), |at, _| match at {
        0 => reply(502, "", ""),
        _ => reply(
            400,
            "",
            r#"{"error":{"error_code":"KMS.0210","error_msg":"m"}}"#,
        ),
    });
    let kms = Kms::new(cloud);
    let status = kms
        .schedule_key_deletion(&caller(), KEY, 7, soon())
        .await
        .unwrap();
    assert_eq!(status.state(), KeyState::PendingDeletion);
    let error = kms
        .schedule_key_deletion(&caller(), KEY, 7, soon())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::KeyUnavailable);
}

#[tokio::test(start_paused = true)]
async fn lists_have_pages() {
    let (cloud, log) = client(&Env::default(), |at, _| {
        let page = json!({
            "keys": [KEY],
            "key_details": [{"key_id": KEY}],
            "truncated": if at < 2 { "true" } else { "false" },
            "next_marker": (at + 1).to_string(),
        });
        reply(200, "", &page.to_string())
    });
    let keys = Kms::new(cloud).list_keys(&caller(), soon()).await.unwrap();
    assert_eq!((keys.len(), log.len()), (3, 3));
    assert_eq!(log.count(r#""marker":"2""#), 1);
}
