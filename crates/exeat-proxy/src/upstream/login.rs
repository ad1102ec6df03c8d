//! From nothing to a server that is ready for a query: TCP, TLS, startup, SCRAM, parameters. One deadline over all
//! of it, so that a server that stalls anywhere costs one bounded wait.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use exeat_store::secret::{SecretSource, SecretString};
use exeat_wire::fields::Fields;
use exeat_wire::{Authentication, BackendMessage, encode, split_backend};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::config::{LoginAuth, LoginConfig, TlsMode, UpstreamConfig};
use super::error::{Problem, UpstreamError};
use super::stream::UpstreamStream;
use crate::tls::server_end_point;

/// Startup to ReadyForQuery. The server's own authentication_timeout is 60 s; our clients wait for us.
const LOGIN_DEADLINE: Duration = Duration::from_secs(20);
/// A cancel is worth nothing when it comes late.
const CANCEL_DEADLINE: Duration = Duration::from_secs(10);

/// A real login answers with some 2 KiB; a server that sends more before it is ready wants our memory.
const LOGIN_BYTES_MAX: usize = 256 * 1024;

const LOGGING_IN: &str = "logging in";

/// A server ready for its first query.
#[derive(Debug)]
pub struct Connected {
    pub stream: UpstreamStream,
    /// What was read after ReadyForQuery, usually nothing: the first bytes the session must decode.
    pub buffer: BytesMut,
    /// ParameterStatus in the order received, the last value of each name.
    pub parameters: Vec<(String, String)>,
    pub backend_pid: i32,
    pub cancel_secret: Bytes,
    /// Like the server's own `server_version_num`: 150014 for 15.14.
    pub server_version_num: u32,
}

/// Connects and logs in. `parameters` are run-time settings for the startup packet (`application_name`,
/// `exeat.session`, …); user, database and role come from the configuration.
pub async fn connect(
    config: &UpstreamConfig,
    login: &LoginConfig,
    parameters: &[(&str, &str)],
) -> Result<Connected, UpstreamError> {
    try_connect(config, login, parameters).await.map_err(|problem| in_context(config, &login.user, problem))
}

/// Asks the server to cancel what backend `pid` runs: a connection of its own, with TLS as configured. Returns when
/// the server has taken the request, which says nothing about its success.
pub async fn cancel(config: &UpstreamConfig, pid: i32, secret: &[u8]) -> Result<(), UpstreamError> {
    let stage = "sending a cancel request";
    let request = async {
        let _slot = config.cancel_slot().await;
        let mut stream = UpstreamStream::open(config).await?;
        let mut out = BytesMut::new();
        encode::cancel_request(&mut out, pid, secret)?;
        write(&mut stream, &out, stage).await?;
        // The server closes once it has signalled the backend; until then the request may still be on its way.
        let mut rest = [0; 64];
        while matches!(stream.read(&mut rest).await, Ok(read) if read > 0) {}
        Ok(())
    };
    within(CANCEL_DEADLINE, stage, request).await.map_err(|problem| in_context(config, "", problem))
}

pub(super) fn in_context(config: &UpstreamConfig, user: &str, problem: Problem) -> UpstreamError {
    let server = format!("{}:{}/{}", config.host(), config.port(), config.database());
    UpstreamError { server, user: user.to_owned(), problem }
}

pub(super) async fn within<T>(
    limit: Duration,
    stage: &'static str,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(Problem::Deadline { stage, limit }),
    }
}

pub(super) async fn write(stream: &mut UpstreamStream, bytes: &[u8], stage: &'static str) -> Result<(), Problem> {
    let lost = |cause| Problem::Lost { stage, cause };
    stream.write_all(bytes).await.map_err(lost)?;
    stream.flush().await.map_err(lost)
}

pub(super) fn refused(fields: &Fields) -> Problem {
    Problem::Refused {
        sqlstate: fields.sqlstate().unwrap_or_default().into_owned(),
        message: fields.message().unwrap_or_default().into_owned(),
    }
}

