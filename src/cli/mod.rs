//! The command line.

use clap::{Parser, Subcommand};

pub mod demo;
pub mod emulate;
pub mod lint;
pub mod secret;
pub mod serve;

const EXAMPLE: &str = "\
Examples:
  dew-provider demo                        see a mount, a new version and an outage, without a cluster
  dew-provider lint my-class.yaml          check manifests before they are applied
  dew-provider help serve                  all flags of the provider";

/// A Secrets Store CSI provider for Huawei Cloud CSMS.
#[derive(Parser)]
#[command(name = "dew-provider", version, about, max_term_width = 100, after_help = EXAMPLE)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Serve the Secrets Store CSI Driver on this node
    Serve(Box<serve::ServeArgs>),
    /// See a mount, a new version and a failing cloud, without a cluster
    Demo(demo::DemoArgs),
    /// Serve an emulated Huawei Cloud that checks every signature
    Emulate(Box<emulate::EmulateArgs>),
    /// Check SecretProviderClasses and ServiceAccounts in files
    Lint(lint::LintArgs),
    /// Create, read and list secrets in CSMS
    Secret(Box<secret::SecretArgs>),
}
