//! Formatting: comments and order stay, the meaning stays, twice is once.

use fleet_model::format;
use proptest::prelude::*;

fn formatted(text: &str) -> String {
    format(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn one_layout_with_every_comment_in_its_place() {
    let text = "// head\n\n\n  fleet   \"a\"  domain = \"a.b\"   // why\norg{\n\n  // who\n\thuman \"x\" /* inner */ level=\"ceo\"\n  /-person \"y\"\n\n\n  defaults { skills \"a\"   \"b\";heartbeat \"5m\" }\n\n}\n\n\n// end";
    let expected = "\
// head

fleet \"a\" domain=\"a.b\" // why
org {
    // who
    human \"x\" /* inner */ level=\"ceo\"
    /-person \"y\"

    defaults { skills \"a\" \"b\"; heartbeat \"5m\" }
}

// end
";
    assert_eq!(formatted(text), expected);
    assert_eq!(formatted(expected), expected);
}

#[test]
fn continued_lines_are_indented_and_strings_left_alone() {
    let text =
        "a {\ndeploy \"x\" \\\n\"y\" \\  // note\n   \"z\"\n b #\"\"\"\n     raw\n       lines\n     \"\"\"#\n}\n";
    let expected = "a {\n    deploy \"x\" \\\n        \"y\" \\ // note\n        \"z\"\n    b #\"\"\"\n     raw\n       lines\n     \"\"\"#\n}\n";
    assert_eq!(formatted(text), expected);
    assert_eq!(formatted(expected), expected);
}

/// Found by the fuzz target, seed 8223: the quotation mark is in a comment, and what follows is no text.
#[test]
fn a_comment_may_follow_a_word_directly() {
    let text = "a s://r.test/x\" }\nb   \"c\" {  d  1  }\n";
    assert_eq!(formatted(text), "a s: //r.test/x\" }\nb \"c\" { d 1 }\n");
}

#[test]
fn an_empty_line_after_a_backslash_still_ends_the_node() {
    let text = "a { x }\\\n\n   b \\\n c\n";
    let expected = "a { x } \\\n\nb \\\n    c\n";
    assert_eq!(formatted(text), expected);
    assert_eq!(formatted(expected), expected);
}

#[test]
fn a_line_may_go_on_with_an_equals_sign() {
    let expected = "a b \\\n    =\"c\"\n";
    assert_eq!(formatted("a b\\\n=\"c\"\n"), expected);
    assert_eq!(formatted(expected), expected);
}

#[test]
fn a_text_that_does_not_parse_is_left_alone() {
    assert!(format("a {").is_err());
    assert!(format(&"a {".repeat(1000)).is_err());
    assert_eq!(formatted(""), "");
    assert_eq!(formatted("\u{feff}a\r\nb\r\n"), "a\nb\n");
}

#[test]
fn a_word_ends_where_a_comment_begins_without_a_space() {
    assert_eq!(formatted("a s://x\" }\nb   \"c\" // \"d\n"), "a s: //x\" }\nb \"c\" // \"d\n");
    assert_eq!(formatted("a b/* c */  d\n"), "a b /* c */ d\n");
}

#[test]
fn the_design_sketch_and_the_golden_cases_keep_their_meaning() {
    let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/diagnostics");
    let mut seen = 0;
    for entry in std::fs::read_dir(cases).expect("tests/diagnostics") {
        let Ok(text) = std::fs::read_to_string(entry.expect("an entry").path().join("fleet.kdl")) else { continue };
        let Ok(once) = format(&text) else { continue };
        assert_eq!(formatted(&once), once);
        seen += 1;
    }
    assert!(seen > 20);
}

/// Small KDL documents, with the awkward parts of the syntax in them.
fn documents() -> impl Strategy<Value = String> {
    let space = prop::sample::select(vec![" ", "  ", "\t", " /* c */ ", " \\\n  ", " \\ // c\n"]);
    let value = prop::sample::select(vec![
        "\"t\"",
        "5",
        "#true",
        "word",
        "#\"r\"#",
        "p=1",
        "q = \"x\"",
        "(u8)7",
        "\"\"\"\n  m\n  \"\"\"",
        "-1.5e3",
        "\"a\\\"{\"",
        "/-9",
        "\"//\"",
    ]);
    let node = (
        prop::sample::select(vec!["a", "b", "(t)c", "\"quoted name\"", "/-d", "-"]),
        prop::collection::vec((space, value), 0..4),
    )
        .prop_map(|(name, entries)| {
            let entries: String = entries.into_iter().map(|(space, value)| format!("{space}{value}")).collect();
            format!("{name}{entries}")
        });
    let end = || prop::sample::select(vec!["\n", ";", "\n\n\n", " // c\n", "\r\n", ";\n  // own line\n"]);
    let leaf = (node, end()).prop_map(|(node, end)| format!("{node}{end}"));
    leaf.prop_recursive(3, 24, 4, move |inner| {
        (prop::collection::vec(inner, 0..4), prop::sample::select(vec!["x", "y \"z\""]), end())
            .prop_map(|(children, name, end)| format!("{name} {{{}\n}}{end}", children.concat()))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// `format` itself refuses a result that means something else, so that it succeeds says that it means the same.
    #[test]
    fn what_parses_is_formatted_without_changing_its_meaning(text in prop::collection::vec(documents(), 0..5)) {
        let text = text.concat();
        if kdl::KdlDocument::parse(&text).is_ok() {
            let once = formatted(&text);
            prop_assert_eq!(formatted(&once), once.clone());
            let comments = |text: &str| text.matches("c\n").count() + text.matches("/* c */").count();
            prop_assert_eq!(comments(&once), comments(&text.replace("\r\n", "\n")), "{}\n---\n{}", text, once);
        }
    }
}
