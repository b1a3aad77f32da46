//! Which extensions peers have said that they know.

use super::DownloadError;
use crate::client::ExtensionReply;
use crate::wire::extension::{Capabilities, Extension, ExtensionRequest};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Peers that are remembered; past them, whoever comes first in the order of addresses is forgotten, and asked once more.
const PEERS: usize = 2000;

/// What each peer has announced, by its address.
#[derive(Debug, Default)]
pub(super) struct Announced(Mutex<BTreeMap<SocketAddr, Capabilities>>);

impl Announced {
    /// Sends `request` by `send`, unless the peer at `address` has said that it does not know such. `None`: it does not.
    pub(super) async fn ask(
        &self,
        address: SocketAddr,
        request: ExtensionRequest,
        send: impl Future<Output = Result<Option<ExtensionReply>, DownloadError>>,
    ) -> Result<Option<ExtensionReply>, DownloadError> {
        let extension = request.extension();
        //= VTX-EXT-009
        if !self.allows(address, extension) {
            return Ok(None);
        }
        let reply = send.await?;
        let mut known = self.known();
        match &reply {
            Some(ExtensionReply::Capabilities(capabilities)) => {
                if known.len() >= PEERS {
                    known.pop_first();
                }
                known.insert(address, capabilities.clone());
            }
            // It was listed, and is refused: another program answers there now.
            None => drop(known.remove(&address)),
            Some(_) => {}
        }
        Ok(reply)
    }

    fn allows(&self, address: SocketAddr, extension: Extension) -> bool {
        let known = self.known();
        let listed = known.get(&address).is_none_or(|Capabilities(listed)| listed.contains(&extension));
        listed || extension == Extension::Capabilities
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Capabilities>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
