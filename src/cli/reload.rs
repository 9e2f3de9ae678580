//! `causeway reload`: have the running broker read its files again, and say what came of it.

use std::process::ExitCode;

use clap::ValueEnum;
use http::Method;

use super::{
    admin_client::{self, AdminArgs, AdminClient, AdminError},
    show::{count, size},
};
use crate::admin::Reloaded;

/// Have the running broker read certificates, passwords, ACL, redirect, targets and routes again.
#[derive(Clone, Debug, clap::Args)]
pub struct ReloadArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// What becomes of messages that wait for routes which are not configured any more.
    #[arg(long, value_name = "WHAT")]
    removed: Option<RemovedArg>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RemovedArg {
    /// They stay on disk.
    Keep,
    /// They become dead letters.
    DeadLetter,
    /// They are deleted.
    Discard,
}

/// Runs the command: 0 when everything was read, 1 when something stays as it was.
pub fn run(args: ReloadArgs) -> ExitCode {
    let ReloadArgs { admin, removed } = args;
    let json = admin.json;
    admin_client::run("reload", &admin, async move |client| carry_out(&client, removed, json).await)
}

async fn carry_out(
    client: &AdminClient,
    removed: Option<RemovedArg>,
    json: bool,
) -> Result<String, AdminError> {
    let word = removed.and_then(|removed| removed.to_possible_value());
    let query = word.map_or(String::new(), |word| format!("?removed={}", word.get_name()));
    let answer = client.ask(Method::POST, &format!("/api/v1/reload{query}")).await?;
    let text = format!("{answer:#}");
    let reloaded: Reloaded = client.read(answer)?;
    let text = if json { text } else { show(&reloaded) };
    if reloaded.kept.is_empty() { Ok(text) } else { Err(AdminError::Partly(text)) }
}

fn show(reloaded: &Reloaded) -> String {
    let routes = &reloaded.routes;
    let removed = routes.removed.iter().map(|route| match route.messages {
        0 => route.name.clone(),
        messages => format!("{} ({}, {})", route.name, count(messages, "message"), size(route.bytes)),
    });
    let lists = [
        ("read again", &reloaded.read),
        ("stays as it was", &reloaded.kept),
        ("new routes", &routes.added),
        ("changed routes", &routes.changed),
        ("removed routes", &removed.collect()),
    ];
    let lines = lists.iter().filter(|(_, list)| !list.is_empty());
    let lines: Vec<_> = lines.map(|(name, list)| format!("{name}: {}", list.join(", "))).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::{Changed, RemovedRoute};

    #[test]
    fn what_came_of_it_is_listed() {
        let removed = |name: &str, messages| RemovedRoute { name: name.into(), messages, bytes: 2048 };
        let routes = Changed {
            added: vec!["a".into(), "b".into()],
            changed: Vec::new(),
            removed: vec![removed("c", 3), removed("d", 0)],
        };
        let read = vec!["passwords and ACL".into()];
        let reloaded = Reloaded { read, kept: vec!["certificate x: no such file".into()], routes };
        let expected = "\
read again: passwords and ACL
stays as it was: certificate x: no such file
new routes: a, b
removed routes: c (3 messages, 2.0 KiB), d";
        assert_eq!(show(&reloaded), expected);
    }
}
