//! `dew-provider file`: encrypts and decrypts files of any size.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};
use data_encoding::HEXLOWER;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ring::rand::SystemRandom;
use serde::Serialize;

use super::serve::CloudArgs;
use crate::cloud::{Cloud, CloudConfig, Kms, Region};
use crate::envelope::{
    DEFAULT_FRAME, Destination, EncryptionContext, Header, KeyProvider, KmsKey, KmsKeys,
    MessageError, NewMessage, OpenMessage, encrypt, inspect_frames,
};
use crate::telemetry::metrics::CloudMetrics;
use crate::util::clock::{Clock, Jitter};
use crate::util::env::Env;
use crate::util::output::{OutputError, print};
use crate::util::text::escaped;

const EXAMPLE: &str = "\
Examples (keys from HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK, ~/.huaweicloud/credentials, or the
ECS node's agency):
  dew-provider file encrypt backup.tar backup.tar.enc --key cn-north-4/KEY-ID --key cn-east-3/KEY-ID
  dew-provider file decrypt backup.tar.enc backup.tar --key cn-north-4/KEY-ID
  dew-provider file inspect backup.tar.enc --output json";

/// Flags of `file`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLE)]
pub struct FileArgs {
    /// The action.
    #[command(subcommand)]
    pub action: FileAction,
}

/// The actions.
#[derive(Clone, Debug, Subcommand)]
pub enum FileAction {
    /// Encrypt a file, or each file of a folder
    Encrypt {
        /// The files and keys
        #[command(flatten)]
        files: Box<CryptArgs>,
        /// How many keys must be reachable; all if not set
        #[arg(long, value_name = "N")]
        regions_needed: Option<usize>,
    },
    /// Decrypt a file, or each file of a folder
    Decrypt {
        /// The files and keys
        #[command(flatten)]
        files: Box<CryptArgs>,
        /// Decrypt only these bytes of the text, the last one not included; 100.. is all from byte 100
        #[arg(long, value_parser = range, value_name = "START..END", conflicts_with = "recursive")]
        range: Option<Range<u64>>,
    },
    /// Show what an encrypted file says about itself; makes no call, and checks no key
    Inspect {
        /// The encrypted file; - is standard input
        file: PathBuf,
        /// Output format
        #[arg(long, value_enum, default_value_t)]
        output: InspectOutput,
    },
}

/// The files and keys of `encrypt` and `decrypt`.
#[derive(Args, Clone, Debug)]
pub struct CryptArgs {
    /// File to read; - is standard input
    #[arg(value_name = "IN")]
    pub input: PathBuf,

    /// File to write, replaced if it exists; - is standard output
    #[arg(value_name = "OUT")]
    pub output: PathBuf,

    /// KMS key, as REGION/KEY-ID or REGION/PROJECT-ID/KEY-ID; repeat it for keys of several regions
    #[arg(long = "key", required = true, value_name = "REGION/KEY-ID")]
    pub keys: Vec<KmsKey>,

    /// Pair of the encryption context: authenticated, not encrypted. Decryption requires it to be in the message
    #[arg(long, value_parser = pair, value_name = "KEY=VALUE")]
    pub context: Vec<(String, String)>,

    /// IN and OUT are folders: every file of IN goes to the same place in OUT
    #[arg(long)]
    pub recursive: bool,

    /// Region of this machine, whose keys are asked first
    #[arg(long, env = "DEW_REGION")]
    pub region: Option<Region>,

    /// How to reach Huawei Cloud
    #[command(flatten)]
    pub cloud: CloudArgs,
}

/// The output format of `inspect`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum InspectOutput {
    /// Lines.
    #[default]
    Text,
    /// JSON.
    Json,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = pair.ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let bounds = || {
        let (start, end) = text.split_once("..")?;
        let start = if start.is_empty() {
            0
        } else {
            start.parse().ok()?
        };
        let end = if end.is_empty() {
            u64::MAX
        } else {
            end.parse().ok()?
        };
        (start <= end).then_some(start..end)
    };
    bounds().ok_or_else(|| "expected START..END, such as 0..1024 or 100..".to_owned())
}

/// Runs one command.
///
/// # Errors
/// If a file cannot be read, written or authenticated, or KMS rejects a request.
pub async fn run(args: FileArgs) -> Result<()> {
    match args.action {
        FileAction::Inspect { file, output } => inspect(&file, output),
        FileAction::Encrypt {
            files,
            regions_needed,
        } => {
            let context = EncryptionContext::new(files.context.clone())?;
            let keys = keys(&files, regions_needed)?;
            for (input, output) in pairs(&files)? {
                encrypt_file(&keys, &context, &input, &output)
                    .await
                    .with_context(|| shown(&input))?;
            }
            Ok(())
        }
        FileAction::Decrypt { files, range } => {
            let context = EncryptionContext::new(files.context.clone())?;
            let keys = keys(&files, None)?;
            for (input, output) in pairs(&files)? {
                decrypt_file(&keys, &context, range.clone(), &input, &output)
                    .await
                    .with_context(|| shown(&input))?;
            }
            Ok(())
        }
    }
}

