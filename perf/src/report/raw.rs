//! The data a page was made of, in the page.

use std::fmt::Write;

use super::svg::escape;
use crate::result::ResultFile;

/// Each file as it is: to be read by programs in the page, and to be kept.
pub(super) fn raw(files: &[(String, ResultFile)]) -> String {
    let mut html = String::from("<section id=\"raw\"><h2>Raw data</h2><ul>");
    let mut data = String::new();
    for (index, (name, file)) in files.iter().enumerate() {
        let json = serde_json::to_string(file).unwrap_or_default();
        let _ = write!(
            html,
            "<li><a download=\"{}\" href=\"data:application/json;base64,{}\">{}</a> <span>{}, {} figures</span></li>",
            escape(name),
            base64(json.as_bytes()),
            escape(name),
            escape(&file.schema),
            file.results.len()
        );
        // Within JSON a < stands only in strings, where it may be written like this.
        let json = json.replace('<', "\\u003c");
        let _ = write!(data, "<script type=\"application/json\" id=\"data-{}\">{json}</script>", index + 1);
    }
    html + "</ul>" + &data + "</section>"
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let three = [chunk[0], chunk.get(1).copied().unwrap_or(0), chunk.get(2).copied().unwrap_or(0)];
        let number = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for place in 0..4 {
            let letter = LETTERS[(number >> (18 - 6 * place)) as usize & 63] as char;
            text.push(if place <= chunk.len() { letter } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_rfc() {
        // RFC 4648, section 10.
        let pairs = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, expected) in pairs {
            assert_eq!(base64(plain.as_bytes()), expected);
        }
    }
}
