//! A cloud that goes wrong: every fault ends in the right files, or in a final code with a message
//! that says what failed.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};
use tonic::Code;

use super::support::world::{Setup, World, read};

const OBJECTS: &str = "- {objectName: a, objectType: csms, objectVersion: latest}";

/// After these kubelet keeps the folder, and the pod would start without its files.
const NOT_FINAL: [Code; 5] = [
    Code::Unavailable,
    Code::ResourceExhausted,
    Code::Aborted,
    Code::Cancelled,
    Code::DeadlineExceeded,
];

async fn world() -> World {
    world_with(Setup::default()).await
}

async fn world_with(setup: Setup) -> World {
    let world = World::with(setup).await;
    world.create("a", "the value").await;
    world.apply_for("app", OBJECTS, &["a"]).await;
    world
}

/// Faults that pass, as often as a call is tried; with the waits that they ask for.
fn passing() -> Vec<(&'static str, Value)> {
    let mut all = Vec::new();
    for status in [429, 500, 502, 503, 504] {
        all.push(("status", json!({"status": status})));
        all.push((
            "status and wait",
            json!({"status": status, "retry_after": 3}),
        ));
    }
    all.extend([
        ("throttled by text", json!({"status": 400, "code": "APIG.0308", "message": "The throttling threshold has been reached"})),
        ("reset", json!({"reset": true})),
        ("garbage", json!({"garbage": "json"})),
        ("html", json!({"garbage": "html"})),
        ("html 502", json!({"status": 502, "garbage": "html"})),
        ("truncated", json!({"truncate": 20})),
        ("nothing at all", json!({"truncate": 0})),
        ("wrong length", json!({"wrong_content_length": true})),
        ("slow answer", json!({"delay_ms": 9000})),
        ("slow body", json!({"slow_body": {"chunk_bytes": 1, "delay_ms": 500}})),
    ]);
    all
}

#[tokio::test]
async fn what_passes_is_tried_again_until_the_files_are_right() {
    let world = world().await;
    for (uid, (name, fault)) in passing().into_iter().enumerate() {
        let of_one_call =
            json!({"match": {"operation": "ShowSecretVersion"}, "times": 2, "fault": fault});
        world.fault(of_one_call).await;
        let pod = world.pod("app", &uid.to_string());
        let result = world.publish(&pod).await;
        assert!(result.is_ok(), "{name} {fault}: {result:?}");
        assert_eq!(read(&pod, "a"), "the value", "{name} {fault}");
        world.clear_faults().await;
        // Beyond what a new volume may be given, so that the next one asks again.
        world.pass(Duration::from_secs(11)).await;
    }
    let metrics = world.metrics().await;
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
async fn what_does_not_pass_ends_in_a_final_code_that_tells_the_request() {
    for (name, fault) in passing() {
        let world = world().await;
        world
            .fault(json!({"match": {"operation": "ShowSecretVersion"}, "fault": fault}))
            .await;
        let pod = world.pod("app", "1");
        let begun = tokio::time::Instant::now();
        let error = world.publish(&pod).await.expect_err(name);
        assert_eq!(error.code(), Code::Internal, "{name} {fault}: {error}");
        assert!(!NOT_FINAL.contains(&error.code()));
        // The budget of a mount, by the test's own clock.
        assert!(
            begun.elapsed() <= Duration::from_secs(46),
            "{name} {fault}: {:?}",
            begun.elapsed()
        );
        let text = error.message();
        assert!(
            text.contains("object \"a\", objectVersion: ShowSecretVersion"),
            "{name}: {text}"
        );
        let answered = fault["status"].is_number() || fault["garbage"].is_string();
        assert!(
            !answered || text.contains("request id "),
            "{name} {fault}: {text}"
        );
        if let Some(status) = fault["status"].as_u64() {
            assert!(text.contains(&format!("HTTP {status}")), "{name}: {text}");
        }
        assert!(!pod.target_path.exists(), "{name}: nothing is left behind");
        assert!(!text.contains("the value"), "{name}: {text}");
    }
}

#[tokio::test]
async fn a_wait_longer_than_the_time_left_is_told_at_once() {
    let world = world().await;
    world.fault(json!({"match": {"operation": "ShowSecretVersion"}, "fault": {"status": 429, "retry_after": 3600}})).await;
    let begun = tokio::time::Instant::now();
    let error = world
        .publish(&world.pod("app", "1"))
        .await
        .expect_err("throttled");
    assert!(begun.elapsed() < Duration::from_secs(5));
    for text in [
        "HTTP 429 APIG.0308",
        "asks to wait 3600 s, longer than the time left",
    ] {
        assert!(error.message().contains(text), "{error}");
    }
    assert_eq!(world.calls("ShowSecretVersion").await, 1);
}

#[tokio::test]
async fn refusals_are_final_and_say_what_to_do() {
    let world = world().await;
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
            vec!["CSMS.0401", "decrypt with the secret's KMS key"],
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
            vec!["waits for its deletion"],
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
            vec!["allow the cluster's addresses"],
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
            vec!["check the region and --csms-endpoint"],
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
        world.fault(json!({"match": {"operation": "ShowSecretVersion"}, "fault": {"status": status, "code": code, "message": message}})).await;
        let before = world.calls("ShowSecretVersion").await;
        let error = world
            .publish(&world.pod("app", "1"))
            .await
            .expect_err("refused");
        assert_eq!(error.code(), expected, "{code}: {error}");
        for text in texts {
            assert!(error.message().contains(text), "{text}: {error}");
        }
        assert!(error.message().contains("request id "), "{error}");
        assert_eq!(
            world.calls("ShowSecretVersion").await,
            before + 1,
            "asked once"
        );
        world.clear_faults().await;
    }
}

