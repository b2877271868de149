//! Settings of an emulator.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::ValueEnum;
use http::StatusCode;

use crate::util::secret_bytes::SecretBytes;

/// Access key of [`Account::demo`]. It is made up and works only with an emulator.
pub const DEMO_ACCESS_KEY: &str = "DEMOACCESSKEY0000001";
/// Secret key of [`Account::demo`].
pub const DEMO_SECRET_KEY: &str = "demo-secret-key-that-opens-only-the-emulator";
/// Region of the only project of [`Account::demo`], and the default region of the metadata service.
pub const DEMO_REGION: &str = "cn-north-4";
/// Project ID of [`Account::demo`] in [`DEMO_REGION`].
pub const DEMO_PROJECT: &str = "0123456789abcdef0123456789abcdef";

/// Settings of an emulator. The default serves [`Account::demo`] and keeps secrets in memory.
#[derive(Clone, Debug)]
pub struct Config {
    /// File that persists the secrets and keys between runs. It contains their values and has mode 0600.
    /// `None` keeps secrets in memory.
    pub state: Option<PathBuf>,
    /// Accounts that may sign requests. The first one is the account of the ECS agency.
    pub accounts: Vec<Account>,
    /// Which version the ID `latest` refers to.
    pub latest: LatestMeans,
    /// Status returned for a secret that does not exist: 404 according to Huawei's API reference,
    /// 400 according to its table of error codes.
    pub not_found: StatusCode,
    /// Status of a successful DeleteSecret: 204 according to Huawei's API reference, 200 according
    /// to its OpenAPI definition.
    pub delete_status: StatusCode,
    /// How the metadata service treats session tokens.
    pub metadata_token: TokenMode,
    /// Whether the ECS server has a cloud service agency. Without one, the metadata service issues
    /// no keys.
    pub agency: bool,
    /// Region that the metadata service reports.
    pub region: String,
    /// KMS calls per second and access key, as the service limits them to 20; more fail with 429. `None` means
    /// no limit.
    pub kms_qps: Option<NonZeroU32>,
    /// Whether to lock an access key for 5 minutes after 5 consecutive rejected requests, as the
    /// real gateway does.
    pub lock_keys: bool,
    /// Whether to log operation, status and request ID of each call.
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
            kms_qps: None,
            lock_keys: false,
            log_calls: false,
        }
    }
}

/// An access key, the projects it can access and its rights.
///
/// Accounts with the same project ID share its secrets, each with its own rights.
#[derive(Clone, Debug)]
pub struct Account {
    /// Access key ID.
    pub access_key: String,
    /// Secret key.
    pub secret_key: SecretBytes,
    /// Display name.
    pub name: String,
    /// Project IDs by region.
    pub projects: BTreeMap<String, String>,
    /// Rights in all of its projects.
    pub rights: Rights,
}

impl Account {
    /// The account of a default emulator.
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

/// Rights of an account. The default grants all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Read secrets, versions and stages. Without it, calls fail with CSMS.0302.
    pub read: bool,
    /// List secrets and versions. Without it, calls fail with CSMS.0302.
    pub list: bool,
    /// Create, update and delete. Without it, calls fail with CSMS.0302.
    pub write: bool,
    /// Use KMS keys: all calls of KMS, and reading and writing values of CSMS. Without it, calls fail with
    /// KMS.0306 or CSMS.0401.
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

/// What `latest` refers to when SYSCURRENT is not on the newest version. Huawei does not document
/// it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LatestMeans {
    /// The version with the stage SYSCURRENT.
    #[default]
    Syscurrent,
    /// The version with the highest number.
    Newest,
}

/// How the metadata service treats session tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TokenMode {
    /// Not supported: a request for a token returns 404.
    Off,
    /// Issued and checked, but not required.
    #[default]
    Optional,
    /// Required: requests without a token return 401.
    Required,
}
