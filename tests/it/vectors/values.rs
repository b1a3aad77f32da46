//! Vectors of digests and of divisions. The sums were computed with another implementation.

use super::model::{Bytes, Vector, array, object, text};

const NINE: &[u8] = b"123456789";
const NINE_SHA256: &str = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225";
const NINE_SHA512: &str = "d9e6762dd1c8eaf6d61b3c6192fc408d4d6d5f1176d0c29169bc24e71c3f274ad27fcd5811b313d681f7e55ec02d73d499c95455b6b5bb503acf574fba8ffe85";
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const EMPTY_SHA512: &str = "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";
const MIB_SHA256: &str = "06b7bbfb7824aa03382051691630eb26de85102d1b08a81e907ec0744cd8a286";
const MIB_SHA512: &str = "bbd88befcaa6abb0735609ac35e1dfbb5ab8064dca98effd5d493ccb0a0244cd88d5a01e86696eb17f0e7c087f89dd7f06161ecefd1776a74dfc60a27e89bc06";

pub(super) fn digests() -> Vec<Vector> {
    let mut vectors = sent();
    vectors.extend(read());
    vectors.extend(not_read());
    vectors
}

fn sent() -> Vec<Vector> {
    let crc = "DIG-001 DIG-002 DIG-003 DIG-004";
    let hash = "DIG-001 DIG-002 DIG-005";
    let mib = || Bytes::steps(1 << 20, 7, 31);
    let vector = |id, comment, requirements, flags, algorithm, content: Bytes, sent: &str| {
        Vector::new(id, comment, requirements, flags)
            .with("algorithm", text(algorithm))
            .bytes(&content)
            .with("sent", text(&format!("{algorithm}:{sent}")))
    };
    let hex = Bytes::hex;
    vec![
        vector(
            "dig-sent-001",
            "The check value of CRC-32/ISO-HDLC, in decimal",
            crc,
            "deployed-differs",
            "crc32",
            hex(NINE),
            "3421780262",
        ),
        vector("dig-sent-002", "No content", crc, "limit", "crc32", hex(b""), "0"),
        vector("dig-sent-003", "One zero byte", crc, "", "crc32", hex(&[0]), "3523407757"),
        vector(
            "dig-sent-004",
            "A sum of eight decimal digits",
            crc,
            "",
            "crc32",
            hex(b"piece 172"),
            "41507661",
        ),
        vector(
            "dig-sent-005",
            "A sum of nine digits: no leading zeros",
            crc,
            "",
            "crc32",
            hex(b"piece 52"),
            "262407772",
        ),
        vector("dig-sent-006", "1 MiB", crc, "big", "crc32", mib(), "3559177665"),
        vector("dig-sent-011", "sha256", hash, "", "sha256", hex(NINE), NINE_SHA256),
        vector("dig-sent-012", "No content", hash, "limit", "sha256", hex(b""), EMPTY_SHA256),
        vector("dig-sent-013", "1 MiB", hash, "big", "sha256", mib(), MIB_SHA256),
        vector("dig-sent-021", "sha512", hash, "", "sha512", hex(NINE), NINE_SHA512),
        vector("dig-sent-022", "No content", hash, "limit", "sha512", hex(b""), EMPTY_SHA512),
        vector("dig-sent-023", "1 MiB", hash, "big", "sha512", mib(), MIB_SHA512),
    ]
}

/// A digest that can be read, and content that has it or not.
fn known(
    id: &str,
    comment: &str,
    requirements: &str,
    digest: &str,
    readings: &[&str],
    content: Option<(&[u8], bool)>,
) -> Vector {
    let vector = Vector::new(id, comment, requirements, "")
        .with("text", text(digest))
        .with("result", text("known"))
        .with("readings", array(readings.iter().map(|reading| text(reading))));
    match content {
        Some((content, matches)) => vector.bytes(&Bytes::hex(content)).with("matches", matches.to_string()),
        None => vector,
    }
}

