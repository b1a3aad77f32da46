//! Tasks and their pieces.

use proptest::prelude::*;
use vortex_p2p::wire::{Division, DivisionError, PieceLength, PieceSpan, limits};

fn piece_length(length: u64) -> PieceLength {
    PieceLength::try_from(length).unwrap()
}

proptest! {
    //= VTX-REQ-005 test
    //= VTX-REQ-007 test
    #[test]
    fn pieces_follow_each_other_and_fill_the_task(length in 0..200_000u64, piece in 1..3000u64) {
        let division = Division::new(length, piece_length(piece)).unwrap();
        let mut at = 0;
        for number in 0..u32::try_from(division.pieces()).unwrap() {
            let PieceSpan { offset, length: bytes } = division.piece(number).unwrap();
            prop_assert_eq!(offset, at);
            prop_assert!(u64::from(bytes) <= piece);
            prop_assert!(u64::from(bytes) == piece || u64::from(number) + 1 == division.pieces());
            prop_assert!(bytes.get() > 0 || length == 0);
            at += u64::from(bytes);
        }
        prop_assert_eq!(at, length);
        prop_assert_eq!(division.piece(u32::try_from(division.pieces()).unwrap()), None);
    }

    /// The last piece ends where the task does, however large both are.
    #[test]
    fn the_last_piece_ends_with_the_task(length in any::<u64>(), piece in 1..=1u64 << 30) {
        match Division::new(length, piece_length(piece)) {
            Ok(division) => {
                let last = u32::try_from(division.pieces() - 1).unwrap();
                let span = division.piece(last).unwrap();
                prop_assert_eq!(span.offset + u64::from(span.length), length);
                prop_assert_eq!(span.offset, u64::from(last) * piece);
            }
            Err(DivisionError::TooManyPieces { pieces }) => {
                prop_assert_eq!(pieces, length.div_ceil(piece));
                prop_assert!(pieces > 1 << 32);
            }
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        }
    }

    //= VTX-REQ-009 test
    #[test]
    fn pieces_by_default_are_a_500th_within_bounds(length in 0..1u64 << 50) {
        let chosen = u64::from(Division::by_default(length).unwrap().piece_length());
        prop_assert_eq!(chosen, (length / 500).clamp(4_194_304, 67_108_864));
    }
}

//= VTX-REQ-006 test
#[test]
fn an_empty_task_has_one_empty_piece() {
    let division = Division::new(0, piece_length(4096)).unwrap();
    assert_eq!(division.pieces(), 1);
    assert_eq!(division.piece(0), Some(PieceSpan { offset: 0, length: piece_length(0) }));
    assert_eq!(division.piece(1), None);
}

//= VTX-REQ-008 test
#[test]
fn divisions_have_bounds() {
    assert_eq!(Division::new(10, piece_length(0)), Err(DivisionError::NoPieceLength));
    assert_eq!(PieceLength::try_from(limits::MAX_PIECE_LEN as u64 + 1).unwrap_err().0, (1 << 30) + 1);
    assert_eq!(Division::new(1 << 32, piece_length(1)).unwrap().pieces(), 1 << 32);
    let error = Division::new((1 << 32) + 1, piece_length(1)).unwrap_err();
    assert_eq!(error, DivisionError::TooManyPieces { pieces: (1 << 32) + 1 });
    let largest = Division::new(1 << 62, PieceLength::MAX).unwrap();
    assert_eq!(largest.pieces(), 1 << 32);
    assert_eq!(largest.piece(u32::MAX).unwrap().offset, u64::from(u32::MAX) << 30);
    assert!(Division::new(u64::MAX, PieceLength::MAX).is_err());
    assert!(Division::by_default((1 << 58) + 1).is_err());
}
