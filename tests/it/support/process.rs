//! Runs our real programs: a clean environment, a directory of their own, output kept, killed on drop.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use event_pipeline::linux::{ProcessSize, process_size};
use tempfile::TempDir;

use crate::support::http::given_server;
use crate::support::kafka::given_client;
use crate::support::wait::{eventually, eventually_some, secs};

/// A program about to be started.
pub struct Program {
    command: Command,
    name: &'static str,
    own_dir: Option<TempDir>,
}

impl Program {
    /// The producer on a free port.
    pub fn producer() -> Self {
        Self::new("producer", env!("CARGO_BIN_EXE_producer")).env("HTTP_ADDR", "127.0.0.1:0")
    }

    /// The consumer; `logs/events.log` is in its own directory, its metrics are on a free port.
    pub fn consumer() -> Self {
        Self::new("consumer", env!("CARGO_BIN_EXE_consumer")).env("METRICS_ADDR", "127.0.0.1:0")
    }

    /// The simulator.
    pub fn simulate() -> Self {
        Self::new("simulate", env!("CARGO_BIN_EXE_simulate"))
    }

    /// The live page on a free port.
    #[cfg(feature = "live")]
    pub fn live() -> Self {
        Self::new("live", env!("CARGO_BIN_EXE_live")).env("LIVE_ADDR", "127.0.0.1:0")
    }

    /// Any program, in a new directory of its own and with an environment of nothing but `PATH`.
    pub fn new(name: &'static str, path: &str) -> Self {
        let own_dir = tempfile::tempdir().expect("temporary directory");
        let mut command = Command::new(path);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(given_client().map(|client| ("KAFKA_CLIENT", client)));
        command.envs(given_server().map(|server| ("HTTP_SERVER", server)));
        command.current_dir(own_dir.path());
        Self { command, name, own_dir: Some(own_dir) }
    }

    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    /// Runs in `dir` instead of a directory of its own.
    pub fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self.own_dir = None;
        self
    }

    /// The directory that it will run in.
    pub fn directory(&self) -> &Path {
        self.command.get_current_dir().expect("set by `new`")
    }

    /// Starts it.
    pub fn start(mut self) -> Running {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let stdout = Output::follow(child.stdout.take().expect("piped"));
        let stderr = Output::follow(child.stderr.take().expect("piped"));
        let dir = self.command.get_current_dir().expect("set above").to_owned();
        Running { child, name: self.name, stdout, stderr, dir, _own_dir: self.own_dir }
    }

    /// Starts it with a small pipe as its stderr, which nobody reads until the caller does.
    pub fn start_unread(self) -> (Running, PipeReader) {
        let (reader, writer) = io::pipe().expect("a pipe");
        // SAFETY: `fcntl` takes an open descriptor and integers.
        let size = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
        assert_eq!(size, 4096, "{}", io::Error::last_os_error());
        (self.start_with(writer), reader)
    }

    /// The same with a pipe that is full from the beginning.
    pub fn start_unread_full(self) -> (Running, PipeReader) {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let capacity = unsafe {
            // SAFETY: `fcntl` takes an open descriptor and integers.
            libc::fcntl(writer.as_raw_fd(), libc::F_GETPIPE_SZ)
        };
        writer.write_all(&vec![b'x'; capacity as usize]).expect("room");
        (self.start_with(writer), reader)
    }

    fn start_with(mut self, stderr: PipeWriter) -> Running {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let stdout = Output::follow(child.stdout.take().expect("piped"));
        let dir = self.command.get_current_dir().expect("set by `new`").to_owned();
        // The command keeps the pipe's end open as long as it lives.
        drop(self.command);
        let stderr = Output::follow(io::empty());
        Running { child, name: self.name, stdout, stderr, dir, _own_dir: self.own_dir }
    }

    /// Starts it and waits for its end.
    #[track_caller]
    pub fn run(self, limit: Duration) -> Finished {
        let mut running = self.start();
        let status = running.wait(limit);
        Finished { status, stdout: running.stdout.all(), stderr: running.stderr.all() }
    }
}

