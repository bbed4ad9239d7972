//! Rate limiters (GCRA), keyed limiters and concurrency limits, with the wait stated.
