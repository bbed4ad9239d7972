//! Ports on loopback.

use std::net::{Ipv4Addr, TcpListener};

/// Below the range from which Linux takes the ports of outgoing connections (32768 and up). A
/// client that keeps dialling a dead server's port in that range can, rarely, connect to itself.
const RANGE: std::ops::Range<u16> = 10_000..32_000;

/// A port of 127.0.0.1 that nobody listens on at this moment. Somebody may a moment later, so
/// whoever uses it must be ready to try another.
pub(crate) fn candidate_port() -> u16 {
    for _ in 0..1_000 {
        let port = fastrand::u16(RANGE);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on 127.0.0.1 from {RANGE:?}");
}
