//! Hexadecimal of any length in a buffer of the size of one packet.

use vortex_p2p::wire::limits;

/// What hexadecimal text holds, of which no more is kept than decides what it is: one byte more than a packet can have.
#[derive(Debug, Default)]
pub(super) struct HexPacket {
    bytes: Vec<u8>,
    /// Bytes that the text holds, kept or not.
    length: u64,
    high: Option<u8>,
    /// The first character that is no hexadecimal digit, and how many digits came before it.
    bad: Option<(u64, u8)>,
}

/// The text is no hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotHex {
    #[error("not-hex: 0x{byte:02x} after {digits} digits, expected hexadecimal digits")]
    Byte { digits: u64, byte: u8 },
    #[error("not-hex: {digits} digits, expected two for each byte")]
    Odd { digits: u64 },
}

impl HexPacket {
    const KEPT: usize = limits::MAX_PACKET_LEN + 1;

    /// Takes the next characters; white space does not count.
    pub(super) fn push(&mut self, text: &[u8]) {
        for character in text.iter().filter(|character| !character.is_ascii_whitespace()) {
            let Some(digit) = char::from(*character).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
            else {
                self.bad.get_or_insert((self.digits(), *character));
                continue;
            };
            match self.high.take() {
                None => self.high = Some(digit),
                Some(high) => {
                    self.length += 1;
                    if self.bytes.len() < Self::KEPT {
                        self.bytes.push(high << 4 | digit);
                    }
                }
            }
        }
    }

    /// The bytes that were kept, and how many are missing at their end.
    pub(super) fn bytes(&self) -> Result<(&[u8], u64), NotHex> {
        match (self.bad, self.high) {
            (Some((digits, byte)), _) => Err(NotHex::Byte { digits, byte }),
            (None, Some(_)) => Err(NotHex::Odd { digits: self.digits() }),
            (None, None) => Ok((&self.bytes, self.length - self.bytes.len() as u64)),
        }
    }

    fn digits(&self) -> u64 {
        2 * self.length + u64::from(self.high.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_the_rest_counted() {
        let mut packet = HexPacket::default();
        for _ in 0..1000 {
            packet.push(&[b'a'; 1000]);
        }
        let (kept, missing) = packet.bytes().unwrap();
        assert_eq!((kept.len(), missing), (HexPacket::KEPT, 500_000 - HexPacket::KEPT as u64));
        assert!(packet.bytes.capacity() <= 2 * HexPacket::KEPT);
    }

    #[test]
    fn the_first_bad_character_is_reported() {
        let mut packet = HexPacket::default();
        packet.push(b"00 fF\tz");
        packet.push(b"0g");
        assert_eq!(packet.bytes(), Err(NotHex::Byte { digits: 4, byte: b'z' }));
        let mut packet = HexPacket::default();
        packet.push(b"123");
        assert_eq!(packet.bytes(), Err(NotHex::Odd { digits: 3 }));
    }
}
