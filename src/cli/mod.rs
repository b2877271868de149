//! The command line, one file per command.

use clap::builder::Resettable;
use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};

pub mod connection;
#[cfg(feature = "sim")]
pub mod demo;
mod duration;
#[cfg(feature = "sim")]
pub mod emulate;
pub mod file;
mod input;
pub mod kms;
pub mod lint;
pub mod output;
pub mod secret;
pub mod serve;

#[cfg(feature = "sim")]
const EXAMPLES: &str = "\
Examples:
  dew-provider demo                        show a mount, a new version and an outage, without a cluster
  dew-provider lint my-class.yaml          check manifests before applying them
  dew-provider help serve                  show all flags of the provider";

#[cfg(not(feature = "sim"))]
const EXAMPLES: &str = "\
Examples:
  dew-provider lint my-class.yaml          check manifests before applying them
  dew-provider help serve                  show all flags of the provider";

/// A Secrets Store CSI provider for Huawei Cloud CSMS.
#[derive(Parser)]
#[command(name = "dew-provider", version, about, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Parses the command line of this process; prints help or an error and exits if that is all there is to do.
pub fn parse() -> Cli {
    let matches = without_empty_variables(Cli::command()).get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// An empty environment variable counts as unset, so that a manifest may set one to nothing.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |arg: &Arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        value.is_some_and(|value| value.is_empty())
    };
    command
        .mut_args(|arg| {
            if is_empty(&arg) {
                arg.env(Resettable::Reset)
            } else {
                arg
            }
        })
        .mut_subcommands(without_empty_variables)
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Serve the Secrets Store CSI Driver on this node
    Serve(Box<serve::ServeArgs>),
    /// Show a mount, a new version and an outage, without a cluster
    #[cfg(feature = "sim")]
    Demo(demo::DemoArgs),
    /// Serve an emulated Huawei Cloud that verifies every signature
    #[cfg(feature = "sim")]
    Emulate(Box<emulate::EmulateArgs>),
    /// Check SecretProviderClasses and ServiceAccounts in files
    Lint(lint::LintArgs),
    /// Create keys in KMS, and encrypt and decrypt small data with them
    Kms(Box<kms::KmsArgs>),
    /// Encrypt, decrypt and inspect files of any size with keys of KMS
    File(Box<file::FileArgs>),
    /// Create, read and list secrets in CSMS
    Secret(Box<secret::SecretArgs>),
}
