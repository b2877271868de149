//! The chart beside the program: what both must say alike. helm itself is run by `tests/cluster`.

use std::path::Path;

use serde_json::{Value, json};

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap()
}

#[test]
fn versions_are_one() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = yaml("charts/dew-provider/Chart.yaml");
    assert_eq!(
        (&chart["version"], &chart["appVersion"]),
        (&json!(version), &json!(version))
    );
    for file in ["manifests/install.yaml", "tests/cluster/image"] {
        assert!(
            read(file).contains(&format!("dew-provider:{version}")),
            "{file}"
        );
    }
    assert!(read("CHANGELOG.md").contains(&format!("## {version}")));
}

/// Names and defaults of the driver's chart 1.6.1: charts/secrets-store-csi-driver/values.yaml there.
#[test]
fn the_drivers_chart_is_told_to_rotate_and_to_skip_as_little_as_it_can() {
    let values = yaml("charts/dew-provider/values.yaml");
    let handed_down = json!({
        "install": true,
        "linux": {"kubeletRootDir": "/var/lib/kubelet"},
        "enableSecretRotation": true,
        "rotationPollInterval": "1s",
        "tokenRequests": [],
        "syncSecret": {"enabled": false},
    });
    assert_eq!(values["secrets-store-csi-driver"], handed_down);
    let chart = yaml("charts/dew-provider/Chart.yaml");
    let lock = yaml("charts/dew-provider/Chart.lock");
    let dependency = &chart["dependencies"][0];
    assert_eq!(dependency["condition"], "secrets-store-csi-driver.install");
    // 1.6.0 writes synced Secrets in a hot loop.
    assert_eq!(dependency["version"], "~1.6.1");
    let locked = &lock["dependencies"][0];
    let patch = locked["version"].as_str().unwrap().strip_prefix("1.6.");
    assert!(patch.unwrap().parse::<u32>().unwrap() >= 1, "{locked}");
    assert_eq!(locked["repository"], dependency["repository"]);
    // `helm dependency build` refuses a lock with another digest: SHA-256 over what is requested and what is
    // locked, as JSON. Source: helm v3.19.5, internal/resolver/resolver.go, HashReq.
    let (name, repository) = (&dependency["name"], &dependency["repository"]);
    let json = format!(
        r#"[[{{"name":{name},"version":{},"repository":{repository},"condition":{}}}],[{{"name":{name},"version":{},"repository":{repository}}}]]"#,
        dependency["version"], dependency["condition"], locked["version"],
    );
    let digest = ring::digest::digest(&ring::digest::SHA256, json.as_bytes());
    let digest = data_encoding::HEXLOWER.encode(digest.as_ref());
    assert_eq!(lock["digest"], format!("sha256:{digest}"));
}

/// Each value has one text in the file, so that they cannot differ; `tests/cluster/chart check` renders them.
#[test]
fn the_values_for_cce_name_one_root_directory() {
    let cce = yaml("charts/dew-provider/values-cce.yaml");
    let root = "/mnt/paas/kubernetes/kubelet";
    assert_eq!(cce["kubeletRootDir"], root);
    assert_eq!(
        cce["secrets-store-csi-driver"]["linux"]["kubeletRootDir"],
        root
    );
    for page in ["docs/src/cce.md", "docs/src/chart-values.md"] {
        assert!(read(page).contains(&format!("`{root}`")), "{page}");
    }
    let defaults = yaml("charts/dew-provider/values.yaml");
    assert_eq!(
        defaults["kubeletRootDir"],
        defaults["secrets-store-csi-driver"]["linux"]["kubeletRootDir"]
    );
}

/// `DEW_WRITE=1 cargo test chart::` writes the file.
#[test]
fn the_crd_is_the_programs() {
    use dew_provider::kube::SecretRevision;
    use kube::CustomResourceExt;
    const FILE: &str = "charts/dew-provider/files/secretrevisions.yaml";
    let text = serde_saphyr::to_string(&SecretRevision::crd()).unwrap();
    let text = format!("# Generated from src/kube/revisions.rs.\n{text}");
    if std::env::var_os("DEW_WRITE").is_some() {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE), &text).unwrap();
    }
    assert!(
        read(FILE) == text,
        "{FILE}: DEW_WRITE=1 cargo test chart:: writes it"
    );
}

/// What Helm accepts as a policy, the provider starts with.
#[test]
fn the_schema_of_the_policy_is_the_programs() {
    use dew_provider::class::parameters::PARAMETERS;
    use dew_provider::policy::{MAX_RULES, Policy};
    let schema: Value =
        serde_json::from_str(&read("charts/dew-provider/values.schema.json")).unwrap();
    let rules = &schema["properties"]["policy"]["properties"]["rules"];
    assert_eq!(rules["maxItems"], MAX_RULES);
    let fields = rules["items"]["properties"].as_object().unwrap();
    let rule: serde_json::Map<String, Value> = (fields.iter())
        .map(|(field, of)| {
            // All characters that the pattern allows: between the brackets.
            let pattern = of["items"]["pattern"].as_str().unwrap();
            let (set, length) = pattern[2..].split_once(']').unwrap();
            let set = set
                .replace("A-Z", "A")
                .replace("a-z", "z")
                .replace("0-9", "5");
            let longest: usize = length[3..length.len() - 2].parse().unwrap();
            let globs = json!([set, "a".repeat(longest)]);
            (field.clone(), globs)
        })
        .collect();
    assert_eq!(rule.len(), 4);
    let policy = json!({"version": 1, "rules": [rule]}).to_string();
    let policy = Policy::parse(&policy).map_err(|problems| format!("{problems:?}"));
    assert_eq!(policy.unwrap().len(), 1);
    // The example in the values, without its indentation.
    let values = read("charts/dew-provider/values.yaml");
    let (example, _) = values.split_once("\npolicy: {}").unwrap();
    let (_, example) = example.rsplit_once("#   version: 1").unwrap();
    let example = format!("version: 1{}", example.replace("\n#   ", "\n"));
    assert_eq!(Policy::parse(&example).unwrap().len(), 1);
    // The parameters that the ValidatingAdmissionPolicy knows.
    let names: Vec<String> = PARAMETERS.iter().map(|name| format!("{name:?}")).collect();
    let list = format!("$parameters := list {} }}", names.join(" "));
    assert!(
        read("charts/dew-provider/templates/admission.yaml").contains(&list),
        "{list}"
    );
}

#[test]
fn defaults_are_the_programs() {
    let values = yaml("charts/dew-provider/values.yaml");
    let commands = read("docs/src/commands.md");
    for (flag, default) in [
        (
            "--rotation-poll-interval",
            &values["rotation_poll_interval"],
        ),
        (
            "--service-account-allow-list",
            &values["serviceAccountAllowList"],
        ),
        ("--rotation-qps", &values["rotation"]["qps"]),
        ("--rotation-spread", &values["rotation"]["spread"]),
        ("--csms-qps", &values["endpoints"]["qps"]),
        ("--csms-burst", &values["endpoints"]["burst"]),
        ("--provider-name", &values["driver"]["providerNames"][0]),
        ("--socket-dir", &values["driver"]["providersDir"]),
        ("--log-level", &values["logging"]["level"]),
        ("--log-format", &values["logging"]["format"]),
    ] {
        let default = default
            .as_str()
            .map_or_else(|| default.to_string(), ToOwned::to_owned);
        let row = commands
            .lines()
            .find(|line| line.starts_with(&format!("| `{flag}` |")))
            .unwrap();
        assert!(
            row.contains(&format!("| `{default}` |")),
            "{flag} {default}: {row}"
        );
    }
}
