//! `causeway [serve]`: run the broker.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{Config, ListenerConfig};
use crate::server::{self, Exit};

/// Flags that stand above the configuration.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeArgs {
    /// Configuration file; without one the built-in defaults serve on loopback
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the database, in place of the one in the configuration
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address of the plain MQTT listener, in place of those in the configuration; "none" for no plain one
    #[arg(long, value_name = "ADDR")]
    listen: Option<Listen>,
}

/// The value of `--listen`.
#[derive(Clone, Copy, Debug)]
enum Listen {
    None,
    At(SocketAddr),
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        let address =
            text.parse().map_err(|_| "give an address and a port, as in 127.0.0.1:1883, or \"none\"")?;
        Ok(Self::At(address))
    }
}

/// Runs the broker until it is told to stop.
pub fn run(args: &ServeArgs) -> ExitCode {
    let mut config = match &args.config {
        None => Config::default(),
        Some(path) => match Config::load(path) {
            Ok(config) => config,
            Err(error) => {
                eprintln!("{error}");
                return Exit::Configuration.into();
            }
        },
    };
    if let Some(data) = &args.data {
        config.store.path.clone_from(data);
    }
    if let Some(listen) = args.listen {
        config.listeners.retain(|listener| listener.tls.is_some());
        if let Listen::At(address) = listen {
            if let Err(message) = allowed(&config, address) {
                eprintln!("{message}");
                return Exit::Configuration.into();
            }
            config.listeners.insert(0, ListenerConfig::plain(address));
        }
    }
    if config.listeners.is_empty() {
        eprintln!("there is no listener left: \"--listen none\" needs a TLS listener in the configuration");
        return Exit::Configuration.into();
    }
    // Who moves the plain listener runs a second broker: what it did not ask for may be taken.
    let spare = args.config.is_none() && args.listen.is_some();
    server::run(config, args.config.clone(), spare).into()
}

/// The rule of the configuration holds for the flag as well: nobody comes in from outside by accident.
fn allowed(config: &Config, address: SocketAddr) -> Result<(), String> {
    let auth = &config.auth;
    if address.ip().is_loopback() || auth.password_file.is_some() || auth.anonymous == Some(true) {
        return Ok(());
    }
    Err(format!(
        "--listen {address} can be reached from outside, and there is no password file. Name one in [auth] \
         of a configuration file (make it with `causeway passwd`), or allow everyone with `anonymous = true`"
    ))
}
