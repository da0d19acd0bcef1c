//! The octal escapes of `/proc` files: `\040` for a space.

use std::borrow::Cow;

/// Decodes the escapes of one field, each exactly once.
///
/// The kernel writes a byte it must hide as a backslash and three octal digits (`mangle_path` and
/// `string_escape_mem` in its source). Anything else stands for itself, a lone backslash included.
pub fn unescape(field: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = crate::sys::find_byte(b'\\', field) else { return Cow::Borrowed(field) };
    let mut decoded = Vec::with_capacity(field.len());
    decoded.extend_from_slice(&field[..first]);
    let mut rest = &field[first..];
    while let Some((&byte, tail)) = rest.split_first() {
        match (byte, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                decoded.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = after;
            }
            _ => {
                decoded.push(byte);
                rest = tail;
            }
        }
    }
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_escape_is_decoded_once() {
        let cases: [(&[u8], &[u8]); 7] = [
            (b"plain", b"plain"),
            (b"a\\040b", b"a b"),
            // The file name is `a\040b`: its backslash is escaped, its digits are not an escape.
            (b"a\\134040b", b"a\\040b"),
            (b"\\011\\012\\043\\377", b"\t\n#\xff"),
            (b"\\08\\", b"\\08\\"),
            (b"\\400", b"\\400"),
            (b"\xff\\040", b"\xff "),
        ];
        for (raw, want) in cases {
            assert_eq!(&*unescape(raw), want, "{}", raw.escape_ascii());
        }
        assert!(matches!(unescape(b"plain"), Cow::Borrowed(_)));
    }

    fn escape(text: &[u8]) -> Vec<u8> {
        let one = |byte: &u8| match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' | b',' => format!("\\{byte:03o}").into_bytes(),
            _ => vec![*byte],
        };
        text.iter().flat_map(one).collect()
    }

    proptest! {
        #[test]
        fn decoding_inverts_the_kernels_escaping(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            let escaped = escape(&text);
            prop_assert_eq!(&*unescape(&escaped), &text[..]);
        }
    }
}
