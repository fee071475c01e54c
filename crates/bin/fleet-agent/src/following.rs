//! [`follow`]: the org directory where it comes as an object. The object is looked at now and then, and becomes the same files
//! as on a volume, which [`crate::directory`] reads.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    aws::{Object, Place, Version},
    delivery::variable,
    directory::POINTER,
    folder::Folder,
    log,
    settings::InputError,
};

/// How often the object is looked at. A hire is known to everybody within this.
const PAUSE: Duration = Duration::from_secs(30);
/// How often until it is there for the first time: an environment may be about to be made.
const FIRST_PAUSE: Duration = Duration::from_secs(3);

/// Keeps `folder` as the object is that `FLEET_DIRECTORY` names, until the program ends. Does nothing where none is named, as on
/// other targets.
///
/// # Errors
/// [`InputError`] when what is named cannot be asked for. That it is not there is no error: it is looked for again.
pub fn follow(folder: &Path) -> Result<(), InputError> {
    let Some(url) = variable("FLEET_DIRECTORY") else { return Ok(()) };
    let wrong = |why: &str| InputError::Undelivered { what: url.clone(), why: why.to_owned() };
    let object = Object::parse(&url).ok_or_else(|| wrong("it is not s3://BUCKET/KEY"))?;
    let place = Place::of(variable).map_err(wrong)?;
    let mut followed = Followed { folder: folder.to_owned(), tag: None, file: None, problem: None };
    tokio::spawn(async move {
        loop {
            followed.look(&place, &object).await;
            tokio::time::sleep(if followed.file.is_some() { PAUSE } else { FIRST_PAUSE }).await;
        }
    });
    Ok(())
}

/// The folder, and what is in it.
struct Followed {
    folder: PathBuf,
    /// What S3 calls the version that is in the folder.
    tag: Option<String>,
    /// The file that has it.
    file: Option<String>,
    problem: Option<String>,
}

impl Followed {
    /// Looks once. Whatever goes wrong is said once, and the last good version stays.
    async fn look(&mut self, place: &Place, object: &Object) {
        let looked = match place.read_unless(object, self.tag.as_deref()).await {
            Ok(None) => Ok(()),
            Ok(Some(version)) => self.take(version).map_err(|error| format!("{}: {error}", self.folder.display())),
            Err(why) => Err(why),
        };
        let problem = looked.err();
        if let Some(why) = problem.as_ref().filter(|why| self.problem.as_ref() != Some(why)) {
            log::warn("the directory cannot be fetched; the last version is kept", &[("why", why)]);
        }
        self.problem = problem;
    }

    /// The version, then the pointer to it; then the former version goes.
    fn take(&mut self, Version { tag, bytes }: Version) -> io::Result<()> {
        let file = format!("people.{}.json", blake3::hash(&bytes).to_hex());
        let folder = Folder::ensure(&self.folder, None, 0o755)?;
        folder.write(&file, &bytes, 0o444)?;
        folder.write(POINTER, file.as_bytes(), 0o444)?;
        let former = self.file.replace(file.clone()).filter(|former| *former != file);
        self.tag = tag;
        // It is small, and the container's own: that it stays harms nobody.
        drop(former.map(|former| folder.remove(&former)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{BufRead as _, BufReader, Write as _},
        net::TcpListener,
        sync::mpsc,
        thread,
    };

    use super::*;
    use crate::directory::Watched;

    /// S3 and ECS for one agent: answers one connection after another by `answer(head)`, and tells the heads.
    fn serve(answer: impl Fn(&str) -> String + Send + 'static) -> (String, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, heads) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let head = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
                stream.write_all(answer(&head).as_bytes()).unwrap();
                if sender.send(head).is_err() {
                    return;
                }
            }
        });
        (url, heads)
    }

    fn answer(status: &str, headers: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
    }

    fn people(names: &[&str]) -> String {
        let people = names.iter().map(|name| {
            serde_json::json!({"id": name, "name": name, "title": "T", "level": "ic", "matrix_id": format!("@{name}:b.c")})
        });
        serde_json::json!({"schema": 1, "people": people.collect::<Vec<_>>()}).to_string()
    }

    #[tokio::test]
    async fn a_new_version_is_fetched_once_and_a_lost_one_is_kept() {
        let there = std::sync::Arc::new(std::sync::Mutex::new(None::<(&str, String)>));
        let shown = std::sync::Arc::clone(&there);
        let (url, heads) = serve(move |head| {
            let head = head.to_lowercase();
            if head.starts_with("get /role") {
                return answer("200 OK", "", r#"{"AccessKeyId":"A","SecretAccessKey":"S","Token":"T"}"#);
            }
            match &*shown.lock().unwrap() {
                None => answer("403 Forbidden", "", ""),
                Some((tag, _)) if head.contains(&format!("if-none-match: {tag}")) => answer("304 Not Modified", "", ""),
                Some((tag, text)) => answer("200 OK", &format!("etag: {tag}\r\n"), text),
            }
        });
        let place = Place::of(|name| match name {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI" => Some(format!("{url}/role")),
            "AWS_ENDPOINT_URL" => Some(url.clone()),
            "AWS_REGION" => Some("eu-west-1".to_owned()),
            _ => None,
        })
        .unwrap();
        let object = Object::parse("s3://config/directory/people.json").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("directory");
        let mut followed = Followed { folder: home.clone(), tag: None, file: None, problem: None };
        let mut watched = Watched::new(&home);
        let mut seen = || {
            watched.refresh();
            watched.current().map(|people| people.len()).ok()
        };

        followed.look(&place, &object).await;
        assert_eq!((seen(), followed.problem.as_deref()), (None, Some("S3 answers 403 Forbidden")));

        *there.lock().unwrap() = Some(("\"1\"", people(&["ada"])));
        followed.look(&place, &object).await;
        assert_eq!((seen(), &followed.problem), (Some(1), &None));
        followed.look(&place, &object).await;
        let asked: Vec<String> = heads.try_iter().filter(|head| head.starts_with("GET /config/")).collect();
        assert!(asked.last().unwrap().to_lowercase().contains("if-none-match: \"1\""), "{asked:?}");

        *there.lock().unwrap() = Some(("\"2\"", people(&["ada", "ben"])));
        followed.look(&place, &object).await;
        assert_eq!((seen(), fs::read_dir(&home).unwrap().count()), (Some(2), 2), "the former file is gone");

        *there.lock().unwrap() = None;
        followed.look(&place, &object).await;
        assert_eq!(seen(), Some(2), "what was there stays");
    }
}
