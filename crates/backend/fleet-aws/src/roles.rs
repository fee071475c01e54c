//! Roles of agents: made, kept as they should be, removed. And who else the account trusts to say who somebody is.

use fleet_plan::AgentRole;
use serde_json::Value;
use url::form_urlencoded;

use crate::{
    account::Account,
    error::AwsError,
    signed::{Service, element},
};

/// Version of the IAM API.
const VERSION: &str = "2010-05-08";
/// Name of a role's one policy, as in our stacks.
const POLICY: &str = "own";
/// How the ARN of an identity provider for GitHub Actions ends.
const GITHUB: &str = ":oidc-provider/token.actions.githubusercontent.com";
/// What IAM says of something that is not there.
const ABSENT: &str = "NoSuchEntity";

impl Account {
    /// Makes a role what it should be. Returns how many writes that took.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn ensure_role(&self, role: &AgentRole, tags: &[(&str, &str)]) -> Result<usize, AwsError> {
        let name = [("RoleName", role.name.as_str())];
        let mut writes = 0;
        match self.iam("GetRole", &name).await {
            Ok(found) if !is_document(&found, "AssumeRolePolicyDocument", &role.trust) => {
                self.iam("UpdateAssumeRolePolicy", &[name[0], ("PolicyDocument", &role.trust)]).await?;
                writes += 1;
            }
            Ok(_) => {}
            Err(error) if error.code() == ABSENT => {
                self.create_role(role, tags).await?;
                writes += 1;
            }
            Err(error) => return Err(error),
        }
        let policy = [name[0], ("PolicyName", POLICY)];
        match self.iam("GetRolePolicy", &policy).await {
            Ok(found) if is_document(&found, "PolicyDocument", &role.policy) => return Ok(writes),
            Ok(_) => {}
            Err(error) if error.code() == ABSENT => {}
            Err(error) => return Err(error),
        }
        self.iam("PutRolePolicy", &[policy[0], policy[1], ("PolicyDocument", &role.policy)]).await?;
        Ok(writes + 1)
    }

    async fn create_role(&self, role: &AgentRole, tags: &[(&str, &str)]) -> Result<(), AwsError> {
        let mut fields = vec![
            ("RoleName".to_owned(), role.name.as_str()),
            ("Path".to_owned(), role.path.as_str()),
            ("AssumeRolePolicyDocument".to_owned(), role.trust.as_str()),
            ("PermissionsBoundary".to_owned(), role.boundary.as_str()),
        ];
        for (at, (key, value)) in tags.iter().enumerate() {
            fields.push((format!("Tags.member.{}.Key", at + 1), key));
            fields.push((format!("Tags.member.{}.Value", at + 1), value));
        }
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        match self.iam("CreateRole", &fields).await {
            // A lost answer, or somebody else.
            Err(error) if error.code() == "EntityAlreadyExists" => Ok(()),
            done => done.map(drop),
        }
    }

    /// Removes a role with its policy. Returns whether there was one.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn remove_role(&self, name: &str) -> Result<bool, AwsError> {
        let name = ("RoleName", name);
        let gone = |done: Result<String, AwsError>| match done {
            Err(error) if error.code() == ABSENT => Ok(false),
            done => done.map(|_| true),
        };
        if !gone(self.iam("GetRole", &[name]).await)? {
            return Ok(false);
        }
        gone(self.iam("DeleteRolePolicy", &[name, ("PolicyName", POLICY)]).await)?;
        gone(self.iam("DeleteRole", &[name]).await)
    }

    /// ARN of the account's identity provider for GitHub, where it has one.
    ///
    /// # Errors
    /// A call that fails.
    pub async fn github_provider(&self) -> Result<Option<String>, AwsError> {
        let answer = self.iam("ListOpenIDConnectProviders", &[]).await?;
        let arns = answer.split("<Arn>").skip(1).filter_map(|rest| rest.split("</Arn>").next());
        Ok(arns.map(str::trim).find(|arn| arn.ends_with(GITHUB)).map(str::to_owned))
    }

    /// Is there a role of this name?
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn has_role(&self, name: &str) -> Result<bool, AwsError> {
        there(self.iam("GetRole", &[("RoleName", name)]).await)
    }

    /// Is there a policy of this ARN?
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn has_policy(&self, arn: &str) -> Result<bool, AwsError> {
        there(self.iam("GetPolicy", &[("PolicyArn", arn)]).await)
    }

    /// Names of the roles below a path.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn roles_below(&self, path: &str) -> Result<Vec<String>, AwsError> {
        Ok(self.trusts_below(path).await?.into_iter().map(|trust| trust.name).collect())
    }

    /// The roles below a path, with who may act as them.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn trusts_below(&self, path: &str) -> Result<Vec<Trust>, AwsError> {
        let (mut found, mut marker) = (Vec::new(), None::<String>);
        loop {
            let mut fields = vec![("PathPrefix", path)];
            fields.extend(marker.as_deref().map(|marker| ("Marker", marker)));
            let page = self.iam("ListRoles", &fields).await?;
            found.extend(page.split("<member>").skip(1).filter_map(trust));
            marker = element(&page, "Marker").filter(|_| element(&page, "IsTruncated").as_deref() == Some("true"));
            if marker.is_none() {
                return Ok(found);
            }
        }
    }

    pub(crate) async fn iam(&self, call: &'static str, fields: &[(&str, &str)]) -> Result<String, AwsError> {
        self.signed.query((Service::Identity, VERSION), call, fields).await
    }
}

