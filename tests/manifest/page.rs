//! `docs/conformance.md`, made from the statements and the claims.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::claims::Claims;
use crate::statements::{Standard, Statement};

const HEAD: &str = "# Conformance

What the specifications of MQTT ask, and the tests that show that Causeway does it. Each test speaks bytes over a
socket to a real broker; `cargo test --test conformance connect::` runs those of one file. What binds a client is
tested as what the broker does to a client that breaks it.

This page is made from `tests/conformance/statements` and from what the tests say they prove (`proves!`), and a test
checks that it is up to date: `CAUSEWAY_UPDATE_DOCS=1 cargo test --test manifest` writes it again. The sentences are
reminders in our own words; what counts is the specification
([3.1.1](https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html),
[5.0](https://docs.oasis-open.org/mqtt/mqtt/v5.0/mqtt-v5.0.html)). Statements `U-…` are rules of 5.0 that it does
not number.
";

/// The whole page.
pub fn write(standards: &[Standard], claims: &Claims, exempt: &BTreeMap<String, String>) -> String {
    let mut page = HEAD.to_owned();
    totals(&mut page, standards, claims);
    if !exempt.is_empty() {
        page.push_str("\n## Not to be seen from outside\n\n");
        for (id, reason) in exempt {
            writeln!(page, "- **{id}**: {reason}").unwrap();
        }
    }
    for standard in standards {
        for section in &standard.sections {
            writeln!(page, "\n## MQTT {}: {}\n", standard.version, section.heading).unwrap();
            page.push_str("| Statement | Binds | What it asks | Proven by |\n|---|---|---|---|\n");
            for statement in &section.statements {
                row(&mut page, statement, claims);
            }
        }
    }
    page
}

fn totals(page: &mut String, standards: &[Standard], claims: &Claims) {
    page.push_str("\n| | Statements | Proven by tests | Not to be seen |\n|---|--:|--:|--:|\n");
    let mut all = [0; 2];
    for standard in standards {
        for (kind, numbered) in [("", true), (", not numbered", false)] {
            let mut counts = [0; 2];
            for statement in standard.statements().filter(|statement| statement.is_numbered() == numbered) {
                counts[0] += 1;
                counts[1] += usize::from(claims.contains_key(&statement.id));
            }
            if counts[0] > 0 {
                total(page, &format!("MQTT {}{kind}", standard.version), counts);
            }
            all = std::array::from_fn(|at| all[at] + counts[at]);
        }
    }
    total(page, "All", all);
    let tests: BTreeSet<_> = claims.values().flatten().collect();
    writeln!(page, "\n{} tests prove them.", tests.len()).unwrap();
}

fn total(page: &mut String, name: &str, [all, proven]: [usize; 2]) {
    writeln!(page, "| {name} | {all} | {proven} | {} |", all - proven).unwrap();
}

fn row(page: &mut String, statement: &Statement, claims: &Claims) {
    let by = match claims.get(&statement.id) {
        Some(tests) => tests.iter().map(|test| format!("`{test}`")).collect::<Vec<_>>().join("<br>"),
        None => "[not to be seen](#not-to-be-seen-from-outside)".into(),
    };
    let (number, binds) = (statement.number(), statement.binds.name());
    writeln!(page, "| {number} | {binds} | {} | {by} |", statement.summary).unwrap();
}
