//! Who we are: tokens that a real registry checks, certificates, docker's configuration. And statements about images.

use std::{fs, sync::Arc, time::Duration};

use crate::bench::{Always, Bench, PLATFORM, image, target};
use crate::certificates::Authority;
use crate::docker_registry::{DockerRegistry, PASSWORD, USER};
use crate::proxy::{Fault, Proxy};
use crate::tokens::Tokens;
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use fleet_oci::{
    Image,
    attestation::{Subject, artifact},
    image::Base,
    upload::Upload,
};
use fleet_registry::{Credential, Credentials, CredentialsError, DockerConfig, Nobody, Notice, RegistryError};
use fleet_secret::Secret;

const ME: Always = Always(USER, PASSWORD);

#[tokio::test]
async fn tokens_are_asked_for_once_for_all_that_a_push_needs_and_again_when_they_end() {
    let (registry, tokens) = Tokens::start();
    let bench = Bench::new(ME);
    let client = bench.client();
    let first = image(&[bench.large("a", 1 << 20, 1)], "a");
    bench.push(&client, &target(&registry.host, "org/one:d-1"), &first).await.unwrap();
    assert_eq!(tokens.asked(), ["repository:org/one:pull,push"]);
    let mut to = target(&registry.host, "org/two:d-1");
    to.mount_from = vec!["org/one".to_owned()];
    let pushed = bench.push(&client, &to, &first).await.unwrap();
    assert_eq!(pushed.mounted, 1);
    assert_eq!(tokens.asked()[1..], ["repository:org/two:pull,push repository:org/one:pull"]);

    let there = format!("{}/org/one", registry.host);
    let pulls = "repository:org/one:pull".to_owned();
    for (ask, asked) in [(1, 3), (2, 3), (3, 4)] {
        if ask == 3 {
            bench.clock.advance(Duration::from_secs(299));
        }
        assert_eq!(client.exists(&there, "d-1").await.unwrap(), Some(first.digest.clone()));
        assert_eq!((tokens.asked().len(), tokens.asked().last()), (asked, Some(&pulls)));
    }
    let pulled = client.pull(&format!("{there}:d-1"), &first.digest, PLATFORM, Arc::clone(&bench.store)).await.unwrap();
    assert_eq!(pulled, Base::from(&first));
}

#[tokio::test]
async fn a_token_that_the_registry_no_longer_takes_is_replaced_in_the_middle_of_a_push() {
    let (registry, tokens) = Tokens::start();
    let bench = Bench::new(ME);
    let client = bench.client();
    // What is given first is over already, as after a long sleep: the registry refuses it.
    tokens.lasting(-600);
    assert!(client.exists(&format!("{}/app", registry.host), "d-1").await.is_err(), "no token it gives is good");
    tokens.lasting(300);
    let image = image(&[bench.large("a", 1 << 20, 1)], "a");
    bench.push(&client, &target(&registry.host, "app:d-1"), &image).await.unwrap();
    let proxy = Proxy::to(&registry.host);
    // The challenge names the realm as the registry itself does.
    let challenge = "WWW-Authenticate: Bearer realm=\"http://REALM/token\"\n";
    let realm = registry_realm(&registry);
    let header: &'static str = Box::leak(challenge.replace("http://REALM/token", &realm).into_boxed_str());
    let other = crate::bench::image(&[bench.large("b", 1 << 20, 2)], "b");
    let client = bench.client();
    proxy.fails("PUT /v2/app/blobs/uploads/", Fault::Answer(401, header));
    bench.push(&client, &target(&proxy.host, "app:d-2"), &other).await.unwrap();
    let fresh = Bench::new(ME);
    let reference = format!("{}/app:d-2", registry.host);
    assert_eq!(fresh.client().resolve(&reference, PLATFORM).await.unwrap(), other.digest);
}

