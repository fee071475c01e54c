//! Repositories, the file system, buckets and the fleet secret.

use super::{Tag, properties};
use crate::{iam::Policy, template::Handle, value::Text};

properties! {
    /// Images of one name.
    Repository = "AWS::ECR::Repository" {
        repository_name: String,
        image_tag_mutability: &'static str,
        image_scanning_configuration: Scanning,
        lifecycle_policy: LifecyclePolicy,
        empty_on_delete: bool,
    }
    /// Looks for known vulnerabilities.
    Scanning { scan_on_push: bool }
    /// What is removed, as JSON.
    LifecyclePolicy { lifecycle_policy_text: String }
    /// Memory and rooms.
    FileSystem = "AWS::EFS::FileSystem" {
        encrypted: bool,
        performance_mode: &'static str,
        throughput_mode: &'static str,
        lifecycle_policies: Vec<FileLifecycle>,
        file_system_policy: Policy,
        file_system_tags: Vec<Tag>,
    }
    /// Where files go that nobody reads, and when they come back.
    FileLifecycle {
        #[serde(rename = "TransitionToIA")] transition_to_ia: Option<&'static str>,
        transition_to_primary_storage_class: Option<&'static str>,
    }
    /// The file system in one availability zone.
    MountTarget = "AWS::EFS::MountTarget" { file_system_id: Text, subnet_id: Text, security_groups: Vec<Text> }
    /// One folder of it, as one user.
    AccessPoint = "AWS::EFS::AccessPoint" {
        file_system_id: Text,
        posix_user: PosixUser,
        root_directory: RootDirectory,
        access_point_tags: Vec<Tag>,
    }
    /// The user that every access is made as.
    PosixUser { uid: String, gid: String }
    /// The folder.
    RootDirectory { path: String, creation_info: CreationInfo }
    /// Who owns it when it is made.
    CreationInfo { owner_uid: String, owner_gid: String, permissions: &'static str }
    /// Objects.
    Bucket = "AWS::S3::Bucket" {
        bucket_name: Option<String>,
        bucket_encryption: Encryption,
        versioning_configuration: Versioning,
        public_access_block_configuration: PublicAccessBlock,
        ownership_controls: Ownership,
        lifecycle_configuration: BucketLifecycle,
    }
    /// At rest.
    Encryption { server_side_encryption_configuration: Vec<EncryptionRule> }
    /// By default.
    EncryptionRule { server_side_encryption_by_default: EncryptionDefault }
    /// How.
    EncryptionDefault {
        #[serde(rename = "SSEAlgorithm")] algorithm: &'static str,
    }
    /// Former objects are kept.
    Versioning { status: &'static str }
    /// Nothing is public.
    PublicAccessBlock {
        block_public_acls: bool,
        block_public_policy: bool,
        ignore_public_acls: bool,
        restrict_public_buckets: bool,
    }
    /// Access lists do nothing.
    Ownership { rules: Vec<OwnershipRule> }
    /// By default.
    OwnershipRule { object_ownership: &'static str }
    /// What goes by itself.
    BucketLifecycle { rules: Vec<BucketRule> }
    /// After when.
    BucketRule {
        id: &'static str,
        status: &'static str,
        prefix: Option<&'static str>,
        expiration_in_days: Option<u32>,
        noncurrent_version_expiration: Option<NoncurrentExpiration>,
        abort_incomplete_multipart_upload: Option<AbortUpload>,
    }
    /// Former objects.
    NoncurrentExpiration { noncurrent_days: u32 }
    /// Uploads that were never finished.
    AbortUpload { days_after_initiation: u32 }
    /// Who may use a bucket.
    BucketPolicy = "AWS::S3::BucketPolicy" { bucket: Text, policy_document: Policy }
    /// A secret that AWS makes up: we never see its value.
    Secret = "AWS::SecretsManager::Secret" {
        name: String,
        description: &'static str,
        generate_secret_string: GenerateSecret,
    }
    /// How.
    GenerateSecret {
        secret_string_template: &'static str,
        generate_string_key: &'static str,
        password_length: u16,
        exclude_punctuation: bool,
    }
}

impl Handle<AccessPoint> {
    /// Its ARN.
    pub fn arn(&self) -> Text {
        self.attribute("Arn")
    }
}

impl Handle<Bucket> {
    /// Its ARN.
    pub fn arn(&self) -> Text {
        self.attribute("Arn")
    }
}

impl BucketRule {
    /// For objects whose names begin so; does nothing yet.
    pub const fn of(id: &'static str, prefix: &'static str) -> Self {
        Self {
            id,
            status: "Enabled",
            prefix: Some(prefix),
            expiration_in_days: None,
            noncurrent_version_expiration: None,
            abort_incomplete_multipart_upload: None,
        }
    }

    /// Objects go after so many days.
    pub const fn expires(mut self, days: u32) -> Self {
        self.expiration_in_days = Some(days);
        self
    }

    /// Former versions go after so many days.
    pub const fn former(mut self, days: u32) -> Self {
        self.noncurrent_version_expiration = Some(NoncurrentExpiration { noncurrent_days: days });
        self
    }
}

/// Days for which former versions of objects are kept.
const FORMER_DAYS: u32 = 90;
/// Days after which an unfinished upload is dropped.
const UPLOAD_DAYS: u32 = 7;

/// A bucket that is encrypted, keeps former versions for a while, and is never public.
pub fn private_bucket(bucket_name: Option<String>) -> Bucket {
    Bucket {
        bucket_name,
        bucket_encryption: Encryption {
            server_side_encryption_configuration: vec![EncryptionRule {
                server_side_encryption_by_default: EncryptionDefault { algorithm: "AES256" },
            }],
        },
        versioning_configuration: Versioning { status: "Enabled" },
        public_access_block_configuration: PublicAccessBlock {
            block_public_acls: true,
            block_public_policy: true,
            ignore_public_acls: true,
            restrict_public_buckets: true,
        },
        ownership_controls: Ownership { rules: vec![OwnershipRule { object_ownership: "BucketOwnerEnforced" }] },
        lifecycle_configuration: BucketLifecycle {
            rules: vec![BucketRule {
                id: "former-versions",
                status: "Enabled",
                prefix: None,
                expiration_in_days: None,
                noncurrent_version_expiration: Some(NoncurrentExpiration { noncurrent_days: FORMER_DAYS }),
                abort_incomplete_multipart_upload: Some(AbortUpload { days_after_initiation: UPLOAD_DAYS }),
            }],
        },
    }
}

/// The policy that lets nobody use a bucket without TLS.
pub fn only_by_tls(bucket: &Handle<Bucket>) -> BucketPolicy {
    use crate::{iam::Statement, value::text};
    let on = [bucket.arn(), text![bucket.arn(), "/*"]];
    let deny = Statement::deny("OnlyByTls", &["s3:*"], on).when("Bool", "aws:SecureTransport", "false");
    BucketPolicy { bucket: bucket.reference(), policy_document: Policy::of([deny]) }
}
