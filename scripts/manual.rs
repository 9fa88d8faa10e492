//! Writes man pages and completions for bash, zsh and fish from the settings of the programs, for scripts/package.sh.
//!
//! It is an example, so that the programs themselves carry none of it.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_complete::aot::generate_to;
use clap_mangen::Man;
use event_pipeline::config::{ConsumerConfig, LiveConfig, ProducerConfig, SimulateConfig};

/// Where the shells look for completions, below a prefix such as `/usr`.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "share/bash-completion/completions"),
    (Shell::Zsh, "share/zsh/vendor-completions"),
    (Shell::Fish, "share/fish/vendor_completions.d"),
];

/// Where man looks for pages of programs.
const PAGES: &str = "share/man/man1";

/// What no setting says.
const ENDING: &str = r#".SH FILES
.TP
\fI.env\fR
Settings, in the working directory or the nearest one above it.
A flag wins over the environment, and the environment over this file.
.SH "EXIT STATUS"
.TP
\fB0\fR
Done.
.TP
\fB1\fR
Failed while running; the last line on standard error says why.
.TP
\fB2\fR
A setting is bad, or Kafka cannot serve the program or refused its login at the start.
.TP
\fB65\fR
Only a human can decide how to continue (consumer).
.TP
\fB70\fR
The process must be replaced (producer with \fBHTTP_SERVER=tiny_http\fR).
.SH "SEE ALSO"
.BR producer (1),
.BR consumer (1),
.BR live (1),
.BR simulate (1)
"#;

/// The programs with their settings.
pub fn programs() -> [Command; 4] {
    [ProducerConfig::command(), ConsumerConfig::command(), LiveConfig::command(), SimulateConfig::command()]
}

/// The man page of a program.
pub fn page(command: Command) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    Man::new(command).source(concat!("event-pipeline ", env!("CARGO_PKG_VERSION"))).render(&mut text)?;
    text.extend_from_slice(ENDING.as_bytes());
    Ok(text)
}

/// Writes the pages and completions of all programs below `prefix`, and returns their paths.
pub fn write(prefix: &Path) -> io::Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    for mut command in programs() {
        let name = command.get_name().to_owned();
        for (shell, directory) in COMPLETIONS {
            let directory = prefix.join(directory);
            fs::create_dir_all(&directory)?;
            let path = generate_to(shell, &mut command, &name, &directory)?;
            // Where bash looks, a file has the name of its program.
            let wanted = if shell == Shell::Bash { directory.join(&name) } else { path.clone() };
            fs::rename(path, &wanted)?;
            written.push(wanted);
        }
        fs::create_dir_all(prefix.join(PAGES))?;
        let path = prefix.join(PAGES).join(format!("{name}.1"));
        fs::write(&path, page(command)?)?;
        written.push(path);
    }
    Ok(written)
}

fn main() -> io::Result<()> {
    let prefix = env::args_os().nth(1).ok_or_else(|| io::Error::other("usage: manual PREFIX"))?;
    write(Path::new(&prefix)).map(drop)
}