fn registry_realm(registry: &DockerRegistry) -> String {
    let config = fs::read_to_string(registry.folder.path().join("config.yml")).unwrap();
    config.split("realm: '").nth(1).unwrap().split('\'').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_server_that_refuses_the_password_is_quoted_without_it() {
    let (registry, _tokens) = Tokens::start();
    let wrong = Bench::new(Always(USER, "hunter2hunter2"));
    let error = wrong.client().exists(&format!("{}/app", registry.host), "1").await.unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, RegistryError::Denied { .. })
            && text.contains("user `joe`")
            && text.contains("incorrect username"),
        "{text}"
    );
    assert!(!format!("{text}{error:?}").contains("hunter2"));
    // Strangers hear that a name is wanted.
    let stranger = Bench::new(Nobody).client().exists(&format!("{}/app", registry.host), "1").await.unwrap_err();
    assert!(stranger.to_string().contains("it wants to know who asks"), "{stranger}");
}

/// An identity token, as some registries give to `docker login`.
struct Identity;

#[async_trait]
impl Credentials for Identity {
    async fn of(&self, _: &str) -> Result<Option<Credential>, CredentialsError> {
        Ok(Some(Credential::Identity(Secret::new(PASSWORD))))
    }
}

#[tokio::test]
async fn an_identity_token_is_exchanged_for_what_a_push_needs() {
    let (registry, tokens) = Tokens::start();
    let bench = Bench::new(Identity);
    let image = image(&[bench.layer("a", b"a".to_vec())], "a");
    bench.push(&bench.client(), &target(&registry.host, "app:d-1"), &image).await.unwrap();
    assert_eq!(tokens.asked(), ["repository:app:pull,push"]);
}

#[tokio::test]
async fn a_registry_behind_a_corporate_ca_is_trusted_when_the_ca_is_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let Authority { ca, http } = Authority::for_address(folder.path(), "127.0.0.1");
    let registry = DockerRegistry::with(folder, "", &http);
    let mut bench = Bench::new(Nobody);
    bench.config.tls_on_loopback = true;
    let image = image(&[bench.layer("a", b"a".to_vec())], "a");
    let to = target(&registry.host, "app:d-1");
    let error = bench.push(&bench.client(), &to, &image).await.unwrap_err();
    assert!(error.is_unreachable() && error.to_string().contains("CA settings"), "{error}");
    bench.config.ca_bundle = Some(ca.clone());
    bench.push(&bench.client(), &to, &image).await.unwrap();
    assert_eq!(bench.client().exists(&format!("{}/app", registry.host), "d-1").await.unwrap(), Some(image.digest));
    fs::write(&ca, "no certificate").unwrap();
    let error = fleet_registry::Client::new(&bench.config).err().unwrap().to_string();
    assert!(error.contains(&ca.display().to_string()), "{error}");
}

#[tokio::test]
async fn dockers_configuration_says_who_we_are_and_its_mistakes_are_shown_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let config = DockerConfig::at(&file);
    assert!(config.of("ghcr.io").await.unwrap().is_none(), "no file: a stranger");
    let joe = STANDARD.encode("joe:hunter2:with colon");
    let text = format!(
        r#"{{"auths": {{"ghcr.io": {{"auth": "{joe}"}}, "https://index.docker.io/v1/": {{"auth": "{joe}"}},
            "tokens.example": {{"identitytoken": "hunter2"}}}}, "credHelpers": {{"helped.example": "not-installed-here"}}}}"#
    );
    fs::write(&file, text).unwrap();
    for registry in ["ghcr.io", "docker.io"] {
        match config.of(registry).await.unwrap() {
            Some(Credential::Password { user, password }) => {
                assert_eq!((user.as_str(), password.expose()), ("joe", &b"hunter2:with colon"[..]));
            }
            _ => panic!("no password for {registry}"),
        }
    }
    assert!(matches!(config.of("tokens.example").await.unwrap(), Some(Credential::Identity(_))));
    assert!(config.of("quay.io").await.unwrap().is_none());
    let missing = config.of("helped.example").await.err().unwrap().to_string();
    assert!(missing.contains("helped.example") && missing.contains("is it installed?"), "{missing}");
    fs::write(&file, r#"{"auths": {"ghcr.io": {"auth": "hunter2""#).unwrap();
    let broken = config.of("ghcr.io").await.err().unwrap().to_string();
    assert!(broken.contains("config.json") && !broken.contains("hunter2"), "{broken}");
}

