//! Whose limit a request counts for.

use std::fmt;

use http::{Extensions, HeaderMap, HeaderName, Method, Request, Uri};

/// A request without its body.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RequestView<'r> {
    /// Its method.
    pub method: &'r Method,
    /// Its target.
    pub uri: &'r Uri,
    /// Its header fields.
    pub headers: &'r HeaderMap,
    /// What others have attached to it.
    pub extensions: &'r Extensions,
}

impl<'r> RequestView<'r> {
    /// The view of that request.
    #[must_use]
    pub fn of<B>(request: &'r Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

/// Finds the key of a request.
pub trait KeyExtractor: Clone + Send + Sync + 'static {
    /// What requests are told apart by.
    type Key: Send + Sync + 'static;

    /// The key; `None` if it should be there and is not, which is a fault of the set-up: the
    /// request is answered with 500.
    fn extract(&self, request: RequestView<'_>) -> Option<Self::Key>;
}

/// All requests count for the same limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Global;

impl KeyExtractor for Global {
    type Key = ();

    fn extract(&self, _: RequestView<'_>) -> Option<()> {
        Some(())
    }
}

/// The value of a header field, such as an API key. Those without one share a key, the empty one.
///
/// The client chooses it, so it should be checked before, or be limited by its address too.
#[derive(Clone, Debug)]
pub struct HeaderKey(HeaderName);

impl HeaderKey {
    /// That field; the first of its values counts.
    #[must_use]
    pub const fn new(name: HeaderName) -> Self {
        Self(name)
    }
}

impl KeyExtractor for HeaderKey {
    type Key = Vec<u8>;

    fn extract(&self, request: RequestView<'_>) -> Option<Vec<u8>> {
        let value = request.headers.get(&self.0);
        Some(value.map_or_else(Vec::new, |value| value.as_bytes().to_vec()))
    }
}

/// What a closure finds, from [`key_fn`].
#[derive(Clone, Copy)]
pub struct KeyFn<F>(F);

/// The keys that a closure finds.
pub const fn key_fn<F, K>(find: F) -> KeyFn<F>
where
    F: Fn(RequestView<'_>) -> Option<K> + Clone + Send + Sync + 'static,
    K: Send + Sync + 'static,
{
    KeyFn(find)
}

impl<F, K> KeyExtractor for KeyFn<F>
where
    F: Fn(RequestView<'_>) -> Option<K> + Clone + Send + Sync + 'static,
    K: Send + Sync + 'static,
{
    type Key = K;

    fn extract(&self, request: RequestView<'_>) -> Option<K> {
        self.0(request)
    }
}

impl<F> fmt::Debug for KeyFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyFn")
    }
}
