//! `NO_PROXY`: the hosts that are reached without a proxy.
//!
//! The rules are those of Go's `golang.org/x/net/http/httpproxy`, which the driver and Kubernetes follow. Other than
//! there, `localhost` and loopback addresses are reached directly only if they are listed.

use std::net::IpAddr;

/// The entries of a list, separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NoProxy {
    everything: bool,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// `10.0.0.0/8`: an address and the number of its leading bits that count.
    Network(IpAddr, u8),
    /// `10.1.2.3`, `10.1.2.3:443`, `::1`, `[::1]:443`.
    Address(IpAddr, Option<u16>),
    /// `example.com`, `.example.com`, `*.example.com`, each also with a port.
    Domain {
        /// With a leading dot.
        suffix: String,
        /// Whether the domain itself is meant too, besides its subdomains.
        itself: bool,
        port: Option<u16>,
    },
}

impl NoProxy {
    /// Parses a list. An entry that cannot be one matches nothing.
    pub(super) fn parse(list: &str) -> Self {
        let entries = list.split(',').map(|entry| entry.trim().to_lowercase());
        let entries: Vec<String> = entries.filter(|entry| !entry.is_empty()).collect();
        Self {
            everything: entries.iter().any(|entry| entry == "*"),
            entries: entries
                .iter()
                .filter_map(|entry| Entry::parse(entry))
                .collect(),
        }
    }

    /// Whether a host, an IPv6 address with or without brackets, is reached directly at this port.
    pub(super) fn contains(&self, host: &str, port: u16) -> bool {
        let host = unbracketed(host).trim_end_matches('.').to_lowercase();
        let address = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        self.everything
            || self
                .entries
                .iter()
                .any(|entry| entry.matches(&host, address, port))
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        if let Some((address, bits)) = text.split_once('/') {
            let address: IpAddr = address.parse().ok()?;
            let bits: u8 = bits.parse().ok()?;
            let width = if address.is_ipv4() { 32 } else { 128 };
            return (bits <= width).then_some(Self::Network(address, bits));
        }
        if let Ok(address) = unbracketed(text).parse::<IpAddr>() {
            return Some(Self::Address(address.to_canonical(), None));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, "")) => (host, None),
            // A port that is none belongs to no host.
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (text, None),
        };
        if let Ok(address) = unbracketed(host).parse::<IpAddr>() {
            return Some(Self::Address(address.to_canonical(), port));
        }
        let host = host
            .strip_prefix('*')
            .filter(|rest| rest.starts_with('.'))
            .unwrap_or(host);
        let itself = !host.starts_with('.');
        let name = host.trim_start_matches('.').trim_end_matches('.');
        (!name.is_empty()).then(|| Self::Domain {
            suffix: format!(".{name}"),
            itself,
            port,
        })
    }

    fn matches(&self, host: &str, address: Option<IpAddr>, at: u16) -> bool {
        match (self, address) {
            (Self::Network(network, bits), Some(address)) => {
                leading_bits(*network, *bits) == leading_bits(address, *bits)
                    && network.is_ipv4() == address.is_ipv4()
            }
            (Self::Address(own, port), Some(address)) => {
                *own == address && port.is_none_or(|port| port == at)
            }
            (
                Self::Domain {
                    suffix,
                    itself,
                    port,
                },
                None,
            ) => {
                (host.ends_with(suffix) || *itself && host == &suffix[1..])
                    && port.is_none_or(|port| port == at)
            }
            _ => false,
        }
    }
}

fn leading_bits(address: IpAddr, bits: u8) -> u128 {
    let (value, width) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    value.checked_shr(width - u32::from(bits)).unwrap_or(0)
}

fn unbracketed(host: &str) -> &str {
    let inner = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    inner.unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_match_as_in_go() {
        // The list, then hosts with ports that it names, then others.
        type Hosts = &'static [(&'static str, u16)];
        let cases: [(&str, Hosts, Hosts); 22] = [
            ("", &[], &[("a", 443)]),
            (" , ,", &[], &[("a", 443)]),
            ("*", &[("a", 443), ("::1", 1), ("10.0.0.1", 9)], &[]),
            ("b, *", &[("a", 443)], &[]),
            (
                "example.com",
                &[
                    ("example.com", 443),
                    ("a.example.com", 8443),
                    ("EXAMPLE.com.", 1),
                ],
                &[("notexample.com", 443), ("com", 443)],
            ),
            (
                ".example.com",
                &[("a.example.com", 443), ("b.a.example.com", 1)],
                &[("example.com", 443), ("notexample.com", 443)],
            ),
            (
                "*.example.com",
                &[("a.example.com", 443)],
                &[("example.com", 443)],
            ),
            (
                "example.com:443",
                &[("example.com", 443), ("a.example.com", 443)],
                &[("example.com", 8443)],
            ),
            (
                ".example.com:8443",
                &[("a.example.com", 8443)],
                &[("a.example.com", 443), ("example.com", 8443)],
            ),
            (
                "*.example.com:8443",
                &[("a.example.com", 8443)],
                &[("a.example.com", 443)],
            ),
            ("Example.COM:", &[("example.com", 7)], &[("a", 7)]),
            (
                "localhost",
                &[("localhost", 443), ("a.localhost", 1)],
                &[("127.0.0.1", 443)],
            ),
            (
                "10.1.2.3",
                &[("10.1.2.3", 1)],
                &[("10.1.2.4", 1), ("a10.1.2.3", 1)],
            ),
            ("10.1.2.3:443", &[("10.1.2.3", 443)], &[("10.1.2.3", 80)]),
            (
                "10.0.0.0/8",
                &[("10.255.1.2", 443)],
                &[("11.0.0.1", 443), ("a.10", 443)],
            ),
            (
                "0.0.0.0/0",
                &[("10.255.1.2", 443)],
                &[("::1", 443), ("a", 443)],
            ),
            ("::1", &[("::1", 443), ("[::1]", 443)], &[("::2", 443)]),
            ("[::1]", &[("[::1]", 443)], &[("::2", 443)]),
            ("[::1]:443", &[("[::1]", 443)], &[("[::1]", 8443)]),
            (
                "fd00::/8",
                &[("[fd12:3::4]", 443)],
                &[("[fe80::1]", 443), ("253.0.0.1", 443)],
            ),
            (
                "10.0.0.0/33,a:b,:443,/,[,*.",
                &[],
                &[("10.0.0.1", 443), ("a", 443), ("b", 443)],
            ),
            (
                "a,b:1,c",
                &[("a", 9), ("b", 1), ("c", 2)],
                &[("b", 2), ("d", 1)],
            ),
        ];
        for (list, direct, others) in cases {
            let list = NoProxy::parse(list);
            for (host, port) in direct {
                assert!(list.contains(host, *port), "{host}:{port} by {list:?}");
            }
            for (host, port) in others {
                assert!(!list.contains(host, *port), "{host}:{port} by {list:?}");
            }
        }
    }
}
