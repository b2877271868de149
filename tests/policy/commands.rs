//! `lint --policy`, and `serve --policy` with a file that cannot be used.

use std::path::Path;

use crate::support::program::{run, text};

const POLICY: &str = "\
version: 1
rules:
  - namespaces: [shop]
    secrets: [\"shop.*\"]
    regions: [cn-north-4]
  - namespaces: [default]
    secrets: [tls]
    projects: [p1]
";

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn class(metadata: &str, parameters: &str, secret: &str) -> String {
    format!(
        "apiVersion: secrets-store.csi.x-k8s.io/v1\nkind: SecretProviderClass\nmetadata: {{name: app, \
         {metadata}}}\nspec:\n  provider: cce\n  parameters:\n{parameters}    objects: |\n      - \
         objectName: {secret}\n        objectType: csms\n        objectVersion: latest\n"
    )
}

/// The exit code and the output of `lint`.
async fn lint(args: &[&str]) -> (i32, String) {
    let mut all = vec!["lint"];
    all.extend(args);
    let output = run(&all, &[], "").await;
    (output.status.code().unwrap(), text(&output))
}

#[tokio::test]
async fn lint_checks_the_policy_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let good = write(folder.path(), "good.yaml", POLICY);
    let (code, output) = lint(&["--policy", &good]).await;
    assert_eq!(code, 0, "{output}");
    let bad = POLICY
        .replace("regions", "region")
        .replace("[tls]", "\n      - tls\n      - \"t l s\"");
    let bad = write(folder.path(), "bad.yaml", &bad);
    let (code, output) = lint(&["--policy", &bad]).await;
    assert_eq!(code, 1, "{output}");
    for line in [
        "bad.yaml:5: error: policy, rule 1, region: unknown field; did you mean regions?",
        "bad.yaml:9: error: policy, rule 2, secrets: \"t l s\" contains ' ': use letters",
        ": 2 errors",
    ] {
        assert!(output.contains(line), "{line}: {output}");
    }
    let (code, output) = lint(&["--policy", "/nonexistent/policy.yaml"]).await;
    assert_eq!(code, 1);
    assert!(
        output.contains("/nonexistent/policy.yaml cannot be read"),
        "{output}"
    );
    // Without a policy, a file is required.
    assert_eq!(lint(&[]).await.0, 2);
}