fn read() -> Vec<Vector> {
    let decimal = "DIG-006";
    let hexadecimal = "DIG-007";
    let both = "DIG-006 DIG-007 DIG-008";
    let upper = NINE_SHA256.to_uppercase();
    vec![
        known(
            "dig-crc32-001",
            "Decimal, as sent",
            "DIG-006 DIG-014",
            "crc32:3421780262",
            &["cbf43926"],
            Some((NINE, true)),
        ),
        known(
            "dig-crc32-002",
            "Other content",
            "DIG-006 DIG-015",
            "crc32:3421780262",
            &["cbf43926"],
            Some((b"12345678", false)),
        ),
        known(
            "dig-crc32-003",
            "Hexadecimal in lower case",
            "DIG-007 DIG-008",
            "crc32:cbf43926",
            &["cbf43926"],
            Some((NINE, true)),
        ),
        known(
            "dig-crc32-004",
            "Hexadecimal in upper case",
            hexadecimal,
            "crc32:CBF43926",
            &["cbf43926"],
            Some((NINE, true)),
        ),
        known(
            "dig-crc32-005",
            "Hexadecimal in both cases",
            hexadecimal,
            "crc32:cBf43926",
            &["cbf43926"],
            Some((NINE, true)),
        ),
        known(
            "dig-crc32-006",
            "The example of the published text",
            hexadecimal,
            "crc32:864bbb04",
            &["864bbb04"],
            None,
        ),
        known(
            "dig-crc32-007",
            "Eight decimal digits: two readings",
            both,
            "crc32:12345678",
            &["00bc614e", "12345678"],
            None,
        ),
        known(
            "dig-crc32-008",
            "Two readings, and the decimal one matches",
            both,
            "crc32:41507661",
            &["02795b4d", "41507661"],
            Some((b"piece 172", true)),
        ),
        known(
            "dig-crc32-009",
            "Two readings, and the hexadecimal one matches",
            both,
            "crc32:47885482",
            &["02daacaa", "47885482"],
            Some((b"piece 26", true)),
        ),
        known(
            "dig-crc32-010",
            "Two readings, and none matches",
            "DIG-008 DIG-015",
            "crc32:12345678",
            &["00bc614e", "12345678"],
            Some((NINE, false)),
        ),
        known(
            "dig-crc32-011",
            "Two readings that are the same",
            both,
            "crc32:00000000",
            &["00000000"],
            Some((b"", true)),
        ),
        known("dig-crc32-012", "The smallest sum", decimal, "crc32:0", &["00000000"], Some((b"", true))),
        known("dig-crc32-013", "The largest sum", decimal, "crc32:4294967295", &["ffffffff"], None),
        known(
            "dig-crc32-014",
            "Leading zeros",
            decimal,
            "crc32:0003421780262",
            &["cbf43926"],
            Some((NINE, true)),
        ),
        known(
            "dig-crc32-015",
            "Many leading zeros",
            decimal,
            "crc32:00000000000000000000000000000001",
            &["00000001"],
            None,
        ),
        known(
            "dig-crc32-016",
            "Seven digits are decimal only",
            decimal,
            "crc32:1234567",
            &["0012d687"],
            None,
        ),
        known(
            "dig-crc32-017",
            "Nine digits are decimal only",
            decimal,
            "crc32:123456789",
            &["075bcd15"],
            None,
        ),
        known(
            "dig-sha256-001",
            "As sent",
            "DIG-009 DIG-014",
            &format!("sha256:{NINE_SHA256}"),
            &[NINE_SHA256],
            Some((NINE, true)),
        ),
        known(
            "dig-sha256-002",
            "In upper case",
            "DIG-009",
            &format!("sha256:{upper}"),
            &[NINE_SHA256],
            Some((NINE, true)),
        ),
        known(
            "dig-sha256-003",
            "Other content",
            "DIG-009 DIG-015",
            &format!("sha256:{NINE_SHA256}"),
            &[NINE_SHA256],
            Some((b"", false)),
        ),
        known(
            "dig-sha512-001",
            "As sent",
            "DIG-009 DIG-014",
            &format!("sha512:{NINE_SHA512}"),
            &[NINE_SHA512],
            Some((NINE, true)),
        ),
    ]
}

