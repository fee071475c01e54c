//! [`find`]: which container engine to use, and a checked connection to it.
//!
//! Deliberately absent: reading environment variables (the edge passes them in [`EngineSearch`]), TLS and remote
//! engines: files, ports and the host gateway are meant for the machine that `fleetctl` runs on.

use std::{fmt, path::PathBuf, time::Duration};

use bollard::{API_DEFAULT_VERSION, Docker};

use crate::error::EngineError;

/// Seconds that one request may take until its response begins. Stopping a container waits for its grace time.
const REQUEST_SECONDS: u64 = 600;
/// How long the engine may take to answer when it is looked for. One that is there and busy is not one that is missing.
const HELLO: Duration = Duration::from_secs(60);

/// Where to look: values of environment variables, read by the edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineSearch {
    /// `DOCKER_HOST`. When set and not empty nothing else is looked at.
    pub docker_host: Option<String>,
    /// `XDG_RUNTIME_DIR`, for a rootless Podman or Docker.
    pub xdg_runtime_dir: Option<PathBuf>,
}

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// `host:port` on loopback, without TLS.
    Tcp(String),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// Which program answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// Docker.
    Docker,
    /// Podman behind its Docker-compatible socket.
    Podman,
}

/// An engine that answered.
#[derive(Clone)]
pub struct Engine {
    pub(crate) client: Docker,
    /// Where.
    pub endpoint: Endpoint,
    /// `20.10.24`.
    pub version: String,
    /// `1.41`: what both sides speak.
    pub api: String,
    /// Docker or Podman.
    pub kind: EngineKind,
    /// It builds with BuildKit.
    pub buildkit: bool,
    /// `linux/amd64`.
    pub platform: String,
    /// Processors that containers can use.
    pub cpus: u32,
    /// Bytes of memory that containers can use; 0 where it does not tell.
    pub memory: u64,
    /// The folder of its machine in which it keeps images and volumes.
    pub root: Option<PathBuf>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} at {}", self.kind, self.version, self.endpoint)
    }
}

/// What came of looking for an engine.
#[derive(Debug)]
pub enum Search {
    /// This one answered.
    Found(Box<Engine>),
    /// None did.
    NotFound {
        /// Every place and why it is not usable, in the order in which they were tried.
        looked_at: Vec<Looked>,
    },
}

/// A place where no usable engine was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// `unix:///var/run/docker.sock`.
    pub endpoint: String,
    /// `there is no such socket`.
    pub why: String,
    /// A socket is there, and this user may not open it: installing another engine would not help.
    pub denied: bool,
}

/// The places to look at, in order; or why `DOCKER_HOST` cannot be used.
///
/// # Errors
/// [`Looked`] for a `DOCKER_HOST` that is neither a Unix socket nor plain TCP on loopback.
pub fn candidates(search: &EngineSearch) -> Result<Vec<Endpoint>, Looked> {
    if let Some(host) = search.docker_host.as_deref().filter(|h| !h.is_empty()) {
        return parse_host(host).map(|e| vec![e]);
    }
    let mut places = vec![PathBuf::from("/var/run/docker.sock")];
    if let Some(runtime) = &search.xdg_runtime_dir {
        places.push(runtime.join("docker.sock"));
        places.push(runtime.join("podman/podman.sock"));
    }
    places.push(PathBuf::from("/run/podman/podman.sock"));
    Ok(places.into_iter().map(Endpoint::Unix).collect())
}

