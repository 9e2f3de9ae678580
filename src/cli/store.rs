//! `causeway store`: the database as a file. Only a backup can be made while a broker runs on it.

use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use jiff::Timestamp;

use super::admin_client::{self, AdminArgs, AdminClient, AdminError};
use super::show::{Align, age_at, count, details, or_dash, size, table};
use crate::admin::{BackupPhase, BackupState};
use crate::auth::Escaped;
use crate::config::{Config, ConfigError};
use crate::store::{self, Amount, BackupProgress, CheckReport, Compacted, RestoreError, StoreError};

const BACKUP: &str = "/api/v1/store/backup";
/// Between two looks at how far a backup is.
const INTERVAL: Duration = Duration::from_millis(200);
/// Those who pin the most that are shown to people.
const PINS_SHOWN: usize = 20;
const EXIT_CONFIG: u8 = 2;

/// Check, compact, back up and restore the database.
#[derive(Clone, Debug, clap::Args)]
pub struct StoreArgs {
    /// The folder of the database, in place of the one in the configuration.
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The configuration file that names the folder; without one it is the built-in default.
    #[arg(long, short, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum StoreCommand {
    /// Verify everything that can be verified, and say what occupies the space. Changes nothing; no broker may run.
    Check {
        /// A backup to look at, in place of the database.
        #[arg(value_name = "BACKUP")]
        file: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give back the space that is free in the file. No broker may run.
    Compact,
    /// Write a consistent copy, also while the broker runs.
    Backup {
        /// The file to write.
        file: PathBuf,
        /// Replace the file if it is there.
        #[arg(long)]
        force: bool,
        /// The admin address of the running broker, when it is not that of the configuration.
        #[arg(long, value_name = "URL")]
        admin: Option<String>,
    },
    /// Put a backup in place of a database that is not there. No broker may run.
    Restore {
        /// The backup.
        file: PathBuf,
        /// Move a database that is there aside.
        #[arg(long)]
        force: bool,
    },
}

/// Why a subcommand did not do it.
#[derive(Debug, thiserror::Error)]
enum StoreCommandError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error(
        "there is no database in {0}: name its folder with --data DIR, or the configuration with --config FILE"
    )]
    Absent(PathBuf),
    #[error("{0} is there already: choose another name, or replace it with --force")]
    Exists(PathBuf),
    #[error("the database is not good: see above")]
    Bad,
}

/// Runs the command: 0 when it was done and all is well, 1 when not, 2 when the configuration is wrong.
pub fn run(args: StoreArgs) -> ExitCode {
    let StoreArgs { data, config, command } = args;
    let done = folder(data, config.as_deref()).and_then(|folder| match command {
        StoreCommand::Check { file, json } => check(&folder, file.as_deref(), json),
        StoreCommand::Compact => compact(&folder),
        StoreCommand::Backup { file, force, admin } => {
            let admin = AdminArgs { admin, config, json: false };
            backup(&folder, &file, force, &admin)
        }
        StoreCommand::Restore { file, force } => restore(&file, &folder, force),
    });
    match done {
        Ok(code) => code,
        Err(StoreCommandError::Config(error)) => {
            eprintln!("{error}");
            EXIT_CONFIG.into()
        }
        Err(error) => {
            eprintln!("causeway store: {error}");
            ExitCode::FAILURE
        }
    }
}

fn folder(data: Option<PathBuf>, config: Option<&Path>) -> Result<PathBuf, StoreCommandError> {
    if let Some(data) = data {
        return Ok(data);
    }
    let config = config.map_or_else(|| Ok(Config::default()), Config::load)?;
    Ok(config.store.path)
}

/// The database in this folder, which has to be there.
fn present(folder: &Path) -> Result<PathBuf, StoreCommandError> {
    let path = folder.join(store::FILE);
    if path.exists() { Ok(path) } else { Err(StoreCommandError::Absent(folder.to_owned())) }
}

fn check(folder: &Path, file: Option<&Path>, json: bool) -> Result<ExitCode, StoreCommandError> {
    let path = file.map_or_else(|| present(folder), |file| Ok(file.to_owned()))?;
    let report = store::check_file(&path)?;
    if json {
        // Whatever is in a report can be written as JSON.
        say(&serde_json::to_string_pretty(&report).unwrap_or_default());
    } else {
        say(&show(&path, &report, Timestamp::now()));
    }
    if report.is_good() { Ok(ExitCode::SUCCESS) } else { Err(StoreCommandError::Bad) }
}

