//! How much a connection may send beyond what is acknowledged.

use quinn::PathStats;
use std::ops::RangeInclusive;

/// The send window for a connection on `path` that has had `window` so far; within `bounds`, all in bytes.
///
/// It is twice what the path holds: what was sent waits for its acknowledgement, and as much again is ready when that
/// arrives, so that the window never holds up a congestion window that doubles. What the path holds is the bytes in flight,
/// but without those that only wait in a queue: a quick receiver next door has a congestion window that grows as long as
/// its socket's buffer takes it in, and more in that buffer makes nothing faster. By Little's law, what travels is to what
/// is in flight as the shortest round trip is to the present one. Queues that double the round trip are let pass, for on a
/// path that others use as well they are not the connection's own.
///
/// The shortest round trip is that of the connection's life: where the way becomes longer for good, it has the least window
/// until it is opened anew.
pub(crate) fn send_window(window: u64, path: &PathStats, bounds: &RangeInclusive<u64>) -> u64 {
    // What is in flight is within both windows. quinn's own figure of it is not among the statistics.
    let in_flight = u128::from(path.cwnd.min(window));
    let rtt = path.rtt.as_nanos().max(1);
    let travels = (2 * path.min_rtt.as_nanos()).min(rtt);
    // At most twice a u64 by as many nanoseconds as a Duration has: less than 2^158, which saturates.
    let twice = in_flight.saturating_mul(2).saturating_mul(travels) / rtt;
    u64::try_from(twice).unwrap_or(u64::MAX).clamp(*bounds.start(), *bounds.end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const MIB: u64 = 1 << 20;
    const BOUNDS: RangeInclusive<u64> = 2 * MIB..=16 * MIB;

    fn path(cwnd: u64, min_rtt: Duration, rtt: Duration) -> PathStats {
        let mut path = PathStats::default();
        (path.cwnd, path.min_rtt, path.rtt) = (cwnd, min_rtt, rtt);
        path
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_long_path_gets_twice_its_congestion_window() {
        let begins = path(MIB + MIB / 2, ms(50), ms(55));
        assert_eq!(send_window(2 * MIB, &begins, &BOUNDS), 3 * MIB);
        // 1 Gb/s with a queue as long as the path.
        let full = path(12_500_000, ms(50), ms(100));
        assert_eq!(send_window(16 * MIB, &full, &BOUNDS), 16 * MIB);
    }

    #[test]
    fn what_waits_next_door_gets_nothing() {
        // 1 GB/s over loopback: 4 MiB in flight, all of it in the socket's buffer.
        let loopback = path(64 * MIB, Duration::from_micros(150), ms(4));
        assert_eq!(send_window(4 * MIB, &loopback, &BOUNDS), 2 * MIB);
        assert_eq!(send_window(2 * MIB, &loopback, &BOUNDS), 2 * MIB);
    }

    #[test]
    fn a_congestion_window_that_is_not_used_counts_for_nothing() {
        let unused = path(64 * MIB, ms(50), ms(50));
        assert_eq!(send_window(2 * MIB, &unused, &BOUNDS), 4 * MIB);
    }

    fn any_path() -> impl Strategy<Value = PathStats> {
        let duration = || prop_oneof![any::<Duration>(), (0u64..400_000).prop_map(Duration::from_micros)];
        let cwnd = prop_oneof![any::<u64>(), 0..64 * MIB];
        (cwnd, duration(), duration())
            .prop_map(|(cwnd, one, other)| path(cwnd, one.min(other), one.max(other)))
    }

    proptest! {
        #[test]
        fn it_is_within_its_bounds(
            path in any_path(),
            window in any::<u64>(),
            one in any::<u64>(),
            other in any::<u64>(),
        ) {
            let bounds = one.min(other)..=one.max(other);
            prop_assert!(bounds.contains(&send_window(window, &path, &bounds)));
        }

        #[test]
        fn it_at_most_doubles(path in any_path(), window in BOUNDS) {
            let next = send_window(window, &path, &BOUNDS);
            prop_assert!(next <= (2 * window.min(path.cwnd)).max(*BOUNDS.start()));
        }

        #[test]
        fn more_in_flight_and_shorter_queues_never_make_it_smaller(
            path in any_path(),
            window in BOUNDS,
            more in 0..64 * MIB,
            shorter in any::<Duration>(),
        ) {
            let now = send_window(window, &path, &BOUNDS);
            let mut better = path;
            better.cwnd = path.cwnd.saturating_add(more);
            better.rtt = path.rtt.saturating_sub(shorter).max(path.min_rtt);
            prop_assert!(send_window(window.saturating_add(more), &better, &BOUNDS) >= now);
        }
    }
}
