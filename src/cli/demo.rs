//! `dew-provider demo`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::sim::demo;

const AFTER_HELP: &str = "\
Example:
  dew-provider demo --keep
With --keep, the emulator and the provider keep running, and the demo prints commands to try, such as
storing a new version.";

/// Flags of `demo`.
#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct DemoArgs {
    /// Keep running at the end and print commands to try
    #[arg(long, env = "DEW_DEMO_KEEP")]
    keep: bool,
    /// Directory for the socket and the volumes; a temporary directory if not set
    #[arg(long, env = "DEW_DEMO_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the demo; with `--keep`, until SIGTERM or SIGINT.
///
/// # Errors
/// If a step does not have the expected result.
pub async fn run(args: DemoArgs) -> Result<()> {
    demo::run(args.keep, args.dir).await
}
