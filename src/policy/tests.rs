use super::*;

const POLICY: &str = r#"
version: 1
rules:
  - namespaces: ["shop-*", bar]
    secrets: ["shop.*", common-tls]
  - namespaces: [bar]
    secrets: ["*"]
    regions: ["cn-north-?"]
    projects: [p1, "p-*"]
"#;

fn policy(text: &str) -> Policy {
    Policy::parse(text).map_err(|p| format!("{p:?}")).unwrap()
}

#[test]
fn one_rule_must_allow_all_parts() {
    let policy = policy(POLICY);
    for (namespace, secret, region, project, allowed) in [
        ("shop-eu", "shop.db", "cn-north-4", None, true),
        ("shop-", "shop.", "any-1", Some("x"), true),
        ("shop", "shop.db", "cn-north-4", None, false),
        ("shop-eu", "shopXdb", "cn-north-4", None, false),
        ("shop-eu", "shop.db2", "ru-1", None, true),
        ("shop-eu", "other", "cn-north-4", Some("p1"), false),
        ("bar", "other", "cn-north-4", Some("p1"), true),
        ("bar", "other", "cn-north-4", Some("p-9"), true),
        ("bar", "other", "cn-north-4", Some("p2"), false),
        ("bar", "other", "cn-north-4", None, false),
        ("bar", "other", "cn-north-11", Some("p1"), false),
        // Another rule allows it without the restrictions.
        ("bar", "common-tls", "ru-1", None, true),
        ("", "common-tls", "ru-1", None, false),
    ] {
        let place = Place::new(region, project);
        assert_eq!(
            policy.allows(namespace, place, secret),
            allowed,
            "{namespace} {secret} {region} {project:?}"
        );
    }
    let unknown = Place {
        region: None,
        project: Some("p1"),
    };
    for (namespace, secret, region, project, part) in [
        ("shop", "shop.db", "cn-north-4", None, DeniedPart::Secret),
        ("shop-eu", "other", "ru-1", Some("x"), DeniedPart::Secret),
        ("", "common-tls", "ru-1", None, DeniedPart::Secret),
        ("bar", "other", "ru-1", Some("p2"), DeniedPart::Region),
        (
            "bar",
            "other",
            "cn-north-4",
            Some("p2"),
            DeniedPart::Project,
        ),
        ("bar", "other", "cn-north-4", None, DeniedPart::Project),
    ] {
        let place = Place::new(region, project);
        let denial = policy.check(namespace, place, [secret, "common-tls"]);
        assert_eq!(
            denial.expect_err(secret).part(),
            part,
            "{namespace} {secret}"
        );
    }
    assert!(policy.allows("bar", unknown, "other"));
    assert!(Policy::unrestricted().allows("", unknown, "x"));
    let nothing = super::Policy::parse("version: 1\nrules: []").unwrap();
    assert!(nothing.is_restricted() && !nothing.allows("bar", unknown, "x"));
}

#[test]
fn a_denial_names_the_secrets_the_namespace_the_place_and_the_fix() {
    let policy = policy(POLICY);
    let denial = |place, secrets: &[&str]| {
        policy
            .check("bar", place, secrets.iter().copied())
            .expect_err("denied")
    };
    let denied = denial(Place::new("ru-1", Some("p1")), &["common-tls", "a"]);
    assert_eq!(
        denied.to_string(),
        "object \"a\": no rule of the operator's policy allows namespace \"bar\" to use this secret in region \
         ru-1, project p1: ask the operator to add it to the policy (chart value policy)"
    );
    let denied = denial(Place::new("cn-north-4", None), &["a", "b"]);
    assert!(denied.needs_only_project());
    assert_eq!(
        denied.to_string(),
        "objects \"a\", \"b\": the operator's policy allows namespace \"bar\" to use these secrets in region \
         cn-north-4 only in certain projects: set projectId, which does not apply to failoverRegion, or ask \
         the operator for a rule without projects (chart value policy)"
    );
    let names: Vec<String> = (0..200)
        .map(|i| format!("s{i}{}", "x".repeat(60)))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let denied = denial(Place::new("ru-1", None), &names).to_string();
    assert!(denied.contains(" and 190 more: no rule"), "{denied}");
    assert!(denied.len() < 1024, "{denied}");
}

#[test]
fn what_yaml_allows_around_the_policy_is_read() {
    for text in [
        format!("\u{feff}{POLICY}"),
        format!("---{POLICY}"),
        format!("{POLICY}...\n"),
        POLICY.replace('\n', "\r\n"),
        r#"{"version": "1", "rules": [{"namespaces": ["a"], "secrets": ["b"]}]}"#.to_owned(),
    ] {
        assert!(policy(&text).is_restricted());
    }
}

