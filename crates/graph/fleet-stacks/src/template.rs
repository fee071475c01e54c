//! `Template`: resources, parameters and outputs by logical id, rendered to the same bytes every time.

use std::{
    collections::{BTreeMap, BTreeSet},
    marker::PhantomData,
};

use fleet_derivation::Hash;
use fleet_objects::StackParameter;
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::{Value, json};

use crate::{MAX_BYTES, MAX_RESOURCES, resource::Resource, settings::Settings, value::Text};

/// The output that holds the hash of everything else in the template.
pub const TEMPLATE_HASH: &str = "TemplateHash";

/// What happens to a resource that its stack no longer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// It goes with the stack.
    Stack,
    /// It is kept: it holds what cannot be made again.
    Retained,
}

/// A resource of a template: where references to it come from.
#[derive(Debug)]
pub struct Handle<R> {
    id: String,
    kind: PhantomData<fn() -> R>,
}

impl<R: Resource> Handle<R> {
    /// `Ref`: the id that AWS gave it.
    pub fn reference(&self) -> Text {
        Text::Ref(self.id.clone())
    }

    /// The logical id, for `DependsOn`.
    pub fn id(&self) -> String {
        self.id.clone()
    }

    /// `Fn::GetAtt`; each resource offers its own attributes by name.
    pub(crate) fn attribute(&self, name: &'static str) -> Text {
        Text::Attribute(self.id.clone(), name)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Parameter {
    r#type: &'static str,
    description: &'static str,
}

struct Entry {
    kind: &'static str,
    properties: Value,
    depends_on: Vec<String>,
    lifetime: Lifetime,
}

/// A template that is being put together.
pub struct Template {
    name: String,
    description: String,
    resources: BTreeMap<String, Entry>,
    parameters: BTreeMap<String, (Parameter, StackParameter)>,
    outputs: BTreeMap<String, Text>,
    tags: BTreeMap<String, String>,
    keys: BTreeMap<String, String>,
    mistakes: Vec<RenderError>,
}

impl Template {
    /// An empty one. `name` is the stack's name in addresses.
    pub fn new(name: impl Into<String>, description: impl Into<String>, tags: BTreeMap<String, String>) -> Self {
        Self {
            name: name.into(),
            description: description.into(),
            resources: BTreeMap::new(),
            parameters: BTreeMap::new(),
            outputs: BTreeMap::new(),
            tags,
            keys: BTreeMap::new(),
            mistakes: Vec::new(),
        }
    }

    /// Adds a resource that goes with the stack.
    pub fn add<R: Resource>(&mut self, id: impl Into<String>, resource: R) -> Handle<R> {
        self.put(id.into(), resource, Vec::new(), Lifetime::Stack)
    }

    /// Adds a resource that is made after others which it does not mention.
    pub fn add_after<R: Resource>(&mut self, id: impl Into<String>, resource: R, after: Vec<String>) -> Handle<R> {
        self.put(id.into(), resource, after, Lifetime::Stack)
    }

    /// Adds a resource that stays when the stack goes.
    pub fn keep<R: Resource>(&mut self, id: impl Into<String>, resource: R) -> Handle<R> {
        self.put(id.into(), resource, Vec::new(), Lifetime::Retained)
    }

    fn put<R: Resource>(&mut self, id: String, resource: R, depends_on: Vec<String>, lifetime: Lifetime) -> Handle<R> {
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            self.mistakes.push(RenderError::BadId { stack: self.name.clone(), id: id.clone() });
        }
        let properties = serde_json::to_value(&resource).unwrap_or_else(|error| {
            self.mistakes.push(RenderError::Json { id: id.clone(), what: error.to_string() });
            Value::Null
        });
        let entry = Entry { kind: R::TYPE, properties, depends_on, lifetime };
        if self.resources.insert(id.clone(), entry).is_some() {
            self.mistakes.push(RenderError::Twice { stack: self.name.clone(), id: id.clone() });
        }
        Handle { id, kind: PhantomData }
    }

    /// Adds a parameter, and returns a reference to it.
    pub fn parameter(
        &mut self,
        id: &str,
        r#type: &'static str,
        description: &'static str,
        source: StackParameter,
    ) -> Text {
        self.parameters.insert(id.to_owned(), (Parameter { r#type, description }, source));
        Text::Ref(id.to_owned())
    }

    /// Says that a parameter of Parameter Store must hold a key of this label before the stack is made.
    pub fn needs_key(&mut self, name: String, label: &str) {
        self.keys.insert(name, label.to_owned());
    }

    /// Adds an output.
    pub fn output(&mut self, id: &str, value: Text) {
        self.outputs.insert(id.to_owned(), value);
    }

    /// Renders it.
    ///
    /// # Errors
    /// [`RenderError`]: a template that CloudFormation could not take.
    pub fn finish(mut self) -> Result<Rendered, RenderError> {
        if let Some(mistake) = self.mistakes.pop() {
            return Err(mistake);
        }
        let mut document = self.document();
        self.check_references(&document)?;
        let hash = Hash::of(compact(&document).as_bytes());
        document["Outputs"][TEMPLATE_HASH] = json!({"Value": hash.to_string()});
        let body = compact(&document);
        let resources = self.resources.len();
        if resources > MAX_RESOURCES || body.len() > MAX_BYTES {
            return Err(RenderError::TooLarge { stack: self.name, resources, bytes: body.len() });
        }
        let parameters = self.parameters.into_iter().map(|(id, (_, source))| (id, source)).collect();
        Ok(Rendered { name: self.name, body, hash, parameters, tags: self.tags, keys: self.keys, resources })
    }

    fn document(&self) -> Value {
        let mut resources = json!({});
        for (id, entry) in &self.resources {
            let retained = (entry.lifetime == Lifetime::Retained).then_some("Retain");
            resources[id] = json!({
                "Type": entry.kind, "DependsOn": entry.depends_on, "Properties": entry.properties,
                "DeletionPolicy": retained, "UpdateReplacePolicy": retained,
            });
        }
        let parameters: BTreeMap<_, _> = self.parameters.iter().map(|(id, (parameter, _))| (id, parameter)).collect();
        let outputs: BTreeMap<_, _> = self.outputs.iter().map(|(id, value)| (id, json!({"Value": value}))).collect();
        json!({
            "AWSTemplateFormatVersion": "2010-09-09", "Description": self.description,
            "Parameters": parameters, "Resources": resources, "Outputs": outputs,
        })
    }

    fn check_references(&self, document: &Value) -> Result<(), RenderError> {
        let mut used = BTreeSet::new();
        references(document, &mut used);
        let dangling = |id: &&String| !self.resources.contains_key(*id) && !self.parameters.contains_key(*id);
        let after = self.resources.values().flat_map(|entry| &entry.depends_on);
        match used.iter().chain(after).find(dangling) {
            Some(id) => Err(RenderError::Foreign { stack: self.name.clone(), id: id.clone() }),
            None => Ok(()),
        }
    }
}

/// Every id that `Ref` and `Fn::GetAtt` name below a value.
pub(crate) fn references(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| references(item, into)),
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("Ref", Value::String(id)) => {
                        into.insert(id.clone());
                    }
                    ("Fn::GetAtt", Value::Array(parts)) => {
                        into.extend(parts.first().and_then(Value::as_str).map(str::to_owned))
                    }
                    _ => references(value, into),
                }
            }
        }
        _ => {}
    }
}

