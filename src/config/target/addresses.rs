//! Which addresses a target may be at.
//!
//! Whoever owns the name of a target can point it anywhere at any time: at this machine, at the network behind
//! it, or at the address where a cloud hands out the credentials of its machines. So addresses are judged when a
//! connection is made, and those that are not on the internet have to be named by the operator.
//!
//! Invariant: an address that carries another one inside is judged by both.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use toml::{Spanned, de::DeValue};

use crate::config::report::Wrong;
use crate::config::section::Section;
use crate::config::values;

/// The networks that a target may be in although they are not the internet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// As in the configuration.
    pub listed: Vec<IpNet>,
}

/// Who says that this is the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The operator: it stands in the configuration, or is that of a proxy named there.
    Configured,
    /// The system's resolver, for the name `localhost`.
    Localhost,
    /// Whoever owns the name.
    Name,
}

/// Why an address may not be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedAddress {
    address: IpAddr,
    what: &'static str,
    /// What would have to be listed.
    network: IpNet,
}

/// Addresses that are not on the internet.
struct Special {
    network: IpNet,
    what: &'static str,
    reach: Reach,
}

/// What may lead to an address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Nothing.
    Never,
    /// Itself, where the operator has written it.
    Configured,
    /// The same, and `localhost`.
    Loopback,
}

impl Addresses {
    /// Whether a connection to this address may be made.
    ///
    /// # Errors
    /// Says why not, and what would allow it.
    pub fn judge(&self, address: IpAddr, said: Said) -> Result<(), RefusedAddress> {
        let address = address.to_canonical();
        for seen_as in [Some(address), inner_of(address)].into_iter().flatten() {
            let Some(special) = SPECIAL.iter().find(|special| special.network.contains(&seen_as)) else {
                continue;
            };
            let is_allowed = match special.reach {
                Reach::Never => false,
                Reach::Configured => said == Said::Configured,
                Reach::Loopback => said != Said::Name,
            };
            let is_listed = |network: &IpNet| network.contains(&address) || network.contains(&seen_as);
            if !is_allowed && !self.listed.iter().any(is_listed) {
                let network = if special.reach == Reach::Never { seen_as.into() } else { special.network };
                return Err(RefusedAddress { address, what: special.what, network });
            }
        }
        Ok(())
    }

    /// As [`Addresses::judge`], for the host of a URL, where that is an address.
    ///
    /// # Errors
    /// Says why not, and what would allow it.
    pub fn judge_host(&self, host: &str) -> Result<(), RefusedAddress> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        bare.parse().map_or(Ok(()), |address| self.judge(address, Said::Configured))
    }

    /// Reads the list.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let listed = section.list("addresses", network).into_iter().map(Spanned::into_inner);
        Self { listed: listed.collect() }
    }
}

impl fmt::Display for RefusedAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.address, self.what)
    }
}

impl RefusedAddress {
    /// The line of the target that would allow it.
    pub fn remedy(&self) -> String {
        format!("addresses = [\"{}\"]", self.network)
    }
}

const METADATA: &str = "where a cloud hands out credentials to its machines";
const LINK_LOCAL: &str = "a link-local address";
const PRIVATE: &str = "an address of a private network";
const LOOPBACK: &str = "this machine itself";
const DOCUMENTATION: &str = "an address of the examples in documents";
const RESERVED: &str = "an address that is reserved";
const MULTICAST: &str = "a multicast address";
const UNSPECIFIED: &str = "an address of no machine in particular";

