//! The process's own credentials, with paused time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::*;
use crate::cloud::testing::{Log, Reply, caller, client, header, reply, version};
use crate::cloud::{ApiError, Caller, Cloud, Csms, ErrorKind};
use crate::util::env::Env;

const TOKEN_PATH: &str = "PUT /meta-data/latest/api/token";
const KEYS_PATH: &str = "GET /openstack/latest/securitykey";
const EXPIRED: &str =
    r#"{"error_code":"APIG.0301","error_msg":"decrypt token fail: token expires"}"#;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(45)
}

/// Keys number `n`, which end `hours` after the tests' beginning.
fn keys(n: u32, hours: u32) -> Reply {
    let start: Timestamp = "2024-01-02T03:04:05Z".parse().unwrap();
    let end = start + Duration::from_secs(3600 * u64::from(hours));
    let body = format!(
        r#"{{"credential":{{"access":"AK{n}","secret":"SKCANARY","securitytoken":"T{n}","expires_at":"{end}"}}}}"#
    );
    reply(200, "", &body)
}

/// A client whose metadata service answers with `handler`, and its agency's credentials.
fn agency(
    handler: impl Fn(usize, &str) -> Reply + Send + Sync + 'static,
) -> (Cloud, Credentials, Log) {
    let (cloud, log) = client(&Env::default(), handler);
    let own = cloud
        .own_credentials(&Env::default(), Some(Source::Agency))
        .unwrap();
    (cloud, own, log)
}

