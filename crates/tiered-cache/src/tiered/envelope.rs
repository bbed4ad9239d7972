//! What surrounds a value in the second tier.
//!
//! ```text
//! format 1 B | schema 4 B | stale 8 B | versions 2 B | { tag length 2 B | tag | version 8 B }* | check 8 B | value
//! ```
//! Numbers are little-endian. `stale` is the last part of the entry's life in the store, in
//! milliseconds, during which it may only stand in for a failed load. `check` is FNV-1a, of 64
//! bits, over all the rest (Fowler, Noll, Vo: "The FNV non-cryptographic hash algorithm", an
//! Internet draft): it finds what was cut or mixed up, and protects against nobody.

use std::time::Duration;

const FORMAT: u8 = 1;

/// The value's bytes and what is known of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Envelope<'a> {
    pub(crate) schema: u32,
    pub(crate) stale: Duration,
    /// Tags and their versions when the value was made.
    pub(crate) versions: Vec<(&'a str, u64)>,
    pub(crate) value: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// `None` if there are more or longer tags than it can hold.
    pub(crate) fn seal(&self) -> Option<Vec<u8>> {
        let mut out = vec![FORMAT];
        out.extend(self.schema.to_le_bytes());
        let stale = u64::try_from(self.stale.as_millis()).unwrap_or(u64::MAX);
        out.extend(stale.to_le_bytes());
        out.extend(u16::try_from(self.versions.len()).ok()?.to_le_bytes());
        for (tag, version) in &self.versions {
            out.extend(u16::try_from(tag.len()).ok()?.to_le_bytes());
            out.extend(tag.as_bytes());
            out.extend(version.to_le_bytes());
        }
        let check = check(&out, self.value);
        out.extend(check.to_le_bytes());
        out.extend(self.value);
        Some(out)
    }

    /// `None` if it is not one of ours, or damaged.
    pub(crate) fn open(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        if take::<1>(&mut rest)? != [FORMAT] {
            return None;
        }
        let schema = u32::from_le_bytes(take(&mut rest)?);
        let stale = Duration::from_millis(u64::from_le_bytes(take(&mut rest)?));
        let count = u16::from_le_bytes(take(&mut rest)?);
        let mut versions = Vec::new();
        for _ in 0..count {
            let len = u16::from_le_bytes(take(&mut rest)?);
            let (tag, after) = rest.split_at_checked(len.into())?;
            rest = after;
            let version = u64::from_le_bytes(take(&mut rest)?);
            versions.push((std::str::from_utf8(tag).ok()?, version));
        }
        let head = &bytes[..bytes.len() - rest.len()];
        let expected = u64::from_le_bytes(take(&mut rest)?);
        (check(head, rest) == expected).then_some(Self {
            schema,
            stale,
            versions,
            value: rest,
        })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

fn check(head: &[u8], value: &[u8]) -> u64 {
    let bytes = head.iter().chain(value);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Envelope<'static> {
        Envelope {
            schema: 7,
            stale: Duration::from_millis(1_500),
            versions: vec![("all", 3), ("tag:users", u64::MAX)],
            value: b"value",
        }
    }

    #[test]
    fn what_is_sealed_can_be_opened() {
        let bytes = sample().seal().unwrap();
        assert_eq!(Envelope::open(&bytes), Some(sample()));
        let empty = Envelope {
            versions: Vec::new(),
            value: b"",
            ..sample()
        };
        assert_eq!(Envelope::open(&empty.seal().unwrap()), Some(empty));
    }

    #[test]
    fn the_first_format_stays_readable() {
        let golden = b"\x01\x07\0\0\0\xdc\x05\0\0\0\0\0\0\x01\0\x03\0all\x03\0\0\0\0\0\0\0";
        let mut bytes = golden.to_vec();
        bytes.extend(check(golden, b"v").to_le_bytes());
        bytes.extend(b"v");
        let envelope = Envelope::open(&bytes).unwrap();
        assert_eq!((envelope.schema, envelope.value), (7, &b"v"[..]));
        assert_eq!(envelope.versions, [("all", 3)]);
    }

    #[test]
    fn whatever_is_cut_or_changed_is_refused() {
        let bytes = sample().seal().unwrap();
        for len in 0..bytes.len() {
            assert_eq!(Envelope::open(&bytes[..len]), None, "cut to {len}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert_eq!(Envelope::open(&changed), None, "bit {bit} of byte {at}");
            }
        }
    }
}
