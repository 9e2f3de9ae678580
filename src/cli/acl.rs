//! `causeway acl check`: what an ACL file allows a client, and which line says so.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use crate::{
    auth::{Acl, AuthFileError, Request, Subscribe},
    topic::{SubscriptionFilter, TopicError, TopicName},
};

/// Work with ACL files.
#[derive(Debug, clap::Args)]
pub struct AclArgs {
    #[command(subcommand)]
    command: AclCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AclCommand {
    /// Say whether a client may publish, receive or subscribe, and which line of the file decides.
    ///
    /// Ends with 0 when it is allowed and with 1 when it is not.
    Check(CheckArgs),
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    /// The ACL file.
    #[arg(long, value_name = "FILE")]
    acl: PathBuf,
    /// The user name; left out for a client without a user.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The client id.
    #[arg(long, value_name = "ID", default_value = "")]
    client: String,
    #[command(flatten)]
    request: RequestArgs,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct RequestArgs {
    /// May the client publish to this topic?
    #[arg(long, value_name = "TOPIC")]
    publish: Option<String>,
    /// May the client receive messages of this topic?
    #[arg(long, value_name = "TOPIC")]
    receive: Option<String>,
    /// May the client subscribe to this topic filter, alone or as `$share/NAME/FILTER`?
    #[arg(long, value_name = "FILTER")]
    subscribe: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error(transparent)]
    File(#[from] AuthFileError),
    #[error("the topic {0}")]
    Topic(TopicError),
    #[error("the topic filter {0}")]
    Filter(TopicError),
}

/// Runs the command: 0 when allowed, 1 when denied, 2 when the question cannot be answered.
pub fn run(args: AclArgs) -> ExitCode {
    let AclCommand::Check(args) = args.command;
    // Whoever closed the output still gets the exit code.
    match check(&args) {
        Ok((allowed, answer)) => {
            let _ = writeln!(io::stdout(), "{answer}");
            if allowed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "causeway acl check: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether it is allowed, and the text that says so.
fn check(args: &CheckArgs) -> Result<(bool, String), CheckError> {
    let rights = Acl::load(&args.acl)?.rights(args.user.as_deref(), &args.client);
    let RequestArgs { publish, receive, subscribe } = &args.request;
    let topic = |text| TopicName::parse(text, u16::MAX).map_err(CheckError::Topic);
    let filter = subscribe.as_deref().unwrap_or_default();
    let explanation = match (publish, receive) {
        (Some(text), _) => rights.explain(Request::Publish(topic(text)?)),
        (_, Some(text)) => rights.explain(Request::Receive(topic(text)?)),
        (None, None) => {
            let parsed = SubscriptionFilter::parse(filter, u16::MAX).map_err(CheckError::Filter)?;
            rights.explain(Request::Subscribe(&parsed.filter))
        }
    };
    let mut answer = String::from(match explanation.answer {
        Subscribe::Allowed => "allowed",
        Subscribe::AllowedFiltered => "allowed in part: each message is checked before it is delivered",
        Subscribe::Refused => "denied",
    });
    // Writing to a string cannot fail.
    let _ = match explanation.rule {
        None => write!(answer, ": no rule allows it"),
        Some(rule) => {
            write!(answer, "\n{}:{}: {} {}", args.acl.display(), rule.line, rule.access, rule.filter)
        }
    };
    Ok((explanation.answer.is_allowed(), answer))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: AclArgs,
    }

    fn parse(words: &[&str]) -> Result<CheckArgs, clap::Error> {
        let line = Line::try_parse_from(["acl", "check"].iter().chain(words))?;
        let AclCommand::Check(args) = line.args.command;
        Ok(args)
    }

    fn try_answer(acl: &str, words: &[&str]) -> Result<(bool, String), CheckError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("acl");
        std::fs::write(&path, acl).unwrap();
        let file = path.display().to_string();
        let words: Vec<&str> = ["--acl", &file].iter().chain(words).copied().collect();
        check(&parse(&words).unwrap()).map(|(allowed, text)| (allowed, text.replace(&file, "acl")))
    }

    fn answer(acl: &str, words: &[&str]) -> (bool, String) {
        try_answer(acl, words).unwrap()
    }

    #[test]
    fn names_the_line_that_decided() {
        let acl = "user ada\ntopic read a/#\npattern write d/%c\npattern deny a/secret";
        let ada = |more: &[&str]| answer(acl, &[&["--user", "ada", "--client", "pump"], more].concat());
        assert_eq!(ada(&["--receive", "a/b"]), (true, "allowed\nacl:2: read a/#".into()));
        assert_eq!(ada(&["--publish", "d/pump"]), (true, "allowed\nacl:3: write d/pump".into()));
        assert_eq!(ada(&["--receive", "a/secret"]), (false, "denied\nacl:4: deny a/secret".into()));
        assert_eq!(ada(&["--publish", "a/b"]), (false, "denied: no rule allows it".into()));
        let (allowed, text) = ada(&["--subscribe", "a/#"]);
        assert!(allowed && text.starts_with("allowed in part") && text.ends_with("acl:4: deny a/secret"));
        assert!(!answer(acl, &["--receive", "a/b"]).0, "a client without a user");
    }

    #[test]
    fn what_is_no_topic_gets_no_answer() {
        let acl = "topic readwrite a/+";
        assert!(matches!(try_answer(acl, &["--publish", "a/+"]), Err(CheckError::Topic(_))));
        assert!(matches!(try_answer(acl, &["--subscribe", "a/#/b"]), Err(CheckError::Filter(_))));
        assert!(matches!(try_answer("oops", &["--publish", "a"]), Err(CheckError::File(_))));
        assert!(answer(acl, &["--subscribe", "$share/group/a/b"]).0);
    }

    #[test]
    fn asks_one_question_at_a_time() {
        assert!(parse(&["--acl", "x"]).is_err());
        assert!(parse(&["--acl", "x", "--publish", "a", "--subscribe", "b"]).is_err());
        assert!(parse(&["--publish", "a"]).is_err());
        assert!(parse(&["--acl", "x", "--publish", "a"]).is_ok());
    }
}