fn not_read() -> Vec<Vector> {
    let vector = |id: &str, comment: &str, requirements: &str, digest: &str, result: &str| {
        Vector::new(id, comment, requirements, "").with("text", text(digest)).with("result", text(result))
    };
    let malformed =
        |id: &str, comment: &str, digest: &str| vector(id, comment, "DIG-010", digest, "malformed");
    vec![
        malformed("dig-malformed-001", "No colon", "3421780262"),
        malformed("dig-malformed-002", "An algorithm without a colon", "crc32"),
        malformed("dig-malformed-003", "No value", "crc32:"),
        malformed("dig-malformed-004", "A plus sign", "crc32:+1"),
        malformed("dig-malformed-005", "A minus sign", "crc32:-1"),
        malformed("dig-malformed-006", "A space before the value", "crc32: 1"),
        malformed("dig-malformed-007", "A space after the value", "crc32:1 "),
        malformed("dig-malformed-008", "One more than the largest sum", "crc32:4294967296"),
        malformed("dig-malformed-009", "Seven hexadecimal digits", "crc32:cbf4392"),
        malformed("dig-malformed-010", "Nine hexadecimal digits", "crc32:0cbf43926"),
        malformed("dig-malformed-011", "A prefix", "crc32:0xcbf43926"),
        malformed("dig-malformed-012", "A letter after f", "crc32:cbf4392g"),
        malformed("dig-malformed-013", "Digits that are not ASCII", "crc32:１２３"),
        malformed("dig-malformed-014", "A second colon", "crc32:1:2"),
        malformed(
            "dig-malformed-015",
            "A hash without its last digit",
            &format!("sha256:{}", &NINE_SHA256[1..]),
        ),
        malformed("dig-malformed-016", "A hash with one digit more", &format!("sha256:{NINE_SHA256}0")),
        malformed("dig-malformed-017", "A hash of the other algorithm", &format!("sha512:{NINE_SHA256}")),
        malformed(
            "dig-malformed-018",
            "A hash that is not hexadecimal",
            &format!("sha256:{}", "g".repeat(64)),
        ),
        vector(
            "dig-unknown-001",
            "A name in upper case",
            "DIG-010 DIG-012",
            "CRC32:3421780262",
            "unknown-algorithm",
        ),
        vector(
            "dig-unknown-002",
            "Another algorithm",
            "DIG-012 DIG-013",
            "md5:25f9e794323b453885f5181f1b624d0b",
            "unknown-algorithm",
        ),
        vector("dig-unknown-003", "No name", "DIG-012", ":1", "unknown-algorithm"),
        vector(
            "dig-unknown-004",
            "A space before the name",
            "DIG-010 DIG-012",
            " crc32:1",
            "unknown-algorithm",
        ),
        vector("dig-empty-001", "No digest", "DIG-011 DIG-013", "", "empty"),
    ]
}

/// Number, offset and length of a piece.
type Place = (u32, u64, u64);

