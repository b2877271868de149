//! What the leader polls, how often, and with which operation.

use std::time::Duration;

use dew_provider::sim::huawei::{Account, Config, LatestMeans, Rights};
use serde_json::json;

use crate::support::cluster::{Cluster, INTERVAL, SECOND, Setup, read};

const LATEST: &str = "objectVersion: latest";

#[tokio::test]
async fn both_meanings_of_latest_are_supported() {
    for latest in [LatestMeans::Newest, LatestMeans::Syscurrent] {
        let cluster = Cluster::with(Setup {
            nodes: 1,
            emulator: Config {
                latest,
                ..Config::default()
            },
            ..Setup::default()
        })
        .await;
        cluster.create("a", "one").await;
        cluster.apply_one("app", "a", LATEST);
        let pod = cluster.pod(0, "app", "1").await;
        cluster.live(INTERVAL).await;
        // A version without SYSCURRENT, to which the stage then moves.
        cluster.put("a", "two", &["blue"]).await;
        cluster.live(2 * INTERVAL).await;
        let newest = matches!(latest, LatestMeans::Newest);
        assert_eq!(
            read(&pod, "a"),
            if newest { "two" } else { "one" },
            "{latest:?}"
        );
        cluster.move_stage("a", "SYSCURRENT", "v2").await;
        cluster.live(2 * INTERVAL).await;
        assert_eq!(read(&pod, "a"), "two", "{latest:?}");
        cluster.move_stage("a", "SYSCURRENT", "v1").await;
        cluster.live(2 * INTERVAL).await;
        assert_eq!(
            read(&pod, "a"),
            if newest { "two" } else { "one" },
            "{latest:?}"
        );
    }
}

#[tokio::test]
async fn stages_and_latest_of_a_secret_share_one_poll() {
    let cluster = Cluster::of(1).await;
    cluster.create("a", "one").await;
    cluster.put("a", "two", &[]).await;
    cluster.apply_one("latest", "a", LATEST);
    cluster.apply_one("previous", "a", "stage: SYSPREVIOUS");
    let latest = cluster.pod(0, "latest", "1").await;
    let previous = cluster.pod(0, "previous", "2").await;
    cluster.live(2 * INTERVAL).await;
    assert_eq!(
        (read(&latest, "a"), read(&previous, "a")),
        ("two".into(), "one".into())
    );
    cluster.clear_calls().await;
    cluster.put("a", "three", &[]).await;
    cluster.live(2 * INTERVAL).await;
    assert_eq!(
        (read(&latest, "a"), read(&previous, "a")),
        ("three".into(), "two".into())
    );
    assert_eq!(cluster.calls("ListSecretVersions").await, 2);
}

/// A cluster whose account has no permission to list versions. The `denied` operations are rejected
/// too.
async fn without_list_permission(denied: &[&str]) -> Cluster {
    let mut account = Account::demo();
    account.rights = Rights {
        list: false,
        write: false,
        ..Rights::default()
    };
    account.access_key = "READER".into();
    let cluster = Cluster::with(Setup {
        nodes: 1,
        emulator: Config {
            accounts: vec![Account::demo(), account],
            ..Config::default()
        },
        env: vec![
            ("HUAWEICLOUD_SDK_AK", "READER".into()),
            (
                "HUAWEICLOUD_SDK_SK",
                dew_provider::sim::huawei::DEMO_SECRET_KEY.into(),
            ),
        ],
        ..Setup::default()
    })
    .await;
    for operation in denied {
        let rejection = json!({"status": 403, "code": "CSMS.0302"});
        let rule = json!({"match": {"operation": operation}, "fault": rejection});
        cluster.fault(rule).await;
    }
    cluster
}

#[tokio::test]
async fn without_list_permission_the_leader_polls_the_stage_or_else_the_value() {
    for (denied, operation) in [
        (&[][..], "ShowSecretStage"),
        (&["ShowSecretStage"], "ShowSecretVersion"),
    ] {
        let cluster = without_list_permission(denied).await;
        cluster.create("a", "one").await;
        cluster.apply_one("app", "a", LATEST);
        let pod = cluster.pod(0, "app", "1").await;
        cluster.live(2 * INTERVAL).await;
        cluster.clear_calls().await;
        cluster.put("a", "two", &[]).await;
        cluster
            .until(INTERVAL + 6 * SECOND, || read(&pod, "a") == "two")
            .await;
        // A denied operation is not retried in each interval.
        cluster.live(5 * INTERVAL).await;
        assert_eq!(cluster.calls("ListSecretVersions").await, 0, "{operation}");
        assert!(cluster.calls(operation).await >= 5, "{operation}");
        assert_eq!(cluster.revision("a").unwrap()["status"]["version"], "v2");
    }
}

