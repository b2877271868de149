//! Failures of the cloud: each ends in the right files, or in a final gRPC code with a message that
//! says what failed.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};
use tonic::Code;

use crate::support::test_node::{Setup, TestNode, read};

const OBJECTS: &str = "- {objectName: a, objectType: csms, objectVersion: latest}";

async fn node_with_secret() -> TestNode {
    node_with_setup(Setup::default()).await
}

async fn node_with_setup(setup: Setup) -> TestNode {
    let node = TestNode::with(setup).await;
    node.create("a", "the value").await;
    node.apply_for("app", OBJECTS, &["a"]).await;
    node
}

/// Faults that the client retries, some with a `Retry-After`.
fn retryable_faults() -> Vec<(&'static str, Value)> {
    let mut all = Vec::new();
    for status in [429, 500, 502, 503, 504] {
        all.push(("status", json!({"status": status})));
        all.push((
            "status and Retry-After",
            json!({"status": status, "retry_after": 3}),
        ));
    }
    all.extend([
        ("throttling message", json!({"status": 400, "code": "APIG.0308", "message": "The throttling threshold has been reached"})),
        ("reset", json!({"reset": true})),
        ("garbage", json!({"garbage": "json"})),
        ("html", json!({"garbage": "html"})),
        ("html 502", json!({"status": 502, "garbage": "html"})),
        ("truncated", json!({"truncate": 20})),
        ("empty response", json!({"truncate": 0})),
        ("wrong length", json!({"wrong_content_length": true})),
        ("slow response", json!({"delay_ms": 9000})),
        ("slow body", json!({"slow_body": {"chunk_bytes": 1, "delay_ms": 500}})),
    ]);
    all
}

#[tokio::test]
async fn retryable_faults_are_retried_until_the_files_are_right() {
    let node = node_with_secret().await;
    for (uid, (name, fault)) in retryable_faults().into_iter().enumerate() {
        let rule = json!({"match": {"operation": "ShowSecretVersion"}, "times": 2, "fault": fault});
        node.fault(rule).await;
        let pod = node.pod("app", &uid.to_string());
        let result = node.publish(&pod).await;
        assert!(result.is_ok(), "{name} {fault}: {result:?}");
        assert_eq!(read(&pod, "a"), "the value", "{name} {fault}");
        node.clear_faults().await;
        // Too old for a new volume, so that the next mount calls the cloud.
        node.pass(Duration::from_secs(11)).await;
    }
    let metrics = node.metrics().await;
    for text in [
        "dew_provider_cloud_retries_total{operation=\"ShowSecretVersion\"}",
        "dew_provider_cloud_calls_total{operation=\"ShowSecretVersion\",outcome=\"throttled\"}",
        "dew_provider_cloud_calls_total{operation=\"ShowSecretVersion\",outcome=\"server\"}",
        "dew_provider_cloud_calls_total{operation=\"ShowSecretVersion\",outcome=\"malformed\"}",
        "dew_provider_cloud_calls_total{operation=\"ShowSecretVersion\",outcome=\"connect\"}",
        "dew_provider_cloud_calls_total{operation=\"ShowSecretVersion\",outcome=\"timeout\"}",
    ] {
        assert!(metrics.contains(text), "{text}: {metrics}");
    }
}

#[tokio::test]
async fn a_persistent_fault_ends_in_a_final_code_and_names_the_request() {
    for (name, fault) in retryable_faults() {
        let node = node_with_secret().await;
        node.fault(json!({"match": {"operation": "ShowSecretVersion"}, "fault": fault}))
            .await;
        let pod = node.pod("app", "1");
        let started = tokio::time::Instant::now();
        let error = node.publish(&pod).await.expect_err(name);
        // A final code: after Unavailable and its like, kubelet would start the pod without its files.
        assert_eq!(error.code(), Code::Internal, "{name} {fault}: {error}");
        // The time limit of a mount, measured with the paused clock.
        assert!(
            started.elapsed() <= Duration::from_secs(46),
            "{name} {fault}: {:?}",
            started.elapsed()
        );
        let text = error.message();
        assert!(
            text.contains("object \"a\", objectVersion: ShowSecretVersion"),
            "{name}: {text}"
        );
        let responded = fault["status"].is_number() || fault["garbage"].is_string();
        assert!(
            !responded || text.contains("request ID "),
            "{name} {fault}: {text}"
        );
        if let Some(status) = fault["status"].as_u64() {
            assert!(text.contains(&format!("HTTP {status}")), "{name}: {text}");
        }
        assert!(!pod.target_path.exists(), "{name}: no files are left");
        assert!(!text.contains("the value"), "{name}: {text}");
    }
}

