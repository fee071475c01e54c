//! CloudFormation stacks, rendered by us from typed resources: [`Settings`] → [`Rendered`], one function per stack.
//!
//! Stacks are split by lifetime (design §3): [`shared`] holds repositories, [`data`] what is kept when an environment
//! goes, [`environment`] what can be made again, [`bootstrap`] what an account needs once. [`compare`] says what a
//! deployed stack would have to go through to become the rendered one.
//!
//! A reference can only be made from a resource that was added to a template, and a template with a reference into
//! another one is refused. Agents are not in CloudFormation: [`agent_service`] renders what ECS and IAM take for one.
//! [`demand`] counts what all of it takes of an account's [`quota`]s.
//! Deliberately absent: calls to AWS, secret values.

pub mod agent;
pub mod agent_service;
mod bedrock;
mod bootstrap;
pub mod cidr;
mod compare;
mod create_only;
mod data;
pub mod demand;
mod environment;
mod iam;
mod parameters;
pub mod quota;
mod resource;
mod settings;
mod shared;
mod template;
mod value;

pub use bootstrap::{BOOTSTRAP, Bootstrap, bootstrap, makes_provider, workflow_roles};
pub use compare::{Action, Data, Replacement, ResourceChange, Snapshot, compare};
pub use create_only::{CreateOnly, TABLE, create_only};
pub use data::{SECRET_FIELD, data, secret_name};
pub use environment::{environment, homeserver_host, homeserver_url, web_host};
pub use parameters::{Known, repository_output};
pub use settings::{Homeserver, LOG_DAYS, Manager, Settings, Web, data_stack, log_group, parameters_below, role_path};
pub use shared::{SHARED, shared};
pub use template::{RenderError, Rendered, TEMPLATE_HASH, pretty};

/// Resources that one template may hold (AWS CloudFormation quotas).
pub const MAX_RESOURCES: usize = 500;
/// Bytes of a template that travels within the request; larger ones go through a bucket.
pub const MAX_INLINE_BYTES: usize = 51_200;
/// Bytes of a template in a bucket.
pub const MAX_BYTES: usize = 1_000_000;
