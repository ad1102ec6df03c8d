//! `exeat demo`: the whole product in one process, on a sample database, with nothing left behind.
//!
//! What runs is what `serve` runs, from a configuration file written for it: the gateway knows nothing of the demo.
//! Three things are the demo's own and exist nowhere else: a PostgreSQL (or a database in one that is given), a
//! certificate authority, and an issuer of tokens whose key never leaves this process's memory.

mod certificates;
mod database;
mod files;
mod keeper;
mod postgres;
mod tokens;
mod tour;

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use exeat_proxy::server::ServeError;
use exeat_store::secret::SecretSource;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::signal::unix::{SignalKind, signal};

use self::certificates::CertificateError;
use self::database::{DatabaseError, Passwords, Server};
use self::files::{Draft, FileError, Files};
use self::keeper::{Keeper, KeeperError};
use self::postgres::{Postgres, PostgresError};
use self::tokens::{AGENT, Issuer, OFFICER, TokenError};
use self::tour::{Psql, TourError};
use crate::cli::DemoArgs;
use crate::commands::serve::Signals;
use crate::config::{Config, ConfigError};
use crate::exit::{self, Exit};
use crate::gateway::{Gateway, StartError};

const PREFERRED_PORT: u16 = 6432;

/// A cluster on a busy machine takes a few seconds.
const SERVER_SECONDS_MAX: u64 = 60;
const READY_SECONDS_MAX: u64 = 30;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Bytes of randomness in a password.
const PASSWORD_BYTES: usize = 24;

