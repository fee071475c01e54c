//! [`Text`]: a property's value as a literal, or as a reference that CloudFormation fills in.

use serde::{Serialize, Serializer, ser::SerializeMap as _};

/// A string in a template. References come from [`crate::template::Handle`] and parameters only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// As it is.
    Literal(String),
    /// `Ref`.
    Ref(String),
    /// `Fn::GetAtt`.
    Attribute(String, &'static str),
    /// `Fn::Join` without a separator.
    Joined(Vec<Text>),
    /// The n-th availability zone of the region.
    Zone(u8),
}

impl Text {
    /// One after the other; neighbouring literals become one.
    pub fn joined(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut all: Vec<Self> = Vec::new();
        for part in parts {
            match (all.last_mut(), part) {
                (Some(Self::Literal(before)), Self::Literal(text)) => before.push_str(&text),
                (_, part) => all.push(part),
            }
        }
        match all.pop() {
            Some(only) if all.is_empty() => only,
            Some(last) => {
                all.push(last);
                Self::Joined(all)
            }
            None => Self::Literal(String::new()),
        }
    }

    /// Is it a literal that is exactly this?
    pub fn is(&self, text: &str) -> bool {
        matches!(self, Self::Literal(literal) if literal == text)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::Literal(text.to_owned())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::Literal(text)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = match self {
            Self::Literal(text) => return serializer.serialize_str(text),
            _ => serializer.serialize_map(Some(1))?,
        };
        match self {
            Self::Literal(_) => {}
            Self::Ref(id) => map.serialize_entry("Ref", id)?,
            Self::Attribute(id, attribute) => map.serialize_entry("Fn::GetAtt", &[id.as_str(), attribute])?,
            Self::Joined(parts) => map.serialize_entry("Fn::Join", &("", parts))?,
            Self::Zone(at) => map.serialize_entry("Fn::Select", &(at, Zones))?,
        }
        map.end()
    }
}

/// Every availability zone of the region.
struct Zones;

impl Serialize for Zones {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("Fn::GetAZs", "")?;
        map.end()
    }
}

/// `text!["arn:…:", id, "/x"]`: one text from several.
macro_rules! text {
    ($($part:expr),+ $(,)?) => { $crate::value::Text::joined([$($crate::value::Text::from($part)),+]) };
}
pub(crate) use text;
