//! Rooms: within one environment no two rules make one alias.

use crate::{code, context::Context, diagnostic::Draft, model::Model, origin::Origin, rooms};

/// Expands the rules of every environment and reports rooms that would be one room.
pub(crate) fn check(ctx: &mut Context<'_>, model: &Model) {
    if ctx.partial {
        return;
    }
    for environment in model.environments.values() {
        let expanded = rooms::expand(model, environment);
        for (first, second) in expanded.collisions {
            let message = format!(
                "in {}, {} and {} would both be the room #{}",
                environment.name, first.of, second.of, first.alias
            );
            let here = |ctx: &Context<'_>, origin: &Origin| ctx.files.place_of(origin);
            let draft = Draft::error(code::ALIAS_COLLISION, message)
                .maybe_at(here(ctx, &second.origin), format!("{} makes #{}", second.of, second.alias))
                .maybe_at(here(ctx, &first.origin), format!("{} makes #{} too", first.of, first.alias))
                .help("give one of them alias=\"…\", or put {department} into the alias of the rule");
            ctx.report(draft);
        }
    }
}
