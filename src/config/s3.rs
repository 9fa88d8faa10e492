//! Settings of the copy of the lake in S3: the bucket, the server, and the keys under their usual names.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Args};

use super::Secret;
use super::values::{file, number};

/// Environment variables of the keys. There are no flags for them, because others can read the flags of a process.
pub const ACCESS_KEY_ENV: &str = "AWS_ACCESS_KEY_ID";
pub const SECRET_KEY_ENV: &str = "AWS_SECRET_ACCESS_KEY";
pub const SESSION_TOKEN_ENV: &str = "AWS_SESSION_TOKEN";

/// The region of servers that have none, and the first one of AWS.
const DEFAULT_REGION: &str = "us-east-1";

/// The copy of the lake in S3.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Lake")]
pub struct S3Config {
    /// Bucket to which the files of the lake go, `s3://BUCKET` or `s3://BUCKET/PREFIX`. Keys come from AWS_ACCESS_KEY_ID
    /// and AWS_SECRET_ACCESS_KEY (environment or .env, there are no flags), or from AWS_SHARED_CREDENTIALS_FILE.
    /// Requires LAKE_DIR, and a build with --features s3
    #[arg(id = "lake_s3_url", long = "lake-s3-url", env = "LAKE_S3_URL", value_name = "URL")]
    url: Option<S3Url>,

    /// Keep the files in LAKE_DIR too; otherwise each is removed once its object is proven to be in the bucket
    #[arg(id = "lake_s3_keep_files", long = "lake-s3-keep-files", env = "LAKE_S3_KEEP_FILES", default_value_t = false,
          action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub keep_files: bool,

    /// Longest time without progress of a request to S3, in milliseconds
    #[arg(id = "lake_s3_timeout_ms", long = "lake-s3-timeout-ms", env = "LAKE_S3_TIMEOUT_MS", default_value_t = 30_000,
          value_parser = number::<u64>(100..=600_000), value_name = "MS")]
    timeout_ms: u64,

    /// Size above which a file is uploaded in parts of this size, in bytes
    #[arg(hide = true, id = "lake_s3_part_bytes", long = "lake-s3-part-bytes", env = "LAKE_S3_PART_BYTES", default_value_t = 64 << 20,
          value_parser = number::<u64>(5 << 20..=4 << 30), value_name = "BYTES")]
    pub part_bytes: u64,

    /// Server that is not AWS's, for example `https://minio.example.com:9000`; AWS_ENDPOINT_URL is read too
    #[arg(
        id = "aws_endpoint_url_s3",
        long = "aws-endpoint-url-s3",
        env = "AWS_ENDPOINT_URL_S3",
        value_name = "URL"
    )]
    endpoint: Option<String>,

    /// The same for all of AWS's services.
    #[arg(skip = std::env::var("AWS_ENDPOINT_URL").ok())]
    any_endpoint: Option<String>,

    /// Region of the bucket, `us-east-1` by default; AWS_DEFAULT_REGION is read too
    #[arg(id = "aws_region", long = "aws-region", env = "AWS_REGION", value_name = "NAME")]
    region: Option<String>,

    /// The same for programs that are given no region of their own.
    #[arg(skip = std::env::var("AWS_DEFAULT_REGION").ok())]
    any_region: Option<String>,

    /// File with keys in AWS's format; read for each request, so it can be replaced while the consumer runs
    #[arg(
        id = "aws_shared_credentials_file",
        long = "aws-shared-credentials-file",
        env = "AWS_SHARED_CREDENTIALS_FILE",
        value_name = "PATH"
    )]
    credentials_file: Option<PathBuf>,

    /// Section of that file
    #[arg(
        id = "aws_profile",
        long = "aws-profile",
        env = "AWS_PROFILE",
        default_value = "default",
        value_name = "NAME"
    )]
    pub profile: String,

    /// Certificates of authorities to trust (PEM) instead of the system's
    #[arg(id = "aws_ca_bundle", long = "aws-ca-bundle", env = "AWS_CA_BUNDLE", value_name = "PATH")]
    ca: Option<PathBuf>,

    /// Keys from the environment.
    #[arg(skip = Secret::from_environment(ACCESS_KEY_ENV))]
    access_key: Option<Secret>,
    #[arg(skip = Secret::from_environment(SECRET_KEY_ENV))]
    secret_key: Option<Secret>,
    #[arg(skip = Secret::from_environment(SESSION_TOKEN_ENV))]
    session_token: Option<Secret>,
}

/// A bucket, and what the names of all objects in it begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Url {
    /// Name of the bucket.
    pub bucket: String,
    /// Empty, or ends with a slash.
    pub prefix: String,
}

impl fmt::Display for S3Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

