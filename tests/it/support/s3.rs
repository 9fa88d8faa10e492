//! A real S3 server (SeaweedFS, installed by scripts/test.sh), to be harmed. Anybody may read from it without keys.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use crate::support::http;
use crate::support::machine::Ports;
use crate::support::process::send_signal;
use crate::support::wait::{eventually, secs};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/python/bin/weed");

/// Keys that may write.
pub const KEY: &str = "lakekey";
pub const SECRET: &str = "lakesecret";

const IDENTITIES: &str = r#"{"identities": [
    {"name": "lake", "credentials": [{"accessKey": "lakekey", "secretKey": "lakesecret"}],
     "actions": ["Admin", "Read", "Write", "List"]},
    {"name": "narrow", "credentials": [{"accessKey": "narrowkey", "secretKey": "narrowsecret"}],
     "actions": ["Read", "Write"]},
    {"name": "anonymous", "actions": ["Read", "List"]}
]}"#;

/// Waits for the end of its input, which comes at the latest with the end of the test process, and ends the server.
const KEEPER: &str = r#"
log=$1; pid_file=$2; shift 2
"$@" >>"$log" 2>&1 </dev/null &
echo $! >"$pid_file"
read -r _
kill -KILL "$(cat "$pid_file")" 2>/dev/null
wait
"#;

/// A server with a directory of its own. Dropping it kills it.
pub struct S3 {
    dir: PathBuf,
    ports: Ports,
    certificate: Option<(PathBuf, PathBuf)>,
    keeper: Option<Child>,
    _dir: TempDir,
}

/// The server that tests share which do no harm to it.
pub fn shared() -> &'static S3 {
    static SHARED: OnceLock<S3> = OnceLock::new();
    SHARED.get_or_init(S3::start)
}

impl S3 {
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// A private server, with a certificate and its key if it is to speak TLS as well.
    pub fn start_with(certificate: Option<(PathBuf, PathBuf)>) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        fs::create_dir(dir.path().join("data")).expect("created");
        fs::write(dir.path().join("identities.json"), IDENTITIES).expect("written");
        let path = dir.path().to_owned();
        let mut server = Self { dir: path, ports: Ports::reserve(1), certificate, keeper: None, _dir: dir };
        server.run();
        server
    }

    /// Starts it and waits until it answers.
    pub fn run(&mut self) {
        let port = |number: u16| (self.ports.first + number).to_string();
        let mut command = Command::new("/bin/bash");
        command.args(["-c", KEEPER, "keeper"]).arg(self.dir.join("log")).arg(self.pid_file()).arg(PROGRAM);
        command.arg("server").arg(format!("-dir={}", self.data().display()));
        command.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-master.telemetry=false"]);
        command.args([
            "-master.volumeSizeLimitMB=64",
            // Each bucket has several of them.
            "-volume.max=500",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ]);
        command.arg(format!("-s3.config={}", self.dir.join("identities.json").display()));
        let names =
            ["s3", "s3.grpc", "master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc"];
        for (number, name) in (0..).zip(names) {
            let (program, kind) = name.split_once('.').map_or((name, ""), |(program, _)| (program, ".grpc"));
            command.arg(format!("-{program}.port{kind}={}", port(number)));
        }
        if let Some((certificate, key)) = &self.certificate {
            command.arg(format!("-s3.port.https={}", port(8)));
            command.arg(format!("-s3.cert.file={}", certificate.display()));
            command.arg(format!("-s3.key.file={}", key.display()));
        }
        let keeper = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.keeper = Some(keeper.expect("bash runs"));
        let answers = || http::get(self.address(), "/").is_ok_and(|answer| answer.status < 500);
        eventually(secs(120), "the S3 server answers", answers);
    }

    /// Where its files are.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.join("pid")
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports.first))
    }

    /// Its address with TLS.
    pub fn tls_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports.first + 8))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let pid = fs::read_to_string(self.pid_file()).ok().and_then(|text| text.trim().parse::<u32>().ok());
        if let Some(pid) = pid.filter(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
            send_signal(pid, libc::SIGKILL);
        }
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }

    /// A bucket of its own for a test.
    pub fn bucket(&self) -> Bucket {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("events-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let bucket = Bucket { address: self.address(), name };
        eventually(secs(60), "a bucket is created", || bucket.curl(&["--request", "PUT"], "").is_ok());
        bucket
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A bucket, and how to reach it.
pub struct Bucket {
    address: SocketAddr,
    pub name: String,
}

impl Bucket {
    /// `LAKE_S3_URL` for it.
    pub fn url(&self) -> String {
        format!("s3://{}", self.name)
    }

    /// Sends a signed request with curl, and returns its output.
    pub fn curl(&self, arguments: &[&str], path: &str) -> Result<String, String> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--aws-sigv4", "aws:amz:us-east-1:s3"]);
        curl.args(["--user", &format!("{KEY}:{SECRET}")]).args(arguments);
        let output =
            curl.arg(format!("http://{}/{}{path}", self.address, self.name)).output().expect("curl runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Keys of all objects, sorted.
    #[track_caller]
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = Vec::new();
        loop {
            let after = keys.last().map_or(String::new(), |key| format!("&start-after={key}"));
            let page = elements(&self.get(&format!("?list-type=2{after}")), "Key");
            if page.is_empty() {
                keys.sort();
                return keys;
            }
            keys.extend(page);
        }
    }

    /// Uploads that were begun and neither completed nor given up.
    #[track_caller]
    pub fn uploads(&self) -> Vec<String> {
        elements(&self.get("?uploads"), "UploadId")
    }

    /// All objects by their keys.
    #[track_caller]
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        self.keys().into_iter().map(|key| (key.clone(), self.get(&format!("/{key}")))).collect()
    }

    /// Writes all objects into a directory.
    #[track_caller]
    pub fn download(&self, dir: &Path) {
        for (key, bytes) in self.objects() {
            let path = dir.join(key);
            fs::create_dir_all(path.parent().expect("a parent")).expect("created");
            fs::write(path, bytes).expect("written");
        }
    }

    #[track_caller]
    fn get(&self, path: &str) -> Vec<u8> {
        let answer = http::get(self.address, &format!("/{}{path}", self.name)).expect("an answer");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.body
    }
}

fn elements(xml: &[u8], name: &str) -> Vec<String> {
    let xml = String::from_utf8_lossy(xml);
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(&open).skip(1).filter_map(|rest| Some(rest.split_once(&close)?.0.to_owned())).collect()
}