/// The lines, rules, fields and reasons of what is wrong.
fn problems(text: &str) -> Vec<String> {
    let problems = Policy::parse(text).expect_err(text);
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn whatever_is_unclear_is_refused_with_line_rule_and_field() {
    for (text, expected) in [
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("null", "the file is empty"),
        ("rules: []", "version: missing: set version: 1"),
        (
            "version: 2\nrules: []",
            "line 1, version: unknown version \"2\": use 1",
        ),
        ("version: 1", "rules: missing"),
        ("version: 1\nrules:", "line 2, rules: no value"),
        ("version: 1\nrules: {}", "not a policy in YAML"),
        ("version: 1\nrules: [x]", "not a policy in YAML"),
        (
            "version: 1\nruels: []",
            "line 2, ruels: unknown field; did you mean rules?",
        ),
        (
            "version: 1\nrules: []\n---\nversion: 1",
            "not a policy in YAML",
        ),
        ("version: 1\nrules: []\nrules: []", "not a policy in YAML"),
        (
            "version: 1\nrules:\n- namespaces: [a]\n",
            "line 3, rule 1, secrets: missing",
        ),
        (
            "version: 1\nrules:\n- secrets: [a]\n",
            "line 3, rule 1, namespaces: missing",
        ),
        (
            "version: 1\nrules:\n- namespaces: [a]\n  secrets: []\n",
            "line 4, rule 1, secrets: the list is empty",
        ),
        (
            "version: 1\nrules:\n- namespaces: [a]\n  secrets: [b]\n  regions:\n",
            "line 5, rule 1, regions: the list is empty: add a glob, or remove the field to allow all",
        ),
        (
            "version: 1\nrules:\n- namespaces: [a]\n  secrets: [b]\n  region: [c]\n",
            "line 5, rule 1, region: unknown field; did you mean regions?",
        ),
        (
            "version: 1\nrules:\n- namespaces: [a]\n  secrets: [b]\n  kmsKeys: [c]\n",
            "line 5, rule 1, kmsKeys: kmsKeys is not supported by this release: remove it",
        ),
        (
            "version: 1\nrules:\n- namespaces: [a]\n  secrets: [b]\n- namespaces: [A]\n  secrets:\n  - b\n  - c/d\n",
            "line 5, rule 2, namespaces: \"A\" contains 'A'",
        ),
        (
            "version: 1\nrules:\n- namespaces: [a]\n  secrets:\n  - b\n  - c/d\n",
            "line 6, rule 1, secrets: \"c/d\" contains '/': use letters, digits, ., _ and -, * for any characters and ? for one",
        ),
        (
            "version: 1\nrules:\n- namespaces: [\"\"]\n  secrets: [a]\n",
            "line 3, rule 1, namespaces: an empty glob matches nothing",
        ),
        (
            "version: 1\nrules:\n- namespaces: a\n  secrets: [a]\n",
            "line 3: not a policy in YAML",
        ),
    ] {
        let found = problems(text);
        assert!(
            found.iter().any(|problem| problem.contains(expected)),
            "{text}: {found:?}"
        );
    }
    let long = "x".repeat(65);
    let text = format!("version: 1\nrules:\n- namespaces: [a]\n  secrets: [{long}]\n");
    assert!(problems(&text)[0].contains("too long: 65 bytes (limit 64)"));
}

#[test]
fn the_file_its_rules_and_its_problems_are_bounded() {
    let comment = format!("# {}\n", "x".repeat(crate::policy::MAX_POLICY_BYTES));
    assert!(problems(&comment)[0].contains("file too large"));
    let rules = "- {namespaces: [a], secrets: [b]}\n".repeat(crate::policy::MAX_RULES + 1);
    assert!(problems(&format!("version: 1\nrules:\n{rules}"))[0].contains("too many rules: 1001"));
    let globs = vec!["a"; crate::policy::MAX_GLOBS].join(", ");
    let text = format!("version: 1\nrules:\n- {{namespaces: [a], secrets: [{globs}]}}\n");
    assert!(
        problems(&text)[0].contains("too many globs: 10001"),
        "{:?}",
        problems(&text)
    );
    let unknown = format!("- {{{}: 1}}\n", "x\u{1b}".repeat(500)).repeat(100);
    let found = problems(&format!("version: 1\nrules:\n{unknown}"));
    assert!(found.len() <= 21, "{found:?}");
    let text = found.join("; ");
    assert!(text.len() < 16 * 1024 && !text.contains('\u{1b}'), "{text}");
}
