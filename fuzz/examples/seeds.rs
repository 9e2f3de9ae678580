//! Makes candidates for seeds: from what the conformance tests have sent, and from the example configurations.
//!
//!     cargo run --example seeds -- RECORDED CANDIDATES
//!
//! `RECORDED` is the folder that `CAUSEWAY_RECORD` named during the conformance tests, `CANDIDATES` gets a folder
//! for each target. README.md says how the seeds are chosen among them.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use causeway::codec::{Decoder, MAX_PACKET_SIZE, Version};

/// Longer ones are no seeds.
const BYTES_MAX: usize = 1024;

fn main() -> io::Result<()> {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let (Some(recorded), Some(candidates)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: seeds RECORDED CANDIDATES");
        std::process::exit(2);
    };
    for entry in fs::read_dir(recorded)? {
        let stream = fs::read(entry?.path())?;
        let (version, packets) = packets(&stream);
        keep(&candidates, "decoder", &[&[0, 0], &stream[..]].concat())?;
        for (at, packet) in packets.iter().enumerate() {
            let peer = if at == 0 { 0 } else { 1 + version as u8 };
            keep(&candidates, "round_trip", &[&[peer, packet[0]], body(packet)].concat())?;
        }
        for honest_flags in [2, 3] {
            keep(
                &candidates,
                "session",
                &script(version, honest_flags, packets.get(1..).unwrap_or_default()),
            )?;
        }
    }
    for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../config"))? {
        let path = entry?.path();
        let text = without_comments(&fs::read_to_string(&path)?);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => keep(&candidates, "config", text.as_bytes())?,
            Some("acl") => keep(&candidates, "auth_files", format!("aada\nc1\na/b\na/+\n{text}").as_bytes())?,
            _ => {}
        }
    }
    Ok(())
}

/// The version of a stream and its packets, as far as they can be told apart.
fn packets(stream: &[u8]) -> (Version, Vec<&[u8]>) {
    let mut decoder = Decoder::server(MAX_PACKET_SIZE);
    let (mut packets, mut rest) = (Vec::new(), stream);
    while let Ok(Some(len)) = decoder.frame_len(rest) {
        let Some((packet, behind)) = rest.split_at_checked(len) else { break };
        packets.push(packet);
        rest = behind;
        if decoder.decode(packet).is_err() {
            break;
        }
    }
    (decoder.version().unwrap_or(Version::V5), packets)
}

/// What stands behind the length.
fn body(packet: &[u8]) -> &[u8] {
    let len = packet[1..].iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
    &packet[1 + len..]
}

/// The packets as raw steps of a session (`targets::session`), with everything written after each.
fn script(version: Version, flags: u8, packets: &[&[u8]]) -> Vec<u8> {
    let (choice, terms) = match version {
        Version::V5 => (0, 10),
        Version::V311 => (2, 7),
        Version::V31 => (3, 7),
    };
    let mut script = vec![choice, flags];
    script.resize(2 + terms, 0);
    for packet in packets.iter().filter(|packet| packet.len() < 256) {
        script.extend([13, 15, packet.len() as u8]);
        script.extend_from_slice(packet);
        // A report, all commits, and what may be written then.
        script.extend([4, 7, 8]);
    }
    script
}

fn without_comments(text: &str) -> String {
    let kept = text.lines().filter(|line| !line.starts_with("# ") && !line.trim().is_empty());
    kept.map(|line| format!("{}\n", line.trim_start_matches('#'))).collect()
}

/// A file that is named by its content, so that nothing is there twice.
fn keep(candidates: &Path, target: &str, seed: &[u8]) -> io::Result<()> {
    let folder = candidates.join(target);
    fs::create_dir_all(&folder)?;
    if seed.len() > BYTES_MAX && target != "config" {
        return Ok(());
    }
    let name = seed.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    });
    fs::write(folder.join(format!("{name:016x}")), seed)
}
