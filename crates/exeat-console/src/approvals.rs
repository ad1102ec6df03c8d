//! `/v1/approvals`: statements that wait for humans, and what humans do about them.
//!
//! HTTP only, as with handles: who may look and who may decide is the desk's to say, from the caller's own token, anew
//! every time. What was decided already is answered with 409 and how the request stands: deciding twice decides once.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use exeat_policy::Moment;
use exeat_policy::approval::{Finding, Remark, Unmoved};
use exeat_store::state::{Listed, RequestId, SHOWN_MAX, Wanted};
use serde_json::{Value, json};

use crate::admin::{members, text, unknown};
use crate::handles::{Asked, DeskError, Reply, answer, asked, refuse};
use crate::routes::Routes;
use crate::server::Peer;
use crate::view::{self, Shown};

/// Longest name that a query or a body may filter by: a token holds no longer ones.
const NAME_BYTES_MAX: usize = 1024;

/// On a page, unless the query says otherwise.
const PAGE_DEFAULT: u32 = 50;

/// Shows requests and carries out what humans decide.
pub trait ApprovalDesk: Send + Sync {
    fn list(&self, asked: Asked, wish: ListWish) -> Reply<Page>;
    fn show(&self, asked: Asked, id: RequestId) -> Reply<Shown>;
    fn act(&self, asked: Asked, id: RequestId, act: Act) -> Reply<Acted>;
    /// Withdraws whatever is open of a principal or a target. Says which.
    fn withdraw(&self, asked: Asked, wish: WithdrawWish) -> Reply<Vec<RequestId>>;
}

/// Which requests; what is `None` is any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListWish {
    pub wanted: Wanted,
    pub target: Option<String>,
    pub principal: Option<String>,
    pub before: Option<Cursor>,
    /// From 1 to [`SHOWN_MAX`].
    pub limit: u32,
}

/// Where a page ended: older ones follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    pub asked_at: Moment,
    pub id: RequestId,
}

/// Newest first. A page may have fewer than were wanted, or none, and still another behind it: whoever may not see all
/// of them has some left out.
#[derive(Debug, Default)]
pub struct Page {
    pub lines: Vec<Listed>,
    pub next: Option<Cursor>,
}

/// Whose requests are withdrawn; at least one is named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WithdrawWish {
    pub target: Option<String>,
    pub principal: Option<String>,
}

/// What somebody does about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    Approve(ScopeWish),
    Deny { reason: Remark },
    Revoke { reason: Remark },
    BreakGlass { reason: Option<Remark> },
    Review { finding: Finding, remark: Remark },
    Withdraw,
}

/// What an approver narrows; the rest is as the request's terms usually give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScopeWish {
    pub rows: Option<u64>,
    pub bytes: Option<u64>,
    pub affected: Option<u64>,
    pub uses: Option<u32>,
    pub lasts: Option<Duration>,
}

/// How the request stands now, and why nothing was changed where nothing was.
#[derive(Debug)]
pub enum Acted {
    Done(Box<Shown>),
    Unmoved { why: Unmoved, shown: Box<Shown> },
}

type Desk = Arc<dyn ApprovalDesk>;

pub(crate) fn routes() -> Routes<Desk> {
    Routes::new()
        .get("/v1/approvals", list)
        .post("/v1/approvals/withdraw", withdraw_all)
        .get("/v1/approvals/{id}", show)
        .post("/v1/approvals/{id}/approve", approve)
        .post("/v1/approvals/{id}/deny", deny)
        .post("/v1/approvals/{id}/revoke", revoke)
        .post("/v1/approvals/{id}/break-glass", break_glass)
        .post("/v1/approvals/{id}/review", review)
        .post("/v1/approvals/{id}/withdraw", withdraw)
}

async fn list(
    State(desk): State<Desk>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let reply = match (asked(&headers, peer), list_wish(query.as_deref().unwrap_or_default())) {
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(asked), Ok(wish)) => desk.list(asked, wish).await,
    };
    match reply {
        Ok(page) => {
            let lines: Vec<Value> = page.lines.iter().map(view::listed).collect();
            answer(StatusCode::OK, &json!({"approvals": lines, "next": page.next.as_ref().map(Cursor::to_text)}))
        }
        Err(error) => refuse(&error),
    }
}

