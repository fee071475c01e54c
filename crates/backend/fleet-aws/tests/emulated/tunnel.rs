//! Tunnels through an emulated Session Manager, whose agent is written on its own from what AWS publishes (`sessions.py`): the
//! real stack with its bastion and names, a service of this test behind one of them, and lines that lose, repeat, reorder and break.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use fleet_aws::{Far, SsmTunnel, Tunnel, TunnelError, emulator::Line};
use fleet_stacks::{data, environment, shared};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use crate::world::{Heard, World};

const PATIENCE: Duration = Duration::from_secs(60);
const MEGABYTE: usize = 1 << 20;

/// Says everything again that it hears, until it hears a length after the word `give`: then it gives so many bytes.
async fn service() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut heard = vec![0; 65536];
                while let Ok(length @ 1..) = connection.read(&mut heard).await {
                    let said = match heard[..length].strip_prefix(b"give ") {
                        Some(size) => pattern(String::from_utf8_lossy(size).trim().parse().unwrap()),
                        None => heard[..length].to_vec(),
                    };
                    if connection.write_all(&said).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// Bytes of which none can be missing or doubled unseen.
fn pattern(length: usize) -> Vec<u8> {
    (0..length.div_ceil(4)).flat_map(|number| (number as u32).to_be_bytes()).take(length).collect()
}

async fn taken(connection: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    timeout(PATIENCE, connection.read_exact(&mut bytes)).await.unwrap().unwrap();
    bytes
}

async fn given(address: SocketAddr, length: usize) {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(format!("give {length}\n").as_bytes()).await.unwrap();
    assert!(taken(&mut connection, length).await == pattern(length), "{length} bytes, intact");
}

async fn echoed(address: SocketAddr, length: usize) {
    let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
    let sending = tokio::spawn(async move {
        write.write_all(&pattern(length)).await.unwrap();
        write
    });
    let mut bytes = vec![0; length];
    timeout(PATIENCE, read.read_exact(&mut bytes)).await.unwrap().unwrap();
    assert!(bytes == pattern(length), "{length} bytes there and back, intact");
    drop(sending.await.unwrap());
}

/// An account with an environment, and a service in it that is found as the homeserver is.
struct Story {
    world: World,
    tunnel: Arc<SsmTunnel>,
    far: Far,
}

impl Story {
    async fn new() -> Self {
        let world = World::new().await;
        for stack in [shared, data, environment] {
            world.apply(&stack(&world.settings()).unwrap()).await.unwrap();
        }
        let events: Arc<dyn fleet_apply::Events> = Arc::<Heard>::clone(&world.heard);
        let tunnel = Arc::new(SsmTunnel::new(world.account.clone(), world.scope(), events));
        let far = Far { host: "conduit.anycompany.corp".to_owned(), port: service().await };
        let story = Self { world, tunnel, far };
        let known = story.ask("servicediscovery", "Route53AutoNaming_v20170314.ListServices", json!({})).await;
        let named = known["Services"].as_array().unwrap().iter().find(|one| one["Name"] == "conduit").unwrap();
        let task = json!({"ServiceId": named["Id"], "InstanceId": "task", "CreatorRequestId": "1",
            "Attributes": {"AWS_INSTANCE_IPV4": "127.0.0.1"}});
        story.ask("servicediscovery", "Route53AutoNaming_v20170314.RegisterInstance", task).await;
        story
    }

    async fn ask(&self, service: &str, target: &str, body: Value) -> Value {
        let signed = format!(
            "AWS4-HMAC-SHA256 Credential=111122223333/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
        );
        let request = reqwest::Client::new().post(self.world.emulator.endpoint()).header("authorization", signed);
        let request = request.header("x-amz-target", target).header("content-type", "application/x-amz-json-1.1");
        let answer = request.body(body.to_string()).send().await.unwrap();
        assert!(answer.status().is_success(), "{target}: {answer:?}");
        serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default()
    }

    /// Sessions that go on.
    async fn sessions(&self) -> Vec<Value> {
        let known = self.ask("ssm", "AmazonSSM.DescribeSessions", json!({"State": "Active"})).await;
        known["Sessions"].as_array().unwrap().iter().map(|session| session["SessionId"].clone()).collect()
    }

    async fn count(&self, action: &str) -> usize {
        self.world.asked().await.iter().filter(|asked| *asked == action).count()
    }

    async fn told(&self, words: &str) {
        for _ in 0..600 {
            if self.world.heard.notices().iter().any(|notice| notice.contains(words)) {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("nobody said {words:?}: {:?}", self.world.heard.notices());
    }
}

#[tokio::test]
async fn connections_share_a_session_that_is_ended_with_the_tunnel() {
    let story = Story::new().await;
    let address = story.tunnel.open(&story.far, 0).await.unwrap();
    assert!(address.ip().is_loopback());
    tokio::join!(echoed(address, 200_000), echoed(address, 200_000), given(address, 4 * MEGABYTE));
    assert_eq!((story.count("ssm StartSession").await, story.count("ssmmessages OpenDataChannel").await), (1, 1));

    who_is_slow_is_waited_for(address).await;
    a_program_that_has_said_everything_gets_its_answer(address).await;
    the_far_end_of_a_connection_is_seen(&story).await;
    a_port_that_is_taken_is_said_before_anything_is_asked(&story, address.port()).await;
    a_session_that_aws_ends_is_followed_by_another(&story, address).await;

    assert_eq!(story.sessions().await.len(), 1);
    story.tunnel.close().await;
    assert_eq!(story.sessions().await, Vec::<Value>::new());
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    without_a_bastion_there_is_no_tunnel(&story).await;
    story.world.emulator.stop().await;
}

/// More than all queues on the way hold, of which nothing is read for a while.
async fn who_is_slow_is_waited_for(address: SocketAddr) {
    const MUCH: usize = 12 * MEGABYTE;
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(format!("give {MUCH}\n").as_bytes()).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    assert!(taken(&mut slow, MUCH).await == pattern(MUCH), "nothing was dropped");
    echoed(address, 1000).await;
}

async fn a_program_that_has_said_everything_gets_its_answer(address: SocketAddr) {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(b"give 300000\n").await.unwrap();
    connection.shutdown().await.unwrap();
    assert!(taken(&mut connection, 300_000).await == pattern(300_000));
}

async fn the_far_end_of_a_connection_is_seen(story: &Story) {
    let nobody = Far { port: 1, ..story.far.clone() };
    let address = story.tunnel.open(&nobody, 0).await.unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    let mut nothing = Vec::new();
    timeout(PATIENCE, connection.read_to_end(&mut nothing)).await.unwrap().unwrap();
    assert_eq!(nothing, b"");
    story.told("the bastion cannot connect to conduit.anycompany.corp:1").await;
}

async fn a_port_that_is_taken_is_said_before_anything_is_asked(story: &Story, port: u16) {
    let before = story.count("ssm StartSession").await;
    let error = story.tunnel.open(&story.far, port).await.unwrap_err();
    assert!(matches!(error, TunnelError::Taken { port: found, .. } if found == port), "{error}");
    assert_eq!(story.count("ssm StartSession").await, before);
}

async fn a_session_that_aws_ends_is_followed_by_another(story: &Story, address: SocketAddr) {
    // As when it was idle for too long, or somebody ends it in the console.
    for session in story.sessions().await {
        story.ask("ssm", "AmazonSSM.TerminateSession", json!({"SessionId": session})).await;
    }
    story.told("the next connection opens another").await;
    echoed(address, 10_000).await;
}

async fn without_a_bastion_there_is_no_tunnel(story: &Story) {
    let outputs = story.world.account.outputs_of(&story.world.scope(), "dev").await.unwrap();
    let stop = format!("Action=StopInstances&Version=2016-11-15&InstanceId.1={}", outputs["BastionId"]);
    let signed =
        "AWS4-HMAC-SHA256 Credential=111122223333/20260101/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=0";
    let request = reqwest::Client::new().post(story.world.emulator.endpoint()).header("authorization", signed);
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    assert!(request.body(stop).send().await.unwrap().status().is_success());
    let error = story.tunnel.open(&story.far, 0).await.unwrap_err();
    assert!(matches!(error, TunnelError::NotConnected { .. }), "{error}");
    let elsewhere = fleet_apply::Scope { environment: "elsewhere".to_owned(), ..story.world.scope() };
    let none = SsmTunnel::new(story.world.account.clone(), elsewhere, Arc::new(fleet_apply::Silent));
    let error = none.open(&story.far, 0).await.unwrap_err();
    assert!(matches!(error, TunnelError::NoBastion { .. }), "{error}");
}

#[tokio::test]
async fn a_bad_line_costs_time_and_nothing_else() {
    let story = Story::new().await;
    story.world.emulator.disturb(Line { lose: 11, repeat: 7, swap: 5, cut: 300 }).await.unwrap();
    let address = story.tunnel.open(&story.far, 0).await.unwrap();
    tokio::join!(echoed(address, 150_000), given(address, 250_000));
    story.told("taking it up again").await;
    story.told("goes on").await;
    assert_eq!((story.count("ssm StartSession").await, story.count("ssm ResumeSession").await), (1, 1));
    story.tunnel.close().await;
    story.world.emulator.stop().await;
}
