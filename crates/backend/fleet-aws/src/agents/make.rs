//! An agent made, or made anew: what its task needs first, then the one step that starts it, then patience.

use std::{collections::BTreeMap, time::SystemTime};

use fleet_apply::{Applied, ProviderError};
use fleet_derivation::{Hash, Input};
use fleet_plan::{AgentSpec, Bundle, SecretUse};
use fleet_secret::Secret;
use fleet_stacks::{
    agent_service::{family, hash_of},
    repository_output,
};
use serde_json::Value;

use super::{Doing, observe::version};
use crate::{
    bucket::BUCKET_OUTPUT,
    files::token,
    secrets::NOT_GIVEN,
    services::{Running, filled},
};

/// Longest client token of CreateService (ECS API reference).
const MAX_TOKEN: usize = 36;

impl Doing<'_> {
    /// Makes the agent what it should be.
    pub(super) async fn make(&self, spec: &AgentSpec) -> Result<Applied, ProviderError> {
        let hash = self.hash()?;
        let now = self.look().await?;
        let right = now.as_ref().is_some_and(|now| is_right(now, hash));
        if !right && now.as_ref().map(version) != self.change.expect {
            return Err(self.stale(match now {
                None => "its service is gone",
                Some(_) => "somebody else changed its service",
            }));
        }
        let former = now.as_ref().map(|now| now.task_definition.clone()).filter(|former| hash_of(former) != Some(hash));
        let task_definition = match &now {
            // An earlier run came this far: what is left is to wait for it.
            Some(now) if right => now.task_definition.clone(),
            _ => self.start(spec, hash, now.as_ref()).await?,
        };
        self.wait_for(spec, &task_definition, former.as_deref()).await?;
        Ok(if right { Applied::Unchanged { output: None } } else { Applied::Changed { output: None } })
    }

    fn hash(&self) -> Result<Hash, ProviderError> {
        let derivation = self.change.derivation.as_ref().map(|made| made.with_outputs(self.known));
        derivation.map(|made| made.hash()).ok_or_else(|| self.failed("the plan has no derivation for it"))
    }

    /// Everything up to and with the service. Returns its task definition.
    async fn start(&self, spec: &AgentSpec, hash: Hash, now: Option<&Running>) -> Result<String, ProviderError> {
        let bundle = Bundle::of(&spec.container);
        let mut values = self.outputs().await?.clone();
        values.insert("Image".to_owned(), self.image(spec, &values)?);
        self.folder(spec, &mut values).await?;
        // Early: it takes seconds until ECS can act as a new role.
        self.role(spec, &values).await?;
        self.parameters(&spec.parameters).await?;
        self.bundle(&self.output(&values, BUCKET_OUTPUT)?, &bundle).await?;
        values.insert("BundleKey".to_owned(), bundle.key(self.agent()));
        values.insert("BundleHash".to_owned(), bundle.hash.to_string());
        let family = family(&self.cluster, self.agent(), &hash);
        values.insert("Family".to_owned(), family.clone());
        let task = self.document(&spec.task, &values)?;
        let (arn, registered) =
            self.account().ensure_task_definition(&family, &task).await.map_err(|error| self.aws(error))?;
        if registered {
            self.progress("registered its task definition");
        }
        values.insert("TaskDefinition".to_owned(), arn.clone());
        self.service(self.document(&spec.service, &values)?, (&arn, now)).await?;
        Ok(arn)
    }

    /// Its folder on the file system, as its task mounts it and its role names it.
    async fn folder(&self, spec: &AgentSpec, values: &mut BTreeMap<String, String>) -> Result<(), ProviderError> {
        let file_system = self.output(values, "FileSystemId")?;
        let point = self.account().ensure_access_point(&file_system, &spec.folder, &spec.tags).await;
        let (point, made) = point.map_err(|error| self.aws(error))?;
        if made {
            self.progress(format!("made its folder, access point {}", point.id));
        }
        // `arn:…:access-point/fsap-1` and `arn:…:file-system/fs-1` differ in their last part only.
        let place = point.arn.rsplit_once(':').map_or("", |(place, _)| place);
        values.insert("FileSystemArn".to_owned(), format!("{place}:file-system/{file_system}"));
        values.insert("AccessPoint".to_owned(), point.id);
        values.insert("AccessPointArn".to_owned(), point.arn);
        Ok(())
    }

    async fn service(&self, mut service: Value, (arn, now): (&str, Option<&Running>)) -> Result<(), ProviderError> {
        // For the attempts of this one request: a service that is made again after it was removed is another one.
        let request = format!("{arn} {:?}", SystemTime::now());
        service["clientToken"] = Value::String(token(&request).chars().take(MAX_TOKEN).collect());
        if now.is_some_and(|now| now.status == "DRAINING") {
            self.drained().await?;
        }
        let exists = now.is_some_and(|now| now.status != "DRAINING");
        self.progress(if exists { "rolls" } else { "starts" });
        match self.account().put_service(&service, exists).await {
            Ok(()) => Ok(()),
            // A lost answer: it is there, and as we want it.
            Err(error) => match self.look().await? {
                Some(there) if there.task_definition == arn && there.status == "ACTIVE" => Ok(()),
                _ => Err(self.aws(error)),
            },
        }
    }

    async fn bundle(&self, bucket: &str, bundle: &Bundle) -> Result<(), ProviderError> {
        let sent = self.account().ensure_bundle(bucket, &bundle.key(self.agent()), bundle).await;
        if sent.map_err(|error| self.failed(format!("its files could not be sent to {bucket}: {error}")))? {
            self.progress(format!("sent its files, {} KB", bundle.text.len().div_ceil(1024)));
        }
        Ok(())
    }

    async fn role(&self, spec: &AgentSpec, values: &BTreeMap<String, String>) -> Result<(), ProviderError> {
        let policy = self.document(&spec.role.policy, values)?.to_string();
        let role = fleet_plan::AgentRole { policy, ..spec.role.clone() };
        let tags: Vec<(&str, &str)> = spec.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let writes = self.account().ensure_role(&role, &tags).await.map_err(|error| self.aws(error))?;
        if writes > 0 {
            self.progress(format!("made its role {} what it should be", role.name));
        }
        Ok(())
    }

    /// Writes what its task reads and is not there yet.
    async fn parameters(&self, wanted: &BTreeMap<String, SecretUse>) -> Result<(), ProviderError> {
        let missing = self.account().missing_parameters(wanted.keys().cloned().collect()).await;
        let missing = missing.map_err(|error| self.aws(error))?;
        let mut written = 0;
        for (name, secret) in wanted {
            let absent = missing.contains(name);
            let value = match secret {
                SecretUse::Password { matrix_id, epoch } if absent => {
                    Some(self.fleet_secret().await?.password(matrix_id, *epoch))
                }
                SecretUse::Key { label } if absent => Some(self.fleet_secret().await?.key_for(label)),
                SecretUse::Operator { name: given } => match self.given.get(given) {
                    Some(value) => {
                        let set = self.account().set_parameter(name, value).await;
                        written += usize::from(set.map_err(|error| self.secret_error(error))?);
                        None
                    }
                    None => absent.then(|| Secret::new(NOT_GIVEN)),
                },
                SecretUse::Password { .. } | SecretUse::Key { .. } => None,
            };
            if let Some(value) = value {
                self.account().put_parameter(name, &value).await.map_err(|error| self.secret_error(error))?;
                written += 1;
            }
        }
        if written > 0 {
            self.progress(format!("wrote {written} of {} parameters", wanted.len()));
        }
        Ok(())
    }

    /// `repository@digest`.
    fn image(&self, spec: &AgentSpec, values: &BTreeMap<String, String>) -> Result<String, ProviderError> {
        let address = &spec.container.image;
        let repository = self.output(values, &repository_output(&address.name))?;
        let derivation = self.change.derivation.as_ref().map(|made| made.with_outputs(self.known));
        let digest = derivation.and_then(|made| match made.inputs.get("image") {
            Some(Input::Derivation { output: Some(digest), .. }) => Some(digest.clone()),
            _ => None,
        });
        let digest = digest.ok_or_else(|| {
            let help = "apply the whole environment: the image is made first";
            self.failed(format!("{address} is not there")).help(help)
        })?;
        Ok(format!("{repository}@{digest}"))
    }

    fn output(&self, values: &BTreeMap<String, String>, name: &str) -> Result<String, ProviderError> {
        values.get(name).cloned().ok_or_else(|| {
            let why = format!("no stack of the environment has an output {name}");
            self.failed(why).help("apply the whole environment: its stacks are made first")
        })
    }

    fn document(&self, text: &str, values: &BTreeMap<String, String>) -> Result<Value, ProviderError> {
        let document: Value = serde_json::from_str(text)
            .map_err(|error| self.failed(format!("the plan is broken: {error}")).help("make a new one"))?;
        filled(&document, values).map_err(|missing| {
            let why = format!("no stack of the environment has the outputs {}", missing.join(", "));
            self.failed(why).help("apply the whole environment: its stacks are made first")
        })
    }
}

/// Is it what is wanted, and on its way or there?
fn is_right(now: &Running, hash: Hash) -> bool {
    let failed = now.primary().is_some_and(|primary| primary.rollout_state == "FAILED");
    now.status == "ACTIVE" && now.desired_count > 0 && !failed && hash_of(&now.task_definition) == Some(hash)
}
