//! Reading forwarding header fields from the right: the last entry is of the nearest proxy.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The addresses of `X-Forwarded-For`, the last first; `None` for what is no address.
pub(crate) fn x_forwarded_for(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let mut hops = Vec::new();
    for line in headers.get_all(X_FORWARDED_FOR) {
        // Bytes, as one that is no ASCII spoils its own entry only.
        let entries = line.as_bytes().split(|&byte| byte == b',');
        hops.extend(entries.map(|entry| address(entry.trim_ascii())));
    }
    hops.reverse();
    hops
}

/// The `for` of the elements of `Forwarded` (RFC 7239), the last first. Each line is read from its
/// end: so a quote that a client left open cannot take in what a proxy appended. What breaks the
/// grammar is `None`, and hides all before it in its line.
pub(crate) fn forwarded(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let mut hops = Vec::new();
    let lines: Vec<_> = headers.get_all(FORWARDED).iter().collect();
    for line in lines.into_iter().rev() {
        let mut rest = Some(line.as_bytes());
        while let Some(text) = rest {
            let (hop, before) = last_element(text).unwrap_or_default();
            hops.push(hop);
            rest = before;
        }
    }
    hops
}

/// What the last element of a line says, and what stands before its comma.
fn last_element(mut text: &[u8]) -> Option<(Option<IpAddr>, Option<&[u8]>)> {
    let mut found: Option<Option<IpAddr>> = None;
    loop {
        text = text.trim_ascii_end();
        if !matches!(text.last(), None | Some(b',' | b';')) {
            let (value, before) = last_value(text)?;
            let before = before.trim_ascii_end().strip_suffix(b"=")?;
            let (name, before) = last_word(before.trim_ascii_end());
            if name.is_empty() {
                return None;
            }
            if name.eq_ignore_ascii_case(b"for") && found.replace(address(&value)).is_some() {
                return None;
            }
            text = before.trim_ascii_end();
        }
        match text.split_last() {
            None => return Some((found.flatten(), None)),
            Some((b',', before)) => return Some((found.flatten(), Some(before))),
            Some((b';', before)) => text = before,
            Some(_) => return None,
        }
    }
}

/// The value at the end, without quotes, and what stands before it.
fn last_value(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let Some(inner) = text.strip_suffix(b"\"") else {
        let (word, before) = last_word(text);
        return Some((word.into(), before));
    };
    let mut open = inner.len();
    loop {
        open = inner[..open].iter().rposition(|&byte| byte == b'"')?;
        let before = &inner[..open];
        let slashes = before.iter().rev().take_while(|&&byte| byte == b'\\');
        if slashes.count() % 2 == 0 {
            return Some((unescaped(&inner[open + 1..]).into(), before));
        }
    }
}

/// The longest end without separators.
fn last_word(text: &[u8]) -> (&[u8], &[u8]) {
    let separates = |byte: &u8| matches!(byte, b',' | b';' | b'=' | b'"') || *byte <= b' ';
    let from = text.iter().rposition(separates).map_or(0, |at| at + 1);
    let (before, word) = text.split_at(from);
    (word, before)
}

fn unescaped(inner: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        text.extend(if *byte == b'\\' {
            bytes.next()
        } else {
            Some(byte)
        });
    }
    text
}

/// With or without a port, and with or without the brackets of IPv6.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    if let Some(bare) = bare {
        return bare.parse::<std::net::Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let plain = text.parse().ok();
    plain.or_else(|| text.parse::<SocketAddr>().ok().map(|addr| addr.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, lines: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, http::HeaderValue::from_static(line));
        }
        headers
    }

    fn some(address: &str) -> Option<IpAddr> {
        Some(address.parse().unwrap())
    }

    #[test]
    fn the_last_entry_of_the_last_line_is_the_nearest() {
        let lines = [
            "1.1.1.1, 2.2.2.2:80",
            " unknown ,[2001:db8::1]:443,2001:db8::2",
        ];
        let hops = x_forwarded_for(&headers("x-forwarded-for", &lines));
        let expected = [
            some("2001:db8::2"),
            some("2001:db8::1"),
            None,
            some("2.2.2.2"),
            some("1.1.1.1"),
        ];
        assert_eq!(hops, expected);
    }

    #[test]
    fn the_examples_of_the_rfc_are_understood() {
        let lines = [
            "for=\"_gazonk\"",
            "For=\"[2001:db8:cafe::17]:4711\"",
            "for=192.0.2.60;proto=http;by=203.0.113.43",
            "for=192.0.2.43, for=198.51.100.17",
            "proto=http;by=\"a,for=9.9.9.9;\\\"\"",
        ];
        let hops = forwarded(&headers("forwarded", &lines));
        let expected = [
            None,
            some("198.51.100.17"),
            some("192.0.2.43"),
            some("192.0.2.60"),
            some("2001:db8:cafe::17"),
            None,
        ];
        assert_eq!(hops, expected);
    }

    #[test]
    fn an_open_quote_does_not_swallow_what_the_proxy_appended() {
        for line in [
            r#"for=6.6.6.6;x=", for=203.0.113.9"#,
            r#"for=6.6.6.6;x="\, for="203.0.113.9:1""#,
            r#"for=6.6.6.6, ", for="203.0.113.9""#,
        ] {
            let hops = forwarded(&headers("forwarded", &[line]));
            assert_eq!(hops[..2], [some("203.0.113.9"), None], "{line}");
            assert_eq!(hops.len(), 2, "{line}");
        }
    }

    #[test]
    fn what_breaks_the_grammar_gives_no_address() {
        for line in [
            "for=6.6.6.6;for=1.1.1.1",
            "for=6.6.6.6 x",
            "for=\"6.6.6.6",
            "for=6.6.6.6\"",
            "=6.6.6.6",
            "6.6.6.6",
            "",
        ] {
            let hops = forwarded(&headers("forwarded", &[line]));
            assert_eq!(hops, [None], "{line}");
        }
        let line = " for=1.1.1.1 ;proto=http;, ;For = \"2.2.2.2\" ";
        let hops = forwarded(&headers("forwarded", &[line]));
        assert_eq!(hops, [some("2.2.2.2"), some("1.1.1.1")]);
    }

    #[test]
    fn a_byte_beyond_ascii_spoils_its_own_entry_only() {
        let mut headers = HeaderMap::new();
        for name in ["x-forwarded-for", "forwarded"] {
            let value = http::HeaderValue::from_bytes(b"\xff, for=203.0.113.9").unwrap();
            headers.append(name, value);
        }
        assert_eq!(forwarded(&headers), [some("203.0.113.9"), None]);
        let value = http::HeaderValue::from_bytes(b"\xff, 203.0.113.9").unwrap();
        headers.insert(X_FORWARDED_FOR, value);
        assert_eq!(x_forwarded_for(&headers), [some("203.0.113.9"), None]);
    }
}
