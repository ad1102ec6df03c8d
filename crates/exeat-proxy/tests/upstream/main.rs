//! The gateway's side of PostgreSQL logins, against real servers started for the test with TLS and SCRAM.
//! Needs the server's programs (package postgresql-15); says so when they are missing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod server;

use std::net::{IpAddr, UdpSocket};

use bytes::BytesMut;
use exeat_proxy::tls::{ClientCertificate, ServerTls};
use exeat_proxy::upstream::{
    CatalogConnection, Connected, LoginAuth, LoginConfig, Problem, TlsFiles, TlsMode, UpstreamConfig, UpstreamError,
    cancel, connect,
};
use exeat_store::secret::SecretSource;
use exeat_wire::{BackendMessage, encode, split_backend};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use self::server::Server;

// ---- asking

/// Rows of one query over a connection a session would own.
async fn ask(connected: &mut Connected, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
    let mut out = BytesMut::new();
    encode::query(&mut out, sql).unwrap();
    connected.stream.write_all(&out).await.unwrap();
    connected.stream.flush().await.unwrap();
    let (mut rows, mut error) = (Vec::new(), None);
    loop {
        while let Some(frame) = split_backend(&mut connected.buffer).unwrap() {
            match exeat_wire::backend::decode(frame).unwrap() {
                BackendMessage::DataRow(row) => rows.push(
                    row.cells()
                        .map(|cell| cell.unwrap().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()))
                        .collect(),
                ),
                BackendMessage::ErrorResponse(fields) => error = Some(fields.sqlstate().unwrap().into_owned()),
                BackendMessage::ReadyForQuery(_) => return error.map_or(Ok(rows), Err),
                _ => {}
            }
        }
        assert!(connected.stream.read_buf(&mut connected.buffer).await.unwrap() > 0, "the server closed");
    }
}

async fn single(connected: &mut Connected, sql: &str) -> String {
    ask(connected, sql).await.unwrap()[0][0].clone().unwrap()
}

fn problem(result: Result<Connected, UpstreamError>) -> Problem {
    match result {
        Ok(_) => panic!("connected"),
        Err(error) => error.problem,
    }
}

// ---- tests

#[tokio::test]
async fn the_right_password_logs_in_over_verified_tls() {
    let server = Server::shared();
    let mut connected = server.connect("localhost", TlsMode::VerifyFull, "reader").await.unwrap();
    assert!(connected.stream.is_tls());
    assert!(connected.server_version_num >= 150_000, "{}", connected.server_version_num);
    assert!(connected.buffer.is_empty());
    assert!(!connected.cancel_secret.is_empty());
    let parameter =
        |name: &str| connected.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    assert_eq!(parameter("client_encoding"), Some("UTF8"));
    assert_eq!(single(&mut connected, "SELECT current_user").await, "reader");
    assert_eq!(single(&mut connected, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await, "t");
    assert_eq!(single(&mut connected, "SELECT pg_backend_pid()").await, connected.backend_pid.to_string());
    assert_eq!(single(&mut connected, "SHOW server_version_num").await, connected.server_version_num.to_string());
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_shown() {
    let server = Server::shared();
    for user in ["reader", "nobody-there"] {
        let login = server.login_with(user, "hunter2-wrong");
        let error = connect(&server.config("localhost", TlsMode::VerifyFull), &login, &[]).await.unwrap_err();
        assert!(matches!(&error.problem, Problem::Refused { sqlstate, .. } if sqlstate == "28P01"), "{error}");
        let shown = format!("{error} {error:?} {login:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(error.to_string().contains(&format!("localhost:{}/postgres as \"{user}\"", server.port)), "{error}");
        assert_eq!(error.client_message("shop"), "target \"shop\" cannot be reached");
    }
}

#[tokio::test]
async fn verify_full_checks_name_and_authority() {
    let server = Server::shared();
    let by_address = server.connect("127.0.0.1", TlsMode::VerifyFull, "reader").await;
    assert!(matches!(problem(by_address), Problem::Handshake { .. }));
    let other_ca = Some(server.file("other-ca.pem"));
    let config = UpstreamConfig::new("localhost", server.port, "postgres", TlsMode::VerifyFull, other_ca).unwrap();
    let error = connect(&config, &server.login("reader"), &[]).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Handshake { .. }), "{error}");
    assert!(error.to_string().contains("ca file"), "{error}");
    // `require` does not look at either.
    assert!(server.connect("127.0.0.1", TlsMode::Require, "reader").await.is_ok());
}

#[tokio::test]
async fn a_server_without_tls_is_refused_unless_tls_is_off() {
    let server = Server::start(false);
    for mode in [TlsMode::VerifyFull, TlsMode::Require] {
        assert!(matches!(problem(server.connect("localhost", mode, "reader").await), Problem::TlsNotOffered));
    }
    let mut connected = server.connect("localhost", TlsMode::Off, "reader").await.unwrap();
    assert!(!connected.stream.is_tls());
    assert_eq!(single(&mut connected, "SELECT current_user").await, "reader");
}

