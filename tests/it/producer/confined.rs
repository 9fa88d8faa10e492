//! A producer that may have few threads: it says so at the start, and never blames its address for it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::producer::Served;
use crate::support::http::is_on_edge;
use crate::support::kafka::shared;
use crate::support::process::Program;
use crate::support::wait::secs;

const PRODUCER: &str = env!("CARGO_BIN_EXE_producer");

/// A control group that holds at most so many processes and threads.
struct Group(PathBuf);

impl Group {
    /// `None` where this user or this container may not make one.
    fn new(pids: u32) -> Option<Self> {
        let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+pids");
        ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].into_iter().find_map(|parent| {
            let dir = Path::new(parent).join(format!("event-pipeline-{:08x}", fastrand::u32(..)));
            fs::create_dir(&dir).ok()?;
            let group = Self(dir);
            let has_limit = group.0.join("pids.max").exists();
            (has_limit && fs::write(group.0.join("pids.max"), pids.to_string()).is_ok()).then_some(group)
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// How a test limits the threads of a program.
enum Limit {
    Group(Group),
    /// RLIMIT_NPROC of a user that has no other process: it does not hold for root.
    User(u32),
}

impl Limit {
    /// The producer under this limit, and how its messages name it.
    fn producer(&self, threads: u32) -> (Program, String) {
        let script = match self {
            Self::Group(group) => format!("echo $$ >{}/cgroup.procs && exec {PRODUCER}", group.0.display()),
            Self::User(user) => format!(
                "exec setpriv --reuid={user} --regid={user} --clear-groups prlimit --nproc={threads} ./producer"
            ),
        };
        let program = Program::new("producer", "/bin/bash").args(&["-c", &script]);
        if let Self::User(_) = self {
            fs::copy(PRODUCER, program.directory().join("producer")).expect("copied");
            fs::set_permissions(program.directory(), fs::Permissions::from_mode(0o755)).expect("opened");
        }
        let named = match self {
            Self::Group(group) => format!("pids.max={threads} of {}", group.0.display()),
            Self::User(user) => format!("`ulimit -u` {threads} of user {user}"),
        };
        (program.env("HTTP_ADDR", "127.0.0.1:0"), named)
    }

    /// Every way that this machine has; a user's limit can always be set by root.
    fn ways(threads: u32) -> Vec<Self> {
        // SAFETY: takes and returns integers.
        let is_root = unsafe { libc::geteuid() } == 0;
        assert!(is_root, "limits on threads are tested as another user: run this as root");
        let group = Group::new(threads).map(Self::Group);
        group.into_iter().chain([Self::User(fastrand::u32(1_000_000_000..2_000_000_000))]).collect()
    }
}

/// The number right after `words`.
fn number_after(text: &str, words: &str) -> u64 {
    let (_, after) = text.split_once(words).unwrap_or_else(|| panic!("{words:?} is not in {text}"));
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number after {words:?} in {text}"))
}

#[test]
fn fewer_threads_than_its_limits_need_are_said_at_the_start() {
    // `edge` needs no thread for a connection.
    if is_on_edge() {
        return;
    }
    let topic = shared().topic();
    for limit in Limit::ways(60) {
        let (program, named) = limit.producer(60);
        let mut program =
            program.env("KAFKA_BROKERS", topic.brokers()).env("KAFKA_TOPIC", &topic.name).start();
        let served = Served { address: program.address(), program };
        served.wait_ready();
        let said = served.program.stderr();
        let warning = said.lines().find(|line| line.contains("[WARN]") && line.contains(&named));
        let warning = warning.unwrap_or_else(|| panic!("no warning names {named}: {said}"));
        // Each connection, and what the leak budget and the producer itself may need besides.
        assert!(number_after(warning, " can need ") > 2048 + 256, "{warning}");
        assert!(warning.contains("HTTP_MAX_CONNECTIONS=2048"), "{warning}");
        assert_eq!(served.post("{}").status, 200);
    }
}

#[test]
fn too_few_threads_to_serve_at_all_end_the_start_and_the_address_is_not_blamed() {
    for limit in Limit::ways(20) {
        let (program, named) = limit.producer(20);
        let ended = program.run(secs(60));
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        let last = ended.stderr.lines().last().unwrap_or_default();
        assert!(last.contains("[ERROR]") && last.contains(&named), "{}", ended.stderr);
        assert!(number_after(last, " needs ") > 20, "{}", ended.stderr);
        assert!(
            !ended.stderr.contains("HTTP_ADDR") && !ended.stderr.contains("panicked"),
            "{}",
            ended.stderr
        );
    }
}
