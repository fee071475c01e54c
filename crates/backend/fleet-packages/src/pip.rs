//! Python packages: [`resolve`] requirements into pins by pip itself, and where pinned wheels are fetched.

mod resolve;

use fleet_oci::{Digest, digest::DigestError, lock::PipPin};
use reqwest::Url;
use serde::Deserialize;

use crate::{
    fetch::{FetchError, shown},
    pinned::Pinned,
    realize::Workshop,
};
pub use resolve::{PipError, Request, resolve};

/// JSON where the index speaks it (PEP 691), else HTML (PEP 503).
const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, text/html;q=0.5";

impl Pinned for PipPin {
    fn title(&self) -> String {
        format!("wheel {}", self.filename)
    }

    fn digest(&self) -> Result<Digest, DigestError> {
        Ok(self.sha256.clone())
    }

    fn size(&self) -> u64 {
        0
    }

    async fn urls(&self, workshop: &Workshop) -> Result<Vec<String>, FetchError> {
        let page = format!("{}/{}/", workshop.sources.pip, self.name);
        let answer = workshop.fetcher.answer(&page, ACCEPT).await?;
        let found = link(&String::from_utf8_lossy(&answer), &self.filename);
        let base = Url::parse(&page);
        let found = found.and_then(|link| base.ok()?.join(&link).ok());
        let why = || format!("its page does not list {}", self.filename);
        found.map(|url| vec![url.to_string()]).ok_or_else(|| FetchError::Unreachable { url: shown(&page), why: why() })
    }

    /// Indexes have no second place.
    async fn more_urls(&self, _: &Workshop) -> Result<Vec<String>, FetchError> {
        Ok(Vec::new())
    }
}

/// The link to a file on a project's page of either format.
fn link(page: &str, filename: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Page {
        files: Vec<File>,
    }
    #[derive(Deserialize)]
    struct File {
        filename: String,
        url: String,
    }
    if let Ok(page) = serde_json::from_str::<Page>(page) {
        return page.files.into_iter().find(|file| file.filename == filename).map(|file| file.url);
    }
    let links = page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    links
        .map(|link| link.replace("&amp;", "&"))
        .find(|link| link.split(['#', '?']).next().unwrap_or_default().ends_with(&format!("/{filename}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wheel_is_found_on_pages_of_both_formats() {
        let json = r#"{"meta":{},"files":[{"filename":"a-1.tar.gz","url":"x"},{"filename":"a-1-py3-none-any.whl","url":"../p/a-1-py3-none-any.whl"}]}"#;
        assert_eq!(link(json, "a-1-py3-none-any.whl").as_deref(), Some("../p/a-1-py3-none-any.whl"));
        let html =
            r#"<a href="/p/xa-1-py3-none-any.whl#sha256=1">x</a><a href="/p/a-1-py3-none-any.whl#sha256=0">a</a>"#;
        assert_eq!(link(html, "a-1-py3-none-any.whl").as_deref(), Some("/p/a-1-py3-none-any.whl#sha256=0"));
        assert_eq!(link(html, "b-1-py3-none-any.whl"), None);
    }
}