async fn try_connect(
    config: &UpstreamConfig,
    login: &LoginConfig,
    parameters: &[(&str, &str)],
) -> Result<Connected, Problem> {
    let startup = startup_packet(config, login, parameters)?;
    let password = match &login.password {
        Some(source) => Some(read_password(source).await?),
        None => None,
    };
    let stream = within(config.transport().connect_timeout, "connecting", UpstreamStream::open(config)).await?;
    let mut handshake = Handshake { stream, buffer: BytesMut::new(), read_bytes: 0 };
    let login = async {
        write(&mut handshake.stream, &startup, LOGGING_IN).await?;
        handshake.authenticate(login, password.as_ref(), config.mode()).await?;
        handshake.await_ready().await
    };
    within(LOGIN_DEADLINE, LOGGING_IN, login).await
}

/// These decide who we are and what the connection is; a client's value must never reach them.
const RESERVED: [&str; 4] = ["user", "database", "replication", "role"];

fn startup_packet(
    config: &UpstreamConfig,
    login: &LoginConfig,
    parameters: &[(&str, &str)],
) -> Result<BytesMut, Problem> {
    let is_reserved = |name: &str| RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved));
    if let Some((name, _)) = parameters.iter().find(|(name, _)| is_reserved(name)) {
        return Err(Problem::ReservedParameter { name: (*name).to_owned() });
    }
    let mut all = vec![("user", login.user.as_str()), ("database", config.database())];
    if let Some(role) = &login.role {
        all.push(("role", role));
    }
    all.extend_from_slice(parameters);
    let mut packet = BytesMut::new();
    encode::startup(&mut packet, 0, &all)?;
    Ok(packet)
}

/// A password command may take seconds: not on a thread that drives sessions.
async fn read_password(source: &SecretSource) -> Result<SecretString, Problem> {
    let (reader, origin) = (source.clone(), source.to_string());
    match tokio::task::spawn_blocking(move || reader.resolve()).await {
        Ok(Ok(password)) => Ok(password),
        Ok(Err(cause)) => Err(Problem::Password { origin, cause }),
        Err(stopped) => Err(Problem::Lost { stage: "reading the password", cause: std::io::Error::other(stopped) }),
    }
}

/// A login under way.
struct Handshake {
    stream: UpstreamStream,
    buffer: BytesMut,
    read_bytes: usize,
}

impl Handshake {
    /// The next message, notices left out: nobody is there yet to read them.
    async fn receive(&mut self) -> Result<BackendMessage, Problem> {
        loop {
            if let Some(frame) = split_backend(&mut self.buffer)? {
                match exeat_wire::backend::decode(frame)? {
                    BackendMessage::NoticeResponse(_) => continue,
                    BackendMessage::ErrorResponse(fields) => return Err(refused(&fields)),
                    message => return Ok(message),
                }
            }
            if self.read_bytes > LOGIN_BYTES_MAX {
                return Err(Problem::TooMuch { limit: LOGIN_BYTES_MAX, unit: "bytes", stage: LOGGING_IN });
            }
            let lost = |cause| Problem::Lost { stage: LOGGING_IN, cause };
            match self.stream.read_buf(&mut self.buffer).await.map_err(lost)? {
                0 => return Err(Problem::Closed { stage: LOGGING_IN }),
                read => self.read_bytes += read,
            }
        }
    }

    async fn receive_authentication(&mut self) -> Result<Authentication, Problem> {
        match self.receive().await? {
            BackendMessage::Authentication(request) => Ok(request),
            other => Err(Problem::Unexpected { message: other.name(), stage: LOGGING_IN }),
        }
    }

