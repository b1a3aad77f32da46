//! Values as people write them: byte sizes and durations.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes: `4194304`, `4MiB`, `1.5 GB`.
///
/// `K`, `M`, `G`, `T`, with or without `B`, count in thousands; `Ki`, `Mi`, `Gi`, `Ti` in 1024s. Case does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// A part of a whole: 0 to 100 hundredths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u8);

impl Percent {
    /// So many hundredths; what is above 100 is all.
    #[must_use]
    pub const fn new(hundredths: u8) -> Self {
        Self(if hundredths > 100 { 100 } else { hundredths })
    }

    /// This part of `whole`, rounded down.
    #[must_use]
    pub const fn of(self, whole: u64) -> u64 {
        let (hundreds, rest) = (whole / 100, whole % 100);
        hundreds * self.0 as u64 + rest * self.0 as u64 / 100
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0)
    }
}

/// The text is not a number of bytes, or one beyond 2^64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a size such as 4194304, 4MiB or 1GB")]
pub struct NotASize;

const UNITS: [(&str, u64); 9] = [
    ("", 1),
    ("k", 1000),
    ("m", 1_000_000),
    ("g", 1_000_000_000),
    ("t", 1_000_000_000_000),
    ("ki", 1 << 10),
    ("mi", 1 << 20),
    ("gi", 1 << 30),
    ("ti", 1 << 40),
];

impl ByteSize {
    /// So many binary megabytes.
    #[must_use]
    pub const fn mib(count: u32) -> Self {
        Self((count as u64) << 20)
    }

    /// So many decimal gigabytes.
    #[must_use]
    pub const fn gb(count: u32) -> Self {
        Self(count as u64 * 1_000_000_000)
    }
}

impl FromStr for ByteSize {
    type Err = NotASize;

    fn from_str(text: &str) -> Result<Self, NotASize> {
        let text = text.trim();
        let number_ends = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(number_ends);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let unit = unit.trim_start().to_ascii_lowercase();
        let unit = unit.strip_suffix('b').unwrap_or(&unit);
        let factor = UNITS.iter().find(|(name, _)| *name == unit).ok_or(NotASize)?.1;

        let whole: u64 = whole.parse().map_err(|_| NotASize)?;
        // Nine digits after the point are finer than a byte for every unit below a terabyte.
        let digits = fraction.len().min(9);
        let part: u64 = match fraction.get(..digits) {
            Some("") | None => 0,
            Some(digits) => digits.parse().map_err(|_| NotASize)?,
        };
        let scale = 10u128.pow(u32::try_from(digits).map_err(|_| NotASize)?);
        let total = u128::from(whole) * u128::from(factor) + u128::from(part) * u128::from(factor) / scale;
        u64::try_from(total).map(Self).map_err(|_| NotASize)
    }
}

/// Exactly where the unit divides it, otherwise rounded to one digit: `4 MiB`, `1.4 GiB`.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(u64, &str); 4] =
            [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match NAMES.iter().find(|(unit, _)| self.0 >= *unit) {
            None => write!(f, "{} B", self.0),
            Some((unit, name)) if self.0.is_multiple_of(*unit) => write!(f, "{} {name}", self.0 / unit),
            Some((unit, name)) => write!(f, "{:.1} {name}", self.0 as f64 / *unit as f64),
        }
    }
}

/// A duration as `300s`, `5m`, `1h 30m`, `250ms`.
///
/// # Errors
/// The text has no number or no unit, or is beyond what a duration holds.
pub fn parse_duration(text: &str) -> Result<Duration, NotADuration> {
    humantime::parse_duration(text.trim()).map_err(|_| NotADuration)
}

/// The text is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a duration such as 300s, 5m or 1h30m")]
pub struct NotADuration;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4194304", 4 << 20),
            ("4MiB", 4 << 20),
            ("4 mib", 4 << 20),
            ("4Mi", 4 << 20),
            ("50GB", 50_000_000_000),
            ("10G", 10_000_000_000),
            ("1.5KiB", 1536),
            ("1.0000000001k", 1000),
            ("18446744073709551615", u64::MAX),
            ("16777215.9TiB", (16_777_215 << 40) + (9 << 40) / 10),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in
            ["", "B", "-1", "1.2.3", "4 MiB s", "4XB", "18446744073709551616", "16777216TiB", "1e3", "٣"]
        {
            assert_eq!(text.parse::<ByteSize>(), Err(NotASize), "{text}");
        }
    }

    #[test]
    fn durations_as_people_write_them() {
        for (text, seconds) in
            [("300s", 300), ("5m", 300), ("1h", 3600), ("1h 30m", 5400), (" 2days ", 172_800)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "300", "s", "-5s", "five minutes"] {
            assert_eq!(parse_duration(text), Err(NotADuration), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_size_or_not(text in any::<String>()) {
            let _ = text.parse::<ByteSize>();
            let _ = parse_duration(&text);
        }

        #[test]
        fn a_number_is_itself(bytes: u64) {
            prop_assert_eq!(bytes.to_string().parse(), Ok(ByteSize(bytes)));
        }

        #[test]
        fn what_is_shown_reads_back_within_its_digit(bytes in 0u64..1 << 50) {
            let shown: ByteSize = ByteSize(bytes).to_string().parse().unwrap();
            prop_assert!(shown.0.abs_diff(bytes) <= bytes / 20, "{} for {}", shown.0, bytes);
        }
    }
}
