//! Reads the command line, dispatches, and decides the exit code.

use std::process::ExitCode;

use clap::Parser;
use dew_provider::cli::{self, Cli, Command};

/// Threads that run tasks: the work is waiting, and more would only cost memory on large nodes.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(cli.command)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(code) => code,
        #[allow(clippy::print_stderr)] // the one place that tells a person why the process ends
        Err(error) => {
            eprintln!("dew-provider: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(args) => cli::demo::run(args).await.map(|()| ExitCode::SUCCESS),
        Command::Emulate(args) => cli::emulate::run(*args).await.map(|()| ExitCode::SUCCESS),
        Command::Lint(args) => cli::lint::run(&args),
        Command::Secret(args) => cli::secret::run(*args).await.map(|()| ExitCode::SUCCESS),
        Command::Serve(args) => cli::serve::run(*args).await.map(|()| ExitCode::SUCCESS),
    }
}