#[tokio::test]
async fn lint_checks_classes_against_the_policy() {
    let folder = tempfile::tempdir().unwrap();
    let policy = write(folder.path(), "policy.yaml", POLICY);
    let shop = "namespace: shop";
    let north = "    region: cn-north-4\n";
    let south = "    region: cn-south-1\n";
    let failover = "    failoverRegion: cn-south-1\n";
    let project = "    region: cn-north-4\n    projectId: p1\n";
    let other = "    region: cn-north-4\n    projectId: p2\n";
    let both = "    region: cn-south-1\n    failoverRegion: cn-south-2\n";
    // Metadata, parameters, secret, flags, and of each finding: line in the parameters, counted from 1, and text.
    // The first line after the parameters is `objects`, the second one the object.
    type Case<'a> = (
        &'a str,
        &'a str,
        &'a str,
        &'a [&'a str],
        &'a [(usize, &'a str)],
    );
    let cases: [Case<'_>; 17] = [
        (shop, north, "shop.db", &[], &[]),
        // The region of the provider is not known.
        (shop, "", "shop.db", &[], &[]),
        (shop, "", "shop.db", &["--region", "cn-north-4"], &[]),
        (
            shop,
            "",
            "shop.db",
            &["--region", "cn-south-1"],
            &[(
                2,
                "error: SecretProviderClass app, region: object \"shop.db\": no rule",
            )],
        ),
        (
            shop,
            south,
            "shop.db",
            &[],
            &[(
                1,
                "error: SecretProviderClass app, region: object \"shop.db\": no rule",
            )],
        ),
        (
            shop,
            failover,
            "shop.db",
            &[],
            &[(
                1,
                "error: SecretProviderClass app, failoverRegion: object \"shop.db\": no rule",
            )],
        ),
        (
            shop,
            both,
            "shop.db",
            &[],
            &[
                (
                    1,
                    "error: SecretProviderClass app, region: object \"shop.db\": no rule",
                ),
                (
                    2,
                    "error: SecretProviderClass app, failoverRegion: object \"shop.db\": no rule",
                ),
            ],
        ),
        // The secret or the namespace, in whatever region and project.
        (
            shop,
            north,
            "shopdb",
            &[],
            &[(
                3,
                "error: SecretProviderClass app, objects: object \"shopdb\": no rule",
            )],
        ),
        (
            shop,
            both,
            "shopdb",
            &[],
            &[(
                4,
                "namespace \"shop\" to use this secret in region cn-south-1",
            )],
        ),
        (
            shop,
            "",
            "shopdb",
            &[],
            &[(
                2,
                "error: SecretProviderClass app, objects: object \"shopdb\": no rule",
            )],
        ),
        (
            "namespace: bank",
            other,
            "tls",
            &[],
            &[(
                4,
                "error: SecretProviderClass app, objects: object \"tls\": no rule",
            )],
        ),
        // Without a namespace it is `default`.
        (
            "labels: {}",
            north,
            "tls",
            &[],
            &[(
                3,
                "warning: SecretProviderClass app, projectId: object \"tls\": the operator's policy allows namespace \"default\"",
            )],
        ),
        (
            "labels: {}",
            north,
            "tls",
            &["--region", "cn-north-4"],
            &[(
                3,
                "error: SecretProviderClass app, projectId: object \"tls\": the operator's policy allows namespace \"default\"",
            )],
        ),
        (
            "labels: {}",
            other,
            "tls",
            &[],
            &[(
                2,
                "error: SecretProviderClass app, projectId: object \"tls\": no rule",
            )],
        ),
        (
            "labels: {}",
            "    projectId: p1\n    failoverRegion: cn-south-1\n",
            "tls",
            &[],
            &[(
                2,
                "error: SecretProviderClass app, failoverRegion: object \"tls\": the operator's policy allows",
            )],
        ),
        (
            "labels: {}",
            "",
            "tls",
            &["--region", "cn-north-4", "--project-id", "p1"],
            &[],
        ),
        ("labels: {}", project, "tls", &[], &[]),
    ];
    for (metadata, parameters, secret, flags, expected) in cases {
        let file = write(
            folder.path(),
            "class.yaml",
            &class(metadata, parameters, secret),
        );
        let mut args = vec!["--policy", policy.as_str(), file.as_str()];
        args.extend(flags);
        let (code, output) = lint(&args).await;
        let found: Vec<&str> = (output.lines())
            .filter(|line| line.contains("class.yaml:"))
            .collect();
        assert_eq!(found.len(), expected.len(), "{output}");
        for (line, (place, text)) in found.iter().zip(expected) {
            assert!(line.contains(text), "{text}: {output}");
            let place = format!("class.yaml:{}: ", 6 + place);
            assert!(line.contains(&place), "{place}: {output}");
        }
        let errors = expected
            .iter()
            .filter(|(_, text)| !text.starts_with("warning"));
        assert_eq!(code, i32::from(errors.count() > 0), "{output}");
    }
}

#[tokio::test]
async fn serve_does_not_start_with_a_policy_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.yaml");
    let wrong = write(
        folder.path(),
        "wrong.yaml",
        "version: 1\nrules:\n- namespaces: [a]\n",
    );
    for (path, expected) in [
        (missing.to_str().unwrap(), "cannot read the policy "),
        (&wrong, "wrong.yaml: line 3, rule 1, secrets: missing"),
        (folder.path().to_str().unwrap(), "cannot read the policy "),
    ] {
        let args = [
            "serve",
            "--service-account-allow-list",
            "off",
            "--admin-address",
            "127.0.0.1:0",
            "--socket-dir",
            folder.path().to_str().unwrap(),
            "--policy",
            path,
        ];
        let output = run(&args, &[], "").await;
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(expected), "{}", text(&output));
    }
}
