//! Versions of files, where the answer comes from, and what a class may say beside its objects.

use std::collections::BTreeMap;

use dew_provider::emulator::{self, Account, DEMO_PROJECT, DEMO_REGION};
use serde_json::json;
use tonic::Code;

use super::super::support::world::{Setup, World, read};

async fn versions(world: &World, uid: &str, objects: &str) -> BTreeMap<String, String> {
    world.apply_for("app", objects, &["a", "b"]).await;
    let pod = world.pod("app", uid);
    world.publish(&pod).await.unwrap();
    world.driver.status(&pod.target_path).unwrap().objects
}

#[tokio::test]
async fn versions_move_when_bytes_can_and_never_else() {
    let world = World::new().await;
    world.create("a", r#"{"k":"v"}"#).await;
    world.create("b", r#"{"k":"v"}"#).await;
    let of = |fields: &str| format!("- {{objectName: a, objectType: csms, {fields}}}");
    let plain = versions(&world, "1", &of("objectVersion: latest")).await;
    let (id, hash) = plain["a"].split_once('-').unwrap();
    assert_eq!(id, "v1");
    assert!(
        hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit()),
        "{hash}"
    );
    assert_eq!(
        plain,
        versions(&world, "2", &of("objectVersion: latest")).await
    );
    assert_eq!(plain, versions(&world, "3", &of("objectVersion: v1")).await);
    assert_eq!(plain, versions(&world, "4", &of("stage: SYSCURRENT")).await);
    let mut seen = vec![plain["a"].clone()];
    for (uid, fields, path) in [
        ("5", "objectVersion: v1, filePermission: \"0600\"", "a"),
        ("6", "objectVersion: v1, objectAlias: c", "c"),
        (
            "7",
            "objectVersion: v1, jmesPath: [{path: k, objectAlias: d}]",
            "d",
        ),
        (
            "8",
            "objectVersion: v1, jmesPath: [{path: \"k || k\", objectAlias: d}]",
            "d",
        ),
        ("9", "objectVersion: v1, allKeys: true", "k"),
    ] {
        seen.push(versions(&world, uid, &of(fields)).await[path].clone());
    }
    // The same value in another secret, and a new version with an old value.
    let other = of("objectVersion: v1").replace("objectName: a", "objectName: b");
    seen.push(versions(&world, "10", &other).await["b"].clone());
    world.put("a", r#"{"k":"v"}"#, &[]).await;
    seen.push(versions(&world, "11", &of("objectVersion: v2")).await["a"].clone());
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count, "{seen:?}");
}

/// Another account with projects in two regions, so that both can be asked.
fn two_regions() -> emulator::Config {
    let account = Account {
        projects: [
            (DEMO_REGION.to_owned(), DEMO_PROJECT.to_owned()),
            ("cn-south-1".to_owned(), "f".repeat(32)),
        ]
        .into(),
        ..Account::demo()
    };
    emulator::Config {
        accounts: vec![account],
        ..emulator::Config::default()
    }
}

#[tokio::test]
async fn another_region_is_asked_only_where_the_first_could_not_answer() {
    let world = World::with(Setup {
        emulator: two_regions(),
        // Else what the north gave before would stand in.
        stale_limit: std::time::Duration::ZERO,
        ..Setup::default()
    })
    .await;
    world.create("a", "of the north").await;
    let objects = "- {objectName: a, objectType: csms, objectVersion: latest}";
    world
        .api
        .put_account("default", "app", Some("[\"a\", \"gone\"]"));
    world
        .apply(
            "app",
            &[("objects", objects), ("failoverRegion", "cn-south-1")],
        )
        .await;
    let pod = world.pod("app", "1");
    world.publish(&pod).await.unwrap();
    assert_eq!(world.calls("ShowSecretVersion").await, 1);
    // "No" from the first region is an answer.
    let gone = objects.replace("objectName: a", "objectName: gone");
    world
        .apply(
            "app",
            &[("objects", &gone), ("failoverRegion", "cn-south-1")],
        )
        .await;
    let refused = world
        .publish(&world.pod("app", "2"))
        .await
        .expect_err("gone");
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(world.calls("ShowSecretVersion").await, 2);
    // A region that is down is not: the second one is asked, and both failures are told.
    world
        .apply(
            "app",
            &[("objects", objects), ("failoverRegion", "cn-south-1")],
        )
        .await;
    world
        .fault(json!({"match": {"region": "cn-north-4"}, "fault": {"status": 502}}))
        .await;
    world.pass(std::time::Duration::from_secs(11)).await;
    let refused = world
        .publish(&world.pod("app", "3"))
        .await
        .expect_err("not in the south");
    assert_eq!(refused.code(), Code::Internal, "{refused}");
    for text in [
        "HTTP 502",
        "gave up after 5 tries",
        "failoverRegion:",
        "CSMS.0106",
    ] {
        assert!(refused.message().contains(text), "{text}: {refused}");
    }
}

#[tokio::test]
async fn the_project_is_looked_up_once_and_taken_from_the_class_where_given() {
    let world = World::with(Setup {
        emulator: two_regions(),
        ..Setup::default()
    })
    .await;
    world.create("a", "one").await;
    let objects = "- {objectName: a, objectType: csms, objectVersion: latest}";
    for uid in ["1", "2", "3"] {
        world.apply_for("app", objects, &["a"]).await;
        world.publish(&world.pod("app", uid)).await.unwrap();
        world.pass(std::time::Duration::from_secs(11)).await;
    }
    assert_eq!(world.calls("KeystoneListProjects").await, 1);
    world
        .apply(
            "app",
            &[
                ("objects", objects),
                ("projectId", DEMO_PROJECT),
                ("region", "cn-east-3"),
            ],
        )
        .await;
    let pod = world.pod("app", "4");
    world.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "one");
    assert_eq!(world.calls("KeystoneListProjects").await, 1);
    // A region in which the account has no project.
    world
        .apply("app", &[("objects", objects), ("region", "cn-east-3")])
        .await;
    let refused = world
        .publish(&world.pod("app", "5"))
        .await
        .expect_err("no project");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("cn-east-3") && refused.message().contains("project"),
        "{refused}"
    );
}

