//! [`Account::bucket`]: a bucket as an object store, with the account's credentials, told call by call like any other.
//!
//! The protocol is `object_store`'s. Deliberately absent: making buckets, which stacks do.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use fleet_apply::{Event, Events, ProviderError, Scope};
use fleet_model::{Address, Kind};
use fleet_secret::FleetSecret;
use fleet_stacks::{BOOTSTRAP, data_stack};
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, CredentialProvider, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AwsCredential},
    path::Path,
};

use crate::{
    account::Account,
    secrets::{SECRET_OUTPUT, SecretError},
};

/// Attempts after the first one.
const MORE_ATTEMPTS: usize = 5;
/// All attempts end within this.
const ATTEMPTS_END: Duration = Duration::from_secs(90);
/// The output of an environment's stack that names its config bucket.
pub(crate) const BUCKET_OUTPUT: &str = "ConfigBucket";
/// The output of the account's bootstrap stack that names the bucket for the state of the fleet.
const STATE_OUTPUT: &str = "StateBucket";

impl Account {
    /// A bucket of the account, where `endpoint` says in place of AWS's own address. Nothing is asked yet.
    ///
    /// # Errors
    /// A name that is none.
    pub fn bucket(&self, name: &str, endpoint: Option<&str>) -> Result<Arc<dyn ObjectStore>> {
        let retries = RetryConfig { max_retries: MORE_ATTEMPTS, retry_timeout: ATTEMPTS_END, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(name)
            .with_region(&self.place.region)
            .with_retry(retries)
            .with_credentials(Arc::new(Lent(self.credentials.clone())));
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(true).with_virtual_hosted_style_request(false);
        }
        Ok(Arc::new(Told { store: builder.build()?, bucket: name.to_owned(), events: Arc::clone(&self.events) }))
    }

    /// A bucket where everything else of the account is.
    pub(crate) fn own_bucket(&self, name: &str) -> Result<Arc<dyn ObjectStore>> {
        self.bucket(name, self.place.endpoint.as_deref())
    }

    /// The config bucket of an environment, for what an error is about; `None` while its stack does not stand.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn config_bucket(
        &self,
        scope: &Scope,
        about: &Address,
    ) -> std::result::Result<Option<Arc<dyn ObjectStore>>, ProviderError> {
        let name = self.bucket_name(scope, (&scope.environment, BUCKET_OUTPUT), about).await?;
        name.map(|name| self.own_bucket(&name))
            .transpose()
            .map_err(|error| ProviderError::failed(about, error.to_string()))
    }

    /// The bucket for the state of a fleet; `None` where nobody has prepared the account.
    ///
    /// # Errors
    /// A call that fails.
    pub async fn state_bucket(
        &self,
        scope: &Scope,
    ) -> std::result::Result<Option<Arc<dyn ObjectStore>>, ProviderError> {
        let about = Address::new(Kind::Stack, BOOTSTRAP);
        let name = self.state_bucket_name(scope, &about).await?;
        name.map(|name| self.own_bucket(&name))
            .transpose()
            .map_err(|error| ProviderError::failed(&about, error.to_string()))
    }

    /// Its name, for what an error is about.
    pub(crate) async fn state_bucket_name(
        &self,
        scope: &Scope,
        about: &Address,
    ) -> std::result::Result<Option<String>, ProviderError> {
        self.bucket_name(scope, (BOOTSTRAP, STATE_OUTPUT), about).await
    }

    /// The bucket that a stack names in an output.
    async fn bucket_name(
        &self,
        scope: &Scope,
        (stack, output): (&str, &str),
        about: &Address,
    ) -> std::result::Result<Option<String>, ProviderError> {
        let outputs = self.outputs_of(scope, stack).await.map_err(|error| error.about(about))?;
        Ok(outputs.get(output).cloned())
    }

    /// The config bucket of an environment and its fleet secret; `None` while its stacks do not stand.
    ///
    /// # Errors
    /// A call that fails; a fleet secret that cannot be used.
    pub async fn bucket_and_secret(
        &self,
        scope: &Scope,
    ) -> std::result::Result<Option<(Arc<dyn ObjectStore>, FleetSecret)>, ProviderError> {
        let about = Address::new(Kind::Stack, &scope.environment);
        let Some(bucket) = self.config_bucket(scope, &about).await? else { return Ok(None) };
        Ok(self.fleet_secret_of(scope).await?.map(|secret| (bucket, secret)))
    }

    /// The fleet secret of an environment; `None` while its data stack does not stand.
    ///
    /// # Errors
    /// A call that fails; a fleet secret that cannot be used.
    pub async fn fleet_secret_of(&self, scope: &Scope) -> std::result::Result<Option<FleetSecret>, ProviderError> {
        let name = data_stack(&scope.environment);
        let about = Address::new(Kind::Stack, &name);
        let data = self.outputs_of(scope, &name).await.map_err(|error| error.about(&about))?;
        let Some(secret) = data.get(SECRET_OUTPUT) else { return Ok(None) };
        let secret = self.fleet_secret(secret).await.map_err(|error| match error {
            SecretError::Aws(error) => error.about(&about),
            other => ProviderError::failed(&about, other.to_string()),
        })?;
        Ok(Some(secret))
    }
}

/// The SDK's credentials for `object_store`; the SDK renews them.
#[derive(Debug)]
struct Lent(Option<SharedCredentialsProvider>);

#[async_trait]
impl CredentialProvider for Lent {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> Result<Arc<AwsCredential>> {
        let error = |source: Box<dyn std::error::Error + Send + Sync>| Error::Generic { store: "S3", source };
        let provider = self.0.as_ref().ok_or_else(|| error("there are no AWS credentials".into()))?;
        let lent = provider.provide_credentials().await.map_err(|source| error(source.into()))?;
        Ok(Arc::new(AwsCredential {
            key_id: lent.access_key_id().to_owned(),
            secret_key: lent.secret_access_key().to_owned(),
            token: lent.session_token().map(str::to_owned),
        }))
    }
}

/// A bucket that tells of every call.
struct Told {
    store: AmazonS3,
    bucket: String,
    events: Arc<dyn Events>,
}

impl Told {
    fn tell(&self, operation: &str, object: Option<&Path>) {
        let object = object.map(Path::as_ref).unwrap_or_default();
        let call = format!("s3 {operation} {}/{object}", self.bucket);
        self.events.emit(Event::Call { system: "aws".to_owned(), call, write: crate::calls::is_write(operation) });
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.store)
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.store)
    }
}

#[async_trait]
impl ObjectStore for Told {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.tell("PutObject", Some(location));
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.tell("CreateMultipartUpload", Some(location));
        self.store.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.tell("GetObject", Some(location));
        self.store.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.tell("DeleteObjects", None);
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.tell("ListObjects", prefix);
        self.store.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.tell("ListObjects", prefix);
        self.store.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.tell("ListObjects", prefix);
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.tell("CopyObject", Some(to));
        self.store.copy_opts(from, to, options).await
    }
}
