//! The gateway's own read-only connection for reading a database's catalog: gateway-made queries by the simple
//! protocol, answers bounded in rows and bytes. Never runs a client's text.

use std::time::Duration;

use bytes::BytesMut;
use exeat_wire::{BackendMessage, encode, split_backend};
use tokio::io::AsyncReadExt;

use super::config::{LoginConfig, UpstreamConfig};
use super::error::{Problem, UpstreamError};
use super::login::{connect, in_context, refused, within, write};
use super::stream::UpstreamStream;

/// One row per column of the database: a thousand schemas of a hundred tables of ten columns are a million.
const ROWS_MAX: usize = 2_000_000;
/// Values kept of one answer, with what each of them costs besides its text: a row of NULLs has weight too.
const BYTES_MAX: usize = 256 * 1024 * 1024;
/// A catalog that takes longer cannot be kept current anyway.
const QUERY_DEADLINE: Duration = Duration::from_secs(30);

/// Nobody waits for a goodbye.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

const READING: &str = "reading the catalog";
const CLOSING: &str = "closing the catalog connection";

/// Text values of one answer.
pub type Rows = Vec<Vec<Option<String>>>;

#[derive(Debug)]
pub struct CatalogConnection {
    config: UpstreamConfig,
    user: String,
    stream: UpstreamStream,
    buffer: BytesMut,
    server_version_num: u32,
    /// A query was begun and not read to its end (error, deadline, or its future dropped): later bytes would be
    /// taken for the answer to another query.
    unfinished: bool,
}

impl CatalogConnection {
    pub async fn connect(config: &UpstreamConfig, login: &LoginConfig) -> Result<Self, UpstreamError> {
        // Names in the queries are qualified; an empty path keeps operators and functions qualified too.
        let parameters = [
            ("application_name", "exeat catalog"),
            ("client_encoding", "UTF8"),
            ("default_transaction_read_only", "on"),
            ("search_path", "pg_catalog"),
            ("statement_timeout", "30000"),
            // A definition under an uncommitted change cannot be read; everybody would wait behind the change.
            ("lock_timeout", "1000"),
            ("DateStyle", "ISO"),
        ];
        let connected = connect(config, login, &parameters).await?;
        Ok(Self {
            config: config.clone(),
            user: login.user.clone(),
            stream: connected.stream,
            buffer: connected.buffer,
            server_version_num: connected.server_version_num,
            unfinished: false,
        })
    }

    pub fn server_version_num(&self) -> u32 {
        self.server_version_num
    }

    /// Runs gateway-made text and returns the rows of its last statement that has any. After an error reported by
    /// the server the connection stays usable; after any other error it does not.
    pub async fn query(&mut self, sql: &str) -> Result<Rows, UpstreamError> {
        let answer = if self.unfinished {
            Err(Problem::Unfinished)
        } else {
            self.unfinished = true;
            within(QUERY_DEADLINE, READING, self.exchange(sql)).await
        };
        answer.map_err(|problem| in_context(&self.config, &self.user, problem))
    }

    /// Says goodbye, so that the server does not log a lost connection.
    pub async fn close(mut self) {
        let mut out = BytesMut::new();
        encode::terminate(&mut out);
        // The connection ends either way.
        let _ = within(CLOSE_DEADLINE, CLOSING, write(&mut self.stream, &out, CLOSING)).await;
    }

    async fn exchange(&mut self, sql: &str) -> Result<Rows, Problem> {
        let mut out = BytesMut::new();
        encode::query(&mut out, sql)?;
        write(&mut self.stream, &out, READING).await?;
        let mut rows: Rows = Vec::new();
        let mut kept_bytes = 0;
        let mut failure = None;
        loop {
            match self.receive().await? {
                BackendMessage::RowDescription(_) => rows.clear(),
                BackendMessage::DataRow(row) => {
                    if rows.len() >= ROWS_MAX {
                        return Err(Problem::TooMuch { limit: ROWS_MAX, unit: "rows", stage: READING });
                    }
                    let values = text_values(&row)?;
                    kept_bytes += size_of_val(values.as_slice());
                    kept_bytes += values.iter().flatten().map(String::len).sum::<usize>();
                    if kept_bytes > BYTES_MAX {
                        return Err(Problem::TooMuch { limit: BYTES_MAX, unit: "bytes", stage: READING });
                    }
                    rows.push(values);
                }
                BackendMessage::CommandComplete { .. } | BackendMessage::EmptyQueryResponse => {}
                BackendMessage::NoticeResponse(_)
                | BackendMessage::ParameterStatus { .. }
                | BackendMessage::NotificationResponse { .. } => {}
                BackendMessage::ErrorResponse(fields) if fields.ends_connection() => return Err(refused(&fields)),
                BackendMessage::ErrorResponse(fields) => failure = Some(refused(&fields)),
                BackendMessage::ReadyForQuery(_) => break,
                other => return Err(Problem::Unexpected { message: other.name(), stage: READING }),
            }
        }
        self.unfinished = false;
        match failure {
            None => Ok(rows),
            Some(problem) => Err(problem),
        }
    }

    async fn receive(&mut self) -> Result<BackendMessage, Problem> {
        loop {
            if let Some(frame) = split_backend(&mut self.buffer)? {
                return Ok(exeat_wire::backend::decode(frame)?);
            }
            if self.buffer.len() > BYTES_MAX {
                return Err(Problem::TooMuch { limit: BYTES_MAX, unit: "bytes", stage: READING });
            }
            let lost = |cause| Problem::Lost { stage: READING, cause };
            if self.stream.read_buf(&mut self.buffer).await.map_err(lost)? == 0 {
                return Err(Problem::Closed { stage: READING });
            }
        }
    }
}

fn text_values(row: &exeat_wire::DataRow) -> Result<Vec<Option<String>>, Problem> {
    row.cells()
        .map(|cell| match cell? {
            None => Ok(None),
            Some(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Some(text.to_owned())),
                Err(_) => Err(Problem::NotUtf8),
            },
        })
        .collect()
}
