//! Settings of who may write to the producer, and of where its own pages are.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use super::values::{self, listen_address};
use crate::access::file::{self, LargestRequest, is_origin};
use crate::access::key::{self, KeyHash};
use crate::access::keys::Keys;

/// Who may write, and where the operator looks.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Access")]
pub struct AccessConfig {
    /// File with one key per line; without it everybody who reaches the port may write. Changes take effect within
    /// two seconds
    #[arg(long = "auth-keys-file", env = "AUTH_KEYS_FILE", value_name = "PATH")]
    pub keys_file: Option<PathBuf>,

    /// Origins whose pages may read our answers, for example `https://shop.example`, separated by commas
    #[arg(long, env = "CORS_ALLOW_ORIGINS", value_parser = origin, value_delimiter = ',', value_name = "ORIGINS")]
    pub cors_allow_origins: Vec<String>,

    /// Separate address for /metrics, /livez, /readyz and /version; the address for events then serves only events
    #[arg(long, env = "ADMIN_ADDR", value_parser = listen_address, value_name = "IP:PORT")]
    pub admin_addr: Option<SocketAddr>,

    /// Make a key for a client of this name and exit: the first line is the key, which is shown only here; the second
    /// is its line for AUTH_KEYS_FILE
    #[arg(long, value_parser = client_name, value_name = "CLIENT")]
    pub new_key: Option<String>,
}

impl AccessConfig {
    /// Reads the keys, if there is a file. What was used of limits is taken from `before`.
    ///
    /// # Errors
    /// One sentence with the file, the line and what to change.
    pub fn keys(&self, largest: LargestRequest, before: Option<&Keys>) -> Result<Option<Keys>, String> {
        let Some(path) = &self.keys_file else { return Ok(None) };
        read_keys(path, largest, before).map(Some)
    }
}

/// Reads a file of keys.
///
/// # Errors
/// One sentence with the file, the line and what to change.
pub fn read_keys(path: &Path, largest: LargestRequest, before: Option<&Keys>) -> Result<Keys, String> {
    let named = |reason: String| format!("AUTH_KEYS_FILE={}: {reason}", path.display());
    let beside = path.parent().unwrap_or(Path::new(""));
    let text = read(path).map_err(named)?;
    file::parse(&text, largest, |name| read(&beside.join(name)), before).map_err(named)
}

/// A new key, which is nowhere else, and below it its line for the file of keys.
///
/// # Errors
/// The random source does not answer.
pub fn new_key(client: &str) -> Result<String, String> {
    let (id, key) = key::generate()?;
    Ok(format!("{key}\n{client} secret {id} {}\n", KeyHash::of(&key)))
}

fn read(path: &Path) -> Result<String, String> {
    values::file("the file", path)?;
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

fn origin(text: &str) -> Result<String, String> {
    let text = text.trim();
    if is_origin(text) {
        return Ok(text.to_owned());
    }
    Err("expected scheme://host[:port] in lower case, as a browser sends it; `*` is not supported".into())
}

fn client_name(text: &str) -> Result<String, String> {
    if file::is_client_name(text) {
        return Ok(text.to_owned());
    }
    Err("expected at most 64 letters, digits, `.`, `_`, `-`".into())
}
