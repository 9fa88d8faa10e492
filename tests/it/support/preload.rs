//! Makes system calls of a real program stall, fail or lie, through a small library that is loaded before libc.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::process::Program;

/// Each fault is on while a file of its name exists. `accept` holds every accept; `clock` makes one reading of the
/// clock by a thread `body-N` fail, at which Rust's library panics, and removes its file. `shift` has the seconds by which
/// the time of day is later.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const char *file(char *path, size_t size, const char *name) {
    const char *dir = getenv("FAULT_DIR");
    snprintf(path, size, "%s/%s", dir ? dir : "/nowhere", name);
    return path;
}

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags) {
    char path[512];
    while (access(file(path, sizeof path, "accept"), F_OK) == 0) usleep(10000);
    return syscall(SYS_accept4, fd, address, length, flags);
}

int clock_gettime(clockid_t id, struct timespec *now) {
    char path[512], thread[16] = "";
    prctl(PR_GET_NAME, thread);
    if (strncmp(thread, "body-", 5) == 0 && unlink(file(path, sizeof path, "clock")) == 0) {
        errno = EINVAL;
        return -1;
    }
    int result = syscall(SYS_clock_gettime, id, now);
    FILE *shift = id == CLOCK_REALTIME ? fopen(file(path, sizeof path, "shift"), "r") : NULL;
    if (shift) {
        long seconds = 0;
        if (fscanf(shift, "%ld", &seconds) == 1) now->tv_sec += seconds;
        fclose(shift);
    }
    return result;
}
"#;

/// The library, and the directory that switches its faults.
pub struct Preload {
    dir: TempDir,
}

impl Preload {
    /// Builds the library; no fault is on.
    #[track_caller]
    pub fn build() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let source = dir.path().join("faults.c");
        fs::write(&source, SOURCE).expect("written");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(dir.path().join("faults.so")).arg(&source);
        let status = compiler.status().unwrap_or_else(|error| panic!("cc, which Rust needs too: {error}"));
        assert!(status.success(), "cc: {status}");
        Self { dir }
    }

    /// `program` with the library.
    pub fn attach(&self, program: Program) -> Program {
        program.env("LD_PRELOAD", self.path("faults.so")).env("FAULT_DIR", self.dir.path())
    }

    /// Switches a fault on.
    pub fn on(&self, fault: &str) {
        fs::write(self.path(fault), "").expect("written");
    }

    /// Makes the time of day so much later.
    pub fn shift_clock(&self, by: Duration) {
        fs::write(self.path("new-shift"), by.as_secs().to_string()).expect("written");
        fs::rename(self.path("new-shift"), self.path("shift")).expect("renamed");
    }

    /// Switches it off.
    pub fn off(&self, fault: &str) {
        fs::remove_file(self.path(fault)).expect("it was on");
    }

    /// True until it was switched off or, for a fault that happens once, has happened.
    pub fn is_on(&self, fault: &str) -> bool {
        self.path(fault).exists()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}