/// A role, and who may act as it.
pub(crate) struct Trust {
    /// Its name.
    pub name: String,
    /// JSON.
    pub document: String,
}

/// Of one member of a list of roles.
fn trust(member: &str) -> Option<Trust> {
    let document = element(member, "AssumeRolePolicyDocument").unwrap_or_default();
    Some(Trust { name: element(member, "RoleName")?, document: decoded(&document)? })
}

fn there(done: Result<String, AwsError>) -> Result<bool, AwsError> {
    match done {
        Err(error) if error.code() == ABSENT => Ok(false),
        done => done.map(|_| true),
    }
}

/// Does an answer have this document in an element, whatever its white space?
fn is_document(answer: &str, name: &str, wanted: &str) -> bool {
    let value = |text: &str| serde_json::from_str::<Value>(text).ok();
    let wanted = value(wanted);
    let found = element(answer, name).and_then(|text| decoded(&text));
    wanted.is_some() && found.as_deref().and_then(value) == wanted
}

/// A document of an answer as JSON. IAM encodes documents as in addresses; some that answer in its place only as in XML.
fn decoded(text: &str) -> Option<String> {
    let text = text.replace("&quot;", "\"");
    if text.starts_with('{') {
        return Some(text);
    }
    form_urlencoded::parse(format!("d={text}").as_bytes()).next().map(|(_, text)| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_known_again_however_it_is_written() {
        let wanted = r#"{"Statement":[{"Action":["s3:GetObject"]}]}"#;
        let encoded = "<R><PolicyDocument>%7B%22Statement%22%3A%5B%7B%22Action%22%3A%20%5B%22s3%3AGetObject%22%5D%7D%5D%7D</PolicyDocument></R>";
        assert!(is_document(encoded, "PolicyDocument", wanted));
        let escaped = "<PolicyDocument>{&quot;Statement&quot;: [{&quot;Action&quot;: [&quot;s3:GetObject&quot;]}]}</PolicyDocument>";
        assert!(is_document(escaped, "PolicyDocument", wanted));
        assert!(!is_document(&encoded.replace("Get", "Put"), "PolicyDocument", wanted));
        assert!(!is_document("<R/>", "PolicyDocument", wanted));
    }
}