/// JSON with sorted keys and without what is not set, whatever order `serde_json` was built to keep.
struct Sorted<'v>(&'v Value);

impl Sorted<'_> {
    fn is_unset(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        }
    }
}

impl Serialize for Sorted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Array(items) => serializer.collect_seq(items.iter().map(Sorted)),
            Value::Object(fields) => {
                let sorted: BTreeMap<_, _> = fields.iter().filter(|(_, value)| !Self::is_unset(value)).collect();
                let mut map = serializer.serialize_map(Some(sorted.len()))?;
                for (name, value) in sorted {
                    map.serialize_entry(name, &Sorted(value))?;
                }
                map.end()
            }
            value => value.serialize(serializer),
        }
    }
}

/// The bytes of a document: the same for the same document, whoever renders it.
pub(crate) fn compact(document: &Value) -> String {
    serde_json::to_string(&Sorted(document)).unwrap_or_default() // of a `Value` it cannot fail
}

/// Text for a policy or a dashboard that AWS takes as a string of JSON.
pub(crate) fn json_text(document: &impl Serialize) -> String {
    compact(&json!(document))
}

/// A stack's template and what is needed beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The stack's name in addresses: `shared`, `dev-data`, `dev`.
    pub name: String,
    /// The template, without white space.
    pub body: String,
    /// BLAKE3 of the template without its output `TemplateHash`, which holds this.
    pub hash: Hash,
    /// Where each parameter's value comes from.
    pub parameters: BTreeMap<String, StackParameter>,
    /// The stack's tags. Constant: a changing one would touch every resource.
    pub tags: BTreeMap<String, String>,
    /// Parameters of Parameter Store that must be there first, with the labels of the keys that they hold.
    pub keys: BTreeMap<String, String>,
    /// How many resources, of [`MAX_RESOURCES`].
    pub resources: usize,
}