fn compact(folder: &Path) -> Result<ExitCode, StoreCommandError> {
    present(folder)?;
    let Compacted { before, after, took } = store::compact(folder)?;
    let (from, to, used) = (size(before.occupied), size(after.occupied), size(after.used));
    say(&format!(
        "compacted in {:.1} s: the file occupied {from}, and now {to} ({used} in use)",
        took.as_secs_f64()
    ));
    Ok(ExitCode::SUCCESS)
}

fn backup(folder: &Path, file: &Path, force: bool, admin: &AdminArgs) -> Result<ExitCode, StoreCommandError> {
    if file.exists() && !force {
        return Err(StoreCommandError::Exists(file.to_owned()));
    }
    if admin.admin.is_none() {
        present(folder)?;
        match backup_offline(folder, file) {
            Err(StoreError::InUse(_)) => {}
            done => {
                done?;
                return finish_backup(file);
            }
        }
    }
    let code = admin_client::run("store", admin, async |client| {
        // Named by its address it may be one whose folder has another name here, as in a container.
        let state = backup_online(&client, folder, admin.admin.is_some()).await?;
        fetch(&state.file, file).map_err(|error| {
            let (copy, file) = (state.file.display(), file.display());
            AdminError::Partly(format!("the backup is at {copy}, and cannot be moved to {file}: {error}"))
        })?;
        Ok(format!("copied {}, {}, while the broker runs", count(state.rows, "row"), size(state.bytes)))
    });
    if code == ExitCode::SUCCESS { finish_backup(file) } else { Ok(code) }
}

fn backup_offline(folder: &Path, file: &Path) -> Result<(), StoreError> {
    let progress = BackupProgress::default();
    std::thread::scope(|scope| {
        let copy = scope.spawn(|| store::backup(folder, file, 0, &progress));
        while !copy.is_finished() {
            show_progress(progress.copied());
            std::thread::park_timeout(INTERVAL);
        }
        clear_progress();
        copy.join().unwrap_or_else(|_| Err(StoreError::Failed("the copy has panicked".into())))
    })
}

async fn backup_online(
    client: &AdminClient,
    folder: &Path,
    is_named: bool,
) -> Result<BackupState, AdminError> {
    let known = client.ask(Method::GET, BACKUP).await.map_err(|error| match error {
        AdminError::NoBroker(at) => AdminError::Partly(format!(
            "a broker runs on {}, and no admin listener answers at {at}: name its address with --admin or its \
             configuration with --config, or stop the broker",
            folder.display()
        )),
        other => other,
    })?;
    let known: BackupState = client.read(known)?;
    if !is_named && !is_in(&known.file, folder) {
        let (theirs, ours) = (known.file.parent().unwrap_or(folder).display(), folder.display());
        return Err(AdminError::Partly(format!(
            "the broker that answers has its database in {theirs}, and not in {ours}: name the other one's address \
             with --admin, or its configuration with --config"
        )));
    }
    let mut state: BackupState = client.read(client.ask(Method::POST, BACKUP).await?)?;
    while state.phase == BackupPhase::Running {
        show_progress((state.rows, state.bytes));
        tokio::time::sleep(INTERVAL).await;
        state = client.read(client.ask(Method::GET, BACKUP).await?)?;
    }
    clear_progress();
    match state.phase {
        BackupPhase::Done => Ok(state),
        _ => Err(AdminError::Partly(state.error.unwrap_or_else(|| "the broker was started anew".into()))),
    }
}

fn is_in(file: &Path, folder: &Path) -> bool {
    let theirs = file.parent().and_then(|theirs| theirs.canonicalize().ok());
    theirs.is_some() && theirs == folder.canonicalize().ok()
}

/// Moves the copy that the broker has made to where it is wanted.
fn fetch(copy: &Path, file: &Path) -> io::Result<()> {
    match fs::rename(copy, file) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
        done => return done.and_then(|()| sync_folder(file)),
    }
    let mut begun = file.as_os_str().to_owned();
    begun.push(".new");
    let begun = PathBuf::from(begun);
    let mut from = fs::File::open(copy)?;
    let mut to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&begun)?;
    io::copy(&mut from, &mut to)?;
    to.sync_all()?;
    fs::rename(&begun, file)?;
    sync_folder(file)?;
    fs::remove_file(copy)
}

