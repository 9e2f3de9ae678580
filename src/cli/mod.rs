//! The command line.

pub mod acl;
pub mod check;
pub mod demo_target;
pub mod passwd;

/// Runs the command line and gives the process's exit code.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
