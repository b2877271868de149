//! What the leader polls under a policy, and what running pods get.

use crate::support::api_server::LEASES;
use crate::support::cluster::{Cluster, INTERVAL, SECOND, Setup, read};

const LATEST: &str = "objectVersion: latest";

fn allows(secrets: &str) -> String {
    format!("version: 1\nrules: [{{namespaces: [default], secrets: [{secrets}]}}]")
}

async fn cluster(policy: &str) -> Cluster {
    let cluster = Cluster::with(Setup {
        nodes: 2,
        policy: Some(policy.to_owned()),
        ..Setup::default()
    })
    .await;
    for name in ["a", "b"] {
        cluster.create(name, "one").await;
        cluster.apply_one(name, name, LATEST);
    }
    cluster
}

const PLANNED: &str = "dew_provider_rotation_planned_secrets";

async fn planned(cluster: &Cluster) -> f64 {
    cluster.metric(0, PLANNED).await + cluster.metric(1, PLANNED).await
}

#[tokio::test]
async fn the_leader_polls_what_the_policy_allows_as_it_is_now() {
    let cluster = cluster(&allows("a, b")).await;
    let pods = [
        cluster.pod(0, "a", "1").await,
        cluster.pod(1, "b", "2").await,
    ];
    cluster.live(2 * INTERVAL).await;
    assert_eq!(planned(&cluster).await, 2.0);

    cluster.write_policy(&allows("a"));
    cluster.live(10 * SECOND).await;
    assert_eq!(planned(&cluster).await, 1.0);
    // The allowed secret still rotates, and the other pod keeps its file for as long as the policy says so.
    for name in ["a", "b"] {
        cluster.put(name, "two", &[]).await;
    }
    cluster
        .until(INTERVAL + 6 * SECOND, || read(&pods[0], "a") == "two")
        .await;
    cluster.live(3 * INTERVAL).await;
    assert_eq!(read(&pods[1], "b"), "one");
    assert_eq!(cluster.revision("b").unwrap()["status"]["version"], "v1");

    cluster.write_policy(&allows("\"?\""));
    cluster.live(10 * SECOND).await;
    assert_eq!(planned(&cluster).await, 2.0);
    cluster
        .until(2 * INTERVAL, || read(&pods[1], "b") == "two")
        .await;
}

#[tokio::test]
async fn a_new_version_does_not_reach_a_pod_that_the_policy_no_longer_allows() {
    let cluster = cluster(&allows("a, b")).await;
    let pod = cluster.pod(0, "a", "1").await;
    cluster.live(INTERVAL).await;
    cluster.write_policy(&allows("b"));
    cluster.live(10 * SECOND).await;
    cluster.put("a", "two", &[]).await;
    // The driver calls the provider again, as kubelet makes it do every minute.
    for _ in 0..4 {
        cluster.publish(0, &pod).await.unwrap();
        cluster.live(INTERVAL).await;
    }
    assert_eq!(read(&pod, "a"), "one");
    let events = cluster.events_with_reason("SecretAccessRevoked");
    assert_eq!(events.len(), 1, "{events:?}");
    let text = "no rule of the operator's policy allows namespace \"default\" to use this secret";
    assert!(
        events.iter().any(|event| event.contains(text)),
        "{events:?}"
    );
}

#[tokio::test]
async fn a_node_without_a_leader_polls_only_what_the_policy_allows() {
    let cluster = cluster(&allows("a, b")).await;
    cluster.api.0.fail_resource(LEASES, Some(403));
    for (uid, name) in ["a", "b"].into_iter().enumerate() {
        cluster.pod(0, name, &uid.to_string()).await;
    }
    // The first node may have led for a moment.
    cluster.live(3 * INTERVAL).await;
    let calls = async || {
        cluster.live(10 * SECOND).await;
        cluster.clear_calls().await;
        cluster.live(6 * INTERVAL).await;
        cluster.calls("ShowSecretVersion").await
    };
    let both = calls().await;
    assert!((8..=14).contains(&both), "{both}");
    cluster.write_policy(&allows("a"));
    let one = calls().await;
    assert!((4..=7).contains(&one), "{one}");
    cluster.write_policy(&allows("none"));
    assert_eq!(calls().await, 0);
}
