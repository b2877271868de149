use super::*;

fn lint(text: &str) -> Vec<String> {
    let mut report = Report::default();
    report.file("f.yaml", text, &["cce".to_owned()]);
    report.finish();
    report.findings.iter().map(ToString::to_string).collect()
}

const HEAD: &str = "apiVersion: secrets-store.csi.x-k8s.io/v1\nkind: SecretProviderClass\nmetadata:\n  name: app\n  namespace: web\nspec:\n";

#[test]
fn a_valid_manifest_has_no_findings() {
    let text = format!(
        "{HEAD}  provider: cce\n  parameters:\n    region: cn-north-4\n    objects: |\n      - objectName: db\n        objectType: csms\n        objectVersion: latest\n  secretObjects:\n    - secretName: s\n      type: Opaque\n      data:\n        - objectName: db\n          key: k\n---\napiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: app\n  namespace: web\n  annotations:\n    cce.io/dew-resource: '[\"db\"]'\n---\napiVersion: apps/v1\nkind: Deployment\nspec: {{}}\n"
    );
    assert_eq!(lint(&text), [""; 0]);
}

#[test]
fn each_finding_has_its_line() {
    let text = format!(
        "# a comment\n---\n{HEAD}  provider: cce\n  parameters:\n    regoin: x\n    region: nowhere-1\n    objects: |\n      - objectName: db\n        objectType: csms\n        objectVersion: newest\n        objectAlia: x\n---\nkind: ServiceAccount\nmetadata:\n  name: app\n  annotations:\n    cce.io/dew-resource: db\n"
    );
    let found = lint(&text);
    let all = found.join("\n");
    for part in [
        "f.yaml:11: error: SecretProviderClass app, spec.parameters.regoin: unknown parameter; did you mean region?",
        "f.yaml:12: warning: SecretProviderClass app, spec.parameters.region: \"nowhere-1\" is not a known region",
        "f.yaml:16: error: SecretProviderClass app, objects, object \"db\", objectVersion: \"newest\" is neither",
        "f.yaml:17: error: SecretProviderClass app, objects, object \"db\", objectAlia: unknown field; did you mean objectAlias?",
        "f.yaml:23: error: ServiceAccount app, cce.io/dew-resource: not a JSON array",
    ] {
        assert!(all.contains(part), "{part}\nnot in\n{all}");
    }
}

#[test]
fn missing_files_of_secret_objects_are_reported() {
    let text = format!(
        "{HEAD}  provider: cce\n  parameters:\n    objects: \"[{{objectName: db, objectType: csms, objectVersion: v1}}]\"\n  secretObjects:\n    - data:\n        - objectName: bd\n          key: k\n"
    );
    let found = lint(&text);
    assert!(found[0].starts_with("f.yaml:12: error:"), "{found:?}");
    assert!(found[0].contains("did you mean db?"), "{found:?}");
}

#[test]
fn invalid_yaml_is_reported_and_other_providers_are_ignored() {
    assert!(
        lint("kind: [\n")[0].contains("f.yaml:"),
        "{:?}",
        lint("kind: [\n")
    );
    assert_eq!(
        lint(&format!(
            "{HEAD}  provider: azure\n  parameters: {{x: y}}\n"
        )),
        [""; 0]
    );
    assert!(lint(&format!("{HEAD}  provider: cec\n"))[0].contains("did you mean"));
    assert!(lint(&format!("{HEAD}  parameters: {{}}\n")).len() == 2);
}
