//! Which content region a country belongs to (the guide's table).

use muster_proto::identity::v1::ContentRegion;
use rust_iso3166::CountryCode;

/// The content region of a country code in upper case; `QQ` (Global) where the table has none.
#[must_use]
pub fn of(country_code: &str) -> ContentRegion {
    match country_code {
        "GB" => ContentRegion::Gb,
        "ES" | "IT" | "MT" => ContentRegion::Es,
        "DE" | "BE" | "CH" | "DK" | "RO" | "SI" => ContentRegion::De,
        "US" | "CA" => ContentRegion::Us,
        "SE" | "NO" => ContentRegion::Se,
        _ => ContentRegion::Qq,
    }
}

/// Whether ISO 3166-1 knows a country code in upper case, or it stands for no country (`QQ`).
#[must_use]
pub fn is_recognised(country_code: &str) -> bool {
    country_code == "QQ" || rust_iso3166::from_alpha2(country_code).is_some()
}

/// The code that was probably meant by two letters that ISO 3166-1 does not know.
#[must_use]
pub fn probable_code(country_code: &str) -> Option<&'static str> {
    Some(match country_code {
        // Reserved for others' use, or used on the road and in the European Union's statistics.
        "UK" | "EN" => "GB",
        "EL" => "GR",
        "SF" => "FI",
        "SP" => "ES",
        "SW" => "SE",
        "JA" => "JP",
        "DN" => "DK",
        "TP" => "TL",
        "ZR" => "CD",
        _ => return None,
    })
}

/// Reads a country code: two letters in any case, `QQ` where it is blank.
///
/// Two letters that ISO 3166-1 does not know are accepted: the console lists them. Anything else is
/// refused with what was expected and, where it is known, what was probably meant.
pub fn country_code(sent: &str) -> Result<String, String> {
    let code = sent.trim();
    if code.is_empty() {
        return Ok("QQ".to_owned());
    }
    if code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Ok(code.to_ascii_uppercase());
    }
    let expected =
        "expected an ISO 3166-1 alpha-2 country code of two letters, such as \"GB\", or \"QQ\"";
    let sent: String = sent.chars().take(64).collect();
    Err(match probably_meant(code) {
        Some(meant) => {
            format!("was {sent:?}; {expected}; for {} send \"{}\"", meant.name, meant.alpha2)
        }
        None => format!("was {sent:?}; {expected}"),
    })
}

/// The country whose three-letter code, number or name this is; or the only one whose name holds
/// it.
fn probably_meant(text: &str) -> Option<CountryCode> {
    let upper = text.to_ascii_uppercase();
    if let Some(country) = rust_iso3166::from_alpha3(&upper) {
        return Some(country);
    }
    let name = text.to_lowercase();
    if name.chars().count() < 4 {
        return None;
    }
    let mut containing = rust_iso3166::ALL.iter().filter(|c| c.name.to_lowercase().contains(&name));
    if let Some(exact) = rust_iso3166::ALL.iter().find(|c| c.name.to_lowercase() == name) {
        return Some(*exact);
    }
    match (containing.next(), containing.next()) {
        (Some(only), None) => Some(*only),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_iso_3166_code_has_the_content_region_of_the_guide() {
        for country in rust_iso3166::ALL {
            let expected = match country.alpha2 {
                "GB" => ContentRegion::Gb,
                "ES" | "IT" | "MT" => ContentRegion::Es,
                "DE" | "BE" | "CH" | "DK" | "RO" | "SI" => ContentRegion::De,
                "US" | "CA" => ContentRegion::Us,
                "SE" | "NO" => ContentRegion::Se,
                _ => ContentRegion::Qq,
            };
            for sent in [country.alpha2.to_owned(), country.alpha2.to_lowercase()] {
                assert_eq!(of(&country_code(&sent).unwrap()), expected, "{sent}");
            }
        }
    }

    #[test]
    fn what_is_absent_or_unknown_is_global() {
        assert_eq!(country_code(""), Ok("QQ".into()));
        assert_eq!(country_code("  "), Ok("QQ".into()));
        assert_eq!(country_code("uk"), Ok("UK".into()));
        assert_eq!(of("UK"), ContentRegion::Qq);
        assert_eq!(of("QQ"), ContentRegion::Qq);
    }

    #[test]
    fn what_is_probably_meant_is_a_country_and_what_stands_for_it_is_none() {
        for code in ["UK", "EN", "EL", "SF", "SP", "SW", "JA", "DN", "TP", "ZR"] {
            assert!(!is_recognised(code), "{code}");
            assert!(is_recognised(probable_code(code).unwrap()), "{code}");
        }
        assert_eq!(probable_code("XX"), None);
    }

    #[test]
    fn what_is_no_code_is_refused_with_the_code_that_was_probably_meant() {
        for (sent, meant) in
            [("Germany", "\"DE\""), ("GBR", "\"GB\""), ("united kingdom", "\"GB\"")]
        {
            let refusal = country_code(sent).unwrap_err();
            assert!(refusal.contains(sent) && refusal.ends_with(meant), "{refusal}");
        }
        let refusal = country_code("Atlantis").unwrap_err();
        assert!(!refusal.contains("send"), "{refusal}");
        for sent in ["G", "G1", "ÖÄ", "é", "🇬🇧"] {
            assert!(country_code(sent).is_err(), "{sent}");
        }
    }
}
