//! What an emulator is told at its start.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::ValueEnum;
use http::StatusCode;

use crate::secret::SecretBytes;

/// Access key of [`Account::demo`]. Invented; it opens nothing but an emulator.
pub const DEMO_ACCESS_KEY: &str = "DEMOACCESSKEY0000001";
/// Secret key of [`Account::demo`].
pub const DEMO_SECRET_KEY: &str = "demo-secret-key-that-opens-only-the-emulator";
/// Region of [`Account::demo`]'s only project, and the one the metadata service names.
pub const DEMO_REGION: &str = "cn-north-4";
/// Project id of [`Account::demo`] in [`DEMO_REGION`].
pub const DEMO_PROJECT: &str = "0123456789abcdef0123456789abcdef";

/// Settings of an emulator. The default serves one demo account from memory.
#[derive(Clone, Debug)]
pub struct Config {
    /// File that keeps the secrets (values included, readable by the owner only) between runs.
    pub state: Option<PathBuf>,
    /// Accounts that may sign requests. The first one is the ECS agency's.
    pub accounts: Vec<Account>,
    /// What version id `latest` means.
    pub latest: LatestMeans,
    /// Status of a secret that does not exist: 404 (API pages) or 400 (table of error codes).
    pub not_found: StatusCode,
    /// Status of a successful DeleteSecret: 204 (API pages) or 200 (OpenAPI definition).
    pub delete_status: StatusCode,
    /// Whether the metadata service wants a token.
    pub metadata_token: TokenMode,
    /// Whether the server has a cloud service agency, so that the metadata service gives keys.
    pub agency: bool,
    /// Region that the metadata service names.
    pub region: String,
    /// Lock an access key for 5 minutes after 5 refused requests in a row, as the gateway does.
    pub lock_keys: bool,
    /// Log one line for each call: operation, status, request id.
    pub log_calls: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state: None,
            accounts: vec![Account::demo()],
            latest: LatestMeans::Syscurrent,
            not_found: StatusCode::NOT_FOUND,
            delete_status: StatusCode::NO_CONTENT,
            metadata_token: TokenMode::Optional,
            agency: true,
            region: DEMO_REGION.to_owned(),
            lock_keys: false,
            log_calls: false,
        }
    }
}

/// One access key, the projects it reaches and what it may do there.
///
/// Two accounts may name the same project id: then they see the same secrets with different rights.
#[derive(Clone, Debug)]
pub struct Account {
    /// Access key id.
    pub access_key: String,
    /// Secret key.
    pub secret_key: SecretBytes,
    /// Name, for people.
    pub name: String,
    /// Project id by region.
    pub projects: BTreeMap<String, String>,
    /// What it may do.
    pub rights: Rights,
}

impl Account {
    /// The account that a default emulator serves.
    pub fn demo() -> Self {
        Self {
            access_key: DEMO_ACCESS_KEY.to_owned(),
            secret_key: DEMO_SECRET_KEY.to_owned().into(),
            name: "demo".to_owned(),
            projects: [(DEMO_REGION.to_owned(), DEMO_PROJECT.to_owned())].into(),
            rights: Rights::default(),
        }
    }
}

/// Rights of an account. The default has all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Show secrets, versions and stages; refused with CSMS.0302.
    pub read: bool,
    /// List secrets and versions; refused with CSMS.0302.
    pub list: bool,
    /// Create, change and delete; refused with CSMS.0302.
    pub write: bool,
    /// Decrypt with the secret's key, which reading a value needs; refused with CSMS.0401.
    pub kms: bool,
}

impl Default for Rights {
    fn default() -> Self {
        Self {
            read: true,
            list: true,
            write: true,
            kms: true,
        }
    }
}

/// What `latest` names where SYSCURRENT was moved off the newest version: Huawei's pages do not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LatestMeans {
    /// The version that holds SYSCURRENT.
    #[default]
    Syscurrent,
    /// The version with the highest number.
    Newest,
}

/// Session tokens of the metadata service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TokenMode {
    /// There are none: asking for one answers 404.
    Off,
    /// Given and checked, but not asked for.
    #[default]
    Optional,
    /// Reading without one answers 401.
    Required,
}
