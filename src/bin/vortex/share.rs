//! `vortex get --serve`: gives the pieces that are here to others, while the rest is fetched and after that.

use crate::exit::{Exit, Failure};
use crate::progress::{Line, Progress};
use crate::serve::{listen, server_settings};
use crate::service::StopSignals;
use crate::world::{IdentityArguments, World};
use clap::Args;
use serde::Serialize;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use vortex_p2p::config::Config;
use vortex_p2p::downloader::Protocol;
use vortex_p2p::server::StorageServer;
use vortex_p2p::store::{SharedStore, TaskKey};
use vortex_p2p::transport::tls::{Identity, ServerIdentity, ServerTls};

/// Whether to serve, and where.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Serving")]
pub(crate) struct ShareArguments {
    /// Give the pieces that are here to others, and go on with it once the file is whole, until SIGTERM or Ctrl-C
    #[arg(long, env = "VORTEX_SERVE")]
    pub(crate) serve: bool,
    /// Address and port for QUIC; port 0 takes a free one [default: 0.0.0.0:4006]
    #[arg(long, value_name = "ADDR", requires = "serve")]
    quic: Option<SocketAddr>,
    /// Address and port for TCP; port 0 takes a free one [default: 0.0.0.0:4005]
    #[arg(long, value_name = "ADDR", requires = "serve")]
    tcp: Option<SocketAddr>,
}

/// The line that scripts wait for.
#[derive(Serialize)]
struct Ready {
    task: String,
    quic: SocketAddr,
    tcp: SocketAddr,
}

/// A server beside a transfer.
pub(crate) struct Share {
    server: StorageServer,
    stop: StopSignals,
}

impl Share {
    /// Begins to serve what is in `store`, and says where; `None` where that was not asked for.
    pub(crate) async fn begin(
        world: &World,
        config: &Config,
        arguments: &ShareArguments,
        identity: &IdentityArguments,
        store: SharedStore,
        task: TaskKey,
        progress: &Progress,
    ) -> Result<Option<Self>, Failure> {
        if !arguments.serve {
            return Ok(None);
        }
        let usage = |error: &dyn std::fmt::Display| Failure::new(Exit::Usage, error.to_string());
        let own = match identity.identity(&world.crypto)? {
            Some(own) => own,
            None if identity.insecure => {
                Identity::self_signed(&world.crypto).map_err(|error| usage(&error))?
            }
            None => {
                return Err(Failure::new(Exit::Usage, "nothing says who this peer is to those whom it serves").hint(
                    "name its certificate with --cert and --key, and the authority with --ca, or use --insecure",
                ));
            }
        };
        let tls = ServerTls::new(&world.crypto, &ServerIdentity::new(own), &identity.admission()?)
            .map_err(|error| usage(&error))?;
        let stop = StopSignals::listen()?;
        let server = StorageServer::new(world.runtime.clone(), store, server_settings(config));
        let at = |given: Option<SocketAddr>, protocol: Protocol| {
            given.unwrap_or(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), protocol.default_port()))
        };
        let (quic, tcp) = (at(arguments.quic, Protocol::Quic), at(arguments.tcp, Protocol::Tcp));
        let (quic, tcp) = listen(world, &server, config, quic, tcp, &tls, identity.insecure).await?;
        let ready = Ready { task: task.id.to_string(), quic, tcp };
        if progress.is_json() {
            progress.line(&Line::Serving { task: ready.task, quic, tcp });
        } else {
            let mut out = std::io::stdout();
            writeln!(out, "READY {}", serde_json::to_string(&ready).unwrap_or_default())?;
            out.flush()?;
        }
        Ok(Some(Self { server, stop }))
    }

    /// Goes on until it is told to stop, and lets the answers under way end.
    pub(crate) async fn until_stopped(self, progress: &Progress) {
        progress.say("serving it to others until SIGTERM or Ctrl-C");
        self.stop.recv().await;
        self.server.shutdown().await;
    }
}