async fn show(
    State(desk): State<Desk>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let reply = match asked(&headers, peer) {
        Err(error) => Err(error),
        Ok(asked) => desk.show(asked, RequestId::new(&id)).await,
    };
    match reply {
        Ok(shown) => answer(StatusCode::OK, &shown.to_json()),
        Err(error) => refuse(&error),
    }
}

/// What every act comes with.
struct Call {
    desk: Desk,
    peer: Peer,
    id: String,
    headers: HeaderMap,
}

type Parts = (State<Desk>, ConnectInfo<Peer>, Path<String>, HeaderMap);

fn call((State(desk), ConnectInfo(peer), Path(id), headers): Parts) -> Call {
    Call { desk, peer, id, headers }
}

async fn approve(parts: Parts, body: Bytes) -> Response {
    act(call(parts), scope_wish(&body).map(Act::Approve)).await
}

async fn deny(parts: Parts, body: Bytes) -> Response {
    act(call(parts), reason(&body).and_then(wanted).map(|reason| Act::Deny { reason })).await
}

async fn revoke(parts: Parts, body: Bytes) -> Response {
    act(call(parts), reason(&body).and_then(wanted).map(|reason| Act::Revoke { reason })).await
}

async fn break_glass(parts: Parts, body: Bytes) -> Response {
    act(call(parts), reason(&body).map(|reason| Act::BreakGlass { reason })).await
}

async fn review(parts: Parts, body: Bytes) -> Response {
    act(call(parts), finding(&body)).await
}

async fn withdraw(parts: Parts, body: Bytes) -> Response {
    act(call(parts), nothing(&body).map(|()| Act::Withdraw)).await
}

async fn act(call: Call, act: Result<Act, DeskError>) -> Response {
    let Call { desk, peer: Peer(peer), id, headers } = call;
    let reply = match (asked(&headers, peer), act) {
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(asked), Ok(act)) => desk.act(asked, RequestId::new(&id), act).await,
    };
    match reply {
        Ok(Acted::Done(shown)) => answer(StatusCode::OK, &shown.to_json()),
        Ok(Acted::Unmoved { why, shown }) => {
            answer(status(&why), &json!({"error": why.to_string(), "approval": shown.to_json()}))
        }
        Err(error) => refuse(&error),
    }
}

async fn withdraw_all(
    State(desk): State<Desk>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let reply = match (asked(&headers, peer), withdraw_wish(&body)) {
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(asked), Ok(wish)) => desk.withdraw(asked, wish).await,
    };
    match reply {
        Ok(ids) => {
            let ids: Vec<&str> = ids.iter().map(RequestId::as_str).collect();
            answer(StatusCode::OK, &json!({"withdrawn": ids}))
        }
        Err(error) => refuse(&error),
    }
}

/// How HTTP says why nothing changed.
fn status(why: &Unmoved) -> StatusCode {
    match why {
        Unmoved::Closed { .. }
        | Unmoved::NotGranted { .. }
        | Unmoved::TooLate
        | Unmoved::TooEarly
        | Unmoved::GrantExpired
        | Unmoved::AlreadyApproved
        | Unmoved::NoReviewDue => StatusCode::CONFLICT,
        Unmoved::OwnRequest
        | Unmoved::NotAHuman
        | Unmoved::NotAnApprover
        | Unmoved::NotYoursToBreak
        | Unmoved::OwnReview => StatusCode::FORBIDDEN,
        Unmoved::TooWide | Unmoved::EmptyScope | Unmoved::ReasonMissing => StatusCode::BAD_REQUEST,
    }
}

impl Cursor {
    pub fn to_text(&self) -> String {
        format!("{}.{}", self.asked_at.unix_millis(), self.id)
    }

    fn parse(text: &str) -> Option<Self> {
        let (millis, id) = text.split_once('.')?;
        Some(Self { asked_at: Moment::from_unix_millis(millis.parse().ok()?), id: RequestId::new(id) })
    }
}

