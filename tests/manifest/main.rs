//! Every statement of the specifications is proven by a test, and the page that says so is true.
//!
//! The statements are listed in `tests/conformance/statements`, the tests name what they prove by `proves!`.
//! What cannot be seen from outside a broker is in `exempt.txt`, with the reason. `docs/conformance.md` is made
//! from both: `CAUSEWAY_UPDATE_DOCS=1 cargo test --test manifest` writes it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod claims;
mod page;
#[allow(dead_code, reason = "of the sources this reads the text only")]
#[path = "../source/mod.rs"]
mod source;
mod statements;

use std::collections::BTreeSet;

use claims::claims;
use source::file;
use statements::{exemptions, standards};

const PAGE: &str = "docs/conformance.md";

/// An exemption of fewer words is no sentence.
const REASON_WORDS_MIN: usize = 8;

#[test]
fn every_statement_is_proven_or_says_why_not() {
    let (proven, exempt) = (claims(), exemptions());
    let mut wrong = Vec::new();
    for statement in standards().iter().flat_map(|standard| standard.statements()) {
        let id = &statement.id;
        match (proven.contains_key(id), exempt.contains_key(id)) {
            (false, false) => wrong.push(format!("{id} has no test")),
            (true, true) => wrong.push(format!("{id} has a test, and is exempt")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_name_is_that_of_a_statement() {
    let standards = standards();
    let known: BTreeSet<_> =
        standards.iter().flat_map(|standard| standard.statements()).map(|statement| &statement.id).collect();
    let mut wrong = Vec::new();
    for (id, tests) in claims().iter().filter(|(id, _)| !known.contains(id)) {
        wrong.push(format!("{} proves {id}, which is no statement", tests.join(", ")));
    }
    for id in exemptions().into_keys().filter(|id| !known.contains(id)) {
        wrong.push(format!("{id} is exempt, and no statement"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn exemptions_have_reasons() {
    for (id, reason) in exemptions() {
        let words = reason.split_whitespace().count();
        assert!(words >= REASON_WORDS_MIN && reason.ends_with('.'), "{id} is exempt without a sentence why");
        let lower = reason.to_lowercase();
        assert!(!lower.contains("implement") && !lower.contains("support"), "{id}: that is no reason");
    }
}

#[test]
fn the_page_is_up_to_date() {
    let page = page::write(&standards(), &claims(), &exemptions());
    if std::env::var_os("CAUSEWAY_UPDATE_DOCS").is_some() {
        std::fs::write(source::path_of(PAGE), &page).unwrap();
    }
    let text = source::path_of(PAGE).exists().then(|| file(PAGE).text);
    assert!(text == Some(page), "{PAGE} is old: CAUSEWAY_UPDATE_DOCS=1 cargo test --test manifest");
}
