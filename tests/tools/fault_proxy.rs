//! The tests' proxy as a program, so that `scripts/chaos.sh` cuts the connections of real programs with it.
//!
//! `fault-proxy tcp|kafka ADDRESS[,ADDRESS]` prints where it listens, then takes one order a line from stdin
//! and says `done` after each. It ends with stdin.

#![allow(dead_code, reason = "the tests use more of the proxy")]

#[path = "../it/support/proxy.rs"]
mod proxy;

use std::env;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use proxy::{Direction, Proxy};

const USAGE: &str = "usage: fault-proxy tcp|kafka ADDRESS[,ADDRESS]
orders on stdin:
  cut                      cut every connection
  cut-request BYTES        cut one connection once so many more bytes of requests have passed
  cut-reply BYTES          the same for replies
  lose-replies KEY TIMES   Kafka only: cut instead of passing the next replies to requests of this API key
  accepted                 print how many connections were accepted";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // Nobody is left to be told when stderr is closed.
            let _ = writeln!(io::stderr(), "fault-proxy: {reason}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), String> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let proxies = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tcp", address] => vec![Proxy::tcp(address)],
        ["kafka", addresses] => Proxy::kafka(addresses),
        _ => return Err(USAGE.into()),
    };
    let addresses: Vec<String> = proxies.iter().map(|proxy| proxy.address().to_string()).collect();
    tell(&addresses.join(","))?;
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| format!("stdin: {error}"))?;
        tell(&obey(&line, &proxies).ok_or_else(|| format!("{line:?} is no order\n{USAGE}"))?)?;
    }
    Ok(())
}

fn tell(text: &str) -> Result<(), String> {
    writeln!(io::stdout(), "{text}").map_err(|error| format!("stdout: {error}"))
}

/// Carries out one order on each proxy; `None` if it is none.
fn obey(line: &str, proxies: &[Proxy]) -> Option<String> {
    match line.split(' ').collect::<Vec<_>>()[..] {
        ["cut"] => proxies.iter().for_each(Proxy::cut),
        ["cut-request", bytes] => cut_after(proxies, Direction::Request, bytes)?,
        ["cut-reply", bytes] => cut_after(proxies, Direction::Reply, bytes)?,
        ["lose-replies", key, times] => {
            let (key, times) = (key.parse().ok()?, times.parse().ok()?);
            proxies.iter().for_each(|proxy| proxy.lose_replies(key, times));
        }
        ["accepted"] => return Some(proxies.iter().map(Proxy::accepted).sum::<usize>().to_string()),
        _ => return None,
    }
    Some("done".into())
}

fn cut_after(proxies: &[Proxy], direction: Direction, bytes: &str) -> Option<()> {
    let bytes = bytes.parse().ok()?;
    proxies.iter().for_each(|proxy| proxy.cut_after(direction, bytes));
    Some(())
}
