//! Logging.

use std::io::{self, IsTerminal, Write};

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
    let filter: Targets = filter.parse().map_err(
        |_| "use a level such as info, also per module, such as info,dew_provider::cloud=debug",
    )?;
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => {
            let layer = tracing_subscriber::fmt::layer()
                .with_target(false)
                .with_ansi(io::stderr().is_terminal())
                .with_writer(move || BoundedLines {
                    to: io::stderr(),
                    format,
                });
            registry.with(layer).try_init()?;
        }
        LogFormat::Json => {
            let layer = tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_writer(move || BoundedLines {
                    to: io::stderr(),
                    format,
                });
            registry.with(layer).try_init()?;
        }
    }
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        tracing::error!(location = location.unwrap_or_default(), "panic");
    }));
    Ok(())
}

/// Longest line, in bytes. Texts from outside are bounded where they are read; this bounds those of libraries,
/// which may quote a whole response.
const MAX_LINE: usize = 8 * 1024;

/// Shortens lines that are too long. Each write is one line: the formatter writes an event at once.
struct BoundedLines<W> {
    to: W,
    format: LogFormat,
}

impl<W: Write> Write for BoundedLines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A log that nobody reads any more must not end the process.
        if line.len() <= MAX_LINE {
            let _ = self.to.write_all(line);
            return Ok(line.len());
        }
        let text = String::from_utf8_lossy(line);
        match self.format {
            LogFormat::Text => {
                let start = &text[..text.floor_char_boundary(MAX_LINE - 32)];
                let _ = writeln!(self.to, "{start} … (truncated)");
            }
            // Each character of the start may need an escape.
            LogFormat::Json => {
                let start = &text[..text.floor_char_boundary(MAX_LINE / 8)];
                let _ = writeln!(self.to, "{}", serde_json::json!({"truncated": start}));
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.to.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_shortened() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let mut out = Vec::new();
            let mut lines = BoundedLines {
                to: &mut out,
                format,
            };
            lines.write_all(b"short\n").unwrap();
            lines
                .write_all("ü\u{1}".repeat(100_000).as_bytes())
                .unwrap();
            let text = String::from_utf8(out).unwrap();
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            assert_eq!((lines.len(), lines[0]), (2, "short\n"));
            assert!(lines[1].len() <= MAX_LINE && lines[1].contains("truncated"));
            if format == LogFormat::Json {
                serde_json::from_str::<serde_json::Value>(lines[1]).unwrap();
            }
        }
    }
}
