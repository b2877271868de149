//! Logging.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Human-readable.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Logs to standard error. Panics are logged with their location only, because a panic message may quote
/// a secret.
///
/// # Errors
/// If `filter` is invalid, or logging is already initialized.
pub fn init_logs(
    format: LogFormat,
    filter: &str,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    for directive in filter.split(',') {
        // A misspelled level would be taken for the name of a module and silence everything.
        if !directive.contains('=') && directive.trim().parse::<LevelFilter>().is_err() {
            let levels = "error, warn, info, debug, trace or off";
            return Err(format!("unknown level {directive:?}: use {levels}").into());
        }
    }
    let filter: Targets = filter.parse()?;
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => {
            let layer = tracing_subscriber::fmt::layer()
                .with_target(false)
                .with_ansi(std::io::stderr().is_terminal())
                .with_writer(std::io::stderr);
            registry.with(layer).try_init()?;
        }
        LogFormat::Json => {
            let layer = tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_writer(std::io::stderr);
            registry.with(layer).try_init()?;
        }
    }
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        tracing::error!(location = location.unwrap_or_default(), "panic");
    }));
    Ok(())
}
