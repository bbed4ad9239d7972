//! Keys and values as bytes, for the second tier.

use std::error::Error;
use std::sync::Arc;

/// What a codec says when it cannot.
pub type CodecError = Box<dyn Error + Send + Sync>;

/// Turns values into bytes and back.
///
/// What it decodes can be anything that was ever stored under the same
/// [`schema`](Self::schema), by this program or another version of it: an error is a miss.
pub trait Codec<V>: Send + Sync + 'static {
    /// A number for the form of the bytes: what was stored under another one is not decoded. Take
    /// a new one whenever the form changes.
    fn schema(&self) -> u32;

    /// Appends the bytes of the value.
    ///
    /// # Errors
    /// If it cannot be expressed; then it is kept out of the second tier.
    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// The value of the bytes.
    ///
    /// # Errors
    /// If there is none; that counts as a miss.
    fn decode(&self, bytes: &[u8]) -> Result<V, CodecError>;
}

/// A codec of two closures.
///
/// ```
/// use overdrive_tiered_cache::{Codec, CodecError, codec_of};
///
/// let codec = codec_of(
///     1,
///     |name: &String, out: &mut Vec<u8>| {
///         out.extend_from_slice(name.as_bytes());
///         Ok(())
///     },
///     |bytes: &[u8]| Ok(std::str::from_utf8(bytes)?.to_owned()),
/// );
/// assert_eq!(codec.decode(b"ada").unwrap(), "ada");
/// ```
pub fn codec_of<V, E, D>(schema: u32, encode: E, decode: D) -> impl Codec<V>
where
    V: 'static,
    E: Fn(&V, &mut Vec<u8>) -> Result<(), CodecError> + Send + Sync + 'static,
    D: Fn(&[u8]) -> Result<V, CodecError> + Send + Sync + 'static,
{
    Closures {
        schema,
        encode,
        decode,
    }
}

struct Closures<E, D> {
    schema: u32,
    encode: E,
    decode: D,
}

impl<V, E, D> Codec<V> for Closures<E, D>
where
    E: Fn(&V, &mut Vec<u8>) -> Result<(), CodecError> + Send + Sync + 'static,
    D: Fn(&[u8]) -> Result<V, CodecError> + Send + Sync + 'static,
{
    fn schema(&self) -> u32 {
        self.schema
    }

    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), CodecError> {
        (self.encode)(value, out)
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, CodecError> {
        (self.decode)(bytes)
    }
}

/// Values as JSON, for what serde knows.
///
/// ```
/// use overdrive_tiered_cache::{Codec, JsonCodec};
///
/// let mut bytes = Vec::new();
/// JsonCodec::new(1).encode(&vec![1, 2], &mut bytes).unwrap();
/// assert_eq!(bytes, b"[1,2]");
/// ```
#[cfg(feature = "serde")]
#[derive(Clone, Copy, Debug)]
pub struct JsonCodec {
    schema: u32,
}

#[cfg(feature = "serde")]
impl JsonCodec {
    /// A codec with that [`schema`](Codec::schema).
    #[must_use]
    pub const fn new(schema: u32) -> Self {
        Self { schema }
    }
}

#[cfg(feature = "serde")]
impl<V: serde::Serialize + serde::de::DeserializeOwned> Codec<V> for JsonCodec {
    fn schema(&self) -> u32 {
        self.schema
    }

    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(serde_json::to_writer(out, value)?)
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, CodecError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// A key that the second tier can be asked for.
///
/// Different keys of one type must give different bytes. Tuples put the length before each part
/// but the last.
///
/// ```
/// use overdrive_tiered_cache::CacheKey;
///
/// assert_eq!("ada".to_owned().to_bytes(), b"ada");
/// assert_ne!(("a", "bc").to_bytes(), ("ab", "c").to_bytes());
/// ```
pub trait CacheKey {
    /// Appends the bytes of the key.
    fn write(&self, out: &mut Vec<u8>);

    /// The bytes of the key.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        bytes
    }
}

impl<T: CacheKey + ?Sized> CacheKey for &T {
    fn write(&self, out: &mut Vec<u8>) {
        T::write(self, out);
    }
}

impl<T: CacheKey + ?Sized> CacheKey for Arc<T> {
    fn write(&self, out: &mut Vec<u8>) {
        T::write(self, out);
    }
}

impl<T: CacheKey + ?Sized> CacheKey for Box<T> {
    fn write(&self, out: &mut Vec<u8>) {
        T::write(self, out);
    }
}

impl CacheKey for str {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

impl CacheKey for String {
    fn write(&self, out: &mut Vec<u8>) {
        self.as_str().write(out);
    }
}

impl CacheKey for [u8] {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

impl CacheKey for Vec<u8> {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

/// In decimal, so that they can be read in the store.
macro_rules! integers {
    ($($type:ty)*) => {$(
        impl CacheKey for $type {
            fn write(&self, out: &mut Vec<u8>) {
                self.to_string().write(out);
            }
        }
    )*};
}

integers!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);

fn write_part(part: &impl CacheKey, out: &mut Vec<u8>) {
    let bytes = part.to_bytes();
    bytes.len().write(out);
    out.push(b':');
    out.extend_from_slice(&bytes);
}

impl<A: CacheKey, B: CacheKey> CacheKey for (A, B) {
    fn write(&self, out: &mut Vec<u8>) {
        write_part(&self.0, out);
        self.1.write(out);
    }
}

impl<A: CacheKey, B: CacheKey, C: CacheKey> CacheKey for (A, B, C) {
    fn write(&self, out: &mut Vec<u8>) {
        write_part(&self.0, out);
        write_part(&self.1, out);
        self.2.write(out);
    }
}
