//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), the server's side, as PostgreSQL's clients speak it.
//!
//! Written over ring: the one crate with a server side for PostgreSQL brings its own listener, session and some
//! hundred crates, for two messages each way. Pure: nonce, salt and channel binding are arguments. What it holds:
//! - the proof is compared in constant time, and a verifier of nobody takes the same road as a real one;
//! - a client that could have bound the channel and was told we cannot (`y`) is refused when we can: somebody struck
//!   the offer out;
//! - a bound exchange speaks of the very certificate the client was shown.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};
use subtle::ConstantTimeEq;

pub(crate) const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
pub(crate) const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// PostgreSQL's own default. The passwords here are random and long, so that more would cost and protect nothing.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();

/// Real messages have under 300 bytes.
const MESSAGE_BYTES_MAX: usize = 4096;

const DIGEST_BYTES: usize = digest::SHA256_OUTPUT_LEN;
pub(crate) const SALT_BYTES: usize = 16;

/// The only channel binding PostgreSQL's clients know.
const END_POINT: &str = "tls-server-end-point";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    #[error("SCRAM message is malformed: {0}")]
    Malformed(&'static str),
    #[error("SCRAM mechanism \"{0}\" is not offered here")]
    Mechanism(String),
    #[error("client supports channel binding but was told that the gateway does not, though it does")]
    Downgrade,
    #[error("mechanism and channel binding flag of the SCRAM exchange do not go together")]
    BindingFlag,
    #[error("channel binding type is not supported, {END_POINT} is")]
    BindingType,
    #[error("channel binding does not match: the client was shown another certificate than this gateway's")]
    Binding,
    #[error("nonce of the SCRAM exchange is not the one it began with")]
    Nonce,
    #[error("proof of the password does not match")]
    Proof,
}

/// What is kept of a password: enough to check a proof, not enough to give one.
#[derive(Clone)]
pub(crate) struct ScramVerifier {
    salt: [u8; SALT_BYTES],
    stored_key: [u8; DIGEST_BYTES],
    server_key: [u8; DIGEST_BYTES],
}

impl ScramVerifier {
    /// Passwords are ASCII here, which SASLprep leaves as they are.
    pub(crate) fn derive(password: &str, salt: [u8; SALT_BYTES]) -> Self {
        let mut salted = zeroize::Zeroizing::new([0; DIGEST_BYTES]);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, &salt, password.as_bytes(), salted.as_mut());
        let client_key = zeroize::Zeroizing::new(mac(salted.as_ref(), b"Client Key"));
        Self { salt, stored_key: sha256(client_key.as_ref()), server_key: mac(salted.as_ref(), b"Server Key") }
    }

    /// Nobody's: no password has it, and an exchange with it looks like any other until the proof fails.
    pub(crate) fn of_nobody(salt: [u8; SALT_BYTES], stored_key: [u8; DIGEST_BYTES]) -> Self {
        Self { salt, stored_key, server_key: stored_key }
    }

    /// For a password that came in clear, inside TLS.
    pub(crate) fn matches(&self, password: &str) -> bool {
        Self::derive(password, self.salt).stored_key.ct_eq(&self.stored_key).into()
    }
}

impl std::fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScramVerifier(hidden)")
    }
}

/// The mechanisms to offer, best first. `end_point`: the channel binding of the certificate shown, if any.
pub(crate) fn mechanisms(end_point: Option<&[u8]>) -> &'static [&'static str] {
    match end_point {
        Some(_) => &[SCRAM_SHA_256_PLUS, SCRAM_SHA_256],
        None => &[SCRAM_SHA_256],
    }
}

/// What the client opened with, understood.
struct ClientFirst<'a> {
    gs2_header: &'a str,
    bare: &'a str,
    nonce: &'a str,
}

/// An exchange of which the client's first message is in and ours is not answered yet.
#[derive(Debug)]
pub(crate) struct Exchange {
    verifier: ScramVerifier,
    client_first_bare: String,
    server_first: String,
    /// Both nonces.
    nonce: String,
    /// What the client's last message must give as `c`.
    channel_binding: String,
}

