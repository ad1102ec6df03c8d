//! Addresses made coarser: the network they are in.

use std::net::{Ipv4Addr, Ipv6Addr};

use exeat_policy::Generalize;
use exeat_wire::Format;

/// The server's own numbers for the families, whatever the system's are.
const INET: u8 = 2;
const INET6: u8 = 3;

/// `None`: not an address as a server writes it.
pub(super) fn generalize(how: Generalize, format: Format, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match format {
        Format::Text => text(how, std::str::from_utf8(value).ok()?, out),
        Format::Binary => binary(how, value, out),
    }
}

fn text(how: Generalize, value: &str, out: &mut Vec<u8>) -> Option<()> {
    let (address, bits) = match value.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
        None => (value, None),
    };
    let network = if let Ok(address) = address.parse::<Ipv4Addr>() {
        let bits = bits.unwrap_or(32).min(how.ipv4);
        format!("{}/{bits}", Ipv4Addr::from_octets(cut(address.octets(), bits)))
    } else {
        let bits = bits.unwrap_or(128).min(how.ipv6);
        format!("{}/{bits}", Ipv6Addr::from_octets(cut(address.parse::<Ipv6Addr>().ok()?.octets(), bits)))
    };
    out.extend_from_slice(network.as_bytes());
    Some(())
}

/// Family, bits, whether it is a cidr, length, address.
fn binary(how: Generalize, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let ([family, bits, is_cidr, length], address) = value.split_first_chunk::<4>()?;
    let wanted = match *family {
        INET => how.ipv4,
        INET6 => how.ipv6,
        _ => return None,
    };
    let bits = wanted.min(*bits);
    out.extend_from_slice(&[*family, bits, *is_cidr, *length]);
    match (*family, *length) {
        (INET, 4) => out.extend_from_slice(&cut::<4>(address.try_into().ok()?, bits)),
        (INET6, 16) => out.extend_from_slice(&cut::<16>(address.try_into().ok()?, bits)),
        _ => return None,
    }
    Some(())
}

/// All but the first `bits` are zero.
fn cut<const N: usize>(mut address: [u8; N], bits: u8) -> [u8; N] {
    let mut left = bits;
    for byte in &mut address {
        let kept = left.min(8);
        // 8 kept bits leave the byte, 0 nothing of it.
        *byte &= u8::try_from(0xff00_u16 >> kept & 0xff).unwrap_or(0);
        left -= kept;
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOW: Generalize = Generalize { ipv4: 20, ipv6: 33, ..Generalize::DEFAULT };

    #[test]
    fn addresses_become_their_network_in_both_formats() {
        for (value, family, address, bits, expected) in [
            ("192.168.255.5", INET, &[192, 168, 255, 5][..], 32, "192.168.240.0/20"),
            ("192.168.255.5/24", INET, &[192, 168, 255, 5], 24, "192.168.240.0/20"),
            ("10.9.8.7/8", INET, &[10, 9, 8, 7], 8, "10.0.0.0/8"),
            ("1.2.3.4/0", INET, &[1, 2, 3, 4], 0, "0.0.0.0/0"),
            (
                "2001:db8:ffff:1::5",
                INET6,
                &[0x20, 1, 0x0d, 0xb8, 0xff, 0xff, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5],
                128,
                "2001:db8:8000::/33",
            ),
        ] {
            let mut out = Vec::new();
            generalize(HOW, Format::Text, value.as_bytes(), &mut out).unwrap();
            assert_eq!(std::str::from_utf8(&out).unwrap(), expected);
            let length = u8::try_from(address.len()).unwrap();
            let wire = [&[family, bits, 0, length][..], address].concat();
            let mut binary = Vec::new();
            generalize(HOW, Format::Binary, &wire, &mut binary).unwrap();
            let (network, kept) = expected.split_once('/').unwrap();
            assert_eq!(binary[1], kept.parse::<u8>().unwrap());
            let octets = match network.parse().unwrap() {
                std::net::IpAddr::V4(network) => network.octets().to_vec(),
                std::net::IpAddr::V6(network) => network.octets().to_vec(),
            };
            assert_eq!(binary[4..], octets);
        }
        for broken in ["", "host", "1.2.3", "1.2.3.4/x", "1.2.3.4/300"] {
            assert!(generalize(HOW, Format::Text, broken.as_bytes(), &mut Vec::new()).is_none(), "{broken}");
        }
        for broken in [&[2, 32, 0, 4, 1, 2, 3][..], &[3, 32, 0, 4, 1, 2, 3, 4], &[9, 32, 0, 4, 1, 2, 3, 4], &[2]] {
            assert!(generalize(HOW, Format::Binary, broken, &mut Vec::new()).is_none());
        }
    }
}
