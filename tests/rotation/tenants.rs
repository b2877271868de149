//! What one namespace asks for neither tells it of secrets that it may not use, nor delays other namespaces.

use std::time::Duration;

use dew_provider::sim::csi_driver::PodVolume;
use dew_provider::sim::huawei::{self, Account, DEMO_REGION};
use serde_json::json;

use crate::support::api_server::REVISIONS;
use crate::support::cluster::{Cluster, INTERVAL, SECOND, Setup, read};

/// A class and a ServiceAccount of the same name that lists `allowed`, in a namespace.
fn apply_in(cluster: &Cluster, namespace: &str, name: &str, objects: &str, allowed: &[String]) {
    let parameters = [("objects".to_owned(), objects.to_owned())].into();
    cluster.api.put_class(namespace, name, &parameters);
    let list = json!(allowed).to_string();
    cluster.api.put_account(namespace, name, Some(&list));
}

/// Edits a class in the namespace `hostile`.
fn edit(cluster: &Cluster, class: &str, objects: &str, more: &[(&str, &str)]) {
    let parameters = more.iter().copied().chain([("objects", objects)]);
    let parameters = parameters.map(|(key, value)| (key.to_owned(), value.to_owned()));
    cluster
        .api
        .put_class("hostile", class, &parameters.collect());
}

fn scheduled_in(cluster: &Cluster, namespace: &str, class: &str, uid: &str) -> PodVolume {
    let pod = PodVolume {
        namespace: namespace.into(),
        ..cluster.scheduled(0, class, uid)
    };
    cluster.put_pod(0, &pod, json!({}));
    pod
}

fn object(name: &str, more: &str) -> String {
    format!("- {{objectName: {name}, objectType: csms, objectVersion: latest{more}}}\n")
}

/// Number of calls about secrets whose names start with `prefix`.
async fn calls_about(cluster: &Cluster, prefix: &str) -> usize {
    let reply = cluster.control(http::Method::GET, "calls", "").await.json();
    let calls = reply["calls"].as_array().unwrap();
    let secrets = calls.iter().filter_map(|call| call["secret"].as_str());
    secrets.filter(|secret| secret.starts_with(prefix)).count()
}

#[tokio::test]
async fn a_class_does_not_tell_whether_secrets_exist_that_its_pods_may_not_mount() {
    let cluster = Cluster::of(2).await;
    cluster.create("own", "mine").await;
    cluster.create("other-0", "theirs").await;
    let objects: String = (0..150)
        .map(|i| object(&format!("other-{i}"), ""))
        .chain([object("own", "")])
        .collect();
    apply_in(&cluster, "curious", "app", &objects, &["own".into()]);
    // The pod overrides the list by what it may have, so that its volume is mounted.
    let mut pod = scheduled_in(&cluster, "curious", "app", "1");
    pod.attributes = [("objects".to_owned(), object("own", ""))].into();
    cluster.put_pod(0, &pod, json!({}));
    cluster.publish(0, &pod).await.unwrap();
    cluster.live(5 * INTERVAL).await;
    assert_eq!(read(&pod, "own"), "mine");
    assert_eq!(calls_about(&cluster, "other-").await, 0);
    let revisions = cluster.api.0.list(REVISIONS);
    let names: Vec<_> = revisions.iter().map(|r| &r["spec"]["secret"]).collect();
    assert_eq!(names, ["own"]);
    let events = cluster.api.events();
    assert!(
        !events
            .iter()
            .any(|event| event.to_string().contains("other-")),
        "{events:?}"
    );
}

#[tokio::test]
async fn a_secret_is_polled_once_a_service_account_lists_it() {
    let cluster = Cluster::of(1).await;
    cluster.create("a", "one").await;
    cluster.create("b", "one").await;
    let objects = object("a", "") + &object("b", "");
    apply_in(&cluster, "team", "app", &objects, &["a".into(), "b".into()]);
    let pod = scheduled_in(&cluster, "team", "app", "1");
    cluster.publish(0, &pod).await.unwrap();
    cluster.live(2 * INTERVAL).await;
    assert!(cluster.revision("b").is_some());
    cluster
        .api
        .put_account("team", "app", Some(&json!(["a"]).to_string()));
    cluster.live(2 * INTERVAL).await;
    cluster.clear_calls().await;
    cluster.live(3 * INTERVAL).await;
    // The node still follows what it has mounted.
    let polls = cluster.calls("ListSecretVersions").await;
    assert_eq!(
        polls,
        calls_about(&cluster, "a").await as u64,
        "polls of a only"
    );
    assert_eq!(polls, 3);
}

