//! A real PostgreSQL (Debian's postgresql-15), as the unprivileged user that it insists on, to be harmed.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use crate::support::machine::Ports;
use crate::support::process::send_signal;
use crate::support::wait::{eventually, secs};

/// Where Debian keeps the programs of the server.
const BIN: &str = "/usr/lib/postgresql/15/bin";

/// The user that owns the tables unless a test says otherwise.
pub const OWNER: &str = "postgres";

/// Everybody gets in, except `writer`, who needs a password.
const HBA: &str = "host all writer 127.0.0.1/32 scram-sha-256\nhost all,replication all 127.0.0.1/32 trust\n";

/// Waits for the end of its input, which comes at the latest with the end of the test process, and ends the server.
const KEEPER: &str = r#"
dir=$1; shift
"$@" >>"$dir/log" 2>&1 </dev/null &
pid=$!
read -r _
kill -QUIT "$pid" 2>/dev/null
wait "$pid"
"#;

/// A server with a data directory of its own. Dropping it kills it.
pub struct Postgres {
    data: PathBuf,
    ports: Ports,
    /// Which of the ports it listens on.
    number: u16,
    settings: Vec<String>,
    keeper: Option<Child>,
    _dir: Option<TempDir>,
}

/// A database of one test.
pub struct Database<'a> {
    pub server: &'a Postgres,
    pub name: String,
}

/// The server that tests share which do no harm to it.
pub fn shared() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(|| Postgres::start(&[]))
}

impl Postgres {
    /// A private server with settings such as `max_connections=5`.
    pub fn start(settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let mut server = Self::create(&dir.path().join("data"), settings);
        server._dir = Some(dir);
        server.run();
        server
    }

    /// A private server with its data in `data`, whose parent directory is there.
    pub fn create(data: &Path, settings: &[&str]) -> Self {
        let parent = data.parent().expect("a parent");
        open_to_all(parent);
        fs::create_dir(data).expect("created");
        give(data);
        let output = as_user(&format!("{BIN}/initdb"))
            .args([
                "--username",
                OWNER,
                "--auth",
                "trust",
                "--no-sync",
                "--encoding",
                "UTF8",
                "--locale",
                "C",
                "-D",
            ])
            .arg(data)
            .output()
            .expect("initdb runs; install it (Debian: apt-get install postgresql-15)");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        fs::write(data.join("pg_hba.conf"), HBA).expect("written");
        Self {
            data: data.to_owned(),
            ports: Ports::reserve(1),
            number: 0,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            keeper: None,
            _dir: None,
        }
    }

    /// A copy of this server's data as another server, which follows it as a standby.
    pub fn standby(&self) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        open_to_all(dir.path());
        let data = dir.path().join("data");
        fs::create_dir(&data).expect("created");
        give(&data);
        let output = as_user(&format!("{BIN}/pg_basebackup"))
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &self.port().to_string(),
                "-U",
                OWNER,
                "-R",
                "-X",
                "stream",
                "-c",
                "fast",
            ])
            .arg("--no-sync")
            .arg("-D")
            .arg(&data)
            .output()
            .expect("pg_basebackup runs");
        assert!(output.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&output.stderr));
        let mut server = Self {
            data,
            ports: Ports::reserve(1),
            number: 0,
            settings: self.settings.clone(),
            keeper: None,
            _dir: Some(dir),
        };
        server.run();
        server
    }

    /// Starts it and waits until it answers.
    pub fn run(&mut self) {
        let mut command = as_user("/bin/bash");
        command.args(["-c", KEEPER, "keeper"]).arg(self.data.parent().expect("a parent"));
        command
            .arg(format!("{BIN}/postgres"))
            .arg("-D")
            .arg(&self.data)
            .args(["-p", &self.port().to_string()]);
        let fixed =
            ["listen_addresses=127.0.0.1", "unix_socket_directories=", "shared_buffers=16MB", "fsync=off"];
        for setting in fixed.into_iter().chain(self.settings.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        let keeper = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.keeper = Some(keeper.expect("bash runs"));
        eventually(secs(120), "PostgreSQL answers", || self.try_sql(OWNER, "SELECT 1").is_ok());
    }

    pub fn port(&self) -> u16 {
        self.ports.first + self.number
    }

    /// Its address, host:port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// The process id of the server; `None` if it does not run.
    pub fn pid(&self) -> Option<u32> {
        let file = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        let pid = file.lines().next()?.parse().ok()?;
        Path::new(&format!("/proc/{pid}")).exists().then_some(pid)
    }

    /// SIGKILL for the server and all of its processes, as a machine that fails.
    pub fn kill(&mut self) {
        let Some(pid) = self.pid() else { return };
        let mut pids = children_of(pid);
        pids.insert(0, pid);
        for pid in &pids {
            // SAFETY: `kill` takes two integers; one that has just ended is gone.
            unsafe { libc::kill(*pid as i32, libc::SIGKILL) };
        }
        self.end_keeper();
        eventually(secs(60), "all processes of the server are gone", || {
            pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}/fd/0")).exists())
        });
    }

    /// A fast shutdown: sessions are ended and told so.
    pub fn stop(&mut self) {
        if let Some(pid) = self.pid() {
            send_signal(pid, libc::SIGINT);
            eventually(secs(60), "the server has stopped", || self.pid().is_none());
        }
        self.end_keeper();
    }

    fn end_keeper(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }

    /// A database of its own for a test.
    pub fn database(&self) -> Database<'_> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("test{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.try_sql(OWNER, &format!("CREATE DATABASE {name}")).expect("created");
        Database { server: self, name }
    }

    /// Runs statements with `psql` in a database, and returns the rows, columns apart by `|`.
    pub fn try_sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let output = self
            .psql(database)
            .args(["-c", sql])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("psql does not start: {error}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn psql(&self, database: &str) -> Command {
        let mut command = Command::new("psql");
        command
            .args(["-h", "127.0.0.1", "-p", &self.port().to_string(), "-U", OWNER, "-d", database])
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .env("PGCONNECT_TIMEOUT", "5");
        command
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let path = self.data.parent().expect("a parent").join("log");
        fs::read_to_string(path).unwrap_or_default()
    }

    /// Where its data is.
    pub fn data(&self) -> &Path {
        &self.data
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
        self.end_keeper();
    }
}

