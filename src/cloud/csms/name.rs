//! Names of secrets and stages.

/// The rule of [`is_valid_name`], for messages.
pub const NAME_RULE: &str = "1 to 64 letters, digits, ., _ or -, and not . or ..";

/// Whether CSMS accepts the name of a secret or stage: `^[a-zA-Z0-9._-]{1,64}$`, except for `.` and `..`,
/// which are no path segments.
///
/// Source: API reference of CSMS, CreateSecret (2025-12). The comments of Huawei's SDKs lack the dot.
pub fn is_valid_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !matches!(name, "." | "..")
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}