#[tokio::test]
async fn missing_secrets_of_one_namespace_delay_no_other_and_are_asked_for_ever_more_rarely() {
    let cluster = Cluster::of(2).await;
    let names: Vec<String> = (0..300).map(|i| format!("missing-{i}")).collect();
    let uids = ["1", "2"];
    for (uid, names) in uids.iter().zip(names.chunks(150)) {
        let objects: String = names
            .iter()
            .map(|name| object(name, ", optional: true"))
            .collect();
        apply_in(&cluster, "greedy", &format!("c{uid}"), &objects, names);
        let pod = scheduled_in(&cluster, "greedy", &format!("c{uid}"), uid);
        cluster.publish(0, &pod).await.unwrap();
    }
    cluster.create("shared", "one").await;
    cluster.apply_one("app", "shared", "objectVersion: latest");
    let pod = cluster.pod(1, "app", "3").await;
    // The first round of polls.
    cluster.live(2 * INTERVAL).await;
    for value in ["two", "three"] {
        cluster.put("shared", value, &[]).await;
        let most = INTERVAL + 30 * SECOND;
        cluster.until(most, || read(&pod, "shared") == value).await;
    }
    assert_eq!(
        cluster.api.0.list(REVISIONS).len(),
        1,
        "only of what was found"
    );
    let mut rounds = Vec::new();
    for _ in 0..4 {
        cluster.clear_calls().await;
        cluster.live(8 * INTERVAL).await;
        let calls = ["ListSecretVersions", "ShowSecretStage", "ShowSecretVersion"];
        let mut count = 0;
        for operation in calls {
            count += cluster.calls(operation).await;
        }
        rounds.push(count);
    }
    // The leader and the node ask for each of the 300 secrets once or twice, besides the one that exists.
    assert!(rounds[3] <= 2 * 300 + 16, "{rounds:?}");
    assert!(rounds[3] < rounds[0], "{rounds:?}");
    // Once created, such a secret reaches the pod after eight intervals at the latest.
    cluster.create("missing-7", "found").await;
    let target = scheduled_in(&cluster, "greedy", "c1", "1");
    let most = 9 * INTERVAL + Duration::from_secs(30);
    cluster
        .until(most, || read(&target, "missing-7") == "found")
        .await;
}

#[tokio::test]
async fn failures_of_one_namespace_leave_room_for_the_events_of_others() {
    let cluster = Cluster::of(1).await;
    for index in 0..200 {
        let name = format!("wrong-{index}");
        apply_in(&cluster, "noisy", &name, "- {objectName: a}", &[]);
    }
    cluster.live(5 * SECOND).await;
    apply_in(&cluster, "quiet", "app", "- {objectName: a}", &[]);
    cluster.live(5 * SECOND).await;
    let events = cluster.events_with_reason("SecretRotationFailed");
    assert!(
        events.iter().any(|event| event.starts_with("app: ")),
        "{events:?}"
    );
    let noisy = events
        .iter()
        .filter(|event| event.starts_with("wrong-"))
        .count();
    assert!((1..=25).contains(&noisy), "{noisy}");
}

#[tokio::test]
async fn a_class_that_cannot_be_polled_keeps_no_leader_in_office_that_the_cloud_does_not_answer() {
    let cluster = Cluster::of(2).await;
    for secret in ["a", "own"] {
        cluster.create(secret, "one").await;
    }
    cluster.apply_one("app", "a", "objectVersion: latest");
    let pods = [
        cluster.pod(0, "app", "0").await,
        cluster.pod(1, "app", "1").await,
    ];
    apply_in(
        &cluster,
        "hostile",
        "c",
        &object("own", ""),
        &["own".into()],
    );
    let pod = scheduled_in(&cluster, "hostile", "c", "h");
    cluster.publish(0, &pod).await.unwrap();
    cluster.live(INTERVAL).await;
    edit(
        &cluster,
        "c",
        &object("own", ""),
        &[("credentials", "file")],
    );
    cluster.live(INTERVAL).await;
    let first = cluster.leader();
    let index: usize = first.strip_prefix("node-").unwrap().parse().unwrap();
    cluster.nodes[index].cut(true);
    cluster.live(6 * INTERVAL).await;
    assert_ne!(cluster.leader(), first);
    cluster.put("a", "two", &[]).await;
    let other = &pods[1 - index];
    cluster
        .until(2 * INTERVAL, || read(other, "a") == "two")
        .await;
}

/// The reason in the SecretRevision of a secret.
fn reason(cluster: &Cluster, secret: &str) -> String {
    let revision = cluster.revision(secret).unwrap_or_default();
    let reason = revision["status"]["conditions"][0]["reason"].as_str();
    reason.unwrap_or("no revision").to_owned()
}