impl Database<'_> {
    /// `DESTINATION_URL` for it.
    pub fn url(&self) -> String {
        self.url_at(&self.server.address())
    }

    /// The same through other hosts.
    pub fn url_at(&self, hosts: &str) -> String {
        format!("postgres://{OWNER}@{hosts}/{}", self.name)
    }

    /// Runs statements; see [`Postgres::try_sql`].
    #[track_caller]
    pub fn sql(&self, sql: &str) -> String {
        self.server.try_sql(&self.name, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// One number.
    #[track_caller]
    pub fn number(&self, sql: &str) -> i64 {
        let text = self.sql(sql);
        text.parse().unwrap_or_else(|_| panic!("{sql}: {text:?} is not a number"))
    }

    /// A session that runs statements, one per line, and stays as it is then until it is dropped.
    pub fn hold(&self, sql: &str) -> Held {
        let mut command = self.server.psql(&self.name);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("psql starts");
        writeln!(child.stdin.as_mut().expect("piped"), "{sql}").expect("psql reads");
        Held(child)
    }

    /// Its tables are there.
    pub fn has_tables(&self) -> bool {
        self.sql("SELECT to_regclass('event_offsets') IS NOT NULL") == "t"
    }
}

/// A session that holds something. Dropping it ends the session.
pub struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command that runs as the user of the server: PostgreSQL refuses root.
fn as_user(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").current_dir("/");
    if let Some((user, group)) = owner() {
        command.uid(user).gid(group);
    }
    command
}

/// Who runs the server, if we are root.
fn owner() -> Option<(u32, u32)> {
    static OWNER_IDS: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *OWNER_IDS.get_or_init(|| {
        // SAFETY: it takes nothing and cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            return None;
        }
        let id = |flag: &str| {
            let output = Command::new("id").args([flag, "postgres"]).output().expect("id runs");
            String::from_utf8_lossy(&output.stdout)
                .trim()
                .parse()
                .expect("the package has made the user postgres")
        };
        Some((id("-u"), id("-g")))
    })
}

/// Gives a file or directory to the user of the server alone.
pub fn give(path: &Path) {
    if let Some((user, group)) = owner() {
        std::os::unix::fs::chown(path, Some(user), Some(group)).expect("we are root");
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(path, mode).expect("we are root");
    }
}

/// The server's user must be able to pass, and to write its log.
fn open_to_all(path: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(path, mode).expect("it is ours");
}

fn children_of(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("proc(5)").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').nth(1).map(str::to_owned));
        after.flatten().and_then(|text| text.parse::<u32>().ok()) == Some(parent)
    })
    .collect()
}
