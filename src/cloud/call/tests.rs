//! The loop, with paused time.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use super::*;
use crate::cloud::csms::{NewSecret, SecretValue};
use crate::cloud::testing::{Reply, caller, client, cloud, header, reply, version};
use crate::cloud::{Caller, Cloud, Credentials, Csms, SecretVersion, Turn};
use crate::telemetry::metrics::CallLabels;
use crate::util::env::Env;
use crate::util::secret_bytes::SecretBytes;

fn seconds(n: u64) -> Instant {
    Instant::now() + Duration::from_secs(n)
}

async fn show(cloud: &Csms, deadline: Instant) -> Result<SecretVersion, ApiError> {
    cloud
        .show_secret_version(&caller(), "db", "latest", deadline)
        .await
}

async fn create(cloud: &Csms) -> Result<(), ApiError> {
    let secret = NewSecret {
        name: "db".into(),
        kms_key_id: None,
        description: None,
        value: SecretValue::Text(SecretBytes::from("value".to_owned())),
    };
    cloud
        .create_secret(&caller(), secret, seconds(45))
        .await
        .map(drop)
}

/// What happens when a request gets this, with the number of requests that were made.
async fn against(bad: impl Fn() -> Reply + Send + Sync + 'static) -> (ErrorKind, usize, ApiError) {
    let (cloud, log) = cloud(&Env::default(), move |_, _| bad());
    let error = show(&cloud, seconds(45)).await.unwrap_err();
    (error.kind, log.len(), error)
}

#[tokio::test(start_paused = true)]
async fn a_call_is_signed_and_its_response_parsed() {
    let (cloud, log) = cloud(&Env::default(), |_, _| version("v3"));
    let got = show(&cloud, seconds(45)).await.unwrap();
    assert_eq!(got.metadata.id, "v3");
    assert_eq!(got.value.bytes().expose(), b"value");
    let head = &log.all()[0];
    assert!(
        head.starts_with("GET /v1/p1/secrets/db/versions/latest HTTP/1.1\r\n"),
        "{head}"
    );
    assert_eq!(header(head, "x-project-id"), Some("p1"));
    assert_eq!(header(head, "host"), Some("csms.test"));
    assert!(!head.contains("SKCANARY"));
}

