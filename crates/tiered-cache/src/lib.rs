//! A cache in tiers: request scope, memory, a remote store, and a loader that runs once.
