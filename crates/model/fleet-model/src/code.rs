//! Every diagnostic code, once. The table that explains them is [`crate::codes`].

pub(crate) const SYNTAX: &str = "fleet::language::syntax";
pub(crate) const UNKNOWN_NODE: &str = "fleet::language::unknown-node";
pub(crate) const UNKNOWN_PROPERTY: &str = "fleet::language::unknown-property";
pub(crate) const MISSING_ARGUMENT: &str = "fleet::language::missing-argument";
pub(crate) const EXTRA_ARGUMENT: &str = "fleet::language::extra-argument";
pub(crate) const MISSING_PROPERTY: &str = "fleet::language::missing-property";
pub(crate) const MISSING_NODE: &str = "fleet::language::missing-node";
pub(crate) const REPEATED: &str = "fleet::language::repeated";
pub(crate) const WRONG_TYPE: &str = "fleet::language::wrong-type";
pub(crate) const UNKNOWN_WORD: &str = "fleet::language::unknown-word";
pub(crate) const BAD_VALUE: &str = "fleet::language::bad-value";
pub(crate) const INCLUDE_CYCLE: &str = "fleet::language::include-cycle";
pub(crate) const TOOL_VERSION: &str = "fleet::language::tool-version";

pub(crate) const FILE_MISSING: &str = "fleet::file::missing";
pub(crate) const FILE_OUTSIDE: &str = "fleet::file::outside-project";
pub(crate) const FILE_BAD_PATH: &str = "fleet::file::bad-path";
pub(crate) const FILE_UNREADABLE: &str = "fleet::file::unreadable";
pub(crate) const FILE_WRONG_KIND: &str = "fleet::file::wrong-kind";
pub(crate) const FILE_NOT_TEXT: &str = "fleet::file::not-text";

pub(crate) const BAD_NAME: &str = "fleet::name::invalid";
pub(crate) const BAD_DOMAIN: &str = "fleet::name::invalid-domain";
pub(crate) const BAD_MATRIX_ID: &str = "fleet::name::invalid-matrix-id";
pub(crate) const EMPTY_SLUG: &str = "fleet::name::empty-slug";
pub(crate) const DUPLICATE: &str = "fleet::name::duplicate";

pub(crate) const UNKNOWN_DEPARTMENT: &str = "fleet::org::unknown-department";
pub(crate) const UNKNOWN_TEAM: &str = "fleet::org::unknown-team";
pub(crate) const UNKNOWN_PERSON: &str = "fleet::org::unknown-person";
pub(crate) const MISSING_MANAGER: &str = "fleet::org::missing-manager";
pub(crate) const NO_MANAGER: &str = "fleet::org::no-manager";
pub(crate) const SECOND_HEAD: &str = "fleet::org::second-head";
pub(crate) const REPORTING_CYCLE: &str = "fleet::org::reporting-cycle";
pub(crate) const DIRECTORY_SYNTAX: &str = "fleet::org::directory-syntax";
pub(crate) const DIRECTORY_COLUMN: &str = "fleet::org::directory-column";
pub(crate) const DIRECTORY_ROW: &str = "fleet::org::directory-row";
pub(crate) const ANSWERS_EVERYTHING: &str = "fleet::org::answers-everything";

pub(crate) const UNKNOWN_PROVIDER: &str = "fleet::models::unknown-provider";
pub(crate) const UNKNOWN_MODEL: &str = "fleet::models::unknown-model";
pub(crate) const BAD_MODEL_NAME: &str = "fleet::models::bad-name";
pub(crate) const NO_MODEL: &str = "fleet::models::no-model";
pub(crate) const BAD_URL: &str = "fleet::models::bad-url";
pub(crate) const NOT_A_SECRET_NAME: &str = "fleet::models::not-a-secret-name";

pub(crate) const UNKNOWN_SKILL: &str = "fleet::workspace::unknown-skill";
pub(crate) const SKILL_WITHOUT_MANIFEST: &str = "fleet::workspace::skill-without-manifest";
pub(crate) const MISSING_TEMPLATE: &str = "fleet::workspace::missing-template";

pub(crate) const UNKNOWN_IMAGE: &str = "fleet::images::unknown-image";
pub(crate) const EMPTY_IMAGE: &str = "fleet::images::empty";
pub(crate) const MIXED_RECIPE: &str = "fleet::images::mixed-recipe";
pub(crate) const BASE_CYCLE: &str = "fleet::images::base-cycle";
pub(crate) const BAD_REFERENCE: &str = "fleet::images::bad-reference";
pub(crate) const UNKNOWN_USER: &str = "fleet::images::unknown-user";
pub(crate) const USER_WITHOUT_DEBIAN: &str = "fleet::images::user-without-debian";
pub(crate) const NO_ENTRYPOINT: &str = "fleet::images::no-entrypoint";
pub(crate) const UNUSABLE_PATH: &str = "fleet::images::unusable-path";
pub(crate) const FETCH_URL: &str = "fleet::images::fetch-url";
pub(crate) const NO_SCRIPTS: &str = "fleet::images::no-scripts";
pub(crate) const CONTAINERFILE_WITHOUT_RUN: &str = "fleet::images::containerfile-without-run";
pub(crate) const UNPINNED: &str = "fleet::images::unpinned";

pub(crate) const UNKNOWN_PLACEHOLDER: &str = "fleet::rooms::unknown-placeholder";
pub(crate) const BAD_ALIAS: &str = "fleet::rooms::bad-alias";
pub(crate) const ALIAS_COLLISION: &str = "fleet::rooms::alias-collision";
pub(crate) const UNKNOWN_ROOM: &str = "fleet::rooms::unknown-room";

pub(crate) const UNKNOWN_ENVIRONMENT: &str = "fleet::environment::unknown-environment";
pub(crate) const EXTENDS_CYCLE: &str = "fleet::environment::extends-cycle";
pub(crate) const MATCHES_NOBODY: &str = "fleet::environment::selector-matches-nobody";
pub(crate) const DEPLOYS_HUMAN: &str = "fleet::environment::deploys-human";
pub(crate) const ABSENT_MANAGER: &str = "fleet::environment::absent-manager";
pub(crate) const OVER_LIMIT: &str = "fleet::environment::over-limit";
pub(crate) const BAD_SIZE: &str = "fleet::environment::bad-size";
pub(crate) const LITTLE_MEMORY: &str = "fleet::environment::little-memory";
pub(crate) const PORT_CONFLICT: &str = "fleet::environment::port-conflict";
pub(crate) const BAD_REGISTRY: &str = "fleet::environment::bad-registry";
pub(crate) const NO_EFFECT: &str = "fleet::environment::no-effect";
pub(crate) const SHARED_SECRET: &str = "fleet::environment::shared-secret";

// Found by later stages, which render templates and read the lock.

/// A template that cannot be rendered.
pub const TEMPLATE: &str = "fleet::workspace::template";
/// A skill holds a file that is not text.
pub const SKILL_NOT_TEXT: &str = "fleet::workspace::skill-not-text";
/// Something that an image is made of is not in the lock file.
pub const NOT_LOCKED: &str = "fleet::images::not-locked";
/// The lock file is not what fleetctl writes.
pub const LOCK_SYNTAX: &str = "fleet::images::lock-syntax";
/// An image whose parts do not fit each other or the target.
pub const DOES_NOT_FIT: &str = "fleet::images::does-not-fit";
/// A stack on AWS that cannot be rendered.
pub const NO_STACK: &str = "fleet::environment::no-stack";
