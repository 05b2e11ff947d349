//! The command: parse, run, and turn any error into exit code 2.

use std::process::ExitCode;

use clap::Parser;
use qeval::cli;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(outcome) => ExitCode::from(outcome.exit_code()),
        Err(error) => {
            cli::report_error(&error);
            ExitCode::from(2)
        }
    }
}