fn list_wish(query: &str) -> Result<ListWish, DeskError> {
    let mut wish = ListWish { limit: PAGE_DEFAULT, ..ListWish::default() };
    let mut seen = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if value.is_empty() || value.len() > NAME_BYTES_MAX {
            return Err(DeskError::Wish(format!("\"{}\" is empty or too long", name.escape_debug())));
        }
        match name.as_ref() {
            "state" => wish.wanted = state_wanted(&value)?,
            "target" => wish.target = Some(value.into_owned()),
            "principal" => wish.principal = Some(value.into_owned()),
            "before" => {
                let problem = || DeskError::Wish("\"before\" is not what a page gave as \"next\"".to_owned());
                wish.before = Some(Cursor::parse(&value).ok_or_else(problem)?);
            }
            "limit" => {
                let found = value.parse().ok().filter(|limit| (1..=SHOWN_MAX).contains(limit));
                let problem = || DeskError::Wish(format!("\"limit\" is not a number from 1 to {SHOWN_MAX}"));
                wish.limit = found.ok_or_else(problem)?;
            }
            _ => return Err(unknown(&name, "state, target, principal, before, limit")),
        }
        // Which of two would count is nothing to guess.
        if seen.contains(&name) {
            return Err(DeskError::Wish(format!("\"{}\" is there twice", name.escape_debug())));
        }
        seen.push(name);
    }
    Ok(wish)
}

fn state_wanted(text: &str) -> Result<Wanted, DeskError> {
    match text {
        "open" => Ok(Wanted::Open),
        "review" => Ok(Wanted::ReviewDue),
        "all" => Ok(Wanted::All),
        _ => Err(DeskError::Wish("\"state\" is none of open, review, all".to_owned())),
    }
}

/// Strict: a misspelt `rows` must not let all of them through.
fn scope_wish(body: &[u8]) -> Result<ScopeWish, DeskError> {
    let mut wish = ScopeWish::default();
    for (name, value) in members(body)? {
        let Some(number) = value.as_u64() else {
            return Err(DeskError::Wish(format!("\"{}\" is not a whole number", name.escape_debug())));
        };
        match name.as_str() {
            "rows" => wish.rows = Some(number),
            "bytes" => wish.bytes = Some(number),
            "affected" => wish.affected = Some(number),
            // More than fits is more than anybody may give: the terms say so.
            "uses" => wish.uses = Some(u32::try_from(number).unwrap_or(u32::MAX)),
            "expires_s" => wish.lasts = Some(Duration::from_secs(number)),
            _ => return Err(unknown(&name, "rows, bytes, affected, uses, expires_s")),
        }
    }
    Ok(wish)
}

/// The reason, where there is one.
fn reason(body: &[u8]) -> Result<Option<Remark>, DeskError> {
    let mut found = None;
    for (name, value) in members(body)? {
        match name.as_str() {
            "reason" => found = Some(remark(&name, value)?),
            _ => return Err(unknown(&name, "reason")),
        }
    }
    Ok(found)
}

fn wanted(reason: Option<Remark>) -> Result<Remark, DeskError> {
    reason.ok_or_else(|| DeskError::Wish("\"reason\" is missing: whoever asked is told why".to_owned()))
}

fn finding(body: &[u8]) -> Result<Act, DeskError> {
    let (mut finding, mut found) = (None, None);
    for (name, value) in members(body)? {
        match (name.as_str(), value.as_str()) {
            ("finding", Some("justified")) => finding = Some(Finding::Justified),
            ("finding", Some("unjustified")) => finding = Some(Finding::Unjustified),
            ("finding", _) => {
                return Err(DeskError::Wish("\"finding\" is neither justified nor unjustified".to_owned()));
            }
            ("remark", _) => found = Some(remark(&name, value)?),
            _ => return Err(unknown(&name, "finding, remark")),
        }
    }
    match (finding, found) {
        (Some(finding), Some(remark)) => Ok(Act::Review { finding, remark }),
        (None, _) => Err(DeskError::Wish("\"finding\" is missing: justified or unjustified".to_owned())),
        (_, None) => Err(DeskError::Wish("\"remark\" is missing: what the review found".to_owned())),
    }
}

fn nothing(body: &[u8]) -> Result<(), DeskError> {
    match members(body)?.keys().next() {
        None => Ok(()),
        Some(name) => Err(unknown(name, "no members here")),
    }
}

