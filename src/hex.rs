//! Bytes as hexadecimal digits.

/// Two digits for each byte, in lower case.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that `digits` stand for, of any case; `None` if they are not two for each byte.
pub fn decode<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let value = |digit: u8| char::from(digit).to_digit(16);
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (pair, byte) in digits.chunks_exact(2).zip(&mut bytes) {
        *byte = (value(pair[0])? * 16 + value(pair[1])?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_two_for_each_byte() {
        assert_eq!(encode(&[0, 0x1f, 0xff]), "001fff");
        assert_eq!(decode(b"001fFf"), Some([0, 0x1f, 0xff]));
        for bad in ["", "001fF", "001fFf0", "001fFg", "+01fFf"] {
            assert_eq!(decode::<3>(bad.as_bytes()), None, "{bad}");
        }
    }
}
