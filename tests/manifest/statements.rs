//! The list of statements, as it is written in `tests/conformance/statements`.
//!
//! A line there is a heading with the section's number, or a statement: its id, whom it binds, and what it asks.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::file;

const FOLDER: &str = "tests/conformance/statements";

/// A version of the specification.
pub struct Standard {
    /// As it stands before the numbers of its statements: "5.0".
    pub version: &'static str,
    pub sections: Vec<Section>,
}

/// A part of it.
pub struct Section {
    /// Number and title.
    pub heading: String,
    pub statements: Vec<Statement>,
}

/// What is asked of a client, a server, or both.
pub struct Statement {
    /// As tests name it: "5.0 MQTT-3.1.0-1", or "U-3.1.2-a" for what has no number in 5.0.
    pub id: String,
    pub binds: Binds,
    pub summary: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Binds {
    Client,
    Server,
    Both,
}

impl Standard {
    pub fn statements(&self) -> impl Iterator<Item = &Statement> {
        self.sections.iter().flat_map(|section| &section.statements)
    }
}

impl Statement {
    /// The id without the version.
    pub fn number(&self) -> &str {
        self.id.split_once(' ').map_or(&self.id, |(_, number)| number)
    }

    /// Whether the specification has a number for it.
    pub fn is_numbered(&self) -> bool {
        self.number().starts_with("MQTT-")
    }
}

impl Binds {
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Both => "both",
        }
    }
}

/// All statements.
pub fn standards() -> [Standard; 2] {
    ["5.0", "3.1.1"].map(|version| {
        let mut sections = Vec::new();
        for line in lines(&format!("mqtt-{version}.txt")) {
            if line.starts_with(|first: char| first.is_ascii_digit()) {
                sections.push(Section { heading: line, statements: Vec::new() });
            } else {
                let section = sections.last_mut().unwrap_or_else(|| panic!("no heading before {line}"));
                section.statements.push(statement(version, &line));
            }
        }
        let standard = Standard { version, sections };
        let ids: BTreeSet<_> = standard.statements().map(|statement| &statement.id).collect();
        assert_eq!(ids.len(), standard.statements().count(), "{version} lists a statement twice");
        standard
    })
}

/// What no test can prove, and why: `id: reason`.
pub fn exemptions() -> BTreeMap<String, String> {
    let parse = |line: String| {
        let (id, reason) = line.split_once(": ").unwrap_or_else(|| panic!("no reason: {line}"));
        (id.to_owned(), reason.to_owned())
    };
    lines("exempt.txt").into_iter().map(parse).collect()
}

fn statement(version: &str, line: &str) -> Statement {
    let mut words = line.split_whitespace();
    let number = words.next().unwrap_or_default();
    let binds = match words.next() {
        Some("client") => Binds::Client,
        Some("server") => Binds::Server,
        Some("both") => Binds::Both,
        _ => panic!("client, server or both is missing: {line}"),
    };
    let id = if number.starts_with("MQTT-") { format!("{version} {number}") } else { number.to_owned() };
    Statement { id, binds, summary: words.collect::<Vec<_>>().join(" ") }
}

/// The lines of a file that say something.
fn lines(name: &str) -> Vec<String> {
    let text = file(&format!("{FOLDER}/{name}")).text;
    text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}
