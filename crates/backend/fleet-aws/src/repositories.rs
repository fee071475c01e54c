//! Image repositories: what is in them, and who may log in to push more.

use std::collections::BTreeMap;

use aws_sdk_ecr::types::{ImageIdentifier, TagStatus};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use fleet_derivation::Hash;
use fleet_secret::Secret;

use crate::{account::Account, error::AwsError};

/// What tags of derivations begin with.
const TAG_PREFIX: &str = "d-";

/// A user and password of the account's registry; good for twelve hours.
pub struct Login {
    /// The user.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// One image's repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// `<fleet>/<image>`.
    pub name: String,
}

impl Account {
    /// Logs in to the account's registry.
    ///
    /// # Errors
    /// A call that fails; an answer without a login.
    pub async fn registry_login(&self) -> Result<Login, AwsError> {
        const CALL: &str = "GetAuthorizationToken";
        let answer = self.ecr.get_authorization_token().send().await.map_err(|error| AwsError::of(CALL, error))?;
        let token = answer.authorization_data().first().and_then(|data| data.authorization_token());
        let decoded = token.and_then(|token| STANDARD.decode(token).ok()).and_then(|text| String::from_utf8(text).ok());
        let login = decoded.as_deref().and_then(|text| text.split_once(':'));
        let Some((user, password)) = login else {
            let why = "it has no user and password".to_owned();
            return Err(AwsError::Refused { call: CALL, code: "NoToken".to_owned(), why });
        };
        Ok(Login { user: user.to_owned(), password: Secret::new(password.as_bytes().to_vec()) })
    }

    /// Images of a repository that are tagged with a derivation, with their digests. A repository that does not exist has
    /// none.
    ///
    /// # Errors
    /// A call that fails.
    pub async fn derivations_in(&self, repository: &Repository) -> Result<BTreeMap<Hash, String>, AwsError> {
        const CALL: &str = "ListImages";
        let filter = aws_sdk_ecr::types::ListImagesFilter::builder().tag_status(TagStatus::Tagged).build();
        let mut pages =
            self.ecr.list_images().repository_name(&repository.name).filter(filter).into_paginator().items().send();
        let mut found = BTreeMap::new();
        while let Some(image) = pages.next().await {
            match image.map_err(|error| AwsError::of(CALL, error)) {
                Ok(image) => found.extend(derivation(&image)),
                Err(error) if error.code() == "RepositoryNotFoundException" => break,
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Removes a repository with all its images; one that is gone is right.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn remove_repository(&self, name: &str) -> Result<(), AwsError> {
        let asked = self.ecr.delete_repository().repository_name(name).force(true).send().await;
        match asked.map_err(|error| AwsError::of("DeleteRepository", error)) {
            Err(error) if error.code() == "RepositoryNotFoundException" => Ok(()),
            done => done.map(drop),
        }
    }
}

fn derivation(image: &ImageIdentifier) -> Option<(Hash, String)> {
    let hash = image.image_tag()?.strip_prefix(TAG_PREFIX)?.parse().ok()?;
    Some((hash, image.image_digest()?.to_owned()))
}
