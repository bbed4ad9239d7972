//! The address of a client.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use http::Extensions;
use overdrive_core::ConfigError;

use crate::http::forwarded;
use crate::http::key::{KeyExtractor, RequestView};
use crate::http::proxies::TrustedProxies;

/// An extension of requests: the other end of the connection. The server puts it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// Which header field one's proxies write. The other is not looked at: proxies pass on what they
/// do not know, and so what a client made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forwarding {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The key is the client's address: that of the peer or, if the peer is a trusted proxy, the last
/// one in the forwarding header field that is no trusted proxy. What stands before it is not
/// looked at, for the client may have made it up; nor is what is no address, where the proxy that
/// passed it on counts for the client.
///
/// IPv4 in the form of IPv6 is IPv4. Of IPv6 addresses the first 64 bits count, as a client has all
/// that follow.
#[derive(Clone)]
pub struct ClientIp {
    peer: Arc<FindPeer>,
    forwarded: Option<(Forwarding, TrustedProxies)>,
    mask: u128,
}

type FindPeer = dyn Fn(&Extensions) -> Option<SocketAddr> + Send + Sync;

impl ClientIp {
    /// The address in the extension [`PeerAddr`], and no header field.
    #[must_use]
    pub fn new() -> Self {
        Self {
            peer: Arc::new(|extensions| extensions.get::<PeerAddr>().map(|peer| peer.0)),
            forwarded: None,
            mask: u128::MAX << 64,
        }
    }

    /// Finds the peer by another extension, such as axum's `ConnectInfo`.
    #[must_use]
    pub fn peer(
        mut self,
        find: impl Fn(&Extensions) -> Option<SocketAddr> + Send + Sync + 'static,
    ) -> Self {
        self.peer = Arc::new(find);
        self
    }

    /// Believes these proxies.
    #[must_use]
    pub fn forwarded(mut self, field: Forwarding, proxies: TrustedProxies) -> Self {
        self.forwarded = Some((field, proxies));
        self
    }

    /// How many bits of an IPv6 address count. Default 64.
    ///
    /// # Errors
    /// Zero, or more than 128.
    pub fn ipv6_prefix(mut self, bits: u8) -> Result<Self, ConfigError> {
        let bits = ConfigError::within("ipv6_prefix", bits.into(), 128)?;
        self.mask = u128::MAX << (128 - bits);
        Ok(self)
    }

    fn client(&self, request: RequestView<'_>) -> Option<IpAddr> {
        let mut client = (self.peer)(request.extensions)?.ip();
        let Some((field, proxies)) = &self.forwarded else {
            return Some(client);
        };
        if !proxies.contains(client) {
            return Some(client);
        }
        let hops = match field {
            Forwarding::XForwardedFor => forwarded::x_forwarded_for(request.headers),
            Forwarding::Forwarded => forwarded::forwarded(request.headers),
        };
        for hop in hops {
            let Some(hop) = hop else { break };
            client = hop;
            if !proxies.contains(client) {
                break;
            }
        }
        Some(client)
    }
}

impl Default for ClientIp {
    /// [`new`](Self::new).
    fn default() -> Self {
        Self::new()
    }
}

impl KeyExtractor for ClientIp {
    type Key = IpAddr;

    fn extract(&self, request: RequestView<'_>) -> Option<IpAddr> {
        Some(match self.client(request)?.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & self.mask).into(),
            v4 => v4,
        })
    }
}

impl fmt::Debug for ClientIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIp")
            .field("forwarded", &self.forwarded)
            .field("ipv6_prefix", &self.mask.leading_ones())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn key(clients: &ClientIp, peer: &str, fields: &[&str]) -> Option<String> {
        let mut request = Request::builder();
        for field in fields {
            request = request.header("x-forwarded-for", *field);
        }
        let mut request = request.body(()).unwrap();
        let peer = SocketAddr::new(peer.parse().unwrap(), 1);
        request.extensions_mut().insert(PeerAddr(peer));
        clients
            .extract(RequestView::of(&request))
            .map(|ip| ip.to_string())
    }

    #[test]
    fn only_trusted_proxies_speak_for_others() {
        let proxies = TrustedProxies::new(["10.0.0.0/8"]).unwrap();
        let clients = ClientIp::new().forwarded(Forwarding::XForwardedFor, proxies);
        for (peer, fields, expected) in [
            ("192.0.2.1", vec!["8.8.8.8"], "192.0.2.1"),
            ("10.0.0.1", vec!["8.8.8.8"], "8.8.8.8"),
            ("10.0.0.1", vec!["1.2.3.4, 8.8.8.8"], "8.8.8.8"),
            ("10.0.0.1", vec!["1.2.3.4", "8.8.8.8, 10.0.0.2"], "8.8.8.8"),
            ("10.0.0.1", vec!["8.8.8.8, lies"], "10.0.0.1"),
            ("10.0.0.1", vec!["8.8.8.8, lies, 10.0.0.9"], "10.0.0.9"),
            ("10.0.0.1", vec!["10.0.0.3"], "10.0.0.3"),
            ("10.0.0.1", vec![], "10.0.0.1"),
            ("::ffff:10.0.0.1", vec!["::ffff:8.8.8.8"], "8.8.8.8"),
        ] {
            assert_eq!(
                key(&clients, peer, &fields).as_deref(),
                Some(expected),
                "{peer} {fields:?}"
            );
        }
        assert_eq!(
            key(&ClientIp::new(), "10.0.0.1", &["8.8.8.8"]).unwrap(),
            "10.0.0.1"
        );
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_client() {
        let clients = ClientIp::new();
        let network = key(&clients, "2001:db8:1:2:3::4", &[]);
        assert_eq!(network.as_deref(), Some("2001:db8:1:2::"));
        assert_eq!(key(&clients, "2001:db8:1:2:ffff::1", &[]), network);
        assert_ne!(key(&clients, "2001:db8:1:3::1", &[]), network);
        let exact = ClientIp::new().ipv6_prefix(128).unwrap();
        assert!(ClientIp::new().ipv6_prefix(0).is_err());
        assert_eq!(
            key(&exact, "2001:db8::4", &[]).as_deref(),
            Some("2001:db8::4")
        );
    }

    #[test]
    fn without_a_peer_there_is_no_key() {
        let request = Request::new(());
        assert!(ClientIp::new().extract(RequestView::of(&request)).is_none());
    }
}