fn parse_host(host: &str) -> Result<Endpoint, Looked> {
    let refused =
        |why: &str| Err(Looked { endpoint: format!("DOCKER_HOST={host}"), why: why.to_owned(), denied: false });
    if let Some(path) = host.strip_prefix("unix://") {
        return if path.starts_with('/') {
            Ok(Endpoint::Unix(PathBuf::from(path)))
        } else {
            refused("a Unix socket needs an absolute path: unix:///var/run/docker.sock")
        };
    }
    let Some(address) = host.strip_prefix("tcp://").or_else(|| host.strip_prefix("http://")) else {
        return refused(
            "only unix:// sockets and tcp:// on loopback are supported; unset DOCKER_HOST or forward the socket",
        );
    };
    let address = address.trim_end_matches('/');
    let (name, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let loopback = name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !loopback {
        return refused(
            "an engine on another machine would get secrets over plain TCP; forward its socket with `ssh -L`",
        );
    }
    if port.parse::<u16>().is_err() {
        return refused("the port is missing: tcp://127.0.0.1:2375");
    }
    Ok(Endpoint::Tcp(address.to_owned()))
}

/// Looks for an engine and asks it who it is. Read-only.
pub async fn find(search: &EngineSearch) -> Search {
    let endpoints = match candidates(search) {
        Ok(endpoints) => endpoints,
        Err(looked) => return Search::NotFound { looked_at: vec![looked] },
    };
    let mut looked_at = Vec::new();
    for endpoint in endpoints {
        match connect(&endpoint).await {
            Ok(engine) => return Search::Found(Box::new(engine)),
            Err(error) => looked_at.push(Looked {
                endpoint: endpoint.to_string(),
                denied: matches!(error, EngineError::Denied { .. }),
                why: match error {
                    EngineError::Unreachable { why, .. } => why,
                    EngineError::Denied { why, .. } => {
                        format!("{why}; run as root or join the group that owns the socket")
                    }
                    other => other.to_string(),
                },
            }),
        }
    }
    Search::NotFound { looked_at }
}

/// Connects to one endpoint and asks it who it is.
///
/// # Errors
/// [`EngineError::Unreachable`] when nothing answers, [`EngineError::Denied`] when the socket may not be opened.
pub async fn connect(endpoint: &Endpoint) -> Result<Engine, EngineError> {
    let place = endpoint.to_string();
    let failed = |error| EngineError::from_bollard(&place, "GET /version", error);
    if let Endpoint::Unix(path) = endpoint {
        // `symlink_metadata` also sees a socket in a folder we may list but whose target we may not open.
        if let Err(error) = std::fs::metadata(path) {
            let why = match error.kind() {
                std::io::ErrorKind::NotFound => "there is no such socket".to_owned(),
                std::io::ErrorKind::PermissionDenied => {
                    return Err(EngineError::Denied { endpoint: place, why: error.to_string() });
                }
                _ => error.to_string(),
            };
            return Err(EngineError::Unreachable { endpoint: place, why });
        }
    }
    let client = match endpoint {
        Endpoint::Unix(path) => {
            Docker::connect_with_unix(&path.to_string_lossy(), REQUEST_SECONDS, API_DEFAULT_VERSION)
        }
        Endpoint::Tcp(address) => Docker::connect_with_http(address, REQUEST_SECONDS, API_DEFAULT_VERSION),
    }
    .map_err(failed)?;
    let hello = async {
        let client = client.negotiate_version().await.map_err(failed)?;
        let version = client.version().await.map_err(failed)?;
        let info = client.info().await.map_err(failed)?;
        Ok::<_, EngineError>((client, version, info))
    };
    let (client, version, info) = tokio::time::timeout(HELLO, hello).await.map_err(|_| {
        EngineError::Unreachable { endpoint: place.clone(), why: format!("no answer in {} s", HELLO.as_secs()) }
    })??;
    let kind = if version.components.iter().flatten().any(|c| c.name.contains("Podman")) {
        EngineKind::Podman
    } else {
        EngineKind::Docker
    };
    let spoken = client.client_version();
    let (os, arch) = (version.os.unwrap_or_default(), version.arch.unwrap_or_default());
    Ok(Engine {
        endpoint: endpoint.clone(),
        version: version.version.unwrap_or_default(),
        api: format!("{}.{}", spoken.major_version, spoken.minor_version),
        // BuildKit is part of Docker for Linux since API 1.39 (18.09); Podman builds with Buildah instead.
        buildkit: kind == EngineKind::Docker
            && os == "linux"
            && (spoken.major_version, spoken.minor_version) >= (1, 39),
        kind,
        platform: format!("{os}/{arch}"),
        root: info.docker_root_dir.filter(|root| !root.is_empty()).map(PathBuf::from),
        memory: info.mem_total.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
        cpus: info.ncpu.and_then(|n| u32::try_from(n).ok()).unwrap_or(1).max(1),
        client,
    })
}

/// How long a container of Podman may be between its end and its clean-up.
const BETWEEN: Duration = Duration::from_secs(15);

/// Repeats a read while Podman (4.3 was seen to) answers with the state `stopped`: it has that for the moment between a
/// container's end and its clean-up, and Docker's interface, which it speaks here, has not.
pub(crate) async fn settled<T, F>(read: impl Fn() -> F) -> Result<T, bollard::errors::Error>
where
    F: Future<Output = Result<T, bollard::errors::Error>>,
{
    let end = tokio::time::Instant::now() + BETWEEN;
    loop {
        match read().await {
            Err(bollard::errors::Error::JsonDataError { message, .. })
                if message.contains("unknown variant `stopped`") && tokio::time::Instant::now() < end =>
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => return other,
        }
    }
}

impl Engine {
    /// Sorts an error of a call to this engine.
    pub(crate) fn failed(&self, what: &str) -> impl FnOnce(bollard::errors::Error) -> EngineError {
        let (place, what) = (self.endpoint.to_string(), what.to_owned());
        move |error| EngineError::from_bollard(&place, &what, error)
    }

    /// The address under which containers reach this machine (`host-gateway`): the default bridge's. `None` where the
    /// engine has no such bridge.
    pub async fn host_gateway(&self) -> Option<String> {
        let network = self.client.inspect_network("bridge", None).await.ok()?;
        network.ipam?.config?.into_iter().find_map(|config| config.gateway.or_else(|| bridge_address(&config.subnet?)))
    }
}

/// The bridge's own address in its subnet: Docker 20.10 does not tell it until it was restarted once. It is the one that
/// the subnet is written with (`bip`), else the first.
fn bridge_address(subnet: &str) -> Option<String> {
    let (address, length) = subnet.split_once('/')?;
    let address = u32::from(address.parse::<std::net::Ipv4Addr>().ok()?);
    let hosts = u32::MAX.checked_shr(length.parse().ok()?).unwrap_or(0);
    let own = if address & hosts == 0 { address.checked_add(1)? } else { address };
    Some(std::net::Ipv4Addr::from(own).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(value: &str) -> Result<Vec<Endpoint>, Looked> {
        candidates(&EngineSearch { docker_host: Some(value.to_owned()), xdg_runtime_dir: None })
    }

    #[test]
    fn docker_host_alone_is_looked_at_when_it_is_set() {
        assert_eq!(host("unix:///tmp/x.sock"), Ok(vec![Endpoint::Unix("/tmp/x.sock".into())]));
        assert_eq!(host("tcp://127.0.0.1:2375"), Ok(vec![Endpoint::Tcp("127.0.0.1:2375".into())]));
        assert_eq!(host("tcp://[::1]:2375"), Ok(vec![Endpoint::Tcp("[::1]:2375".into())]));
    }

    #[test]
    fn an_engine_on_another_machine_is_refused_with_the_reason() {
        for value in ["tcp://10.0.0.5:2375", "ssh://me@host", "tcp://localhost", "unix://relative"] {
            let Err(looked) = host(value) else { panic!("{value} was accepted") };
            assert!(looked.endpoint.contains(value), "{looked:?}");
        }
    }

    #[test]
    fn without_docker_host_every_usual_socket_is_tried_docker_first() {
        let search = EngineSearch { docker_host: Some(String::new()), xdg_runtime_dir: Some("/run/user/7".into()) };
        let places: Vec<String> =
            candidates(&search).expect("no DOCKER_HOST").iter().map(ToString::to_string).collect();
        assert_eq!(
            places,
            [
                "unix:///var/run/docker.sock",
                "unix:///run/user/7/docker.sock",
                "unix:///run/user/7/podman/podman.sock",
                "unix:///run/podman/podman.sock",
            ]
        );
    }

    #[test]
    fn the_bridges_own_address_follows_from_its_subnet() {
        assert_eq!(bridge_address("172.17.0.0/16").as_deref(), Some("172.17.0.1"));
        assert_eq!(bridge_address("10.9.8.7/24").as_deref(), Some("10.9.8.7"));
        for none in ["fd00::/64", "172.17.0.0", "172.17.0.0/x"] {
            assert_eq!(bridge_address(none), None, "{none}");
        }
    }

    #[tokio::test]
    async fn a_missing_socket_is_named_with_what_is_wrong() {
        let search =
            EngineSearch { docker_host: Some("unix:///nonexistent/engine.sock".to_owned()), ..Default::default() };
        let Search::NotFound { looked_at } = find(&search).await else { panic!("found an engine there") };
        assert_eq!(looked_at.len(), 1);
        assert_eq!(looked_at[0].why, "there is no such socket");
    }

    #[tokio::test]
    async fn a_socket_that_a_dead_engine_left_behind_is_named_for_what_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("engine.sock");
        drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
        let host = format!("unix://{}", socket.display());
        let Search::NotFound { looked_at } =
            find(&EngineSearch { docker_host: Some(host), ..Default::default() }).await
        else {
            panic!("found an engine there")
        };
        assert_eq!((looked_at[0].why.as_str(), looked_at[0].denied), ("nobody listens there", false));
    }

    #[tokio::test]
    async fn a_container_that_podman_is_still_cleaning_up_is_asked_about_again() {
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let read = || async {
            match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                0 | 1 => Err(bollard::errors::Error::JsonDataError {
                    message: "unknown variant `stopped`, expected one of `created`, `running`".to_owned(),
                    column: 244,
                }),
                _ => Ok("exited"),
            }
        };
        assert_eq!(settled(read).await.expect("the third answer"), "exited");
        let garbled = || async {
            Err::<(), _>(bollard::errors::Error::JsonDataError { message: "missing field".to_owned(), column: 1 })
        };
        assert!(settled(garbled).await.is_err(), "what is really wrong is told at once");
    }
}
