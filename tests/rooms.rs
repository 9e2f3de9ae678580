//! The rooms of the house: each uses those below it and none above, and the pure ones stay pure.
//!
//! The floors are read from `src/lib.rs`. They hold for unit tests in `src` as well: what needs the rooms above
//! to be tested is tested from there, or from `tests/`. A unit test of a pure room may use threads and chance.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod source;

use std::collections::BTreeMap;

use source::{SourceFile, code, file, files, tokens};

/// Rooms whose outcome follows from their arguments alone, and what they therefore never name. `topic` may
/// lock: many threads look into the index at once.
const PURE: [(&str, &[&str]); 3] = [
    ("codec", &["tokio", "Instant", "SystemTime", "net", "thread", "rand", "getrandom", "parking_lot", "fs"]),
    (
        "session",
        &["tokio", "Instant", "SystemTime", "net", "thread", "rand", "getrandom", "parking_lot", "fs"],
    ),
    ("topic", &["tokio", "Instant", "SystemTime", "net", "thread", "rand", "getrandom", "fs"]),
];

/// Packages that one room alone may name, so that it could do without them one day.
const KEPT_IN: [(&str, &str); 5] = [
    ("redb", "store"),
    ("mqttbytes", "codec"),
    ("rcgen", "transport"),
    ("tungstenite", "transport"),
    ("hyper_rustls", "bridge"),
];

/// What a file uses: rooms by their path from the root of the crate, and every word that begins a path or
/// follows `std::`.
#[derive(Debug, Default, PartialEq)]
struct Uses {
    rooms: Vec<String>,
    names: Vec<String>,
}

#[test]
fn no_room_uses_one_above_it() {
    let floors = floors(&file("src/lib.rs").text);
    let mut wrong = Vec::new();
    for source in files(&["src"], ".rs") {
        let Some(room) = room_of(&source.path) else { continue };
        let Some(floor) = floors.get(room) else { panic!("{} is in no room of src/lib.rs", source.path) };
        for used in uses(&source).rooms {
            match floors.get(used.as_str()) {
                Some(below) if below > floor => {
                    wrong.push(format!("{} (floor {floor}) uses crate::{used} (floor {below})", source.path));
                }
                Some(_) => {}
                None => wrong.push(format!("{} uses crate::{used}, which is no room", source.path)),
            }
        }
    }
    assert!(wrong.is_empty(), "a room uses rooms below it only:\n{}", wrong.join("\n"));
}

#[test]
fn pure_rooms_touch_no_clock_no_network_and_no_chance() {
    let mut wrong = Vec::new();
    for source in files(&["src"], ".rs") {
        let Some((_, forbidden)) = PURE.iter().find(|(room, _)| room_of(&source.path) == Some(room)) else {
            continue;
        };
        let names = uses(&product(&source)).names;
        let found = forbidden.iter().filter(|name| names.iter().any(|used| used == *name));
        wrong.extend(found.map(|name| format!("{} names {name}", source.path)));
    }
    assert!(wrong.is_empty(), "time and chance come in as arguments:\n{}", wrong.join("\n"));
}

