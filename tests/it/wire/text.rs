//! Text that a peer chose.

use proptest::prelude::*;
use vortex_p2p::wire::{Bounded, Escaped};

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