#[tokio::test]
async fn weaker_ways_to_log_in_are_refused() {
    let server = Server::shared();
    for (user, method) in [("cleartext", "clear-text"), ("hashed", "MD5")] {
        for mode in [TlsMode::VerifyFull, TlsMode::Require, TlsMode::Off] {
            let problem = problem(server.connect("localhost", mode, user).await);
            let text = problem.to_string();
            assert!(matches!(problem, Problem::AuthenticationMethod { .. }) && text.contains(method), "{text}");
        }
    }
}

#[tokio::test]
async fn what_an_old_server_asks_for_is_given_where_the_login_says_so() {
    let server = Server::shared();
    for (user, auth) in [("cleartext", LoginAuth::Password), ("hashed", LoginAuth::Md5), ("trusting", LoginAuth::Trust)]
    {
        for mode in [TlsMode::VerifyFull, TlsMode::Require, TlsMode::Off] {
            let mut connected = server.connect_by(auth, "localhost", mode, user).await.unwrap();
            assert_eq!(single(&mut connected, "SELECT current_user").await, user);
        }
        // A server that knows SCRAM is never asked for less.
        if auth.needs_password() {
            assert!(server.connect_by(auth, "localhost", TlsMode::VerifyFull, "reader").await.is_ok());
        }
    }
    // One does not stand for another.
    for (user, auth) in [("cleartext", LoginAuth::Md5), ("hashed", LoginAuth::Password)] {
        let problem = problem(server.connect_by(auth, "localhost", TlsMode::VerifyFull, user).await);
        assert!(matches!(problem, Problem::AuthenticationMethod { .. }), "{problem}");
    }
    let problem = problem(server.connect_by(LoginAuth::Trust, "localhost", TlsMode::VerifyFull, "reader").await);
    assert!(matches!(problem, Problem::NoPassword { auth: "trust" }), "{problem}");
}

#[tokio::test]
async fn what_proves_nothing_of_the_server_is_given_to_a_verified_one_only() {
    let server = Server::shared();
    let Some(address) = own_address() else {
        eprintln!("not checked: this machine has no address besides loopback");
        return;
    };
    for (user, auth) in [("cleartext", LoginAuth::Password), ("hashed", LoginAuth::Md5), ("trusting", LoginAuth::Trust)]
    {
        let problem = problem(server.connect_by(auth, &address.to_string(), TlsMode::Require, user).await);
        assert!(matches!(problem, Problem::Unverified { .. }), "{problem}");
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_server_that_asks() {
    let server = Server::shared();
    let with = |name: Option<&str>| {
        let certificate = name.map(|name| ClientCertificate {
            cert: server.file(&format!("{name}.pem")),
            key: server.file(&format!("{name}.key")),
        });
        let files = TlsFiles { mode: TlsMode::VerifyFull, ca: Some(server.file("ca.pem")), certificate };
        UpstreamConfig::with_certificate("localhost", server.port, "postgres", files).unwrap()
    };
    let login = LoginConfig { auth: LoginAuth::Cert, password: None, ..server.login_with("bearer", "") };
    let mut connected = connect(&with(Some("bearer")), &login, &[]).await.unwrap();
    assert_eq!(single(&mut connected, "SELECT current_user").await, "bearer");
    // Another's certificate, and none.
    for name in [Some("reader"), None] {
        let problem = problem(connect(&with(name), &login, &[]).await);
        assert!(matches!(problem, Problem::Refused { .. }), "{problem}");
    }
}

#[tokio::test]
async fn a_login_without_authentication_is_accepted_on_loopback_only() {
    let server = Server::shared();
    assert!(server.connect("localhost", TlsMode::Off, "trusting").await.is_ok());
    let Some(address) = own_address() else {
        eprintln!("not checked: this machine has no address besides loopback");
        return;
    };
    let refused = server.connect(&address.to_string(), TlsMode::Require, "trusting").await;
    assert!(matches!(problem(refused), Problem::TrustRefused));
    assert!(server.connect(&address.to_string(), TlsMode::Require, "reader").await.is_ok());
}

/// The address this machine would use towards the network; nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback() && !address.is_unspecified())
}

#[tokio::test]
async fn settings_role_and_identity_arrive_and_survive_a_reset() {
    let server = Server::shared();
    let config = server.config("localhost", TlsMode::VerifyFull);
    let login = LoginConfig { role: Some("payments_ro".to_owned()), ..server.login("reader") };
    let parameters = [("application_name", "psql"), ("exeat.session", "s-1"), ("exeat.subject", "dana \"x\" 'y' ü")];
    let mut connected = connect(&config, &login, &parameters).await.unwrap();
    for statement in ["SELECT 1", "RESET ALL", "DISCARD ALL"] {
        ask(&mut connected, statement).await.unwrap();
        assert_eq!(single(&mut connected, "SELECT current_user").await, "payments_ro", "after {statement}");
        assert_eq!(single(&mut connected, "SHOW application_name").await, "psql");
        assert_eq!(single(&mut connected, "SHOW exeat.session").await, "s-1");
        assert_eq!(single(&mut connected, "SHOW exeat.subject").await, "dana \"x\" 'y' ü");
    }
    let missing = LoginConfig { role: Some("nowhere".to_owned()), ..server.login("reader") };
    assert!(matches!(problem(connect(&config, &missing, &[]).await), Problem::Refused { .. }));
}

#[tokio::test]
async fn parameters_that_would_change_who_we_are_are_refused() {
    let server = Server::shared();
    let config = server.config("localhost", TlsMode::VerifyFull);
    for name in ["user", "database", "replication", "role", "ROLE"] {
        let result = connect(&config, &server.login("reader"), &[(name, "admin")]).await;
        assert!(matches!(problem(result), Problem::ReservedParameter { .. }), "{name}");
    }
    let nul = connect(&config, &server.login("reader"), &[("exeat.subject", "a\0user\0admin")]).await;
    assert!(matches!(problem(nul), Problem::Encode(_)));
}

#[tokio::test]
async fn what_the_server_says_about_a_missing_database_reaches_the_log_text() {
    let server = Server::shared();
    let ca = Some(server.file("ca.pem"));
    let config = UpstreamConfig::new("localhost", server.port, "nowhere", TlsMode::VerifyFull, ca).unwrap();
    let error = connect(&config, &server.login("reader"), &[]).await.unwrap_err().to_string();
    assert!(error.contains("nowhere") && error.contains("3D000") && error.contains("create the database"), "{error}");
}

#[tokio::test]
async fn a_port_nobody_listens_on_is_named() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Server::shared();
    let config = UpstreamConfig::new("127.0.0.1", port, "postgres", TlsMode::Off, None).unwrap();
    let error = connect(&config, &server.login("reader"), &[]).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Connect { .. }), "{error}");
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}