/// A template as a person reads it. Text that is no JSON comes back as it is.
#[must_use]
pub fn pretty(body: &str) -> String {
    let Ok(document) = serde_json::from_str::<Value>(body) else { return body.to_owned() };
    serde_json::to_string_pretty(&Sorted(&document)).map_or_else(|_| body.to_owned(), |text| text + "\n")
}

/// Tags of every stack of a fleet.
pub(crate) fn fleet_tags(fleet: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("fleet:name".to_owned(), fleet.to_owned()),
        ("fleet:managed-by".to_owned(), "fleetctl".to_owned()),
    ])
}

/// Tags of a stack of one environment.
pub(crate) fn tags(settings: &Settings) -> BTreeMap<String, String> {
    let mut tags = fleet_tags(&settings.fleet);
    tags.insert("fleet:environment".to_owned(), settings.environment.clone());
    tags
}

/// Why a stack cannot be rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The network has no room for what is to run in it.
    #[error(transparent)]
    Network(#[from] crate::cidr::DoesNotFit),
    /// More than CloudFormation takes.
    #[error(
        "the template of stack `{stack}` has {resources} resources and {bytes} bytes; CloudFormation takes {MAX_RESOURCES} and {MAX_BYTES}: split the fleet over environments"
    )]
    TooLarge {
        /// The stack.
        stack: String,
        /// Its resources.
        resources: usize,
        /// Its bytes.
        bytes: usize,
    },
    /// A name that cannot be a logical id. A mistake in this crate or a name that the language should have refused.
    #[error("`{id}` in stack `{stack}` cannot be a logical id: only letters and digits can; please report this")]
    BadId {
        /// The stack.
        stack: String,
        /// The id.
        id: String,
    },
    /// Two resources under one logical id.
    #[error(
        "stack `{stack}` has two resources `{id}`: two names of yours differ only in punctuation or case; rename one"
    )]
    Twice {
        /// The stack.
        stack: String,
        /// The id.
        id: String,
    },
    /// A reference to something of another template.
    #[error("stack `{stack}` refers to `{id}`, which is not in it; please report this")]
    Foreign {
        /// The stack.
        stack: String,
        /// The id.
        id: String,
    },
    /// A property that is not JSON.
    #[error("the properties of `{id}` are not JSON: {what}; please report this")]
    Json {
        /// The resource.
        id: String,
        /// What serde says.
        what: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::logs::LogGroup;

    fn template() -> Template {
        Template::new("dev", "a test", BTreeMap::new())
    }

    fn group(name: impl Into<Text>) -> LogGroup {
        LogGroup { log_group_name: name.into(), retention_in_days: 7 }
    }

    #[test]
    fn a_reference_into_another_template_is_refused() {
        let foreign = template().add("Elsewhere", group("/a"));
        let mut other = template();
        other.add("Here", group(foreign.reference()));
        assert_eq!(other.finish().unwrap_err(), RenderError::Foreign { stack: "dev".into(), id: "Elsewhere".into() });
    }

    #[test]
    fn one_logical_id_names_one_resource() {
        let mut twice = template();
        twice.add("Logs", group("/a"));
        twice.add("Logs", group("/b"));
        assert!(matches!(twice.finish().unwrap_err(), RenderError::Twice { .. }));
        let mut bad = template();
        bad.add("Logs-1", group("/a"));
        assert!(matches!(bad.finish().unwrap_err(), RenderError::BadId { .. }));
    }

    #[test]
    fn the_order_of_adding_does_not_matter_and_the_hash_is_of_everything_else() {
        let (mut first, mut second) = (template(), template());
        for id in ["B", "A"] {
            first.add(id, group(format!("/{id}")));
        }
        for id in ["A", "B"] {
            second.add(id, group(format!("/{id}")));
        }
        let (first, second) = (first.finish().unwrap(), second.finish().unwrap());
        assert_eq!(first, second);
        let mut document: Value = serde_json::from_str(&first.body).unwrap();
        assert_eq!(document["Outputs"][TEMPLATE_HASH]["Value"], first.hash.to_string());
        document["Outputs"] = json!({});
        assert_eq!(Hash::of(compact(&document).as_bytes()), first.hash);
    }
}
