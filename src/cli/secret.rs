//! `dew-provider secret`: manages secrets of CSMS from the command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::connection::ConnectionArgs;
use super::input::read;
use super::output::{Format, date, note, print_json, print_table};
use crate::cloud::{Csms, NewSecret, Secret, SecretValue, VersionMetadata};
use crate::util::output::print;
use crate::util::secret_bytes::SecretBytes;

/// Limit of one command, retries included.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(45);
/// Maximum bytes to read of a value. CSMS accepts 32 KiB.
const MAX_VALUE: u64 = 1024 * 1024;

const EXAMPLE: &str = "\
Examples (keys from HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK, ~/.huaweicloud/credentials, or the
ECS node's agency):
  printf '{\"user\":\"app\",\"password\":\"s3cret\"}' | dew-provider secret create db --region cn-north-4
  dew-provider secret put db --file new.json --region cn-north-4
  dew-provider secret versions db --region cn-north-4 --format json";

/// Flags of `secret`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLE)]
pub struct SecretArgs {
    /// The action.
    #[command(subcommand)]
    pub action: Action,

    /// Output format
    #[arg(long, value_enum, default_value_t, global = true)]
    pub format: Format,

    /// How to reach Huawei Cloud, and as whom
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// The source of a value; never an argument, which other users of the machine can see.
#[derive(Args, Clone, Debug)]
pub struct ValueArgs {
    /// File with the value, byte for byte; - is standard input
    #[arg(long, default_value = "-", value_name = "FILE")]
    pub file: PathBuf,

    /// Store as binary; required if the value is not UTF-8 text
    #[arg(long)]
    pub binary: bool,
}

/// The actions.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Create a secret; the value becomes v1
    Create {
        /// Name: 1 to 64 letters, digits, ., _ or -
        name: String,
        /// The value
        #[command(flatten)]
        value: ValueArgs,
        /// Description
        #[arg(long)]
        description: Option<String>,
        /// KMS key that encrypts the secret; CSMS's default key if not set
        #[arg(long, value_name = "UUID")]
        kms_key_id: Option<String>,
    },
    /// Add a version to a secret
    Put {
        /// Name of the secret
        name: String,
        /// The value
        #[command(flatten)]
        value: ValueArgs,
        /// Stages to attach to the new version, instead of SYSCURRENT
        #[arg(long = "stage", value_name = "STAGE")]
        stages: Vec<String>,
    },
    /// Print the value of a version, byte for byte
    Get {
        /// Name of the secret
        name: String,
        /// latest, or a version such as v1
        #[arg(
            long = "version",
            default_value = "latest",
            value_name = "VERSION",
            conflicts_with = "stage"
        )]
        version: String,
        /// Print the version that holds this stage
        #[arg(long)]
        stage: Option<String>,
    },
    /// List the secrets
    List,
    /// List the versions of a secret
    Versions {
        /// Name of the secret
        name: String,
    },
}

/// Runs one command.
///
/// # Errors
/// If CSMS rejects the request, or the value cannot be read.
pub async fn run(args: SecretArgs) -> Result<()> {
    let (cloud, caller) = args.connection.connect()?;
    let csms = Csms::new(cloud);
    let deadline = Instant::now() + COMMAND_TIMEOUT;
    let format = args.format;
    match args.action {
        Action::Create {
            name,
            value,
            description,
            kms_key_id,
        } => {
            let value = read_value(&value)?;
            let new = NewSecret {
                name,
                kms_key_id,
                description,
                value,
            };
            let made = csms.create_secret(&caller, new, deadline).await?;
            show_secrets(format, &[made])
        }
        Action::Put {
            name,
            value,
            stages,
        } => {
            let value = read_value(&value)?;
            let made = csms
                .create_secret_version(&caller, &name, value, &stages, deadline)
                .await?;
            show_versions(format, &[made])
        }
        Action::Get {
            name,
            version,
            stage,
        } => {
            let version = match stage {
                Some(stage) => {
                    csms.show_secret_stage(&caller, &name, &stage, deadline)
                        .await?
                        .version_id
                }
                None => version,
            };
            let found = csms
                .show_secret_version(&caller, &name, &version, deadline)
                .await?;
            match format {
                Format::Table => Ok(print(found.value.bytes().expose())?),
                Format::Json => print_json(&VersionOutput::of(&found.metadata, &found.value)),
            }
        }
        Action::List => show_secrets(format, &csms.list_secrets(&caller, deadline).await?),
        Action::Versions { name } => show_versions(
            format,
            &csms.list_secret_versions(&caller, &name, deadline).await?,
        ),
    }
}

/// A version with its value, as JSON.
#[derive(Serialize)]
struct VersionOutput<'a> {
    version_metadata: &'a VersionMetadata,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_string: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_binary: Option<Zeroizing<String>>,
}

impl<'a> VersionOutput<'a> {
    fn of(version_metadata: &'a VersionMetadata, value: &'a SecretValue) -> Self {
        let (secret_string, secret_binary) = match value {
            SecretValue::Text(text) => (text.expose_str(), None),
            SecretValue::Binary(bytes) => (
                None,
                Some(Zeroizing::new(data_encoding::BASE64.encode(bytes.expose()))),
            ),
        };
        Self {
            version_metadata,
            secret_string,
            secret_binary,
        }
    }
}

fn read_value(args: &ValueArgs) -> Result<SecretValue> {
    let mut bytes = read(&args.file, MAX_VALUE)?;
    if bytes.is_empty() {
        bail!("the value is empty: CSMS accepts 1 to 32768 bytes");
    }
    if args.binary {
        return Ok(SecretValue::Binary(SecretBytes::new(std::mem::take(
            &mut *bytes,
        ))));
    }
    if std::str::from_utf8(&bytes).is_err() {
        bail!("the value is not UTF-8 text: use --binary to store it byte for byte");
    }
    if bytes.ends_with(b"\n") {
        note(
            "the value ends with a newline, which is stored with it (echo adds one, printf does not)",
        );
    }
    Ok(SecretValue::Text(SecretBytes::new(std::mem::take(
        &mut *bytes,
    ))))
}

fn show_secrets(format: Format, secrets: &[Secret]) -> Result<()> {
    match format {
        Format::Json => print_json(&secrets),
        Format::Table => print_table(
            &["NAME", "STATE", "TYPE", "CREATED", "DESCRIPTION"],
            secrets.iter().map(|s| {
                vec![
                    s.name.clone(),
                    s.state.clone(),
                    s.secret_type.clone().unwrap_or_default(),
                    date(s.create_time),
                    s.description.clone().unwrap_or_default(),
                ]
            }),
        ),
    }
}

fn show_versions(format: Format, versions: &[VersionMetadata]) -> Result<()> {
    match format {
        Format::Json => print_json(&versions),
        Format::Table => print_table(
            &["VERSION", "STAGES", "CREATED"],
            versions
                .iter()
                .map(|v| vec![v.id.clone(), v.stages.join(","), date(Some(v.create_time))]),
        ),
    }
}