#[tokio::test]
async fn what_is_not_set_up_is_told_with_what_to_do() {
    let world = World::with(Setup {
        region: None,
        env: Vec::new(),
        emulator: emulator::Config {
            agency: false,
            ..Default::default()
        },
        ..Setup::default()
    })
    .await;
    let objects = "- {objectName: a, objectType: csms, objectVersion: latest}";
    let refused = |parameters: Vec<(&'static str, &'static str)>| {
        let world = &world;
        async move {
            world.api.put_account("default", "app", Some("[\"a\"]"));
            world.apply("app", &parameters).await;
            world
                .publish(&world.pod("app", "1"))
                .await
                .expect_err("not set up")
        }
    };
    for (parameters, code, texts) in [
        (
            vec![("objects", objects)],
            Code::FailedPrecondition,
            vec!["no region", "parameter region", "--region"],
        ),
        (
            vec![("region", "cn-north-4")],
            Code::InvalidArgument,
            vec!["has no parameter objects"],
        ),
        (
            vec![("objects", objects), ("region", "../x")],
            Code::InvalidArgument,
            vec!["parameter region"],
        ),
        (
            vec![
                ("objects", objects),
                ("region", "cn-north-4"),
                ("projectId", "a/b"),
            ],
            Code::InvalidArgument,
            vec!["parameter projectId"],
        ),
        (
            vec![
                ("objects", objects),
                ("region", "cn-north-4"),
                ("credentials", "envronment"),
            ],
            Code::InvalidArgument,
            vec!["parameter credentials", "did you mean environment?"],
        ),
        (
            vec![
                ("objects", objects),
                ("region", "cn-north-4"),
                ("credentials", "nodePublishSecretRef"),
            ],
            Code::InvalidArgument,
            vec!["the pod's volume names none"],
        ),
        (
            vec![
                ("objects", objects),
                ("region", "cn-north-4"),
                ("agency", "x"),
            ],
            Code::InvalidArgument,
            vec!["not supported yet"],
        ),
        (
            vec![("objects", objects), ("regoin", "cn-north-4")],
            Code::InvalidArgument,
            vec!["\"regoin\" is not known; did you mean region?"],
        ),
        (
            vec![("objects", objects), ("region", "cn-north-4")],
            Code::FailedPrecondition,
            vec!["HUAWEICLOUD_SDK_AK", "agency"],
        ),
    ] {
        let status = refused(parameters.clone()).await;
        assert_eq!(status.code(), code, "{parameters:?}: {status}");
        for text in texts {
            assert!(status.message().contains(text), "{text}: {status}");
        }
    }
}

#[tokio::test]
async fn without_further_ado_the_nodes_agency_signs() {
    let setup = Setup {
        env: Vec::new(),
        ..Setup::default()
    };
    let world = World::with(setup).await;
    world.create("a", "one").await;
    world
        .apply_for(
            "app",
            "- {objectName: a, objectType: csms, objectVersion: latest}",
            &["a"],
        )
        .await;
    let pod = world.pod("app", "1");
    world.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "one");
    let metrics = world.metrics().await;
    assert!(
        metrics.contains("dew_provider_credential_expiry_timestamp_seconds{source=\"agency\"}"),
        "{metrics}"
    );
}