impl FromStr for S3Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected s3://BUCKET or s3://BUCKET/PREFIX";
        let rest = text.trim().strip_prefix("s3://").ok_or(EXPECTED)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if bucket.is_empty() || !bucket.chars().all(is_allowed) || bucket.starts_with('.') {
            return Err(format!(
                "{EXPECTED}, with letters, digits, dots and dashes in the name of the bucket"
            ));
        }
        let prefix = prefix.trim_end_matches('/');
        if prefix.split('/').any(|part| matches!(part, "." | "..") || part.is_empty() && !prefix.is_empty()) {
            return Err(format!("{EXPECTED}, and a prefix has no part that is empty, `.` or `..`"));
        }
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Self { bucket: bucket.to_owned(), prefix })
    }
}

/// Keys to sign requests with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Keys {
    /// Names the secret; not secret itself.
    pub id: String,
    /// The secret.
    pub secret: Secret,
    /// What comes with keys that expire.
    pub token: Option<Secret>,
}

impl S3Config {
    /// The bucket, if there is one.
    pub fn url(&self) -> Option<&S3Url> {
        self.url.as_ref()
    }

    /// The server, if it is not AWS's.
    pub fn endpoint(&self) -> Option<&str> {
        given(&self.endpoint).or_else(|| given(&self.any_endpoint))
    }

    /// The region of the bucket.
    pub fn region(&self) -> &str {
        given(&self.region).or_else(|| given(&self.any_region)).unwrap_or(DEFAULT_REGION)
    }

    /// Longest time without progress.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// The authorities to trust, and the setting that they come from.
    pub fn authorities(&self) -> (&'static str, PathBuf) {
        self.ca.as_ref().map_or_else(super::system_authorities, |ca| ("AWS_CA_BUNDLE", ca.clone()))
    }

    /// The keys: from the environment, or read from the file now.
    ///
    /// # Errors
    /// There are none. The text is one sentence without the keys.
    pub fn keys(&self) -> Result<S3Keys, String> {
        match (&self.access_key, &self.secret_key) {
            (Some(id), Some(secret)) => {
                let id = String::from_utf8_lossy(id.reveal()).into_owned();
                let token = self.session_token.clone().filter(|token| !token.reveal().is_empty());
                Ok(S3Keys { id, secret: secret.clone(), token })
            }
            (None, None) => self.keys_of_file(),
            _ => Err(format!(
                "{ACCESS_KEY_ENV} and {SECRET_KEY_ENV} belong together; set both of them or neither"
            )),
        }
    }

    fn keys_of_file(&self) -> Result<S3Keys, String> {
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".aws/credentials"));
        let Some(path) = self.credentials_file.clone().or_else(|| home.filter(|path| path.exists())) else {
            return Err(format!(
                "LAKE_S3_URL: there are no keys; set {ACCESS_KEY_ENV} and {SECRET_KEY_ENV}, or \
                 AWS_SHARED_CREDENTIALS_FILE"
            ));
        };
        const NAME: &str = "AWS_SHARED_CREDENTIALS_FILE";
        let text = Secret::from_file(NAME, &path)?;
        section(&String::from_utf8_lossy(text.reveal()), &self.profile).ok_or_else(|| {
            format!(
                "{NAME}={}: there is no section [{}] with aws_access_key_id and aws_secret_access_key; AWS_PROFILE \
                 chooses another one",
                path.display(),
                self.profile
            )
        })
    }

    /// The secrets from the environment, with the names of their variables.
    pub fn given_secrets(&self) -> impl Iterator<Item = (&'static str, &Secret)> {
        let all = [(SECRET_KEY_ENV, &self.secret_key), (SESSION_TOKEN_ENV, &self.session_token)];
        let of_use = all.into_iter().filter(|_| self.url.is_some());
        of_use.filter_map(|(name, secret)| secret.as_ref().map(|secret| (name, secret)))
    }

    /// Checks these settings; the usual names of AWS may be set for other programs.
    ///
    /// # Errors
    /// One sentence with the setting, its value and what is allowed.
    pub fn validate(&self, has_lake: bool) -> Result<(), String> {
        let Some(url) = &self.url else {
            return match self.keep_files {
                true => Err("LAKE_S3_KEEP_FILES=true has no effect without LAKE_S3_URL; set it".into()),
                false => Ok(()),
            };
        };
        if !has_lake {
            return Err(format!("LAKE_S3_URL={url} has no effect without LAKE_DIR; set it"));
        }
        if !cfg!(feature = "s3") {
            return Err(format!(
                "LAKE_S3_URL={url}: this program was built without S3; build it with `cargo build --release \
                 --features s3`"
            ));
        }
        if let Some(endpoint) = self.endpoint() {
            check_endpoint(endpoint)?;
        }
        let region = self.region();
        if !region.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            return Err(format!("AWS_REGION={region}: expected a name such as {DEFAULT_REGION}"));
        }
        if let Some(ca) = &self.ca {
            file("AWS_CA_BUNDLE", ca)?;
        }
        self.keys().map(drop)
    }
}