/// After a power failure a file is there only when its folder says so.
fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// A backup that cannot be restored is none.
fn finish_backup(file: &Path) -> Result<ExitCode, StoreCommandError> {
    let report = store::check_file(file)?;
    say(&show(file, &report, Timestamp::now()));
    if report.is_good() { Ok(ExitCode::SUCCESS) } else { Err(StoreCommandError::Bad) }
}

fn restore(file: &Path, folder: &Path, force: bool) -> Result<ExitCode, StoreCommandError> {
    let restored = store::restore(file, folder, force)?;
    if let Some(aside) = restored.aside {
        say(&format!("the database that was there is now {}", aside.display()));
    }
    say(&format!("{}\n{AFTER_RESTORE}", show(&folder.join(store::FILE), &restored.report, Timestamp::now())));
    Ok(ExitCode::SUCCESS)
}

const AFTER_RESTORE: &str = "\
What came after the backup is not in it, and what was delivered after it is delivered again: to targets under the
idempotency keys it had. Do not run the original any more.";

fn show(path: &Path, report: &CheckReport, now: Timestamp) -> String {
    let rows = |amount: Amount| format!("{}, {}", amount.count, size(amount.bytes));
    let space = report.space;
    let free = size(space.occupied.saturating_sub(space.used));
    let file =
        format!("{} on disk, {} in use, {free} free for what comes", size(space.occupied), size(space.used));
    let pairs = [
        ("schema", report.schema.to_string()),
        ("file", file),
        ("messages", rows(report.messages)),
        ("dead letters", rows(report.dead_letters)),
        ("retained", rows(report.retained)),
        ("sessions", format!("{}, with {}", report.sessions, count(report.subscriptions, "subscription"))),
        ("groups", report.groups.to_string()),
        ("routes", report.routes.to_string()),
    ];
    let verdict = if report.is_good() { "good".to_owned() } else { count(report.problem_count, "problem") };
    let mut text = format!("{}: {verdict}\n{}", path.display(), details(&pairs));
    if !report.pins.is_empty() {
        text.push('\n');
        text.push_str(&show_pins(report, now));
    }
    if !report.is_good() {
        text.push('\n');
        report.problems.iter().for_each(|problem| text.push_str(&format!("problem: {}\n", Escaped(problem))));
        text.push_str("Keep a copy of the file, and restore a backup: see `causeway store restore --help`\n");
    }
    text
}

fn show_pins(report: &CheckReport, now: Timestamp) -> String {
    let columns = [
        ("KIND", Align::Left),
        ("NAME", Align::Left),
        ("QUEUED", Align::Right),
        ("SIZE", Align::Right),
        ("OLDEST", Align::Right),
    ];
    let age = |oldest: Option<u64>| {
        let then = oldest.and_then(|at| Timestamp::from_millisecond(i64::try_from(at).ok()?).ok());
        or_dash(then.map(|then| age_at(now, then)))
    };
    let rows: Vec<_> = report
        .pins
        .iter()
        .take(PINS_SHOWN)
        .map(|pin| {
            let owed = pin.owed;
            let name = Escaped(&pin.name).to_string();
            [pin.kind.as_str().to_owned(), name, owed.count.to_string(), size(owed.bytes), age(pin.oldest_at)]
        })
        .collect();
    let more = report.pins.len().saturating_sub(PINS_SHOWN);
    let more = if more > 0 { format!("and {more} more; --json has all of them\n") } else { String::new() };
    format!("{}{more}", table(columns, &rows))
}

/// On a terminal only: a log of it is of no use.
fn show_progress((rows, bytes): (u64, u64)) {
    if io::stderr().is_terminal() {
        eprint!("\r{}, {}   ", count(rows, "row"), size(bytes));
    }
}

fn clear_progress() {
    if io::stderr().is_terminal() {
        eprint!("\r{:40}\r", "");
    }
}

/// Whoever closed standard output does not want to know.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{}", text.trim_end());
}
