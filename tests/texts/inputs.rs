//! Wrong inputs: classes, attributes, Secrets, annotations, settings.

use dew_provider::class::jmespath::JmesPath;
use dew_provider::class::objects::Objects;
use dew_provider::cloud::{Cloud, CloudConfig};
use dew_provider::kube::service_accounts::AllowList;
use dew_provider::node::mount::request::Request;
use dew_provider::node::pod_credentials::PublishSecret;
use dew_provider::proto::MountRequest;
use dew_provider::telemetry::metrics::CloudMetrics;
use dew_provider::util::clock::{Clock, Jitter};
use dew_provider::util::env::Env;
use tonic::metadata::MetadataMap;

use super::assert_clear;

/// `objects`, the line that the message must name, the field (empty if none), and a part of the reason.
const OBJECTS: [(&str, u64, &str, &str); 57] = [
    (
        "- objectName: a\n  objectName: b\n",
        2,
        "objectName",
        "twice",
    ),
    (
        "- objectName: a\n  optional: true\n  optional: false\n",
        3,
        "optional",
        "twice",
    ),
    (
        "- jmesPath:\n  - path: a\n    path: b\n",
        3,
        "path",
        "twice",
    ),
    (
        "- objectName: [a]\n",
        1,
        "objectName",
        "found a list, expected text",
    ),
    (
        "- objectName: [\n  a]\n",
        1,
        "objectName",
        "found a list, expected text",
    ),
    (
        "- objectName:\n    - a\n",
        2,
        "objectName",
        "found a list, expected text",
    ),
    (
        "- objectName:\n\n    # note\n    - a\n",
        4,
        "objectName",
        "found a list, expected text",
    ),
    (
        "- objectName: {a: b}\n",
        1,
        "objectName",
        "found fields, expected text",
    ),
    (
        "- objectName:\n    a: b\n",
        2,
        "objectName",
        "found fields, expected text",
    ),
    (
        "- \"objectName\": {a: b}\n",
        1,
        "objectName",
        "found fields, expected text",
    ),
    (
        "- {objectType: csms, objectName: [a]}\n",
        1,
        "objectName",
        "found a list, expected text",
    ),
    ("- objectType: [csms]\n", 1, "objectType", "found a list"),
    (
        "- objectVersion: [v1]\n",
        1,
        "objectVersion",
        "found a list",
    ),
    (
        "- objectVersion: {latest: true}\n",
        1,
        "objectVersion",
        "found fields",
    ),
    ("- stage: [a]\n", 1, "stage", "found a list"),
    ("- objectAlias: [a]\n", 1, "objectAlias", "found a list"),
    (
        "- filePermission: [4, 0, 0]\n",
        1,
        "filePermission",
        "found a list",
    ),
    ("- encoding: {}\n", 1, "encoding", "found fields"),
    (
        "- objectName: a\n  optional: maybe\n",
        2,
        "optional",
        "found \"maybe\", expected true or false",
    ),
    (
        "- objectName: a\n  optional: 5 # five\n",
        2,
        "optional",
        "found \"5\", expected true or false",
    ),
    (
        "- objectName: a\n  optional: [x]\n",
        2,
        "optional",
        "found a list",
    ),
    (
        "- objectName: a\n  optional: \"often\"\n",
        2,
        "optional",
        "found the text \"often\"",
    ),
    (
        "- objectName: a\n  allKeys: 'no way'\n",
        2,
        "allKeys",
        "found the text \"no way\"",
    ),
    (
        "- objectName: a\n  allKeys: .inf\n",
        2,
        "allKeys",
        "expected true or false",
    ),
    (
        "- objectName: a\n  jmesPath: foo\n",
        2,
        "jmesPath",
        "found \"foo\", expected a list",
    ),
    (
        "- objectName: a\n  jmesPath: {path: a}\n",
        2,
        "jmesPath",
        "found fields, expected a list",
    ),
    (
        "- objectName: a\n  jmesPath:\n    path: a\n",
        3,
        "jmesPath",
        "found fields, expected a list",
    ),
    (
        "- objectName: a\n  jmesPath: [foo]\n",
        2,
        "jmesPath",
        "found \"foo\", expected fields",
    ),
    (
        "- objectName: a\n  jmesPath:\n    - 5\n",
        3,
        "jmesPath",
        "found \"5\", expected fields",
    ),
    (
        "- jmesPath:\n    - path: [a]\n",
        2,
        "path",
        "found a list, expected text",
    ),
    (
        "- jmesPath:\n    - objectAlias: {}\n",
        2,
        "objectAlias",
        "found fields, expected text",
    ),
    ("- 5\n", 1, "", "found \"5\", expected fields"),
    ("- text\n", 1, "", "found \"text\", expected fields"),
    ("- [a]\n", 1, "", "found a list, expected fields"),
    ("- null\n", 1, "", "found \"null\", expected fields"),
    ("- - - a\n", 1, "", "found a list, expected fields"),
    (
        "objectName: a\nobjectType: csms\n",
        1,
        "",
        "found fields, expected a list",
    ),
    ("text\n", 1, "", "found \"text\", expected a list"),
    ("5", 1, "", "expected a list"),
    ("- objectName: \"a\n", 1, "", "a quote is not closed"),
    ("- objectName: 'a\n", 1, "", "a quote is not closed"),
    ("- objectName: a\n objectType: csms\n", 2, "", "indentation"),
    (
        "- objectName: a\n   objectType: csms\n",
        2,
        "",
        "indent the fields",
    ),
    ("- objectName: a\n\tobjectType: csms\n", 2, "", "a tab"),
    ("- objectName: a: b\n", 1, "", "put quotes around"),
    ("- objectName: *x\n", 1, "", "put quotes around"),
    ("- objectName: @a\n", 1, "", "must not begin with '@'"),
    ("- objectName: `a\n", 1, "", "must not begin with '`'"),
    ("- objectName: %a\n", 1, "", "must not begin with '%'"),
    (
        "- objectName: \u{1b}a\n",
        1,
        "",
        "must not begin with '\\u{1b}'",
    ),
    ("- {objectName: a\n", 1, "", "a bracket is not closed"),
    ("- objectName: a\n]\n", 2, "", "a closing bracket"),
    ("- objectName: !!int a\n", 1, "objectName", "remove it"),
    ("- objectName: !!binary aGk\n", 1, "objectName", "remove it"),
    (
        "- objectName: |\n   a\n  b\n",
        3,
        "",
        "expected `name: value`",
    ),
    ("- objectName: \"\\q\"\n", 1, "", "an unknown escape"),
    (
        "%YAML 9.9\n---\n- objectName: a\n",
        1,
        "",
        "remove the line",
    ),
];