#[tokio::test]
async fn an_upload_is_sent_to_no_other_host_than_the_one_that_was_asked() {
    let registry = DockerRegistry::open();
    let proxy = Proxy::to(&registry.host);
    let bench = Bench::new(Nobody);
    for location in ["Location: https://203.0.113.1/steal\n", "Location: http://127.0.0.1:1/steal\n"] {
        proxy.fails("POST /v2/app/blobs/uploads/", Fault::Answer(202, location));
        let error = bench.push(&bench.client(), &target(&proxy.host, "app:d-1"), &image(&[], "a")).await.unwrap_err();
        assert!(error.to_string().contains("not the host that was asked"), "{error}");
    }
}

fn statement(about: &Image, text: &str) -> Upload {
    Upload::of_referrer(&artifact("application/vnd.in-toto+json", text.as_bytes(), &Subject::of_image(about)))
}

#[tokio::test]
async fn statements_are_listed_under_a_tag_where_the_registry_has_no_api_for_them() {
    let registry = DockerRegistry::start();
    let bench = Bench::new(ME);
    let image = image(&[], "a");
    let statements = [statement(&image, "{\"a\":1}"), statement(&image, "{\"a\":2}"), statement(&image, "{\"a\":3}")];
    let tag = format!("sha256-{}", image.digest.hex());
    let lists = || registry.count("PUT", &format!("/v2/app/manifests/{tag}"), 201);
    let push = async |version: &str, statements: &[Upload]| {
        let to = target(&registry.host, &format!("app:{version}"));
        bench.push_saying(&bench.client(), &to, &image, statements).await.unwrap()
    };
    let pushed = push("d-1", &statements[..2]).await;
    assert_eq!((pushed.found, pushed.notices.len(), lists()), (false, 0, 1), "both in one list");
    let before = registry.asked();
    let (list, tagged) = (format!("PUT /v2/app/manifests/{tag}"), "PUT /v2/app/manifests/d-1");
    let at = |request: &str| before.iter().position(|asked| asked.request == request);
    assert!(at(&list) < at(tagged), "whoever sees the tag finds the statements: {before:#?}");
    // Under another tag with one more, as another derivation with the same content: nothing is listed twice.
    push("d-2", &statements[1..]).await;
    assert_eq!(lists(), 2);
    push("d-3", &statements).await;
    assert_eq!(lists(), 2, "{:#?}", registry.asked());
    assert!(push("d-3", &statements).await.found, "where the tag is, nothing else is asked");
    let index = bench.client().exists(&format!("{}/app", registry.host), &tag).await.unwrap().unwrap();
    let path = format!("images/docker/registry/v2/blobs/sha256/{}/{}/data", &index.hex()[..2], index.hex());
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(registry.folder.path().join(path)).unwrap()).unwrap();
    let listed: Vec<_> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["digest"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(listed, statements.each_ref().map(|statement| statement.digest.to_string()));
    assert_eq!(index["manifests"][0]["artifactType"], "application/vnd.in-toto+json");
    assert_eq!(index["manifests"][0]["size"], statements[0].manifest.len());
}

#[tokio::test]
async fn a_registry_that_lists_statements_itself_is_not_asked_for_a_tag_and_an_immutable_one_gives_a_notice() {
    let registry = DockerRegistry::start();
    let proxy = Proxy::to(&registry.host);
    let bench = Bench::new(ME);
    let image = image(&[], "a");
    let (first, second) = (statement(&image, "{\"a\":1}"), statement(&image, "{\"a\":2}"));
    let push = async |version: &str, statement: &Upload| {
        let to = target(&proxy.host, &format!("app:{version}"));
        bench.push_saying(&bench.client(), &to, &image, std::slice::from_ref(statement)).await.unwrap()
    };
    proxy.fails("PUT /v2/app/manifests/sha256:", Fault::Answer(201, "OCI-Subject: sha256:0\n"));
    push("d-1", &first).await;
    assert!(!proxy.asked().iter().any(|asked| asked.contains("manifests/sha256-")), "{:?}", proxy.asked());
    proxy.fails("PUT /v2/app/manifests/sha256-", Fault::Answer(400, ""));
    let pushed = push("d-2", &second).await;
    let [Notice::ReferrerUnlisted { digest, subject, .. }] = &pushed.notices[..] else {
        panic!("{:?}", pushed.notices)
    };
    assert_eq!((digest, subject), (&second.digest, &image.digest));
    assert!(pushed.notices[0].to_string().contains("was skipped"));
}