/// The narrower network stands before the one it is in. After the registries of special-purpose addresses
/// (RFC 6890 and those that add to it), and the documents of the clouds.
const SPECIAL: &[Special] = &[
    v4([169, 254, 169, 254], 32, METADATA, Reach::Never),
    // Of containers at AWS, credentials and identities.
    v4([169, 254, 170, 0], 24, METADATA, Reach::Never),
    v4([100, 100, 100, 200], 32, METADATA, Reach::Never),
    v4([192, 0, 0, 192], 32, METADATA, Reach::Never),
    // Is on the internet by its number, and answers only inside of Azure.
    v4([168, 63, 129, 16], 32, METADATA, Reach::Never),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32, METADATA, Reach::Never),
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128, METADATA, Reach::Never),
    v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128, METADATA, Reach::Never),
    v6([0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 0], 48, METADATA, Reach::Never),
    v4([169, 254, 0, 0], 16, LINK_LOCAL, Reach::Never),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, LINK_LOCAL, Reach::Never),
    v4([0, 0, 0, 0], 8, UNSPECIFIED, Reach::Never),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128, UNSPECIFIED, Reach::Never),
    v4([224, 0, 0, 0], 4, MULTICAST, Reach::Never),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, MULTICAST, Reach::Never),
    v4([255, 255, 255, 255], 32, "the broadcast address", Reach::Never),
    v4([240, 0, 0, 0], 4, RESERVED, Reach::Never),
    v4([127, 0, 0, 0], 8, LOOPBACK, Reach::Loopback),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, LOOPBACK, Reach::Loopback),
    v4([10, 0, 0, 0], 8, PRIVATE, Reach::Configured),
    v4([172, 16, 0, 0], 12, PRIVATE, Reach::Configured),
    v4([192, 168, 0, 0], 16, PRIVATE, Reach::Configured),
    v4([100, 64, 0, 0], 10, "an address that a provider shares out (CGNAT)", Reach::Configured),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, PRIVATE, Reach::Configured),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, PRIVATE, Reach::Configured),
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, "an address of a local NAT64", Reach::Configured),
    v4([192, 0, 2, 0], 24, DOCUMENTATION, Reach::Configured),
    v4([198, 51, 100, 0], 24, DOCUMENTATION, Reach::Configured),
    v4([203, 0, 113, 0], 24, DOCUMENTATION, Reach::Configured),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, DOCUMENTATION, Reach::Configured),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, DOCUMENTATION, Reach::Configured),
    v4([192, 0, 0, 0], 24, RESERVED, Reach::Configured),
    v4([198, 18, 0, 0], 15, "an address for benchmarks", Reach::Configured),
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64, RESERVED, Reach::Configured),
    v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48, "an address for benchmarks", Reach::Configured),
    v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, RESERVED, Reach::Configured),
];

const fn v4(address: [u8; 4], prefix: u8, what: &'static str, reach: Reach) -> Special {
    let [a, b, c, d] = address;
    let network = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix));
    Special { network, what, reach }
}

const fn v6(address: [u16; 8], prefix: u8, what: &'static str, reach: Reach) -> Special {
    let [a, b, c, d, e, f, g, h] = address;
    let network = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix));
    Special { network, what, reach }
}

/// The IPv4 address inside of an IPv6 address of NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056) or the old form that
/// was compatible with it (RFC 4291).
fn inner_of(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(address) = address else { return None };
    let (high, low) = match address.segments() {
        [0x64, 0xff9b, 0 | 1, _, _, _, high, low] => (high, low),
        [0x2002, high, low, ..] => (high, low),
        // The unspecified address and loopback carry none.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => (high, low),
        _ => return None,
    };
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Some(Ipv4Addr::new(a, b, c, d).into())
}

