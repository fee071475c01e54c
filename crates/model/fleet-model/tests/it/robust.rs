//! What never happens: a panic on any text. The long run of the same is `fuzz_fleet_kdl`.

use proptest::prelude::*;

use crate::project;

/// Words of the language in any order, with punctuation between them.
fn word_salad() -> impl Strategy<Value = String> {
    let words = vec![
        "fleet",
        "org",
        "human",
        "person",
        "department",
        "team",
        "defaults",
        "model",
        "skills",
        "size",
        "images",
        "image",
        "base",
        "debian",
        "packages",
        "copy",
        "rooms",
        "room",
        "each",
        "members",
        "environment",
        "target",
        "deploy",
        "override",
        "extends=",
        "alias=",
        "level=",
        "reports-to=",
        "cpu=",
        "\"a\"",
        "\"b\"",
        "\"{team}\"",
        "\"*\"",
        "\"ceo\"",
        "\"docker\"",
        "\"aws\"",
        "#true",
        "#null",
        "1",
        "-1",
        "99999999999999999999",
        "1.5",
        "{",
        "}",
        "{",
        "}",
        "\n",
        ";",
        "include",
        "\"fleet.kdl\"",
        "\"p.csv\"",
        "directory",
        "/-",
        "\\\n",
        "\"\"",
        "\"é\"",
        "\"🦀\"",
        "\"5m\"",
        "heartbeat",
    ];
    prop::collection::vec(prop::sample::select(words), 0..60).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_check_panic(text in "\\PC*") {
        project::render(&project::check_texts(&[("fleet.kdl", &text)]));
    }

    #[test]
    fn no_words_of_the_language_make_check_panic(text in word_salad(), rows in "[a-c,\"\n\r ]{0,60}") {
        let rows = format!("id,name,level,department,team,reports_to\n{rows}");
        project::render(&project::check_texts(&[("fleet.kdl", &text), ("p.csv", &rows)]));
    }

    #[test]
    fn no_directory_makes_check_panic(csv in "\\PC*", json in "[\\[\\]{}:,\"a-c0-9 \n]{0,80}") {
        let fleet = "fleet \"t\" domain=\"t\"\norg { directory \"p.csv\"; directory \"p.json\" }";
        project::render(&project::check_texts(&[("fleet.kdl", fleet), ("p.csv", &csv), ("p.json", &json)]));
    }
}

/// Everybody in a directory of ten thousand, checked: prints how long it took, and asserts that it is right.
#[test]
fn ten_thousand_people_are_checked() {
    let mut rows = String::from("id,name,title,level,department,team,reports_to\nhead,Head,,ceo,,,\n");
    for n in 0..10_000 {
        let manager = if n < 10 { "head".to_owned() } else { format!("p.{}", n / 10) };
        let (department, team) = (n % 9, n % 28);
        rows.push_str(&format!("p.{n},Person {n},Title,ic,Department {department},Team {team},{manager}\n"));
    }
    let fleet = "fleet \"t\" domain=\"t\"\norg { human \"head\" level=\"ceo\"; defaults { model \"m/x\" }; directory \"p.csv\" }\n\
        models { provider \"m\" kind=\"bedrock\" region=\"x\" }\n\
        images { image \"agent\" { base \"localhost/a:1\" }; image \"homeserver\" { base \"localhost/h:1\" } }\n\
        rooms { room \"all\" { members \"*\" }; each \"team\" { room \"{department}-{team}\" { members in=\"{team}\" } } }\n\
        environment \"all\" { target \"docker\"; deploy \"*\" }";
    let tree = project::tree(&[("fleet.kdl", fleet), ("p.csv", &rows), ("templates/roles/ic.md", "x")]);
    let start = std::time::Instant::now();
    let checked = fleet_model::check(&project::path("fleet.kdl"), &tree);
    let took = start.elapsed();
    println!("check of 10,000 people: {} ms", took.as_millis());
    assert!(checked.diagnostics.is_empty(), "{}", project::render(&checked));
    let model = checked.model.expect("a model");
    assert_eq!(model.environments["all"].deploy.len(), 10_000);
    let start = std::time::Instant::now();
    let resolved = fleet_model::resolve(&model, "all").expect("declared");
    println!("resolve of 10,000 people: {} ms", start.elapsed().as_millis());
    assert_eq!(resolved.agents.len(), 10_000);
}
