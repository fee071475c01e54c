//! [`slug`]: the one way a name that people write becomes a name that machines accept.

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// Lower-case ASCII letters and digits; every run of anything else is one dash; no dash at either end.
///
/// Unicode is decomposed first (NFKD), so `Café` is `cafe`. `Customer Success` is `customer-success`, `FP&A` is
/// `fp-a`. Empty when nothing of the text is left (`"&"`, `"日本"`): whoever needs a name reports that.
#[must_use]
pub fn slug(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.nfkd().filter(|c| !is_combining_mark(*c)) {
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_lowercase());
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
    }
    if out.ends_with('-') {
        out.pop();
    }
    out
}

/// The display form of a slug: dashes become spaces, each word starts with a capital (`fp-a-team` → `Fp A Team`).
#[must_use]
pub fn title_case(slug: &str) -> String {
    slug.split(['-', '.', '_'])
        .filter(|word| !word.is_empty())
        .map(|word| {
            let mut letters = word.chars();
            letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
        })
        .collect::<Vec<String>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_directory_become_aliases() {
        let pairs = [
            ("Customer Success", "customer-success"),
            ("FP&A", "fp-a"),
            ("  Mid-Market  ", "mid-market"),
            ("Café Ünïcode", "cafe-unicode"),
            ("ﬁnance Ⅳ", "finance-iv"),
            ("&", ""),
            ("日本", ""),
        ];
        for (name, alias) in pairs {
            assert_eq!(slug(name), alias, "{name}");
        }
    }

    #[test]
    fn a_slug_is_its_own_slug() {
        for name in ["FP&A", "Customer Success", "-a--b-"] {
            assert_eq!(slug(&slug(name)), slug(name));
        }
    }

    #[test]
    fn an_alias_reads_as_a_title() {
        assert_eq!(title_case("engineering-leadership"), "Engineering Leadership");
        assert_eq!(title_case("aaron.phillips"), "Aaron Phillips");
    }
}
