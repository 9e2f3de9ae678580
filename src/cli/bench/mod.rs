//! `causeway bench`: puts load on an MQTT broker, this one or any other, and measures what comes of it.
//!
//! The generator shares a machine with the broker it measures, so it has to be cheap: messages are encoded
//! once and patched, many go into one write, and everything that a read brought is handled at once.
//! Latencies need both sides on one machine, because they are differences of its clock.

mod args;
mod client;
mod clock;
mod connect;
mod error;
mod fleet;
mod flow;
mod latency;
mod message;
mod pace;
mod pair;
mod process;
mod progress;
mod publisher;
mod report;
mod sequence;
mod stage;
mod stream;
mod subscriber;
mod window;

use std::process::ExitCode;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};

pub use args::{BenchArgs, BenchMode};
use error::BenchError;
use fleet::Bench;
use report::Report;

/// A client could not connect or go on, or the run was not possible.
const EXIT_FAILED: u8 = 1;

/// With `--strict`: the run stalled, or messages were refused, lost, duplicated or out of order.
const EXIT_FLAWED: u8 = 3;

/// Runs a load and prints its report. The exit codes are those that the help text names.
pub fn run(args: BenchArgs) -> ExitCode {
    let common = args.mode.common();
    let report = runtime(common.threads.into()).and_then(|runtime| {
        let report = runtime.block_on(load(&args.mode));
        // Nothing of it is awaited any more; a client stuck in a handshake is not worth waiting for.
        runtime.shutdown_background();
        report
    });
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            eprintln!("causeway bench: {error}");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    if let Err(error) = print(&report, common.json) {
        eprintln!("causeway bench: cannot print the report: {error}");
        return ExitCode::from(EXIT_FAILED);
    }
    exit_code(&report, common.strict)
}

fn runtime(threads: usize) -> Result<Runtime, BenchError> {
    // One thread needs no stealing of tasks, and no wake-ups across cores.
    let mut builder = if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    Ok(builder.worker_threads(threads).enable_all().build()?)
}

async fn load(mode: &BenchMode) -> Result<Report, BenchError> {
    let bench = Bench::new(mode.common(), connections(mode)).await?;
    let stage = Arc::clone(&bench.stage);
    let ctrl_c = tokio::spawn(async move {
        // Without a handler Ctrl-C ends the process as ever.
        while tokio::signal::ctrl_c().await.is_ok() {
            stage.interrupt();
        }
    });
    let report = match mode {
        BenchMode::Pub(args) => publisher::run(bench, args).await,
        BenchMode::Sub(args) => subscriber::run(bench, args).await,
        BenchMode::Pair(args) => pair::run(bench, args).await,
        BenchMode::Connect(args) => connect::run(bench, args).await,
    };
    ctrl_c.abort();
    report
}

/// How many connections a load opens.
fn connections(mode: &BenchMode) -> u64 {
    match mode {
        BenchMode::Pub(args) => args.clients.into(),
        BenchMode::Sub(args) => args.clients.into(),
        BenchMode::Pair(args) => pair::connections(args),
        BenchMode::Connect(args) => args.clients.into(),
    }
}

fn print(report: &Report, json: bool) -> std::io::Result<()> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut stdout, report)?;
        return writeln!(stdout);
    }
    write!(stdout, "{report}")
}

fn exit_code(report: &Report, strict: bool) -> ExitCode {
    if report.failures.count > 0 {
        return ExitCode::from(EXIT_FAILED);
    }
    let flawed = strict && !report.is_flawless();
    if flawed { ExitCode::from(EXIT_FLAWED) } else { ExitCode::SUCCESS }
}
