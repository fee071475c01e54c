//! Rooms: within one environment no two rules make one alias, and texts mention only rooms that can exist.

use std::collections::BTreeSet;

use crate::{
    code,
    context::Context,
    diagnostic::Draft,
    model::Model,
    origin::Origin,
    rooms,
    text::{Place, count},
    words::did_you_mean,
};

/// Expands the rules of every environment and reports rooms that would be one room.
pub(crate) fn check(ctx: &mut Context<'_>, model: &Model) {
    // People who are not known could only add collisions.
    if ctx.gaps.text {
        return;
    }
    for environment in model.environments.values() {
        for (first, second) in rooms::claims(model, environment).collisions {
            let message = format!(
                "in environment `{}`, {} and {} would both be the room #{}",
                environment.name, first.of, second.of, first.alias
            );
            let here = |ctx: &Context<'_>, origin: &Origin| ctx.files.place_of(origin);
            let draft = Draft::error(code::ALIAS_COLLISION, message)
                .maybe_at(here(ctx, &second.origin), format!("{} makes #{}", second.of, second.alias))
                .maybe_at(here(ctx, &first.origin), format!("{} makes #{} too", first.of, first.alias))
                .help(match first.of.starts_with("room") && second.of.starts_with("room") {
                    true => "give one of the rules another alias",
                    false => "give one of them alias=\"…\"; in a rule for teams, {department} in the alias helps too",
                });
            ctx.report(draft);
        }
    }
}

/// Reports rooms that templates and skills mention and that no rule makes for anybody in the organisation.
pub(crate) fn check_mentions(ctx: &mut Context<'_>, model: &Model) {
    let Some(environment) =
        model.environments.values().next().filter(|_| !ctx.gaps.people() && !ctx.gaps.departments())
    else {
        return;
    };
    let mut everybody = environment.clone();
    everybody.deploy =
        model.org.people.values().filter(|person| !person.human).map(|person| (person.id.clone(), None)).collect();
    let known: BTreeSet<String> = rooms::claims(model, &everybody).claims.into_keys().collect();
    let tree = ctx.tree;
    for (path, file) in tree.files_below(&model.templates.value).filter(|(path, _)| path.as_str().ends_with(".md")) {
        let Some(text) = file.text() else { continue };
        for (at, alias) in mentions(text).filter(|(_, alias)| !known.contains(*alias)) {
            let file = ctx.files.find(path).unwrap_or_else(|| ctx.files.add(path.clone(), text));
            let help = did_you_mean(alias, known.iter().map(String::as_str))
                .unwrap_or_else(|| "correct it, or add a rule to rooms that makes it".to_owned());
            ctx.report(
                Draft::warning(code::UNKNOWN_ROOM, format!("{path} mentions the room #{alias}, and no rule makes it"))
                    .at(
                        Place { file, start: count(at), len: count(alias.len() + 1) },
                        "agents would look for this room in vain",
                    )
                    .help(help),
            );
        }
    }
}

/// Every `#alias` in a Markdown text, outside of fenced code, with the offset of its `#`.
fn mentions(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    let mut start = 0;
    let lines = text.split_inclusive('\n').filter_map(move |line| {
        let here = start;
        start += line.len();
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((here, line))
    });
    lines.flat_map(|(start, line)| {
        line.match_indices('#').filter_map(move |(at, _)| {
            let before = line[..at].chars().next_back();
            if before.is_some_and(|c| !c.is_whitespace() && !"(`\"',".contains(c)) {
                return None;
            }
            let rest = &line[at + 1..];
            let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c)));
            let (alias, after) = rest.split_at(end.unwrap_or(rest.len()));
            let alias = alias.trim_end_matches(['.', '-', '_']);
            let word = alias.starts_with(|c: char| c.is_ascii_lowercase())
                && !after.starts_with(|c: char| c == '{' || c.is_alphanumeric());
            word.then_some((start + at, alias))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::mentions;

    #[test]
    fn rooms_are_found_in_prose_and_not_in_code_headings_or_templates() {
        let text = "# Title\nWrite to #all-employees, (`#sales-team`).\n```\n#include\n```\n#{{ x }} a#b #12 #eng-{{ x }} #Fff #end.";
        let found: Vec<&str> = mentions(text).map(|(_, alias)| alias).collect();
        assert_eq!(found, ["all-employees", "sales-team", "end"]);
        assert!(mentions(text).all(|(at, alias)| text[at..].starts_with(&format!("#{alias}"))));
    }
}
