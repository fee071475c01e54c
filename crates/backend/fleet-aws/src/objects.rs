//! Buckets emptied of every version of every object: CloudFormation removes none that holds anything.
//!
//! `object_store` knows no versions, so these two calls of S3 are signed here.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

use crate::{
    account::Account,
    error::AwsError,
    rates::Rate,
    signed::{Ask, Service, element},
};

/// Versions that one DeleteObjects takes, and one ListObjectVersions gives (S3 API reference).
const AT_ONCE: usize = 1000;

impl Account {
    /// Removes every version of every object, and every mark that one was removed. Returns how many there were; a bucket that
    /// is gone has none.
    ///
    /// # Errors
    /// A call that fails; a version that S3 does not remove.
    pub(crate) async fn empty_bucket(&self, bucket: &str) -> Result<usize, AwsError> {
        let mut gone = 0;
        loop {
            let target = format!("/{bucket}?max-keys={AT_ONCE}&versions=");
            let page = match self.signed.ask(&ask("ListObjectVersions", "GET", target, Vec::new())).await {
                Ok(page) => page.text(),
                Err(error) if error.code() == "NoSuchBucket" => return Ok(gone),
                Err(error) => return Err(error),
            };
            let versions = versions(&page);
            // What was listed is removed, so that the first page is always the next one.
            let Some(count) = (!versions.is_empty()).then_some(versions.len()) else { return Ok(gone) };
            self.delete_versions(bucket, &versions).await?;
            gone += count;
        }
    }

    async fn delete_versions(&self, bucket: &str, versions: &[(String, String)]) -> Result<(), AwsError> {
        const CALL: &str = "DeleteObjects";
        let listed: String = versions
            .iter()
            .map(|(key, id)| format!("<Object><Key>{key}</Key><VersionId>{id}</VersionId></Object>"))
            .collect();
        let body =
            format!("<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{listed}<Quiet>true</Quiet></Delete>");
        let answer = match self.signed.ask(&ask(CALL, "POST", format!("/{bucket}?delete="), body.into_bytes())).await {
            Ok(answer) => answer.text(),
            Err(error) if error.code() == "NoSuchBucket" => return Ok(()),
            Err(error) => return Err(error),
        };
        // Of what it does not remove S3 tells within an answer that is none of an error.
        match element(&answer, "Error") {
            None => Ok(()),
            Some(error) => {
                let said = |name: &str| element(&error, name).unwrap_or_default();
                Err(AwsError::by_code(CALL, said("Code"), format!("{}: {}", said("Key"), said("Message"))))
            }
        }
    }
}

fn ask(call: &'static str, method: &'static str, target: String, body: Vec<u8>) -> Ask {
    let mut headers = Vec::new();
    if !body.is_empty() {
        headers.push(("content-type", "application/xml".to_owned()));
        // S3 takes this call only with a checksum of its body.
        headers.push(("x-amz-checksum-sha256", STANDARD.encode(Sha256::digest(&body))));
    }
    Ask { service: Service::Objects, call, method, target, headers, body, rate: Rate::Unknown, repeatable: true }
}

/// Keys and ids of a list's versions and marks. Keys stay as they are written in XML: so they go back.
fn versions(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for kind in ["Version", "DeleteMarker"] {
        let (open, close) = (format!("<{kind}>"), format!("</{kind}>"));
        for part in page.split(open.as_str()).skip(1) {
            let part = part.split(close.as_str()).next().unwrap_or_default();
            if let (Some(key), Some(id)) = (raw(part, "Key"), raw(part, "VersionId")) {
                found.push((key.to_owned(), id.to_owned()));
            }
        }
    }
    found
}

/// What an element holds, with its white space.
fn raw<'x>(xml: &'x str, name: &str) -> Option<&'x str> {
    let after = xml.split_once(&format!("<{name}>"))?.1;
    Some(after.split_once(&format!("</{name}>"))?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_and_every_mark_is_found_as_it_is_written() {
        let page = "<ListVersionsResult><Name>b</Name><VersionIdMarker></VersionIdMarker>\
            <Version><Key>a &amp; b</Key><VersionId>1</VersionId><IsLatest>true</IsLatest></Version>\
            <Version><Key>a &amp; b</Key><VersionId>null</VersionId></Version>\
            <DeleteMarker><Key> c</Key><VersionId>3</VersionId></DeleteMarker></ListVersionsResult>";
        let found = versions(page);
        let found: Vec<(&str, &str)> = found.iter().map(|(key, id)| (key.as_str(), id.as_str())).collect();
        assert_eq!(found, [("a &amp; b", "1"), ("a &amp; b", "null"), (" c", "3")]);
        assert!(versions("<ListVersionsResult></ListVersionsResult>").is_empty());
    }
}
