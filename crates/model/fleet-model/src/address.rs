//! [`Address`]: how people, plans and containers name one object of a fleet, as `kind/name`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What sort of object an address names. The order is the order in which a plan lists and applies them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A container image.
    Image,
    /// A long-running part of the platform: homeserver, web client, manager.
    Service,
    /// The org directory that agents look people up in.
    Directory,
    /// A Matrix account.
    Account,
    /// A Matrix room, including direct-message rooms.
    Room,
    /// One agent: its container, workspace and volume.
    Agent,
    /// One hosted tenant.
    Tenant,
    /// A rendered CloudFormation stack.
    Stack,
    /// An agent's rendered files; an input of `agent`, never applied alone.
    Workspace,
    /// A layer of an image; an input of `image`.
    Layer,
    /// An image pinned by digest; an input of `image`.
    Base,
    /// A set of files; an input of others.
    Source,
}

impl Kind {
    /// Every kind, in order.
    pub const ALL: [Self; 12] = [
        Self::Image,
        Self::Service,
        Self::Directory,
        Self::Account,
        Self::Room,
        Self::Agent,
        Self::Tenant,
        Self::Stack,
        Self::Workspace,
        Self::Layer,
        Self::Base,
        Self::Source,
    ];

    /// The word used in addresses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Service => "service",
            Self::Directory => "directory",
            Self::Account => "account",
            Self::Room => "room",
            Self::Agent => "agent",
            Self::Tenant => "tenant",
            Self::Stack => "stack",
            Self::Workspace => "workspace",
            Self::Layer => "layer",
            Self::Base => "base",
            Self::Source => "source",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// `kind/name`, for instance `agent/aaron.phillips`. Ordered by kind, then name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The kind.
    pub kind: Kind,
    /// The name within the kind; unique within one environment.
    pub name: String,
}

impl Address {
    /// Builds an address.
    #[must_use]
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.kind, self.name))
    }
}

/// A text that is not an address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not an address; addresses read kind/name, for instance agent/aaron.phillips")]
pub struct NotAnAddress {
    /// What was given.
    pub text: String,
}

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || NotAnAddress { text: text.to_owned() };
        let (kind, name) = text.split_once('/').ok_or_else(refused)?;
        let kind = Kind::ALL.into_iter().find(|k| k.as_str() == kind).ok_or_else(refused)?;
        if name.is_empty() {
            return Err(refused());
        }
        Ok(Self::new(kind, name))
    }
}

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
