//! The reference pages of `docs/` list what the program has, and nothing else.

use crate::support::program::{run, text};
use crate::support::test_node::{Setup, TestNode};
use serde_json::json;

const COMMANDS: &str = include_str!("../docs/src/commands.md");
const METRICS: &str = include_str!("../docs/src/metrics.md");
const CLASS_REFERENCE: &str = include_str!("../docs/src/class-reference.md");
const SECURITY: &str = include_str!("../docs/src/security.md");

#[test]
fn the_tests_that_the_security_page_names_exist() {
    let program = std::env::current_exe().unwrap();
    let listed = std::process::Command::new(program)
        .arg("--list")
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let named: Vec<&str> = (SECURITY.split('`').skip(1).step_by(2))
        .filter(|code| code.contains("::"))
        .collect();
    assert!(named.len() > 20, "{named:?}");
    for name in named {
        let line = format!("{name}: test");
        assert!(listed.lines().any(|test| test == line), "{name}");
    }
}

#[tokio::test]
async fn every_flag_of_serve_is_documented() {
    let help = text(&run(&["serve", "--help"], &[], "").await);
    let flags: Vec<&str> = help
        .split_whitespace()
        .filter(|word| word.starts_with("--") && word.len() > 2 && *word != "--help")
        .collect();
    assert!(flags.len() > 10, "{flags:?}");
    for flag in &flags {
        assert!(
            COMMANDS.contains(&format!("| `{flag}` | `DEW_")),
            "{flag} is not in the table"
        );
    }
    for line in COMMANDS.lines().filter(|line| line.starts_with("| `--")) {
        let flag = line.split('`').nth(1).unwrap();
        assert!(flags.contains(&flag), "{flag} is not a flag");
    }
}

#[tokio::test]
async fn every_metric_is_documented() {
    // Some appear with the first thing to count.
    let node = TestNode::with(Setup {
        env: Vec::new(),
        ..Setup::default()
    })
    .await;
    node.create("a", "one").await;
    let objects = "- {objectName: a, objectType: csms, objectVersion: latest}";
    node.apply_for("app", objects, &["a"]).await;
    let once =
        json!({"match": {"operation": "ShowSecretVersion"}, "times": 1, "fault": {"status": 429}});
    node.fault(once).await;
    node.publish(&node.pod("app", "1")).await.unwrap();
    let metrics = node.metrics().await;
    let families: Vec<_> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, kind)| {
            if kind == "counter" {
                format!("{name}_total")
            } else {
                name.to_owned()
            }
        })
        .collect();
    assert!(families.len() >= 8, "{metrics}");
    for family in &families {
        assert!(
            METRICS.contains(&format!("| `{family}` |")),
            "{family} is not in the table"
        );
    }
    for line in METRICS
        .lines()
        .filter(|line| line.starts_with("| `dew_provider_"))
    {
        let name = line.split('`').nth(1).unwrap();
        assert!(
            families.iter().any(|family| family == name),
            "{name} is not a metric"
        );
    }
}

#[test]
fn every_field_and_parameter_is_documented() {
    use dew_provider::class::parameters::PARAMETERS;
    for name in PARAMETERS.iter().filter(|name| **name != "agency") {
        assert!(CLASS_REFERENCE.contains(&format!("`{name}`")), "{name}");
    }
    for field in [
        "objectName",
        "objectType",
        "objectVersion",
        "stage",
        "objectAlias",
        "jmesPath",
        "allKeys",
        "filePermission",
        "encoding",
        "optional",
    ] {
        assert!(
            CLASS_REFERENCE.contains(&format!("| `{field}` |")),
            "{field}"
        );
    }
}
