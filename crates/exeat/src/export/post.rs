//! Exports over HTTP: a batch is one POST, and what was answered with 2xx was taken.

use std::time::Duration;

use exeat_store::secret::SecretSource;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Url};

use super::reader::Told;
use super::{Delivered, ExportError, PostConfig, otlp};
use crate::outbound;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Of an answer, so much is looked at.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

pub(super) enum Form {
    /// Each line as it stands, with a line break.
    Lines,
    /// For the gateway of this name.
    Otlp(String),
}

pub(super) struct Post {
    client: Client,
    url: Url,
    headers: HeaderMap,
    form: Form,
}

impl Post {
    /// Reads what is configured; a receiver that refuses gets it read again.
    pub(super) fn new(config: &PostConfig, form: Form) -> Result<Self, ExportError> {
        let mut url = outbound::address(&config.url)?;
        if let Form::Otlp(_) = form
            && url.path().trim_end_matches('/').is_empty()
        {
            url.set_path(otlp::PATH);
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let (key, value) = header(name, value)?;
            headers.insert(key, value);
        }
        let kind = match form {
            Form::Lines => "application/x-ndjson",
            Form::Otlp(_) => "application/json",
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        let client = outbound::client(&url, config.ca.as_deref(), (CONNECT_TIMEOUT, ANSWER_TIMEOUT))?;
        Ok(Self { client, url, headers, form })
    }

    pub(super) async fn tell(&self, batch: &[Told]) -> Result<Delivered, ExportError> {
        let body = match &self.form {
            Form::Lines => batch.iter().flat_map(|told| [told.text.as_str(), "\n"]).collect(),
            Form::Otlp(gateway) => otlp::body(batch, gateway).to_string(),
        };
        let post = self.client.post(self.url.clone()).headers(self.headers.clone()).body(body);
        let mut answer = post.send().await.map_err(|problem| ExportError::Post(problem.without_url()))?;
        if !answer.status().is_success() {
            return Err(ExportError::Status(answer.status()));
        }
        if let Form::Otlp(_) = self.form {
            let mut text = Vec::new();
            while let Ok(Some(chunk)) = answer.chunk().await {
                text.extend_from_slice(&chunk);
                if text.len() > ANSWER_BYTES_MAX {
                    break;
                }
            }
            otlp::look_at(&text);
        }
        Ok(Delivered::Yes)
    }
}

fn header(name: &str, value: &SecretSource) -> Result<(HeaderName, HeaderValue), ExportError> {
    let refused = || ExportError::Header { name: name.to_owned() };
    let key: HeaderName = name.parse().map_err(|_| refused())?;
    let value = value.resolve().map_err(outbound::OutboundError::from)?;
    let mut value = HeaderValue::from_str(value.expose().trim()).map_err(|_| refused())?;
    value.set_sensitive(true);
    Ok((key, value))
}
