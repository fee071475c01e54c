//! Bundles of agents in the config bucket: named by what they hold, so that one that is there is right.

use fleet_plan::Bundle;

use crate::{
    account::Account,
    error::AwsError,
    rates::Rate,
    signed::{Ask, Service},
};

impl Account {
    /// Puts a bundle where it is not yet. Returns whether it was put.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn ensure_bundle(&self, bucket: &str, key: &str, bundle: &Bundle) -> Result<bool, AwsError> {
        let mut ask = Ask {
            service: Service::Objects,
            call: "HeadObject",
            method: "HEAD",
            // Addresses with the bucket in their path: they work in every region, and with every emulator.
            target: format!("/{bucket}/{key}"),
            headers: Vec::new(),
            body: Vec::new(),
            rate: Rate::Unknown,
            repeatable: true,
        };
        match self.signed.ask(&ask).await {
            Ok(_) => return Ok(false),
            // Without leave to list the bucket, S3 says "forbidden" of what is not there.
            Err(AwsError::Refused { code, .. }) if ["404", "403", "NoSuchKey", "NotFound"].contains(&code.as_str()) => {}
            Err(error) => return Err(error),
        }
        (ask.call, ask.method) = ("PutObject", "PUT");
        ask.headers = vec![("content-type", "application/json".to_owned())];
        ask.body = bundle.text.clone().into_bytes();
        self.signed.ask(&ask).await?;
        Ok(true)
    }
}
