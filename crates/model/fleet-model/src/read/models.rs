//! `models { provider "ollama" kind="openai" base-url="…" { model "llama3.1" } }`.

use std::collections::BTreeMap;

use crate::{
    code,
    context::Context,
    diagnostic::Draft,
    model::{ModelProvider, ModelProviderKind, SecretName, ServedModel},
    read::{name, taken},
    reader::{Arguments, Node, Shape},
    words,
};

const MODELS: Shape = Shape { many: &["provider"], ..Shape::EMPTY };
const BEDROCK: Shape =
    Shape { arguments: Arguments::These(&["name"]), properties: Some(&["kind", "region", "api-key"]), ..Shape::EMPTY };
const OPENAI: Shape = Shape {
    arguments: Arguments::These(&["name"]),
    properties: Some(&["kind", "base-url", "api-key"]),
    many: &["model"],
    ..Shape::EMPTY
};
const SERVED: Shape =
    Shape { arguments: Arguments::These(&["id"]), properties: Some(&["context", "max-tokens"]), ..Shape::EMPTY };
const KINDS: [(&str, bool); 2] = [("bedrock", true), ("openai", false)];

/// What a served model can hold when nothing is said: modest, so that a small local model does not overrun.
const SERVED_DEFAULT: ServedModel = ServedModel { context: 32_768, max_tokens: 4_096 };

/// Adds the providers of one `models` node.
pub(crate) fn read(ctx: &mut Context<'_>, node: Node<'_>, providers: &mut BTreeMap<String, ModelProvider>) {
    ctx.expect(node, &MODELS);
    for child in node.all("provider") {
        ctx.needed(child, "kind", "\"openai\"");
        let kind = ctx.text(child, "kind").and_then(|given| ctx.word_of("kind of model provider", given, &KINDS));
        let kind = match kind {
            Some(true) => bedrock(ctx, child),
            Some(false) => openai(ctx, child),
            None => None,
        };
        let Some((name, place)) = name(ctx, child) else { continue };
        if let Some(first) = providers.get(name) {
            let first = ctx.files.place_of(&first.origin);
            taken(ctx, "model providers", name, place, first);
        } else if let Some(kind) = kind {
            let origin = ctx.origin(child.place());
            providers.insert(name.to_owned(), ModelProvider { name: name.to_owned(), kind, origin });
        } else {
            // Its models cannot be judged; what refers to them is not reported on top.
            ctx.gaps.served_by.insert(name.to_owned());
        }
    }
}

fn bedrock(ctx: &mut Context<'_>, node: Node<'_>) -> Option<ModelProviderKind> {
    ctx.expect(node, &BEDROCK);
    let api_key = api_key(ctx, node);
    let region = ctx.needed_text(node, "region", "\"us-east-1\"")?.0.to_owned();
    Some(ModelProviderKind::Bedrock { region, api_key })
}

fn openai(ctx: &mut Context<'_>, node: Node<'_>) -> Option<ModelProviderKind> {
    ctx.expect(node, &OPENAI);
    let api_key = api_key(ctx, node);
    let mut models = BTreeMap::new();
    for child in node.all("model") {
        ctx.expect(child, &SERVED);
        let context = ctx.number(child, "context", 1..=100_000_000);
        let max_tokens = ctx.number(child, "max-tokens", 1..=100_000_000);
        let served = ServedModel {
            context: context.map_or(SERVED_DEFAULT.context, |(n, _)| n),
            max_tokens: max_tokens
                .map_or(SERVED_DEFAULT.max_tokens.min(context.map_or(u32::MAX, |(n, _)| n)), |(n, _)| n),
        };
        if let Some((_, place)) = max_tokens.filter(|_| served.max_tokens > served.context) {
            ctx.report(
                Draft::error(code::BAD_VALUE, "the longest answer is longer than the whole context")
                    .at(place, format!("more than the context of {}", served.context))
                    .help("lower max-tokens, or raise context"),
            );
        }
        if let Some((id, place)) = ctx.argument(child, 0)
            && models.insert(id.to_owned(), served).is_some()
        {
            taken(ctx, "models of this provider", id, place, None);
        }
    }
    let (url, place) = ctx.needed_text(node, "base-url", "\"http://127.0.0.1:11434/v1\"")?;
    if !words::is_base_url(url) {
        ctx.report(
            Draft::error(code::BAD_URL, "this is not the base URL of a model server")
                .hidden_at(place)
                .help("write http:// or https://, a host and a path, for instance http://127.0.0.1:11434/v1; a key belongs into api-key, never into the URL"),
        );
        return None;
    }
    Some(ModelProviderKind::OpenAi { base_url: url.trim_end_matches('/').to_owned(), api_key, models })
}

/// The name of a secret. What is refused is not shown: somebody may have pasted the secret itself.
fn api_key(ctx: &mut Context<'_>, node: Node<'_>) -> Option<SecretName> {
    let (text, place) = ctx.text(node, "api-key")?;
    if words::is_variable(text) {
        return Some(SecretName(text.to_owned()));
    }
    ctx.report(
        Draft::error(code::NOT_A_SECRET_NAME, "api-key must be the name of an environment variable, not a key")
            .hidden_at(place)
            .help("for instance api-key=\"OPENAI_API_KEY\"; if a real key stood here, replace it at its provider: it is in your history"),
    );
    None
}