#[test]
fn packages_stay_in_their_room() {
    let mut wrong = Vec::new();
    for source in files(&["src"], ".rs") {
        let names = uses(&product(&source)).names;
        for (package, room) in KEPT_IN {
            if room_of(&source.path) != Some(room) && names.iter().any(|used| used == package) {
                wrong.push(format!("{} names {package}, which is the business of {room}/", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_room_is_on_a_floor_and_in_the_map() {
    let (floors, map) = (floors(&file("src/lib.rs").text), file("ARCHITECTURE.md").text);
    assert!(floors.len() >= 15, "{floors:?}");
    for room in floors.keys() {
        assert!(map.contains(&format!("### `{room}/`")), "ARCHITECTURE.md does not describe {room}/");
    }
    let invariants = map.matches("**Invariant:**").count();
    assert!(invariants >= floors.len(), "each room has its invariant: {invariants} of {}", floors.len());
}

#[test]
fn the_reader_sees_every_way_to_name_a_room() {
    let text = r##"
        //! crate::comment
        use crate::alpha::Thing;
        use crate::{beta, gamma::{self, Inner}, delta::epsilon as zeta};
        use std::{sync::Arc, time::{Duration, Instant}};
        fn f<'a>(x: &'a str) -> char { let _ = ("crate::text", r#"crate::raw "q" "#, 'x', '"'); crate::eta::f(); 'y' }
        mod tests { use super::*; use super::super::theta; }
    "##;
    let source = SourceFile { path: "src/alpha/mod.rs".into(), text: text.into() };
    let uses = uses(&source);
    assert_eq!(uses.rooms, ["alpha", "beta", "gamma", "delta", "eta", "theta"]);
    assert!(uses.names.iter().any(|name| name == "Instant"));
    assert!(!uses.names.iter().any(|name| name == "Inner"));
}

#[test]
fn unit_tests_are_no_product() {
    let text = "use std::net; #[cfg(test)] mod tests { use std::thread; fn f() { } } use std::time::Instant;";
    let inline = product(&SourceFile { path: "src/alpha/one.rs".into(), text: text.into() });
    assert_eq!(uses(&inline).names, ["net", "time", "Instant"]);
    let of_its_own = product(&SourceFile { path: "src/alpha/tests.rs".into(), text: text.into() });
    assert_eq!(uses(&of_its_own).names, Vec::<String>::new());
}

#[test]
fn a_path_by_super_reaches_a_room_too() {
    let rooms = |path: &str, text: &str| uses(&SourceFile { path: path.into(), text: text.into() }).rooms;
    assert_eq!(rooms("src/alpha/mod.rs", "use super::beta::X;"), ["beta"]);
    assert_eq!(rooms("src/alpha/one.rs", "use super::two;"), Vec::<String>::new());
    assert_eq!(rooms("src/alpha/one.rs", "use super::super::{beta, gamma};"), ["beta", "gamma"]);
    assert_eq!(rooms("src/alpha/deep/mod.rs", "use super::super::beta;"), ["beta"]);
    assert_eq!(rooms("src/alpha/deep/one.rs", "mod tests { use super::super::x; }"), Vec::<String>::new());
}

/// Room to floor, as the comments and modules of `lib.rs` say.
fn floors(lib: &str) -> BTreeMap<String, u32> {
    let (mut floors, mut floor) = (BTreeMap::new(), None);
    for line in lib.lines() {
        if let Some(rest) = line.strip_prefix("// Floor ") {
            floor = rest.split(':').next().and_then(|number| number.parse().ok());
        } else if let Some(room) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) {
            floors.insert(room.to_owned(), floor.unwrap_or_else(|| panic!("{room} is on no floor")));
        }
    }
    floors
}

/// `store` of `src/store/read.rs`; nothing for `src/lib.rs` and `src/main.rs`.
fn room_of(path: &str) -> Option<&str> {
    path.strip_prefix("src/")?.split_once('/').map(|(room, _)| room)
}

/// The file without its unit tests.
fn product(source: &SourceFile) -> SourceFile {
    let mut text = code(&source.text);
    if source.path.ends_with("/tests.rs") || source.path.contains("/tests/") {
        text.clear();
    }
    while let Some(start) = text.find("#[cfg(test)]") {
        let rest = &text[start..];
        let mut open = 0;
        let end = rest.char_indices().find(|(_, sign)| {
            open += i32::from(*sign == '{') - i32::from(*sign == '}');
            open == 0 && matches!(sign, '}' | ';')
        });
        let end = end.map_or(text.len(), |(at, _)| start + at + 1);
        text.replace_range(start..end, "");
    }
    SourceFile { path: source.path.clone(), text }
}

fn uses(source: &SourceFile) -> Uses {
    let code = code(&source.text);
    let tokens = tokens(&code);
    let mut uses = Uses::default();
    // The depth of each brace of an inline module, so that `super` in it is understood.
    let (mut modules, mut braces, mut at) = (Vec::new(), 0_usize, 0);
    while at < tokens.len() {
        match tokens[at] {
            "{" => {
                braces += 1;
                if at >= 2 && tokens[at - 2] == "mod" {
                    modules.push(braces);
                }
            }
            "}" => {
                modules.pop_if(|depth| *depth == braces);
                braces = braces.saturating_sub(1);
            }
            "crate" if tokens.get(at + 1) == Some(&"::") => heads(&tokens[at + 2..], &mut uses.rooms),
            "std" if tokens.get(at + 1) == Some(&"::") => tree(&tokens[at + 2..], &mut uses.names),
            "super" if at == 0 || tokens[at - 1] != "::" => {
                let path = tokens[at..].chunks(2).take_while(|pair| *pair == ["super", "::"]).count();
                if path > modules.len() && path - modules.len() >= depth(&source.path) {
                    heads(&tokens[at + 2 * path..], &mut uses.rooms);
                }
            }
            name if tokens.get(at + 1) == Some(&"::") && (at == 0 || tokens[at - 1] != "::") => {
                uses.names.push(name.to_owned());
            }
            _ => {}
        }
        at += 1;
    }
    uses.rooms.retain(|room| room != "self" && room != "*");
    uses
}

/// How many `super` lead from a file to the root of the crate.
fn depth(path: &str) -> usize {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    path.trim_end_matches("/mod").split('/').count()
}

/// The first names of a path or of a group of paths.
fn heads(tokens: &[&str], found: &mut Vec<String>) {
    let Some(group) = tokens.strip_prefix(&["{"]) else {
        return found.extend(tokens.first().map(ToString::to_string));
    };
    let (mut depth, mut expects) = (0_usize, true);
    for token in group {
        match *token {
            "{" => depth += 1,
            "}" if depth == 0 => return,
            "}" => depth -= 1,
            "," if depth == 0 => expects = true,
            name if expects && depth == 0 => {
                found.push(name.to_owned());
                expects = false;
            }
            _ => {}
        }
    }
}

/// Every name of a path or of a group of paths.
fn tree(tokens: &[&str], found: &mut Vec<String>) {
    let mut depth = 0_usize;
    for token in tokens {
        match *token {
            "{" => depth += 1,
            "}" if depth == 0 => return,
            "}" => depth -= 1,
            "::" | "*" => {}
            "," if depth > 0 => {}
            name if name.chars().all(|c| c.is_alphanumeric() || c == '_') => found.push(name.to_owned()),
            _ => return,
        }
    }
}
