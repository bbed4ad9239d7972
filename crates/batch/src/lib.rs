//! Request batching: many callers, one call of the handler, to each caller its own result.