#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Tour(#[from] TourError),
    #[error("the demo's PostgreSQL took no connection within {SERVER_SECONDS_MAX} s")]
    ServerSlow,
    #[error("the gateway was not ready within {READY_SECONDS_MAX} s: {state}")]
    NotReady { state: String },
    #[error("port {port} on 127.0.0.1 is taken; give another with --port, or leave it out")]
    PortTaken { port: u16, source: std::io::Error },
    #[error("could not listen for signals")]
    Signals(#[source] std::io::Error),
    #[error("could not write to standard output")]
    Output(#[source] std::io::Error),
    #[error("the system gives no randomness")]
    Random,
}

/// What has been started so far, and how to end it. Every road out of the demo goes through [`Stage::clear`].
struct Stage {
    keeper: Keeper,
    postgres: Option<Postgres>,
    /// A server that is not ours and has our database in it.
    guest: Option<Server>,
    gateway: Option<Gateway>,
}

pub(crate) async fn run(args: DemoArgs) -> Result<Exit, DemoError> {
    let mut signals = Signals::listen().map_err(DemoError::Signals)?;
    // A closed terminal ends a demo too, and a database in somebody else's server must not stay there.
    let mut hangup = signal(SignalKind::hangup()).map_err(DemoError::Signals)?;
    let mut stage = Stage { keeper: Keeper::start()?, postgres: None, guest: None, gateway: None };
    let played = tokio::select! {
        played = play(&mut stage, &args) => played,
        _ = signals.next() => Ok(()),
        _ = hangup.recv() => Ok(()),
    };
    let cleared = stage.clear().await;
    played?;
    cleared?;
    Ok(Exit::Ok)
}

/// From the empty stage to the end of the tour, or until somebody ends it.
async fn play(stage: &mut Stage, args: &DemoArgs) -> Result<(), DemoError> {
    refuse_taken(args.port)?;
    let files = Files::make(stage.keeper.folder())?;
    let (server, database) = stage.server(args.database_url.as_deref(), &files).await?;
    let passwords = Passwords { reader: random_text()?, officer: random_text()? };
    server.install(&database, &passwords).await?;

    let issuer = Issuer::new()?;
    let certificates = certificates::make(stage.keeper.folder(), "localhost")?;
    let draft = files.write(&files::Contents {
        certificates: &certificates,
        jwks: &issuer.jwks()?,
        server: &server,
        database: &database,
        passwords: &passwords,
    })?;
    let gateway = start_gateway(&files, &draft, args.port).await?;
    let (address, health) = (gateway.address, std::sync::Arc::clone(&gateway.health));
    let console = gateway.console;
    stage.gateway = Some(gateway);
    wait_ready(&health).await?;

    let programs = stage.postgres.as_ref().map(|postgres| postgres.programs.clone());
    let psql = Psql::new(programs, address.port(), &certificates.authority);
    let (agent, officer) = (issuer.token(AGENT)?, issuer.token(OFFICER)?);
    if args.try_out {
        tour::run(&psql, &agent, &officer, &files)?;
        return Ok(());
    }
    let text = tour::invitation(&psql, &agent, &officer, &files, console);
    exit::print(&text).map_err(DemoError::Output)?;
    std::future::pending().await
}

impl Stage {
    /// A server to put the shop in, and the name it will have there.
    async fn server(&mut self, url: Option<&str>, files: &Files) -> Result<(Server, String), DemoError> {
        if let Some(url) = url {
            let mut kept = Ok(PathBuf::new());
            let server = Server::from_url(url, |password| {
                kept = files.secret("administrator.password", password);
                SecretSource::File(kept.as_ref().cloned().unwrap_or_default())
            })?;
            kept?;
            let database = "exeat_demo_shop".to_owned();
            server.refuse_taken(&database).await?;
            self.guest = Some(server.clone());
            return Ok((server, database));
        }
        let password = random_text()?;
        let kept = files.secret("administrator.password", &password)?;
        let postgres = self.postgres.insert(Postgres::start(&mut self.keeper, &password)?);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(SERVER_SECONDS_MAX);
        loop {
            let server = Server::own(postgres.port, postgres::SUPERUSER, kept.clone());
            if server.ping().await.is_ok() {
                return Ok((server, "shop".to_owned()));
            }
            postgres.keep_alive(&mut self.keeper)?;
            if tokio::time::Instant::now() > deadline {
                return Err(DemoError::ServerSlow);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn clear(mut self) -> Result<(), DemoError> {
        if let Some(gateway) = self.gateway.take() {
            gateway.stop().await;
        }
        let removed = match &self.guest {
            Some(server) => server.remove("exeat_demo_shop").await,
            None => Ok(()),
        };
        self.keeper.release();
        if let Some(postgres) = self.postgres.take() {
            postgres.reap();
        }
        drop(self.keeper);
        Ok(removed?)
    }
}

async fn wait_ready(health: &crate::readiness::Health) -> Result<(), DemoError> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(READY_SECONDS_MAX);
    loop {
        let readiness = health.readiness();
        if readiness.is_ready() {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            return Err(DemoError::NotReady { state: readiness.to_json().to_string() });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// On the port asked for; else on the gateway's usual one if nobody holds it; else on any.
async fn start_gateway(files: &Files, draft: &Draft, asked: Option<u16>) -> Result<Gateway, DemoError> {
    files.write_config(draft, asked.unwrap_or(PREFERRED_PORT))?;
    match Gateway::start(Config::load(&files.config)?).await {
        Err(StartError::Serve(ServeError::Listen { .. })) if asked.is_none() => {
            files.write_config(draft, 0)?;
            Ok(Gateway::start(Config::load(&files.config)?).await?)
        }
        started => Ok(started?),
    }
}

/// Said before a database is made for nothing.
fn refuse_taken(asked: Option<u16>) -> Result<(), DemoError> {
    let Some(port) = asked else { return Ok(()) };
    TcpListener::bind(("127.0.0.1", port)).map(drop).map_err(|source| DemoError::PortTaken { port, source })
}

/// Letters, digits, `-` and `_`: needs no quoting anywhere.
fn random_text() -> Result<String, DemoError> {
    let mut bytes = [0; PASSWORD_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| DemoError::Random)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
