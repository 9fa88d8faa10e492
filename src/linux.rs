//! What std has no word for: a TCP connection as the kernel sees it, this process's limits, its size, its processor
//! time and how it is scheduled; and which boot of the machine this is.
//!
//! Together with `sockets` the only file that needs `/proc` or a Linux socket option.

use std::fs;
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::SockRef;

/// What the kernel counted on one TCP connection.
#[derive(Clone, Copy, Debug)]
pub struct TcpCounters {
    /// Time since data last arrived.
    pub since_last_data: Duration,
    /// Bytes that arrived since the connection was opened.
    pub bytes_received: u64,
    /// Where the connection is in its life.
    pub state: TcpState,
}

/// The states that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// Both directions are open.
    Open,
    /// The other side sends nothing more, and may still read.
    PeerEnded,
    /// This side has ended, or both.
    Closing,
    /// Waits for connections.
    Listen,
}

/// Counters of `stream`, or `None` when the kernel does not tell.
pub fn tcp_counters(stream: &TcpStream) -> Option<TcpCounters> {
    // SAFETY: `tcp_info` is plain integers, for which zero is a value; the kernel writes at most `size` bytes.
    let (info, failed) = unsafe {
        let mut info: libc::tcp_info = mem::zeroed();
        let mut size = mem::size_of::<libc::tcp_info>() as libc::socklen_t;
        let failed = libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut size,
        );
        (info, failed != 0)
    };
    (!failed).then(|| TcpCounters {
        since_last_data: Duration::from_millis(info.tcpi_last_data_recv.into()),
        bytes_received: info.tcpi_bytes_received,
        // Numbers of `include/net/tcp_states.h`.
        state: match info.tcpi_state {
            1..=3 => TcpState::Open,
            8 => TcpState::PeerEnded,
            10 => TcpState::Listen,
            _ => TcpState::Closing,
        },
    })
}

/// True while `stream` is open at both ends and holds nothing unread. Never blocks, changes nothing.
pub fn is_quiet(stream: &TcpStream) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    let peeked = SockRef::from(stream).recv_with_flags(&mut byte, flags);
    peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Raises the soft limit of open files to the hard one and returns it.
///
/// # Errors
/// When the kernel refuses; the old limit stays.
pub fn raise_open_files_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid pointer to a local.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return Err(io::Error::last_os_error());
        }
        limit.rlim_cur = limit.rlim_max;
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// Makes a write past the limit of file sizes (`ulimit -f`) an error like that of a full disk, instead of the end
/// of the process.
pub fn ignore_file_size_signal() {
    // SAFETY: SIG_IGN installs no handler of ours, and this signal has no other use.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// The soft limit of open files; 0 when the kernel does not tell.
pub fn open_files_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call gets a valid pointer to a local.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur
}

/// Lets a woken thread wait for the end of the running one's slice instead of cutting it short: for the calling
/// thread and those that it starts. On a full machine threads then do more between two sleeps and sleep less;
/// on an idle one nothing changes.
///
/// Another policy than the default one was chosen by whoever started us, and stays.
///
/// # Errors
/// When the kernel refuses, as a sandbox may; all stays as it was.
pub fn wake_patiently() -> io::Result<()> {
    // SAFETY: no pointers; 0 is the calling thread.
    if unsafe { libc::sched_getscheduler(0) } != libc::SCHED_OTHER {
        return Ok(());
    }
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: the call gets a valid pointer to a local; 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const param) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Processor time that this process has used so far, in user and kernel mode.
pub fn cpu_time() -> Duration {
    // SAFETY: `rusage` is plain integers, for which zero is a value; the kernel fills the local.
    let usage = unsafe {
        let mut usage: libc::rusage = mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let duration = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    duration(usage.ru_utime) + duration(usage.ru_stime)
}

/// The size of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessSize {
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// Threads.
    pub threads: u64,
}

/// The size of this process now; a figure that cannot be read is 0.
pub fn process_size() -> ProcessSize {
    size_of("self")
}

/// The size of the process `pid` now; all 0 when there is none.
pub fn process_size_of(pid: u32) -> ProcessSize {
    size_of(&pid.to_string())
}

fn size_of(process: &str) -> ProcessSize {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    };
    ProcessSize {
        resident_bytes: field("VmRSS:").unwrap_or(0) * 1024,
        open_fds: fs::read_dir(format!("/proc/{process}/fd")).map_or(0, |entries| entries.count() as u64),
        threads: field("Threads:").unwrap_or(0),
    }
}

/// The name of this machine, or of the container that we run in.
pub fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_: io::Error| "unknown".into(), |text| text.trim().to_owned())
}

/// An identity of this boot of the machine; empty where the system has none.
///
/// # Errors
/// None: a system without one cannot tell a power cut from a kill.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_: io::Error| String::new(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_connection_is_quiet_until_data_or_the_end_arrives() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (mut server, _) = listener.accept().expect("accept");
        assert!(is_quiet(&client) && is_quiet(&server));
        server.write_all(b"x").expect("write");
        client.peek(&mut [0]).expect("arrived");
        assert!(!is_quiet(&client));
        drop(client);
        while is_quiet(&server) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn work_costs_processor_time() {
        let before = cpu_time();
        let mut sum = 0_u64;
        while cpu_time() < before + Duration::from_millis(2) {
            sum = (0..10_000).fold(sum, |sum, n| std::hint::black_box(sum ^ n));
        }
        assert!(cpu_time() > before, "{sum}");
    }

    #[test]
    fn a_process_has_memory_files_and_threads() {
        let size = process_size_of(std::process::id());
        assert!(process_size().threads >= 1);
        assert!(size.resident_bytes > 100_000 && size.open_fds >= 3 && size.threads >= 1, "{size:?}");
    }

    #[test]
    fn patience_is_handed_down_to_threads() {
        // SAFETY: no pointers; 0 is the calling thread.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        let before = policy();
        let inherited = std::thread::spawn(move || {
            wake_patiently().expect("allowed");
            std::thread::spawn(policy).join().expect("no panic")
        });
        let expected = if before == libc::SCHED_OTHER { libc::SCHED_BATCH } else { before };
        assert_eq!(inherited.join().expect("no panic"), expected);
        assert_eq!(policy(), before, "the others stay as they are");
    }
}
