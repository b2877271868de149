//! `dew-provider kms`: keys, and small data encrypted with them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};
use data_encoding::BASE64;
use serde_json::json;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::connection::ConnectionArgs;
use super::input::read;
use super::output::{Format, date, print_json, print_table};
use crate::cloud::{Caller, EncryptionAlgorithm, KeyInfo, Kms, MAX_DATA, NewKey};
use crate::util::output::print;
use crate::util::secret_bytes::SecretBytes;

/// Limit of one command, retries included.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(45);

/// Bytes that are read of a cipher text: more than KMS makes of the longest text, with line breaks.
const MAX_CIPHER: u64 = 16 * 1024;

/// How text that is not one line of UTF-8 is written, so that `decrypt` restores it: a data URL (RFC 2397).
const DATA_URL: &str = "data:;base64,";

const EXAMPLE: &str = "\
Examples (keys from HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK, ~/.huaweicloud/credentials, or the
ECS node's agency):
  dew-provider kms key create app --region cn-north-4
  dew-provider kms encrypt --key-id 0d0466b0-… --region cn-north-4 < tls.key > tls.key.kms
  dew-provider kms decrypt --key-id 0d0466b0-… --region cn-north-4 < tls.key.kms > tls.key";

/// Flags of `kms`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLE)]
pub struct KmsArgs {
    /// The action.
    #[command(subcommand)]
    pub action: KmsAction,

    /// How to reach Huawei Cloud, and as whom
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// The actions.
#[derive(Clone, Debug, Subcommand)]
pub enum KmsAction {
    /// Encrypt up to 4 KB with a key; prints the cipher text in Base64
    Encrypt {
        /// ID of the key
        #[arg(long, env = "DEW_KMS_KEY_ID", value_name = "ID")]
        key_id: String,
        /// What to encrypt, and how
        #[command(flatten)]
        data: DataArgs,
    },
    /// Decrypt a cipher text of `encrypt`, of the console or of Huawei's SDKs
    Decrypt {
        /// ID of the key; the text is printed only if this key encrypted it
        #[arg(long, env = "DEW_KMS_KEY_ID", value_name = "ID")]
        key_id: Option<String>,
        /// What to decrypt, and how
        #[command(flatten)]
        data: DataArgs,
    },
    /// Create, list and show keys
    Key {
        /// The action.
        #[command(subcommand)]
        action: KeyAction,

        /// Output format
        #[arg(long, value_enum, default_value_t, global = true)]
        format: Format,
    },
}

/// Flags of `kms encrypt` and `kms decrypt`.
#[derive(Args, Clone, Debug)]
pub struct DataArgs {
    /// File with the input; - is standard input
    #[arg(long, default_value = "-", value_name = "FILE")]
    pub file: PathBuf,

    /// Additional authenticated data, 1 to 128 characters: decrypting takes the same
    #[arg(long, value_name = "TEXT")]
    pub aad: Option<String>,

    /// How the data are written as the text that KMS encrypts
    #[arg(long, value_enum, default_value_t)]
    pub encoding: DataEncoding,

    /// Algorithm: RSAES_OAEP_SHA_256 for an RSA key
    #[arg(long, default_value_t, value_name = "NAME")]
    pub algorithm: EncryptionAlgorithm,
}

/// How data are written as the text that KMS encrypts. KMS takes one line of text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DataEncoding {
    /// One line of text as it is, everything else as a data URL; decrypt restores both
    #[default]
    Auto,
    /// As it is
    Text,
    /// Base64, as the console and `encoding: base64` of a class expect it
    Base64,
}

/// The actions on keys.
#[derive(Clone, Debug, Subcommand)]
pub enum KeyAction {
    /// Create a key
    Create {
        /// Display name: 1 to 255 letters, digits, :, /, _ or -
        alias: String,
        /// Kind: AES_256, RSA_2048, RSA_3072, RSA_4096, EC_P256, EC_P384, or another that the region offers
        #[arg(long, default_value = "AES_256", value_name = "KIND")]
        spec: String,
        /// ENCRYPT_DECRYPT or SIGN_VERIFY; what is usual for the kind if not set
        #[arg(long, value_name = "USAGE")]
        usage: Option<String>,
        /// Description
        #[arg(long)]
        description: Option<String>,
    },
    /// List the keys of the project
    List,
    /// Show a key
    Show {
        /// ID of the key
        key_id: String,
    },
}

