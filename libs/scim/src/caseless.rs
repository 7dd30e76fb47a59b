//! The one case-insensitive comparison: of names, of addresses, in filters and in unique keys.

use icu_casemap::CaseMapper;
use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::CodePointSetData;
use icu_properties::props::{DefaultIgnorableCodePoint, WhiteSpace};

/// The key under which text is compared: NFC, Unicode simple case folding, NFC again. Blanks at the
/// ends and invisible characters do not count.
///
/// Folding after NFC alone would not do: J with a caron has no composed capital, so `J̌` and `ǰ`
/// would be two. Letters that simple folding keeps apart stay apart: `ı` is not `i`.
#[must_use]
pub fn key(text: &str) -> String {
    if text.is_ascii() {
        return text.trim().to_ascii_lowercase();
    }
    let blank = CodePointSetData::new::<WhiteSpace>();
    fold(visible(text).trim_matches(|c| blank.contains(c)))
}

/// The key of a part of a text, for comparisons such as *contains*: blanks at its ends do count.
#[must_use]
pub fn part(text: &str) -> String {
    fold(&visible(text))
}

fn visible(text: &str) -> String {
    let ignorable = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    text.chars().filter(|c| !ignorable.contains(*c)).collect()
}

fn fold(text: &str) -> String {
    let nfc = ComposingNormalizerBorrowed::new_nfc();
    let mapper = CaseMapper::new();
    let folded: String = nfc.normalize(text).chars().map(|c| mapper.simple_fold(c)).collect();
    nfc.normalize(&folded).into_owned()
}

/// Whether two texts are the same without regard to case.
#[must_use]
pub fn eq(a: &str, b: &str) -> bool {
    key(a) == key(b)
}

#[cfg(test)]
mod tests {
    use icu_normalizer::DecomposingNormalizerBorrowed;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn letters_are_folded_as_unicode_says_and_not_as_a_language_does() {
        for (a, b) in [
            ("Ann", "aNN"),
            ("\u{212a}elvin", "kelvin"),
            ("Ma\u{17f}t", "mast"),
            ("STRAẞE", "straße"),
            ("J\u{30c}", "\u{1f0}"),
            ("É", "e\u{301}"),
            ("ΣΑΣ", "σας"),
            ("\u{a0}ann\u{200b} ", "ann"),
        ] {
            assert!(eq(a, b), "{a} {b}");
        }
        for (a, b) in [("ı", "i"), ("İ", "i"), ("straße", "strasse"), ("a b", "ab")] {
            assert!(!eq(a, b), "{a} {b}");
        }
    }

    proptest! {
        #[test]
        fn the_key_of_a_key_is_the_key(text in ".*") {
            prop_assert_eq!(key(&key(&text)), key(&text));
        }

        #[test]
        fn composed_and_decomposed_text_have_one_key(text in ".*") {
            let nfd = DecomposingNormalizerBorrowed::new_nfd();
            prop_assert_eq!(key(&nfd.normalize(&text)), key(&text));
        }
    }
}