fn withdraw_wish(body: &[u8]) -> Result<WithdrawWish, DeskError> {
    let mut wish = WithdrawWish::default();
    for (name, value) in members(body)? {
        let place = match name.as_str() {
            "principal" => &mut wish.principal,
            "target" => &mut wish.target,
            _ => return Err(unknown(&name, "principal, target")),
        };
        *place = Some(text(&name, value)?);
    }
    if wish == WithdrawWish::default() {
        return Err(DeskError::Wish("name a \"principal\" or a \"target\": everybody's are not withdrawn".to_owned()));
    }
    Ok(wish)
}

pub(crate) fn remark(name: &str, value: Value) -> Result<Remark, DeskError> {
    let text = text(name, value)?;
    Remark::try_from(text).map_err(|problem| DeskError::Wish(problem.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_wish<T: std::fmt::Debug>(found: &Result<T, DeskError>) -> bool {
        matches!(found, Err(DeskError::Wish(_)))
    }

    #[test]
    fn a_list_is_asked_for_strictly() {
        assert_eq!(list_wish(""), Ok(ListWish { limit: PAGE_DEFAULT, ..ListWish::default() }));
        let whole = ListWish {
            wanted: Wanted::Open,
            target: Some("shop".to_owned()),
            principal: Some("agent 7&".to_owned()),
            before: Some(Cursor { asked_at: Moment::from_unix_millis(17), id: RequestId::new("apr_1") }),
            limit: 3,
        };
        let query = "state=open&target=shop&principal=agent+7%26&before=17.apr_1&limit=3";
        assert_eq!(list_wish(query), Ok(whole.clone()));
        assert_eq!(whole.before.unwrap().to_text(), "17.apr_1");
        for query in
            ["state=closed", "limit=0", "limit=101", "limit=x", "before=17", "target=", "sort=up", "limit=1&limit=2"]
        {
            assert!(is_wish(&list_wish(query)), "{query}");
        }
        assert!(is_wish(&list_wish(&format!("principal={}", "x".repeat(2000)))));
    }

    #[test]
    fn a_scope_is_read_strictly() {
        assert_eq!(scope_wish(b""), Ok(ScopeWish::default()));
        let whole = br#"{"rows": 5, "bytes": 6, "affected": 7, "uses": 8, "expires_s": 9}"#;
        let expected = ScopeWish {
            rows: Some(5),
            bytes: Some(6),
            affected: Some(7),
            uses: Some(8),
            lasts: Some(Duration::from_secs(9)),
        };
        assert_eq!(scope_wish(whole), Ok(expected));
        assert_eq!(scope_wish(br#"{"uses": 99999999999}"#).unwrap().uses, Some(u32::MAX));
        for body in [r#"{"row": 5}"#, r#"{"rows": -1}"#, r#"{"rows": "5"}"#, r#"{"rows": null}"#, "[]", "{"] {
            assert!(is_wish(&scope_wish(body.as_bytes())), "{body}");
        }
    }

    #[test]
    fn reasons_are_bounded_and_on_one_line() {
        let said = |text: &str| reason(json!({"reason": text}).to_string().as_bytes());
        assert_eq!(said("not today").unwrap().unwrap().as_str(), "not today");
        assert_eq!(reason(b""), Ok(None));
        assert!(is_wish(&reason(b"").and_then(wanted)));
        for text in ["", " ", "a\nb", "\u{1b}[2J", &"x".repeat(501)] {
            assert!(is_wish(&said(text)), "{text:?}");
        }
        assert!(is_wish(&reason(br#"{"reasons": "x"}"#)));
        assert!(is_wish(&nothing(br#"{"x": 1}"#)) && nothing(b"{}").is_ok());
    }

    #[test]
    fn a_review_says_what_it_found() {
        let whole = finding(br#"{"finding": "unjustified", "remark": "nobody was hurt"}"#).unwrap();
        assert!(matches!(whole, Act::Review { finding: Finding::Unjustified, .. }), "{whole:?}");
        for body in [r#"{"finding": "fine", "remark": "x"}"#, r#"{"finding": "justified"}"#, r#"{"remark": "x"}"#, "{}"]
        {
            assert!(is_wish(&finding(body.as_bytes())), "{body}");
        }
    }

    #[test]
    fn everybody_s_requests_are_not_withdrawn() {
        assert!(is_wish(&withdraw_wish(b"{}")) && is_wish(&withdraw_wish(br#"{"princpal": "x"}"#)));
        assert_eq!(withdraw_wish(br#"{"target": "shop"}"#).unwrap().target.as_deref(), Some("shop"));
    }
}
