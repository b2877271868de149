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

const OBJECTS: &str =
    "      - objectName: db\n        objectType: csms\n        objectVersion: newest\n";

#[test]
fn a_block_scalar_keeps_its_lines_however_it_begins() {
    for header in [
        "objects: |",
        "objects: | # remark",
        "objects: |-",
        "objects: |+   # a: b",
        "objects: |2",
        "objects: |2-",
        "\"objects\": |",
        "objects: !!str |",
        "objects: &list | # remark",
        "objects: >",
        "objects: >- # remark",
        "objects:    |",
    ] {
        let text = format!("{HEAD}  provider: cce\n  parameters:\n    {header}\n{OBJECTS}");
        let found = lint(&text);
        assert_eq!(found.len(), 1, "{header}: {found:?}");
        assert!(
            found[0].starts_with("f.yaml:12: error:"),
            "{header}: {found:?}"
        );
    }
    let text =
        format!("{HEAD}  provider: cce\n  parameters:\n    objects: |\n\n      # note\n{OBJECTS}");
    assert!(
        lint(&text)[0].starts_with("f.yaml:14:"),
        "{:?}",
        lint(&text)
    );
}

#[test]
fn lists_are_read_as_their_items() {
    let class = "apiVersion: secrets-store.csi.x-k8s.io/v1\n  kind: SecretProviderClass\n  metadata: {name: app, namespace: web}\n  spec:\n    provider: cce\n    parameters:\n      objects: | # remark\n        - objectName: db\n          objectType: csms\n          objectVersion: newest\n";
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {class}- kind: ServiceAccunt\n  apiVersion: v1\n"
    );
    let found = lint(&list);
    assert!(
        found[0].starts_with(
            "f.yaml:13: error: SecretProviderClass app, objects, object \"db\", objectVersion"
        ),
        "{found:?}"
    );
    assert!(
        found[1].contains("f.yaml:14: error") && found[1].contains("did you mean ServiceAccount?"),
        "{found:?}"
    );
    // The items of a typed list need not repeat its kind.
    let typed = "apiVersion: secrets-store.csi.x-k8s.io/v1\nkind: SecretProviderClassList\nitems:\n- metadata: {name: app}\n  spec: {provider: cce, parameters: {objects: '[{objectName: db}]'}}\n";
    let found = lint(typed);
    assert!(
        found.iter().any(|f| f.contains("objectType: missing")),
        "{found:?}"
    );
    let json =
        r#"{"kind":"List","items":[{"kind":"SecretProviderClass","spec":{"provider":"cce"}}]}"#;
    let found = lint(json);
    assert!(
        found
            .iter()
            .any(|f| f.contains("parameters.objects: missing")),
        "{found:?}"
    );
}

#[test]
fn one_bad_document_does_not_hide_the_others() {
    let bad = "kind: [\n---\nkind: 5: 6\n---\n- a\n---\n";
    let text = format!("{bad}{HEAD}  provider: cec\n");
    let found = lint(&text);
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(
        found[3].starts_with("f.yaml:13: error: SecretProviderClass app, spec.provider"),
        "{found:?}"
    );
}