impl Exchange {
    /// `nonce`: ours, printable ASCII without commas. `end_point` as given to [`mechanisms`].
    pub(crate) fn begin(
        mechanism: &str,
        client_first: &[u8],
        end_point: Option<&[u8]>,
        nonce: &str,
        verifier: ScramVerifier,
    ) -> Result<Self, ScramError> {
        let message = text(client_first)?;
        let (flag, _) = message.split_once(',').ok_or(ScramError::Malformed("it has no channel binding flag"))?;
        let bound = bound_to(mechanism, flag, end_point)?;
        let first = client_first_parts(message)?;
        let mut binding = first.gs2_header.as_bytes().to_vec();
        binding.extend_from_slice(bound.unwrap_or_default());
        let nonce = format!("{}{nonce}", first.nonce);
        let server_first = format!("r={nonce},s={},i={ITERATIONS}", STANDARD.encode(verifier.salt));
        Ok(Self {
            verifier,
            client_first_bare: first.bare.to_owned(),
            server_first,
            nonce,
            channel_binding: STANDARD.encode(binding),
        })
    }

    pub(crate) fn server_first(&self) -> &[u8] {
        self.server_first.as_bytes()
    }

    /// Checks the client's proof; what comes back is ours.
    pub(crate) fn finish(self, client_final: &[u8]) -> Result<String, ScramError> {
        let message = text(client_final)?;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(ScramError::Malformed("it has no proof"))?;
        let mut attributes = without_proof.split(',');
        let binding = attribute(attributes.next(), "c=", "it has no channel binding")?;
        let nonce = attribute(attributes.next(), "r=", "it has no nonce")?;
        // Extensions may follow; we know none, and one that must be understood stands in front.
        if nonce != self.nonce {
            return Err(ScramError::Nonce);
        }
        if binding != self.channel_binding {
            return Err(ScramError::Binding);
        }
        let proof: [u8; DIGEST_BYTES] = STANDARD
            .decode(proof)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(ScramError::Malformed("its proof is not 32 bytes in base64"))?;
        let signed = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let mut client_key = mac(&self.verifier.stored_key, signed.as_bytes());
        client_key.iter_mut().zip(proof).for_each(|(byte, proof)| *byte ^= proof);
        if !bool::from(sha256(&client_key).ct_eq(&self.verifier.stored_key)) {
            return Err(ScramError::Proof);
        }
        let signature = mac(&self.verifier.server_key, signed.as_bytes());
        Ok(format!("v={}", STANDARD.encode(signature)))
    }
}

/// The channel binding data the exchange must carry, by mechanism and flag (RFC 5802, section 6).
fn bound_to<'a>(mechanism: &str, flag: &str, end_point: Option<&'a [u8]>) -> Result<Option<&'a [u8]>, ScramError> {
    match (mechanism, flag, end_point) {
        (SCRAM_SHA_256_PLUS, _, None) => Err(ScramError::Mechanism(mechanism.to_owned())),
        (SCRAM_SHA_256_PLUS, flag, Some(end_point)) => match flag.strip_prefix("p=") {
            Some(END_POINT) => Ok(Some(end_point)),
            Some(_) => Err(ScramError::BindingType),
            None => Err(ScramError::BindingFlag),
        },
        (SCRAM_SHA_256, "y", Some(_)) => Err(ScramError::Downgrade),
        (SCRAM_SHA_256, "n" | "y", _) => Ok(None),
        (SCRAM_SHA_256, flag, _) if flag.starts_with("p=") => Err(ScramError::BindingFlag),
        (SCRAM_SHA_256, _, _) => Err(ScramError::Malformed("its channel binding flag is none of n, y and p")),
        (other, _, _) => Err(ScramError::Mechanism(other.chars().take(32).filter(char::is_ascii_graphic).collect())),
    }
}

/// `flag "," [authzid] "," "n=" name "," "r=" nonce ["," extensions]`
fn client_first_parts(message: &str) -> Result<ClientFirst<'_>, ScramError> {
    let mut commas = message.match_indices(',').map(|(at, _)| at);
    let (_, second) = (commas.next(), commas.next());
    let (gs2_header, bare) = second
        .and_then(|at| message.split_at_checked(at.saturating_add(1)))
        .ok_or(ScramError::Malformed("its header is cut off"))?;
    // PostgreSQL has no authorisation identities, so an empty one stands between the commas.
    if !gs2_header.ends_with(",,") {
        return Err(ScramError::Malformed("it asks for another identity to act as"));
    }
    let mut attributes = bare.split(',');
    let name = attributes.next();
    if name.is_some_and(|attribute| attribute.starts_with("m=")) {
        return Err(ScramError::Malformed("it needs an extension that is not known"));
    }
    // The name is the startup packet's; libpq leaves it empty here.
    attribute(name, "n=", "it has no user name")?;
    let nonce = attribute(attributes.next(), "r=", "it has no nonce")?;
    if nonce.is_empty() || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ScramError::Malformed("its nonce is not printable"));
    }
    Ok(ClientFirst { gs2_header, bare, nonce })
}

