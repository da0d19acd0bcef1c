//! Addresses as the protocol writes them.

use super::error::NetworkError;
use netlink_packet_route::AddressFamily;
use std::net::IpAddr;

/// An address and the length of its network prefix.
pub(super) fn prefix(address: &str, length: &str) -> Result<(IpAddr, u8), NetworkError> {
    let address = ip(address)?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = length.parse().ok().filter(|length| *length <= most);
    Ok((address, length.ok_or_else(|| NetworkError::Prefix(most.to_string()))?))
}

/// `10.0.0.0/24`; a single address has the longest prefix.
pub(super) fn network(text: &str) -> Result<(IpAddr, u8), NetworkError> {
    match text.split_once('/') {
        Some((address, length)) => prefix(address, length).map_err(|error| match error {
            NetworkError::Prefix(_) => NetworkError::Prefix(text.to_owned()),
            other => other,
        }),
        None => ip(text).map(|address| (address, if address.is_ipv4() { 32 } else { 128 })),
    }
}

pub(super) fn ip(text: &str) -> Result<IpAddr, NetworkError> {
    text.parse().map_err(|_| NetworkError::Address(text.chars().take(100).collect()))
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// `aa:bb:cc:dd:ee:ff`.
pub(super) fn hardware(text: &str) -> Result<Vec<u8>, NetworkError> {
    let byte = |part: &str| {
        let plain = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain.then(|| u8::from_str_radix(part, 16).ok()).flatten()
    };
    let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
    bytes
        .filter(|bytes| (6..=20).contains(&bytes.len()))
        .ok_or_else(|| NetworkError::Hardware(text.chars().take(100).collect()))
}

pub(super) fn hardware_text(address: &[u8]) -> String {
    let bytes: Vec<_> = address.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

/// The kernel's rule (`dev_valid_name`).
pub(super) fn interface_name(name: &str) -> Result<&str, NetworkError> {
    let plain = (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.bytes().any(|byte| byte == b'/' || byte == b':' || byte == 0 || byte.is_ascii_whitespace());
    plain.then_some(name).ok_or_else(|| NetworkError::Name(name.chars().take(100).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_whole_or_not_at_all() {
        assert_eq!(network("10.0.0.0/8").unwrap(), ("10.0.0.0".parse().unwrap(), 8));
        assert_eq!(network("10.0.0.1").unwrap().1, 32);
        assert_eq!(network("fe80::1").unwrap().1, 128);
        for bad in ["", "10.0.0", "10.0.0.0/33", "fe80::/129", "10.0.0.0/", "10.0.0.0/+1x"] {
            assert!(network(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hardware_addresses_come_back_as_they_went() {
        let text = "02:00:ca:fe:00:ff";
        assert_eq!(hardware_text(&hardware(text).unwrap()), text);
        for bad in ["", "02:00", "02-00-ca-fe-00-ff", "2:0:ca:fe:0:ff", "02:00:ca:fe:00:fg"] {
            assert!(hardware(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_are_those_that_the_kernel_takes() {
        assert!(interface_name("eth0").is_ok());
        for bad in ["", ".", "..", "a b", "a/b", "a:b", "sixteen-bytes-xx"] {
            assert!(interface_name(bad).is_err(), "{bad:?}");
        }
    }
}
