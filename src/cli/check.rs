//! `causeway check`: whether a configuration can be served, without serving it.

use std::{
    fmt::{Display, Write as _},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::{Value, json};

use crate::auth::{Acl, PasswordFile};
use crate::bridge::client::Client;
use crate::config::{Config, ConfigError, ListenerConfig, Mistake};
use crate::transport::{Application, TlsSettings};

/// What is said when there is a mistake, to tell it from a process that failed otherwise.
const EXIT_REFUSED: u8 = 2;

/// Checks a configuration and the files that it names, and says every mistake.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// The configuration file; without it the built-in defaults are checked.
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Runs the check: exit code 0 if the configuration can be served, 2 if it cannot.
pub fn run(args: &CheckArgs) -> ExitCode {
    let checked = check(args.config.as_deref());
    // Whoever closed the output still gets the exit code.
    let _ = match (&checked, args.json) {
        (Ok(config), false) => writeln!(io::stdout(), "{}", summary(&name(args), config)),
        (Err(error), false) => writeln!(io::stderr(), "{error}\n\n{}", count(error)),
        (Ok(config), true) => writeln!(io::stdout(), "{}", summary_json(config)),
        (Err(error), true) => writeln!(io::stdout(), "{}", error_json(error)),
    };
    if checked.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_REFUSED) }
}

fn check(config: Option<&Path>) -> Result<Config, ConfigError> {
    let Some(file) = config else { return Ok(Config::default()) };
    let config = Config::load(file)?;
    let mistake = |message| Mistake { file: file.display().to_string(), place: None, message, help: None };
    let mistakes: Vec<_> = refused_files(&config).into_iter().map(mistake).collect();
    if mistakes.is_empty() { Ok(config) } else { Err(ConfigError { mistakes }) }
}

/// What a start would refuse of the files that a configuration names, in words that name the file.
fn refused_files(config: &Config) -> Vec<String> {
    fn refused<T>(read: Result<T, impl Display>) -> Option<String> {
        read.err().map(|error| error.to_string())
    }
    let passwords = config.auth.password_file.as_deref().and_then(|path| refused(PasswordFile::load(path)));
    let acl = config.auth.acl_file.as_deref().and_then(|path| refused(Acl::load(path)));
    // A development certificate that is not there yet is made by the start.
    let tls =
        config.listeners.iter().filter_map(|l| l.tls.clone()).filter(|files| files.certificate.exists());
    let tls = tls.filter_map(|files| refused(TlsSettings::load(files, Application::Mqtt)));
    let targets = config.targets.iter().filter_map(|(name, target)| {
        refused(Client::new(target)).map(|error| format!("target \"{name}\": {error}"))
    });
    passwords.into_iter().chain(acl).chain(tls).chain(targets).collect()
}

fn name(args: &CheckArgs) -> String {
    args.config.as_ref().map_or("built-in defaults".to_owned(), |path| path.display().to_string())
}

fn summary(name: &str, config: &Config) -> String {
    let mut text = format!("{name}: ok\n  data       {}", config.store.path.display());
    // Writing to a String cannot fail.
    for listener in &config.listeners {
        let _ = write!(text, "\n  listener   {} {}", listener.address, protocol(listener));
        if config.auth.anonymous_at(listener.address) {
            text.push_str(", open to clients without a user name");
        }
    }
    if config.admin.enabled {
        let _ = write!(text, "\n  admin      {}", config.admin.address);
    }
    for route in &config.routes {
        // A route of a checked configuration has its target.
        let url = config.targets.get(&route.target).map(|target| target.url.to_string()).unwrap_or_default();
        // A query is where keys stand that nobody else should read.
        let url = url.split('?').next().unwrap_or_default();
        let topics = route.topics.join(", ");
        let _ = write!(text, "\n  route      {}: {topics} -> {} ({url})", route.name, route.target);
    }
    for unused in unused_targets(config) {
        let _ = write!(text, "\n  note       no route leads to target {unused}");
    }
    text
}

fn summary_json(config: &Config) -> Value {
    let listener = |listener: &ListenerConfig| {
        let (tls, websocket) = (listener.tls.is_some(), listener.websocket.is_some());
        json!({"address": listener.address, "tls": tls, "websocket": websocket})
    };
    let routes = config.routes.iter().map(|route| {
        json!({"name": route.name, "topics": route.topics, "exclude": route.exclude, "target": route.target})
    });
    json!({
        "ok": true,
        "data": config.store.path,
        "listeners": config.listeners.iter().map(listener).collect::<Vec<_>>(),
        "routes": routes.collect::<Vec<_>>(),
        "unused_targets": unused_targets(config).collect::<Vec<_>>(),
    })
}

