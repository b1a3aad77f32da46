//! Which of a seed's faults act: all of them, or, in a run that was made smaller, some.
//!
//! Every fault of a kind has a number, counted from 0 in the order in which chance or the scenario brings it about. What
//! is left out is still drawn and still counted, so that leaving one out does not give the others other numbers for as
//! long as the run stays the same.

use crate::faults::Fault;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::iter;
use std::ops::Range;
use std::str::FromStr;

/// Numbers of faults of one kind, in order: `3,17..40,200..`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Numbers(Vec<Range<u64>>);

impl Numbers {
    /// Every number.
    pub fn all() -> Self {
        Numbers(iter::once(0..u64::MAX).collect())
    }

    /// These, which have to be in order.
    pub fn these(numbers: &[u64]) -> Self {
        let mut spans: Vec<Range<u64>> = Vec::new();
        for &number in numbers {
            match spans.last_mut() {
                Some(span) if span.end == number => span.end = number + 1,
                _ => spans.push(number..number + 1),
            }
        }
        Numbers(spans)
    }

    fn contain(&self, number: u64) -> bool {
        self.0.iter().any(|span| span.contains(&number))
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Range { start, end }) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match *end {
                u64::MAX => write!(f, "{comma}{start}..")?,
                end if end == start + 1 => write!(f, "{comma}{start}")?,
                end => write!(f, "{comma}{start}..{end}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected numbers and spans in order, such as 3,17..40,200.., got {text:?}");
        let number = |text: &str| text.parse::<u64>().ok().filter(|n| *n < u64::MAX);
        let span = |part: &str| match part.split_once("..") {
            Some((start, "")) => Some(number(start)?..u64::MAX),
            Some((start, end)) => Some(number(start)?..number(end)?),
            None => number(part).map(|n| n..n + 1),
        };
        let spans: Vec<Range<u64>> = text.split(',').map(span).collect::<Option<_>>().ok_or_else(wrong)?;
        let mut end = 0;
        for span in &spans {
            if span.start < end || span.is_empty() {
                return Err(wrong());
            }
            end = span.end;
        }
        Ok(Numbers(spans))
    }
}

impl TryFrom<String> for Numbers {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Numbers> for String {
    fn from(numbers: Numbers) -> Self {
        numbers.to_string()
    }
}

/// The faults that act in a run: by kind, their numbers; a kind that is not there never acts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mask(Option<BTreeMap<Fault, Numbers>>);

impl Mask {
    /// Only these act.
    pub fn only(faults: BTreeMap<Fault, Numbers>) -> Self {
        Mask(Some(faults))
    }

    /// Whether all act.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the fault with this number of its kind acts.
    pub fn lets(&self, fault: Fault, number: u64) -> bool {
        let Some(only) = &self.0 else { return true };
        only.get(&fault).is_some_and(|numbers| numbers.contain(number))
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(only) = &self.0 else { return f.write_str("all") };
        if only.is_empty() {
            return f.write_str("none");
        }
        for (index, (fault, numbers)) in only.iter().enumerate() {
            write!(f, "{}{fault:?} {numbers}", if index == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        for text in ["0..", "3", "3,17..40,200..", "1..3"] {
            assert_eq!(text.parse::<Numbers>().unwrap().to_string(), text);
        }
        for text in ["", "x", "4,3", "3..3", "5..2", "1..,4", "1,,2"] {
            assert!(text.parse::<Numbers>().is_err(), "{text}");
        }
        assert_eq!(Numbers::these(&[1, 2, 3, 7, 9, 10]).to_string(), "1..4,7,9..11");
    }

    #[test]
    fn a_mask_lets_what_it_names() {
        assert!(Mask::default().lets(Fault::Cut, 7));
        let mask: Mask = serde_json::from_str(r#"{"loss": "3,5.."}"#).unwrap();
        let let_through: Vec<u64> = (0..8).filter(|number| mask.lets(Fault::Loss, *number)).collect();
        assert_eq!(let_through, [3, 5, 6, 7]);
        assert!(!mask.lets(Fault::Cut, 3));
    }
}
