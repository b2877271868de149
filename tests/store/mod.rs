//! The store by itself: its bound, what it logs, and its file.

mod file;

use std::time::Duration;

use dew_provider::clock::{Clock, Jitter};
use dew_provider::cloud::{AccessKeys, Caller, Cloud, Config, Credentials, Env};
use dew_provider::emulator::{DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY};
use dew_provider::observe::metrics::Metrics;
use dew_provider::store::{Key, Selector, Store};
use tokio::time::Instant;

use super::support::logs::Logs;
use super::support::still::hurry;
use super::support::world::World;

#[tokio::test]
async fn what_was_unused_for_longest_makes_room() {
    let world = World::new().await;
    let metrics = Metrics::new();
    let config = Config {
        csms_endpoint: Some(world.emulator.url()),
        ..Config::default()
    };
    let clock = Clock::from_tokio("2026-01-02T03:04:05Z".parse().unwrap());
    let (env, jitter) = (Env::default(), Jitter::seeded(1));
    let cloud = Cloud::new(config, &env, clock, jitter, metrics.cloud.clone()).unwrap();
    let keys = AccessKeys::new(DEMO_ACCESS_KEY, DEMO_SECRET_KEY, None, None);
    let caller = Caller {
        region: DEMO_REGION.parse().unwrap(),
        project: Some(DEMO_PROJECT.into()),
        credentials: Credentials::fixed(keys, "test"),
    };
    // Room for three values of a thousand bytes with what is around them.
    let store = Store::with_max_bytes(cloud, &metrics, Duration::ZERO, 5_000);
    let key = |i: usize| {
        Key::new(
            &caller,
            &caller.credentials.identity(),
            &format!("s{i}"),
            &Selector::Latest,
        )
    };
    for i in 0..4 {
        world.create(&format!("s{i}"), "x".repeat(1000)).await;
        world.pass(Duration::from_secs(1)).await;
        if i == 3 {
            assert!(
                store.peek(&key(0), None).is_some(),
                "used, so that another goes"
            );
        }
        let deadline = Instant::now() + Duration::from_secs(45);
        hurry(store.get(&caller, key(i), None, deadline))
            .await
            .unwrap();
    }
    let held: Vec<bool> = (0..4)
        .map(|i| store.peek(&key(i), None).is_some())
        .collect();
    assert_eq!(held, [true, false, true, true]);
}

#[tokio::test]
async fn a_new_version_is_logged_with_the_request_that_brought_it() {
    let world = World::new().await;
    world.create("a", "one").await;
    world
        .apply_for(
            "app",
            "- {objectName: a, objectType: csms, objectVersion: latest}",
            &["a"],
        )
        .await;
    let logs = Logs::capture();
    world.publish(&world.pod("app", "1")).await.unwrap();
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
    let calls = world.control(http::Method::GET, "calls", "").await.json();
    let calls = calls["calls"].as_array().unwrap();
    assert!(
        calls.iter().any(|call| call["request_id"] == id),
        "{line} {calls:?}"
    );
}
