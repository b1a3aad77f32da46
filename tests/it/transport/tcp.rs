//! Byte streams of the kernel.

use super::pki::{ANSWER, REQUEST};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vortex_p2p::transport::tls::{self, ClientTls, Refusal, ServerTls};
use vortex_p2p::transport::{Network, TokioNetwork};

/// One request and its answer over TLS; what the client and the server are told.
pub(super) async fn exchange(
    client: &ClientTls,
    server: &ServerTls,
) -> (Result<(), Refusal>, Result<(), Refusal>) {
    let network = TokioNetwork::default();
    let mut listener = network.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let asking = async {
        let stream = network.connect(address).await?;
        let mut stream = tls::connect(client, address, stream).await?;
        stream.write_all(REQUEST).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        assert_eq!(answer, ANSWER);
        Ok(())
    };
    let answering = async {
        let (stream, _) = listener.accept().await?;
        let mut stream = tls::accept(server, stream).await?;
        let mut request = [0; REQUEST.len()];
        stream.read_exact(&mut request).await?;
        assert_eq!(request, REQUEST);
        stream.write_all(ANSWER).await?;
        stream.shutdown().await
    };
    let (asked, answered) = tokio::join!(asking, answering);
    (asked.map_err(told), answered.map_err(told))
}

fn told(error: io::Error) -> Refusal {
    Refusal::from_io(&error).unwrap_or_else(|| panic!("no refusal: {error:?}"))
}
