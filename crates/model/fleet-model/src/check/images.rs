//! Images: bases form no circle.

use crate::{
    code,
    context::Context,
    diagnostic::Draft,
    model::{BaseRef, Image, Model, Recipe},
    origin::Declared,
};

/// The fleet image that an image starts from, if it starts from one.
pub(crate) fn base_of(image: &Image) -> Option<Declared<&str>> {
    match &image.recipe {
        Recipe::Layers(recipe) => match recipe.base.as_ref()? {
            Declared { value: BaseRef::Image(name), origin } => Some(Declared { value: name, origin: origin.clone() }),
            Declared { value: BaseRef::Reference(_), .. } => None,
        },
        Recipe::Containerfile(recipe) => recipe
            .base_image
            .as_ref()
            .map(|declared| Declared { value: declared.value.as_str(), origin: declared.origin.clone() }),
    }
}

/// Reports each circle of bases once, at its first image by name.
pub(crate) fn check(ctx: &mut Context<'_>, model: &Model) {
    for (name, image) in &model.images {
        let mut chain = vec![name.as_str()];
        let mut at = image;
        while let Some(base) = base_of(at) {
            if base.value == name {
                chain.push(name);
                if chain.iter().min() == Some(&name.as_str()) {
                    let place = base.origin.as_ref().and_then(|origin| ctx.files.place_of(origin));
                    ctx.report(
                        Draft::error(code::BASE_CYCLE, format!("images start from each other: {}", chain.join(" → ")))
                            .maybe_at(place, "this closes the circle")
                            .help("one of them must start from a reference, scratch or debian"),
                    );
                }
                break;
            }
            if chain.contains(&base.value) {
                break;
            }
            chain.push(base.value);
            let Some(next) = model.images.get(base.value) else { break };
            at = next;
        }
    }
}
