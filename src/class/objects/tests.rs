use crate::class::objects::*;
use crate::cloud::VersionSelector;

fn problems(text: &str) -> Vec<String> {
    Objects::parse(text)
        .expect_err("must be rejected")
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn rejected(text: &str, part: &str) {
    let found = problems(text);
    assert!(
        found.iter().any(|p| p.contains(part)),
        "{part:?} not in {found:#?}"
    );
}

const GOOD: &str = "- objectName: a\n  objectType: csms\n  objectVersion: v1\n";

#[test]
fn every_field_is_read() {
    let spec = Objects::parse(
        r#"
- objectName: "db"
  objectVersion: "latest"
  objectAlias: "db/all.json"
  objectType: "csms"
  filePermission: "0640"
  encoding: utf-8
  jmesPath:
    - path: username
      objectAlias: db/user
    - path: '"pass-word"'
      objectAlias: db/password
      filePermission: 0400
- objectName: keys
  objectType: csms
  stage: SYSPREVIOUS
  allKeys: true
  objectAlias: folder
  optional: true
"#,
    )
    .unwrap();
    let [db, keys] = spec.list.as_slice() else {
        panic!("two objects")
    };
    assert_eq!((db.name.as_str(), db.line), ("db", 2));
    assert_eq!(db.selector, VersionSelector::Latest);
    assert_eq!(db.mode, Some(0o640));
    let Content::Whole { path, extracts } = &db.content else {
        panic!("whole")
    };
    assert_eq!(path, "db/all.json");
    assert_eq!(extracts[1].path, "db/password");
    assert_eq!((extracts[0].mode, extracts[1].mode), (None, Some(0o400)));
    assert_eq!(keys.selector, VersionSelector::Stage("SYSPREVIOUS".into()));
    assert!(keys.optional);
    assert!(matches!(&keys.content, Content::AllKeys { folder: Some(f) } if f == "folder"));
}

#[test]
fn scalars_are_read_as_text() {
    let spec = Objects::parse(
        "- objectName: 010\n  objectType: csms\n  objectVersion: v1\n  objectAlias: no\n",
    )
    .unwrap();
    assert_eq!(spec.list[0].name, "010");
    assert!(matches!(&spec.list[0].content, Content::Whole { path, .. } if path == "no"));
}

#[test]
fn an_empty_list_is_rejected() {
    for text in ["", "[]", "null", "# nothing\n"] {
        rejected(text, "the list is empty");
    }
}

#[test]
fn every_problem_is_reported_with_its_line() {
    let found = problems(
        "- objectName: a b\n  objectType: kms\n  objectVersion: 3\n- objectNam: x\n  objectType: csms\n  stage: s\n",
    );
    let all = found.join("\n");
    for part in [
        "objects line 1, object \"a b\", objectName: must be 1 to 64",
        "line 2, object \"a b\", objectType: unknown type \"kms\"",
        "line 3, object \"a b\", objectVersion: \"3\" is neither latest nor a version such as v1; did you mean v3?",
        "line 4, object number 2, objectNam: unknown field; did you mean objectName?",
        "line 4, object number 2, objectName: missing",
    ] {
        assert!(all.contains(part), "{part:?} not in\n{all}");
    }
}

#[test]
fn names_follow_the_rules_of_the_add_on() {
    let object = |name: &str, alias: &str| {
        format!(
            "- objectName: {name}\n  objectType: csms\n  objectVersion: v1\n  objectAlias: {alias}\n"
        )
    };
    rejected(&format!("{GOOD}{GOOD}"), "already used on line 1");
    rejected(&object("a", "a"), "\"a\" equals the objectName on line 1");
    rejected(
        &(object("a", "x") + &object("b", "a")),
        "equals the objectName on line 1",
    );
    rejected(
        &(object("a", "b") + &object("b", "y")),
        "equals the objectName on line 5",
    );
    rejected(
        &(object("a", "x") + &object("b", "x")),
        "equals the objectAlias on line 1",
    );
    assert!(Objects::parse(&(object("a", "x") + &object("b", "y"))).is_ok());
}

#[test]
fn file_names_must_fit_into_one_volume() {
    let with =
        |alias: &str| format!("{GOOD}  jmesPath:\n    - path: x\n      objectAlias: {alias}\n");
    rejected(&with("a"), "\"a\" is used twice");
    rejected(&with("a/b"), "\"a/b\" needs \"a\" as a directory");
    let long = "x".repeat(300);
    for alias in [
        "../x",
        "/x",
        "x//y",
        "x/",
        "./x",
        "..x",
        "\"x\\0y\"",
        long.as_str(),
    ] {
        assert!(Objects::parse(&with(alias)).is_err(), "{alias}");
    }
    assert!(Objects::parse(&with("b/..c")).is_ok());
}

#[test]
fn hostile_yaml_is_rejected() {
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e]\n";
    assert!(Objects::parse(bomb).is_err());
    assert!(Objects::parse(&"[".repeat(100_000)).is_err());
    assert!(Objects::parse(&"- ".repeat(100_000)).is_err());
    rejected("- objectName: a\n  objectName: b\n", "objects line");
    rejected("objectName: a\n", "not a YAML list");
    rejected(&"x".repeat(MAX_OBJECTS_BYTES + 1), "limit 262144");
    let many: String = (0..=MAX_OBJECTS)
        .map(|i| format!("- {{objectName: s{i}, objectType: csms, objectVersion: latest}}\n"))
        .collect();
    rejected(&many, "too many objects: 201 (limit 200)");
}

#[test]
fn hostile_expressions_are_rejected_without_a_crash() {
    for shape in [
        "!",
        "(",
        "a.",
        "a|",
        "a||",
        "[",
        "{a:",
        "abs(",
        "sort_by(a,&",
    ] {
        for count in [10, 50, 120, 600, 100_000] {
            let text = format!(
                "{GOOD}  jmesPath:\n    - path: '{}'\n      objectAlias: z\n",
                shape.repeat(count).replace('\'', "''")
            );
            assert!(Objects::parse(&text).is_err(), "{shape} × {count}");
        }
    }
    rejected(
        &format!("{GOOD}  jmesPath: [{{path: my-key, objectAlias: z}}]\n"),
        "needs quotes",
    );
}

#[test]
fn exclusive_fields_cannot_be_combined() {
    rejected(
        &format!("{GOOD}  stage: x\n"),
        "cannot be combined with stage",
    );
    rejected(
        &format!("{GOOD}  allKeys: true\n  jmesPath: [{{path: a, objectAlias: z}}]\n"),
        "cannot be combined",
    );
    rejected(&format!("{GOOD}  jmesPath: []\n"), "list is empty");
    for mode in ["644", "0644", "0400"] {
        assert!(
            Objects::parse(&format!("{GOOD}  filePermission: {mode}\n")).is_ok(),
            "{mode}"
        );
    }
    for mode in ["4755", "0000", "rw", "0888", "420420"] {
        assert!(
            Objects::parse(&format!("{GOOD}  filePermission: {mode}\n")).is_err(),
            "{mode}"
        );
    }
}