/// An empty variable stands for none: a compose file cannot pass less.
fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().map(str::trim).filter(|text| !text.is_empty())
}

fn check_endpoint(endpoint: &str) -> Result<(), String> {
    let expected = |why: &str| {
        Err(format!("AWS_ENDPOINT_URL_S3={endpoint}: {why}; expected https://HOST or http://HOST:PORT"))
    };
    let Some(rest) = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://")) else {
        return expected("it has no https:// or http://");
    };
    let host = rest.split('/').next().unwrap_or_default();
    match host {
        "" => expected("it has no host"),
        // Its value is not repeated, since it may be a password.
        _ if host.contains('@') => Err("AWS_ENDPOINT_URL_S3 has a user or a password; remove it".into()),
        _ if rest.contains(['?', '#']) => expected("it has a query"),
        _ => Ok(()),
    }
}

/// The keys in one section of a file in AWS's format.
fn section(text: &str, name: &str) -> Option<S3Keys> {
    let mut lines = text.lines().map(str::trim).skip_while(|line| {
        let section = line.strip_prefix('[').and_then(|line| line.split_once(']'));
        section.is_none_or(|(found, _)| found.trim() != name)
    });
    lines.next()?;
    let (mut id, mut secret, mut token) = (None, None, None);
    for line in lines.take_while(|line| !line.starts_with('[')).filter(|line| !line.starts_with(['#', ';'])) {
        let Some((key, value)) = line.split_once('=') else { continue };
        let value = Some(value.trim()).filter(|value| !value.is_empty());
        match key.trim() {
            "aws_access_key_id" => id = value,
            "aws_secret_access_key" => secret = value,
            "aws_session_token" => token = value,
            _ => {}
        }
    }
    Some(S3Keys { id: id?.to_owned(), secret: Secret::new(secret?), token: token.map(Secret::new) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_may_have_a_prefix() {
        let read = |text: &str| text.parse::<S3Url>().map(|url| url.to_string());
        assert_eq!(read("s3://events").as_deref(), Ok("s3://events/"));
        assert_eq!(read(" s3://my.events/a/b=1/ ").as_deref(), Ok("s3://my.events/a/b=1/"));
        for bad in
            ["", "events", "s3://", "s3:///a", "http://events", "s3://a b", "s3://a/../b", "s3://a/b//c"]
        {
            assert!(read(bad).is_err_and(|reason| reason.contains("s3://BUCKET/PREFIX")), "{bad}");
        }
    }

    #[test]
    fn keys_are_found_in_their_section() {
        let text = "# ours\n[default]\naws_access_key_id=one\naws_secret_access_key = first=\n\n[ backup ]\n\
            aws_access_key_id = two\n; old\naws_secret_access_key = second\naws_session_token = t\n[empty]\n";
        let keys = |id: &str, secret: &str, token: Option<&str>| S3Keys {
            id: id.into(),
            secret: Secret::new(secret),
            token: token.map(Secret::new),
        };
        assert_eq!(section(text, "default"), Some(keys("one", "first=", None)));
        assert_eq!(section(text, "backup"), Some(keys("two", "second", Some("t"))));
        assert_eq!(section(text, "empty"), None);
        assert_eq!(section(text, "other"), None);
        assert!(!format!("{:?}", section(text, "backup")).contains("second"));
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let at = |url: &str| S3Config { url: Some(url.parse().expect("a bucket")), ..S3Config::default() };
        assert_eq!(S3Config::default().validate(false), Ok(()));
        let reason = at("s3://events").validate(false).expect_err("there is no lake");
        assert!(reason.contains("s3://events") && reason.contains("LAKE_DIR"), "{reason}");
        let reason = S3Config { keep_files: true, ..S3Config::default() }.validate(true).expect_err("no use");
        assert!(reason.contains("LAKE_S3_KEEP_FILES"), "{reason}");
        for (endpoint, word) in [
            ("minio:9000", "no https://"),
            ("https://", "no host"),
            ("https://a:hush@b", "password"),
            ("https://a/?x", "query"),
        ] {
            let reason = check_endpoint(endpoint).expect_err(endpoint);
            assert!(reason.contains(word) && !reason.contains("hush"), "{reason}");
        }
        assert_eq!(check_endpoint("http://127.0.0.1:8333/s3"), Ok(()));
    }

    #[test]
    fn half_a_key_and_a_build_without_s3_are_refused() {
        let config = S3Config {
            url: Some("s3://events".parse().expect("a bucket")),
            access_key: Some(Secret::new("id")),
            ..S3Config::default()
        };
        let reason = config.validate(true).expect_err("refused");
        let word = if cfg!(feature = "s3") { "belong together" } else { "--features s3" };
        assert!(reason.contains(word), "{reason}");
    }
}
