//! [`SsmTunnel`]: takes connections at ports of loopback and has sessions carry them, a new one where the former is over.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use fleet_apply::{Event, Events, Scope};
use tokio::{
    net::TcpListener,
    sync::{Mutex, watch},
    task::JoinHandle,
    time::sleep,
};

use super::{Far, Tunnel, TunnelError, listen, session::Session, sessions::Sessions};
use crate::account::Account;

/// Pause after a connection that could not be taken: this process has too many open, perhaps.
const PAUSE: Duration = Duration::from_millis(100);

/// Tunnels to an environment's network, by our own client of Session Manager.
pub struct SsmTunnel {
    way: Way,
    stop: watch::Sender<bool>,
    open: Mutex<Vec<JoinHandle<()>>>,
}

/// How sessions are begun.
#[derive(Clone)]
struct Way {
    account: Account,
    scope: Scope,
    events: Arc<dyn Events>,
}

impl Way {
    /// Begins a session. The bastion is looked for each time: it may be another one by now.
    async fn begin(&self, far: &Far) -> Result<Session, TunnelError> {
        let bastion = self.account.bastion(&self.scope).await?;
        let sessions = Sessions { account: self.account.clone(), bastion };
        Session::begin(sessions, far, Arc::clone(&self.events)).await
    }
}

impl SsmTunnel {
    /// Nothing is asked before one is opened. `events` hears of interruptions.
    #[must_use]
    pub fn new(account: Account, scope: Scope, events: Arc<dyn Events>) -> Self {
        Self { way: Way { account, scope, events }, stop: watch::channel(false).0, open: Mutex::default() }
    }
}

#[async_trait]
impl Tunnel for SsmTunnel {
    async fn open(&self, far: &Far, local: u16) -> Result<SocketAddr, TunnelError> {
        // First what may be in the way on this machine: nothing has to be ended then.
        let (listener, address) = listen(local).await?;
        let session = self.way.begin(far).await?;
        let serving = serve(listener, session, self.way.clone(), far.clone(), self.stop.subscribe());
        self.open.lock().await.push(tokio::spawn(serving));
        Ok(address)
    }

    async fn over(&self) -> TunnelError {
        // A session that is over is followed by another when somebody needs it.
        std::future::pending().await
    }

    async fn close(&self) {
        self.stop.send_replace(true);
        let all = std::mem::take(&mut *self.open.lock().await);
        futures::future::join_all(all).await;
    }
}

async fn serve(listener: TcpListener, mut session: Session, way: Way, far: Far, mut stop: watch::Receiver<bool>) {
    let asked = async move { drop(stop.wait_for(|stop| *stop).await) };
    let mut asked = std::pin::pin!(asked);
    loop {
        let connection = tokio::select! {
            () = &mut asked => break,
            accepted = listener.accept() => match accepted {
                Ok((connection, _)) => connection,
                Err(_) => {
                    sleep(PAUSE).await;
                    continue;
                }
            },
        };
        if session.is_over() {
            match way.begin(&far).await {
                Ok(another) => session = another,
                Err(error) => {
                    let text = format!("there is no tunnel to {far}: {error}");
                    way.events.emit(Event::Notice { text });
                    continue;
                }
            }
        }
        tokio::spawn(session.carry(connection));
    }
    session.end().await;
}
