//! Keeps what the tests send when `CAUSEWAY_RECORD` names a folder, a file for each connection: the seeds of
//! the fuzz targets are made from that (`fuzz/README.md`).

use std::{env, fs::OpenOptions, io::Write as _, net::TcpStream, path::Path};

/// Adds bytes to the file of their connection.
pub fn record(stream: &TcpStream, bytes: &[u8]) {
    let Some(folder) = env::var_os("CAUSEWAY_RECORD") else { return };
    // What is sent after the end has no receiver.
    let (Ok(client), Ok(broker)) = (stream.local_addr(), stream.peer_addr()) else { return };
    let path = Path::new(&folder).join(format!("{}-{}", broker.port(), client.port()));
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
}
