//! Words: the nearest known one, lists for messages, spans of time, and what makes a valid name.

use crate::model::Level;

/// Level words and what they mean.
pub(crate) const LEVELS: [(&str, Level); 5] = [
    ("ceo", Level::Ceo),
    ("vp", Level::Vp),
    ("director", Level::Director),
    ("manager", Level::Manager),
    ("ic", Level::Ic),
];

/// The level that a word names, if any.
pub(crate) fn level(word: &str) -> Option<Level> {
    LEVELS.iter().find(|(known, _)| *known == word).map(|(_, level)| *level)
}

/// The known word that somebody may have meant: at most a third of its letters differ.
pub(crate) fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = text.to_lowercase();
    let letters = typed.chars().count();
    let allowed = (letters / 3).max(1);
    known
        .into_iter()
        .filter(|word| word.chars().count().abs_diff(letters) <= allowed)
        .map(|word| (strsim::osa_distance(&typed, &word.to_lowercase()), word))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, word)| word)
}

/// Help that names the nearest known word.
pub(crate) fn did_you_mean<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(text, known).map(|word| format!("did you mean `{word}`?"))
}

/// The same, else the first few known words.
pub(crate) fn did_you_mean_or_known<'a>(
    text: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
    otherwise: &str,
) -> String {
    if let Some(help) = did_you_mean(text, known.clone()) {
        return help;
    }
    let all: Vec<&str> = known.into_iter().collect();
    match all.len() {
        0 => otherwise.to_owned(),
        1..=12 => format!("known: {}", list(&all)),
        n => format!("known: {} and {} more", list(&all[..10]), n - 10),
    }
}

/// `` `a`, `b`, `c` ``.
pub(crate) fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<String>>().join(", ")
}

/// Seconds of `30s`, `5m`, `12h`, `7d`.
pub(crate) fn seconds(text: &str) -> Option<u32> {
    let unit = text.chars().last()?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let digits = text.strip_suffix(unit).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse::<u32>().ok()?.checked_mul(factor)
}

/// Lower-case letters, digits and inner dashes, a letter first, at most 32: fits every kind of object named by it.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// What Matrix local parts and container names both accept: `aaron.phillips`.
pub(crate) fn is_local_part(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    text.len() <= 63
        && text.bytes().all(inner)
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
}

/// A DNS name in lower case.
pub(crate) fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    text.len() <= 180 && text.split('.').all(label)
}

/// The name of an environment variable.
pub(crate) fn is_variable(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

/// An `http` or `https` URL with a host and without credentials in it.
pub(crate) fn is_base_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    !authority.is_empty()
        && !text.contains(['@', '?', '#', '"'])
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// An address to fetch a file from: `https`, or `http` on this machine, without credentials, query or fragment.
pub(crate) fn is_download(text: &str) -> bool {
    let (rest, local) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (rest, false),
        (None, Some(rest)) => (rest, true),
        (None, None) => return false,
    };
    let Some((authority, path)) = rest.split_once('/') else { return false };
    let Some((host, _)) = host_and_port(authority) else { return false };
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    (!local || is_loopback(host)) && !path.is_empty() && printable && !text.contains(['@', '?', '#', '"', '\\'])
}

/// This machine, by one of its names.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host == "127.0.0.1"
}

/// A host and its port: `registry.test`, `127.0.0.1:5000`.
pub(crate) fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => {
            let plain = port.bytes().all(|byte| byte.is_ascii_digit());
            (host, Some(port.parse::<u16>().ok().filter(|port| *port > 0 && plain)?))
        }
        None => (text, None),
    };
    is_domain(host).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_near() {
        assert_eq!(nearest("agnet", ["agent", "conduit"]), Some("agent"));
        assert_eq!(nearest("homeserver", ["agent", "conduit"]), None);
        assert_eq!(nearest("VP", ["vp", "ic"]), Some("vp"));
    }

    #[test]
    fn spans_of_time() {
        assert_eq!(seconds("5m"), Some(300));
        assert_eq!(seconds("7d"), Some(604_800));
        for bad in ["", "m", "5", "5 m", "-5m", "5min", "99999999999s", "99999d9", "60000d", "５m"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn addresses_that_may_be_fetched() {
        for good in [
            "https://host.test/a",
            "https://host.test:8443/a/b.tar.gz",
            "http://127.0.0.1:8000/x",
            "http://localhost/x",
        ] {
            assert!(is_download(good), "{good}");
        }
        for bad in [
            "https://host.test",
            "https://host.test/",
            "http://host.test/a",
            "https://u:p@host.test/a",
            "https://host.test/a?token=1",
            "https://host.test/a b",
            "https:///a",
            "https://host.test:0/a",
            "https://host.test:+1/a",
            "ftp://host.test/a",
        ] {
            assert!(!is_download(bad), "{bad}");
        }
    }

    #[test]
    fn names_that_machines_accept() {
        assert!(is_name("anycompany") && is_name("a-1"));
        assert!(!is_name("1a") && !is_name("A") && !is_name("a-") && !is_name(""));
        assert!(is_local_part("aaron.phillips") && !is_local_part(".a") && !is_local_part("A") && !is_local_part(""));
        assert!(is_domain("anycompany.corp") && is_domain("localhost") && !is_domain("a..b") && !is_domain("a_b"));
        assert!(
            is_base_url("http://127.0.0.1:11434/v1") && !is_base_url("http://k:v@host/") && !is_base_url("ftp://x")
        );
    }
}
