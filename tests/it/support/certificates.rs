//! An authority and certificates of its making, by the machine's `openssl`, as files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `openssl` has no defaults that could be relied on.
const SETTINGS: &str = "[req]\ndistinguished_name = name\nprompt = no\n[name]\nCN = test\n\
    [ca]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign\n";

/// Who signs certificates.
pub struct Authority {
    dir: PathBuf,
    name: &'static str,
}

/// A certificate, its key, and both in one file as Kafka wants them.
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub both: PathBuf,
}

impl Authority {
    /// Its files stand in `dir`.
    pub fn new(dir: &Path, name: &'static str) -> Self {
        let authority = Self { dir: dir.to_owned(), name };
        fs::write(authority.path("openssl.cnf"), SETTINGS).expect("written");
        let (key, file) = (authority.key(), authority.file());
        authority.openssl(
            &["req", "-x509", "-config", "openssl.cnf", "-extensions", "ca", "-days", "2"],
            |command| {
                command.args([
                    "-subj",
                    &format!("/CN={name}"),
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:prime256v1",
                ]);
                command.arg("-nodes").arg("-keyout").arg(&key).arg("-out").arg(&file);
            },
        );
        authority
    }

    /// Its own certificate.
    pub fn file(&self) -> PathBuf {
        self.path(&format!("{}.pem", self.name))
    }

    fn key(&self) -> PathBuf {
        self.path(&format!("{}.key", self.name))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A certificate for `names`, like `IP:127.0.0.1,DNS:localhost`, that is good for `days`; with 0 it has
    /// expired a second later.
    pub fn certify(&self, name: &str, names: &str, days: u32) -> Certificate {
        let file = |extension: &str| self.path(&format!("{name}-by-{}.{extension}", self.name));
        let (key, request, extensions) = (file("key"), file("csr"), file("ext"));
        let (certificate, both) = (file("pem"), file("both.pem"));
        self.openssl(&["req", "-new", "-config", "openssl.cnf", "-nodes"], |command| {
            command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
            command
                .arg("-subj")
                .arg(format!("/CN={name}"))
                .arg("-keyout")
                .arg(&key)
                .arg("-out")
                .arg(&request);
        });
        fs::write(&extensions, format!("subjectAltName={names}\n")).expect("written");
        self.openssl(&["x509", "-req", "-days", &days.to_string()], |command| {
            command.arg("-set_serial").arg(fastrand::u32(1..).to_string());
            command.arg("-in").arg(&request).arg("-CA").arg(self.file()).arg("-CAkey").arg(self.key());
            command.arg("-extfile").arg(&extensions).arg("-out").arg(&certificate);
        });
        let text = [fs::read(&key).expect("a key"), fs::read(&certificate).expect("a certificate")].concat();
        fs::write(&both, text).expect("written");
        Certificate { certificate, key, both }
    }

    fn openssl(&self, arguments: &[&str], more: impl FnOnce(&mut Command)) {
        let mut command = Command::new("openssl");
        command.args(arguments).current_dir(&self.dir);
        more(&mut command);
        let output = command.output().unwrap_or_else(|error| {
            panic!("openssl does not start: {error}; install it (Debian, Ubuntu: apt-get install openssl)")
        });
        assert!(
            output.status.success(),
            "openssl {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
