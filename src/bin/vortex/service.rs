//! `serve` as a service: signals, what systemd is told, certificates that are read again, figures for Prometheus.

use crate::exit::{Exit, Failure};
use crate::world::IdentityArguments;
use futures_util::future::{Either, select};
use sd_notify::NotifyState;
use std::pin::pin;
use tokio::signal::unix::{Signal, SignalKind, signal};
use vortex_p2p::transport::tls::{Crypto, ServerIdentity, ServerTls};

/// SIGTERM and SIGINT, heard from now on.
pub(crate) struct StopSignals(Signal, Signal);

fn hear(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new(Exit::Other, format!("no signals: {error}")))
}

impl StopSignals {
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Self(hear(SignalKind::terminate())?, hear(SignalKind::interrupt())?))
    }

    /// Waits for the first of them.
    pub(crate) async fn recv(mut self) {
        self.next().await;
    }

    async fn next(&mut self) {
        select(pin!(self.0.recv()), pin!(self.1.recv())).await;
    }
}

/// Those, and SIGHUP.
pub(crate) struct Signals {
    stop: StopSignals,
    hang_up: Signal,
}

enum Heard {
    Stop,
    Reload,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Self { stop: StopSignals::listen()?, hang_up: hear(SignalKind::hangup())? })
    }

    async fn next(&mut self) -> Heard {
        match select(pin!(self.stop.next()), pin!(self.hang_up.recv())).await {
            Either::Left(_) => Heard::Stop,
            Either::Right(_) => Heard::Reload,
        }
    }

    /// Waits for SIGTERM or SIGINT; `reload` is carried out at each SIGHUP.
    pub(crate) async fn until_stop(mut self, mut reload: impl FnMut()) {
        notify(&[NotifyState::Ready]);
        while let Heard::Reload = self.next().await {
            // systemd wants to know when the reload began, by the monotonic clock.
            let began = NotifyState::monotonic_usec_now().ok();
            notify(&[NotifyState::Reloading].into_iter().chain(began).collect::<Vec<_>>());
            reload();
            notify(&[NotifyState::Ready]);
        }
        notify(&[NotifyState::Stopping]);
    }
}

/// Tells systemd, where it started this process and wants to know. One that does not listen is no reason to stop serving.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

/// Reads the certificate, its key and the authorities again. Handshakes from now on go by them, connections that exist
/// live on. Where one of the files is not good, everything stays as it was.
pub(crate) fn reload(crypto: &Crypto, files: &IdentityArguments, shown: &ServerIdentity, tls: &ServerTls) {
    match read_again(crypto, files, shown, tls) {
        Ok(Some(told)) => tracing::warn!("SIGHUP: {told} read again; new handshakes go by that"),
        Ok(None) => {
            tracing::warn!("SIGHUP: there is nothing to read again without --cert and --key, or --ca")
        }
        Err(failure) => {
            tracing::error!(
                "SIGHUP: neither certificate nor authorities were changed: {}",
                failure.message()
            );
        }
    }
}

/// What was read, and stands from now on.
fn read_again(
    crypto: &Crypto,
    files: &IdentityArguments,
    shown: &ServerIdentity,
    tls: &ServerTls,
) -> Result<Option<String>, Failure> {
    // Both are read before one of them is changed.
    let (identity, authorities) = (files.identity(crypto)?, files.authorities()?);
    let mut told = Vec::new();
    if let (Some(authorities), Some(admitted)) = (authorities, tls.authorities()) {
        admitted.replace(&authorities).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        told.push("the authorities".to_owned());
    }
    if let Some(identity) = identity {
        let fingerprint = identity.fingerprint().map(|it| it.to_string()).unwrap_or_default();
        shown.replace(identity);
        told.push(format!("the certificate (now {fingerprint})"));
    }
    Ok((!told.is_empty()).then(|| told.join(" and ")))
}

#[cfg(feature = "metrics")]
pub(crate) use figures::{Figures, serve_metrics};

#[cfg(feature = "metrics")]
mod figures {
    use crate::exit::{Exit, Failure};
    use crate::world::World;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use vortex_p2p::metrics::{Exposition, Page};
    use vortex_p2p::server::StorageServer;

    /// What `serve` shows of itself.
    pub(crate) struct Figures {
        pub(crate) server: StorageServer,
        pub(crate) draining: AtomicBool,
    }

    impl Page for Figures {
        fn metrics(&self) -> Result<String, prometheus::Error> {
            Exposition::default().server(&self.server.stats(), self.server.settings())?.text()
        }

        fn healthy(&self) -> bool {
            !self.draining.load(Ordering::Acquire)
        }
    }

    /// Shows `page` at `bind`; where that is.
    pub(crate) async fn serve_metrics(
        world: &World,
        bind: SocketAddr,
        page: Arc<dyn Page>,
    ) -> Result<SocketAddr, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(Exit::Network, format!("can't listen for metrics on {bind}: {error}"))
                .hint("choose another address or port; port 0 takes a free one")
        };
        let listener = world.network.listen(bind).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let serving = vortex_p2p::metrics::serve(world.runtime.clone(), listener, page);
        world.runtime.spawn(Box::pin(serving));
        Ok(address)
    }
}
