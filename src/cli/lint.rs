//! `dew-provider lint`.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::cloud::Region;
use crate::lint::{PolicyCheck, Report};
use crate::util::output::print;
use crate::util::text::io_reason;

const EXAMPLE: &str = "\
Example:
  dew-provider lint manifests/examples/*.yaml
  helm template my-app | dew-provider lint -
  dew-provider lint --policy policy.yaml --region cn-north-4 my-class.yaml
  kubectl get secretproviderclasses,serviceaccounts,pods -o yaml | dew-provider lint -
Prints FILE:LINE: error|warning: OBJECT, FIELD: REASON. Exit code 1 if there is an error.";

/// Flags of `lint`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLE)]
pub struct LintArgs {
    /// Files with SecretProviderClasses, ServiceAccounts and pods, or directories of them; - is standard input
    #[arg(required_unless_present = "policy", value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// File with the operator's policy: it is checked, and the classes against it. A class without a namespace
    /// counts as one of the namespace default
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,

    /// Region of the provider, for the policy and for classes that set none
    #[arg(long, requires = "policy")]
    pub region: Option<Region>,

    /// Project ID of the provider in that region, for the policy
    #[arg(long, requires = "region", value_name = "ID")]
    pub project_id: Option<String>,

    /// Names of this provider, comma-separated; lint skips the classes of other providers
    #[arg(
        long = "provider-name",
        env = "DEW_PROVIDER_NAME",
        default_value = "cce",
        value_delimiter = ',',
        value_name = "NAME"
    )]
    pub provider_names: Vec<String>,
}

/// Extensions of the files of a directory that are checked.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Most bytes of a file: more than all pods of a large cluster, and less than `/dev/zero`.
const MAX_SIZE: u64 = 256 << 20;

/// Checks the files and prints the findings. The exit code is 1 if there is an error, such as a file that cannot
/// be read.
///
/// # Errors
/// If standard output cannot be written.
pub fn run(args: &LintArgs) -> Result<ExitCode> {
    let mut report = Report::default();
    if let Some(file) = &args.policy {
        let name = file.display().to_string();
        match read(file) {
            Ok(text) => {
                match PolicyCheck::new(&text, args.region.clone(), args.project_id.clone()) {
                    Ok(policy) => report.policy = Some(policy),
                    Err(problems) => report.policy_problems(&name, problems),
                }
            }
            Err(why) => report.unreadable(&name, &why),
        }
    }
    for path in &args.files {
        if path.is_dir() {
            directory(&mut report, path, &args.provider_names);
        } else {
            file(&mut report, path, &args.provider_names);
        }
    }
    report.finish();
    let errors = report.errors();
    let mut text = String::new();
    for finding in &report.findings {
        text.push_str(&format!("{finding}\n"));
    }
    text.push_str(&format!(
        "checked {} SecretProviderClasses and {} ServiceAccounts ({} other objects skipped): {errors} errors, {} warnings\n",
        report.classes,
        report.accounts,
        report.others,
        report.findings.len() - errors
    ));
    print(text.as_bytes())?;
    Ok(if errors == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn file(report: &mut Report, path: &Path, providers: &[String]) {
    let name = path.display().to_string();
    match read(path) {
        Ok(text) => report.file(&name, &text, providers),
        Err(why) => report.unreadable(&name, &why),
    }
}

/// The text of a file, or of standard input if the path is `-`; the error is why it cannot be read.
fn read(path: &Path) -> Result<String, String> {
    let input: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(path).map_err(|error| io_reason(&error))?)
    };
    let mut bytes = Vec::new();
    let read = input.take(MAX_SIZE + 1).read_to_end(&mut bytes);
    read.map_err(|error| io_reason(&error))?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(format!("it is larger than {} MiB", MAX_SIZE >> 20));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())
}

/// Checks the manifests of a directory and of those below it, in the order of their names.
fn directory(report: &mut Report, path: &Path, providers: &[String]) {
    let mut files = Vec::new();
    let mut unread = vec![path.to_owned()];
    while let Some(dir) = unread.pop() {
        let entries =
            match std::fs::read_dir(&dir).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
                Ok(entries) => entries,
                Err(error) => {
                    report.unreadable(&dir.display().to_string(), &io_reason(&error));
                    continue;
                }
            };
        for entry in entries {
            let path = entry.path();
            let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            let extension = path.extension().and_then(|extension| extension.to_str());
            // Links to directories may form circles.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                unread.extend((!is_hidden).then_some(path));
            } else if extension.is_some_and(|e| EXTENSIONS.contains(&e)) && !path.is_dir() {
                files.push(path);
            }
        }
    }
    files.sort();
    if files.is_empty() {
        let why = format!(
            "it has no files with the extension {}",
            EXTENSIONS.join(", ")
        );
        report.unreadable(&path.display().to_string(), &why);
    }
    for path in files {
        // The user named none of them, so a pipe, which may stay silent for ever, or a device is a mistake here.
        if std::fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
            report.unreadable(&path.display().to_string(), "it is not a regular file");
        } else {
            file(report, &path, providers);
        }
    }
}
