//! What went wrong lately.

/// How long after the last time a problem is still told, in milliseconds.
pub(super) const TOLD_MS: u64 = 10 * 60 * 1000;

/// How often something happened, from the first time on until it has not happened for [`TOLD_MS`]. All times are
/// milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Recent {
    count: u64,
    first_ms: u64,
    last_ms: u64,
}

impl Recent {
    /// It happened so often: 0 changes nothing.
    pub(super) fn add(&mut self, count: u64, now_ms: u64) {
        if count == 0 {
            return;
        }
        if self.is_over(now_ms) {
            *self = Self { first_ms: now_ms, ..Self::default() };
        }
        self.count += count;
        self.last_ms = now_ms;
    }

    const fn is_over(&self, now_ms: u64) -> bool {
        self.count == 0 || now_ms.saturating_sub(self.last_ms) >= TOLD_MS
    }

    /// How often, and how often and when, for people: "3 (in 2 min, the last 10 s ago)". None: it is over, or never was.
    pub(super) fn told(&self, now_ms: u64) -> Option<String> {
        let Self { count, first_ms, last_ms } = *self;
        let ago = duration(now_ms.saturating_sub(last_ms));
        (!self.is_over(now_ms)).then(|| match last_ms.saturating_sub(first_ms) {
            0..1000 => format!("{count} ({ago} ago)"),
            within_ms => format!("{count} (in {}, the last {ago} ago)", duration(within_ms)),
        })
    }
}

fn duration(ms: u64) -> String {
    match ms / 1000 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_is_told_no_more_and_counted_anew() {
        let mut recent = Recent::default();
        assert_eq!(recent.told(5), None);
        recent.add(0, 1000);
        assert_eq!(recent.told(1000), None);
        recent.add(2, 1000);
        assert_eq!(recent.told(31_000).unwrap(), "2 (30 s ago)");
        recent.add(1, 61_000);
        assert_eq!(recent.told(61_000).unwrap(), "3 (in 60 s, the last 0 s ago)");
        assert_eq!(recent.told(61_000 + TOLD_MS - 1).unwrap(), "3 (in 60 s, the last 9 min ago)");
        assert_eq!(recent.told(61_000 + TOLD_MS), None);
        recent.add(1, 61_000 + TOLD_MS);
        assert_eq!(recent.told(61_000 + TOLD_MS).unwrap(), "1 (0 s ago)");
    }
}