fn error_json(error: &ConfigError) -> Value {
    let mistake = |mistake: &Mistake| {
        let place = mistake.place.as_ref();
        json!({
            "file": mistake.file,
            "line": place.map(|place| place.line),
            "column": place.map(|place| place.column),
            "message": mistake.message,
            "help": mistake.help,
        })
    };
    json!({"ok": false, "errors": error.mistakes.iter().map(mistake).collect::<Vec<_>>()})
}

fn count(error: &ConfigError) -> String {
    match error.mistakes.len() {
        1 => "1 mistake".to_owned(),
        number => format!("{number} mistakes"),
    }
}

fn protocol(listener: &ListenerConfig) -> &'static str {
    match (&listener.websocket, &listener.tls) {
        (None, None) => "TCP",
        (None, Some(_)) => "TLS",
        (Some(_), None) => "WebSocket",
        (Some(_), Some(_)) => "WebSocket over TLS",
    }
}

fn unused_targets(config: &Config) -> impl Iterator<Item = &str> {
    let is_used = |name: &str| config.routes.iter().any(|route| route.target == name);
    config.targets.keys().map(String::as_str).filter(move |name| !is_used(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_would_be_served() {
        let text = "[[routes]]\nname = \"r\"\ntopics = [\"a/#\", \"b\"]\ntarget = \"t\"\n\
                    [targets.t]\nurl = \"http://h/x\"\n[targets.spare]\nurl = \"http://h/y\"\n";
        let config = Config::parse(text, "a.toml").unwrap();
        let expected = "a.toml: ok\n  data       data\n  \
            listener   127.0.0.1:1883 TCP, open to clients without a user name\n  \
            listener   127.0.0.1:8883 TLS, open to clients without a user name\n  \
            listener   127.0.0.1:8083 WebSocket, open to clients without a user name\n  \
            admin      127.0.0.1:9883\n  route      r: a/#, b -> t (http://h/x)\n  \
            note       no route leads to target spare";
        assert_eq!(summary("a.toml", &config), expected);
        let json = summary_json(&config);
        assert_eq!(json["ok"], true);
        assert_eq!(
            json["listeners"][1],
            json!({"address": "127.0.0.1:8883", "tls": true, "websocket": false})
        );
        assert_eq!(json["routes"][0]["target"], "t");
        assert_eq!(json["unused_targets"], json!(["spare"]));
    }

    #[test]
    fn the_json_form_has_every_mistake_with_its_place() {
        let error = Config::parse("[store]\npth = 1\n[limits]\ninflight = 0\n", "a.toml").unwrap_err();
        let json = error_json(&error);
        assert_eq!(json["ok"], false);
        let expected = json!({
            "file": "a.toml",
            "line": 2,
            "column": 1,
            "message": "unknown key \"pth\" in store",
            "help": "did you mean \"path\"?",
        });
        assert_eq!(json["errors"][0], expected);
        assert_eq!(json["errors"][1]["line"], 4);
        assert_eq!(count(&error), "2 mistakes");
    }

    #[test]
    fn a_missing_file_has_no_place() {
        let error = check(Some(Path::new("no/such.toml"))).unwrap_err();
        let json = error_json(&error);
        assert_eq!(json["errors"][0]["line"], Value::Null);
        assert_eq!(json["errors"][0]["file"], "no/such.toml");
    }

    #[test]
    fn files_that_are_named_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("passwords"), "ada:plain\n").unwrap();
        std::fs::write(path("acl"), "topic read a\ntopik read b\n").unwrap();
        std::fs::write(path("no.pem"), "no certificate\n").unwrap();
        let text = format!(
            "[auth]\npassword_file = {:?}\nacl_file = {:?}\n[[listeners]]\naddress = \"127.0.0.1:0\"\n\
             tls = {{ certificate = {no:?}, key = {no:?} }}\n\
             [targets.t]\nurl = \"https://h/\"\ntls = {{ ca_file = {no:?} }}\n",
            path("passwords"),
            path("acl"),
            no = path("no.pem"),
        );
        std::fs::write(path("c.toml"), text).unwrap();
        let error = check(Some(Path::new(&path("c.toml")))).unwrap_err();
        let wrong = ["passwords:1: ", "acl:2: ", "no.pem holds no certificate", "target \"t\": tls.ca_file "];
        assert_eq!(error.mistakes.len(), wrong.len(), "{error}");
        for (mistake, wrong) in error.mistakes.iter().zip(wrong) {
            assert!(mistake.file.ends_with("c.toml") && mistake.message.contains(wrong), "{mistake}");
        }
    }

    #[test]
    fn the_exit_code_tells_good_from_bad() {
        let args = |config: Option<&str>| CheckArgs { config: config.map(PathBuf::from), json: true };
        assert_eq!(run(&args(None)), ExitCode::SUCCESS);
        assert_eq!(run(&args(Some("no/such.toml"))), ExitCode::from(EXIT_REFUSED));
    }
}
