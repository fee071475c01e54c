//! [`Named`] and [`Target`]: what a text names; [`Place`]: where that is asked for.

use std::net::IpAddr;

use fleet_oci::Digest;
use oci_spec::distribution::Reference;
use reqwest::Url;

use crate::error::RegistryError;

/// Tags that name a derivation: whoever finds another digest there found a mistake.
const IMMUTABLE: &str = "d-";

/// An image as somebody wrote it.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    /// As written, for messages.
    pub written: String,
    pub place: Place,
    /// The tag or, stronger, the digest.
    pub version: String,
}

impl Named {
    /// Reads `debian:12`, `ghcr.io/org/app@sha256:…` and what else docker reads.
    pub fn parse(written: &str) -> Result<Self, RegistryError> {
        let wrong = |why: String| RegistryError::Reference { reference: written.to_owned(), why };
        let reference: Reference = written.parse().map_err(|error| wrong(format!("{error}")))?;
        let version = reference.digest().or(reference.tag()).unwrap_or("latest").to_owned();
        let place = Place::new(reference.registry(), reference.repository());
        Ok(Self { written: written.to_owned(), place, version })
    }
}

/// A repository of a registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// As people call it: `docker.io`. Credentials are looked up by it.
    pub registry: String,
    /// Who answers for it: host and port.
    pub host: String,
    pub repository: String,
}

impl Place {
    pub fn new(registry: &str, repository: &str) -> Self {
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        Self { registry: registry.to_owned(), host: host.to_owned(), repository: repository.to_owned() }
    }

    pub fn shown(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Nobody can listen in.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// The address of something in the repository: `manifests/latest`.
    pub fn url(&self, tls_on_loopback: bool, what: &str) -> Result<Url, RegistryError> {
        let scheme = if self.is_loopback() && !tls_on_loopback { "http" } else { "https" };
        let text = format!("{scheme}://{}/v2/{}/{what}", self.host, self.repository);
        Url::parse(&text).map_err(|error| RegistryError::Reference { reference: self.shown(), why: error.to_string() })
    }
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = |host: &str| host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    host == "localhost" || name == "localhost" || bare(name) || bare(host)
}

/// Where something is pushed to, and what is known of that place.
#[derive(Clone, Debug)]
pub struct Target {
    pub(crate) written: String,
    pub(crate) place: Place,
    pub(crate) tag: Option<String>,
    /// Repositories of the same registry that blobs may be mounted from, best first.
    pub mount_from: Vec<String>,
    /// A manifest of the target repository whose blobs are probably needed again: one question for it replaces one for
    /// each blob. Need not be there any more.
    pub former: Option<Digest>,
}

impl Target {
    /// Reads `registry/repository:tag`; without a tag the manifest is only found by its digest.
    ///
    /// # Errors
    /// [`RegistryError::Reference`], also for a digest: that is what a push finds out.
    pub fn parse(written: &str) -> Result<Self, RegistryError> {
        let named = Named::parse(written)?;
        let wrong = |why: &str| RegistryError::Reference { reference: written.to_owned(), why: why.to_owned() };
        if written.contains('@') {
            return Err(wrong("a push cannot choose a digest"));
        }
        let tagged = written.rsplit('/').next().is_some_and(|last| last.contains(':'));
        let tag = tagged.then_some(named.version);
        Ok(Self { written: named.written, place: named.place, tag, mount_from: Vec::new(), former: None })
    }

    /// Whether the tag names a derivation (`d-…`) and so may never change its meaning.
    #[must_use]
    pub fn is_immutable(&self) -> bool {
        self.tag.as_ref().is_some_and(|tag| tag.starts_with(IMMUTABLE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_spoken_to_without_tls() {
        for (registry, scheme) in [
            ("localhost:5000", "http"),
            ("127.0.0.1", "http"),
            ("[::1]:5000", "http"),
            ("10.0.0.1:5000", "https"),
            ("localhost.example", "https"),
            ("127.0.0.1.example:80", "https"),
        ] {
            let place = Place::new(registry, "a");
            assert_eq!(place.url(false, "manifests/b").unwrap().scheme(), scheme, "{registry}");
            assert_eq!(place.url(true, "manifests/b").unwrap().scheme(), "https", "{registry}");
        }
    }

    #[test]
    fn references_are_read_as_docker_reads_them() {
        let named = Named::parse("debian").unwrap();
        assert_eq!(
            (&*named.place.host, &*named.place.repository, &*named.version),
            ("registry-1.docker.io", "library/debian", "latest")
        );
        let digest = Digest::sha256(b"");
        assert_eq!(Named::parse(&format!("ghcr.io/a/b:c@{digest}")).unwrap().version, digest.to_string());
        assert!(matches!(Named::parse("Not An Image"), Err(RegistryError::Reference { .. })));
    }

    #[test]
    fn a_target_has_a_tag_only_where_one_is_written() {
        let tag = |written: &str| Target::parse(written).unwrap().tag;
        assert_eq!(tag("localhost:5000/a/b"), None);
        assert_eq!(tag("localhost:5000/a/b:d-12").as_deref(), Some("d-12"));
        assert!(Target::parse("localhost:5000/a/b:d-12").unwrap().is_immutable());
        assert!(!Target::parse("localhost:5000/a/b:latest").unwrap().is_immutable());
        assert!(Target::parse(&format!("a.example/b@{}", Digest::sha256(b""))).is_err());
    }
}
