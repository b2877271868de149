//! Whatever arrives, from a tenant or from the cloud: texts are short and on one line.

use dew_provider::cloud::{
    AccessKeys, ApiError, Caller, Cloud, CloudConfig, Credentials, Csms, ErrorKind,
};
use dew_provider::node::mount::error::{MountError, ObjectError, Reason};
use dew_provider::node::mount::request::Request;
use dew_provider::proto::MountRequest;
use dew_provider::telemetry::metrics::CloudMetrics;
use dew_provider::util::clock::{Clock, Jitter};
use dew_provider::util::env::Env;
use proptest::prelude::*;
use proptest::strategy::Strategy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Duration, Instant};
use tonic::Status;
use tonic::metadata::MetadataMap;

/// The most headers that an HTTP/2 client may accept, in bytes.
const HEADERS: usize = 16 * 1024;

/// Long and odd texts.
fn odd() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "\\PC{0,40}",
        "[\u{0}\u{1b}\n\r\t\u{7f}\u{85}\u{2028}\u{202e}\u{feff}]{1,5}",
        "[密🔑é]{1,20}",
        Just("\u{1b}]0;title\u{7}".to_owned()),
        Just("line 1 column 2".to_owned()),
        Just("%00\"'\\ <>{}#?`".to_owned()),
    ];
    (prop::collection::vec(piece, 0..12), 1_usize..400)
        .prop_map(|(pieces, times)| pieces.concat().repeat(times))
}

fn assert_bounded(text: &str, limit: usize) {
    assert!(text.len() <= limit, "{}: {text:.200}", text.len());
    assert!(!text.chars().any(char::is_control), "{text:.200?}");
    assert!(
        !text.contains(['\u{202e}', '\u{2028}', '\u{feff}']),
        "{text:.200?}"
    );
}

/// The size of a message in its header, percent-encoded.
fn encoded(text: &str) -> usize {
    let plain = |b: &u8| b.is_ascii_graphic() && !b"\"#%<>`?{}".contains(b);
    text.bytes().map(|b| if plain(&b) { 1 } else { 3 }).sum()
}

fn assert_status(error: MountError) {
    let status = Status::from(error);
    assert_bounded(status.message(), 4096);
    assert!(encoded(status.message()) < HEADERS - 1024);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn errors_of_a_mount_are_bounded(
        message in odd(),
        failures in prop::collection::vec((odd(), odd()), 1..60),
    ) {
        assert_status(MountError::new(Reason::Invalid, message));
        let total = failures.len();
        let failures: Vec<ObjectError> = failures
            .into_iter()
            .map(|(object, message)| ObjectError {
                reason: Reason::Internal,
                object,
                field: "objectVersion",
                message,
            })
            .collect();
        let error = MountError::of_objects(&failures);
        if total > 20 {
            let rest = format!("and {} more", total - 20);
            prop_assert!(error.message.ends_with(&rest), "{}", error.message);
        }
        assert_status(error);
    }

    #[test]
    fn errors_of_a_request_are_bounded(
        key in odd(),
        value in odd(),
        class in odd(),
        form in 0..5,
    ) {
        let text = serde_json::json!(value).to_string();
        let (key, class) = (serde_json::json!(key), serde_json::json!(class));
        let attributes = match form {
            0 => value,
            1 => format!("{{{key}: {text}, {key}: {text}}}"),
            2 => format!("{{{key}: [{text}], \"secretProviderClass\": {class}}}"),
            3 => format!("{{\"useCred{}\": {text}, \"secretProviderClass\": {class}}}", "x".repeat(5000)),
            _ => format!("{{\"regoin\": {text}, \"secretProviderClass\": {class}}}"),
        };
        let message = MountRequest { attributes, ..MountRequest::default() };
        if let Err(error) = Request::parse(&message, &MetadataMap::new()) {
            assert_status(error);
        }
    }

    #[test]
    fn errors_of_lists_are_bounded(name in odd(), other in odd(), form in 0..4) {
        let (name, other) = (serde_json::json!(name), serde_json::json!(other));
        let list = match form {
            0 => format!("- {name}\n"),
            1 => format!("- {{objectName: {name}, {other}: 1, objectVersion: {other}}}\n"),
            2 => format!("- objectName: {name}\n  jmesPath: [{{path: {other}, objectAlias: {name}}}]\n"),
            _ => format!("- objectName: [{name}]\n"),
        };
        if let Err(problems) = dew_provider::class::objects::Objects::parse(&list) {
            for problem in problems {
                assert_bounded(&problem.to_string().escape_debug().to_string(), 4096);
            }
        }
    }

    #[test]
    fn errors_of_this_process_are_bounded(first in odd(), second in odd()) {
        let error = ApiError::local("GetCredentials", ErrorKind::Credentials, first);
        assert_bounded(&error.to_string(), 4096);
        assert_bounded(&error.and(&second).to_string(), 4096);
    }
}

/// What the service may send, header by header.
fn response() -> impl Strategy<Value = String> {
    let header = "[ -~]{0,2000}";
    (200_u16..600, header, header, odd(), odd(), odd()).prop_map(
        |(status, id, kind, code, message, request)| {
            let body = serde_json::json!({
                "error_code": code, "error_msg": message, "request_id": request,
            })
            .to_string();
            format!(
                "HTTP/1.1 {status} x\r\nx-request-id: {id}\r\ncontent-type: {kind}\r\n\
                 content-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            )
        },
    )
}

#[tokio::test]
async fn errors_of_the_cloud_are_bounded() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let caller = Caller {
        region: "cn-north-4".parse().unwrap(),
        project: Some("p1".into()),
        credentials: Credentials::fixed(AccessKeys::new("AK", "SK", None, None), "test"),
        turn: dew_provider::cloud::Turn::default(),
    };
    for _ in 0..64 {
        let answer = response().new_tree(&mut runner).unwrap();
        let answer = proptest::strategy::ValueTree::current(&answer);
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", tcp.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = tcp.accept().await {
                let mut head = [0; 8192];
                let _ = client.read(&mut head).await;
                let _ = client.write_all(answer.as_bytes()).await;
                let _ = client.shutdown().await;
            }
        });
        let cloud = Cloud::new(
            CloudConfig {
                csms_endpoint: Some(url),
                ..CloudConfig::default()
            },
            &Env::default(),
            Clock::system(),
            Jitter::seeded(1),
            CloudMetrics::default(),
        )
        .unwrap();
        // Creating is not retried in most cases, which keeps this quick.
        let deadline = Instant::now() + Duration::from_secs(30);
        let shown = Csms::new(cloud)
            .create_secret_version(
                &caller,
                "db",
                dew_provider::cloud::SecretValue::Text("x".to_owned().into()),
                &[],
                deadline,
            )
            .await;
        let error = shown.expect_err("no answer is a version");
        assert_bounded(&error.to_string(), 4096);
        assert_bounded(&error.message, 4096);
        for text in [&error.code, &error.request_id].into_iter().flatten() {
            assert_bounded(text, 256);
        }
        assert_status(MountError::of_objects(&[ObjectError::from_api(
            "db",
            "objectVersion",
            &error,
        )]));
    }
}
