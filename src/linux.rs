//! Wraps Linux features that std lacks: TCP counters, process limits and usage, scheduling, host and boot id.
//!
//! Only this module, `sockets` and `thread_limit` use `/proc` or Linux socket options.

use std::fs;
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::SockRef;

/// The kernel's counters for one TCP connection.
#[derive(Clone, Copy, Debug)]
pub struct TcpCounters {
    /// Time since data last arrived.
    pub since_last_data: Duration,
    /// Bytes received since the connection was opened.
    pub bytes_received: u64,
    /// State of the connection.
    pub state: TcpState,
}

/// TCP states, reduced to those that callers distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// Both directions are open.
    Open,
    /// The peer has finished sending but may still read.
    PeerEnded,
    /// This side has closed the connection, or both have.
    Closing,
    /// A listening socket.
    Listen,
}

/// Counters of `stream`, or `None` if the kernel does not provide them.
pub fn tcp_counters(stream: &TcpStream) -> Option<TcpCounters> {
    // SAFETY: `tcp_info` consists of integers, for which zero is valid; the kernel writes at most `size`
    // bytes.
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

/// True while `stream` is open at both ends and has no unread data. Never blocks and consumes no data.
pub fn is_quiet(stream: &TcpStream) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    let peeked = SockRef::from(stream).recv_with_flags(&mut byte, flags);
    peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Raises the soft limit of open files to the hard limit and returns it.
///
/// # Errors
/// The kernel refuses; the old limit stays in effect.
pub fn raise_open_files_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid pointer to a local variable.
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

/// Turns a write past the file size limit (`ulimit -f`) into an error, like a full disk, instead of killing
/// the process.
pub fn ignore_file_size_signal() {
    // SAFETY: SIG_IGN installs no handler, and this signal has no other use.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Makes all threads share one heap: what is free at the end of another one would never be given back. For programs
/// with few allocations at a time, before they start threads.
pub fn share_heap() {
    // SAFETY: no pointers. A refusal would change nothing.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}

/// Gives memory that is free, but still held by this process, back to the system.
pub fn release_memory() {
    // SAFETY: no pointers; other threads may allocate meanwhile. The result only says whether there was any.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

/// The soft limit of open files; 0 if the kernel does not provide it.
pub fn open_files_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call gets a valid pointer to a local variable.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur
}

/// Sets the scheduling policy `SCHED_BATCH` for the calling thread and the threads that it starts: a woken
/// thread waits for the running thread's time slice to end instead of preempting it. On a busy machine,
/// threads then do more work per wake-up and sleep less often; on an idle machine nothing changes.
///
/// A policy other than the default was set deliberately and is left alone.
///
/// # Errors
/// The kernel refuses, for example in a sandbox. The policy is unchanged.
pub fn wake_patiently() -> io::Result<()> {
    // SAFETY: no pointers; 0 is the calling thread.
    if unsafe { libc::sched_getscheduler(0) } != libc::SCHED_OTHER {
        return Ok(());
    }
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: the call gets a valid pointer to a local variable; 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const param) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// CPU time that this process has used so far, in user and kernel mode.
pub fn cpu_time() -> Duration {
    cpu_time_of(libc::RUSAGE_SELF)
}

/// CPU time that the calling thread has used so far, in user and kernel mode.
pub fn thread_cpu_time() -> Duration {
    cpu_time_of(libc::RUSAGE_THREAD)
}

fn cpu_time_of(who: libc::c_int) -> Duration {
    // SAFETY: `rusage` consists of integers, for which zero is valid; the kernel fills the local variable.
    let usage = unsafe {
        let mut usage: libc::rusage = mem::zeroed();
        libc::getrusage(who, &raw mut usage);
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

/// The current size of a process, `self` or an id; values that cannot be read are 0.
pub fn process_size(process: &str) -> ProcessSize {
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

/// The host name of this machine or container; `unknown` if it cannot be read.
pub fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_: io::Error| "unknown".into(), |text| text.trim().to_owned())
}

/// The machine's boot id, which changes at every boot. Empty if the system has none; a power cut then cannot
/// be distinguished from a kill.
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
        assert!(std::thread::spawn(thread_cpu_time).join().expect("ends") < thread_cpu_time());
    }

    #[test]
    fn a_process_has_memory_files_and_threads() {
        let size = process_size("self");
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
        assert_eq!(policy(), before, "other threads are unchanged");
    }
}