#[tokio::test]
async fn a_class_can_set_its_own_interval() {
    let cluster = Cluster::with(Setup {
        nodes: 2,
        interval: Duration::from_secs(600),
        ..Setup::default()
    })
    .await;
    for name in ["slow", "fast"] {
        cluster.create(name, "one").await;
        let objects = format!("- {{objectName: {name}, objectType: csms, {LATEST}}}");
        let mut parameters = vec![("objects", objects.as_str())];
        if name == "fast" {
            parameters.push(("rotationPollInterval", "1m"));
        }
        cluster.apply(name, &parameters, &[name]);
    }
    let slow = cluster.pod(0, "slow", "1").await;
    let fast = cluster.pod(1, "fast", "2").await;
    cluster.live(1200 * SECOND).await;
    assert_eq!(cluster.revision("fast").unwrap()["spec"]["interval"], "1m");
    assert_eq!(cluster.revision("slow").unwrap()["spec"]["interval"], "10m");
    cluster.put("slow", "two", &[]).await;
    cluster.put("fast", "two", &[]).await;
    let took = cluster
        .until(66 * SECOND, || read(&fast, "fast") == "two")
        .await;
    cluster
        .until(610 * SECOND - took, || read(&slow, "slow") == "two")
        .await;
    // A pod cannot override the interval of its class.
    let mut pod = cluster.scheduled(0, "slow", "3");
    pod.attributes
        .insert("rotationPollInterval".into(), "1m".into());
    let error = cluster.publish(0, &pod).await.expect_err("an override");
    assert!(
        error.message().contains("rotationPollInterval differs"),
        "{error}"
    );
}

#[tokio::test]
async fn polls_keep_to_the_rate_limit_and_are_spread_over_the_interval() {
    let cluster = Cluster::of(1).await;
    let names: Vec<String> = (0..60).map(|i| format!("s{i}")).collect();
    let mut objects = String::new();
    for name in &names {
        cluster.create(name, "x").await;
        objects += &format!("- {{objectName: {name}, objectType: csms, {LATEST}}}\n");
    }
    let allowed: Vec<&str> = names.iter().map(String::as_str).collect();
    cluster.apply("app", &[("objects", &objects)], &allowed);
    cluster.pod(0, "app", "1").await;
    cluster.live(4 * INTERVAL).await;
    let (mut most, mut total) = (0, 0);
    for _ in 0..12 {
        cluster.clear_calls().await;
        cluster.live(5 * SECOND).await;
        let calls = cluster.calls("ListSecretVersions").await;
        most = most.max(calls);
        total += calls;
    }
    assert_eq!(total, 60, "each secret once");
    assert!(
        most <= 15,
        "{most} of 60 polls within 5 s of an interval of 60 s"
    );
    assert_eq!(
        cluster
            .metric(0, "dew_provider_rotation_planned_secrets")
            .await,
        60.0
    );
    assert!(
        cluster
            .metric(0, "dew_provider_rotation_behind_seconds")
            .await
            < 1.0
    );
}

#[tokio::test]
async fn pinned_and_unmounted_secrets_are_not_polled() {
    let cluster = Cluster::of(1).await;
    cluster.create("a", "one").await;
    cluster.create("b", "one").await;
    cluster.apply_one("pinned", "a", "objectVersion: v1");
    cluster.apply_one("unused", "b", LATEST);
    cluster.pod(0, "pinned", "1").await;
    cluster.clear_calls().await;
    cluster.live(5 * INTERVAL).await;
    for operation in ["ListSecretVersions", "ShowSecretVersion", "ShowSecretStage"] {
        assert_eq!(cluster.calls(operation).await, 0, "{operation}");
    }
    assert!(cluster.revision("a").is_none());
    // The SecretRevision is deleted once no pod mounts the secret.
    let pod = cluster.pod(0, "unused", "2").await;
    cluster.live(5 * SECOND).await;
    assert!(cluster.revision("b").is_some());
    cluster.end_pod(0, &pod);
    cluster.live(25 * INTERVAL).await;
    assert!(cluster.revision("b").is_none());
}

#[tokio::test]
async fn a_failing_poll_is_reported_once() {
    let cluster = Cluster::of(2).await;
    cluster.create("a", "one").await;
    cluster.apply_one("app", "a", LATEST);
    let pods = [
        cluster.pod(0, "app", "1").await,
        cluster.pod(1, "app", "2").await,
    ];
    cluster.live(2 * INTERVAL).await;
    let before = cluster.revision("a").unwrap();
    assert_eq!(before["status"]["conditions"][0]["status"], "True");
    cluster.delete("a").await;
    cluster.clear_calls().await;
    cluster.live(4 * INTERVAL).await;
    let revision = cluster.revision("a").unwrap();
    let ready = &revision["status"]["conditions"][0];
    assert_eq!(
        (&ready["status"], &ready["reason"]),
        (&json!("False"), &json!("NotFound"))
    );
    assert!(
        ready["message"].as_str().unwrap().contains("CSMS.0106"),
        "{ready}"
    );
    assert_eq!(
        revision["status"]["version"], "v1",
        "the last known version stays"
    );
    // The status is written once, and only the leader polls.
    let version = |r: &serde_json::Value| {
        r["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    cluster.live(3 * INTERVAL).await;
    assert_eq!(version(&cluster.revision("a").unwrap()), version(&revision));
    assert_eq!(cluster.calls("ShowSecretVersion").await, 0);
    assert!(pods.iter().all(|pod| read(pod, "a") == "one"));
    let events = cluster.events_with_reason("SecretRotationFailed");
    assert_eq!(events.len(), 3, "the class and two pods: {events:?}");
    assert_eq!(
        cluster
            .metric(0, "dew_provider_rotation_failing_secrets")
            .await,
        1.0
    );
    assert!(
        cluster
            .metric(0, "dew_provider_rotation_oldest_unconfirmed_seconds")
            .await
            > 200.0
    );
    // The recreated secret has another v1.
    cluster.create("a", "recreated").await;
    cluster
        .until(INTERVAL + 6 * SECOND, || {
            pods.iter().all(|pod| read(pod, "a") == "recreated")
        })
        .await;
    assert_eq!(
        cluster
            .metric(0, "dew_provider_rotation_failing_secrets")
            .await,
        0.0
    );
}
