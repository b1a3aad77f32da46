//! Digests of content, and their text: algorithm, colon, value.
//!
//! A crc32 is the odd one. It is sent in decimal, since deployed children compare the text of their own decimal
//! rendering, but the published examples are hexadecimal. So a received one may have two readings ([`DigestClaim`]).

use sha2::Digest as _;
use std::fmt;
use std::str::FromStr;

/// Which function computes a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// CRC-32/ISO-HDLC: finds accidents, not attackers.
    Crc32,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 3] = [Self::Crc32, Self::Sha256, Self::Sha512];

    /// Its name on the wire: `crc32`, `sha256`, `sha512`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "crc32",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;
    fn from_str(name: &str) -> Result<Self, DigestError> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name).ok_or(DigestError::UnknownAlgorithm)
    }
}

/// A digest that was computed, or is trusted. `Display` renders it as it is sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Digest {
    /// CRC-32/ISO-HDLC.
    Crc32(u32),
    /// SHA-256.
    Sha256([u8; 32]),
    /// SHA-512.
    Sha512([u8; 64]),
}

impl Digest {
    /// The digest of `content`.
    #[must_use]
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(content);
        hasher.finish()
    }

    /// Which function computed it.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Crc32(_) => Algorithm::Crc32,
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Its text as it is sent, without an allocation.
    #[must_use]
    pub fn to_text(&self) -> DigestText {
        //= VTX-DIG-001
        let mut text = DigestText::default();
        text.push(self.algorithm().name().as_bytes());
        text.push(b":");
        match self {
            //= VTX-DIG-004
            Self::Crc32(sum) => text.push_decimal(*sum),
            //= VTX-DIG-005
            Self::Sha256(hash) => text.push_hex(hash),
            Self::Sha512(hash) => text.push_hex(hash),
        }
        text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.to_text().as_str())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_text().as_str())
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    /// Reads a digest from a source of one's own (a manifest, a command line), where a crc32 with two readings is
    /// decimal.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        Ok(match DigestClaim::parse(text)? {
            DigestClaim::Crc32 { decimal: Some(sum), .. } => Self::Crc32(sum),
            DigestClaim::Crc32 { hexadecimal: Some(sum), .. } => Self::Crc32(sum),
            DigestClaim::Crc32 { .. } => return Err(DigestError::Malformed),
            DigestClaim::Sha256(hash) => Self::Sha256(hash),
            DigestClaim::Sha512(hash) => Self::Sha512(hash),
        })
    }
}

/// The text of a digest, held in place: at most 135 bytes.
#[derive(Clone, Copy)]
pub struct DigestText {
    bytes: [u8; Self::MAX],
    length: usize,
}

impl DigestText {
    const MAX: usize = "sha512:".len() + 128;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.length).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    fn push(&mut self, bytes: &[u8]) {
        if let Some(free) = self.bytes.get_mut(self.length..self.length + bytes.len()) {
            free.copy_from_slice(bytes);
            self.length += bytes.len();
        }
    }

    fn push_decimal(&mut self, mut value: u32) {
        let mut digits = [b'0'; 10];
        let mut first = digits.len();
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
            first -= 1;
            if value == 0 {
                break;
            }
        }
        self.push(digits.get(first..).unwrap_or_default());
    }

    fn push_hex(&mut self, hash: &[u8]) {
        let end = self.length + 2 * hash.len();
        if let Some(free) = self.bytes.get_mut(self.length..end) {
            hex(hash, free);
            self.length = end;
        }
    }
}

impl Default for DigestText {
    fn default() -> Self {
        Self { bytes: [0; Self::MAX], length: 0 }
    }
}

impl fmt::Debug for DigestText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why the text of a digest can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is none.
    #[error("no digest")]
    Empty,
    /// No colon, or a value that the algorithm can't have.
    #[error(
        "expected crc32: and a number, sha256: and 64 hexadecimal digits, or sha512: and 128 hexadecimal digits"
    )]
    Malformed,
    /// An algorithm that is none of crc32, sha256, sha512.
    #[error("unknown digest algorithm, expected crc32, sha256 or sha512")]
    UnknownAlgorithm,
}

