//! Who is believed about whom they speak for.

use std::net::IpAddr;
use std::sync::Arc;

use overdrive_core::ConfigError;

/// The networks of one's own proxies, whose forwarding header fields are believed.
#[derive(Clone, Debug)]
pub struct TrustedProxies(Arc<[Network]>);

#[derive(Clone, Copy, Debug)]
struct Network {
    bits: u128,
    mask: u128,
    v4: bool,
}

impl TrustedProxies {
    /// Networks as `10.0.0.0/8` or `fd00::/8`, and single addresses.
    ///
    /// # Errors
    /// What is neither, has bits beyond its prefix, or is everybody.
    pub fn new<N: AsRef<str>>(networks: impl IntoIterator<Item = N>) -> Result<Self, ConfigError> {
        let networks = networks.into_iter().map(|text| network(text.as_ref()));
        networks.collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let (bits, v4) = bits(address.to_canonical());
        let mut networks = self.0.iter();
        networks.any(|network| network.v4 == v4 && bits & network.mask == network.bits)
    }
}

fn network(text: &str) -> Result<Network, ConfigError> {
    let invalid = |reason| ConfigError::Invalid {
        field: "trusted_proxies",
        reason,
    };
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address
        .parse()
        .map_err(|_| invalid("has no address where one should be"))?;
    let (bits, v4) = bits(address);
    let width: u32 = if v4 { 32 } else { 128 };
    let prefix = match prefix {
        None => width,
        Some(prefix) => prefix
            .parse()
            .ok()
            .filter(|prefix| *prefix <= width)
            .ok_or_else(|| invalid("has a prefix that is no number of bits"))?,
    };
    if prefix == 0 {
        return Err(invalid("trusts everybody, so anybody could be anybody"));
    }
    if !v4 && address.to_canonical() != address {
        return Err(invalid("names an IPv4 network in the form of IPv6"));
    }
    let all = if v4 { u128::from(u32::MAX) } else { u128::MAX };
    let mask = all & (all << (width - prefix));
    if bits & mask != bits {
        return Err(invalid("has bits beyond its prefix"));
    }
    Ok(Network { bits, mask, v4 })
}

fn bits(address: IpAddr) -> (u128, bool) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), true),
        IpAddr::V6(address) => (address.to_bits(), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses_and_no_others() {
        let proxies = TrustedProxies::new(["10.1.0.0/16", "::1", "fd00::/8", "192.0.2.7"]).unwrap();
        for (address, inside) in [
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("::ffff:10.1.0.1", true),
            ("::1", true),
            ("::2", false),
            ("fdff::1", true),
            ("fe00::1", false),
            ("192.0.2.7", true),
            ("192.0.2.6", false),
            ("::c000:207", false),
        ] {
            assert_eq!(
                proxies.contains(address.parse().unwrap()),
                inside,
                "{address}"
            );
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "proxy",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "0.0.0.0/0",
            "::/0",
            "10.0.0.0/-1",
            "10.0.0.0/",
            "::ffff:10.0.0.0/104",
        ] {
            let error = TrustedProxies::new([text]).unwrap_err();
            assert_eq!(error.field(), "trusted_proxies", "{text}");
        }
    }
}
