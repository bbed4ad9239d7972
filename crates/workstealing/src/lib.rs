//! A thread pool with results, fork-join over borrowed data, priorities and bounded queues.
