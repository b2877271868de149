//! Requests and responses of each operation.

use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::cloud::testing::{caller, cloud, reply};
use crate::util::env::Env;
use crate::util::secret_bytes::SecretBytes;

const METADATA: &str = r#"{"id":"v2","create_time":5,"expire_time":null,"kms_key_id":"k","secret_name":"db","version_stages":["SYSCURRENT","x"]}"#;
const SECRET: &str = r#"{"id":"u","name":"db","state":"ENABLED","kms_key_id":"k","description":null,"create_time":1,"update_time":2,"scheduled_delete_time":null,"secret_type":"COMMON","auto_rotation":false}"#;
const STAGE: &str = r#"{"name":"x","version_id":"v2","update_time":7,"secret_name":"db"}"#;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(45)
}

fn value() -> SecretValue {
    SecretValue::Text(SecretBytes::from("a\"b".to_owned()))
}

/// Makes a call against a server that answers `body`; gives the request line and body that it got.
async fn sent<T>(body: &str, call: impl AsyncFnOnce(Csms) -> T) -> (T, String, String) {
    let body = body.to_owned();
    let (cloud, log) = cloud(&Env::default(), move |_, _| reply(200, "", &body));
    let result = call(cloud).await;
    let request = log.all().remove(0);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1");
    (result, line.to_owned(), body.to_owned())
}

