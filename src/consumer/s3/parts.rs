//! Uploads a large file in parts, which become one object at the end, and gives up all other uploads of the file: those
//! of attempts that were interrupted, or whose answer was lost.

use std::fs;
use std::io;
use std::iter;
use std::path::Path;

use rusty_s3::S3Action;
use ureq::http::StatusCode;

use crate::consumer::lake::fault;
use crate::consumer::log::forward::ForwardError;
use crate::consumer::s3::answer::{Failed, Refusal, TEXT_MAX_BYTES, element, header};
use crate::consumer::s3::client::{Answer, Body, Client};

/// Checksums of a file, in base64.
#[derive(Debug)]
pub struct Sums {
    /// That of the whole file.
    pub whole: String,
    /// What S3 says for the object: the same, or for one of parts the checksum of their checksums.
    pub object: String,
    /// Those of its parts; none if it is not uploaded in parts.
    pub parts: Vec<String>,
    /// Size of each part but the last one.
    pub part_bytes: u64,
}

/// A file that is being uploaded.
pub struct Parts<'a> {
    pub client: &'a Client,
    pub key: &'a str,
    pub file: &'a Path,
    pub sums: &'a Sums,
    pub stop: &'a dyn Fn() -> bool,
}

type Header<'a> = (&'static str, &'a str);

impl Parts<'_> {
    /// Uploads all parts and makes the object of them.
    ///
    /// # Errors
    /// A request was refused, or not answered; the parts are given up then.
    pub fn upload(&self, of_log: Header<'_>, condition: Header<'_>) -> Result<(), Failed> {
        let done = self.begin(of_log).and_then(|id| {
            let tags = self.send_all(&id)?;
            self.complete(&id, &tags, condition)
        });
        // Parts cost money until they are given up. If that fails, the next attempt does it, or a lifecycle rule.
        if let Err(error) = self.give_up_all() {
            log::warn!("cannot give up interrupted uploads of {}: {error}", self.key);
        }
        done
    }

    /// Begins an upload, and returns its id.
    fn begin(&self, of_log: Header<'_>) -> Result<String, Failed> {
        let keys = self.client.keys()?;
        let action = self.client.bucket.create_multipart_upload(Some(&keys), self.key);
        let headers = [("x-amz-checksum-algorithm", "SHA256"), of_log];
        let text = self.text(self.client.send(action, &headers, Body::Empty, self.stop)?)?;
        element(&text, "UploadId").filter(|id| !id.is_empty()).ok_or_else(|| {
            let why = format!("the answer of {} to an upload has no UploadId", self.client.server());
            ForwardError::Place(why).into()
        })
    }

    /// Uploads all parts, and returns their entity tags.
    fn send_all(&self, id: &str) -> Result<Vec<String>, Failed> {
        let size = fs::metadata(self.file).map_err(|error| fault::of_lake("read", self.file, &error))?.len();
        let mut tags = Vec::with_capacity(self.sums.parts.len());
        for (number, sum) in (1..).zip(&self.sums.parts) {
            let from = u64::from(number - 1) * self.sums.part_bytes;
            let bytes = self.sums.part_bytes.min(size.saturating_sub(from));
            let keys = self.client.keys()?;
            let action = self.client.bucket.upload_part(Some(&keys), self.key, number, id);
            let body = Body::File { path: self.file, from, bytes };
            let answer = self.client.send(action, &[("x-amz-checksum-sha256", sum)], body, self.stop)?;
            if answer.status() != StatusCode::OK {
                return Err(Refusal::read(answer).into());
            }
            tags.push(header(answer.headers(), "etag").unwrap_or_default().to_owned());
        }
        Ok(tags)
    }

    /// Makes the object of the parts.
    fn complete(&self, id: &str, tags: &[String], condition: Header<'_>) -> Result<(), Failed> {
        let keys = self.client.keys()?;
        let tagless = iter::empty::<&str>();
        let action = self.client.bucket.complete_multipart_upload(Some(&keys), self.key, id, tagless);
        let parts = (1..).zip(tags.iter().zip(&self.sums.parts)).map(|(number, (tag, sum))| {
            format!(
                "<Part><ChecksumSHA256>{sum}</ChecksumSHA256><ETag>{}</ETag><PartNumber>{number}</PartNumber></Part>",
                tag.replace('&', "&amp;").replace('<', "&lt;")
            )
        });
        let body = format!(
            "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{}</CompleteMultipartUpload>",
            parts.collect::<String>()
        );
        self.text(self.client.send(action, &[condition], Body::Text(&body), self.stop)?).map(drop)
    }

    /// Gives up all uploads of this file that were not completed.
    fn give_up_all(&self) -> Result<(), Failed> {
        let keys = self.client.keys()?;
        // Without a key, it is about the bucket.
        let mut list = self.client.bucket.get_object(Some(&keys), "");
        list.query_mut().insert("prefix", self.key);
        list.query_mut().insert("uploads", "");
        let text = self.text(self.client.send(list, &[], Body::Empty, self.stop)?)?;
        for upload in text.split("<Upload>").skip(1) {
            let (Some(key), Some(id)) = (element(upload, "Key"), element(upload, "UploadId")) else {
                continue;
            };
            if key == self.key {
                let action = self.client.bucket.abort_multipart_upload(Some(&keys), self.key, &id);
                self.client.send(action, &[], Body::Empty, self.stop)?;
            }
        }
        Ok(())
    }

    /// The text of an answer. That of a completed upload may begin with 200 and then be an error.
    fn text(&self, mut answer: Answer) -> Result<String, Failed> {
        let (status, headers) = (answer.status(), answer.headers().clone());
        let read = answer.body_mut().with_config().limit(TEXT_MAX_BYTES).read_to_string();
        let text = read.map_err(|error| self.client.lost(&io::Error::other(error)))?;
        if status.is_success() && !text.contains("<Error>") {
            return Ok(text);
        }
        Err(Refusal::of(status, &headers, &text).into())
    }
}