/// Runs one command.
///
/// # Errors
/// If KMS rejects the request, or the input cannot be read or is too long.
pub async fn run(args: KmsArgs) -> Result<()> {
    match args.action {
        KmsAction::Encrypt { key_id, data } => {
            let text = input(&data)?;
            let (cloud, caller) = args.connection.connect()?;
            let deadline = Instant::now() + COMMAND_TIMEOUT;
            let (algorithm, aad) = (data.algorithm, data.aad.as_deref());
            let cipher = Kms::new(cloud)
                .encrypt_data_with(&caller, &key_id, algorithm, &text, aad, deadline)
                .await?;
            Ok(print(format!("{cipher}\n").as_bytes())?)
        }
        KmsAction::Decrypt { key_id, data } => {
            let cipher = read(&data.file, MAX_CIPHER)?;
            let cipher: String = String::from_utf8_lossy(&cipher)
                .split_whitespace()
                .collect();
            let (cloud, caller) = args.connection.connect()?;
            let deadline = Instant::now() + COMMAND_TIMEOUT;
            let (algorithm, aad) = (data.algorithm, data.aad.as_deref());
            let key_id = key_id.as_deref();
            let text = Kms::new(cloud)
                .decrypt_data_with(&caller, key_id, algorithm, &cipher, aad, deadline)
                .await?;
            Ok(print(&decoded(&text, data.encoding)?)?)
        }
        KmsAction::Key { action, format } => {
            let (cloud, caller) = args.connection.connect()?;
            run_key(&Kms::new(cloud), &caller, action, format).await
        }
    }
}

async fn run_key(kms: &Kms, caller: &Caller, action: KeyAction, format: Format) -> Result<()> {
    let deadline = Instant::now() + COMMAND_TIMEOUT;
    match action {
        KeyAction::Create {
            alias,
            spec,
            usage,
            description,
        } => {
            let new = NewKey {
                alias,
                spec: Some(spec),
                usage,
                description,
            };
            let key_id = kms.create_key(caller, &new, deadline).await?;
            match format {
                Format::Table => Ok(print(format!("{key_id}\n").as_bytes())?),
                Format::Json => print_json(&json!({ "key_id": key_id })),
            }
        }
        KeyAction::List => show(format, &kms.list_keys(caller, deadline).await?),
        KeyAction::Show { key_id } => {
            let key = kms.describe_key(caller, &key_id, deadline).await?;
            match format {
                Format::Table => show(format, &[key]),
                Format::Json => print_json(&key),
            }
        }
    }
}

fn show(format: Format, keys: &[KeyInfo]) -> Result<()> {
    match format {
        Format::Json => print_json(&keys),
        Format::Table => print_table(
            &["KEY ID", "ALIAS", "STATE", "KIND", "USAGE", "CREATED"],
            keys.iter().map(|key| {
                vec![
                    key.key_id.clone(),
                    key.key_alias.clone(),
                    key.state().to_string(),
                    key.key_spec.clone(),
                    key.key_usage.clone(),
                    date(key.creation_date.parse().ok()),
                ]
            }),
        ),
    }
}

/// Reads what is to be encrypted, as the text that KMS takes.
fn input(args: &DataArgs) -> Result<SecretBytes> {
    // One byte more than ever fits.
    let bytes = read(&args.file, MAX_DATA as u64 + 1)?;
    if bytes.is_empty() {
        bail!("there is nothing to encrypt: the input is empty");
    }
    let is_line = is_line(&bytes) && !bytes.starts_with(DATA_URL.as_bytes());
    let (prefix, is_text) = match args.encoding {
        DataEncoding::Auto => (DATA_URL, is_line),
        DataEncoding::Text if std::str::from_utf8(&bytes).is_err() => {
            bail!("the input is not UTF-8 text: use --encoding base64, or leave out --encoding");
        }
        DataEncoding::Text => ("", true),
        DataEncoding::Base64 => ("", false),
    };
    let mut text = Zeroizing::new(String::with_capacity(2 * MAX_DATA));
    if is_text {
        text.push_str(std::str::from_utf8(&bytes)?);
    } else {
        text.push_str(prefix);
        BASE64.encode_append(&bytes, &mut text);
    }
    if text.len() <= MAX_DATA {
        return Ok(SecretBytes::from(std::mem::take(&mut *text)));
    }
    let most = (MAX_DATA - prefix.len()) / 4 * 3;
    let shorter = if is_text || bytes.len() > MAX_DATA {
        String::new()
    } else {
        format!(", and {most} bytes of what is not one line of text")
    };
    bail!(
        "the input is longer than KMS encrypts directly: it takes 4 KB ({MAX_DATA} bytes){shorter}; \
         for more, use dew-provider file encrypt"
    )
}

/// Whether KMS takes the bytes as they are: UTF-8 without line breaks and other control characters.
fn is_line(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| {
        // A dot of a pattern matches none of the separators either.
        let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        !text.contains(breaks)
    })
}

/// The data that a decrypted text stands for.
fn decoded(text: &SecretBytes, encoding: DataEncoding) -> Result<Zeroizing<Vec<u8>>> {
    let bytes = text.expose();
    let base64 = match encoding {
        DataEncoding::Text => None,
        DataEncoding::Auto => bytes.strip_prefix(DATA_URL.as_bytes()),
        DataEncoding::Base64 => Some(bytes),
    };
    let decoded = match base64 {
        None => Ok(bytes.to_vec()),
        Some(base64) => BASE64.decode(base64),
    };
    // The decoder's own error quotes a character of the text.
    let decoded = decoded.map_err(|_| {
        anyhow!("the decrypted text is not Base64: use --encoding text to print it as it is")
    });
    decoded.map(Zeroizing::new)
}