#[tokio::test]
async fn a_retry_after_longer_than_the_time_left_fails_at_once() {
    let node = node_with_secret().await;
    node.fault(json!({"match": {"operation": "ShowSecretVersion"}, "fault": {"status": 429, "retry_after": 3600}})).await;
    let started = tokio::time::Instant::now();
    let error = node
        .publish(&node.pod("app", "1"))
        .await
        .expect_err("throttled");
    assert!(started.elapsed() < Duration::from_secs(5));
    for text in [
        "HTTP 429 APIG.0308",
        "asks to wait 3600 s, longer than the time left",
    ] {
        assert!(error.message().contains(text), "{error}");
    }
    assert_eq!(node.calls("ShowSecretVersion").await, 1);
}

#[tokio::test]
async fn rejections_are_final_and_name_the_fix() {
    let node = node_with_secret().await;
    for (status, code, message, expected, texts) in [
        (
            400,
            "CSMS.0002",
            "bad",
            Code::InvalidArgument,
            vec!["HTTP 400 CSMS.0002 bad"],
        ),
        (
            400,
            "CSMS.0401",
            "no key",
            Code::PermissionDenied,
            vec!["CSMS.0401", "kms:dek:decrypt on the secret's KMS key"],
        ),
        (
            403,
            "CSMS.0302",
            "no",
            Code::PermissionDenied,
            vec!["CSMS.0302", "grant the identity"],
        ),
        (
            400,
            "CSMS.0103",
            "soon",
            Code::FailedPrecondition,
            vec!["scheduled for deletion"],
        ),
        (
            403,
            "CSMS.0109",
            "off",
            Code::FailedPrecondition,
            vec!["enable the secret"],
        ),
        (400, "CSMS.0106", "none", Code::NotFound, vec!["CSMS.0106"]),
        (404, "CSMS.0205", "none", Code::NotFound, vec!["CSMS.0205"]),
        (
            401,
            "APIGW.0301",
            "Incorrect IAM authentication information: current ip:1.2.3.4 refused",
            Code::PermissionDenied,
            vec!["add the cluster's addresses"],
        ),
        (
            401,
            "APIG.0301",
            "Incorrect IAM authentication information: AK access failed to reach the limit,forbidden",
            Code::PermissionDenied,
            vec!["locked for 5 minutes"],
        ),
        (
            404,
            "APIG.0101",
            "no such API",
            Code::FailedPrecondition,
            vec!["check the region and --csms-endpoint or --kms-endpoint"],
        ),
        (
            413,
            "APIG.0201",
            "too large",
            Code::InvalidArgument,
            vec!["HTTP 413"],
        ),
        (
            418,
            "X.1",
            "teapot",
            Code::InvalidArgument,
            vec!["HTTP 418 X.1 teapot"],
        ),
    ] {
        node.fault(json!({"match": {"operation": "ShowSecretVersion"}, "fault": {"status": status, "code": code, "message": message}})).await;
        let before = node.calls("ShowSecretVersion").await;
        let error = node
            .publish(&node.pod("app", "1"))
            .await
            .expect_err("rejected");
        assert_eq!(error.code(), expected, "{code}: {error}");
        for text in texts {
            assert!(error.message().contains(text), "{text}: {error}");
        }
        assert!(error.message().contains("request ID "), "{error}");
        assert_eq!(
            node.calls("ShowSecretVersion").await,
            before + 1,
            "not retried"
        );
        node.clear_faults().await;
        // Rejections are remembered for up to a minute.
        node.pass(Duration::from_secs(61)).await;
    }
}

#[tokio::test]
async fn a_secret_that_is_not_enabled_fails_the_mount() {
    let node = node_with_secret().await;
    for (state, text) in [
        ("DISABLED", "CSMS.0109"),
        ("FROZEN", "CSMS.0109"),
        ("PENDING_DELETE", "CSMS.0103"),
    ] {
        node.set_state("a", state).await;
        let error = node.publish(&node.pod("app", "1")).await.expect_err(state);
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        assert!(error.message().contains(text), "{error}");
    }
    node.set_state("a", "ENABLED").await;
    node.publish(&node.pod("app", "1")).await.unwrap();
}