pub(super) fn divisions() -> Vec<Vector> {
    let vector = |id: &str, comment: &str, requirements: &str, flags: &str, length: u64, piece: u64| {
        let number = |number: u64| text(&number.to_string());
        Vector::new(id, comment, requirements, flags)
            .with("length", number(length))
            .with("piece_length", number(piece))
    };
    let valid = |vector: Vector, pieces: u64, places: &[Place]| {
        let places = places.iter().map(|(number, offset, length)| {
            let offset = text(&offset.to_string());
            object([
                ("number", number.to_string()),
                ("offset", offset),
                ("length", text(&length.to_string())),
            ])
        });
        vector
            .with("result", text("valid"))
            .with("pieces", text(&pieces.to_string()))
            .list("places", places.collect())
    };
    let invalid = |vector: Vector| vector.with("result", text("invalid"));
    let default = |vector: Vector| vector.with("default", "true".to_owned());
    let rule = "REQ-005 REQ-007";
    let bound = "REQ-008";
    let chosen = "REQ-009 REQ-005 REQ-007";
    let mib4 = 4_194_304;
    let mib64 = 67_108_864;
    let max = 1_073_741_824;
    vec![
        valid(vector("div-task-001", "An empty task", "REQ-006", "limit", 0, mib4), 1, &[(0, 0, 0)]),
        valid(vector("div-task-002", "One byte", rule, "limit", 1, mib4), 1, &[(0, 0, 1)]),
        valid(
            vector("div-task-003", "One piece less a byte", rule, "limit", mib4 - 1, mib4),
            1,
            &[(0, 0, mib4 - 1)],
        ),
        valid(vector("div-task-004", "Exactly one piece", rule, "limit", mib4, mib4), 1, &[(0, 0, mib4)]),
        valid(
            vector("div-task-005", "One piece and a byte", rule, "limit", mib4 + 1, mib4),
            2,
            &[(0, 0, mib4), (1, mib4, 1)],
        ),
        valid(
            vector("div-task-006", "A last piece that is smaller", rule, "", 10, 4),
            3,
            &[(0, 0, 4), (1, 4, 4), (2, 8, 2)],
        ),
        valid(
            vector("div-task-007", "A last piece that is whole", rule, "", 12, 4),
            3,
            &[(0, 0, 4), (1, 4, 4), (2, 8, 4)],
        ),
        valid(
            vector("div-task-008", "Pieces of one byte", rule, "limit", 3, 1),
            3,
            &[(0, 0, 1), (1, 1, 1), (2, 2, 1)],
        ),
        valid(
            vector("div-task-009", "The largest pieces", "REQ-007 REQ-008", "limit", 3 * max + 5, max),
            4,
            &[(0, 0, max), (3, 3 * max, 5)],
        ),
        valid(
            vector("div-task-010", "As many pieces as there are numbers", bound, "limit", 4_294_967_296, 1),
            4_294_967_296,
            &[(0, 0, 1), (u32::MAX, 4_294_967_295, 1)],
        ),
        valid(
            vector(
                "div-task-011",
                "The largest task: offsets need 62 bits",
                "REQ-007 REQ-008",
                "limit",
                1 << 62,
                max,
            ),
            4_294_967_296,
            &[(0, 0, max), (u32::MAX, (1 << 62) - max, max)],
        ),
        valid(
            vector("div-task-012", "An offset above 4 GiB", rule, "", 5_000_000_000, mib64),
            75,
            &[(0, 0, mib64), (64, 4_294_967_296, mib64), (74, 4_966_055_936, 33_944_064)],
        ),
        invalid(vector("div-task-101", "Pieces of no byte", bound, "limit", 10, 0)),
        invalid(vector("div-task-102", "An empty task in pieces of no byte", bound, "limit", 0, 0)),
        invalid(vector("div-task-103", "Pieces above the limit", bound, "limit", 10, max + 1)),
        invalid(vector(
            "div-task-104",
            "One piece more than there are numbers",
            bound,
            "limit",
            4_294_967_297,
            1,
        )),
        invalid(vector(
            "div-task-105",
            "One byte more than the largest task",
            bound,
            "limit",
            (1 << 62) + 1,
            max,
        )),
        valid(
            default(vector("div-default-001", "An empty task", "REQ-006 REQ-009", "", 0, mib4)),
            1,
            &[(0, 0, 0)],
        ),
        valid(
            default(vector("div-default-002", "1 GiB: raised to 4 MiB", chosen, "", max, mib4)),
            256,
            &[(0, 0, mib4), (255, 1_069_547_520, mib4)],
        ),
        valid(
            default(vector(
                "div-default-003",
                "The last task with pieces of 4 MiB",
                chosen,
                "limit",
                2_097_152_499,
                mib4,
            )),
            501,
            &[(0, 0, mib4), (500, 2_097_152_000, 499)],
        ),
        valid(
            default(vector(
                "div-default-004",
                "The first with larger ones",
                chosen,
                "limit",
                2_097_152_500,
                mib4 + 1,
            )),
            500,
            &[(0, 0, mib4 + 1), (499, 2_092_958_195, mib4 + 1)],
        ),
        valid(
            default(vector(
                "div-default-005",
                "10 GiB: a 500th, rounded down",
                chosen,
                "",
                10_737_418_240,
                21_474_836,
            )),
            501,
            &[(0, 0, 21_474_836), (500, 10_737_418_000, 240)],
        ),
        valid(
            default(vector(
                "div-default-006",
                "100 GiB: lowered to 64 MiB",
                chosen,
                "",
                107_374_182_400,
                mib64,
            )),
            1600,
            &[(0, 0, mib64), (1599, 107_307_073_536, mib64)],
        ),
    ]
}
