//! ID tokens: signed JSON (RFC 7515), checked as `OpenID` Connect Core 1.0 §3.1.3.7 says.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;

use super::Error;

/// How far clocks may be apart, in seconds.
const LEEWAY: i64 = 60;

/// The provider's keys (RFC 7517 §5).
#[derive(Debug, Deserialize)]
pub(super) struct Keys {
    keys: Vec<Key>,
}

#[derive(Debug, Deserialize)]
struct Key {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood; there are none that we do.
    crit: Option<serde_json::Value>,
}

/// What the provider says.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    iss: String,
    pub sub: String,
    aud: Audience,
    azp: Option<String>,
    exp: i64,
    iat: i64,
    nonce: Option<String>,
    pub email: Option<String>,
    #[serde(default)]
    pub email_verified: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Claims {
    /// What a token says that one of the provider's keys has signed.
    pub(super) fn read(token: &str, keys: &Keys) -> Result<Self, Error> {
        let payload = verified(token, keys)?;
        serde_json::from_slice(&payload).map_err(|_| Error::IdToken("its claims do not read"))
    }

    /// Refuses what was said by another, to another, at another time or for another sign-in.
    pub(super) fn check(
        &self,
        issuer: &str,
        client_id: &str,
        nonce: &str,
        now: i64,
    ) -> Result<(), Error> {
        let refused = |why| Err(Error::IdToken(why));
        if self.iss != issuer {
            return refused("it is another issuer's");
        }
        let ours = match &self.aud {
            Audience::One(audience) => audience == client_id,
            Audience::Several(audiences) => {
                audiences.iter().any(|audience| audience == client_id)
                    && (audiences.len() == 1 || self.azp.is_some())
            }
        };
        if !ours || self.azp.as_deref().is_some_and(|party| party != client_id) {
            return refused("it is for another client");
        }
        if self.exp <= now - LEEWAY {
            return refused("it has expired");
        }
        if self.iat > now + LEEWAY {
            return refused("it is from the future");
        }
        if self.nonce.as_deref() != Some(nonce) {
            return refused("it is of another sign-in");
        }
        Ok(())
    }
}

/// The payload of a token whose signature is right.
fn verified(token: &str, keys: &Keys) -> Result<Vec<u8>, Error> {
    let malformed = || Error::IdToken("it is not three parts in base64url");
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed());
    let (message, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
    let (header, payload) = message.split_once('.').ok_or_else(malformed)?;
    let signature = decode(signature)?;
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| malformed())?;
    if header.crit.is_some() {
        return Err(Error::IdToken("it has extensions that must be understood"));
    }
    // The key says how it is used, not the token: `alg` only chooses among the two that we do.
    let kind = match header.alg.as_str() {
        "RS256" => "RSA",
        "ES256" => "EC",
        _ => return Err(Error::IdToken("it is signed by neither RS256 nor ES256")),
    };
    let candidates = keys.keys.iter().filter(|key| {
        key.kty == kind
            && key.usage.as_deref().is_none_or(|usage| usage == "sig")
            && (header.kid.is_none() || key.kid == header.kid)
    });
    let mut candidates = candidates.peekable();
    if candidates.peek().is_none() {
        return Err(Error::IdToken("it is signed by a key that the provider does not publish"));
    }
    if candidates.any(|key| key.has_signed(message.as_bytes(), &signature)) {
        decode(payload)
    } else {
        Err(Error::IdToken("its signature is not right"))
    }
}

impl Key {
    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let part = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
        if self.kty == "RSA" {
            let (Some(n), Some(e)) = (part(&self.n), part(&self.e)) else { return false };
            let key = RsaPublicKeyComponents { n: &n, e: &e };
            return key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok();
        }
        let (Some(x), Some(y)) = (part(&self.x), part(&self.y)) else { return false };
        if self.crv.as_deref() != Some("P-256") || x.len() != 32 || y.len() != 32 {
            return false;
        }
        // Uncompressed (SEC 1 §2.3.3).
        let point = [&[4], &*x, &*y].concat();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7515 Appendix A.2.
    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0\
        dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9\
        PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB\
        --f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwu\
        sC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmt\
        VrBp0igcN_IoypGlUPQGe77Rw";
    const KEYS: &str = r#"{"keys": [{"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}]}"#;

    #[test]
    fn a_token_signed_by_rs256_is_read_and_a_changed_one_is_not() {
        let keys = serde_json::from_str(KEYS).unwrap();
        let payload = verified(TOKEN, &keys).unwrap();
        assert!(payload.starts_with(b"{\"iss\":\"joe\""));
        let changed = TOKEN.replacen("eyJpc3MiOiJqb2Ui", "eyJpc3MiOiJqb2Uj", 1);
        assert!(verified(&changed, &keys).is_err());
        let other = serde_json::from_str(&KEYS.replace("ofgW", "ofgX")).unwrap();
        assert!(verified(TOKEN, &other).is_err());
    }

    #[test]
    fn an_unsigned_token_and_one_signed_with_the_public_key_are_refused() {
        let keys = serde_json::from_str(KEYS).unwrap();
        for alg in ["none", "HS256", "RS512"] {
            let header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"{alg}\"}}"));
            for signature in ["", "AAAA"] {
                assert!(verified(&format!("{header}.e30.{signature}"), &keys).is_err(), "{alg}");
            }
        }
        for text in ["", "a", "a.b", "a.b.c", "....", "é.é.é"] {
            assert!(verified(text, &keys).is_err(), "{text}");
        }
    }

    #[test]
    fn a_token_of_another_issuer_client_time_or_sign_in_is_refused() {
        let claims = |change: &str| -> Claims {
            let mut claims: serde_json::Value = serde_json::from_str(
                r#"{"iss": "https://id.test", "sub": "1", "aud": "muster", "exp": 1000, "iat": 900,
                    "nonce": "n"}"#,
            )
            .unwrap();
            let change: serde_json::Value = serde_json::from_str(change).unwrap();
            for (name, value) in change.as_object().unwrap() {
                claims[name] = value.clone();
            }
            serde_json::from_value(claims).unwrap()
        };
        let check = |change| claims(change).check("https://id.test", "muster", "n", 950).is_ok();
        for right in
            ["{}", r#"{"aud": ["muster"]}"#, r#"{"aud": ["a", "muster"], "azp": "muster"}"#]
        {
            assert!(check(right), "{right}");
        }
        for wrong in [
            r#"{"iss": "https://id.test/"}"#,
            r#"{"aud": "other"}"#,
            r#"{"aud": []}"#,
            r#"{"aud": ["a", "muster"]}"#,
            r#"{"azp": "other"}"#,
            r#"{"exp": 800}"#,
            r#"{"iat": 1100}"#,
            r#"{"nonce": "m"}"#,
            r#"{"nonce": null}"#,
        ] {
            assert!(!check(wrong), "{wrong}");
        }
    }
}
