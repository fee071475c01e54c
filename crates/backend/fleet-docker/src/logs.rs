//! What containers print: [`Engine::logs`] line by line, [`Engine::last_lines`] for error messages.

use bollard::{container::LogOutput, query_parameters::LogsOptions};
use futures::{Stream, StreamExt, stream};

use crate::{Engine, EngineError};

/// One line that a container printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// It went to standard error.
    pub stderr: bool,
    /// Without the line end; bytes that are not UTF-8 are replaced.
    pub text: String,
}

impl Engine {
    /// Lines of a container (name or id), oldest first. `tail`: only the last so many; `follow`: go on as it prints
    /// more, until it ends. A line longer than 16 KiB comes in pieces, as the engine keeps it.
    pub fn logs(
        &self,
        container: &str,
        follow: bool,
        tail: Option<u32>,
    ) -> impl Stream<Item = Result<LogLine, EngineError>> + use<> {
        let options = LogsOptions {
            follow,
            stdout: true,
            stderr: true,
            tail: tail.map_or_else(|| "all".to_owned(), |n| n.to_string()),
            ..LogsOptions::default()
        };
        let (place, what) = (self.endpoint.to_string(), format!("reading the log of {container}"));
        self.client.logs(container, Some(options)).flat_map(move |chunk| {
            let lines = match chunk {
                Ok(output) => lines(&output).into_iter().map(Ok).collect(),
                Err(error) => vec![Err(EngineError::from_bollard(&place, &what, error))],
            };
            stream::iter(lines)
        })
    }

    /// The last lines of a container, for an error message; none when they cannot be read.
    pub(crate) async fn last_lines(&self, container: &str) -> Vec<String> {
        let lines = self.logs(container, false, Some(20));
        lines.filter_map(|line| async { line.ok().map(|l| l.text) }).collect().await
    }
}

/// Splits what the engine sent in one piece.
pub(crate) fn lines(output: &LogOutput) -> Vec<LogLine> {
    let stderr = matches!(output, LogOutput::StdErr { .. });
    let text = String::from_utf8_lossy(output.as_ref()).into_owned();
    text.lines().map(|line| LogLine { stderr, text: line.to_owned() }).collect()
}
