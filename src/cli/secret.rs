//! `dew-provider secret`: manages secrets of CSMS from the command line.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::serve::CloudArgs;
use crate::cloud::{
    Caller, Cloud, CloudConfig, Csms, NewSecret, Region, Secret, SecretValue, Turn, VersionMetadata,
};
use crate::telemetry::metrics::CloudMetrics;
use crate::util::clock::{Clock, Jitter};
use crate::util::env::Env;
use crate::util::output::print;
use crate::util::secret_bytes::SecretBytes;
use crate::util::text::escaped;

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

    /// Region of the secrets, such as cn-north-4
    #[arg(long, env = "DEW_REGION", global = true)]
    pub region: Option<Region>,

    /// Project ID; looked up in IAM if not set
    #[arg(long, env = "DEW_PROJECT_ID", value_name = "ID", global = true)]
    pub project_id: Option<String>,

    /// Output format
    #[arg(long, value_enum, default_value_t, global = true)]
    pub format: Format,

    /// How to reach Huawei Cloud
    #[command(flatten)]
    pub cloud: CloudArgs,
}

/// The output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns.
    #[default]
    Table,
    /// JSON as in the API.
    Json,
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
    let env = Env::from_process();
    let (clock, jitter) = (Clock::system(), Jitter::from_system());
    let config = CloudConfig {
        project_setting: "--project-id or DEW_PROJECT_ID",
        ..args.cloud.clone().into()
    };
    let cloud = Cloud::new(config, &env, clock, jitter, CloudMetrics::default())?;
    let region = args
        .region
        .clone()
        .ok_or_else(|| anyhow!("no region: set --region or DEW_REGION, such as cn-north-4"))?;
    let credentials = cloud.own_credentials(&env, None)?;
    let csms = Csms::new(cloud);
    let caller = Caller {
        region,
        project: args.project_id.clone(),
        credentials,
        turn: Turn::default(),
    };
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
    let mut bytes = Zeroizing::new(Vec::new());
    if args.file == Path::new("-") {
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            note(
                "type the value, then Ctrl-D (it is visible as you type; a file or pipe is safer)",
            );
        }
        stdin
            .lock()
            .take(MAX_VALUE)
            .read_to_end(&mut bytes)
            .context("standard input")?;
    } else {
        let shown = args.file.display();
        std::fs::File::open(&args.file)
            .and_then(|file| file.take(MAX_VALUE).read_to_end(&mut bytes))
            .with_context(|| format!("cannot read {shown}"))?;
    }
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

fn date(milliseconds: Option<i64>) -> String {
    milliseconds
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .map(|date| format!("{date:.0}"))
        .unwrap_or_default()
}

fn print_table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<()> {
    let head = head.iter().map(|cell| (*cell).to_owned()).collect();
    // Descriptions may contain what a terminal would act on.
    let rows = rows.map(|row| row.iter().map(|cell| escaped(cell)).collect());
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:width$}   "))
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    Ok(print(text.as_bytes())?)
}

fn print_json(value: &impl Serialize) -> Result<()> {
    let mut text = Zeroizing::new(serde_json::to_vec_pretty(value)?);
    text.push(b'\n');
    Ok(print(&text)?)
}

/// A note for the user, separate from the output.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "dew-provider: {text}");
}
