//! The permissions that calls need, for the errors of those that are denied.

use super::error::ErrorKind;

/// The IAM action of an operation. Sources: Huawei's API references of CSMS, KMS and IAM, "Permissions and
/// supported actions".
fn action(operation: &str) -> Option<&'static str> {
    Some(match operation {
        "CreateSecret" => "csms:secret:create",
        "ShowSecret" => "csms:secret:get",
        "ListSecrets" => "csms:secret:list",
        "DeleteSecret" => "csms:secret:delete",
        "CreateSecretVersion" => "csms:secretVersion:create",
        "ListSecretVersions" => "csms:secretVersion:list",
        "ShowSecretVersion" => "csms:secretVersion:get",
        "ShowSecretStage" => "csms:secretStage:get",
        "UpdateSecretStage" => "csms:secretStage:update",
        "CreateKey" => "kms:cmk:create",
        "ListKeys" => "kms:cmk:list",
        "ListKeyDetail" => "kms:cmk:get",
        "EnableKey" => "kms:cmk:enable",
        "DisableKey" => "kms:cmk:disable",
        "DeleteKey" | "CancelKeyDeletion" => "kms:cmk:update",
        "CreateRandom" => "kms:cmk:generate",
        "EncryptData" | "DecryptData" => "kms:cmk:crypto",
        "CreateDatakey" | "CreateDatakeyWithoutPlaintext" => "kms:dek:create",
        "EncryptDatakey" | "DecryptDatakey" => "kms:dek:crypto",
        "KeystoneListProjects" => "iam:projects:listProjects",
        _ => return None,
    })
}

/// The actions on the KMS key of a secret that an operation needs in addition.
fn key_actions(operation: &str) -> &'static str {
    match operation {
        "CreateSecret" | "CreateSecretVersion" => "kms:dek:create and kms:dek:encrypt",
        _ => "kms:dek:decrypt",
    }
}

/// What to grant after a response with this status and code of the service, if it denies a permission. Rejected
/// keys are no missing permission.
pub(super) fn missing(
    operation: &str,
    kind: ErrorKind,
    status: Option<u16>,
    code: &str,
) -> Option<String> {
    if kind != ErrorKind::Denied {
        return None;
    }
    if code == "CSMS.0401" {
        return Some(format!(
            "grant the identity {} on the secret's KMS key (or the policy KMS CMKFullAccess) in addition to its \
             CSMS permissions",
            key_actions(operation)
        ));
    }
    // The other denials of KMS are about tokens and accounts.
    let is_keys_own = matches!(code, "KMS.0306" | "KMS.0307" | "KMS.0330");
    if code.starts_with("KMS.") && !is_keys_own {
        return None;
    }
    // A proxy denies without a code.
    if code != "CSMS.0302" && (status != Some(403) || code.is_empty()) {
        return None;
    }
    let Some(action) = action(operation) else {
        let advice = "grant the identity the policy KMS CMKFullAccess in this region's project";
        return is_keys_own.then(|| advice.to_owned());
    };
    let place = if action.starts_with("iam:") {
        "in IAM"
    } else {
        "in this region's project"
    };
    Some(format!("grant the identity {action} {place}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_denied_call_names_its_own_action() {
        for (operation, expected, key) in [
            ("CreateSecret", "csms:secret:create", "kms:dek:encrypt"),
            ("ShowSecret", "csms:secret:get", "kms:dek:decrypt"),
            ("ListSecrets", "csms:secret:list", "kms:dek:decrypt"),
            ("DeleteSecret", "csms:secret:delete", "kms:dek:decrypt"),
            (
                "CreateSecretVersion",
                "csms:secretVersion:create",
                "kms:dek:encrypt",
            ),
            (
                "ListSecretVersions",
                "csms:secretVersion:list",
                "kms:dek:decrypt",
            ),
            (
                "ShowSecretVersion",
                "csms:secretVersion:get",
                "kms:dek:decrypt",
            ),
            ("ShowSecretStage", "csms:secretStage:get", "kms:dek:decrypt"),
            (
                "UpdateSecretStage",
                "csms:secretStage:update",
                "kms:dek:decrypt",
            ),
            ("DecryptDatakey", "kms:dek:crypto", "kms:dek:decrypt"),
            (
                "KeystoneListProjects",
                "iam:projects:listProjects",
                "kms:dek:decrypt",
            ),
        ] {
            let text =
                |status, code: &str| missing(operation, ErrorKind::Denied, Some(status), code);
            for (status, code) in [(403, "CSMS.0302"), (400, "CSMS.0302"), (403, "APIGW.0302")] {
                let advice = text(status, code).unwrap();
                assert!(advice.contains(expected), "{advice}");
                assert_eq!(advice.matches(':').count(), 2, "one action: {advice}");
            }
            assert!(text(400, "CSMS.0401").unwrap().contains(key));
            assert_eq!(text(401, "APIGW.0301"), None);
            assert_eq!(text(403, "KMS.0301"), None);
            assert_eq!(text(403, ""), None);
        }
    }

    #[test]
    fn a_denied_signature_names_a_policy() {
        let advice = missing("Sign", ErrorKind::Denied, Some(403), "KMS.0306").unwrap();
        assert!(advice.contains("KMS CMKFullAccess"), "{advice}");
        assert_eq!(
            missing("Sign", ErrorKind::Denied, Some(403), "APIGW.0302"),
            None
        );
    }
}
