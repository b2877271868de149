//! Parses the command line, runs the command, and sets the exit code.

use std::io::Write;
use std::process::ExitCode;

use dew_provider::cli::{self, Command};
use dew_provider::util::output::OutputError;
use dew_provider::util::text::{cut, escaped, without_os_error};

/// Maximum size of an error, in bytes.
const MAX_ERROR: usize = 4096;

/// Worker threads: the work is mostly waiting, and more threads would only cost memory on large nodes.
const WORKER_THREADS: usize = 2;

fn main() -> ExitCode {
    let cli = cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(cli.command)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(code) => code,
        Err(error) if is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let why = cut(escaped(&without_os_error(&format!("{error:#}"))), MAX_ERROR);
            // Standard error may be closed as well.
            let _ = writeln!(std::io::stderr(), "dew-provider: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the reader of standard output is gone.
fn is_closed(error: &anyhow::Error) -> bool {
    let closed = |error: &OutputError| matches!(error, OutputError::Closed);
    error
        .chain()
        .any(|error| error.downcast_ref().is_some_and(closed))
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        #[cfg(feature = "sim")]
        Command::Demo(args) => cli::demo::run(args).await.map(|()| ExitCode::SUCCESS),
        #[cfg(feature = "sim")]
        Command::Emulate(args) => cli::emulate::run(*args).await.map(|()| ExitCode::SUCCESS),
        Command::Kms(args) => cli::kms::run(*args).await.map(|()| ExitCode::SUCCESS),
        Command::File(args) => cli::file::run(*args).await.map(|()| ExitCode::SUCCESS),
        Command::Lint(args) => cli::lint::run(&args),
        Command::Secret(args) => cli::secret::run(*args).await.map(|()| ExitCode::SUCCESS),
        Command::Serve(args) => cli::serve::run(*args).await.map(|()| ExitCode::SUCCESS),
    }
}