#[test]
fn a_list_that_is_not_yaml_names_line_and_field_once() {
    for (text, line, field, part) in OBJECTS {
        let problems = Objects::parse(text).expect_err(text);
        let shown = problems[0].to_string();
        assert_clear(&shown);
        let place = match field {
            "" => format!("objects line {line}: "),
            field => format!("objects line {line}, {field}: "),
        };
        assert!(shown.starts_with(&place), "{text:?}: {shown}");
        assert!(shown.contains(part), "{text:?}: {part:?} not in {shown}");
        assert_eq!(shown.matches(&format!("line {line}")).count(), 1, "{shown}");
    }
}

#[test]
fn lists_that_are_too_large_or_too_deep_say_so() {
    let aliases: String = (1..9)
        .map(|n| {
            let last = format!("*a{},", n - 1).repeat(9);
            format!("- &a{n} [{last}]\n")
        })
        .collect();
    for text in [
        format!("- objectName: a\n  x: {}\n", "[".repeat(3000)),
        format!(
            "- objectName: a\n  x: {}{}\n",
            "{a: ".repeat(900),
            "}".repeat(900)
        ),
        format!("- &a0 [x]\n{aliases}"),
    ] {
        let shown = Objects::parse(&text).expect_err(&text)[0].to_string();
        assert_clear(&shown);
        assert!(shown.contains("line "), "{shown}");
    }
}