    async fn authenticate(
        &mut self,
        login: &LoginConfig,
        password: Option<&SecretString>,
        mode: TlsMode,
    ) -> Result<(), Problem> {
        let unasked = || Problem::NoPassword { auth: login.auth.as_str() };
        match self.receive_authentication().await? {
            Authentication::Sasl { mechanisms } => {
                let offered: Vec<&str> = mechanisms.iter().map(|name| name.as_str()).collect();
                let (mechanism, binding) = self.choose_mechanism(&offered, mode)?;
                self.scram(password.ok_or_else(unasked)?, mechanism, binding).await
            }
            // Anybody on this machine could be let in as anybody: tolerable for development, nowhere else.
            Authentication::Ok if self.stream.peer_is_loopback() => Ok(()),
            Authentication::Ok => match login.auth {
                LoginAuth::Trust | LoginAuth::Cert => self.verified(mode, login.auth.as_str()),
                LoginAuth::Scram | LoginAuth::Md5 | LoginAuth::Password => Err(Problem::TrustRefused),
            },
            Authentication::CleartextPassword if login.auth == LoginAuth::Password => {
                self.verified(mode, "clear-text password")?;
                self.give(password.ok_or_else(unasked)?.expose()).await
            }
            Authentication::Md5 { salt } if login.auth == LoginAuth::Md5 => {
                self.verified(mode, "MD5 password")?;
                let password = password.ok_or_else(unasked)?.expose();
                self.give(&md5_hash(login.user.as_bytes(), password.as_bytes(), salt)).await
            }
            Authentication::CleartextPassword => Err(unsupported("clear-text password")),
            Authentication::Md5 { .. } => Err(unsupported("MD5 password")),
            Authentication::Other(number) => Err(unsupported(&format!("number {number}"))),
            Authentication::SaslContinue(_) | Authentication::SaslFinal(_) => {
                Err(Problem::Unexpected { message: "SASL message", stage: LOGGING_IN })
            }
        }
    }

    /// What proves nothing of the server is for servers that something else has proved.
    fn verified(&self, mode: TlsMode, method: &'static str) -> Result<(), Problem> {
        match mode {
            TlsMode::VerifyFull => Ok(()),
            TlsMode::Require | TlsMode::Off if self.stream.peer_is_loopback() => Ok(()),
            TlsMode::Require | TlsMode::Off => Err(Problem::Unverified { method }),
        }
    }

    /// A password as the server asked for it.
    async fn give(&mut self, password: &str) -> Result<(), Problem> {
        let mut out = BytesMut::new();
        encode::password(&mut out, password)?;
        write(&mut self.stream, &out, LOGGING_IN).await?;
        match self.receive_authentication().await? {
            Authentication::Ok => Ok(()),
            _ => Err(Problem::Unexpected { message: "another authentication request", stage: LOGGING_IN }),
        }
    }

    /// Binds the exchange to the server's certificate where both sides can. Saying "could have, you did not offer"
    /// (flag `y`) makes a server notice when somebody between us struck the offer out.
    ///
    /// In `require` nothing else tells the server from somebody in between, so there is no exchange without it: he
    /// could show us any certificate and speak plain text to the server, which then offers no binding and believes `y`.
    fn choose_mechanism(&self, offered: &[&str], mode: TlsMode) -> Result<(&'static str, ChannelBinding), Problem> {
        let (plain, bound) = (offered.contains(&SCRAM_SHA_256), offered.contains(&SCRAM_SHA_256_PLUS));
        let endpoint = self.stream.certificate().and_then(|certificate| server_end_point(certificate));
        let why = if bound { "its certificate is signed with Ed25519 or RSA-PSS" } else { "it does not offer it" };
        match (endpoint, mode) {
            (Some(endpoint), _) if bound => Ok((SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(endpoint))),
            (_, TlsMode::Require) => Err(Problem::NoChannelBinding { why }),
            (Some(_), _) if plain => Ok((SCRAM_SHA_256, ChannelBinding::unrequested())),
            (None, _) if plain => Ok((SCRAM_SHA_256, ChannelBinding::unsupported())),
            _ => Err(unsupported(&format!("SASL {}", offered.join(", ")))),
        }
    }

