//! Parses the command line, runs the command, and sets the exit code.

use std::process::ExitCode;

use clap::Parser;
use dew_provider::cli::{self, Cli, Command};

/// Worker threads: the work is mostly waiting, and more threads would only cost memory on large nodes.
const WORKER_THREADS: usize = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
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
        #[allow(clippy::print_stderr)] // reports to the user why the process ends
        Err(error) => {
            eprintln!("dew-provider: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        #[cfg(feature = "sim")]
        Command::Demo(args) => cli::demo::run(args).await.map(|()| ExitCode::SUCCESS),
        #[cfg(feature = "sim")]
        Command::Emulate(args) => cli::emulate::run(*args).await.map(|()| ExitCode::SUCCESS),
        Command::Lint(args) => cli::lint::run(&args),
        Command::Secret(args) => cli::secret::run(*args).await.map(|()| ExitCode::SUCCESS),
        Command::Serve(args) => cli::serve::run(*args).await.map(|()| ExitCode::SUCCESS),
    }
}
