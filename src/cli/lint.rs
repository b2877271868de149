//! `dew-provider lint`.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::lint::Report;

const EXAMPLE: &str = "\
Example:
  dew-provider lint manifests/examples/*.yaml
  helm template my-app | dew-provider lint -
Prints FILE:LINE: error|warning: OBJECT, FIELD: REASON. Exit code 1 if there is an error.";

/// Flags of `lint`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLE)]
pub struct LintArgs {
    /// Files with SecretProviderClasses and ServiceAccounts; - is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

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
