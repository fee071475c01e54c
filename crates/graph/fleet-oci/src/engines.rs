//! [`satisfies`]: whether a Node version lies in a range that a package declares under `engines`.

use semver::Version;

/// A range nobody can check against.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RangeError {
    /// The version is not `x.y.z`.
    #[error("`{0}` is not an exact version")]
    Version(String),
    /// The range is not npm's syntax.
    #[error("`{0}` is not a version range as npm knows them")]
    Range(String),
}

/// npm's range syntax: alternatives by `||`, all of the comparators between them, with `^`, `~`, `x`, partial
/// versions and `a - b`.
///
/// # Errors
/// [`RangeError`].
pub fn satisfies(version: &str, range: &str) -> Result<bool, RangeError> {
    let version =
        Version::parse(version.trim_start_matches('v')).map_err(|_| RangeError::Version(version.to_owned()))?;
    for alternative in range.split("||") {
        let bounds = bounds(alternative).ok_or_else(|| RangeError::Range(range.to_owned()))?;
        if bounds.iter().all(|bound| bound.holds(&version)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// From this version on (inclusive), and up to this one (exclusive).
#[derive(Default)]
struct Bound {
    from: Option<Version>,
    before: Option<Version>,
}

impl Bound {
    fn holds(&self, version: &Version) -> bool {
        self.from.as_ref().is_none_or(|from| version >= from)
            && self.before.as_ref().is_none_or(|before| version < before)
    }
}

fn bounds(alternative: &str) -> Option<Vec<Bound>> {
    if let Some((low, high)) = alternative.split_once(" - ") {
        return Some(vec![comparator(">=", low.trim())?, comparator("<=", high.trim())?]);
    }
    let mut bounds = Vec::new();
    let mut operator = String::new();
    for word in alternative.split_whitespace() {
        let at = word.find(|c: char| !matches!(c, '<' | '>' | '=' | '^' | '~')).unwrap_or(word.len());
        // `>= 1.2` may have a space after its operator.
        operator.push_str(&word[..at]);
        if at < word.len() {
            bounds.push(comparator(&operator, &word[at..])?);
            operator.clear();
        }
    }
    operator.is_empty().then_some(bounds)
}

/// A version of which only the first parts may be given.
struct Partial {
    parts: Vec<u64>,
    full: Option<Version>,
}

impl Partial {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim_start_matches('v');
        if let Ok(full) = Version::parse(text) {
            return Some(Self { parts: vec![full.major, full.minor, full.patch], full: Some(full) });
        }
        let given = text.split('.').take_while(|part| !matches!(*part, "x" | "X" | "*" | ""));
        let parts: Vec<u64> = given.map(str::parse).collect::<Result<_, _>>().ok()?;
        (parts.len() <= 3 && (!parts.is_empty() || matches!(text, "x" | "X" | "*")))
            .then_some(Self { parts, full: None })
    }

    fn at(&self, index: usize) -> u64 {
        self.parts.get(index).copied().unwrap_or(0)
    }

    fn lowest(&self) -> Version {
        self.full.clone().unwrap_or_else(|| Version::new(self.at(0), self.at(1), self.at(2)))
    }

    /// The first version that differs in the part at `index`; `None` when nothing was given there, or when there is none:
    /// the part is the largest that there is.
    fn next(&self, index: usize) -> Option<Version> {
        let after = |part: usize| self.at(part).checked_add(1);
        match self.parts.len().min(index + 1) {
            0 => None,
            1 => Some(Version::new(after(0)?, 0, 0)),
            2 => Some(Version::new(self.at(0), after(1)?, 0)),
            _ => Some(Version::new(self.at(0), self.at(1), after(2)?)),
        }
    }
}

fn comparator(operator: &str, text: &str) -> Option<Bound> {
    let version = Partial::parse(text)?;
    let (lowest, after) = (version.lowest(), version.next(2));
    let nothing = || Bound { from: None, before: Some(Version::new(0, 0, 0)) };
    Some(match operator {
        "" | "=" => Bound { from: Some(lowest), before: after },
        ">=" => Bound { from: Some(lowest), before: None },
        ">" => after.map_or_else(nothing, |after| Bound { from: Some(after), before: None }),
        "<" => Bound { from: None, before: Some(lowest) },
        "<=" => Bound { from: None, before: after },
        "~" => Bound { from: Some(lowest), before: version.next(1) },
        "^" => {
            let leading = version.parts.iter().position(|part| *part != 0);
            let fixed = leading.unwrap_or(version.parts.len().saturating_sub(1));
            Bound { from: Some(lowest), before: version.next(fixed) }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_openclaw_declares_takes_node_24_and_not_25() {
        let range = ">=24.16.0 <25 || >=26.1.0";
        for (version, fits) in [
            ("24.21.0", true),
            ("24.16.0", true),
            ("24.15.9", false),
            ("25.0.0", false),
            ("26.0.9", false),
            ("26.1.0", true),
        ] {
            assert_eq!(satisfies(version, range), Ok(fits), "{version}");
        }
    }

    #[test]
    fn every_form_npm_knows_is_understood() {
        for (version, range, fits) in [
            ("1.2.3", "*", true),
            ("1.2.3", "", true),
            ("1.2.3", "1.x", true),
            ("2.0.0", "1", false),
            ("1.9.0", "^1.2.3", true),
            ("2.0.0", "^1.2.3", false),
            ("0.3.0", "^0.2.3", false),
            ("0.0.4", "^0.0.3", false),
            ("1.2.9", "~1.2.3", true),
            ("1.3.0", "~1.2.3", false),
            ("1.3.0", "1.2 - 1.3", true),
            ("1.4.0", "1.2 - 1.3", false),
            ("1.2.3", ">1.2", false),
            ("1.3.0", "> 1.2", true),
            ("1.2.3", "=v1.2.3", true),
        ] {
            assert_eq!(satisfies(version, range), Ok(fits), "{version} in {range}");
        }
        for range in
            ["^18446744073709551615", "<=18446744073709551615", ">18446744073709551615", "~1.18446744073709551615"]
        {
            assert_eq!(satisfies("1.2.3", range), Ok(range.starts_with("<=")), "{range}");
        }
        assert!(satisfies("1.2.3", "lts").is_err());
        assert!(satisfies("latest", "*").is_err());
    }
}
