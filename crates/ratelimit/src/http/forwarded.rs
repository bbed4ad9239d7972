//! Reading forwarding header fields from the right: the last entry is of the nearest proxy.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The addresses of `X-Forwarded-For`, the last first; `None` for what is no address.
pub(crate) fn x_forwarded_for(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let mut hops = Vec::new();
    for line in headers.get_all(X_FORWARDED_FOR) {
        match line.to_str() {
            Ok(line) => hops.extend(line.split(',').map(|entry| address(entry.trim()))),
            Err(_) => hops.push(None),
        }
    }
    hops.reverse();
    hops
}

/// The `for` of the elements of `Forwarded` (RFC 7239), the last first.
pub(crate) fn forwarded(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let mut hops = Vec::new();
    for line in headers.get_all(FORWARDED) {
        let line = line.to_str().unwrap_or_default();
        for element in split(line, ',') {
            let mut pairs = split(element, ';').into_iter();
            let hop = pairs.find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                let is_for = name.trim().eq_ignore_ascii_case("for");
                is_for.then(|| address(&unquoted(value.trim())))
            });
            hops.push(hop.flatten());
        }
    }
    hops.reverse();
    hops
}

/// Splits outside of quotes.
fn split(text: &str, at: char) -> Vec<&str> {
    let (mut parts, mut from, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if c == at && !quoted => {
                parts.push(&text[from..i]);
                from = i + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

fn unquoted(value: &str) -> String {
    let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
    let Some(inner) = inner else {
        return value.to_owned();
    };
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    text
}

/// With or without a port, and with or without the brackets of IPv6.
fn address(text: &str) -> Option<IpAddr> {
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
}
