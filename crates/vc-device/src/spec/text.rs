//! Texts that end up in an option of a hypervisor.

/// Whether `text` has 1 to `most` printable ASCII characters and no comma, which QEMU would take as
/// the end of the option.
pub(super) fn is_option_value(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b',')
}
