//! `dew-provider lint`.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::cloud::Region;
use crate::lint::{PolicyCheck, Report};

const EXAMPLE: &str = "\
Example:
  dew-provider lint manifests/examples/*.yaml
  helm template my-app | dew-provider lint -
  dew-provider lint --policy policy.yaml --region cn-north-4 my-class.yaml
Prints FILE:LINE: error|warning: OBJECT, FIELD: REASON. Exit code 1 if there is an error.";

/// Flags of `lint`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLE)]
pub struct LintArgs {
    /// Files with SecretProviderClasses and ServiceAccounts; - is standard input
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

/// Checks the files and prints the findings. The exit code is 1 if there is an error.
///
/// # Errors
/// If a file cannot be read.
pub fn run(args: &LintArgs) -> Result<ExitCode> {
    let mut report = Report::default();
    if let Some(file) = &args.policy {
        let name = file.display().to_string();
        let text =
            std::fs::read_to_string(file).with_context(|| format!("{name} cannot be read"))?;
        match PolicyCheck::new(&text, args.region.clone(), args.project_id.clone()) {
            Ok(policy) => report.policy = Some(policy),
            Err(problems) => report.policy_problems(&name, problems),
        }
    }
    for file in &args.files {
        let name = file.display().to_string();
        let text = if name == "-" {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("standard input")?;
            text
        } else {
            std::fs::read_to_string(file).with_context(|| format!("{name} cannot be read"))?
        };
        report.file(&name, &text, &args.provider_names);
    }
    report.finish();
    let mut out = std::io::stdout().lock();
    for finding in &report.findings {
        writeln!(out, "{finding}")?;
    }
    let errors = report.errors();
    writeln!(
        out,
        "checked {} SecretProviderClasses and {} ServiceAccounts ({} other objects skipped): {errors} errors, {} warnings",
        report.classes,
        report.accounts,
        report.others,
        report.findings.len() - errors
    )?;
    Ok(if errors == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
