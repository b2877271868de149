use super::*;

fn problems(text: &str) -> Vec<String> {
    Spec::parse(text)
        .expect_err("must be refused")
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn refused(text: &str, part: &str) {
    let found = problems(text);
    assert!(
        found.iter().any(|p| p.contains(part)),
        "{part:?} not in {found:#?}"
    );
}

const GOOD: &str = "- objectName: a\n  objectType: csms\n  objectVersion: v1\n";

#[test]
fn reads_every_field() {
    let spec = Spec::parse(
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
    let [db, keys] = spec.objects.as_slice() else {
        panic!("two objects")
    };
    assert_eq!((db.name.as_str(), db.line), ("db", 2));
    assert_eq!(db.selector, Selector::Latest);
    assert_eq!(db.mode, Some(0o640));
    let Content::Whole { path, extracts } = &db.content else {
        panic!("whole")
    };
    assert_eq!(path, "db/all.json");
    assert_eq!(extracts[1].path, "db/password");
    assert_eq!((extracts[0].mode, extracts[1].mode), (None, Some(0o400)));
    assert_eq!(keys.selector, Selector::Stage("SYSPREVIOUS".into()));
    assert!(keys.optional);
    assert!(matches!(&keys.content, Content::AllKeys { folder: Some(f) } if f == "folder"));
}

#[test]
fn scalars_are_text_whatever_they_look_like() {
    let spec = Spec::parse(
        "- objectName: 010\n  objectType: csms\n  objectVersion: v1\n  objectAlias: no\n",
    )
    .unwrap();
    assert_eq!(spec.objects[0].name, "010");
    assert!(matches!(&spec.objects[0].content, Content::Whole { path, .. } if path == "no"));
}

#[test]
fn an_empty_list_says_so() {
    for text in ["", "[]", "null", "# nothing\n"] {
        refused(text, "the list is empty");
    }
}

#[test]
fn every_problem_is_told_with_its_line() {
    let found = problems(
        "- objectName: a b\n  objectType: kms\n  objectVersion: 3\n- objectNam: x\n  objectType: csms\n  stage: s\n",
    );
    let all = found.join("\n");
    for part in [
        "objects line 1, object \"a b\", objectName: must be 1 to 64",
        "line 2, object \"a b\", objectType: \"kms\" is not known",
        "line 3, object \"a b\", objectVersion: \"3\" is neither latest nor a version such as v1; did you mean v3?",
        "line 4, object number 2, objectNam: is not a field; did you mean objectName?",
        "line 4, object number 2, objectName: is missing",
    ] {
        assert!(all.contains(part), "{part:?} not in\n{all}");
    }
}

#[test]
fn names_follow_the_add_on() {
    let object = |name: &str, alias: &str| {
        format!(
            "- objectName: {name}\n  objectType: csms\n  objectVersion: v1\n  objectAlias: {alias}\n"
        )
    };
    refused(&format!("{GOOD}{GOOD}"), "already named on line 1");
    refused(&object("a", "a"), "\"a\" equals the objectName on line 1");
    refused(
        &(object("a", "x") + &object("b", "a")),
        "equals the objectName on line 1",
    );
    refused(
        &(object("a", "b") + &object("b", "y")),
        "equals the objectName on line 5",
    );
    refused(
        &(object("a", "x") + &object("b", "x")),
        "equals the objectAlias on line 1",
    );
    assert!(Spec::parse(&(object("a", "x") + &object("b", "y"))).is_ok());
}

#[test]
fn files_must_fit_into_one_volume() {
    let with =
        |alias: &str| format!("{GOOD}  jmesPath:\n    - path: x\n      objectAlias: {alias}\n");
    refused(&with("a"), "\"a\" is used twice");
    refused(&with("a/b"), "\"a/b\" needs \"a\" as a folder");
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
        assert!(Spec::parse(&with(alias)).is_err(), "{alias}");
    }
    assert!(Spec::parse(&with("b/..c")).is_ok());
}

#[test]
fn hostile_yaml_is_refused() {
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e]\n";
    assert!(Spec::parse(bomb).is_err());
    assert!(Spec::parse(&"[".repeat(100_000)).is_err());
    assert!(Spec::parse(&"- ".repeat(100_000)).is_err());
    refused("- objectName: a\n  objectName: b\n", "objects line");
    refused("objectName: a\n", "not a YAML list");
    refused(&"x".repeat(MAX_OBJECTS_BYTES + 1), "more than 262144");
    let many: String = (0..=MAX_OBJECTS)
        .map(|i| format!("- {{objectName: s{i}, objectType: csms, objectVersion: latest}}\n"))
        .collect();
    refused(&many, "201 objects are more than 200");
}

#[test]
fn hostile_expressions_are_refused_without_a_crash() {
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
            assert!(Spec::parse(&text).is_err(), "{shape} × {count}");
        }
    }
    refused(
        &format!("{GOOD}  jmesPath: [{{path: my-key, objectAlias: z}}]\n"),
        "needs quotes",
    );
}

#[test]
fn choices_are_exclusive() {
    refused(
        &format!("{GOOD}  stage: x\n"),
        "cannot be combined with stage",
    );
    refused(
        &format!("{GOOD}  allKeys: true\n  jmesPath: [{{path: a, objectAlias: z}}]\n"),
        "cannot be combined",
    );
    refused(&format!("{GOOD}  jmesPath: []\n"), "list is empty");
    for mode in ["644", "0644", "0400"] {
        assert!(
            Spec::parse(&format!("{GOOD}  filePermission: {mode}\n")).is_ok(),
            "{mode}"
        );
    }
    for mode in ["4755", "0000", "rw", "0888", "420420"] {
        assert!(
            Spec::parse(&format!("{GOOD}  filePermission: {mode}\n")).is_err(),
            "{mode}"
        );
    }
}