#[test]
fn jmespath_errors_quote_the_expression_and_say_what_is_expected() {
    for (expression, part) in [
        ("my-key", "found \"-key\""),
        ("my key", "found \"key\""),
        ("1st", "found \"1st\""),
        ("a.1", "expected a key"),
        ("a..b", "expected a key"),
        ("a.", "ends too early"),
        ("", "ends too early"),
        ("a[", "ends too early"),
        ("a[b]", "expected a number, : or *"),
        ("a[0", "ends too early"),
        ("a[1:2:3:4]", "colons"),
        ("a[*", "ends too early"),
        ("a[?b", "ends too early"),
        ("{a: b", "ends too early"),
        ("{a b}", "expected :"),
        ("{5: a}", "expected a key"),
        ("{a: b c}", "expected } or ,"),
        ("[a, b", "ends too early"),
        ("[a, ]", "expected another item"),
        ("(a", "ends too early"),
        ("(a b)", "expected )"),
        ("a)", "found \")\""),
        ("]", "unexpected"),
        ("&a", "& is allowed only"),
        ("\"a\"(b)", "must not be in quotes"),
        ("a.b(c)(d)", "name of a function"),
        ("'a", "quote is not closed"),
        ("\"a", "quote is not closed"),
        ("`a", "quote is not closed"),
        ("`{`", "not JSON"),
        ("\"\\q\"", "double quotes"),
        ("a == ", "ends too early"),
        ("a = b", ""),
        ("a #", "meaning"),
        ("$a", ""),
        ("a ? b", ""),
        ("[99999999999999999999]", "too large"),
        ("-a", "expected a number after -"),
        ("schlüssel.é", ""),
        ("\u{1b}[31m", ""),
    ] {
        let why = JmesPath::compile(expression)
            .err()
            .unwrap_or_else(|| panic!("{expression} compiles"));
        assert_clear(&why);
        assert!(why.contains("(column "), "{why}");
        assert!(why.contains(part), "{expression}: {part:?} not in {why}");
        let list = format!(
            "- objectName: a\n  objectType: csms\n  objectVersion: v1\n  jmesPath:\n    - objectAlias: b\n      path: {}\n",
            serde_json::json!(expression)
        );
        let shown = Objects::parse(&list).unwrap_err()[0].to_string();
        assert_clear(&shown);
        assert!(
            shown.starts_with("objects line 6, object \"a\", jmesPath.path: "),
            "{shown}"
        );
    }
}

