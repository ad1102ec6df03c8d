//! `exeat approvals`, `exeat freeze`, `exeat thaw` and `exeat freezes`: what people decide at a running gateway, by its
//! console and with the caller's own token. Decides nothing itself: the gateway checks who asks, every time.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::card;
use super::remote::{Answer, Call, RemoteError, ask, finish, wish};
use crate::cli::approvals::{
    ApprovalsArgs, ApprovalsCommand, ApproveArgs, FreezeArgs, FreezesArgs, FrozenArgs, ListArgs, ThawArgs, WithdrawArgs,
};
use crate::exit::{self, Exit};

pub(crate) async fn approvals(args: ApprovalsArgs) -> Result<Exit, RemoteError> {
    match args.command {
        ApprovalsCommand::List(args) => list(args).await,
        ApprovalsCommand::Show(args) => {
            let call = Call { method: Method::GET, path: format!("/v1/approvals/{}", args.id), body: None };
            let answer = ask(&args.remote, call).await?;
            one(answer, args.remote.json)
        }
        ApprovalsCommand::Approve(args) => approve(args).await,
        ApprovalsCommand::Deny(args) => {
            let body = wish(&[("reason", &Some(args.reason))]);
            act(&args.remote, (&args.id, "deny"), body).await
        }
        ApprovalsCommand::Revoke(args) => {
            let body = wish(&[("reason", &Some(args.reason))]);
            act(&args.remote, (&args.id, "revoke"), body).await
        }
        ApprovalsCommand::BreakGlass(args) => {
            act(&args.remote, (&args.id, "break-glass"), wish(&[("reason", &args.reason)])).await
        }
        ApprovalsCommand::Review(args) => {
            let finding = Some(args.finding.name().to_owned());
            let body = wish(&[("finding", &finding), ("remark", &Some(args.remark))]);
            act(&args.remote, (&args.id, "review"), body).await
        }
        ApprovalsCommand::Withdraw(args) => withdraw(args).await,
    }
}

async fn list(args: ListArgs) -> Result<Exit, RemoteError> {
    let limit = args.limit.to_string();
    let given = [
        ("state", Some(args.state.name())),
        ("target", args.target.as_deref()),
        ("principal", args.principal.as_deref()),
        ("before", args.before.as_deref()),
        ("limit", Some(limit.as_str())),
    ];
    let given = given.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(given).finish();
    let call = Call { method: Method::GET, path: format!("/v1/approvals?{query}"), body: None };
    match ask(&args.remote, call).await? {
        Answer::Done(body) if !args.remote.json => print(&card::list(&body)),
        answer => finish(answer, args.remote.json),
    }
}

async fn approve(args: ApproveArgs) -> Result<Exit, RemoteError> {
    let numbers = [
        ("rows", args.rows),
        ("bytes", args.bytes),
        ("affected", args.affected),
        ("uses", args.uses.map(u64::from)),
        ("expires_s", args.expires.map(|span| span.as_secs())),
    ];
    let body = numbers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?)))).collect();
    act(&args.remote, (&args.id, "approve"), body).await
}

async fn act(
    remote: &crate::cli::RemoteArgs,
    (id, act): (&str, &str),
    body: Map<String, Value>,
) -> Result<Exit, RemoteError> {
    let answer = ask(remote, Call::post(&format!("/v1/approvals/{id}/{act}"), body)).await?;
    let still_waits = match &answer {
        Answer::Done(body) => {
            let state = body.get("state").and_then(Value::as_str);
            act == "approve" && matches!(state, Some("pending" | "escalated"))
        }
        Answer::NotAuthenticated(_) | Answer::Refused(_) | Answer::Failed(_) => false,
    };
    let exit = match answer {
        Answer::Done(body) if !remote.json => print(&card::outcome(&body))?,
        answer => finish(answer, remote.json)?,
    };
    if still_waits {
        exit::note("your approval counts; the request waits for another human");
        return Ok(Exit::Pending);
    }
    Ok(exit)
}

async fn withdraw(args: WithdrawArgs) -> Result<Exit, RemoteError> {
    if let Some(id) = &args.id {
        return act(&args.remote, (id, "withdraw"), Map::new()).await;
    }
    let body = wish(&[("principal", &args.principal), ("target", &args.target)]);
    finish(ask(&args.remote, Call::post("/v1/approvals/withdraw", body)).await?, args.remote.json)
}

pub(crate) async fn freeze(args: FreezeArgs) -> Result<Exit, RemoteError> {
    let mut body = frozen(args.what);
    body.insert("reason".to_owned(), json!(args.reason));
    finish(ask(&args.remote, Call::post("/v1/freezes", body)).await?, args.remote.json)
}

pub(crate) async fn thaw(args: ThawArgs) -> Result<Exit, RemoteError> {
    finish(ask(&args.remote, Call::post("/v1/freezes/lift", frozen(args.what))).await?, args.remote.json)
}

pub(crate) async fn freezes(args: FreezesArgs) -> Result<Exit, RemoteError> {
    let call = Call { method: Method::GET, path: "/v1/freezes".to_owned(), body: None };
    match ask(&args.remote, call).await? {
        Answer::Done(body) if !args.remote.json => print(&card::freezes(&body)),
        answer => finish(answer, args.remote.json),
    }
}

fn frozen(args: FrozenArgs) -> Map<String, Value> {
    let kind = match (args.subject, args.target) {
        (true, _) => Some("subject".to_owned()),
        (_, true) => Some("target".to_owned()),
        (false, false) => None,
    };
    wish(&[("name", &Some(args.name)), ("kind", &kind), ("issuer", &args.issuer)])
}

fn one(answer: Answer, as_json: bool) -> Result<Exit, RemoteError> {
    match answer {
        Answer::Done(body) if !as_json => print(&card::request(&body)),
        answer => finish(answer, as_json),
    }
}

fn print(text: &str) -> Result<Exit, RemoteError> {
    exit::print(text).map_err(RemoteError::Output)?;
    Ok(Exit::Ok)
}