/// A digest as a peer claims it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestClaim {
    /// At least one of the readings is there.
    Crc32 {
        /// The sum, where the value reads as decimal.
        decimal: Option<u32>,
        /// The sum, where the value reads as hexadecimal.
        hexadecimal: Option<u32>,
    },
    /// SHA-256.
    Sha256([u8; 32]),
    /// SHA-512.
    Sha512([u8; 64]),
}

impl DigestClaim {
    /// Reads the digest field of metadata.
    ///
    /// # Errors
    /// [`DigestError`]: which rule decides depends on it, since a lenient client takes some of them.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        if text.is_empty() {
            return Err(DigestError::Empty);
        }
        //= VTX-DIG-010
        let (name, value) = text.split_once(':').ok_or(DigestError::Malformed)?;
        match Algorithm::from_str(name)? {
            Algorithm::Crc32 => {
                let (decimal, hexadecimal) = (read_decimal(value), read_hexadecimal(value));
                if decimal.is_none() && hexadecimal.is_none() {
                    return Err(DigestError::Malformed);
                }
                Ok(Self::Crc32 { decimal, hexadecimal })
            }
            //= VTX-DIG-009
            Algorithm::Sha256 => unhex(value).map(Self::Sha256).ok_or(DigestError::Malformed),
            Algorithm::Sha512 => unhex(value).map(Self::Sha512).ok_or(DigestError::Malformed),
        }
    }

    /// Which function has to be computed over the content.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Crc32 { .. } => Algorithm::Crc32,
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Whether content with this digest is what was claimed: any reading may match.
    #[must_use]
    pub fn matches(&self, computed: &Digest) -> bool {
        match (self, computed) {
            //= VTX-DIG-008
            (Self::Crc32 { decimal, hexadecimal }, Digest::Crc32(sum)) => {
                *decimal == Some(*sum) || *hexadecimal == Some(*sum)
            }
            (Self::Sha256(claimed), Digest::Sha256(hash)) => claimed == hash,
            (Self::Sha512(claimed), Digest::Sha512(hash)) => claimed == hash,
            _ => false,
        }
    }
}

impl From<Digest> for DigestClaim {
    fn from(digest: Digest) -> Self {
        match digest {
            Digest::Crc32(sum) => Self::Crc32 { decimal: Some(sum), hexadecimal: None },
            Digest::Sha256(hash) => Self::Sha256(hash),
            Digest::Sha512(hash) => Self::Sha512(hash),
        }
    }
}

/// Computes a digest while content passes by.
#[derive(Debug, Clone)]
pub struct Hasher(State);

#[derive(Debug, Clone)]
enum State {
    Crc32(crc32fast::Hasher),
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            //= VTX-DIG-003
            Algorithm::Crc32 => State::Crc32(crc32fast::Hasher::new()),
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// Takes the next bytes of the content.
    pub fn update(&mut self, content: &[u8]) {
        match &mut self.0 {
            State::Crc32(state) => state.update(content),
            State::Sha256(state) => state.update(content),
            State::Sha512(state) => state.update(content),
        }
    }

    /// The digest of everything that was taken.
    #[must_use]
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Crc32(state) => Digest::Crc32(state.finalize()),
            State::Sha256(state) => Digest::Sha256(state.finalize().into()),
            State::Sha512(state) => Digest::Sha512(state.finalize().into()),
        }
    }
}

fn read_decimal(value: &str) -> Option<u32> {
    //= VTX-DIG-006
    // `u32::from_str` would take a plus sign.
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    value.parse().ok()
}

fn read_hexadecimal(value: &str) -> Option<u32> {
    //= VTX-DIG-007
    unhex(value).map(u32::from_be_bytes)
}

/// Exactly 2 N hexadecimal digits in either case.
fn unhex<const N: usize>(value: &str) -> Option<[u8; N]> {
    let digits = value.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks().0) {
        let [high, low] = *pair;
        *byte = unhex_digit(high)? << 4 | unhex_digit(low)?;
    }
    Some(bytes)
}

fn unhex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Writes the lower-case hexadecimal digits of `bytes`; `digits` has two for each.
pub(super) fn hex(bytes: &[u8], digits: &mut [u8]) {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + value - 10 };
    for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
}
