//! What decorates the card of a held statement: the planner's guess at its rows, asked on a connection of the gateway's own,
//! and some of the rows that wait, masked as they are. Nothing is decided by either, and the human is asked without what
//! cannot be had in time.

use std::time::{Duration, Instant};

use exeat_enforce::card::{CardEstimate, CardSample};
use exeat_enforce::evaluate::Permit;
use exeat_enforce::plan::Outputs;
use exeat_enforce::scrub::Taint;
use exeat_wire::{DataRow, Format};
use serde_json::Value;
use tokio::time::timeout;

use super::due::Due;
use super::session::{Session, SessionEnd};
use crate::upstream::{CatalogConnection, LoginConfig, UpstreamConfig, UpstreamError};

/// A guess that takes longer is not waited for.
const GUESSED_WITHIN: Duration = Duration::from_secs(1);

/// The server knows what a statement with parameters is planned like without them.
const GENERIC_PLAN_SINCE: u32 = 160_000;

/// What wraps the rows that a statement reads: they are guessed, not what is made of them.
const WRAPPERS: [&str; 5] = ["ModifyTable", "Aggregate", "WindowAgg", "LockRows", "Result"];

/// Bytes of a value in binary that are shown.
const BINARY_BYTES_MAX: usize = 32;

impl Session {
    /// `by`: when the client has its answer at the latest; a guess takes half of the time until then at most.
    pub(crate) async fn estimate(
        &mut self,
        permit: &Permit,
        by: Option<Instant>,
    ) -> Result<Option<CardEstimate>, SessionEnd> {
        let Some(sql) = explainable(permit) else { return Ok(None) };
        let role = &self.picture.role;
        let login = self.target.logins.iter().find(|login| login.role.as_ref().unwrap_or(&login.user) == role);
        let Some(login) = login.cloned() else { return Ok(None) };
        let snapshot = &self.picture.facts.snapshot;
        let path = self.picture.scope.search_path.iter().filter_map(|oid| snapshot.schema_name(*oid));
        let path: Vec<String> = path.filter(|name| !name.starts_with("pg_temp")).map(quoted).collect();
        // Strings as they were analysed, whatever the role's own setting: otherwise one statement could be two there.
        let settings = format!(
            "SET standard_conforming_strings = on; SET search_path = {}; SET statement_timeout = 900; SET lock_timeout = 300",
            path.join(", ")
        );
        let (shared, upstream) = (self.shared.clone(), self.target.upstream.clone());
        let left = by.map(|by| by.saturating_duration_since(Instant::now()) / 2);
        let within = left.map_or(GUESSED_WITHIN, |left| left.min(GUESSED_WITHIN));
        let guess = async move {
            // One at a time: whoever asks often must not open connections as often.
            let _one = shared.guessing.try_lock().ok()?;
            let guess = timeout(within, guess(&upstream, &login, (&settings, &sql))).await.ok()?;
            guess
                .inspect_err(|problem| tracing::debug!(problem = exeat_store::chain(problem), "nothing guessed"))
                .ok()?
        };
        // Boxed: what a login needs is not part of every session.
        self.while_client_stays(Box::pin(guess)).await
    }

    /// Of the rows that are kept, as the client would get them.
    pub(crate) fn sample(&self, rows_max: usize) -> Option<CardSample> {
        let rows: Vec<_> = self.io.outbox.first_kept(rows_max).iter().map(|row| self.cells(row)).collect();
        let width = rows.first()?.len();
        let names = match self.pipeline.front() {
            Some((_, Due::Query(query))) => query.plan().map(|plan| &plan.outputs),
            Some((_, Due::Execute(execute))) => execute.portal.plan().map(|plan| &plan.outputs),
            Some(_) | None => None,
        };
        let name = |index: usize| match names {
            Some(Outputs::Columns(columns)) => columns.get(index).and_then(|column| column.name.clone()),
            Some(
                Outputs::None | Outputs::ByOrigin | Outputs::FunctionResult | Outputs::Copied(_) | Outputs::Unchecked,
            )
            | None => None,
        };
        let columns = (0..width).map(|index| name(index).unwrap_or_else(|| format!("column {}", index + 1))).collect();
        Some(CardSample { columns, rows })
    }