#[test]
fn attributes_name_what_is_not_a_string() {
    for (attributes, parts) in [
        (r#"{"objects": ["x"]}"#, &["\"objects\"", "a list"][..]),
        (r#"{"objects": {"a": 1}}"#, &["\"objects\"", "an object"]),
        (r#"{"objects": 5}"#, &["\"objects\"", "a number"]),
        (r#"{"objects": 1.5e3}"#, &["\"objects\"", "a number"]),
        (r#"{"region": null}"#, &["\"region\"", "null"]),
        (r#"{"region": true}"#, &["\"region\"", "true or false"]),
        (
            r#"{"secretProviderClass": 1}"#,
            &["\"secretProviderClass\"", "a number"],
        ),
        (
            r#"{"csi.storage.k8s.io/pod.name": []}"#,
            &["pod.name", "a list"],
        ),
        (r#"{"custom": []}"#, &["\"custom\"", "a list"]),
        (r#"["x"]"#, &["attributes", "not an object"]),
        ("5", &["attributes", "not an object"]),
        ("", &["attributes", "truncated"]),
        (r#"{"objects": "x"#, &["attributes", "truncated"]),
        (r#"{"objects": x}"#, &["attributes", "not JSON"]),
        (r#"{"a":"b"} x"#, &["attributes", "not JSON"]),
        (r#"{5: "x"}"#, &["attributes", "not JSON"]),
        (r#"{"objects":"a","objects":"b"}"#, &["\"objects\" twice"]),
        (
            r#"{"secretProviderClass":"c","regoin":"x"}"#,
            &["did you mean region?"],
        ),
    ] {
        let message = MountRequest {
            attributes: attributes.into(),
            ..MountRequest::default()
        };
        let error = Request::parse(&message, &MetadataMap::new()).expect_err(attributes);
        assert_clear(&error.message);
        for part in parts {
            assert!(error.message.contains(part), "{attributes}: {error}");
        }
    }
}

#[test]
fn the_secret_of_a_pod_names_the_key() {
    for (secrets, parts) in [
        (
            r#"{"accessKey":1,"secretKey":"CANARY"}"#,
            &["accessKey is a number"][..],
        ),
        (
            r#"{"accessKey":"a","secretKey":["CANARY"]}"#,
            &["secretKey is a list"],
        ),
        (
            r#"{"accessKey":null,"secretKey":"CANARY"}"#,
            &["accessKey is null"],
        ),
        (
            r#"{"accessKey":"a"}"#,
            &["has no secretKey", "it contains accessKey"],
        ),
        (
            r#"{"ak":"a","sk":"CANARY"}"#,
            &["has no accessKey", "it contains ak, sk"],
        ),
        (r#"["CANARY"]"#, &["not a JSON object"]),
        ("CANARY", &["not JSON"]),
        (r#"{"accessKey":"CANARY"#, &["truncated"]),
    ] {
        let shown = PublishSecret::parse(secrets)
            .expect_err(secrets)
            .to_string();
        assert_clear(&shown);
        assert!(
            shown.contains("nodePublishSecretRef") && !shown.contains("CANARY"),
            "{shown}"
        );
        for part in parts {
            assert!(shown.contains(part), "{secrets}: {shown}");
        }
    }
}

#[test]
fn an_annotation_says_what_is_wrong_with_it() {
    for (annotation, part) in [
        ("db", "not JSON"),
        ("", "truncated"),
        ("[\"db\"", "truncated"),
        ("[db]", "not JSON"),
        ("['db']", "not JSON"),
        ("\"db\"", "not an array"),
        ("{\"db\": true}", "not an array"),
        ("[1]", "item 1 is a number"),
        ("[\"a\", null]", "item 2 is null"),
        ("[\"a\", [\"b\"]]", "item 2 is a list"),
        ("[\"a\",\n{}]", "item 2 is an object"),
        ("[\"a\"] x", "not JSON"),
    ] {
        let AllowList::Invalid(why) = AllowList::parse(Some(annotation)) else {
            panic!("{annotation} is valid");
        };
        assert_clear(&why);
        assert!(why.contains("such as [\"db\"]"), "{why}");
        assert!(why.contains(part), "{annotation}: {why}");
    }
}

#[test]
fn endpoints_name_the_setting_and_what_is_expected() {
    for (endpoint, part) in [
        ("kms.example", "it has no scheme"),
        ("", "empty"),
        ("://x", ""),
        ("https://", ""),
        ("http://[::1", ""),
        ("https://a b", ""),
        ("https://a:99999", "port"),
        ("https://a:x", "port"),
        ("https://1.2.3.4.5.256", ""),
        ("ftp://a", "the scheme must be http or https"),
        ("https://u:hunter2@a", "it contains a user or password"),
        ("https://a/b", "it has a path"),
        ("https://xn--a", ""),
    ] {
        let config = CloudConfig {
            csms_endpoint: Some(endpoint.to_owned()),
            ..CloudConfig::default()
        };
        let metrics = CloudMetrics::default();
        let made = Cloud::new(
            config,
            &Env::default(),
            Clock::system(),
            Jitter::seeded(1),
            metrics,
        );
        let error = made
            .err()
            .unwrap_or_else(|| panic!("{endpoint} is accepted"));
        assert_clear(&error.to_string());
        for part in ["--csms-endpoint", part, "expected a URL such as"] {
            assert!(error.message.contains(part), "{endpoint}: {error}");
        }
        assert!(!error.message.contains("hunter2"), "{error}");
    }
}