async fn access_key(credentials: &Credentials) -> Result<String, ApiError> {
    let keys = credentials.keys(soon()).await?;
    Ok(keys.access_key().to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_session_token_is_asked_for_once_and_sent() {
    let (_, own, log) = agency(|_, head| {
        if head.starts_with(TOKEN_PATH) {
            assert_eq!(header(head, "x-metadata-token-ttl-seconds"), Some("21600"));
            reply(200, "", "tok\n")
        } else if header(head, "x-metadata-token") == Some("tok") {
            keys(1, 24)
        } else {
            reply(401, "", "")
        }
    });
    let (a, b, c) = tokio::join!(access_key(&own), access_key(&own), access_key(&own));
    assert_eq!(
        (a.unwrap(), b.unwrap(), c.unwrap()),
        ("AK1".into(), "AK1".into(), "AK1".into())
    );
    assert_eq!((log.count(TOKEN_PATH), log.count(KEYS_PATH)), (1, 1));
    assert_eq!(own.source(), "agency");
}

#[tokio::test(start_paused = true)]
async fn a_node_without_session_tokens_is_not_asked_again_for_a_day() {
    for status in [404, 405, 503] {
        let (_, own, log) = agency(move |_, head| {
            if head.starts_with(TOKEN_PATH) {
                reply(status, "", "")
            } else {
                keys(1, 2)
            }
        });
        access_key(&own).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        access_key(&own).await.unwrap();
        assert_eq!(log.count(TOKEN_PATH), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ended_is_replaced() {
    let puts = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&puts);
    let (_, own, _) = agency(move |_, head| {
        if head.starts_with(TOKEN_PATH) {
            let n = counted.fetch_add(1, Ordering::Relaxed);
            reply(200, "", &format!("tok{n}"))
        } else if header(head, "x-metadata-token") == Some("tok1") {
            keys(1, 24)
        } else {
            reply(401, "", "token required")
        }
    });
    assert_eq!(access_key(&own).await.unwrap(), "AK1");
    assert_eq!(puts.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_node_without_agency_or_service_is_not_configured() {
    type Case = (fn() -> Reply, &'static str);
    let cases: [Case; 4] = [
        (
            || reply(401, "", "Please configure Cloud Service Agency first"),
            "no agency",
        ),
        (|| reply(404, "", ""), "not an ECS node"),
        (|| Reply::Unreachable, "no metadata service responds"),
        (|| Reply::Silence, "no metadata service responds"),
    ];
    for (answer, expected) in cases {
        let (_, own, _) = agency(move |_, head| match head.starts_with(TOKEN_PATH) {
            true => reply(404, "", ""),
            false => answer(),
        });
        let error = access_key(&own).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Credentials);
        assert!(error.message.contains(expected), "{error}");
        assert!(
            error.message.contains("no credentials are configured"),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_agency_names_itself_and_shows_no_answer() {
    for (status, body) in [
        (500, "CANARY"),
        (200, "CANARY"),
        (200, r#"{"credential":{"access":"CANARY"}}"#),
    ] {
        let (_, own, _) = agency(move |_, head| match head.starts_with(TOKEN_PATH) {
            true => reply(404, "", ""),
            false => reply(status, "", body),
        });
        let error = access_key(&own).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Credentials);
        assert!(
            error.message.starts_with("credentials from agency"),
            "{error}"
        );
        assert!(!error.message.contains("CANARY"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_renewed_ahead_and_the_last_ones_kept_through_a_failure() {
    let down = Arc::new(AtomicBool::new(false));
    let is_down = Arc::clone(&down);
    let round = Arc::new(AtomicU32::new(0));
    let (_, own, log) = agency(move |_, head| {
        if head.starts_with(TOKEN_PATH) {
            reply(404, "", "")
        } else if is_down.load(Ordering::Relaxed) {
            reply(500, "", "")
        } else if head.is_empty() {
            keys(0, 1) // only whether there is a connection
        } else {
            let n = round.fetch_add(1, Ordering::Relaxed) + 1;
            keys(n, 6 * n)
        }
    });
    assert_eq!(access_key(&own).await.unwrap(), "AK1");
    // 5 h 10 min: more than 40 minutes are left, and the 5 of spread
    tokio::time::sleep(Duration::from_secs(310 * 60)).await;
    assert_eq!(log.count(KEYS_PATH), 1);
    down.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(40 * 60)).await;
    assert!(log.count(KEYS_PATH) > 2, "tried again and again");
    assert_eq!(access_key(&own).await.unwrap(), "AK1", "still valid");
    down.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(2 * 60)).await;
    assert_eq!(access_key(&own).await.unwrap(), "AK2");
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_handle() {
    let (_, own, log) = agency(|_, head| match head.starts_with(TOKEN_PATH) {
        true => reply(404, "", ""),
        false => keys(1, 1),
    });
    access_key(&own).await.unwrap();
    let other = own.clone();
    drop(own);
    tokio::time::sleep(Duration::from_secs(50 * 60)).await;
    let asked = log.count(KEYS_PATH);
    assert!(asked > 1);
    drop(other);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(log.count(KEYS_PATH), asked);
}

#[tokio::test(start_paused = true)]
async fn keys_refused_as_expired_are_renewed_once() {
    let given = Arc::new(AtomicU32::new(0));
    let (cloud, own, log) = agency(move |_, head| {
        if head.starts_with(TOKEN_PATH) {
            reply(404, "", "")
        } else if head.starts_with(KEYS_PATH) {
            keys(given.fetch_add(1, Ordering::Relaxed) + 1, 24)
        } else if header(head, "x-security-token") == Some("T2") {
            version("v1")
        } else {
            reply(401, "", EXPIRED)
        }
    });
    let caller = Caller {
        credentials: own,
        ..caller()
    };
    Csms::new(cloud)
        .show_secret_version(&caller, "db", "v1", soon())
        .await
        .unwrap();
    assert_eq!((log.count("/secrets/db"), log.count(KEYS_PATH)), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_refuses_all_keys_is_asked_twice() {
    let (cloud, own, log) = agency(|n, head| {
        if head.starts_with(TOKEN_PATH) {
            reply(404, "", "")
        } else if head.starts_with(KEYS_PATH) {
            keys(u32::try_from(n).unwrap(), 24)
        } else {
            reply(401, "", EXPIRED)
        }
    });
    let caller = Caller {
        credentials: own,
        ..caller()
    };
    let error = Csms::new(cloud)
        .show_secret_version(&caller, "db", "v1", soon())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::CredentialsExpired);
    assert_eq!(log.count("/secrets/db"), 2);
}

#[tokio::test(start_paused = true)]
async fn the_chain_takes_the_first_that_is_configured_and_stops_at_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".huaweicloud/credentials");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let file = path.to_str().unwrap();
    let home = dir.path().to_str().unwrap();
    let (cloud, log) = client(&Env::default(), |_, _| Reply::Unreachable);
    let own = |pairs: &[(&str, &str)]| {
        cloud.own_credentials(&Env::from_pairs(pairs.iter().copied()), None)
    };

    let half = own(&[("HUAWEICLOUD_SDK_AK", "a"), ("HUAWEICLOUD_SDK_SK", "")]).unwrap_err();
    assert!(
        half.message.starts_with("credentials from environment"),
        "{half}"
    );

    // nothing yet: all three are named, and asked again at the next call
    let later = own(&[("HOME", home)]).unwrap();
    let none = access_key(&later).await.unwrap_err();
    for part in ["HUAWEICLOUD_SDK_AK is not set", file, "no metadata service"] {
        assert!(none.message.contains(part), "{none}");
    }
    let asked = log.len();
    // a file that is named has to be there
    let named = own(&[("HUAWEICLOUD_SDK_CREDENTIALS_FILE", file)]).unwrap();
    let error = access_key(&named).await.unwrap_err();
    assert!(error.message.contains("does not exist (set by"), "{error}");
    std::fs::write(&path, "[basic]\nak = F\nsk = s\nproject_id = pf\n").unwrap();
    assert_eq!(access_key(&later).await.unwrap(), "F");
    assert_eq!(later.source(), "file");
    assert_eq!(later.project(soon()).await.unwrap().as_deref(), Some("pf"));
    assert_eq!(log.len(), asked, "the agency is not asked");

    let both = own(&[
        ("HUAWEICLOUD_SDK_AK", "E"),
        ("HUAWEICLOUD_SDK_SK", "s"),
        ("HUAWEICLOUD_SDK_PROJECT_ID", "pe"),
        ("HUAWEICLOUD_SDK_CREDENTIALS_FILE", file),
    ])
    .unwrap();
    assert_eq!(access_key(&both).await.unwrap(), "E");
    assert_eq!(both.project(soon()).await.unwrap().as_deref(), Some("pe"));

    std::fs::write(&path, "[basic]\nak = F\n").unwrap();
    let broken = own(&[("HUAWEICLOUD_SDK_CREDENTIALS_FILE", file)]).unwrap();
    let error = access_key(&broken).await.unwrap_err();
    assert!(
        error.message.starts_with("credentials from file"),
        "{error}"
    );
    assert_eq!(log.len(), asked, "a failure does not fall through");
}

#[tokio::test(start_paused = true)]
async fn keys_in_a_file_that_were_replaced_are_taken_after_a_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("credentials");
    std::fs::write(&path, "[basic]\nak = OLD\nsk = s\nsecurity_token = t\n").unwrap();
    let swapped = path.clone();
    let (cloud, log) = client(&Env::default(), move |_, head| {
        if head.contains("Access=NEW") {
            return version("v1");
        }
        if !head.is_empty() {
            std::fs::write(&swapped, "[basic]\nak = NEW\nsk = s\nsecurity_token = t\n").unwrap();
        }
        reply(401, "", EXPIRED)
    });
    let env = Env::from_pairs([("HUAWEICLOUD_SDK_CREDENTIALS_FILE", path.to_str().unwrap())]);
    let own = cloud.own_credentials(&env, Some(Source::File)).unwrap();
    let caller = Caller {
        credentials: own,
        ..caller()
    };
    Csms::new(cloud)
        .show_secret_version(&caller, "db", "v1", soon())
        .await
        .unwrap();
    assert_eq!(log.len(), 2);
}
