//! Base64 as others write it: one decoder for whatever comes from outside (polling bodies, emitters, `POST /api/emit`).
//!
//! Real writers differ: MIME encoders break lines (Android's and Apache's, hence Java clients by polling), others use
//! the URL-safe alphabet, leave the padding out, or do not clear the bits that are left over. Node's
//! `Buffer.from(text, "base64")`, by which the reference server reads, takes all of these, and so does this. Node also
//! skips whatever else it finds and stops at the first `=`: what a peer did not mean would be delivered then, so here
//! that is an error.

use ::base64::Engine as _;
use ::base64::alphabet;
use ::base64::engine::DecodePaddingMode;
use ::base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use crate::Error;

const TOLERANT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The bytes that a text of base64 stands for: of either alphabet, with or without padding, white space anywhere.
///
/// # Errors
/// [`Error::Base64Invalid`]: other characters, something behind the padding, or one character too many.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, Error> {
    TOLERANT.decode(text).or_else(|_| {
        let mut plain: Vec<u8> = text
            .bytes()
            .filter(|b| !b.is_ascii_whitespace())
            .map(|b| match b {
                b'-' => b'+',
                b'_' => b'/',
                other => other,
            })
            .collect();
        while plain.last() == Some(&b'=') {
            plain.pop();
        }
        TOLERANT.decode(plain).map_err(|_| Error::Base64Invalid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Each of these gives the same bytes in Node 20.
    #[test]
    fn what_real_writers_write_is_read() {
        let cases: [(&str, &[u8]); 18] = [
            ("", b""),
            ("AQIDBA==", &[1, 2, 3, 4]),
            ("AQIDBA", &[1, 2, 3, 4]),
            ("AQIDBA=", &[1, 2, 3, 4]),
            ("AQIDBA===", &[1, 2, 3, 4]),
            ("AQ==", &[1]),
            ("AQ", &[1]),
            // Bits left over.
            ("AQIDBB==", &[1, 2, 3, 4]),
            ("AR", &[1]),
            // Lines, of Unix and of MIME, and other white space.
            ("AQID\nBA==", &[1, 2, 3, 4]),
            ("AQID\r\nBA==\r\n", &[1, 2, 3, 4]),
            (" AQ ID\tBA=\n=\x0c", &[1, 2, 3, 4]),
            ("A\nQ\nI\nD", &[1, 2, 3]),
            (" \r\n", b""),
            // Both alphabets, mixed even.
            ("+/+/", &[0xfb, 0xff, 0xbf]),
            ("-_-_", &[0xfb, 0xff, 0xbf]),
            ("+/-_", &[0xfb, 0xff, 0xbf]),
            ("-_8=\n", &[0xfb, 0xff]),
        ];
        for (text, bytes) in cases {
            assert_eq!(decode(text).as_deref(), Ok(bytes), "{text:?}");
        }
    }

    // Node makes something of each of these: of what comes before the first `=`, or without what it does not know.
    #[test]
    fn what_no_writer_means_is_refused() {
        for text in [
            "A",
            "A===",
            "AQIDB",
            "=AQ",
            "AQ==BB",
            "AQ==AQ==",
            "AQ=ID",
            "????",
            "AQ!ID",
            "AQ.ID",
            "AQ%3D%3D",
            "AQID\u{a0}",
            "AQIDž",
            "AQ\0ID",
            "AQ\x0bID",
            "AQID,BA==",
            "\u{feff}AQID",
        ] {
            assert_eq!(decode(text), Err(Error::Base64Invalid), "{text:?}");
        }
    }

    #[test]
    fn lines_of_every_length_give_the_same_bytes() {
        use ::base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(240).collect();
        for length in 0..bytes.len() {
            let Some(part) = bytes.get(..length) else { continue };
            for text in [STANDARD.encode(part), URL_SAFE_NO_PAD.encode(part)] {
                let lines: Vec<&str> = text
                    .as_bytes()
                    .chunks(76)
                    .filter_map(|c| std::str::from_utf8(c).ok())
                    .collect();
                assert_eq!(decode(&lines.join("\r\n")).as_deref(), Ok(part), "{length}");
            }
        }
    }
}