    fn cells(&self, row: &DataRow) -> Vec<Option<String>> {
        let format = |index: usize| match self.pipeline.front() {
            Some((_, Due::Execute(execute))) => execute.portal.format(index),
            Some(_) | None => Format::Text,
        };
        let cells = row.cells().filter_map(Result::ok).enumerate();
        cells.map(|(index, cell)| cell.map(|cell| shown(cell, format(index)))).collect()
    }
}

/// One statement that plans like a query, and nothing behind it. Planning runs what is declared immutable, and nobody has
/// agreed to the statement yet: so none that runs anybody's code, or that nobody sees into.
fn explainable(permit: &Permit) -> Option<String> {
    if permit.plans.iter().any(|plan| plan.taint == Taint::UserCode) {
        return None;
    }
    let plain = |kind: &&str| matches!(*kind, "select" | "insert" | "update" | "delete" | "merge");
    (permit.plans.len() == 1 && permit.facts.kinds.iter().all(plain) && permit.names().is_empty())
        .then(|| permit.sql().to_owned())
}

async fn guess(
    upstream: &UpstreamConfig,
    login: &LoginConfig,
    (settings, sql): (&str, &str),
) -> Result<Option<CardEstimate>, UpstreamError> {
    let mut connection = CatalogConnection::connect(upstream, login).await?;
    connection.query(settings).await?;
    let generic = if connection.server_version_num() >= GENERIC_PLAN_SINCE { "GENERIC_PLAN, " } else { "" };
    let plan = connection.query(&format!("EXPLAIN ({generic}FORMAT JSON) {sql}")).await;
    connection.close().await;
    Ok(plan?.first().and_then(|row| row.first()?.as_deref()).and_then(rows_guessed))
}

fn rows_guessed(plan: &str) -> Option<CardEstimate> {
    let plan: Value = serde_json::from_str(plan).ok()?;
    let mut node = plan.get(0)?.get("Plan")?;
    while node.get("Node Type").and_then(Value::as_str).is_some_and(|kind| WRAPPERS.contains(&kind))
        && let Some(below) = node.get("Plans").and_then(|plans| plans.get(0))
    {
        node = below;
    }
    Some(CardEstimate { rows: node.get("Plan Rows")?.as_u64()? })
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Binary values as bytes: what their type makes of them is not told here.
fn shown(cell: &[u8], format: Format) -> String {
    match format {
        Format::Text => String::from_utf8_lossy(cell).into_owned(),
        Format::Binary => {
            let bytes = cell.iter().take(BINARY_BYTES_MAX).map(|byte| format!("{byte:02x}")).collect::<String>();
            let rest = if cell.len() > BINARY_BYTES_MAX { "…" } else { "" };
            format!("\\x{bytes}{rest}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_guessed_below_what_is_made_of_them() {
        let scan = r#"{"Node Type": "Seq Scan", "Plan Rows": 500}"#;
        let under = |kind: &str, plan: &str| format!(r#"{{"Node Type": "{kind}", "Plan Rows": 1, "Plans": [{plan}]}}"#);
        let guessed = |plan: &str| rows_guessed(&format!(r#"[{{"Plan": {plan}}}]"#)).map(|guess| guess.rows);
        assert_eq!(guessed(scan), Some(500));
        assert_eq!(guessed(&under("ModifyTable", &under("Aggregate", scan))), Some(500));
        assert_eq!(guessed(&under("Limit", scan)), Some(1), "a limit limits");
        assert_eq!(guessed(r#"{"Node Type": "Result", "Plan Rows": 3}"#), Some(3));
        for nothing in ["", "[]", r#"[{"Plan": {"Plan Rows": -1}}]"#, r#"[{"Plan": {}}]"#] {
            assert_eq!(rows_guessed(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn values_in_binary_are_shown_as_bytes() {
        assert_eq!(shown(b"a\xff", Format::Text), "a\u{fffd}");
        assert_eq!(shown(&[0, 42], Format::Binary), "\\x002a");
        assert!(shown(&[7; 100], Format::Binary).ends_with("07…"));
    }
}
