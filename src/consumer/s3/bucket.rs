//! The steps for one file: look whether its object is there, upload it if not, and look again, which proves it.
//!
//! The answer to an upload decides nothing. It may be lost, and a request that was given up may still be carried out, so
//! what counts is what the server says that it has.

use std::fs::File;
use std::io::{self, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rusty_s3::S3Action;
use sha2::{Digest, Sha256};
use ureq::http::StatusCode;

use crate::config::{S3Config, S3Url};
use crate::consumer::failure::Failure;
use crate::consumer::lake::fault;
use crate::consumer::lake::remote::{Object, Remote};
use crate::consumer::log::forward::ForwardError;
use crate::consumer::s3::answer::{Failed, Refusal, header, number};
use crate::consumer::s3::client::{Answer, Body, Client, Stoppable};
use crate::consumer::s3::parts::{Parts, Sums};
use crate::{hex, sha256};

/// How often a file is uploaded before its object must be the one that was uploaded.
const ATTEMPTS: usize = 3;

/// Most parts that S3 makes an object of.
const PARTS_MAX: u64 = 10_000;

/// Metadata of an object: SHA-256 of the log that it is made of.
const LOG_SHA256: &str = "x-amz-meta-log-sha256";

/// Asks for the checksum of an object, and names it in the answer.
const CHECKSUM_MODE: (&str, &str) = ("x-amz-checksum-mode", "ENABLED");
const CHECKSUM: &str = "x-amz-checksum-sha256";

/// A bucket to which the files of the lake go.
pub struct Bucket {
    client: Client,
    url: S3Url,
    part_bytes: u64,
}

/// What is there in the place of an object.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// The object.
    Same,
    /// Another one that is made of the same log, for example with other columns, and its entity tag.
    Earlier(String),
    /// An object of somebody else.
    Other,
}

impl Bucket {
    /// The bucket that `config` names; `None` if it names none.
    ///
    /// # Errors
    /// A setting or a file with certificates cannot be used.
    pub fn new(config: &S3Config) -> Result<Option<Self>, Failure> {
        let Some(url) = config.url() else { return Ok(None) };
        let client = Client::new(config, url).map_err(Failure::bad_config)?;
        log::info!("files of the lake go to {url} at {}", client.server());
        Ok(Some(Self { client, url: url.clone(), part_bytes: config.part_bytes }))
    }

    /// What is there under `key`; `is_first` before anything was uploaded.
    fn look(
        &self,
        (key, is_first): (&str, bool),
        object: &Object<'_>,
        sums: &Sums,
        stop: &dyn Fn() -> bool,
    ) -> Result<Found, ForwardError> {
        let keys = self.client.keys()?;
        let action = self.client.bucket.head_object(Some(&keys), key);
        let answer = self.client.send(action, &[CHECKSUM_MODE], Body::Empty, stop)?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(Found::Nothing),
            // So AWS says to keys that may not list that there is nothing.
            StatusCode::FORBIDDEN if is_first => return Ok(Found::Nothing),
            _ => return Err(self.refused("read", key, answer)),
        }
        let headers = answer.headers();
        let has_size = number(headers, "content-length") == Some(object.bytes);
        let is_same = has_size
            && match header(headers, CHECKSUM) {
                Some(sum) => [&sums.whole, &sums.object].contains(&&sum.to_owned()),
                // The server does not tell checksums.
                None => self.checksum(key, object.bytes, stop)? == object.sha256,
            };
        let is_of_this_log = header(headers, LOG_SHA256) == Some(object.log_sha256);
        Ok(match (is_same, is_of_this_log) {
            (true, _) => Found::Same,
            (false, true) => Found::Earlier(header(headers, "etag").unwrap_or_default().to_owned()),
            (false, false) => Found::Other,
        })
    }

    /// SHA-256 of the content of an object, which is read for that.
    fn checksum(&self, key: &str, bytes: u64, stop: &dyn Fn() -> bool) -> Result<String, ForwardError> {
        let keys = self.client.keys()?;
        let action = self.client.bucket.get_object(Some(&keys), key);
        let mut answer = self.client.send(action, &[], Body::Long(bytes), stop)?;
        if answer.status() != StatusCode::OK {
            return Err(self.refused("read", key, answer));
        }
        let source = Stoppable { from: Box::new(answer.body_mut().as_reader()), stop };
        let read = sha256::of(source).map_err(|error| self.client.lost(&error));
        read.map(|(_, sum)| hex::encode(&sum))
            .map_err(|error| if stop() { ForwardError::Stopped } else { error })
    }

    /// Uploads a file; `replaces` is the entity tag of the object that it may replace. That another object is there by
    /// now is not an error, but found when the object is looked at again.
    fn upload(
        &self,
        key: &str,
        object: &Object<'_>,
        sums: &Sums,
        replaces: Option<&str>,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), ForwardError> {
        let condition = replaces.map_or(("if-none-match", "*"), |etag| ("if-match", etag));
        let of_log = (LOG_SHA256, object.log_sha256);
        if !sums.parts.is_empty() {
            let parts = Parts { client: &self.client, key, file: object.file, sums, stop };
            return parts.upload(of_log, condition).or_else(|refusal| self.unless_conflict(key, refusal));
        }
        let keys = self.client.keys()?;
        let action = self.client.bucket.put_object(Some(&keys), key);
        let headers = [condition, (CHECKSUM, &sums.whole), of_log];
        let body = Body::File { path: object.file, from: 0, bytes: object.bytes };
        let answer = self.client.send(action, &headers, body, stop)?;
        match answer.status().is_success() {
            true => Ok(()),
            false => self.unless_conflict(key, Refusal::read(answer).into()),
        }
    }

    fn unless_conflict(&self, key: &str, failure: Failed) -> Result<(), ForwardError> {
        match failure {
            Failed::Refused(refusal) if refusal.is_conflict() => Ok(()),
            Failed::Refused(refusal) => Err(refusal.named("store", &self.name(key))),
            Failed::Other(error) => Err(error),
        }
    }

    fn refused(&self, what: &str, key: &str, answer: Answer) -> ForwardError {
        Refusal::read(answer).named(what, &self.name(key))
    }

    fn name(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.url.bucket)
    }
}

