//! What operators see: logs, metrics, health.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub mod admin;
pub mod metrics;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends logs to standard error, and panics to the log with their place only: a panic's message
/// may quote what was being worked on.
///
/// # Errors
/// A filter that cannot be read, or logging that was set up already.
pub fn init_logs(
    format: LogFormat,
    filter: &str,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    for directive in filter.split(',') {
        // Taken for the name of a module, a misspelt level would silence everything.
        if !directive.contains('=') && directive.trim().parse::<LevelFilter>().is_err() {
            let known = "error, warn, info, debug, trace and off are";
            return Err(format!("{directive:?} is not a level: {known}").into());
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
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place = place.unwrap_or_default(), "panic");
    }));
    Ok(())
}

/// What has to come up before this process is ready. Clones share the list.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeSet<&'static str>>>);

/// Holds readiness back until it is dropped.
#[derive(Debug)]
pub struct Latch {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Not ready until the latch is dropped; `name` tells people what is awaited.
    pub fn latch(&self, name: &'static str) -> Latch {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name);
        Latch {
            name,
            readiness: self.clone(),
        }
    }

    /// What is still awaited.
    pub fn awaited(&self) -> Vec<&'static str> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .copied()
            .collect()
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.readiness
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(self.name);
    }
}
