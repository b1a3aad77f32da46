//! Manifests.

use super::contract::key;
use proptest::prelude::*;
use vortex_p2p::store::{MAX_MANIFEST_LEN, Manifest, ManifestError, NewTask};
use vortex_p2p::wire::{Algorithm, Digest, Division, PieceKind, PieceLength};

fn manifest(length: u64, piece_length: u64, kind: PieceKind, digest: Option<Algorithm>) -> Manifest {
    let division = Division::new(length, PieceLength::try_from(piece_length).unwrap()).unwrap();
    let pieces = (0..division.pieces()).map(|number| {
        let algorithm = Algorithm::ALL[number as usize % 3];
        Digest::of(algorithm, &number.to_be_bytes())
    });
    let digest = digest.map(|algorithm| Digest::of(algorithm, b"whole"));
    Manifest::new(NewTask { key: key(kind, 0xab), division, digest }, pieces.collect()).unwrap()
}

proptest! {
    #[test]
    fn a_manifest_is_read_as_it_was_written(
        length in 0..2000_u64,
        piece_length in 40..500_u64,
        kind in prop::sample::select(&PieceKind::ALL[..]),
        digest in prop::option::of(prop::sample::select(&Algorithm::ALL[..])),
    ) {
        let manifest = manifest(length, piece_length, kind, digest);
        let json = manifest.to_json();
        prop_assert_eq!(Manifest::parse(json.as_bytes()).unwrap(), manifest.clone());
        prop_assert_eq!(Manifest::read(json.as_bytes()).unwrap(), manifest);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Manifest::parse(&bytes).is_err());
    }

    #[test]
    fn a_changed_byte_is_refused_or_means_something(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut json = manifest(300, 100, PieceKind::Piece, Some(Algorithm::Sha256)).to_json().into_bytes();
        let at = at.index(json.len());
        json[at] = byte;
        if let Ok(manifest) = Manifest::parse(&json) {
            prop_assert_eq!(manifest.pieces().len() as u64, manifest.task().division.pieces());
            prop_assert_eq!(Manifest::parse(manifest.to_json().as_bytes()).unwrap(), manifest);
        }
    }
}

#[test]
fn what_is_wrong_is_named() {
    let good = manifest(300, 100, PieceKind::Piece, Some(Algorithm::Sha256)).to_json();
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from} in {good}");
        Manifest::parse(good.replacen(from, to, 1).as_bytes()).unwrap_err().to_string()
    };
    for (from, to, expected) in [
        ("\"version\": 1", "\"version\": 2", "a manifest of version 2, expected 1"),
        ("\"version\": 1", "\"no\": 1", "missing field `version`"),
        ("\"abab", "\"ABab", "task: byte 0 of the task id is 0x41"),
        ("\"abab", "\"ab", "task: 62 bytes"),
        ("\"kind\": \"piece\"", "\"kind\": \"pieces\"", "kind: expected piece, persistent"),
        ("\"length\": 300", "\"length\": -1", "invalid value"),
        ("\"length\": 300", "\"length\": 301", "3 digests, expected one for each of the 4 pieces"),
        // A count that is not to be trusted: no memory follows from it.
        ("\"length\": 300", "\"length\": 400000000000", "expected one for each of the 4000000000 pieces"),
        ("\"length\": 300", "\"length\": 18446744073709551615", "choose a larger piece length"),
        ("\"piece_length\": 100", "\"piece_length\": 0", "a piece length of 0"),
        ("\"piece_length\": 100", "\"piece_length\": 1073741825", "piece_length: a piece of 1073741825"),
        ("\"digest\": \"sha256:", "\"digest\": \"md5:", "digest: unknown digest algorithm"),
        ("\"crc32:", "\"crc32:x", "the digest of piece 0: expected crc32"),
        ("{", "[", "not a manifest"),
    ] {
        let error = with(from, to);
        assert!(error.contains(expected), "{to}: {error}");
    }
    assert!(
        Manifest::parse(good.replacen("\"version\"", "\"later\": {}, \"version\"", 1).as_bytes()).is_ok()
    );
}

#[test]
fn no_more_is_read_than_a_manifest_may_have() {
    struct Endless(u64);
    impl std::io::Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0 += buffer.len() as u64;
            assert!(self.0 <= 2 * MAX_MANIFEST_LEN, "it goes on and on");
            buffer.fill(b' ');
            Ok(buffer.len())
        }
    }
    assert!(matches!(Manifest::read(Endless(0)), Err(ManifestError::TooLong)));
}
