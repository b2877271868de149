//! The cache on its own: eviction, logging, and the snapshot file.

mod file;

use std::time::Duration;

use dew_provider::cache::{CacheKey, SecretCache};
use dew_provider::cloud::{
    AccessKeys, Caller, Cloud, CloudConfig, Credentials, Turn, VersionSelector,
};
use dew_provider::sim::huawei::{DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY};
use dew_provider::telemetry::metrics::Metrics;
use dew_provider::util::clock::{Clock, Jitter};
use dew_provider::util::env::Env;
use tokio::time::Instant;

use crate::support::logs::Logs;
use crate::support::paused_clock::drive;
use crate::support::test_node::TestNode;

#[tokio::test]
async fn the_least_recently_used_version_is_evicted() {
    let node = TestNode::new().await;
    let metrics = Metrics::new();
    let config = CloudConfig::emulated(&node.emulator.url());
    let clock = Clock::from_tokio("2026-01-02T03:04:05Z".parse().unwrap());
    let (env, jitter) = (Env::default(), Jitter::seeded(1));
    let cloud = Cloud::new(config, &env, clock, jitter, metrics.cloud.clone()).unwrap();
    let keys = AccessKeys::new(DEMO_ACCESS_KEY, DEMO_SECRET_KEY, None, None);
    let caller = Caller {
        region: DEMO_REGION.parse().unwrap(),
        project: Some(DEMO_PROJECT.into()),
        credentials: Credentials::fixed(keys, "test"),
        turn: Turn::default(),
    };
    // Room for three values of 1000 bytes and their overhead.
    let cache = SecretCache::with_max_bytes(cloud, &metrics, Duration::ZERO, 5_000);
    let key = |i: usize| {
        CacheKey::new(
            &caller,
            &caller.credentials.identity(),
            &format!("s{i}"),
            &VersionSelector::Latest,
        )
    };
    for i in 0..4 {
        node.create(&format!("s{i}"), "x".repeat(1000)).await;
        node.pass(Duration::from_secs(1)).await;
        if i == 3 {
            assert!(
                cache.peek(&key(0), None).is_some(),
                "this use protects it from eviction"
            );
        }
        let deadline = Instant::now() + Duration::from_secs(45);
        drive(cache.get(&caller, key(i), None, deadline))
            .await
            .unwrap();
    }
    let cached: Vec<bool> = (0..4)
        .map(|i| cache.peek(&key(i), None).is_some())
        .collect();
    assert_eq!(cached, [true, false, true, true]);
}

#[tokio::test]
async fn a_fetched_version_is_logged_with_its_request_id() {
    let node = TestNode::new().await;
    node.create("a", "one").await;
    node.apply_for(
        "app",
        "- {objectName: a, objectType: csms, objectVersion: latest}",
        &["a"],
    )
    .await;
    let logs = Logs::capture();
    node.publish(&node.pod("app", "1")).await.unwrap();
    let text = logs.text();
    let line = text
        .lines()
        .find(|line| line.contains("INFO") && line.contains(" fetched "))
        .unwrap();
    assert!(
        line.contains("secret=\"a\"") && line.contains("version=\"v1\""),
        "{line}"
    );
    let id = line
        .split("request_id=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let calls = node.control(http::Method::GET, "calls", "").await.json();
    let calls = calls["calls"].as_array().unwrap();
    assert!(
        calls.iter().any(|call| call["request_id"] == id),
        "{line} {calls:?}"
    );
}
