//! `exeat audit rotate-key`, `erase`, `hold`, `release` and `holds`: what is done to the record itself, at a running gateway by its console and with the caller's own
//! token, or in the folder of one that stands still.

use std::path::Path;
use std::sync::Arc;

use exeat_console::record::rotated_view;
use exeat_store::StoreError;
use exeat_store::keys::KeySet;
use exeat_store::record::{Recorder, RecorderConfig};
use reqwest::Method;
use serde_json::Map;

use super::remote::{Answer, Call, RemoteError, ask, finish, wish};
use crate::cli::keeping::{EraseArgs, HoldArgs, HoldsArgs, RotateKeyArgs};
use crate::config::{Config, ConfigError};
use crate::exit::Exit;

#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepingError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the gateway is running; leave --config out to ask it by its console")]
    Running,
    #[error("there is no record in data_dir yet; start the gateway once")]
    NoRecord,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

pub(crate) async fn rotate_key(args: RotateKeyArgs) -> Result<Exit, KeepingError> {
    let answer = match &args.config {
        None => ask(&args.remote, Call::post("/v1/record/rotate-key", Map::new())).await?,
        Some(config) => Answer::Done(rotate_beside(config)?),
    };
    Ok(finish(answer, args.remote.json)?)
}

pub(crate) async fn erase(args: EraseArgs) -> Result<Exit, RemoteError> {
    let EraseArgs { whose, issuer, before, reason, remote } = args;
    let members = [
        ("session", &whose.session),
        ("principal", &whose.principal),
        ("issuer", &issuer),
        ("before", &before),
        ("reason", &Some(reason)),
    ];
    let answer = ask(&remote, Call::post("/v1/record/erasures", wish(&members))).await?;
    finish(answer, remote.json)
}

pub(crate) async fn hold(args: HoldArgs, path: &str) -> Result<Exit, RemoteError> {
    let HoldArgs { whose, issuer, reason, remote } = args;
    let members =
        [("session", &whose.session), ("principal", &whose.principal), ("issuer", &issuer), ("reason", &Some(reason))];
    let answer = ask(&remote, Call::post(path, wish(&members))).await?;
    finish(answer, remote.json)
}

pub(crate) async fn holds(args: HoldsArgs) -> Result<Exit, RemoteError> {
    let call = Call { method: Method::GET, path: "/v1/record/holds".to_owned(), body: None };
    let answer = ask(&args.remote, call).await?;
    finish(answer, args.remote.json)
}

fn rotate_beside(file: &Path) -> Result<serde_json::Value, KeepingError> {
    let config = Config::load(file)?;
    if !config.data_dir.join("log").exists() {
        return Err(KeepingError::NoRecord);
    }
    let keys = Arc::new(KeySet::open(&config.keys, &config.data_dir)?);
    let recorder =
        RecorderConfig { data_dir: config.data_dir, gateway: config.name, durability: config.audit.durability };
    let recorder = Recorder::open(&recorder, keys).map_err(|problem| match problem {
        StoreError::Locked { .. } => KeepingError::Running,
        problem => KeepingError::Store(problem),
    })?;
    Ok(rotated_view(&recorder.rotate_key(None)?))
}
