//! `causeway routes`: what routes do.

use std::process::ExitCode;

use super::route_test::{self, RouteTestArgs};

/// Ask what routes do.
#[derive(Clone, Debug, clap::Args)]
pub struct RoutesArgs {
    #[command(subcommand)]
    command: RoutesCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum RoutesCommand {
    Test(RouteTestArgs),
}

/// Runs the command.
pub fn run(args: &RoutesArgs) -> ExitCode {
    match &args.command {
        RoutesCommand::Test(args) => route_test::run(args),
    }
}
