//! The endpoint behind the tool `people`: `POST /people` on loopback, called by the plugin in OpenClaw.

use std::sync::PoisonError;

use http::{Method, StatusCode};
use serde_json::json;

use crate::{
    directory::Shared,
    http::Answer,
    people::{Question, Unanswerable},
};

/// Answers one request.
pub fn answer(directory: &Shared, method: &Method, path: &str, body: &[u8]) -> Answer {
    if path != "/people" {
        return failed(StatusCode::NOT_FOUND, "there is only /people here");
    }
    if method != Method::POST {
        return failed(StatusCode::METHOD_NOT_ALLOWED, "ask with POST");
    }
    let question: Question = match serde_json::from_slice(body) {
        Ok(question) => question,
        Err(error) => return failed(StatusCode::BAD_REQUEST, &format!("the question is not understood: {error}")),
    };
    let current = directory.lock().unwrap_or_else(PoisonError::into_inner).current();
    let directory = match current {
        Ok(directory) => directory,
        Err(why) => return failed(StatusCode::SERVICE_UNAVAILABLE, &why),
    };
    match directory.answer(&question) {
        Ok(found) => Answer { status: StatusCode::OK, body: json!(found).to_string() },
        Err(error @ Unanswerable::NoQuery(_)) => failed(StatusCode::BAD_REQUEST, &error.to_string()),
        Err(error @ Unanswerable::Nobody { .. }) => failed(StatusCode::NOT_FOUND, &error.to_string()),
    }
}

fn failed(status: StatusCode, message: &str) -> Answer {
    Answer { status, body: json!({ "message": message }).to_string() }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::{Arc, Mutex},
    };

    use super::*;
    use crate::directory::Watched;

    fn ask(people: Option<&str>, body: &str) -> (u16, String) {
        let folder = tempfile::tempdir().unwrap();
        if let Some(people) = people {
            fs::write(folder.path().join("people.a.json"), people).unwrap();
            fs::write(folder.path().join("current"), "people.a.json").unwrap();
        }
        let mut watched = Watched::new(folder.path());
        watched.refresh();
        let answer = answer(&Arc::new(Mutex::new(watched)), &Method::POST, "/people", body.as_bytes());
        (answer.status.as_u16(), answer.body)
    }

    const ADA: &str = r#"{"schema":1,"people":[{"id":"ada","name":"Ada","title":"T","level":"ic","matrix_id":"@ada:b.c","deployed":true}]}"#;

    #[test]
    fn every_kind_of_answer_has_its_status() {
        assert_eq!(ask(Some(ADA), r#"{"action":"find","query":"ada"}"#).0, 200);
        assert_eq!(
            ask(Some(ADA), r#"{"action":"find","query":"bob"}"#),
            (404, r#"{"message":"nobody is called \"bob\""}"#.to_owned())
        );
        assert_eq!(ask(Some(ADA), r#"{"action":"dance"}"#).0, 400);
        assert_eq!(ask(Some(ADA), r#"{"action":"find"}"#).0, 400);
        assert_eq!(ask(None, r#"{"action":"list"}"#).0, 503);
    }
}
