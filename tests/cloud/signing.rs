//! Compares our signatures with those of Huawei's Python SDK.

use std::io::Write;
use std::process::{Command, Stdio};

use dew_provider::cloud::sign::{Parts, canonical_query, encode, sign};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::sdk::venv;

const CASES: usize = 400;

#[derive(Clone, Debug)]
struct Case {
    method: &'static str,
    segments: Vec<String>,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    ak: String,
    sk: String,
    second: i64,
}

/// Text that is hard to encode: reserved characters, percent signs, non-ASCII letters, and characters
/// outside the Basic Multilingual Plane.
fn tricky(max: usize) -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-zA-Z0-9]{1,4}",
        3 => "[-_.~!*'();:@&=+$,?#\\[\\] %\"<>^`{|}\\\\]{1,3}",
        1 => "[éüßøЖ中文字日本語\u{1f600}\u{10ffff}]{1,2}",
        1 => Just("%2F".to_owned()),
        1 => Just("%25".to_owned()),
        1 => Just("+".to_owned()),
    ];
    proptest::collection::vec(piece, 0..max).prop_map(|pieces| pieces.concat())
}

fn case() -> impl Strategy<Value = Case> {
    let name = prop_oneof![Just("limit".to_owned()), Just("a".to_owned()), tricky(4)];
    let value = prop_oneof![Just(String::new()), tricky(6)];
    let header = prop_oneof![
        "[!-~]{0,12}",
        " {0,2}[!-~]{1,5}[ \t]{1,3}[!-~]{1,5} {0,2}",
        "[éЖ中]{1,3}",
    ];
    (
        prop_oneof![
            Just("GET"),
            Just("POST"),
            Just("PUT"),
            Just("DELETE"),
            Just("PATCH")
        ],
        proptest::collection::vec(tricky(5), 0..6),
        proptest::collection::vec((name, value), 0..6),
        proptest::collection::vec(header, 5),
        prop_oneof![
            Just(Vec::new()),
            proptest::collection::vec(any::<u8>(), 1..64),
            tricky(20).prop_map(|text| json!({ "secret_string": text }).to_string().into_bytes()),
        ],
        "[A-Z0-9]{20}",
        "[a-zA-Z0-9/+=]{40}",
        0_i64..4_000_000_000,
    )
        .prop_map(|(method, segments, query, values, body, ak, sk, second)| {
            let names = [
                "Content-Type",
                "Host",
                "X-Project-Id",
                "X-Security-Token",
                "with_underscore",
            ];
            let mut values = values;
            values[0] = "application/json;charset=UTF-8".to_owned();
            let headers = names.map(str::to_owned).into_iter().zip(values).collect();
            Case {
                method,
                segments,
                query,
                headers,
                body,
                ak,
                sk,
                second,
            }
        })
}

#[test]
fn signatures_match_those_of_the_official_sdk() {
    let Some(python) = venv::python() else { return };
    let mut runner = TestRunner::deterministic();
    let cases: Vec<Case> = (0..CASES)
        .map(|_| case().new_tree(&mut runner).unwrap().current())
        .collect();
    let dates: Vec<Timestamp> = cases
        .iter()
        .map(|case| Timestamp::from_second(case.second).unwrap())
        .collect();

    let lines: String = cases
        .iter()
        .zip(&dates)
        .map(|(case, date)| {
            // The path of a real request, which is encoded already.
            let path: String = case
                .segments
                .iter()
                .map(|s| format!("/{}", encode(s)))
                .collect();
            let line = json!({
                "method": case.method,
                "path": if path.is_empty() { "/" } else { &path },
                "query": case.query,
                "headers": case.headers,
                "body": case.body,
                "ak": case.ak,
                "sk": case.sk,
                "date": date.strftime("%Y%m%dT%H%M%SZ").to_string(),
            });
            format!("{line}\n")
        })
        .collect();
    let mut child = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cloud/sign.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let theirs: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(theirs.len(), CASES);

    for ((case, date), theirs) in cases.iter().zip(dates).zip(theirs) {
        let path: String = case
            .segments
            .iter()
            .map(|s| format!("/{}", encode(s)))
            .collect();
        let path = if path.is_empty() { "/" } else { &path };
        let headers: Vec<(&str, &str)> = case
            .headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        let parts = Parts {
            method: case.method,
            path,
            query: &case.query,
            headers: &headers,
        };
        let ours = sign(&parts, &case.body, &case.ak, &case.sk, date);
        assert_eq!(ours.authorization, theirs["authorization"], "{case:?}");

        let query = canonical_query(&case.query);
        let uri = if query.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{query}")
        };
        assert_eq!(uri, theirs["uri"], "{case:?}");
    }
}