#[tokio::test]
async fn credentials_that_one_class_chooses_are_used_for_no_other() {
    // The agency of the nodes belongs to another account, in which the secret does not exist.
    let other = Account {
        access_key: "OTHERACCESSKEY000001".into(),
        secret_key: "other-secret-key".to_owned().into(),
        name: "nodes".into(),
        projects: [(DEMO_REGION.to_owned(), "f".repeat(32))].into(),
        ..Account::demo()
    };
    let emulator = huawei::Config {
        accounts: vec![other, Account::demo()],
        ..huawei::Config::default()
    };
    for source in ["agency", "file"] {
        let cluster = Cluster::with(Setup {
            nodes: 2,
            emulator: emulator.clone(),
            ..Setup::default()
        })
        .await;
        cluster.create("a", "one").await;
        // By name, the hostile namespace comes before the other and after it.
        for namespace in ["a-hostile", "z-hostile"] {
            let objects = object("a", ", optional: true");
            apply_in(&cluster, namespace, "c", &objects, &["a".into()]);
            let pod = scheduled_in(&cluster, namespace, "c", namespace);
            cluster.publish(0, &pod).await.unwrap();
            let parameters = [("objects", objects.as_str()), ("credentials", source)];
            let parameters = parameters.map(|(key, value)| (key.to_owned(), value.to_owned()));
            cluster.api.put_class(namespace, "c", &parameters.into());
        }
        cluster.live(INTERVAL).await;
        cluster.apply_one("app", "a", "objectVersion: latest");
        let pod = cluster.pod(1, "app", "1").await;
        cluster.live(3 * INTERVAL).await;
        assert_eq!(reason(&cluster, "a"), "Confirmed", "{source}");
        cluster.put("a", "two", &[]).await;
        let most = INTERVAL + 30 * SECOND;
        cluster.until(most, || read(&pod, "a") == "two").await;
    }
}

#[tokio::test]
async fn nodes_poll_for_classes_that_choose_credentials_whatever_the_leader_finds() {
    let cluster = Cluster::of(2).await;
    cluster.create("a", "one").await;
    cluster.apply_one("app", "a", "objectVersion: latest");
    cluster.pod(0, "app", "1").await;
    let parameters = [
        ("objects", &*object("a", "")),
        ("credentials", "environment"),
    ];
    cluster.apply("chosen", &parameters, &["a"]);
    let pod = cluster.pod(1, "chosen", "2").await;
    cluster.live(2 * INTERVAL).await;
    let gone = json!({
        "match": {"operation": "ListSecretVersions"},
        "fault": {"status": 404, "code": "CSMS.0005"},
    });
    cluster.fault(gone).await;
    cluster.live(3 * INTERVAL).await;
    assert_eq!(reason(&cluster, "a"), "NotFound");
    cluster.put("a", "two", &[]).await;
    let most = INTERVAL + 30 * SECOND;
    cluster.until(most, || read(&pod, "a") == "two").await;
}

#[tokio::test]
async fn a_place_that_does_not_answer_makes_no_leader_resign() {
    const SILENT: &str = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee";
    let cluster = Cluster::with(Setup {
        nodes: 2,
        interval: 5 * INTERVAL,
        ..Setup::default()
    })
    .await;
    for secret in ["a", "own"] {
        cluster.create(secret, "one").await;
    }
    // Polled more rarely than a silence lasts that ends a leader's time.
    let objects = object("a", "");
    let parameters = [("objects", &*objects), ("rotationPollInterval", "30m")];
    cluster.apply("app", &parameters, &["a"]);
    cluster.pod(1, "app", "1").await;
    apply_in(
        &cluster,
        "hostile",
        "c",
        &object("own", ""),
        &["own".into()],
    );
    let pod = scheduled_in(&cluster, "hostile", "c", "h");
    cluster.publish(0, &pod).await.unwrap();
    cluster.live(INTERVAL).await;
    let first = cluster.leader();
    let silent = json!({"match": {"project": SILENT}, "fault": {"delay_ms": 100_000}});
    cluster.fault(silent).await;
    let place = [
        ("region", "ap-southeast-1"),
        ("projectId", SILENT),
        ("rotationPollInterval", "1m"),
    ];
    edit(&cluster, "c", &object("own", ""), &place);
    for _ in 0..25 {
        cluster.live(INTERVAL).await;
        assert_eq!(cluster.leader(), first);
    }
}

#[tokio::test]
async fn volumes_of_one_namespace_whose_cloud_does_not_respond_delay_no_update_of_others() {
    const SILENT: &str = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee";
    let cluster = Cluster::of(1).await;
    cluster.create("wanted", "one").await;
    cluster.apply_one("app", "wanted", "objectVersion: latest");
    let pod = cluster.pod(0, "app", "1").await;
    cluster.create("own", "mine").await;
    let (own, allowed) = (object("own", ""), ["own".to_owned()]);
    apply_in(&cluster, "greedy", "app", &own, &allowed);
    for i in 0..30 {
        let pod = scheduled_in(&cluster, "greedy", "app", &format!("g{i}"));
        cluster.publish(0, &pod).await.unwrap();
    }
    cluster.live(2 * INTERVAL).await;
    let fault = json!({"match": {"project": SILENT}, "fault": {"delay_ms": 100_000}});
    cluster.fault(fault).await;
    let parameters = [
        ("objects".to_owned(), own),
        ("projectId".to_owned(), SILENT.to_owned()),
    ];
    let edited = parameters.into();
    cluster.api.put_class("greedy", "app", &edited);
    cluster.live(5 * SECOND).await;
    cluster.put("wanted", "two", &[]).await;
    cluster.live(INTERVAL + 10 * SECOND).await;
    assert_eq!(read(&pod, "wanted"), "two");
}
