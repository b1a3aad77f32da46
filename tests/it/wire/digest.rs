//! Digests, sent and read.

use proptest::prelude::*;
use vortex_p2p::wire::{Algorithm, Digest, DigestClaim, DigestError, Hasher, TaskId};

fn crc(decimal: Option<u32>, hexadecimal: Option<u32>) -> Result<DigestClaim, DigestError> {
    Ok(DigestClaim::Crc32 { decimal, hexadecimal })
}

proptest! {
    //= VTX-DIG-001 test
    //= VTX-DIG-004 test
    //= VTX-DIG-005 test
    #[test]
    fn what_is_sent_is_read_and_matches(content in any::<Vec<u8>>()) {
        for algorithm in Algorithm::ALL {
            let digest = Digest::of(algorithm, &content);
            let text = digest.to_string();
            let value = text.strip_prefix(algorithm.name()).unwrap().strip_prefix(':').unwrap();
            match (algorithm, digest) {
                (Algorithm::Crc32, Digest::Crc32(sum)) => prop_assert_eq!(value, sum.to_string()),
                (Algorithm::Sha256, _) => prop_assert!(value.len() == 64 && lower_hex(value)),
                (Algorithm::Sha512, _) => prop_assert!(value.len() == 128 && lower_hex(value)),
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            }
            prop_assert!(digest.to_text().as_str() == text);
            prop_assert_eq!(text.parse::<Digest>(), Ok(digest));
            prop_assert!(DigestClaim::parse(&text).unwrap().matches(&digest));
            prop_assert!(DigestClaim::from(digest).matches(&digest));
            let mut other = content.clone();
            other.push(0);
            prop_assert!(!DigestClaim::parse(&text).unwrap().matches(&Digest::of(algorithm, &other)));
        }
    }

    //= VTX-DIG-006 test
    //= VTX-DIG-007 test
    //= VTX-DIG-008 test
    #[test]
    fn a_crc_is_read_in_both_ways(sum in any::<u32>(), zeros in 0..12usize) {
        let computed = Digest::Crc32(sum);
        let forms = [
            format!("{}{sum}", "0".repeat(zeros)), format!("{sum:08x}"), format!("{sum:08X}"),
        ];
        for form in forms {
            let claim = DigestClaim::parse(&format!("crc32:{form}")).unwrap();
            prop_assert!(claim.matches(&computed), "{form}");
        }
    }

    /// The rule, written down once more, over texts close to it.
    #[test]
    fn readings_are_those_of_the_text(value in "[0-9]{1,11}|[0-9a-fA-F]{7,9}|[+ -]?[0-9]{1,8}|[0-9g]{8}") {
        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
        let decimal = digits.then(|| value.parse::<u64>().unwrap()).and_then(|sum| u32::try_from(sum).ok());
        let hex = value.len() == 8 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
        let hexadecimal = hex.then(|| u32::from_str_radix(&value, 16).unwrap());
        let expected = match (decimal, hexadecimal) {
            (None, None) => Err(DigestError::Malformed),
            (decimal, hexadecimal) => crc(decimal, hexadecimal),
        };
        prop_assert_eq!(DigestClaim::parse(&format!("crc32:{value}")), expected);
    }

    #[test]
    fn hashing_does_not_depend_on_splits(content in any::<Vec<u8>>(), at in any::<prop::sample::Index>()) {
        let (first, second) = content.split_at(at.index(content.len() + 1));
        for algorithm in Algorithm::ALL {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(first);
            hasher.update(second);
            prop_assert_eq!(hasher.finish(), Digest::of(algorithm, &content));
        }
    }

    //= VTX-REQ-002 test
    #[test]
    fn a_task_id_from_a_hash_is_in_the_alphabet(hash in any::<[u8; 32]>()) {
        let task_id = TaskId::from_sha256(hash);
        prop_assert!(lower_hex(task_id.as_str()));
        prop_assert_eq!(task_id.as_str().parse(), Ok(task_id));
        prop_assert_eq!(Digest::Sha256(hash).to_string(), format!("sha256:{task_id}"));
    }
}

fn lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

//= VTX-DIG-003 test
#[test]
fn known_answers() {
    let nine = b"123456789";
    assert_eq!(Digest::of(Algorithm::Crc32, nine).to_string(), "crc32:3421780262");
    assert_eq!(
        Digest::of(Algorithm::Sha256, nine).to_string(),
        "sha256:15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"
    );
    assert!(Digest::of(Algorithm::Sha512, nine).to_string().starts_with("sha512:d9e6762dd1c8eaf6"));
    assert!(Digest::of(Algorithm::Sha512, nine).to_string().ends_with("3acf574fba8ffe85"));
    assert_eq!(Digest::of(Algorithm::Crc32, b"").to_string(), "crc32:0");
    // The same sum as the published text has it, and as deployed peers send it.
    assert_eq!(DigestClaim::parse("crc32:864bbb04"), crc(None, Some(0x864b_bb04)));
    assert_eq!(DigestClaim::parse("crc32:2253110020"), crc(Some(0x864b_bb04), None));
}

//= VTX-DIG-006 test
//= VTX-DIG-007 test
//= VTX-DIG-008 test
#[test]
fn eight_digits_have_two_readings() {
    let claim = DigestClaim::parse("crc32:12345678").unwrap();
    assert_eq!(Ok(claim), crc(Some(12_345_678), Some(0x1234_5678)));
    assert!(claim.matches(&Digest::Crc32(12_345_678)));
    assert!(claim.matches(&Digest::Crc32(0x1234_5678)));
    assert!(!claim.matches(&Digest::Crc32(0)));
    assert!(!claim.matches(&Digest::of(Algorithm::Sha256, b"")));
    assert_eq!("crc32:12345678".parse(), Ok(Digest::Crc32(12_345_678)));
}

//= VTX-DIG-009 test
//= VTX-DIG-010 test
#[test]
fn what_is_no_digest() {
    let sha256 = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225";
    let malformed = [
        "crc32",
        "crc32:",
        "crc32:+1",
        "crc32:-1",
        "crc32: 1",
        "crc32:1 ",
        "crc32:4294967296",
        "crc32:0x12345678",
        "crc32:1234567g",
        "crc32:abcdef0",
        "crc32:abcdef012",
        "crc32:1:2",
        "crc32:１２３",
        "sha256:",
        "sha512:00",
        "no colon at all",
    ];
    for text in malformed {
        assert_eq!(DigestClaim::parse(text), Err(DigestError::Malformed), "{text}");
    }
    for text in [&sha256[1..], &format!("{sha256}0"), &sha256.replace('f', "g")] {
        assert_eq!(DigestClaim::parse(&format!("sha256:{text}")), Err(DigestError::Malformed), "{text}");
        assert_eq!(DigestClaim::parse(&format!("sha512:{text}")), Err(DigestError::Malformed), "{text}");
    }
    for text in [":", ":1", "SHA256:00", "CRC32:1", "md5:d41d8cd98f00b204e9800998ecf8427e", " crc32:1"] {
        assert_eq!(DigestClaim::parse(text), Err(DigestError::UnknownAlgorithm), "{text}");
    }
    assert_eq!(DigestClaim::parse(""), Err(DigestError::Empty));
    let upper = DigestClaim::parse(&format!("sha256:{}", sha256.to_uppercase())).unwrap();
    assert!(upper.matches(&Digest::of(Algorithm::Sha256, b"123456789")));
}