#[tokio::test(start_paused = true)]
async fn transient_statuses_are_retried_with_a_new_signature() {
    for status in [429, 500, 502, 503, 504] {
        let (cloud, log) = cloud(&Env::default(), move |n, _| match n {
            0 | 1 => reply(status, "retry-after: 2\r\n", ""),
            _ => version("v1"),
        });
        show(&cloud, seconds(45)).await.unwrap();
        let heads = log.all();
        let dates: Vec<_> = heads
            .iter()
            .map(|head| header(head, "x-sdk-date").unwrap())
            .collect();
        assert_eq!(
            dates,
            ["20240102T030405Z", "20240102T030407Z", "20240102T030409Z"]
        );
        let mut signatures: Vec<_> = heads
            .iter()
            .map(|head| header(head, "authorization").unwrap())
            .collect();
        signatures.dedup();
        assert_eq!(signatures.len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn there_are_five_attempts_and_bounded_waits() {
    let begin = Instant::now();
    let (kind, sent, error) = against(|| {
        reply(
            502,
            "x-request-id: r9\r\n",
            r#"{"error_code":"APIG.0201","error_msg":"Backend"}"#,
        )
    })
    .await;
    assert_eq!((kind, sent, error.attempts), (ErrorKind::Server, 5, 5));
    assert!(begin.elapsed() < Duration::from_millis(200 + 400 + 800 + 1600));
    let text = error.to_string();
    for part in [
        "ShowSecretVersion at csms.test",
        "HTTP 502 APIG.0201 Backend",
        "r9",
        "5 attempts",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_beyond_the_deadline_fails_at_once() {
    let begin = Instant::now();
    let (kind, sent, error) = against(|| reply(429, "retry-after: 60\r\n", "")).await;
    assert_eq!((kind, sent), (ErrorKind::Throttled, 1));
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert!(error.message.contains("asks to wait 60 s"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn invalid_responses_are_malformed() {
    let cases: [fn() -> Reply; 5] = [
        || reply(200, "", "<html>hunter2</html>"),
        || reply(200, "", r#"{"version":{"secret_string":"hunter2"}}"#),
        || reply(200, "", r#"{"version":{"version_metadata":{"id":"v1""#),
        || {
            Reply::Raw(
                "HTTP/1.1 200 OK\r\ncontent-length: 999\r\nconnection: close\r\n\r\nhunter2".into(),
            )
        },
        || Reply::Raw("hunter2 garbage\r\n\r\nconnection: close".into()),
    ];
    for bad in cases {
        let (kind, sent, error) = against(bad).await;
        assert_eq!((kind, sent), (ErrorKind::Malformed, 5), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    let (kind, sent, error) =
        against(|| Reply::Raw("HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n".into())).await;
    assert_eq!((kind, sent), (ErrorKind::Malformed, 1), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_times_out_after_8_s_and_the_call_at_its_deadline() {
    let begin = Instant::now();
    let (kind, sent, _) = against(|| Reply::Silence).await;
    assert_eq!((kind, sent), (ErrorKind::Timeout, 5));
    assert!(
        begin.elapsed() >= Duration::from_secs(40) && begin.elapsed() < Duration::from_secs(43)
    );

    let (cloud, _) = cloud(&Env::default(), |_, _| Reply::Silence);
    let begin = Instant::now();
    let error = show(&cloud, seconds(3)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout);
    assert_eq!(begin.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn reads_are_retried_after_broken_connections() {
    assert_eq!(against(|| Reply::Hangup).await.1, 5);
    let (kind, sent, error) = against(|| Reply::Unreachable).await;
    assert_eq!((kind, sent), (ErrorKind::Connect, 5));
    assert!(error.message.contains("no connection"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_creation_is_retried_only_if_it_cannot_have_happened() {
    let created = || reply(200, "", r#"{"secret":{"name":"db"}}"#);
    let cases: [(fn() -> Reply, usize); 6] = [
        (|| reply(429, "", ""), 2),
        (|| reply(503, "", ""), 2),
        (|| Reply::Unreachable, 2),
        (|| reply(502, "", ""), 1),
        (|| Reply::Hangup, 1),
        (|| Reply::Silence, 1),
    ];
    for (bad, sent) in cases {
        let (cloud, log) = cloud(
            &Env::default(),
            move |n, _| if n == 0 { bad() } else { created() },
        );
        let result = create(&cloud).await;
        assert_eq!(log.len(), sent, "{result:?}");
        match result {
            Ok(()) => assert_eq!(sent, 2),
            Err(error) => assert!(error.message.contains("unknown whether"), "{error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_whose_response_was_lost_succeeds() {
    let (cloud, log) = cloud(&Env::default(), |n, _| match n {
        0 => reply(504, "", ""),
        _ => reply(404, "", r#"{"error_code":"CSMS.0106","error_msg":"none"}"#),
    });
    cloud
        .delete_secret(&caller(), "db", seconds(45))
        .await
        .unwrap();
    assert_eq!(log.len(), 2);
    let error = cloud
        .delete_secret(&caller(), "db", seconds(45))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn an_outage_exhausts_the_retry_budget() {
    let (cloud, log) = cloud(&Env::default(), |n, _| {
        if n < 1000 {
            reply(500, "", "")
        } else {
            version("v1")
        }
    });
    let mut last = None;
    for _ in 0..30 {
        let call = show_for("a", &cloud, "db");
        last = Some(call.await.unwrap_err());
    }
    assert_eq!(
        log.len(),
        30 + 50,
        "each call once, and the tenant's 50 retries"
    );
    let last = last.unwrap();
    assert_eq!(last.attempts, 1);
    assert!(last.message.contains("not retried"), "{last}");
}

/// Gets a secret for a tenant.
async fn show_for(tenant: &str, cloud: &Csms, secret: &str) -> Result<SecretVersion, ApiError> {
    let caller = Caller {
        turn: Turn::of(tenant),
        ..caller()
    };
    let deadline = seconds(45);
    (cloud.show_secret_version(&caller, secret, "latest", deadline)).await
}

#[tokio::test(start_paused = true)]
async fn a_tenant_whose_calls_fail_leaves_retries_for_others() {
    let others = AtomicUsize::new(0);
    let (cloud, _) = cloud(&Env::default(), move |_, head| {
        if head.contains("/throttled/") {
            return reply(429, "", "");
        }
        // Every other call fails.
        let is_other = head.contains("/db/");
        if is_other && others.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            return reply(503, "", "");
        }
        version("v1")
    });
    for hostile in ["hostile-a", "hostile-b", "hostile-c"] {
        for _ in 0..60 {
            let call = show_for(hostile, &cloud, "throttled");
            call.await.unwrap_err();
        }
    }
    for honest in ["honest-a", "honest-b", "honest-c"] {
        show_for(honest, &cloud, "db").await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn lists_read_all_pages() {
    let (cloud, log) = cloud(&Env::default(), |_, head| {
        let page = |ids: &str, next: &str| {
            let body =
                format!(r#"{{"version_metadatas":[{ids}],"page_info":{{"next_marker":{next}}}}}"#);
            reply(200, "", &body)
        };
        if head.contains("marker=v2") {
            page(r#"{"id":"v1","create_time":1}"#, "null")
        } else {
            page(
                r#"{"id":"v3","create_time":3},{"id":"v2","create_time":2}"#,
                r#""v2""#,
            )
        }
    });
    let versions = cloud
        .list_secret_versions(&caller(), "db", seconds(45))
        .await
        .unwrap();
    let ids: Vec<_> = versions.iter().map(|version| version.id.as_str()).collect();
    assert_eq!(ids, ["v3", "v2", "v1"]);
    assert_eq!(log.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn rejected_fixed_keys_are_not_retried() {
    let body = r#"{"error_code":"APIG.0301","error_msg":"Incorrect IAM authentication information: token expires"}"#;
    let (kind, sent, error) = against(move || reply(401, "", body)).await;
    assert_eq!((kind, sent), (ErrorKind::CredentialsExpired, 1));
    assert!(!format!("{error:?}").contains("SKCANARY"));
}

#[tokio::test(start_paused = true)]
async fn the_project_is_looked_up_once() {
    let (cloud, log) = cloud(&Env::default(), |n, head| match n {
        0 => reply(500, "", ""),
        _ if head.contains("/v3/projects?name=cn-north-4") => {
            reply(200, "", r#"{"projects":[{"id":"p7","name":"cn-north-4"}]}"#)
        }
        _ => version("v1"),
    });
    let caller = Caller {
        project: None,
        ..caller()
    };
    let ask = || cloud.show_secret_version(&caller, "db", "v1", seconds(45));
    let (a, b, c) = tokio::join!(ask(), ask(), ask());
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(log.count("/v3/projects"), 2, "a failed try and a good one");
    assert_eq!(log.count("/v1/p7/secrets"), 3);
}

/// Looks up a project for a tenant, in a region.
async fn project_for(tenant: &str, cloud: &Cloud, region: &str) -> Result<String, ApiError> {
    let caller = Caller {
        region: region.parse().unwrap(),
        project: None,
        turn: Turn::of(tenant),
        ..caller()
    };
    cloud.project(&caller, seconds(45)).await
}

#[tokio::test(start_paused = true)]
async fn a_failed_lookup_is_repeated_after_some_seconds() {
    let (cloud, log) = client(&Env::default(), |n, _| match n {
        0 => reply(200, "", r#"{"projects":[]}"#),
        1 => reply(403, "", "{}"),
        _ => reply(200, "", r#"{"projects":[{"id":"p7"}]}"#),
    });
    for sent in [1, 2] {
        for _ in 0..20 {
            project_for("a", &cloud, "cn-north-4").await.unwrap_err();
        }
        assert_eq!(log.len(), sent);
        tokio::time::advance(Duration::from_secs(10)).await;
    }
    assert_eq!(project_for("a", &cloud, "cn-north-4").await.unwrap(), "p7");
}

#[tokio::test(start_paused = true)]
async fn lookups_of_one_tenant_are_limited_and_delay_no_other() {
    let (cloud, log) = client(&Env::default(), |_, head| {
        let known = head.contains("name=cn-north-4");
        let found = if known {
            r#"{"projects":[{"id":"p7"}]}"#
        } else {
            r#"{"projects":[]}"#
        };
        reply(200, "", found)
    });
    let regions: Vec<_> = (0..300).map(|n| format!("cn-east-{n}")).collect();
    let hostile = regions
        .iter()
        .map(|region| project_for("hostile", &cloud, region));
    let honest = async {
        let begin = Instant::now();
        project_for("honest", &cloud, "cn-north-4").await.unwrap();
        (begin.elapsed(), log.len())
    };
    let (_, (took, sent)) = tokio::join!(futures::future::join_all(hostile), honest);
    assert!(took <= Duration::from_secs(2), "{took:?}");
    assert!(sent < 50, "{sent}");
    // What one tenant asks for does not make the client forget what another has found.
    for n in 300..2000 {
        let _ = project_for("hostile", &cloud, &format!("cn-east-{n}")).await;
    }
    let sent = log.count("name=cn-north-4");
    project_for("honest", &cloud, "cn-north-4").await.unwrap();
    assert_eq!(log.count("name=cn-north-4"), sent);
}

#[tokio::test(start_paused = true)]
async fn an_ambiguous_project_must_be_set() {
    for (body, found) in [
        (r#"{"projects":[]}"#, "no project"),
        (r#"{"projects":[{"id":"a"},{"id":"b"}]}"#, "2 projects"),
        (r#"{"projects":[{"id":"a/../b"}]}"#, "not a project ID"),
    ] {
        let (cloud, _) = client(&Env::default(), move |_, _| reply(200, "", body));
        let caller = Caller {
            project: None,
            ..caller()
        };
        let error = cloud.project(&caller, seconds(45)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Configuration);
        assert!(error.message.contains(found), "{error}");
    }
}

#[test]
fn debug_shows_no_keys() {
    let keys = AccessKeys::new("AKCANARY", "SKCANARY", Some("TOKENCANARY".into()), None);
    let credentials = Credentials::fixed(keys.clone(), "test");
    let env = Env::from_pairs([("HUAWEICLOUD_SDK_SK", "SKCANARY")]);
    let value = SecretValue::Text(SecretBytes::from("VALUECANARY".to_owned()));
    let shown = format!("{keys:?} {credentials:?} {env:?} {value:?} {:?}", caller());
    assert!(!shown.contains("CANARY"), "{shown}");
}

#[test]
fn another_secret_key_or_token_is_another_identity() {
    let identity = |sk: &str, token: Option<&str>| {
        let keys = AccessKeys::new("AK", sk, token.map(str::to_owned), None);
        Credentials::fixed(keys, "test").identity().clone()
    };
    assert_eq!(identity("s", None), identity("s", None));
    assert_ne!(identity("s", None), identity("x", None));
    assert_ne!(identity("s", None), identity("s", Some("t")));
    assert_ne!(identity("sk", Some("t")), identity("s", Some("kt")));
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_counted() {
    let (cloud, _) = client(&Env::default(), |n, _| match n {
        0 => reply(429, "", ""),
        1 => reply(502, "", ""),
        _ => version("v1"),
    });
    show(&Csms::new(cloud.clone()), seconds(45)).await.unwrap();
    let metrics = cloud.metrics();
    let operation = "ShowSecretVersion";
    let outcomes = ["ok", "throttled", "server"];
    let counts = outcomes.map(|outcome| {
        metrics
            .calls
            .get_or_create(&CallLabels { operation, outcome })
            .get()
    });
    assert_eq!(counts, [1, 1, 1]);
    assert_eq!(
        metrics
            .retries
            .get_or_create(&OperationLabels { operation })
            .get(),
        2
    );
}