fn keys(args: &CryptArgs, needed: Option<usize>) -> Result<KmsKeys> {
    let env = Env::from_process();
    let config = CloudConfig {
        project_setting: "--key REGION/PROJECT-ID/KEY-ID",
        ..args.cloud.clone().into()
    };
    let (clock, jitter) = (Clock::system(), Jitter::from_system());
    let cloud = Cloud::new(config, &env, clock, jitter, CloudMetrics::default())?;
    let credentials = cloud.own_credentials(&env, None)?;
    let keys = args.keys.clone();
    let keys = KmsKeys::new(
        Kms::new(cloud),
        credentials,
        keys,
        needed,
        args.region.as_ref(),
    );
    keys.map_err(|error| anyhow!("--key, --regions-needed: {error}"))
}

async fn encrypt_file(
    keys: &KmsKeys,
    context: &EncryptionContext,
    input: &Path,
    output: &Path,
) -> Result<()> {
    // Before any call.
    let input = Input::open(input)?;
    let mut output = Output::create(output)?;
    let made = keys.make(context).await.map_err(|error| anyhow!(error))?;
    for failure in &made.left_out {
        note(&format!(
            "this key cannot decrypt the file, because it was left out: {}: {}",
            failure.key, failure.error
        ));
    }
    let message = NewMessage {
        context: context.clone(),
        data_key: made.data_key,
        keys: made.wrapped,
        frame_length: DEFAULT_FRAME,
    };
    blocking(move || {
        let progress = input.progress();
        let mut reader = progress.wrap_read(input.file);
        let written = encrypt(message, &SystemRandom::new(), &mut reader, output.file());
        progress.finish_and_clear();
        output.finish(written.map(|_| ()))
    })
    .await
}

async fn decrypt_file(
    keys: &KmsKeys,
    context: &EncryptionContext,
    range: Option<Range<u64>>,
    input: &Path,
    output: &Path,
) -> Result<()> {
    let mut input = Input::open(input)?;
    let mut output = Output::create(output)?;
    let header = Header::read(&mut input.file)?;
    header.context.require(context)?;
    let data_key = keys.unwrap(&header.keys, &header.context).await;
    let data_key = data_key.map_err(|error| anyhow!(error))?;
    if output.is_stream() {
        note(
            "the output is not an ordinary file, so text is written before the end of the message is \
             authenticated: discard it if this command fails",
        );
    }
    blocking(move || {
        let message = OpenMessage::unlock(header, &data_key)?;
        let progress = input.progress();
        let decrypted = match range {
            Some(range) => {
                if input.file.stream_position().is_err() {
                    bail!("--range needs a file that can be read at any place, not a pipe");
                }
                message.decrypt_range(&mut input.file, range, output.file())
            }
            None => message.decrypt(&mut progress.wrap_read(input.file), output.file()),
        };
        progress.finish_and_clear();
        output.finish(decrypted.map(|_| ()))
    })
    .await
}

/// Runs what reads and writes files on a thread that may block.
async fn blocking(work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    tokio::task::spawn_blocking(work).await?
}

/// What is read.
struct Input {
    file: File,
    length: Option<u64>,
}

impl Input {
    fn open(path: &Path) -> Result<Self> {
        let file = if path == Path::new("-") {
            File::from(io::stdin().as_fd().try_clone_to_owned()?)
        } else {
            File::open(path).context("cannot open")?
        };
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            bail!("is a folder: use --recursive");
        }
        let length = metadata.is_file().then_some(metadata.len());
        Ok(Self { file, length })
    }

    /// A bar on standard error, if that is a terminal.
    fn progress(&self) -> ProgressBar {
        let target = ProgressDrawTarget::stderr();
        let bar = ProgressBar::with_draw_target(self.length, target);
        let template = match self.length {
            Some(_) => "{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
            None => "{spinner} {bytes}, {bytes_per_sec}",
        };
        match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }
}

/// What is written.
enum Output {
    /// A file that takes its place at the end.
    Replaced(Destination),
    /// Standard output, a device or a pipe.
    Stream(File),
}

impl Output {
    fn create(path: &Path) -> Result<Self> {
        let named = || format!("cannot write {}", path.display());
        if path == Path::new("-") {
            let stdout = io::stdout().as_fd().try_clone_to_owned()?;
            return Ok(Self::Stream(File::from(stdout)));
        }
        if path.is_dir() {
            bail!("{}: is a folder", path.display());
        }
        if Destination::is_replaceable(path) {
            return Ok(Self::Replaced(
                Destination::create(path).with_context(named)?,
            ));
        }
        let device = File::options().write(true).open(path).with_context(named)?;
        Ok(Self::Stream(device))
    }

    fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }

    fn file(&mut self) -> &mut File {
        match self {
            Self::Replaced(destination) => destination.file(),
            Self::Stream(file) => file,
        }
    }

    /// Puts a complete file into its place.
    fn finish(self, written: Result<(), MessageError>) -> Result<()> {
        match (self, written) {
            (Self::Replaced(destination), Ok(())) => destination.commit().context("cannot write"),
            (Self::Stream(_), Ok(())) => Ok(()),
            (Self::Stream(_), Err(MessageError::Write(error)))
                if error.kind() == ErrorKind::BrokenPipe =>
            {
                Err(OutputError::Closed.into())
            }
            (_, Err(error)) => Err(error.into()),
        }
    }
}

/// The files to read, each with the one to write.
fn pairs(args: &CryptArgs) -> Result<Vec<(PathBuf, PathBuf)>> {
    if !args.recursive {
        return Ok(vec![(args.input.clone(), args.output.clone())]);
    }
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        let folder = args.input.join(&below);
        let named = || format!("cannot read the folder {}", folder.display());
        for entry in fs::read_dir(&folder).with_context(named)? {
            let entry = entry.with_context(named)?;
            let path = below.join(entry.file_name());
            let kind = entry.file_type().with_context(named)?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                files.push(path);
            } else {
                note(&format!(
                    "skipped, because it is no file: {}",
                    entry.path().display()
                ));
            }
        }
    }
    files.sort();
    let pairs = files.into_iter().map(|path| {
        let output = args.output.join(&path);
        if let Some(folder) = output.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        Ok((args.input.join(path), output))
    });
    pairs.collect()
}

/// What a message says about itself.
#[derive(Serialize)]
struct Inspected {
    format: &'static str,
    suite: &'static str,
    message_id: String,
    context: BTreeMap<String, String>,
    keys: Vec<InspectedKey>,
    header_length: usize,
    frame_length: u32,
    frames: u32,
    text_length: u64,
    /// Nothing is, without the data key.
    authenticated: bool,
}

#[derive(Serialize)]
struct InspectedKey {
    provider: String,
    info: String,
    wrapped_length: usize,
}

fn inspect(path: &Path, output: InspectOutput) -> Result<()> {
    let seen = inspected(path).with_context(|| shown(path))?;
    let mut text = Vec::new();
    if output == InspectOutput::Json {
        text = serde_json::to_vec_pretty(&seen)?;
        text.push(b'\n');
        return Ok(print(&text)?);
    }
    writeln!(text, "format:   {}, suite {}", seen.format, seen.suite)?;
    writeln!(text, "message:  {}", seen.message_id)?;
    for (key, value) in &seen.context {
        writeln!(text, "context:  {} = {}", escaped(key), escaped(value))?;
    }
    for key in &seen.keys {
        let (provider, info) = (escaped(&key.provider), escaped(&key.info));
        writeln!(text, "key:      {provider} {info}")?;
    }
    let (frames, length, each) = (seen.frames, seen.text_length, seen.frame_length);
    writeln!(text, "frames:   {frames} of up to {each} bytes")?;
    writeln!(text, "text:     {length} bytes")?;
    writeln!(
        text,
        "Nothing of this is authenticated: that takes the data key."
    )?;
    Ok(print(&text)?)
}

fn inspected(path: &Path) -> Result<Inspected> {
    let mut input = Input::open(path)?;
    let is_file = input.length.is_some();
    let header = Header::read(&mut input.file)?;
    let frames = inspect_frames(&mut input.file, header.frame_length, |file, length| {
        if is_file {
            let offset = i64::try_from(length).map_err(io::Error::other)?;
            return file.seek(SeekFrom::Current(offset)).map(|_| ());
        }
        let skipped = io::copy(&mut file.take(length), &mut io::sink())?;
        if skipped < length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    })?;
    let keys = header.keys.iter().map(|key| InspectedKey {
        provider: key.provider.clone(),
        info: match std::str::from_utf8(&key.info) {
            Ok(text) => text.to_owned(),
            Err(_) => HEXLOWER.encode(&key.info),
        },
        wrapped_length: key.ciphertext.len(),
    });
    let context = header.context.iter();
    Ok(Inspected {
        format: "AWS Encryption SDK message format 2",
        suite: "0x0478",
        message_id: HEXLOWER.encode(&header.message_id),
        context: context
            .map(|(key, value)| (key.into(), value.into()))
            .collect(),
        keys: keys.collect(),
        header_length: header.length(),
        frame_length: header.frame_length,
        frames: frames.frames,
        text_length: frames.text_length,
        authenticated: false,
    })
}

fn shown(path: &Path) -> String {
    match path.to_str() {
        Some("-") => "standard input".to_owned(),
        _ => path.display().to_string(),
    }
}

/// A note for the user, separate from the output.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "dew-provider: {}", escaped(text));
}
