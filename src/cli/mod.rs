//! The command line: one file for each subcommand.

pub mod acl;
mod admin_client;
pub mod bench;
pub mod check;
pub mod dead_letters;
pub mod demo_target;
pub mod explain;
pub mod passwd;
pub mod reload;
mod route_test;
pub mod routes;
pub mod serve;
pub mod sessions;
mod show;
pub mod store;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An MQTT broker whose acknowledgement is a promise: on disk before PUBACK, and on to HTTP targets with
/// retries and dead letters.
#[derive(Debug, Parser)]
#[command(name = "causeway", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker (the default)
    Serve(serve::ServeArgs),
    /// Check a configuration without starting
    Check(check::CheckArgs),
    /// Make or change a user of a password file
    Passwd(passwd::PasswdArgs),
    /// Ask an ACL file what a client may do
    Acl(acl::AclArgs),
    /// List, show and end the sessions of the running broker
    Sessions(sessions::SessionsArgs),
    /// List and show the routes of the running broker, and settle what removed ones leave
    Routes(routes::RoutesArgs),
    /// Show whom a publish to a topic would reach, and where each path is weakest
    Explain(explain::ExplainArgs),
    /// Have the running broker read its configuration and certificates again
    Reload(reload::ReloadArgs),
    /// List, show, replay and discard what the running broker has given up
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Check, compact, back up and restore the database
    Store(store::StoreArgs),
    /// Load a broker and measure it
    Bench(bench::BenchArgs),
    /// A small HTTP target that fails and recovers, to try routes with
    DemoTarget(demo_target::DemoTargetArgs),
}

/// Runs the command line and gives the process's exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None => serve::run(&cli.serve),
        Some(Command::Serve(args)) => serve::run(&args),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Passwd(args)) => passwd::run(args),
        Some(Command::Acl(args)) => acl::run(args),
        Some(Command::Sessions(args)) => sessions::run(args),
        Some(Command::Routes(args)) => routes::run(args),
        Some(Command::Explain(args)) => explain::run(args),
        Some(Command::Reload(args)) => reload::run(args),
        Some(Command::DeadLetters(args)) => dead_letters::run(args),
        Some(Command::Store(args)) => store::run(args),
        Some(Command::Bench(args)) => bench::run(args),
        Some(Command::DemoTarget(args)) => demo_target::run(args),
    }
}
