//! Leaders that end, are cut off, or are robbed of the Lease.

use serde_json::json;

use super::super::support::api_server::{LEASES, REVISIONS};
use super::super::support::cluster::{Cluster, INTERVAL, SECOND, read};

async fn cluster(nodes: usize) -> (Cluster, Vec<dew_provider::driver::PodVolume>) {
    let cluster = Cluster::of(nodes).await;
    cluster.create("a", "one").await;
    cluster.apply_one("app", "a", "objectVersion: latest");
    let mut pods = Vec::new();
    for node in 0..nodes {
        pods.push(cluster.pod(node, "app", &node.to_string()).await);
    }
    cluster.live(2 * INTERVAL).await;
    (cluster, pods)
}

fn index(leader: &str) -> usize {
    leader.strip_prefix("node-").unwrap().parse().unwrap()
}

async fn leaders(cluster: &Cluster) -> usize {
    let mut count = 0.0;
    for node in 0..cluster.nodes.len() {
        count += cluster.metric(node, "dew_provider_rotation_leader").await;
    }
    count as usize
}

#[tokio::test]
async fn there_is_one_leader_and_its_successor_follows_at_once() {
    let (mut cluster, pods) = cluster(3).await;
    assert_eq!(leaders(&cluster).await, 1);
    let first = cluster.leader();
    cluster.restart(index(&first)).await;
    cluster.live(10 * SECOND).await;
    assert_eq!(leaders(&cluster).await, 1);
    // A provider that starts anew learns of its volumes when kubelet looks after them.
    let first = index(&first);
    cluster.publish(first, &pods[first]).await.unwrap();
    cluster.put("a", "two", &[]).await;
    cluster
        .until(INTERVAL + 6 * SECOND, || {
            pods.iter().all(|pod| read(pod, "a") == "two")
        })
        .await;
}

#[tokio::test]
async fn a_stolen_lease_stops_the_asking_at_the_next_renewal() {
    let (cluster, _pods) = cluster(2).await;
    let mut lease = cluster.api.0.list(LEASES).remove(0);
    lease["spec"]["holderIdentity"] = json!("node-9_thief");
    cluster.api.0.put(LEASES, lease);
    cluster.live(15 * SECOND).await;
    assert_eq!(leaders(&cluster).await, 0);
    cluster.clear_calls().await;
    // The thief never renews.
    cluster.live(20 * SECOND).await;
    assert_eq!(cluster.calls("ListSecretVersions").await, 0);
    cluster.live(15 * SECOND).await;
    assert_eq!(leaders(&cluster).await, 1);
    let lease = cluster.api.0.list(LEASES).remove(0);
    assert_eq!(lease["spec"]["leaseTransitions"], 1);
}

#[tokio::test]
async fn a_leader_that_cannot_renew_stops_before_others_may_lead() {
    let (cluster, pods) = cluster(2).await;
    cluster.api.set_broken(Some(500));
    cluster.live(35 * SECOND).await;
    assert_eq!(leaders(&cluster).await, 0);
    // The API server is away for long: each node asks for itself.
    cluster.put("a", "two", &[]).await;
    cluster.live(3 * INTERVAL).await;
    // kubelet has none of it either, but the driver has its cache: here the API server is back.
    cluster.api.set_broken(None);
    cluster.live(INTERVAL).await;
    assert_eq!(leaders(&cluster).await, 1);
    assert!(pods.iter().all(|pod| read(pod, "a") == "two"));
}

#[tokio::test]
async fn a_leader_that_vanished_is_replaced_within_two_intervals() {
    let (mut cluster, pods) = cluster(3).await;
    let first = index(&cluster.leader());
    // Its Lease stays as it was: nobody gave it back.
    let left = cluster.api.0.list(LEASES).remove(0);
    let gone = cluster.nodes.remove(first);
    drop(gone);
    cluster.live(SECOND).await;
    cluster.api.0.put(LEASES, left);
    cluster.put("a", "two", &[]).await;
    let mut rest = pods.clone();
    rest.remove(first);
    cluster
        .until(2 * INTERVAL, || {
            rest.iter().all(|pod| read(pod, "a") == "two")
        })
        .await;
}

#[tokio::test]
async fn watches_that_end_are_taken_up_again() {
    let (cluster, pods) = cluster(2).await;
    for value in ["two", "three"] {
        cluster.api.0.end_watches();
        cluster.put("a", value, &[]).await;
        cluster
            .until(INTERVAL + 20 * SECOND, || {
                pods.iter().all(|pod| read(pod, "a") == value)
            })
            .await;
    }
}

#[tokio::test]
async fn a_leader_that_cannot_reach_the_cloud_lets_another_one_lead() {
    let (cluster, pods) = cluster(2).await;
    let first = cluster.leader();
    // Only its way to the cloud is cut.
    cluster.nodes[index(&first)].cut(true);
    cluster.live(5 * INTERVAL).await;
    assert_ne!(cluster.leader(), first);
    cluster.put("a", "two", &[]).await;
    let other = &pods[1 - index(&first)];
    cluster
        .until(2 * INTERVAL, || read(other, "a") == "two")
        .await;
    assert_eq!(leaders(&cluster).await, 1);
}

#[tokio::test]
async fn a_secret_revision_that_somebody_deletes_comes_back() {
    let (cluster, pods) = cluster(2).await;
    let revision = cluster.revision("a").unwrap();
    let name = revision["metadata"]["name"].as_str().unwrap();
    cluster.api.0.remove(REVISIONS, "", name);
    cluster.live(2 * SECOND).await;
    assert_eq!(cluster.revision("a").unwrap()["status"]["version"], "v1");
    cluster.put("a", "two", &[]).await;
    cluster
        .until(INTERVAL + 6 * SECOND, || {
            pods.iter().all(|pod| read(pod, "a") == "two")
        })
        .await;
}

#[tokio::test]
async fn a_deleted_lease_and_watches_that_are_too_old_are_no_end() {
    let (cluster, pods) = cluster(2).await;
    cluster.api.0.remove(LEASES, "kube-system", "dew-provider");
    cluster.api.0.forget_changes();
    cluster.live(2 * INTERVAL).await;
    assert_eq!(leaders(&cluster).await, 1);
    cluster.put("a", "two", &[]).await;
    cluster
        .until(2 * INTERVAL, || {
            pods.iter().all(|pod| read(pod, "a") == "two")
        })
        .await;
}

/// Over a change of leaders no secret is asked for by both, but once.
#[tokio::test]
async fn questions_overlap_once_at_most() {
    let (mut cluster, _pods) = cluster(3).await;
    for _ in 0..3 {
        cluster.clear_calls().await;
        let leader = index(&cluster.leader());
        cluster.restart(leader).await;
        cluster.live(INTERVAL).await;
        let calls = cluster.calls("ListSecretVersions").await;
        assert!((1..=3).contains(&calls), "{calls}");
    }
}