/// `"10.0.0.0/8"`, or one address.
fn network(value: &DeValue<'_>) -> Result<IpNet, Wrong> {
    let help = "write \"10.0.0.0/8\", \"fd12:3456::/32\" or one address, \"192.168.1.10\"";
    let text = value.as_str().unwrap_or_default();
    let parsed = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let network = parsed.ok_or_else(|| values::unexpected("a network or an address", value).help(help))?;
    if network.trunc() != network {
        let wrong = Wrong::new(format!("has {network}, which is an address inside of {}", network.trunc()));
        return Err(wrong.help(format!("write \"{}\", or \"{}\"", network.trunc(), network.addr())));
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(listed: &[&str], address: &str, said: Said) -> Result<(), RefusedAddress> {
        let listed = listed.iter().map(|network| network.parse().unwrap()).collect();
        Addresses { listed }.judge(address.parse().unwrap(), said)
    }

    const NEVER: [&str; 26] = [
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "169.254.1.1",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "fe80::1",
        "febf::1",
        "ff02::1",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fd00:a9fe:a9fe::1",
        "::ffff:169.254.169.254",
        "::169.254.169.254",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::100.100.100.200",
        "2002:a9fe:a9fe::1",
    ];

    #[test]
    fn some_addresses_are_refused_whoever_says_them() {
        for address in NEVER {
            for said in [Said::Configured, Said::Localhost, Said::Name] {
                assert!(judge(&[], address, said).is_err(), "{address} {said:?}");
            }
            assert!(judge(&["10.0.0.0/8"], address, Said::Name).is_err(), "another network is listed");
            assert_eq!(judge(&["0.0.0.0/0", "::/0"], address, Said::Name), Ok(()), "{address}");
        }
    }

    #[test]
    fn addresses_inside_are_for_the_operator_to_write() {
        for address in [
            "10.1.2.3",
            "172.31.255.255",
            "192.168.0.1",
            "100.64.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "203.0.113.9",
            "fc00::1",
            "fdff::1",
            "2001:db8::1",
            "::ffff:10.1.2.3",
            "64:ff9b::10.1.2.3",
            "64:ff9b:1::8.8.8.8",
            "2002:a01:203::1",
        ] {
            assert_eq!(judge(&[], address, Said::Configured), Ok(()), "{address}");
            assert!(judge(&[], address, Said::Name).is_err(), "{address}");
            assert!(judge(&[], address, Said::Localhost).is_err(), "{address}");
        }
        for address in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(judge(&[], address, Said::Configured), Ok(()), "{address}");
            assert_eq!(judge(&[], address, Said::Localhost), Ok(()), "{address}");
            assert!(judge(&[], address, Said::Name).is_err(), "{address}");
        }
    }

    #[test]
    fn the_internet_is_for_everyone() {
        for address in [
            "8.8.8.8",
            "172.15.0.1",
            "172.32.0.1",
            "100.128.0.1",
            "100.63.255.255",
            "169.253.255.255",
            "223.255.255.255",
            "2606:4700::1",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        ] {
            assert_eq!(judge(&[], address, Said::Name), Ok(()), "{address}");
        }
    }

    #[test]
    fn what_is_listed_is_allowed_and_nothing_else() {
        assert_eq!(judge(&["10.0.0.0/8"], "10.1.2.3", Said::Name), Ok(()));
        assert_eq!(judge(&["10.0.0.0/8"], "::ffff:10.1.2.3", Said::Name), Ok(()));
        assert_eq!(judge(&["10.0.0.0/8"], "64:ff9b::10.1.2.3", Said::Name), Ok(()));
        assert!(judge(&["10.1.0.0/16"], "10.2.0.1", Said::Name).is_err());
        assert_eq!(judge(&["169.254.169.254/32"], "169.254.169.254", Said::Name), Ok(()));
        assert!(judge(&["169.254.169.254/32"], "169.254.169.253", Said::Name).is_err());
        assert!(judge(&["64:ff9b:1::/48"], "64:ff9b:1::169.254.1.1", Said::Name).is_ok());
    }

    #[test]
    fn a_refusal_says_what_would_allow_it() {
        let refused = judge(&[], "10.1.2.3", Said::Name).unwrap_err();
        assert_eq!(refused.to_string(), "10.1.2.3 (an address of a private network)");
        assert_eq!(refused.remedy(), "addresses = [\"10.0.0.0/8\"]");
        let refused = judge(&[], "64:ff9b::169.254.169.254", Said::Name).unwrap_err();
        assert_eq!(refused.remedy(), "addresses = [\"169.254.169.254/32\"]");
        assert!(refused.to_string().contains("credentials"), "{refused}");
    }

    #[test]
    fn the_host_of_a_url() {
        let judge = |host| Addresses::default().judge_host(host);
        assert_eq!(judge("127.0.0.1"), Ok(()));
        assert_eq!(judge("[::1]"), Ok(()));
        assert_eq!(judge("metadata.example"), Ok(()), "names are judged by what they resolve to");
        assert!(judge("169.254.169.254").is_err());
        assert!(judge("[::ffff:169.254.169.254]").is_err());
        assert!(judge("[fe80::1]").is_err());
    }
}
