//! The command: parse, run, and turn any error into exit code 2.

use std::process::ExitCode;

use clap::Parser;
use qeval::cli;

fn main() -> ExitCode {
    leave_threads_to_tiles();
    match cli::run(cli::Cli::parse()) {
        Ok(outcome) => ExitCode::from(outcome.exit_code()),
        Err(error) => {
            cli::report_error(&error);
            ExitCode::from(2)
        }
    }
}

/// The tensor library spins a second pool of threads for element-wise operations. Tiles already run side by
/// side, so that pool only competes with them; its size can be set by this variable alone.
fn leave_threads_to_tiles() {
    const POOL: &str = "CANDLE_NUM_THREADS";
    if std::env::var_os(POOL).is_none() {
        // SAFETY: this is the first statement of the program; no other thread exists that could read the environment.
        #[allow(unsafe_code)]
        unsafe {
            std::env::set_var(POOL, "1");
        }
    }
}
