//! References: every name that is used must be declared somewhere.

use crate::{
    code,
    context::{Context, Gaps, Reference, Refers},
    diagnostic::Draft,
    model::{Model, ModelProviderKind},
    words::did_you_mean_or_known,
};

/// Checks every reference noted while reading, but for names that may have been declared in what could not be read.
pub(crate) fn check(ctx: &mut Context<'_>, model: &Model) {
    for reference in std::mem::take(&mut ctx.references) {
        if unknowable(&ctx.gaps, &reference) {
            continue;
        }
        let draft = match &reference.refers {
            Refers::Person => person(model, &reference),
            Refers::Image => image(model, &reference),
            Refers::Model => served_model(model, &reference),
            Refers::Department => department(model, &reference),
            Refers::Team(within) => team(model, &reference, within.as_deref()),
            Refers::Skill => super::workspaces::skill(ctx, model, &reference),
        };
        if let Some(draft) = draft {
            ctx.report(draft);
        }
    }
}

fn unknowable(gaps: &Gaps, reference: &Reference) -> bool {
    let name = reference.name.as_str();
    match &reference.refers {
        Refers::Person => gaps.person(name),
        Refers::Image => gaps.named("image", name),
        Refers::Model => gaps.provider(name.split_once('/').map_or(name, |(provider, _)| provider)),
        Refers::Department | Refers::Team(_) => gaps.departments(),
        Refers::Skill => gaps.templates(),
    }
}

fn unknown<'a>(
    code: &'static str,
    what: &str,
    reference: &Reference,
    known: impl IntoIterator<Item = &'a String> + Clone,
    otherwise: &str,
) -> Draft {
    let words = known.into_iter().map(String::as_str).collect::<Vec<&str>>();
    let (what, whose) =
        what.split_once(" of ").map_or((what, String::new()), |(what, whose)| (what, format!(" of {whose}")));
    Draft::error(code, format!("there is no {what} `{}`{whose}", reference.name.escape_debug()))
        .at(reference.place, "not declared")
        .help(did_you_mean_or_known(&reference.name, words.iter().copied(), otherwise))
}

fn person(model: &Model, reference: &Reference) -> Option<Draft> {
    let known = &model.org.people;
    (!known.contains_key(&reference.name))
        .then(|| unknown(code::UNKNOWN_PERSON, "person", reference, known.keys(), "declare them in org"))
}

fn image(model: &Model, reference: &Reference) -> Option<Draft> {
    let known = &model.images;
    (!known.contains_key(&reference.name))
        .then(|| unknown(code::UNKNOWN_IMAGE, "image", reference, known.keys(), "declare it in images"))
}

fn department(model: &Model, reference: &Reference) -> Option<Draft> {
    let known = &model.org.departments;
    (!known.contains_key(&reference.name))
        .then(|| unknown(code::UNKNOWN_DEPARTMENT, "department", reference, known.keys(), "declare it in org"))
}

fn team(model: &Model, reference: &Reference, within: Option<&str>) -> Option<Draft> {
    let departments = model.org.departments.values();
    let known: Vec<&String> = departments
        .filter(|department| within.is_none_or(|name| name == department.name))
        .flat_map(|department| department.teams.keys())
        .collect();
    if known.contains(&&reference.name) {
        return None;
    }
    let what = within.map_or_else(|| "team".to_owned(), |name| format!("team of {name}"));
    Some(unknown(code::UNKNOWN_TEAM, &what, reference, known.iter().copied(), "declare it in its department"))
}

/// `provider/model`: the provider must be declared, and an OpenAI-compatible one must list the model.
fn served_model(model: &Model, reference: &Reference) -> Option<Draft> {
    let name = &reference.name;
    let Some((provider, id)) = name.split_once('/').filter(|(provider, id)| !provider.is_empty() && !id.is_empty())
    else {
        return Some(
            Draft::error(code::BAD_MODEL_NAME, format!("`{}` does not say whose model it is", name.escape_debug()))
                .at(reference.place, "provider/model is expected")
                .help("write the provider, a slash and the model, for instance \"ollama/llama3.1\""),
        );
    };
    let Some(declared) = model.providers.get(provider) else {
        let used = Reference { name: provider.to_owned(), ..reference.clone() };
        let otherwise = "declare it: models { provider \"…\" kind=\"openai\" base-url=\"…\" }";
        return Some(unknown(code::UNKNOWN_PROVIDER, "model provider", &used, model.providers.keys(), otherwise));
    };
    let ModelProviderKind::OpenAi { models, .. } = &declared.kind else { return None };
    if models.contains_key(id) {
        return None;
    }
    let used = Reference { name: id.to_owned(), ..reference.clone() };
    let otherwise = format!("declare it within provider \"{provider}\": model \"{id}\" context=32768");
    Some(unknown(code::UNKNOWN_MODEL, &format!("model of {provider}"), &used, models.keys(), &otherwise))
}
