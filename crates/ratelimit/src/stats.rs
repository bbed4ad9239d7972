//! What limiters count.

/// The figures of a [`RateLimiter`](crate::RateLimiter).
///
/// At any moment `allowed + denied + refused_waits + abandoned_waits + waiting` is the number of
/// calls that asked for tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimiterStats {
    /// Calls that got their tokens, at once or after a wait.
    pub allowed: u64,
    /// The tokens that they got.
    pub tokens: u64,
    /// Checks that got none.
    pub denied: u64,
    /// The tokens that were given back. They are in `tokens` too.
    pub refunded: u64,
    /// Of those allowed, the calls that had to wait.
    pub waited: u64,
    /// Waits that failed at their start: past the deadline, beyond the burst, or one too many.
    pub refused_waits: u64,
    /// Waits that were given up.
    pub abandoned_waits: u64,
    /// How many wait now.
    pub waiting: usize,
}

/// The figures of a [`KeyedLimiter`](crate::KeyedLimiter).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyedStats {
    /// Checks that got their tokens.
    pub allowed: u64,
    /// Checks that got none.
    pub denied: u64,
    /// Keys held now.
    pub keys: usize,
    /// Keys dropped because they owed nothing: a fresh start means the same to them.
    pub reclaimed: u64,
    /// Checks of keys for which there was no room.
    pub overflowed: u64,
    /// Keys that owed something and were dropped all the same: see
    /// [`OnFull::Evict`](crate::OnFull::Evict).
    pub evicted: u64,
}

/// The figures of a [`ConcurrencyLimit`](crate::ConcurrencyLimit).
///
/// At any moment `acquired - released` is `in_flight`, and once nothing is under way
/// `acquired + refused + shed + abandoned_waits + waiting` is the number of calls that asked for a
/// permit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConcurrencyStats {
    /// Permits given out so far.
    pub acquired: u64,
    /// Of those, the ones that had to be waited for.
    pub waited: u64,
    /// Permits that came back.
    pub released: u64,
    /// Calls that got none: all were out, the queue was full, the limit closed, or the time up.
    pub refused: u64,
    /// Calls that were turned away because they had waited too long.
    pub shed: u64,
    /// Waits that were given up.
    pub abandoned_waits: u64,
    /// Permits out now.
    pub in_flight: usize,
    /// How many wait now.
    pub waiting: usize,
}
