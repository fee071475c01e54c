//! [`Renderer`]: project templates, rendered strictly. An undefined name, a missing template and a syntax error are
//! all errors; nothing ever renders to an empty string by accident.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use fleet_model::{Origin, RelPath, SourceTree};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, syntax::SyntaxConfig, value::Serde};
use serde::Serialize;

/// A template could not be rendered.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{template}{}: {what}", .line.map(|l| format!(":{l}")).unwrap_or_default())]
pub struct RenderError {
    /// Which template, relative to the project.
    pub template: String,
    /// 1-based line, where known.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
}

/// Lines that hold only a block tag leave no blank line behind in templates; copied files keep every byte.
fn syntax(trim: bool) -> SyntaxConfig {
    let mut builder = SyntaxConfig::builder();
    builder.keep_trailing_newline(true).trim_blocks(trim).lstrip_blocks(trim);
    // Only clashing delimiters can fail here, and ours are the defaults.
    builder.build().unwrap_or_default()
}

/// Renders templates of one folder and remembers which files it read.
pub struct Renderer<'s> {
    environment: Environment<'s>,
    folder: RelPath,
    names: Vec<String>,
    read: Arc<Mutex<BTreeSet<String>>>,
}

impl RenderError {
    /// The line to look at.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        let line = u32::try_from(self.line?).ok()?;
        Some(Origin { file: RelPath::new(&self.template).ok()?, line })
    }
}

impl<'s> Renderer<'s> {
    /// Templates below `folder` may include each other by paths relative to it.
    #[must_use]
    pub fn new(sources: &'s SourceTree, folder: &RelPath) -> Self {
        let read = Arc::new(Mutex::new(BTreeSet::new()));
        let texts: BTreeMap<String, Option<String>> = sources
            .files_below(folder)
            .filter_map(|(path, file)| {
                let name = path.as_str().strip_prefix(&folder.as_folder())?.to_owned();
                Some((name, file.text().map(str::to_owned)))
            })
            .collect();
        // A picture beside the templates is none of them; a Markdown file is, whatever is in it.
        let templates = texts.iter().filter(|(name, text)| text.is_some() || name.ends_with(".md"));
        let names = templates.map(|(name, _)| name.clone()).collect();
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_syntax(syntax(true));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        let seen = Arc::clone(&read);
        environment.set_path_join_callback(move |name, _parent| {
            // Every include passes here, cached or not: this is how the derivation learns what was read.
            seen.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
            name.into()
        });
        environment.set_loader(move |name| match texts.get(name) {
            None => Ok(None),
            Some(Some(text)) => Ok(Some(text.clone())),
            Some(None) => Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("{name} is not UTF-8 text"))),
        });
        Self { environment, folder: folder.clone(), names, read }
    }

    /// Renders the template of this name, relative to the folder, and returns the text with every file that was read.
    ///
    /// # Errors
    /// [`RenderError`] with the innermost template's name and line.
    pub fn render(&self, name: &str, context: &impl Serialize) -> Result<(String, BTreeSet<RelPath>), RenderError> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let text = self
            .environment
            .get_template(name)
            .and_then(|template| template.render(Serde(context)))
            .map_err(|error| self.explain(name, &error))?;
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let files = read.iter().map(String::as_str).chain([name]).filter_map(|n| self.folder.join(n).ok()).collect();
        Ok((text, files))
    }

    /// Every template of the folder that is not text or does not parse, used or not; files below `skip` are not templates.
    #[must_use]
    pub fn broken(&self, skip: &str) -> Vec<RenderError> {
        let templates = self.names.iter().filter(|name| !name.starts_with(skip));
        templates.filter_map(|name| Some(self.explain(name, &self.environment.get_template(name).err()?))).collect()
    }

    fn explain(&self, asked: &str, error: &minijinja::Error) -> RenderError {
        let mut innermost = error;
        let mut next = std::error::Error::source(error);
        while let Some(source) = next {
            if let Some(inner) = source.downcast_ref::<minijinja::Error>() {
                innermost = inner;
            }
            next = source.source();
        }
        let template = innermost.name().unwrap_or(asked);
        let detail = innermost.detail().map(|d| format!(": {d}")).unwrap_or_default();
        RenderError {
            template: format!("{}/{template}", self.folder),
            line: innermost.line(),
            what: format!("{}{detail}", innermost.kind()),
        }
    }
}

/// Renders one text that is not part of a template folder (a `copy … render=#true`), under its own name.
///
/// # Errors
/// [`RenderError`].
pub fn render_text(name: &RelPath, text: &str, context: &impl Serialize) -> Result<String, RenderError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(syntax(false));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.render_named_str(name.as_str(), text, Serde(context)).map_err(|error| RenderError {
        template: name.to_string(),
        line: error.line(),
        what: format!("{}{}", error.kind(), error.detail().map(|d| format!(": {d}")).unwrap_or_default()),
    })
}