impl Remote for Bucket {
    fn check(&self, stop: &dyn Fn() -> bool) -> Result<(), ForwardError> {
        let keys = self.client.keys()?;
        let mut list = self.client.bucket.list_objects_v2(Some(&keys));
        list.query_mut().insert("max-keys", "1");
        list.query_mut().insert("prefix", self.url.prefix.as_str());
        let answer = self.client.send(list, &[], Body::Empty, stop)?;
        if answer.status() == StatusCode::OK {
            return Ok(());
        }
        let refusal = Refusal::read(answer);
        // Keys that may not list may still write.
        if refusal.is_of_rights() { Ok(()) } else { Err(refusal.named("use", &self.url.to_string())) }
    }

    fn put(&self, object: &Object<'_>, stop: &dyn Fn() -> bool) -> Result<(), ForwardError> {
        let key = format!("{}{}", self.url.prefix, object.path);
        let sums =
            sums(object, self.part_bytes).map_err(|error| fault::of_lake("read", object.file, &error))?;
        for attempt in 0..=ATTEMPTS {
            let replaces = match self.look((&key, attempt == 0), object, &sums, stop)? {
                Found::Same => return Ok(()),
                Found::Nothing => None,
                Found::Earlier(tag) => Some(tag),
                Found::Other => return Err(of_another(&self.name(&key))),
            };
            if attempt < ATTEMPTS {
                self.upload(&key, object, &sums, replaces.as_deref(), stop)?;
            }
        }
        Err(ForwardError::Place(format!(
            "{} is not what was uploaded, {ATTEMPTS} times: check the server, and whether another program writes there",
            self.name(&key)
        )))
    }
}

fn of_another(name: &str) -> ForwardError {
    ForwardError::Log(format!(
        "{name} exists and has other content than the file of this name: remove it, or give each consumer another \
         LOG_FILE name if they share LAKE_S3_URL"
    ))
}

/// The checksums of a file as S3 has them: of the whole, or of parts and of their checksums.
fn sums(object: &Object<'_>, part_bytes: u64) -> io::Result<Sums> {
    let sum: Option<[u8; 32]> = hex::decode(object.sha256.as_bytes());
    let whole = STANDARD.encode(sum.ok_or_else(|| io::Error::other("its checksum is not one"))?);
    if object.bytes <= part_bytes {
        return Ok(Sums { object: whole.clone(), whole, parts: Vec::new(), part_bytes });
    }
    let part_bytes = part_bytes.max(object.bytes.div_ceil(PARTS_MAX));
    let mut file = File::open(object.file)?;
    let (mut parts, mut of_parts) = (Vec::new(), Sha256::new());
    let mut left = object.bytes;
    while left > 0 {
        let bytes = left.min(part_bytes);
        let (read, sum) = sha256::of((&mut file).take(bytes))?;
        if read < bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        of_parts.update(sum);
        parts.push(STANDARD.encode(sum));
        left -= bytes;
    }
    let object = format!("{}-{}", STANDARD.encode(of_parts.finalize()), parts.len());
    Ok(Sums { object, whole, parts, part_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn checksums_are_those_that_s3_names() {
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("file");
        std::fs::write(&file, "abcde").expect("written");
        let sha256 = sha256::of_file(&file).expect("read");
        let object = Object { file: &file, path: "file", bytes: 5, sha256: &sha256, log_sha256: "" };
        let one = sums(&object, 5).expect("read");
        // printf abcde | openssl dgst -sha256 -binary | base64
        assert_eq!(
            (one.whole.as_str(), one.parts.len()),
            ("NrvlDtloQdEEQ7y2cNZVTwo0t2G+Z+ycSorSwMRMpCw=", 0)
        );
        let three = sums(&object, 2).expect("read");
        let part = |text: &str| STANDARD.encode(Sha256::digest(text));
        assert_eq!(three.parts, [part("ab"), part("cd"), part("e")]);
        let all = ["ab", "cd", "e"].map(Sha256::digest).concat();
        assert_eq!(three.whole, one.whole);
        assert_eq!(three.object, format!("{}-3", STANDARD.encode(Sha256::digest(all))));
    }
}