fn attribute<'a>(part: Option<&'a str>, name: &str, missing: &'static str) -> Result<&'a str, ScramError> {
    part.and_then(|part| part.strip_prefix(name)).ok_or(ScramError::Malformed(missing))
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(ScramError::Malformed("it is longer than 4096 bytes"));
    }
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed("it is not UTF-8"))
}

fn sha256(bytes: &[u8]) -> [u8; DIGEST_BYTES] {
    fixed(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn mac(key: &[u8], message: &[u8]) -> [u8; DIGEST_BYTES] {
    fixed(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref())
}

fn fixed(bytes: &[u8]) -> [u8; DIGEST_BYTES] {
    // Both callers give exactly this many bytes.
    let mut array = [0; DIGEST_BYTES];
    array.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of RFC 7677, section 3.
    const CLIENT_FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const SERVER_FIRST: &[u8] =
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const CLIENT_FINAL: &str =
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn salt() -> [u8; SALT_BYTES] {
        STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap()
    }

    fn pencil() -> ScramVerifier {
        ScramVerifier::derive("pencil", salt())
    }

    fn begin(mechanism: &str, first: &str, end_point: Option<&[u8]>) -> Result<Exchange, ScramError> {
        Exchange::begin(mechanism, first.as_bytes(), end_point, NONCE, pencil())
    }

    fn example(verifier: ScramVerifier) -> Exchange {
        Exchange::begin(SCRAM_SHA_256, CLIENT_FIRST, None, NONCE, verifier).unwrap()
    }

    /// What a client that knows the password sends last.
    fn client_final(exchange: &Exchange, password: &str, binding: &str) -> String {
        let mut salted = [0; DIGEST_BYTES];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, &salt(), password.as_bytes(), &mut salted);
        let client_key = mac(&salted, b"Client Key");
        let without_proof = format!("c={binding},r={}", exchange.nonce);
        let signed = format!("{},{},{without_proof}", exchange.client_first_bare, exchange.server_first);
        let mut proof = mac(&sha256(&client_key), signed.as_bytes());
        proof.iter_mut().zip(client_key).for_each(|(byte, key)| *byte ^= key);
        format!("{without_proof},p={}", STANDARD.encode(proof))
    }

    #[test]
    fn the_rfc_example_is_spoken_byte_for_byte() {
        let exchange = example(pencil());
        assert_eq!(exchange.server_first(), SERVER_FIRST);
        assert_eq!(client_final(&exchange, "pencil", "biws"), CLIENT_FINAL);
        assert_eq!(exchange.finish(CLIENT_FINAL.as_bytes()), Ok(SERVER_FINAL.to_owned()));
    }

    #[test]
    fn another_password_a_changed_byte_and_nobody_fail_alike() {
        let other = ScramVerifier::derive("Pencil", salt());
        assert_eq!(example(other).finish(CLIENT_FINAL.as_bytes()), Err(ScramError::Proof));
        let nobody = ScramVerifier::of_nobody(salt(), [7; DIGEST_BYTES]);
        assert_eq!(example(nobody.clone()).server_first(), SERVER_FIRST);
        assert_eq!(example(nobody).finish(CLIENT_FINAL.as_bytes()), Err(ScramError::Proof));
        let changed = CLIENT_FINAL.replace("p=dHz", "p=eHz");
        assert_eq!(example(pencil()).finish(changed.as_bytes()), Err(ScramError::Proof));
        assert!(pencil().matches("pencil") && !pencil().matches("pencils"));
    }

    #[test]
    fn a_proof_is_good_for_its_own_exchange_only() {
        let again = Exchange::begin(SCRAM_SHA_256, CLIENT_FIRST, None, "another-nonce", pencil()).unwrap();
        assert_eq!(again.finish(CLIENT_FINAL.as_bytes()), Err(ScramError::Nonce));
        let again = Exchange::begin(SCRAM_SHA_256, CLIENT_FIRST, None, "another-nonce", pencil()).unwrap();
        let renamed = CLIENT_FINAL.replace(NONCE, "another-nonce");
        assert_eq!(again.finish(renamed.as_bytes()), Err(ScramError::Proof));
    }

    #[test]
    fn a_bound_exchange_takes_the_shown_certificate_only() {
        let first = "p=tls-server-end-point,,n=,r=abc";
        let binding = |end_point: &[u8]| STANDARD.encode([b"p=tls-server-end-point,,", end_point].concat());
        for (shown, result) in [(&b"ours"[..], true), (b"somebody's", false)] {
            let exchange = begin(SCRAM_SHA_256_PLUS, first, Some(b"ours")).unwrap();
            let last = client_final(&exchange, "pencil", &binding(shown));
            assert_eq!(exchange.finish(last.as_bytes()).is_ok(), result);
        }
        // The binding left out, or that of an unbound exchange.
        for wrong in ["biws", "", &STANDARD.encode("p=tls-server-end-point,,")] {
            let exchange = begin(SCRAM_SHA_256_PLUS, first, Some(b"ours")).unwrap();
            let last = client_final(&exchange, "pencil", wrong);
            assert_eq!(exchange.finish(last.as_bytes()), Err(ScramError::Binding), "{wrong}");
        }
    }

    #[test]
    fn flags_and_mechanisms_that_hide_a_downgrade_are_refused() {
        let ours: Option<&[u8]> = Some(b"ours");
        let bad =
            |mechanism: &str, flag: &str, end_point| begin(mechanism, &format!("{flag},,n=,r=abc"), end_point).err();
        assert_eq!(bad(SCRAM_SHA_256, "y", ours), Some(ScramError::Downgrade));
        assert_eq!(bad(SCRAM_SHA_256, "y", None), None);
        assert_eq!(bad(SCRAM_SHA_256, "n", ours), None);
        assert_eq!(bad(SCRAM_SHA_256, "p=tls-server-end-point", ours), Some(ScramError::BindingFlag));
        assert_eq!(bad(SCRAM_SHA_256_PLUS, "n", ours), Some(ScramError::BindingFlag));
        assert_eq!(bad(SCRAM_SHA_256_PLUS, "y", ours), Some(ScramError::BindingFlag));
        assert_eq!(bad(SCRAM_SHA_256_PLUS, "p=tls-unique", ours), Some(ScramError::BindingType));
        assert_eq!(bad(SCRAM_SHA_256_PLUS, "p=tls-server-end-point", ours), None);
        assert!(matches!(bad(SCRAM_SHA_256_PLUS, "p=tls-server-end-point", None), Some(ScramError::Mechanism(_))));
        assert!(matches!(bad("SCRAM-SHA-1", "n", ours), Some(ScramError::Mechanism(_))));
        assert!(matches!(bad(SCRAM_SHA_256, "x", None), Some(ScramError::Malformed(_))));
        // The flag cannot be changed afterwards: it is part of what is bound.
        let exchange = begin(SCRAM_SHA_256, "n,,n=,r=abc", None).unwrap();
        let last = client_final(&exchange, "pencil", &STANDARD.encode("y,,"));
        assert_eq!(exchange.finish(last.as_bytes()), Err(ScramError::Binding));
    }

    #[test]
    fn messages_out_of_shape_are_refused() {
        for first in [
            "",
            "n",
            "n,",
            "n,,",
            "n,a=other,n=,r=abc",
            "n,,m=x,n=,r=abc",
            "n,,n=",
            "n,,n=,r=",
            "n,,r=abc",
            "n,,n=,r=a\u{e9}",
        ] {
            assert!(matches!(begin(SCRAM_SHA_256, first, None), Err(ScramError::Malformed(_))), "{first}");
        }
        let long = format!("n,,n=,r={}", "a".repeat(MESSAGE_BYTES_MAX));
        assert!(matches!(begin(SCRAM_SHA_256, &long, None), Err(ScramError::Malformed(_))));
        for last in
            ["", "c=biws", "c=biws,r=abc", "r=abc,c=biws,p=AA==", "c=biws,p=AA==", &CLIENT_FINAL.replace("VQ=", "")]
        {
            let result = example(pencil()).finish(last.as_bytes());
            assert!(matches!(result, Err(ScramError::Malformed(_))), "{last}: {result:?}");
        }
        assert!(matches!(example(pencil()).finish(b"\xff"), Err(ScramError::Malformed(_))));
    }
}
