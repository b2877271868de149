//! SecretRevision: what the leader tells all nodes of a secret.

use kube::CustomResource;
use ring::digest::{Context, SHA256};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A condition as Kubernetes writes them.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Ready`: whether the secret's state could be confirmed.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True` or `False`.
    pub status: String,
    /// One word: `Confirmed`, or the kind of the failure.
    pub reason: String,
    /// The cause, with the cloud's code and request id.
    pub message: String,
    /// Since when it is so.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
}

/// One secret of CSMS of which pods have mounted `latest` or a stage. Written by the leader only,
/// when the secret moved or could not be asked for; read by every node. Holds no value.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[kube(
    group = "dew-provider.io",
    version = "v1alpha1",
    kind = "SecretRevision",
    shortname = "srev",
    category = "dew",
    status = "SecretRevisionStatus",
    derive = "PartialEq",
    doc = "What is known of a secret of CSMS that pods have mounted by latest or by a stage",
    printcolumn = r#"{"name":"Secret","type":"string","jsonPath":".spec.secret"}"#,
    printcolumn = r#"{"name":"Stage","type":"string","jsonPath":".spec.stage"}"#,
    printcolumn = r#"{"name":"Version","type":"string","jsonPath":".status.version"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Pods","type":"integer","jsonPath":".status.pods"}"#,
    printcolumn = r#"{"name":"Changed","type":"date","jsonPath":".status.changed"}"#,
    printcolumn = r#"{"name":"Checked","type":"date","jsonPath":".status.checked"}"#,
    printcolumn = r#"{"name":"Region","type":"string","jsonPath":".spec.region","priority":1}"#,
    printcolumn = r#"{"name":"Project","type":"string","jsonPath":".spec.project","priority":1}"#,
    printcolumn = r#"{"name":"Interval","type":"string","jsonPath":".spec.interval","priority":1}"#,
    printcolumn = r#"{"name":"Current","type":"string","jsonPath":".status.current","priority":1}"#
)]
#[serde(rename_all = "camelCase")]
pub struct SecretRevisionSpec {
    /// Region of the secret.
    pub region: String,
    /// Project of the secret; not set where it is the one that comes with the provider's credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Name of the secret in CSMS.
    pub secret: String,
    /// The stage that pods follow; not set where they follow `latest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// How often it is asked for, such as `2m`: the shortest interval of the SecretProviderClasses
    /// that name it.
    pub interval: String,
}

/// What was found.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecretRevisionStatus {
    /// Id of the version: of the newest one, or of the one that holds the stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Id of the version that holds `SYSCURRENT`, for `latest`: which of the two `latest` means is
    /// the service's choice, so a move of either counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// When that version was made, in milliseconds since 1970: tells a secret from another of the
    /// same name that was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<i64>,
    /// When it was seen to move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub changed: Option<String>,
    /// When this was written. That it still holds is told by the Lease of the providers, whose
    /// annotation `dew-provider.io/confirmed` moves when all secrets were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub checked: Option<String>,
    /// Over how many seconds the nodes spread their fetches, so that all of them together stay
    /// below the account's limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread_seconds: Option<u32>,
    /// How many pods had it mounted when this was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<u32>,
    /// `Ready`, with reason and cause where it is `False`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl SecretRevisionSpec {
    /// The object's name: readable, and the same whoever makes it up.
    pub fn object_name(&self) -> String {
        let mut digest = Context::new(&SHA256);
        let project = self.project.as_deref().unwrap_or_default();
        let stage = self.stage.as_deref().unwrap_or_default();
        for part in [&self.region, project, &self.secret, stage] {
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        }
        let hex = data_encoding::HEXLOWER.encode(&digest.finish().as_ref()[..5]);
        let mut readable: String = self
            .secret
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_lowercase()
                } else {
                    '-'
                }
            })
            .collect();
        readable = readable.trim_matches('-').to_owned();
        if readable.is_empty() {
            readable = "secret".to_owned();
        }
        format!("{readable}-{hex}")
    }
}

impl SecretRevisionStatus {
    /// Its condition `Ready`.
    pub fn ready(&self) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.type_ == "Ready")
    }
}