#[tokio::test]
async fn states_of_a_secret_that_stop_it_are_told() {
    let world = world().await;
    for (state, text) in [
        ("DISABLED", "CSMS.0109"),
        ("FROZEN", "CSMS.0109"),
        ("PENDING_DELETE", "CSMS.0103"),
    ] {
        world.set_state("a", state).await;
        let error = world
            .publish(&world.pod("app", "1"))
            .await
            .expect_err(state);
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        assert!(error.message().contains(text), "{error}");
    }
    world.set_state("a", "ENABLED").await;
    world.publish(&world.pod("app", "1")).await.unwrap();
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_recognised() {
    for (minutes, text) in [
        (20, "20 min ahead of the service's"),
        (-1440, " min behind the service's"),
    ] {
        let skew = SignedDuration::from_mins(minutes);
        let world = world_with(Setup {
            skew,
            ..Setup::default()
        })
        .await;
        let error = world
            .publish(&world.pod("app", "1"))
            .await
            .expect_err("skewed");
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        assert!(error.message().contains(text), "{error}");
        assert!(error.message().contains("set the clock (NTP)"), "{error}");
    }
    // Within what the gateway allows, nothing happens.
    let skew = SignedDuration::from_mins(14);
    let world = world_with(Setup {
        skew,
        ..Setup::default()
    })
    .await;
    world.publish(&world.pod("app", "1")).await.unwrap();
}

#[tokio::test]
async fn keys_that_are_refused_as_expired_are_renewed_once_and_tried_again() {
    let world = world_with(Setup {
        env: Vec::new(),
        ..Setup::default()
    })
    .await;
    world.publish(&world.pod("app", "1")).await.unwrap();
    // The service says so before the date that it gave.
    world
        .fault(json!({"times": 1, "fault": {"expire_tokens": true}}))
        .await;
    world.pass(Duration::from_secs(11)).await;
    let pod = world.pod("app", "2");
    world.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "the value");
    // New ones that are refused too are an answer.
    world.fault(json!({"fault": {"expire_tokens": true}})).await;
    world.pass(Duration::from_secs(11)).await;
    let error = world
        .publish(&world.pod("app", "3"))
        .await
        .expect_err("expired");
    assert_eq!(error.code(), Code::PermissionDenied, "{error}");
    assert!(error.message().contains("token expires"), "{error}");
}

#[tokio::test]
async fn an_outage_is_not_answered_with_five_times_the_load() {
    let world = world().await;
    world
        .fault(json!({"match": {"operation": "ShowSecretVersion"}, "fault": {"status": 502}}))
        .await;
    let before = world.calls("ShowSecretVersion").await;
    for uid in 0..100 {
        assert!(
            world
                .publish(&world.pod("app", &uid.to_string()))
                .await
                .is_err()
        );
    }
    let calls = world.calls("ShowSecretVersion").await - before;
    // A hundred tries are free, and then nothing is tried again.
    assert_eq!(calls, 200);
    let error = world
        .publish(&world.pod("app", "x"))
        .await
        .expect_err("502");
    assert!(
        error
            .message()
            .contains("too many calls of this process fail now"),
        "{error}"
    );
}

#[tokio::test]
async fn a_few_calls_a_second_are_made_however_many_pods_come() {
    let world = World::with(Setup {
        qps: 5,
        ..Setup::default()
    })
    .await;
    let mut objects = String::new();
    let names: Vec<String> = (0..20).map(|i| format!("s{i}")).collect();
    for name in &names {
        world.create(name, "x").await;
        objects += &format!("- {{objectName: {name}, objectType: csms, objectVersion: latest}}\n");
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    world.apply_for("app", &objects, &names).await;
    let begun = tokio::time::Instant::now();
    world.publish(&world.pod("app", "1")).await.unwrap();
    let took = begun.elapsed();
    // 5 at once (the burst of this world), then 5 a second.
    assert!(
        took >= Duration::from_millis(2_900) && took < Duration::from_millis(3_500),
        "{took:?}"
    );
}

#[tokio::test]
async fn a_cloud_that_is_away_is_told_with_its_address() {
    let world = world().await;
    let World { emulator, .. } = &world;
    let url = emulator.url();
    world.fault(json!({"fault": {"reset": true}})).await;
    let error = world
        .publish(&world.pod("app", "1"))
        .await
        .expect_err("away");
    assert_eq!(error.code(), Code::Internal);
    let host = url.strip_prefix("http://").unwrap();
    assert!(error.message().contains(host), "{error}");
}