#[tokio::test(start_paused = true)]
async fn secrets() {
    let one = format!(r#"{{"secret":{SECRET}}}"#);
    let new = NewSecret {
        name: "db".into(),
        kms_key_id: Some("k".into()),
        description: Some("d".into()),
        value: value(),
    };
    let (secret, line, body) = sent(&one, async |cloud| {
        cloud.create_secret(&caller(), new, soon()).await.unwrap()
    })
    .await;
    assert_eq!(
        (secret.name.as_str(), secret.state.as_str()),
        ("db", "ENABLED")
    );
    assert_eq!(line, "POST /v1/p1/secrets");
    let expected = r#"{"name":"db","kms_key_id":"k","description":"d","secret_string":"a\"b"}"#;
    assert_eq!(body, expected);

    let (secret, line, body) = sent(&one, async |cloud| {
        cloud.show_secret(&caller(), "db", soon()).await.unwrap()
    })
    .await;
    assert_eq!(secret.update_time, Some(2));
    assert_eq!(
        (line.as_str(), body.as_str()),
        ("GET /v1/p1/secrets/db", "")
    );

    let many =
        format!(r#"{{"secrets":[{SECRET}],"page_info":{{"next_marker":null,"current_count":1}}}}"#);
    let (secrets, line, _) = sent(&many, async |cloud| {
        cloud.list_secrets(&caller(), soon()).await.unwrap()
    })
    .await;
    assert_eq!((secrets.len(), line.as_str()), (1, "GET /v1/p1/secrets"));

    let (result, line, _) = sent("", async |cloud| {
        cloud.delete_secret(&caller(), "db", soon()).await
    })
    .await;
    result.unwrap();
    assert_eq!(line, "DELETE /v1/p1/secrets/db");
}

#[tokio::test(start_paused = true)]
async fn versions() {
    let one = format!(r#"{{"version_metadata":{METADATA}}}"#);
    let (version, line, body) = sent(&one, async |cloud| {
        let stages = ["x".to_owned()];
        let caller = caller();
        let made = cloud.create_secret_version(&caller, "db", value(), &stages, soon());
        made.await.unwrap()
    })
    .await;
    assert_eq!(
        (version.id.as_str(), version.stages),
        ("v2", vec!["SYSCURRENT".to_owned(), "x".to_owned()])
    );
    assert_eq!(line, "POST /v1/p1/secrets/db/versions");
    assert_eq!(body, r#"{"version_stages":["x"],"secret_string":"a\"b"}"#);

    let valued =
        format!(r#"{{"version":{{"version_metadata":{METADATA},"secret_binary":"AP8="}}}}"#);
    let (version, line, _) = sent(&valued, async |cloud| {
        let caller = caller();
        let shown = cloud.show_secret_version(&caller, "db", "v2", soon());
        shown.await.unwrap()
    })
    .await;
    assert_eq!(line, "GET /v1/p1/secrets/db/versions/v2");
    assert_eq!(version.metadata.create_time, 5);
    assert_eq!(
        version.value,
        SecretValue::Binary(SecretBytes::new(vec![0, 255]))
    );
}

#[tokio::test(start_paused = true)]
async fn stages() {
    let one = format!(r#"{{"stage":{STAGE}}}"#);
    let (stage, line, _) = sent(&one, async |cloud| {
        cloud
            .show_secret_stage(&caller(), "db", "x", soon())
            .await
            .unwrap()
    })
    .await;
    assert_eq!(
        (stage.version_id.as_str(), stage.update_time),
        ("v2", Some(7))
    );
    assert_eq!(line, "GET /v1/p1/secrets/db/stages/x");

    let (_, line, body) = sent(&one, async |cloud| {
        cloud
            .update_secret_stage(&caller(), "db", "x", "v2", soon())
            .await
            .unwrap()
    })
    .await;
    assert_eq!(line, "PUT /v1/p1/secrets/db/stages/x");
    assert_eq!(body, r#"{"version_id":"v2"}"#);
}

#[tokio::test(start_paused = true)]
async fn hostile_names_send_nothing() {
    let (cloud, log) = cloud(&Env::default(), |_, _| reply(200, "", "{}"));
    let long = "x".repeat(65);
    for bad in [
        "", ".", "..", "a/b", "a%2fb", "a?b", "a#b", "a b", "é", "a\0", "a\r\nb", &long,
    ] {
        let kinds = [
            cloud
                .show_secret(&caller(), bad, soon())
                .await
                .unwrap_err()
                .kind,
            cloud
                .show_secret_version(&caller(), bad, "v1", soon())
                .await
                .unwrap_err()
                .kind,
            cloud
                .show_secret_version(&caller(), "db", bad, soon())
                .await
                .unwrap_err()
                .kind,
            cloud
                .show_secret_stage(&caller(), "db", bad, soon())
                .await
                .unwrap_err()
                .kind,
        ];
        assert_eq!(kinds, [crate::cloud::ErrorKind::Invalid; 4], "{bad:?}");
    }
    assert_eq!(log.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn responses_about_something_else_are_rejected() {
    let version = |id: &str, secret: &str| {
        format!(
            r#"{{"version":{{"version_metadata":{{"id":{id:?},"create_time":1,"secret_name":{secret:?}}},"secret_string":"x"}}}}"#
        )
    };
    let long = format!("v{}", "1".repeat(500_000));
    for body in [
        version("v1", "other"),
        version("v2", "db"),
        version("v1\u{1b}[2J\n", "db"),
        version("", "db"),
        version("1", "db"),
        version(&long, "db"),
    ] {
        let (result, ..) = sent(&body, async |cloud| {
            cloud
                .show_secret_version(&caller(), "db", "v1", soon())
                .await
        })
        .await;
        let error = result.unwrap_err();
        assert_eq!(error.kind, crate::cloud::ErrorKind::Malformed, "{error}");
        assert!(error.to_string().len() < 1000);
        assert!(!error.to_string().contains(char::is_control), "{error}");
    }
    for body in [
        r#"{"stage":{"name":"y","version_id":"v1"}}"#,
        r#"{"stage":{"name":"x","version_id":"latest"}}"#,
    ] {
        let (result, ..) = sent(body, async |cloud| {
            cloud.show_secret_stage(&caller(), "db", "x", soon()).await
        })
        .await;
        assert_eq!(result.unwrap_err().kind, crate::cloud::ErrorKind::Malformed);
    }
    let list = r#"{"version_metadatas":[{"id":"v1","create_time":1,"secret_name":"other"}]}"#;
    let (result, ..) = sent(list, async |cloud| {
        cloud.list_secret_versions(&caller(), "db", soon()).await
    })
    .await;
    assert_eq!(result.unwrap_err().kind, crate::cloud::ErrorKind::Malformed);
}

#[tokio::test(start_paused = true)]
async fn null_lists_and_texts_are_empty() {
    let body = r#"{"version":{"version_metadata":{"id":"v1","create_time":1,"kms_key_id":null,"secret_name":null,"version_stages":null},"secret_string":"x"}}"#;
    let (version, ..) = sent(body, async |cloud| {
        cloud
            .show_secret_version(&caller(), "db", "v1", soon())
            .await
            .unwrap()
    })
    .await;
    assert_eq!(version.metadata.stages, Vec::<String>::new());
    let (list, ..) = sent(
        r#"{"version_metadatas":null,"page_info":null}"#,
        async |cloud| {
            cloud
                .list_secret_versions(&caller(), "db", soon())
                .await
                .unwrap()
        },
    )
    .await;
    assert!(list.is_empty());
}

#[tokio::test(start_paused = true)]
async fn of_a_long_error_only_the_beginning_is_read() {
    let padding = "x".repeat(1 << 20);
    let (cloud, _) = cloud(&Env::default(), move |_, _| {
        reply(
            403,
            "",
            &format!(r#"{{"error_code":"CSMS.0302","error_msg":"{padding}"}}"#),
        )
    });
    let error = cloud
        .show_secret(&caller(), "db", soon())
        .await
        .unwrap_err();
    assert_eq!(error.kind, crate::cloud::ErrorKind::Denied, "{error}");
    assert!(error.message.contains("16384 bytes"), "{error}");
}
