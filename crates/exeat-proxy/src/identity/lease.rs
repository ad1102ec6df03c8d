//! A verified identity lent for a while: for one target, from some addresses, until it ends or is taken back. It only
//! ever narrows what the token proved.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;

/// What a handle lends. Shared by the handle and every session that came in with it.
#[derive(Debug)]
pub struct Lease {
    /// The handle's public name, for the record.
    pub handle: String,
    pub target: String,
    pub source: Option<Network>,
    pub ends_at: Timestamp,
    revoked: AtomicBool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    #[error("handle is for target \"{target}\", not for this one")]
    Target { target: String },
    #[error("handle is not for connections from this address")]
    Source,
}

impl Lease {
    pub(crate) fn new(handle: String, target: String, source: Option<Network>, ends_at: Timestamp) -> Self {
        Self { handle, target, source, ends_at, revoked: AtomicBool::new(false) }
    }

    /// Takes it back: sessions notice at their next look at the clock.
    pub(crate) fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
    }

    pub(crate) fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    pub(crate) fn ended(&self, now: Timestamp) -> bool {
        now >= self.ends_at || self.is_revoked()
    }

    /// Whether it may be used for this target from this address.
    pub(crate) fn allows(&self, target: &str, source: IpAddr) -> Result<(), LeaseError> {
        if self.target != target {
            return Err(LeaseError::Target { target: self.target.clone() });
        }
        match &self.source {
            Some(network) if !network.contains(source) => Err(LeaseError::Source),
            Some(_) | None => Ok(()),
        }
    }
}

/// An address, or a network in the form `10.1.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is neither an address nor a network such as 10.1.0.0/16")]
pub struct NotANetwork;

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        // A dual-stack listener sees IPv4 clients as ::ffff:a.b.c.d.
        match (bits(self.address), bits(address.to_canonical())) {
            ((own, width), (other, other_width)) if width == other_width => {
                let dropped = width.saturating_sub(self.prefix);
                own.checked_shr(dropped).unwrap_or(0) == other.checked_shr(dropped).unwrap_or(0)
            }
            _ => false,
        }
    }
}

fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (address, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((address, prefix)) => (address, Some(prefix)),
        };
        let address: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let address = if prefix.is_none() { address.to_canonical() } else { address };
        let (_, width) = bits(address);
        let prefix = match prefix {
            None => width,
            Some(digits) => digits.parse().ok().filter(|prefix| *prefix <= width).ok_or(NotANetwork)?,
        };
        Ok(Self { address, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_holds_its_own_addresses_only() {
        for (network, inside, outside) in [
            ("10.1.0.0/16", "10.1.255.255", "10.2.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("10.1.2.3", "::ffff:10.1.2.3", "::10.1.2.3"),
            ("10.1.2.0/31", "10.1.2.1", "10.1.2.2"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("2001:db8::1", "2001:db8::1", "10.1.2.3"),
            ("0.0.0.0/0", "192.0.2.1", "2001:db8::1"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.contains(address(inside)), "{network:?} {inside}");
            assert!(!network.contains(address(outside)), "{network:?} {outside}");
        }
        for text in ["", "10.1.2", "10.1.2.3/33", "10.1.2.3/-1", "10.1.2.3/", "host", "::1/129"] {
            assert_eq!(text.parse::<Network>(), Err(NotANetwork), "{text}");
        }
    }

    #[test]
    fn a_lease_holds_for_its_target_and_source_until_it_ends_or_is_taken_back() {
        let end = Timestamp::from_second(1000).unwrap();
        let lease = Lease::new("exh_1".to_owned(), "shop".to_owned(), "10.1.0.0/16".parse().ok(), end);
        assert_eq!(lease.allows("shop", address("10.1.0.9")), Ok(()));
        assert_eq!(lease.allows("shop", address("10.2.0.9")), Err(LeaseError::Source));
        assert_eq!(lease.allows("other", address("10.1.0.9")), Err(LeaseError::Target { target: "shop".to_owned() }));
        assert!(!lease.ended(Timestamp::from_second(999).unwrap()));
        assert!(lease.ended(end));
        assert!(!lease.is_revoked());
        lease.revoke();
        assert!(lease.is_revoked());
        assert!(lease.ended(Timestamp::from_second(999).unwrap()));
    }
}
