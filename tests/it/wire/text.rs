//! Text that a peer chose.

use proptest::prelude::*;
use vortex_p2p::wire::{
    Algorithm, Bounded, Digest, Division, Escaped, PieceKind, PieceLength, Tag, TaskId, limits,
};

proptest! {
    //= VTX-ERR-003 test
    #[test]
    fn a_cut_text_is_the_longest_that_fits(text in any::<String>()) {
        let cut = Bounded::<8>::cut(&text).as_str();
        prop_assert!(text.starts_with(cut));
        prop_assert!(cut.len() <= 8);
        let next = text[cut.len()..].chars().next();
        prop_assert!(next.is_none_or(|next| cut.len() + next.len_utf8() > 8));
        prop_assert_eq!(Bounded::<8>::new(&text).is_ok(), text.len() <= 8);
    }

    //= VTX-SEC-001 test
    #[test]
    fn shown_text_steers_nothing(text in any::<String>()) {
        let bounded = Bounded::<4096>::cut(&text);
        for shown in [Escaped(&text).to_string(), format!("{bounded}"), format!("{bounded:?}")] {
            let steers = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
            prop_assert!(!shown.contains(steers), "{shown:?}");
        }
    }

    #[test]
    fn harmless_text_is_shown_as_it_is(text in "[ -~à-ÿ☃🜁]{0,40}") {
        prop_assert_eq!(Escaped(&text).to_string(), text);
    }
}

#[test]
fn escapes_name_the_character() {
    let cases = [
        ("a\nb", "a\\nb"),
        ("\u{1b}[31mred\u{1b}[0m", "\\u{1b}[31mred\\u{1b}[0m"),
        ("\r\n\t\0", "\\r\\n\\t\\u{0}"),
        ("gpj.\u{202e}exe", "gpj.\\u{202e}exe"),
        ("\u{85}\u{2028}", "\\u{85}\\u{2028}"),
        ("", ""),
    ];
    for (text, shown) in cases {
        assert_eq!(Escaped(text).to_string(), shown);
    }
}

#[test]
fn a_text_that_is_too_long_says_by_how_much() {
    let error = Bounded::<4>::new("12345").unwrap_err();
    assert_eq!((error.length, error.limit), (5, 4));
    assert_eq!(Bounded::<4>::new("1234").unwrap().as_str(), "1234");
}

/// What a person is shown for each of the small values.
#[test]
fn values_have_the_names_of_the_text() {
    assert_eq!(Algorithm::ALL.map(|algorithm| algorithm.to_string()), ["crc32", "sha256", "sha512"]);
    for kind in PieceKind::ALL {
        assert_eq!(kind.to_string().parse(), Ok(kind));
        assert_eq!(kind.to_string(), kind.name());
    }
    assert!("pieces".parse::<PieceKind>().is_err());
    assert_eq!(Tag::from(0xF8).to_string(), "Reserved 0xF8");
    assert_eq!(Tag::Close.to_string(), "Close");
    assert_eq!(Tag::Download(PieceKind::Piece).lengths().to_string(), "68");
    assert_eq!(Tag::Error.lengths().to_string(), "1 to 16384");
    let digest = Digest::Crc32(7);
    assert_eq!(format!("{digest:?} {:?}", digest.to_text()), "crc32:7 crc32:7");
    let id = TaskId::from_sha256([0xab; 32]);
    assert!(format!("{id:?}").contains(&"ab".repeat(32)));
    assert!(id.short().len() >= 8 && id.to_string().starts_with(id.short()));
    let bounded = Bounded::<8>::new("a\nb").unwrap();
    assert_eq!(format!("{bounded} {bounded:?}"), "a\\nb \"a\\nb\"");
    assert!(!bounded.is_empty() && Bounded::<8>::new("").unwrap().is_empty());
    assert_eq!(Bounded::from(&digest.to_text()).as_str(), "crc32:7");
    let piece_length = PieceLength::try_from(4).unwrap();
    assert_eq!(Division::new(10, piece_length).unwrap().length(), 10);
}

/// The longest digest text fits where digests are written.
#[test]
fn the_longest_digest_is_written_whole() {
    let text = Digest::Sha512([0x5a; 64]).to_text();
    assert_eq!(text.as_str(), format!("sha512:{}", "5a".repeat(64)));
    assert_eq!(limits::MAX_PACKET_LEN, 6 + 16_384);
}