#[tokio::test]
async fn an_unreadable_password_stops_the_login_before_the_network() {
    let config = UpstreamConfig::new("127.0.0.1", 1, "postgres", TlsMode::Off, None).unwrap();
    let server = Server::shared();
    let login =
        LoginConfig { password: Some(SecretSource::File("/nowhere/password".into())), ..server.login("reader") };
    let error = connect(&config, &login, &[]).await.unwrap_err();
    assert!(matches!(error.problem, Problem::Password { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_answers_in_its_own_way_is_not_postgresql() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let peer = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    let server = Server::shared();
    let config = UpstreamConfig::new("localhost", port, "postgres", TlsMode::Require, None).unwrap();
    let result = connect(&config, &server.login("reader"), &[]).await;
    assert!(matches!(problem(result), Problem::NotPostgres { byte: b'H' }));
    peer.await.unwrap();
}

/// What somebody on the network does between gateway and server, with a certificate of his own.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Attack {
    Relay,
    /// He also removes SCRAM-SHA-256-PLUS from the server's offer.
    StrikeOut,
    /// He speaks plain text to the server, which then has no channel to bind to.
    PlainText,
}

async fn man_in_the_middle(server: &Server, attack: Attack) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor =
        ServerTls::load(&server.file("relay.pem"), &server.file("relay.key"), None).unwrap().offer().acceptor();
    let (server_port, ca) = (server.port, server.file("ca.pem"));
    tokio::spawn(async move {
        let (mut victim, _) = listener.accept().await.unwrap();
        victim.read_exact(&mut [0; 8]).await.unwrap();
        victim.write_all(b"S").await.unwrap();
        let mut victim = acceptor.accept(victim).await.unwrap();
        let mut real = TcpStream::connect(("127.0.0.1", server_port)).await.unwrap();
        if attack == Attack::PlainText {
            let _ = copy_bidirectional(&mut victim, &mut real).await;
            return;
        }
        let mut request = BytesMut::new();
        encode::ssl_request(&mut request);
        real.write_all(&request).await.unwrap();
        real.read_exact(&mut [0; 1]).await.unwrap();
        let trust = exeat_proxy::tls::Trust::Full(exeat_proxy::tls::Roots::File(ca));
        let connector = TlsConnector::from(exeat_proxy::tls::client_config(&trust, &[]).unwrap());
        let mut real = connector.connect("localhost".try_into().unwrap(), real).await.unwrap();
        if attack == Attack::StrikeOut {
            let mut startup = BytesMut::new();
            victim.read_buf(&mut startup).await.unwrap();
            real.write_all(&startup).await.unwrap();
            let mut offer = BytesMut::new();
            while split_backend(&mut offer.clone()).unwrap().is_none() {
                real.read_buf(&mut offer).await.unwrap();
            }
            assert!(offer.windows(4).any(|window| window == b"PLUS"), "the server offers no channel binding");
            offer.clear();
            encode::authentication_sasl(&mut offer, &["SCRAM-SHA-256"]).unwrap();
            victim.write_all(&offer).await.unwrap();
            victim.flush().await.unwrap();
        }
        let _ = copy_bidirectional(&mut victim, &mut real).await;
    });
    port
}

async fn connect_through(server: &Server, attack: Attack, mode: TlsMode) -> Result<Connected, UpstreamError> {
    let port = man_in_the_middle(server, attack).await;
    let ca = (mode == TlsMode::VerifyFull).then(|| server.file("ca.pem"));
    let config = UpstreamConfig::new("localhost", port, "postgres", mode, ca).unwrap();
    connect(&config, &server.login("reader"), &[]).await
}

#[tokio::test]
async fn channel_binding_stops_a_man_in_the_middle_even_with_a_certificate_we_trust() {
    let server = Server::shared();
    for attack in [Attack::Relay, Attack::StrikeOut] {
        let problem = problem(connect_through(&server, attack, TlsMode::VerifyFull).await);
        assert!(matches!(&problem, Problem::Refused { sqlstate, .. } if sqlstate == "28000"), "{attack:?}: {problem}");
    }
    // Without a binding to the channel the same man gets through: here only the certificate could have stopped him.
    assert!(connect_through(&server, Attack::PlainText, TlsMode::VerifyFull).await.is_ok());
}

#[tokio::test]
async fn require_makes_no_exchange_that_is_not_bound_to_the_channel() {
    let server = Server::shared();
    let problem_of = async |attack| problem(connect_through(&server, attack, TlsMode::Require).await);
    assert!(matches!(problem_of(Attack::Relay).await, Problem::Refused { .. }));
    assert!(matches!(problem_of(Attack::StrikeOut).await, Problem::NoChannelBinding { .. }));
    assert!(matches!(problem_of(Attack::PlainText).await, Problem::NoChannelBinding { .. }));
}

#[tokio::test]
async fn a_cancel_request_stops_the_statement_it_names_and_no_other() {
    let server = Server::shared();
    let config = server.config("localhost", TlsMode::VerifyFull);
    let mut connected = server.connect("localhost", TlsMode::VerifyFull, "reader").await.unwrap();
    let (pid, secret) = (connected.backend_pid, connected.cancel_secret.clone());
    let mut watcher = CatalogConnection::connect(&config, &server.login("admin")).await.unwrap();
    let running = tokio::spawn(async move { ask(&mut connected, "SELECT pg_sleep(600)").await });
    let query = format!("SELECT 1 FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'");
    while watcher.query(&query).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    // The server answers neither; only the right secret does anything.
    cancel(&config, pid, &[0, 0, 0, 0]).await.unwrap();
    assert_eq!(watcher.query(&query).await.unwrap().len(), 1);
    cancel(&config, pid, &secret).await.unwrap();
    assert_eq!(running.await.unwrap(), Err("57014".to_owned()));
}

#[tokio::test]
async fn the_catalog_connection_reads_and_only_reads() {
    let server = Server::shared();
    let config = server.config("localhost", TlsMode::VerifyFull);
    let mut catalog = CatalogConnection::connect(&config, &server.login("admin")).await.unwrap();
    let rows = catalog.query("SELECT 'ä', NULL, 42 UNION ALL SELECT '', 'x', 0 ORDER BY 3 DESC").await.unwrap();
    let text = |value: &str| Some(value.to_owned());
    assert_eq!(rows, [vec![text("ä"), None, text("42")], vec![text(""), text("x"), text("0")]]);
    assert_eq!(catalog.query("BEGIN; SELECT 1; SELECT 2; COMMIT").await.unwrap(), [[text("2")]]);
    assert!(catalog.query("").await.unwrap().is_empty());

    let error = catalog.query("CREATE TABLE t ()").await.unwrap_err();
    assert!(matches!(&error.problem, Problem::Refused { sqlstate, .. } if sqlstate == "25006"), "{error}");
    assert_eq!(catalog.query("SHOW search_path").await.unwrap(), [[text("pg_catalog")]]);

    let copy = catalog.query("COPY (SELECT 1) TO STDOUT").await.unwrap_err();
    assert!(matches!(copy.problem, Problem::Unexpected { .. }), "{copy}");
    assert!(matches!(catalog.query("SELECT 1").await.unwrap_err().problem, Problem::Unfinished));
}
