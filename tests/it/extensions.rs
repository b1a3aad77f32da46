//! What servers with and without the extensions answer.

use crate::peers::{Served, content};
use vortex_p2p::client::{ExtensionReply, Failure, RequestError};
use vortex_p2p::server::ServerSettings;
use vortex_p2p::store::{NewTask, PieceStore as _, TaskKey};
use vortex_p2p::wire::extension::{
    Availability, Capabilities, Description, Extension, ExtensionRequest, Hold, MAX_RANGE_LEN,
};
use vortex_p2p::wire::{Algorithm, Digest, Division, Download, ErrorCode, PieceKind, PieceLength, TaskId};

fn division(length: u64, piece_length: u64) -> Division {
    Division::new(length, PieceLength::try_from(piece_length).unwrap()).unwrap()
}

/// One request over QUIC and over TCP; the answers have to be alike.
async fn both(served: &Served, request: ExtensionRequest) -> Result<Option<ExtensionReply>, Failure> {
    let failure = |error| match error {
        RequestError::Failed(failure) => failure,
        other => panic!("{other}"),
    };
    let quic = served.quic().await.extension(&request).await.map_err(failure);
    let tcp = served.tcp().await.extension(&request).await.map_err(failure);
    assert_eq!(quic, tcp, "{request:?}");
    quic
}

#[tokio::test]
async fn extensions_are_answered_on_both_transports() {
    //= VTX-EXT-001 test
    //= VTX-EXT-002 test
    //= VTX-EXT-003 test
    //= VTX-EXT-004 test
    //= VTX-EXT-008 test
    //= VTX-EXT-012 test
    //= VTX-EXT-017 test
    //= VTX-EXT-020 test
    let served = Served::new(ServerSettings::default()).await;
    let whole = content(1000);
    let key = served.insert(PieceKind::Persistent, &whole, 300).await;
    let (kind, task_id) = (key.kind, key.id);
    let capabilities = Capabilities(vec![Extension::Range, Extension::Description, Extension::Availability]);
    let answered = both(&served, ExtensionRequest::Capabilities).await;
    assert_eq!(answered, Ok(Some(ExtensionReply::Capabilities(capabilities))));

    let answered = both(&served, ExtensionRequest::Description { kind, task_id }).await;
    let description = Description { division: division(1000, 300), digest: None };
    assert_eq!(answered, Ok(Some(ExtensionReply::Description(description))));

    for (first, held) in [(0, vec![true; 4]), (3, vec![true]), (4, vec![]), (u32::MAX, vec![])] {
        let answered =
            both(&served, ExtensionRequest::Availability { kind, task_id, first, hold: None }).await;
        assert_eq!(answered, Ok(Some(ExtensionReply::Availability(Availability { first, held }))));
    }

    for (number, start, length, expected) in
        [(0, 0, 300, 0..300), (1, 10, 20, 310..330), (3, 99, 1000, 999..1000), (2, 299, 1, 899..900)]
    {
        let range = ExtensionRequest::Range { piece: key.piece(number), start, length };
        let Ok(Some(ExtensionReply::Range(head, bytes))) = both(&served, range).await else { panic!() };
        assert_eq!(bytes, whole.slice(expected));
        assert_eq!(head.digest, Digest::of(Algorithm::Crc32, &bytes));
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_as_for_a_piece() {
    //= VTX-EXT-013 test
    //= VTX-EXT-021 test
    let served = Served::new(ServerSettings::default()).await;
    let key = served.insert(PieceKind::Piece, &content(10), 10).await;
    let (kind, task_id) = (PieceKind::Cache, key.id);
    for request in [
        ExtensionRequest::Description { kind, task_id },
        ExtensionRequest::Availability { kind, task_id, first: 0, hold: None },
        ExtensionRequest::Range { piece: Download { kind, task_id, number: 0 }, start: 0, length: 1 },
        ExtensionRequest::Range { piece: key.piece(1), start: 0, length: 1 },
    ] {
        let refused = both(&served, request).await.unwrap_err();
        assert!(matches!(refused, Failure::Refused { code: ErrorCode::NotFound, .. }), "{refused}");
    }
    for (start, length) in [(10, 1), (0, 0), (0, MAX_RANGE_LEN + 1)] {
        // Code 1, which a client takes for a server without the extension.
        assert_eq!(
            both(&served, ExtensionRequest::Range { piece: key.piece(0), start, length }).await,
            Ok(None)
        );
    }
}

#[tokio::test]
async fn a_server_without_extensions_is_like_a_deployed_one() {
    //= VTX-EXT-005 test
    let served = Served::new(ServerSettings { extensions: false, ..ServerSettings::default() }).await;
    assert_eq!(both(&served, ExtensionRequest::Capabilities).await, Ok(None));
    let (kind, task_id) = (PieceKind::Piece, TaskId::from_sha256([0; 32]));
    assert_eq!(both(&served, ExtensionRequest::Description { kind, task_id }).await, Ok(None));
}

//= VTX-EXT-024 test
//= VTX-EXT-025 test
#[tokio::test]
async fn an_availability_answer_waits_for_news_where_it_may() {
    let served = Served::new(ServerSettings::default()).await;
    let whole = served.insert(PieceKind::Piece, &content(1000), 300).await;
    let key = TaskKey { kind: PieceKind::Cache, id: whole.id };
    let task = NewTask { key, division: division(1000, 300), digest: None };
    served.store.create(task).await.unwrap();
    let (kind, task_id) = (key.kind, key.id);
    let client = served.quic().await;
    let ask = |known, wait| {
        let request =
            ExtensionRequest::Availability { kind, task_id, first: 1, hold: Some(Hold { known, wait }) };
        let client = &client;
        async move {
            match client.extension(&request).await.unwrap() {
                Some(ExtensionReply::Availability(Availability { first: 1, held })) => held,
                other => panic!("{other:?}"),
            }
        }
    };
    // Another number than what is known is news, and so is the end of the time.
    assert_eq!(ask(2, u32::MAX).await, [false; 3]);
    assert_eq!(ask(0, 1).await, [false; 3]);
    // A piece before the first of interest is none; the next one is.
    let commit = async {
        for number in [0, 2] {
            let piece = served.store.piece(whole.piece(number)).await.unwrap();
            let mut writer = served.store.writer(key.piece(number)).await.unwrap();
            writer.write(piece.content.read(0, 300).await.unwrap()).await.unwrap();
            writer.commit(piece.provenance).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (held, ()) = tokio::join!(ask(0, u32::MAX), commit);
    assert_eq!(held, [false, true, false]);
    // A server that leaves does not wait.
    while served.server.stats().answers > 0 {
        tokio::task::yield_now().await;
    }
    let (held, ()) = tokio::join!(ask(1, u32::MAX), async {
        while served.server.stats().answers == 0 {
            tokio::task::yield_now().await;
        }
        served.server.shutdown().await;
    });
    assert_eq!(held, [false, true, false]);
}