#[test]
fn near_misses_are_flagged_with_a_hint() {
    let class = |head: &str| {
        format!(
            "{head}metadata: {{name: app}}\nspec: {{provider: cce, parameters: {{objects: '[{{objectName: db, objectType: csms, objectVersion: v1}}]'}}}}\n"
        )
    };
    let account = |key: &str| {
        format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: app\n  annotations:\n    {key}: '[\"db\"]'\n"
        )
    };
    let pod = |driver: &str, attribute: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  volumes:\n  - name: v\n    csi:\n      driver: {driver}\n      volumeAttributes: {{{attribute}: app}}\n"
        )
    };
    let group = "apiVersion: secrets-store.csi.x-k8s.io/v1\n";
    for (text, part) in [
        (
            class(&format!("{group}kind: SecretProviderClas\n")),
            "did you mean SecretProviderClass?",
        ),
        (
            class(&format!("{group}kind: secretproviderclass\n")),
            "did you mean SecretProviderClass?",
        ),
        (
            class("apiVersion: secrets-store.csi.k8s.io/v1\nkind: SecretProviderClass\n"),
            "did you mean secrets-store.csi.x-k8s.io/v1?",
        ),
        (
            class("apiVersion: secrets-store.csi.x-k8s.io/v1beta1\nkind: SecretProviderClass\n"),
            "did you mean secrets-store.csi.x-k8s.io/v1?",
        ),
        (
            class("kind: SecretProviderClass\n"),
            "missing: set apiVersion",
        ),
        (
            account("cce.io/dew-resources"),
            "did you mean cce.io/dew-resource?",
        ),
        (
            account("cce.io/dew_resource"),
            "did you mean cce.io/dew-resource?",
        ),
        (
            account("CCE.io/dew-resource"),
            "did you mean cce.io/dew-resource?",
        ),
        (
            account("dew.io/resource"),
            "did you mean cce.io/dew-resource?",
        ),
        (
            pod("secret-store.csi.k8s.io", "secretProviderClass"),
            "did you mean secrets-store.csi.k8s.io?",
        ),
        (
            pod("secrets-store.csi.x-k8s.io", "secretProviderClass"),
            "did you mean secrets-store.csi.k8s.io?",
        ),
        (
            pod("secrets-store.csi.k8s.io", "secretproviderclass"),
            "did you mean secretProviderClass?",
        ),
        (
            "apiVersion: v1\nkind: Pods\n".to_owned(),
            "did you mean Pod?",
        ),
        (
            "apiVersion: app/v1\nkind: Deployment\n".to_owned(),
            "did you mean apps/v1?",
        ),
        (
            "apiVersion: apps/v1\nkind: Deployement\n".to_owned(),
            "did you mean Deployment?",
        ),
    ] {
        let found = lint(&text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(
            found[0].contains(" error: ") && found[0].contains(part),
            "{found:?}"
        );
    }
    for fine in [
        class(&format!("{group}kind: SecretProviderClass\n")),
        class("apiVersion: secrets-store.csi.x-k8s.io/v1alpha1\nkind: SecretProviderClass\n"),
        account("example.com/team"),
        pod("ebs.csi.aws.com", "x"),
        pod("secrets-store.csi.k8s.io", "secretProviderClass"),
        "apiVersion: apps.kruise.io/v1alpha1\nkind: StatefulSet\n".to_owned(),
        "apiVersion: v1\nkind: Service\n---\nkind: ConfigMap\n---\nkind: Role\n---\nkind: Node\n"
            .to_owned(),
        "apiVersion: x.io/v1\nkind: Deployments\n".to_owned(),
    ] {
        assert_eq!(lint(&fine), [""; 0], "{fine}");
    }
    let found = lint(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, annotations: {cce.io/dew-resource: '[]'}}\n",
    );
    assert!(found[0].contains("has no effect here"), "{found:?}");
}

/// A class, a ServiceAccount and a workload.
fn app(kind: &str, path: &str, class_in: &str, account_in: &str, listed: &str) -> String {
    let pod = "{serviceAccountName: app, volumes: [{name: v, csi: {driver: secrets-store.csi.k8s.io, volumeAttributes: {secretProviderClass: app}}}]}";
    let mut spec = format!("{{spec: {pod}}}");
    for name in path.split('.').rev().filter(|name| !name.is_empty()) {
        spec = format!("{{{name}: {spec}}}");
    }
    let spec = &spec[1..spec.len() - 1];
    let version = match kind {
        "Pod" => "v1",
        "Job" | "CronJob" => "batch/v1",
        _ => "apps/v1",
    };
    format!(
        "apiVersion: secrets-store.csi.x-k8s.io/v1\nkind: SecretProviderClass\nmetadata: {{name: app, namespace: {class_in}}}\nspec:\n  provider: cce\n  parameters:\n    objects: |\n      - {{objectName: db, objectType: csms, objectVersion: v1}}\n      - {{objectName: tls, objectType: csms, objectVersion: v1}}\n---\napiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: app\n  namespace: {account_in}\n  {listed}\n---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: shop, namespace: web}}\n{spec}\n"
    )
}

#[test]
fn pods_are_followed_to_their_account_and_class() {
    let all = "annotations: {cce.io/dew-resource: '[\"db\", \"tls\"]'}";
    let one = "annotations: {cce.io/dew-resource: '[\"db\"]'}";
    for (kind, path) in [
        ("Pod", ""),
        ("Deployment", "spec.template"),
        ("StatefulSet", "spec.template"),
        ("DaemonSet", "spec.template"),
        ("Job", "spec.template"),
        ("CronJob", "spec.jobTemplate.spec.template"),
    ] {
        assert_eq!(lint(&app(kind, path, "web", "web", all)), [""; 0], "{kind}");
        let found = lint(&app(kind, path, "web", "web", one));
        assert_eq!(found.len(), 1, "{kind}: {found:?}");
        let expected = format!(
            "f.yaml:16: error: ServiceAccount web/app, cce.io/dew-resource: does not list \"tls\", which {kind} shop mounts"
        );
        assert!(found[0].starts_with(&expected), "{kind}: {found:?}");
        let found = lint(&app(kind, path, "web", "web", ""));
        assert!(
            found.len() == 1
                && found[0].contains("missing: ")
                && found[0].contains("[\"db\", \"tls\"]"),
            "{kind}: {found:?}"
        );
        let found = lint(&app(kind, path, "other", "web", all));
        assert!(
            found
                .iter()
                .any(|f| f.contains("error") && f.contains("is in namespace other")),
            "{kind}: {found:?}"
        );
        let found = lint(&app(kind, path, "web", "other", all));
        assert!(
            found
                .iter()
                .any(|f| f.contains("serviceAccountName") && f.contains("is in namespace other")),
            "{kind}: {found:?}"
        );
    }
}