#[tokio::test]
async fn clock_skew_is_reported_with_its_size() {
    for (minutes, text) in [
        (20, "20 min ahead of the service's"),
        (-1440, " min behind the service's"),
    ] {
        let skew = SignedDuration::from_mins(minutes);
        let node = node_with_setup(Setup {
            skew,
            ..Setup::default()
        })
        .await;
        let error = node
            .publish(&node.pod("app", "1"))
            .await
            .expect_err("skewed");
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        assert!(error.message().contains(text), "{error}");
        assert!(
            error.message().contains("synchronize it with NTP"),
            "{error}"
        );
    }
    // The gateway allows 15 minutes.
    let skew = SignedDuration::from_mins(14);
    let node = node_with_setup(Setup {
        skew,
        ..Setup::default()
    })
    .await;
    node.publish(&node.pod("app", "1")).await.unwrap();
}

#[tokio::test]
async fn keys_rejected_as_expired_are_renewed_once() {
    let node = node_with_setup(Setup {
        env: Vec::new(),
        ..Setup::default()
    })
    .await;
    node.publish(&node.pod("app", "1")).await.unwrap();
    // Rejected as expired before their expiry date.
    node.fault(json!({"times": 1, "fault": {"expire_tokens": true}}))
        .await;
    node.pass(Duration::from_secs(11)).await;
    let pod = node.pod("app", "2");
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "the value");
    // If the new keys are rejected too, the call fails. Nothing of `b` is cached.
    node.create("b", "other").await;
    let other = "- {objectName: b, objectType: csms, objectVersion: latest}";
    node.apply_for("other", other, &["b"]).await;
    node.fault(json!({"fault": {"expire_tokens": true}})).await;
    node.pass(Duration::from_secs(11)).await;
    let error = node
        .publish(&node.pod("other", "3"))
        .await
        .expect_err("expired");
    assert_eq!(error.code(), Code::PermissionDenied, "{error}");
    assert!(error.message().contains("token expires"), "{error}");
}

#[tokio::test]
async fn retries_do_not_multiply_the_load_of_an_outage() {
    let node = node_with_secret().await;
    node.fault(json!({"match": {"operation": "ShowSecretVersion"}, "fault": {"status": 502}}))
        .await;
    let before = node.calls("ShowSecretVersion").await;
    for uid in 0..100 {
        assert!(
            node.publish(&node.pod("app", &uid.to_string()))
                .await
                .is_err()
        );
    }
    let calls = node.calls("ShowSecretVersion").await - before;
    // 100 calls, and the 50 retries that the namespace's share of the budget pays for.
    assert_eq!(calls, 150);
    let error = node.publish(&node.pod("app", "x")).await.expect_err("502");
    assert!(
        error
            .message()
            .contains("too many calls of this namespace or process to this host are failing"),
        "{error}"
    );
}

#[tokio::test]
async fn the_rate_limit_applies_to_a_mount_of_many_secrets() {
    let node = TestNode::with(Setup {
        qps: 5,
        ..Setup::default()
    })
    .await;
    let mut objects = String::new();
    let names: Vec<String> = (0..20).map(|i| format!("s{i}")).collect();
    for name in &names {
        node.create(name, "x").await;
        objects += &format!("- {{objectName: {name}, objectType: csms, objectVersion: latest}}\n");
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    node.apply_for("app", &objects, &names).await;
    let started = tokio::time::Instant::now();
    node.publish(&node.pod("app", "1")).await.unwrap();
    let took = started.elapsed();
    // 5 at once (the burst of this node), then 5 per second.
    assert!(
        took >= Duration::from_millis(2_900) && took < Duration::from_millis(3_500),
        "{took:?}"
    );
}

#[tokio::test]
async fn an_unreachable_cloud_is_reported_with_its_address() {
    let node = node_with_secret().await;
    let TestNode { emulator, .. } = &node;
    let url = emulator.url();
    node.fault(json!({"fault": {"reset": true}})).await;
    let error = node
        .publish(&node.pod("app", "1"))
        .await
        .expect_err("unreachable");
    assert_eq!(error.code(), Code::Internal);
    let host = url.strip_prefix("http://").unwrap();
    assert!(error.message().contains(host), "{error}");
}
