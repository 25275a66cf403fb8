//! Numbers and addresses as text. They stand in every head and every line of a log, and `write!` takes several times
//! as long.

use std::net::IpAddr;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

pub(crate) fn number(out: &mut Vec<u8>, mut value: u64) {
    if value < 10 {
        return out.push(b'0' + value as u8);
    }
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// An IPv4 address also where it is written as one of IPv6.
pub(crate) fn ip(out: &mut Vec<u8>, ip: IpAddr) {
    out.extend_from_slice(Text::of_ip(ip).as_bytes());
}

/// 32 hexadecimal digits.
pub(crate) fn hex(halves: [u64; 2]) -> [u8; 32] {
    let bytes = (u128::from(halves[0]) << 64 | u128::from(halves[1])).to_be_bytes();
    std::array::from_fn(|at| {
        let byte = bytes[at / 2];
        DIGITS[usize::from(if at % 2 == 0 { byte >> 4 } else { byte & 15 })]
    })
}

/// What is mostly so short that it needs no memory of its own: an address, or the name of a request.
#[derive(Clone, Debug)]
pub(crate) enum Text {
    Short { bytes: [u8; SHORT_BYTES], length: u8 },
    Long(String),
}

/// The longest address (of IPv6).
const SHORT_BYTES: usize = 39;

impl Text {
    pub(crate) fn of_ip(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let (mut bytes, mut length) = ([0; SHORT_BYTES], 0);
                let mut put = |byte| {
                    bytes[length] = byte;
                    length += 1;
                };
                for (place, part) in address.octets().into_iter().enumerate() {
                    if place > 0 {
                        put(b'.');
                    }
                    if part >= 100 {
                        put(b'0' + part / 100);
                    }
                    if part >= 10 {
                        put(b'0' + part / 10 % 10);
                    }
                    put(b'0' + part % 10);
                }
                Text::Short { bytes, length: length as u8 }
            }
            address => Text::Long(address.to_string()),
        }
    }

    pub(crate) fn of_id(halves: [u64; 2]) -> Self {
        let (digits, mut bytes) = (hex(halves), [0; SHORT_BYTES]);
        bytes[..digits.len()].copy_from_slice(&digits);
        Text::Short { bytes, length: digits.len() as u8 }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Text::Short { bytes, length } => &bytes[..usize::from(*length)],
            Text::Long(text) => text.as_bytes(),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Text::Short { .. } => std::str::from_utf8(self.as_bytes()).unwrap_or_default(),
            Text::Long(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn as_the_standard_library_writes_it(value: u64, half: u64, v4: [u8; 4], v6: [u8; 16]) {
            let mut text = Vec::new();
            number(&mut text, value);
            proptest::prop_assert_eq!(text, value.to_string().into_bytes());
            for address in [IpAddr::from(v4), IpAddr::from(v6)] {
                let text = Text::of_ip(address);
                proptest::prop_assert_eq!(text.as_str(), address.to_canonical().to_string());
            }
            let text = Text::of_id([value, half]);
            proptest::prop_assert_eq!(text.as_str(), format!("{value:016x}{half:016x}"));
        }
    }
}
