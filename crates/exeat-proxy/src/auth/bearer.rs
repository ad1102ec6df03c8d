//! OAUTHBEARER (RFC 7628), the server's side, as PostgreSQL 18's clients speak it: one message with a token, or
//! one without that asks where to get one. Pure; whether the token is good is the verifier's to say.

use exeat_store::secret::SecretString;
use serde_json::{Map, Value};

use crate::identity::Discovery;

pub(crate) const OAUTHBEARER: &str = "OAUTHBEARER";

/// Parts of a message are set apart by this.
const SEPARATOR: char = '\u{1}';

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BearerError {
    #[error("OAUTHBEARER message is malformed: {0}")]
    Malformed(&'static str),
    #[error("OAUTHBEARER is the only SASL mechanism offered here")]
    Mechanism,
}

/// What the client opened with.
pub(crate) enum Opening {
    Token(SecretString),
    /// No token: the client wants to know the issuer.
    Discovery,
}

/// `gs2-header 0x01 *(key "=" value 0x01) 0x01`
pub(crate) fn opening(message: &[u8]) -> Result<Opening, BearerError> {
    let malformed = BearerError::Malformed;
    let message = std::str::from_utf8(message).map_err(|_| malformed("it is not UTF-8"))?;
    let (header, pairs) = message.split_once(SEPARATOR).ok_or(malformed("it has no content"))?;
    match header {
        "n,," | "y,," => {}
        header if header.starts_with("p=") => {
            return Err(malformed("it asks for channel binding, which it cannot have"));
        }
        _ => return Err(malformed("its header is not n,,")),
    }
    let pairs = pairs.strip_suffix(SEPARATOR).ok_or(malformed("it is cut off"))?;
    let mut auth = None;
    for pair in pairs.split_terminator(SEPARATOR) {
        let (key, value) = pair.split_once('=').ok_or(malformed("a part of it is not key=value"))?;
        // Other keys may come (host, port) and mean nothing here.
        if key == "auth" && auth.replace(value).is_some() {
            return Err(malformed("it names two tokens"));
        }
    }
    if !pairs.is_empty() && !pairs.ends_with(SEPARATOR) {
        return Err(malformed("its last part is cut off"));
    }
    match auth {
        None => Err(malformed("it has no auth part")),
        Some("") => Ok(Opening::Discovery),
        Some(value) => bearer_token(value).map(Opening::Token).ok_or(malformed("its auth part is no bearer token")),
    }
}

/// The token of `Bearer TOKEN`; the scheme's case does not count (RFC 7235), the token's characters do (RFC 6750).
pub fn bearer_token(value: &str) -> Option<SecretString> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim_start_matches(' ');
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c);
    let body = token.trim_end_matches('=');
    let good = scheme.eq_ignore_ascii_case("bearer") && !body.is_empty() && body.chars().all(plain);
    good.then(|| SecretString::new(token.to_owned()))
}

/// What a client is told whose token is not good, or who gave none.
pub(crate) fn refusal(discovery: Option<&Discovery>) -> Vec<u8> {
    let mut answer = Map::new();
    answer.insert("status".to_owned(), Value::from("invalid_token"));
    if let Some(discovery) = discovery {
        answer.insert("openid-configuration".to_owned(), Value::from(discovery.configuration.clone()));
        answer.insert("scope".to_owned(), Value::from(discovery.scope.clone()));
    }
    Value::Object(answer).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(message: &str) -> Result<Option<String>, BearerError> {
        opening(message.as_bytes()).map(|opening| match opening {
            Opening::Token(token) => Some(token.expose().clone()),
            Opening::Discovery => None,
        })
    }

    #[test]
    fn a_token_is_found_whatever_stands_around_it() {
        for message in [
            "n,,\u{1}auth=Bearer a.b-c_d~e+f/g==\u{1}\u{1}",
            "y,,\u{1}host=db\u{1}port=5432\u{1}auth=bearer   a.b-c_d~e+f/g==\u{1}\u{1}",
        ] {
            assert_eq!(token(message), Ok(Some("a.b-c_d~e+f/g==".to_owned())), "{message:?}");
        }
        assert_eq!(token("n,,\u{1}auth=\u{1}\u{1}"), Ok(None));
    }

    #[test]
    fn messages_out_of_shape_are_refused() {
        for message in [
            "",
            "n,,",
            "n,,\u{1}",
            "n,,\u{1}\u{1}",
            "n,,\u{1}auth=Bearer x\u{1}",
            "n,,\u{1}auth=Bearer x",
            "n,a=admin,\u{1}auth=Bearer x\u{1}\u{1}",
            "p=tls-server-end-point,,\u{1}auth=Bearer x\u{1}\u{1}",
            "n,,\u{1}auth=Bearer x\u{1}auth=Bearer y\u{1}\u{1}",
            "n,,\u{1}auth\u{1}\u{1}",
            "n,,\u{1}auth=Basic x\u{1}\u{1}",
            "n,,\u{1}auth=Bearer \u{1}\u{1}",
            "n,,\u{1}auth=Bearer =\u{1}\u{1}",
            "n,,\u{1}auth=Bearer x y\u{1}\u{1}",
            "n,,\u{1}auth=Bearerx\u{1}\u{1}",
        ] {
            assert!(matches!(token(message), Err(BearerError::Malformed(_))), "{message:?}");
        }
        assert!(matches!(opening(b"n,,\x01auth=Bearer \xff\x01\x01"), Err(BearerError::Malformed(_))));
    }

    #[test]
    fn a_refusal_says_where_tokens_come_from_if_that_is_known() {
        assert_eq!(refusal(None), br#"{"status":"invalid_token"}"#);
        let discovery = Discovery {
            configuration: "https://idp.example.com/.well-known/openid-configuration".to_owned(),
            scope: "openid".to_owned(),
        };
        let answer: Value = serde_json::from_slice(&refusal(Some(&discovery))).unwrap();
        assert_eq!(answer["openid-configuration"], Value::from(discovery.configuration));
        assert_eq!((&answer["status"], &answer["scope"]), (&Value::from("invalid_token"), &Value::from("openid")));
    }
}