    async fn scram(
        &mut self,
        password: &SecretString,
        mechanism: &str,
        binding: ChannelBinding,
    ) -> Result<(), Problem> {
        let failed = |error: std::io::Error| Problem::Scram { reason: error.to_string() };
        let out_of_turn = |_| Problem::Unexpected { message: "another authentication request", stage: LOGGING_IN };
        let mut scram = ScramSha256::new(password.expose().as_bytes(), binding);

        let mut out = BytesMut::new();
        encode::sasl_initial_response(&mut out, mechanism, scram.message())?;
        write(&mut self.stream, &out, LOGGING_IN).await?;
        let challenge = match self.receive_authentication().await? {
            Authentication::SaslContinue(challenge) => challenge,
            other => return Err(out_of_turn(other)),
        };
        scram.update(&challenge).map_err(failed)?;

        out.clear();
        encode::sasl_response(&mut out, scram.message())?;
        write(&mut self.stream, &out, LOGGING_IN).await?;
        let proof = match self.receive_authentication().await? {
            Authentication::SaslFinal(proof) => proof,
            other => return Err(out_of_turn(other)),
        };
        // The server's own proof: without it anybody could have said "ok".
        scram.finish(&proof).map_err(failed)?;
        match self.receive_authentication().await? {
            Authentication::Ok => Ok(()),
            other => Err(out_of_turn(other)),
        }
    }

    async fn await_ready(mut self) -> Result<Connected, Problem> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        let mut key = None;
        loop {
            match self.receive().await? {
                BackendMessage::ParameterStatus { name, value, .. } => {
                    parameters.retain(|(known, _)| known != name.as_str());
                    parameters.push((name.as_str().to_owned(), value.as_str().to_owned()));
                }
                BackendMessage::BackendKeyData { pid, secret } => key = Some((pid, secret)),
                BackendMessage::ReadyForQuery(_) => break,
                other => return Err(Problem::Unexpected { message: other.name(), stage: LOGGING_IN }),
            }
        }
        let (backend_pid, cancel_secret) =
            key.ok_or(Problem::Unexpected { message: "ReadyForQuery without BackendKeyData", stage: LOGGING_IN })?;
        let version = parameters.iter().find(|(name, _)| name == "server_version").map_or("", |(_, value)| value);
        let server_version_num =
            version_number(version).ok_or_else(|| Problem::Version { version: version.to_owned() })?;
        Ok(Connected {
            stream: self.stream,
            buffer: self.buffer,
            parameters,
            backend_pid,
            cancel_secret,
            server_version_num,
        })
    }
}

fn unsupported(method: &str) -> Problem {
    Problem::AuthenticationMethod { method: method.to_owned() }
}

/// "15.14 (Debian 15.14-0+deb12u1)" is 150014, "18beta1" is 180000, "9.6.24" is 90624.
fn version_number(version: &str) -> Option<u32> {
    let numbers = version.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    let mut parts = numbers.split('.').map(|part| part.parse::<u32>().ok().filter(|number| *number < 10_000));
    let major = parts.next()??;
    let second = parts.next().unwrap_or(Some(0))?;
    let third = parts.next().unwrap_or(Some(0))?;
    let minor = if major >= 10 { second } else { second.checked_mul(100)?.checked_add(third)? };
    major.checked_mul(10_000)?.checked_add(minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_never_answers_costs_one_bounded_wait() {
        let limit = Duration::from_millis(1);
        let waited = within(limit, LOGGING_IN, std::future::pending::<Result<(), Problem>>()).await;
        assert!(matches!(waited, Err(Problem::Deadline { stage: LOGGING_IN, .. })));
        assert!(within(limit, LOGGING_IN, async { Ok(()) }).await.is_ok());
    }

    #[test]
    fn versions_read_like_server_version_num() {
        for (text, number) in [
            ("15.14 (Debian 15.14-0+deb12u1)", Some(150_014)),
            ("18.0", Some(180_000)),
            ("18beta1", Some(180_000)),
            ("17devel", Some(170_000)),
            ("9.6.24", Some(90_624)),
            ("", None),
            ("unknown", None),
            ("99999999999.1", None),
        ] {
            assert_eq!(version_number(text), number, "{text}");
        }
    }
}
