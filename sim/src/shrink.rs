//! Shrinking: of all the faults of a run that failed, the few that are enough to make it fail.
//!
//! Faults are left out (see [`mask`](crate::mask)) for as long as the same invariant is violated: first whole kinds, then
//! halves, quarters and so on of each kind's numbers, down to single ones. What remains is minimal in that no single
//! fault of it can go, unless the number of runs was the limit.

use crate::faults::Fault;
use crate::mask::{Mask, Numbers};
use crate::regression::same_invariant;
use crate::world::Finished;
use std::collections::BTreeMap;

/// What was found.
#[derive(Debug, Clone)]
pub struct Shrunk {
    /// The faults that are left.
    pub mask: Mask,
    /// What a run with these alone violates.
    pub violation: String,
    /// How many faults the whole run had drawn.
    pub before: u64,
    /// How many are left; nothing where a kind could not be counted out, because it matters beyond the numbers that the
    /// whole run had.
    pub after: Option<u64>,
    /// Runs that it took.
    pub runs: u64,
}

/// What of a kind is kept.
#[derive(Debug, Clone)]
enum Kept {
    All,
    These(Vec<u64>),
}

struct Search<R> {
    run: R,
    limit: u64,
    runs: u64,
    kept: BTreeMap<Fault, Kept>,
    violation: String,
}

/// Shrinks what `run` violates without a mask, in at most `limit` runs; nothing where it violates nothing.
pub fn shrink(run: impl FnMut(&Mask) -> Finished, limit: u64) -> Option<Shrunk> {
    let mut search = Search { run, limit, runs: 1, kept: BTreeMap::new(), violation: String::new() };
    let whole = (search.run)(&Mask::default());
    search.violation = whole.outcome.err()?.to_string();
    search.kept = whole.drawn.keys().map(|fault| (*fault, Kept::All)).collect();
    search.kinds();
    for (fault, count) in &whole.drawn {
        if search.kept.contains_key(fault) {
            search.numbers(*fault, *count);
        }
    }
    let after = search.kept.values().map(|kept| match kept {
        Kept::All => None,
        Kept::These(numbers) => Some(numbers.len() as u64),
    });
    Some(Shrunk {
        mask: mask(&search.kept),
        before: whole.drawn.values().sum(),
        after: after.sum(),
        violation: search.violation,
        runs: search.runs,
    })
}

fn mask(kept: &BTreeMap<Fault, Kept>) -> Mask {
    let numbers = |kept: &Kept| match kept {
        Kept::All => Numbers::all(),
        Kept::These(numbers) => Numbers::these(numbers),
    };
    Mask::only(kept.iter().map(|(fault, kept)| (*fault, numbers(kept))).collect())
}

impl<R: FnMut(&Mask) -> Finished> Search<R> {
    /// Keeps `less` where that is enough.
    fn is_enough(&mut self, less: BTreeMap<Fault, Kept>) -> bool {
        if self.runs >= self.limit {
            return false;
        }
        self.runs += 1;
        match (self.run)(&mask(&less)).outcome {
            Err(violation) if same_invariant(&violation.to_string(), &self.violation) => {
                (self.kept, self.violation) = (less, violation.to_string());
                true
            }
            _ => false,
        }
    }

    /// Leaves out whole kinds: all of them, where none matters.
    fn kinds(&mut self) {
        if self.is_enough(BTreeMap::new()) {
            return;
        }
        for fault in Fault::ALL {
            let mut less = self.kept.clone();
            if less.remove(&fault).is_some() {
                self.is_enough(less);
            }
        }
    }

    /// Leaves out numbers of one kind, of which the whole run had `count`.
    fn numbers(&mut self, fault: Fault, count: u64) {
        let with = |kept: &BTreeMap<Fault, Kept>, numbers: Vec<u64>| {
            let mut less = kept.clone();
            less.insert(fault, Kept::These(numbers));
            less
        };
        if !self.is_enough(with(&self.kept, (0..count).collect())) {
            return;
        }
        let mut size = count.div_ceil(2).max(1) as usize;
        loop {
            let mut fewer = false;
            let mut start = 0;
            while let Some(Kept::These(numbers)) = self.kept.get(&fault).filter(|kept| kept.len() > start) {
                let mut less = numbers.clone();
                less.drain(start..(start + size).min(numbers.len()));
                let less = with(&self.kept, less);
                if self.is_enough(less) {
                    fewer = true;
                } else {
                    start += size;
                }
            }
            if self.runs >= self.limit || (size == 1 && !fewer) {
                return;
            }
            size = size.div_ceil(2).max(1);
        }
    }
}

impl Kept {
    fn len(&self) -> usize {
        match self {
            Kept::All => 0,
            Kept::These(numbers) => numbers.len(),
        }
    }
}
