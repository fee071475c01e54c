//! [`CallLog`]: tells of every request to AWS, once per attempt, by its name and nothing of what is in it.

use std::{fmt, sync::Arc};

use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{Intercept, context::BeforeTransmitInterceptorContextRef},
        orchestrator::Metadata,
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::config_bag::ConfigBag;
use fleet_apply::{Event, Events};

/// Names of operations that only read begin so. Everything else counts as a write.
const READS: [&str; 7] = ["Describe", "Get", "Head", "List", "BatchGet", "BatchCheck", "Validate"];

/// Tells of every request.
#[derive(Clone)]
pub(crate) struct CallLog {
    events: Arc<dyn Events>,
}

impl CallLog {
    pub(crate) fn new(events: Arc<dyn Events>) -> Self {
        Self { events }
    }
}

impl fmt::Debug for CallLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallLog")
    }
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for CallLog {
    fn name(&self) -> &'static str {
        "CallLog"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(called) = cfg.load::<Metadata>() {
            let call = format!("{} {}", called.service(), called.name());
            self.events.emit(Event::Call { system: "aws".to_owned(), call, write: is_write(called.name()) });
        }
        Ok(())
    }
}

/// Does an operation of this name write?
pub(crate) fn is_write(operation: &str) -> bool {
    !READS.iter().any(|read| operation.starts_with(read))
}

#[cfg(test)]
mod tests {
    use super::is_write;

    #[test]
    fn what_only_reads_is_told_from_what_writes() {
        for read in ["DescribeStacks", "GetTemplate", "ListStacks", "BatchGetImage", "GetCallerIdentity"] {
            assert!(!is_write(read), "{read}");
        }
        for write in ["CreateChangeSet", "ExecuteChangeSet", "DeleteStack", "PutParameter", "ContinueUpdateRollback"] {
            assert!(is_write(write), "{write}");
        }
    }
}
