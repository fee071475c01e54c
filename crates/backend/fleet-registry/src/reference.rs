//! [`Named`] and [`Target`]: what a text names; [`Place`]: where that is asked for.

use std::net::{IpAddr, Ipv6Addr};

use fleet_oci::Digest;
use reqwest::Url;

use crate::error::RegistryError;

/// Docker's default registry, and what its short names mean.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_ALIAS: &str = "index.docker.io";
const DOCKER_HUB_OWN: &str = "library/";
/// Registry and repository together have at most so many bytes, as docker has it.
const MAXIMUM_NAME: usize = 255;
/// And a tag so many.
const MAXIMUM_TAG: usize = 128;

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
    /// Reads `debian:12`, `ghcr.io/org/app@sha256:…` and what else docker reads. By hand: the regular expression that
    /// crates have for it takes longer to prepare than all that a build with nothing to do has to do.
    pub fn parse(written: &str) -> Result<Self, RegistryError> {
        let wrong = |why: &str| RegistryError::Reference { reference: written.to_owned(), why: why.to_owned() };
        let (rest, digest) = match written.split_once('@') {
            Some((rest, digest)) => {
                let digest: Digest = digest.parse().map_err(|_| wrong("what follows the `@` is no digest"))?;
                (rest, Some(digest))
            }
            None => (written, None),
        };
        // A colon before the last slash belongs to a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(wrong(&format!("`{tag}` is no tag")));
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if is_registry(first) => (first, path),
            _ => (DOCKER_HUB, name),
        };
        let registry = if registry == DOCKER_HUB_ALIAS { DOCKER_HUB } else { registry };
        let repository = match path.contains('/') {
            false if registry == DOCKER_HUB => format!("{DOCKER_HUB_OWN}{path}"),
            _ => path.to_owned(),
        };
        if !repository.split('/').all(is_part) {
            return Err(wrong(
                "names of repositories are lower-case letters and digits, with `.`, `_`, `-` and `/` between them",
            ));
        }
        if registry.len() + 1 + repository.len() > MAXIMUM_NAME {
            return Err(wrong(&format!("its name is longer than {MAXIMUM_NAME} bytes")));
        }
        let version = digest.map(|digest| digest.to_string()).or(tag.map(str::to_owned));
        let version = version.unwrap_or_else(|| "latest".to_owned());
        Ok(Self { written: written.to_owned(), place: Place::new(registry, &repository), version })
    }
}

/// Whether the first part of a name is a registry's and no repository's: docker's rule.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, "")) => return address.parse::<Ipv6Addr>().is_ok(),
        Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() && port.starts_with(':') => {
            ("v6", Some(&port[1..]))
        }
        Some(_) => return false,
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let number = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let telling =
        text.contains(['.', ':']) || text == "localhost" || text.bytes().any(|byte| byte.is_ascii_uppercase());
    telling && host.split('.').all(label) && port.is_none_or(number)
}

/// `[a-z0-9]+` with one of `.`, `_`, `__` or any number of `-` between.
fn is_part(part: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = |byte: Option<u8>| byte.is_some_and(word);
    let between = part.split(|letter: char| u8::try_from(letter).is_ok_and(word)).filter(|between| !between.is_empty());
    let fits = |between: &str| matches!(between, "." | "_" | "__") || between.bytes().all(|byte| byte == b'-');
    ends(part.bytes().next()) && ends(part.bytes().last()) && between.into_iter().all(fits)
}

fn is_tag(tag: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let first = tag.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    first && tag.len() <= MAXIMUM_TAG && tag.bytes().all(inner)
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
        let parts = |written: &str| Named::parse(written).map(|n| (n.place.registry, n.place.repository, n.version));
        for (written, registry, repository, version) in [
            ("a/b", "docker.io", "a/b", "latest"),
            ("index.docker.io/debian:12", "docker.io", "library/debian", "12"),
            ("localhost/a", "localhost", "a", "latest"),
            ("127.0.0.1:5000/a__b/c-d--e:1_x", "127.0.0.1:5000", "a__b/c-d--e", "1_x"),
            ("[::1]:5000/a", "[::1]:5000", "a", "latest"),
            ("Host/a", "Host", "a", "latest"),
            ("quay.io/a.b_c", "quay.io", "a.b_c", "latest"),
        ] {
            assert_eq!(parts(written).unwrap(), (registry.into(), repository.into(), version.into()), "{written}");
        }
        let long = format!("ghcr.io/{}", "a".repeat(300));
        let tag = format!("a:{}", "t".repeat(129));
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a:",
            "a:-x",
            "a@",
            "a@sha256:12",
            "a b",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a.",
            "ghcr.io/A",
            "ghcr.io:x/a",
            "-x.io/a",
            "[::g]:1/a",
            "a/ü",
            "http://a/b",
            "a?x",
            "a#x",
            "../x",
            &long,
            &tag,
        ] {
            assert!(Named::parse(bad).is_err(), "{bad}");
        }
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
