//! Resources as types: only the properties that we use, each under the name that CloudFormation gives it.

pub(crate) mod backup;
pub(crate) mod ec2;
pub(crate) mod ecs;
pub(crate) mod iam;
pub(crate) mod logs;
pub(crate) mod storage;

use serde::Serialize;

use crate::value::Text;

/// One type of resource.
pub trait Resource: Serialize {
    /// As CloudFormation calls it.
    const TYPE: &'static str;
}

/// Declares structs whose fields are properties; with a type it is a resource.
macro_rules! properties {
    ($($(#[$meta:meta])* $name:ident $(= $kind:literal)? { $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, serde::Serialize)]
        #[serde(rename_all = "PascalCase")]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }
        $(impl $crate::resource::Resource for $name {
            const TYPE: &'static str = $kind;
        })?
    )*};
}
pub(crate) use properties;

properties! {
    /// A tag of a resource; `Name` is what consoles show.
    Tag { key: &'static str, value: Text }
}

/// The tag that consoles show as the name.
pub fn named(value: impl Into<Text>) -> Vec<Tag> {
    vec![Tag { key: "Name", value: value.into() }]
}