/// What a program that ended has left.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// A program that was started. Dropping it kills it; after a failed test its output is shown.
pub struct Running {
    child: Child,
    name: &'static str,
    stdout: Output,
    stderr: Output,
    dir: PathBuf,
    _own_dir: Option<TempDir>,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its working directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Memory, descriptors and threads now.
    pub fn size(&self) -> ProcessSize {
        process_size(&self.pid().to_string())
    }

    /// Most memory that it ever had, in bytes.
    pub fn peak_bytes(&self) -> usize {
        self.memory_bytes("VmHWM:")
    }

    /// Memory now, without that of its files, in bytes.
    pub fn anonymous_bytes(&self) -> usize {
        self.memory_bytes("RssAnon:")
    }

    fn memory_bytes(&self, kind: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(kind)).expect("proc(5)");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("proc(5)") << 10
    }

    /// Processor time it has used so far, in ticks of 10 ms.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        // The name, which is in parentheses, may contain spaces.
        let (_, fields) = stat.rsplit_once(") ").expect("proc(5)");
        fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("proc(5)")).sum()
    }

    pub fn stdout(&self) -> String {
        self.stdout.so_far()
    }

    pub fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    /// The rest of the first line on stderr after `prefix`, which may stand anywhere in it.
    #[track_caller]
    pub fn stderr_after(&mut self, prefix: &str) -> String {
        let what = format!("{} says {prefix:?}", self.name);
        eventually_some(secs(60), &what, || {
            let text = self.stderr.so_far();
            let found =
                text.split_inclusive('\n').find_map(|line| line.strip_suffix('\n')?.split_once(prefix));
            if found.is_none()
                && let Ok(Some(status)) = self.child.try_wait()
            {
                panic!("{} ended ({status}) before it said {prefix:?}: {}", self.name, self.stderr.so_far());
            }
            found.map(|(_, rest)| rest.to_owned())
        })
    }

    /// Where it listens, from its line `listening on 127.0.0.1:PORT`.
    #[track_caller]
    pub fn address(&mut self) -> SocketAddr {
        let rest = self.stderr_after("listening on ");
        let address = rest.split_whitespace().next().and_then(|text| text.parse().ok());
        address.unwrap_or_else(|| panic!("not an address: {rest:?}"))
    }

    pub fn signal(&self, signal: i32) {
        send_signal(self.pid(), signal);
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// True until it has ended.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its own end; panics when `limit` passes first.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        eventually(limit, &format!("{} ends", self.name), || !self.is_alive());
        // Its last words may still be in the pipes.
        let _ = (self.stdout.all(), self.stderr.all());
        self.child.wait().expect("it has ended")
    }

    /// SIGTERM, then waits for the end.
    #[track_caller]
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait(limit)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let (stdout, stderr) = (self.stdout.all(), self.stderr.all());
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("--- stdout of {} ---\n{stdout}\n--- its stderr ---\n{stderr}\n", self.name),
            );
        }
    }
}

/// One output stream, read by a thread so that the program never blocks on a full pipe.
struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn follow(mut stream: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let kept = bytes.clone();
        let reader = thread::spawn(move || {
            let mut chunk = [0; 8192];
            while let Ok(length @ 1..) = stream.read(&mut chunk) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).extend(&chunk[..length]);
            }
        });
        Self { bytes, reader: Some(reader) }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// All of it, after the program has ended.
    fn all(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.so_far()
    }
}

/// Sends `signal`; panics when there is no such process.
#[track_caller]
pub fn send_signal(pid: u32, signal: i32) {
    // SAFETY: `kill` takes two integers and touches no memory of ours.
    let failed = unsafe { libc::kill(pid as i32, signal) } != 0;
    assert!(!failed, "signal {signal} to {pid}: {}", std::io::Error::last_os_error());
}

/// True when `status` is death by `signal`.
pub fn died_of(status: ExitStatus, signal: i32) -> bool {
    status.signal() == Some(signal)
}
