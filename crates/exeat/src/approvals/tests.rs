//! The API of approvals over HTTP: a gateway as it runs, tokens as an issuer signs them, requests in its store, and a
//! receiver of messages that checks what it gets. No statement runs here: what holds one is the data plane's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use exeat_enforce::card::{Card, CardCause, CardKind, CardMode, CardParameter, CardPrincipal, CardSample, CardVolume};
use exeat_policy::approval::{Ceiling, Demand, Scope, Terms, USES_MAX};
use exeat_policy::grant::{Ask, Digest};
use exeat_policy::{Asker, Moment, Person, Policy};
use exeat_proxy::config::LoadedPolicy;
use exeat_proxy::tls::{Roots, Trust, client_config};
use exeat_store::keys::KeySet;
use exeat_store::state::{Asked as Opened, NewRequest, State, StateConfig, StateSource, Tell};
use reqwest::Method;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::clock::now;
use crate::config::Config;
use crate::gateway::Gateway;
use crate::pool;

mod messages;

const ISSUER: &str = "https://idp.example.com";
const MINUTE: Duration = Duration::from_secs(60);
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

const POLICY: &str = "
version: 1
labels: {shop: {email: [public.customers.email]}}
rules:
  - {id: read, target: shop, allow: [read]}
  - id: bulk
    target: shop
    hold: {rows: 100, approvers: {groups: [owners]}, escalate: {after: 60s, to: {groups: [on-call]}},
           break_glass: {who: {groups: [chiefs]}, reason_required: true}}
  - {id: two, target: shop, statements: [copy_out], hold: {approvers: {groups: [owners]}, quorum: 2}}
";

/// A key, and the tokens it signs.
struct Issuer(EcdsaKeyPair);

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap())
    }

    fn jwks(&self) -> String {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "k", "x": x, "y": y}]}).to_string()
    }

    fn token(&self, claims: &Value) -> String {
        let at = now().unix_millis() / 1000;
        let mut all = json!({"iss": ISSUER, "aud": "exeat", "iat": at, "exp": at + 3600, "jti": "t"});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let header = json!({"alg": "ES256", "kid": "k", "typ": "at+jwt"}).to_string();
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(all.to_string()));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// A gateway, its store from beside it, and somebody who asks its console.
struct Place {
    gateway: Option<Gateway>,
    console: SocketAddr,
    state: State,
    issuer: Issuer,
    client: reqwest::Client,
    folder: tempfile::TempDir,
}

impl Place {
    async fn new(notify: &str) -> Self {
        exeat_proxy::tls::install_ring_provider();
        let folder = tempfile::tempdir().unwrap();
        let issuer = Issuer::new();
        std::fs::write(folder.path().join("jwks.json"), issuer.jwks()).unwrap();
        std::fs::write(folder.path().join("secret"), SECRET).unwrap();
        let text = format!(
            "listen:\n  postgres: {{address: '127.0.0.1:0', tls: off}}\n  console: {{address: '127.0.0.1:0'}}\n\
             identity:\n  - {{issuer: '{ISSUER}', audience: exeat, jwks_file: jwks.json}}\n\
             targets:\n  shop: {{postgres: {{host: 127.0.0.1, port: 1, database: shop, tls: off, logins: \
             [{{user: u, auth: trust}}]}}}}\n\
             console: {{roles: {{admin: [ops], viewer: [eyes]}}}}\npolicy: {{path: policy.yaml}}\n{notify}"
        );
        std::fs::write(folder.path().join("exeat.yaml"), text).unwrap();
        let config = Config::load(&folder.path().join("exeat.yaml")).unwrap();
        let policy = Policy::load(&[("p".to_owned(), POLICY.to_owned())], &config.policy_context());
        let policy = policy.unwrap_or_else(|problems| panic!("{problems}"));
        let loaded = LoadedPolicy { policy, generation: 1, sha256: "00".to_owned() };
        let gateway = Gateway::start_with(config, pool::start().unwrap(), loaded).await.unwrap();
        // Its verifier reads the keys in the background.
        let config = Config::load(&folder.path().join("exeat.yaml")).unwrap();
        let keys = Arc::new(KeySet::open(&config.keys, &config.data_dir).unwrap());
        let config = StateConfig {
            data_dir: &config.data_dir,
            source: &StateSource::Embedded,
            durability: config.audit.durability,
        };
        let state = State::open(&config, &keys).await.unwrap();
        let tls = client_config(&Trust::Full(Roots::Nobody), &[b"http/1.1"]).unwrap();
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls.as_ref().clone()).no_proxy();
        let client = client.build().unwrap();
        Self { console: gateway.console.unwrap(), gateway: Some(gateway), state, issuer, client, folder }
    }

    fn token(&self, subject: &str, group: &str) -> String {
        self.issuer.token(&json!({"sub": subject, "groups": [group]}))
    }

    async fn ask(&self, token: &str, method: Method, path: &str, body: Value) -> (u16, Value) {
        let request = self.client.request(method.clone(), format!("http://{}{path}", self.console)).bearer_auth(token);
        let request = if method == Method::GET { request } else { request.json(&body) };
        let answer = request.send().await.unwrap();
        let (status, answer) = (answer.status().as_u16(), answer.json().await.unwrap());
        described((method.as_str(), path), status, &answer);
        (status, answer)
    }

    async fn get(&self, token: &str, path: &str) -> (u16, Value) {
        self.ask(token, Method::GET, path, Value::Null).await
    }

    async fn post(&self, token: &str, path: &str, body: Value) -> (u16, Value) {
        self.ask(token, Method::POST, path, body).await
    }

    /// Acts on a request, as somebody of a group.
    async fn act(&self, (subject, group): (&str, &str), id: &str, act: &str, body: Value) -> (u16, Value) {
        self.post(&self.token(subject, group), &format!("/v1/approvals/{id}/{act}"), body).await
    }

    /// What ann's agent asks for, as the data plane would.
    async fn asked(&self, statement: u8, rules: &[&str], ago: Duration) -> String {
        let asked_at = Moment::from_unix_millis(now().unix_millis() - i64::try_from(ago.as_millis()).unwrap());
        let ask = ask_of("ann", statement);
        let demand = |rule: &&str| Demand {
            rule: (*rule).to_owned(),
            quorum: if *rule == "two" { 2 } else { 1 },
            escalates_at: (*rule == "bulk").then(|| asked_at.after(MINUTE)),
        };
        let terms = Terms {
            asker: ask.asker.clone(),
            demands: rules.iter().map(demand).collect(),
            asked_at,
            decide_by: asked_at.after(15 * MINUTE),
            widest: Scope {
                ceiling: Ceiling { rows: Some(500), ..Ceiling::default() },
                uses: USES_MAX,
                lasts: 15 * MINUTE,
            },
        };
        let new = NewRequest {
            ask,
            terms,
            fingerprint: "f".to_owned(),
            card: card().encoded(),
            tell: Tell(vec!["webhook".to_owned(), "slack".to_owned()]),
        };
        match self.state.ask(new, asked_at).await.unwrap() {
            Opened::Opened(id) => id.to_string(),
            other => panic!("{other:?}"),
        }
    }

    async fn stop(mut self) {
        self.gateway.take().unwrap().stop().await;
    }

    /// Lines of the record of these types, oldest first.
    fn recorded(&self, kinds: &[&str]) -> Vec<Value> {
        let mut files: Vec<_> = folder(&self.folder.path().join("data/log"));
        files.sort();
        let text: String = files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| kinds.contains(&line["type"].as_str().unwrap())).collect()
    }
}

/// Every answer is as the API's description says.
fn described((method, path): (&str, &str), status: u16, answer: &Value) {
    let document: Value = serde_json::from_str(include_str!("../../../exeat-console/src/openapi.json")).unwrap();
    let parts: Vec<&str> = path.split('?').next().unwrap().split('/').collect();
    let is_this = |known: &&String| {
        let known: Vec<&str> = known.split('/').collect();
        known.len() == parts.len()
            && known.iter().zip(&parts).all(|(known, part)| known == part || known.starts_with('{'))
    };
    let paths = document["paths"].as_object().unwrap();
    let known = paths.keys().filter(is_this).find(|known| !paths[*known][method.to_lowercase()].is_null()).unwrap();
    let response = &paths[known][method.to_lowercase()]["responses"][status.to_string()];
    let schema = &response["content"]["application/json"]["schema"];
    assert!(schema.is_object(), "{method} {known} is not said to answer {status}");
    if let Some(problem) = differs(&document, schema, answer) {
        panic!("{method} {known} {status}: {problem}\n{answer:#}");
    }
}

/// What of a value is not as a schema says; members that it does not name are not there.
fn differs(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return differs(document, document.pointer(reference.trim_start_matches('#')).unwrap(), value);
    }
    if let Some(ways) = schema["anyOf"].as_array() {
        let fits = ways.iter().any(|way| differs(document, way, value).is_none());
        return (!fits).then(|| format!("{value} fits none of several"));
    }
    if let Some(choices) = schema["enum"].as_array() {
        return (!choices.contains(value)).then(|| format!("{value} is none of {choices:?}"));
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        Value::Null => Vec::new(),
        kind => vec![kind.clone()],
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !kinds.is_empty() && !kinds.contains(&json!(kind)) {
        return Some(format!("{value} is no {kinds:?}"));
    }
    let items = value.as_array().into_iter().flatten();
    if let Some(problem) = items.into_iter().find_map(|item| differs(document, &schema["items"], item)) {
        return Some(problem);
    }
    let members = value.as_object()?;
    if schema["properties"].is_null() && schema["additionalProperties"].is_null() {
        return None;
    }
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    if let Some(missing) = required.into_iter().find(|name| !members.contains_key(*name)) {
        return Some(format!("it lacks {missing}"));
    }
    members.iter().find_map(|(name, member)| match (&schema["properties"][name], &schema["additionalProperties"]) {
        (Value::Null, Value::Object(_)) => differs(document, &schema["additionalProperties"], member),
        (Value::Null, _) => Some(format!("{name} is not described")),
        (known, _) => differs(document, known, member),
    })
}

fn folder(path: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn ask_of(subject: &str, statement: u8) -> Ask {
    let zero = Digest::new([0; 32]);
    Ask {
        asker: Asker {
            human: Person { issuer: ISSUER.to_owned(), subject: subject.to_owned() },
            actor: Some("agent-7".to_owned()),
        },
        target: "shop".to_owned(),
        database: "shop".to_owned(),
        role: "u".to_owned(),
        statement: Digest::new([statement; 32]),
        parameters: zero,
        objects: zero,
        masks: zero,
        policy: zero,
    }
}

fn card() -> Card {
    Card {
        v: 1,
        request_id: "req_1".to_owned(),
        session: "s".to_owned(),
        sql: "SELECT '<!channel> @here' -- ```\u{202e}".to_owned(),
        is_cut: false,
        parameters: vec![CardParameter::Text("hunter2".to_owned()), CardParameter::Null],
        principal: CardPrincipal {
            issuer: ISSUER.to_owned(),
            subject: "ann".to_owned(),
            actor: Some("agent-7".to_owned()),
            kind: CardKind::Human,
        },
        target: "shop".to_owned(),
        database: "shop".to_owned(),
        role: "u".to_owned(),
        causes: vec![CardCause { rule: "bulk".to_owned(), relation: None, why: "more than 100 rows".to_owned() }],
        relations: vec!["public.customers".to_owned()],
        labels: Vec::new(),
        masks: Vec::new(),
        so_far: CardVolume { rows: BTreeMap::from([("public.customers".to_owned(), 101)]), bytes: 9 },
        released_before: BTreeMap::new(),
        estimate: None,
        sample: Some(CardSample { columns: vec!["id".to_owned()], rows: vec![vec![Some("sampled".to_owned())]] }),
        purpose: Some("because".to_owned()),
        mode: CardMode::Sync,
    }
}

fn block(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn who_may_look_and_who_is_told_that_there_is_nothing() {
    block(async {
        let place = Place::new("").await;
        let id = place.asked(1, &["bulk"], Duration::ZERO).await;
        let path = format!("/v1/approvals/{id}");
        let agent = place.issuer.token(&json!({"sub": "ann", "groups": ["x"], "act": {"sub": "agent-7"}}));
        let other_agent = place.issuer.token(&json!({"sub": "ann", "groups": ["x"], "act": {"sub": "agent-8"}}));
        let acting = place.issuer.token(&json!({"sub": "bob", "groups": ["owners", "ops"], "act": {"sub": "agent-7"}}));
        for (who, token, expected, sees_sample) in [
            ("an approver", place.token("bob", "owners"), 200, true),
            ("one it escalates to", place.token("eve", "on-call"), 200, true),
            ("one who may break the glass", place.token("zoe", "chiefs"), 200, true),
            ("a viewer", place.token("eye", "eyes"), 200, true),
            ("the human", place.token("ann", "x"), 200, false),
            ("the human, an approver too", place.token("ann", "owners"), 200, false),
            ("the agent", place.token("agent-7", "x"), 200, false),
            ("the pair", agent, 200, false),
            ("another agent of hers", other_agent, 404, false),
            ("a stranger", place.token("mallory", "x"), 404, false),
            ("an agent for an approver", acting, 404, false),
        ] {
            let (status, shown) = place.get(&token, &path).await;
            assert_eq!(status, expected, "{who}: {shown}");
            let (_, listed) = place.get(&token, "/v1/approvals?state=open").await;
            assert_eq!(listed["approvals"].as_array().unwrap().len(), usize::from(expected == 200), "{who}");
            assert!(!listed.to_string().contains("SELECT"), "{who}: no statement in a list");
            assert_eq!(shown.to_string().contains("sampled"), sees_sample, "{who}: {shown}");
        }
        let (status, _) = place.get("not a token", &path).await;
        assert_eq!(status, 401);
        let (_, shown) = place.get(&place.token("bob", "owners"), &path).await;
        assert_eq!(shown["may"], json!(["approve", "deny"]));
        assert_eq!(shown["demands"][0]["approvers"], "groups owners");
        assert_eq!(shown["card"]["sql"], card().sql);
        let (_, shown) = place.get(&place.token("eye", "eyes"), &path).await;
        assert_eq!(shown["may"], json!([]), "a role lets look, not decide");
        place.stop().await;
    });
}

#[test]
fn nobody_decides_who_is_not_an_approver_by_the_rules() {
    block(async {
        let place = Place::new("").await;
        let id = place.asked(1, &["bulk"], Duration::ZERO).await;
        let none = json!({});
        for (who, wanted) in [
            (("ann", "owners"), 403),
            (("agent-7", "owners"), 403),
            (("eye", "eyes"), 403),
            (("olga", "ops"), 403),
            (("mallory", "x"), 404),
            // Not yet: the rule's second group, before its time.
            (("eve", "on-call"), 409),
        ] {
            let (status, answer) = place.act(who, &id, "approve", none.clone()).await;
            assert_eq!(status, wanted, "{who:?}: {answer}");
        }
        let delegated = place.issuer.token(&json!({"sub": "bob", "groups": ["owners"], "act": {"sub": "agent-8"}}));
        let workload = place.issuer.token(&json!({"sub": "ci", "client_id": "ci", "groups": ["owners"]}));
        for token in [delegated, workload] {
            let (status, answer) = place.post(&token, &format!("/v1/approvals/{id}/approve"), none.clone()).await;
            assert_eq!(status, 403, "{answer}");
            assert!(answer["error"].as_str().unwrap().contains("only a human"), "{answer}");
        }
        let (_, shown) = place.get(&place.token("bob", "owners"), &format!("/v1/approvals/{id}")).await;
        assert_eq!(shown["state"], "pending");
        assert_eq!(place.recorded(&["approval.decided"]), [] as [Value; 0], "what is refused is not decided");
        place.stop().await;
    });
}

#[test]
fn a_decision_is_on_record_and_taken_once() {
    block(async {
        let place = Place::new("").await;
        let bob = ("bob", "owners");
        let id = place.asked(1, &["bulk"], Duration::ZERO).await;
        for (body, words) in [
            (json!({"rows": 501}), "not widen"),
            (json!({"uses": 0}), "deny it instead"),
            (json!({"expires_s": 100_000}), "not widen"),
            (json!({"rowz": 5}), "rowz"),
        ] {
            let (status, answer) = place.act(bob, &id, "approve", body).await;
            assert_eq!(status, 400, "{answer}");
            assert!(answer["error"].as_str().unwrap().contains(words), "{answer}");
        }
        let (status, answer) = place.act(bob, &id, "approve", json!({"rows": 200, "expires_s": 60})).await;
        assert_eq!((status, &answer["state"]), (200, &json!("approved")), "{answer}");
        assert_eq!((&answer["granted"]["rows"], &answer["granted"]["uses_left"]), (&json!(200), &json!(1)));
        let (status, answer) = place.act(bob, &id, "approve", json!({"rows": 200, "expires_s": 60})).await;
        assert_eq!((status, &answer["approval"]["state"]), (409, &json!("approved")), "{answer}");
        let (status, _) = place.act(bob, &id, "deny", json!({"reason": "late"})).await;
        assert_eq!(status, 409);
        let (status, answer) = place.act(bob, &id, "revoke", json!({})).await;
        assert_eq!(status, 400, "{answer}");
        let (status, answer) = place.act(bob, &id, "revoke", json!({"reason": "changed my mind"})).await;
        assert_eq!((status, &answer["state"]), (200, &json!("revoked")), "{answer}");
        assert_eq!(answer["closed"]["reason"], "changed my mind");
        let other = place.asked(2, &["bulk"], Duration::ZERO).await;
        let (status, answer) = place.act(bob, &other, "deny", json!({"reason": "not for agents"})).await;
        assert_eq!((status, &answer["state"]), (200, &json!("denied")), "{answer}");
        assert_eq!(answer["earlier"][0]["id"], id, "{answer}");

        let events = place.recorded(&["approval.decided", "approval.revoked"]);
        let said: Vec<(&str, &Value)> =
            events.iter().map(|event| (event["type"].as_str().unwrap(), &event["body"])).collect();
        assert_eq!(said.len(), 3, "{said:?}");
        assert_eq!((said[0].0, &said[0].1["decision"]), ("approval.decided", &json!("approved")));
        assert_eq!(said[0].1["scope"], json!({"rows": 200, "seconds": 60, "uses": 1}));
        assert_eq!(said[0].1["asker"], json!({"actor": "agent-7", "iss": ISSUER, "sub": "ann"}));
        assert_eq!((said[1].0, &said[1].1["reason"]), ("approval.revoked", &json!("changed my mind")));
        assert_eq!((&said[2].1["decision"], &said[2].1["approval"]), (&json!("denied"), &json!(other)));
        assert!(events.iter().all(|event| event["principal"]["sub"] == "bob" && event["target"] == "shop"));
        place.stop().await;
    });
}

#[test]
fn a_quorum_is_of_distinct_humans_and_of_every_rule() {
    block(async {
        let place = Place::new("").await;
        let id = place.asked(1, &["bulk", "two"], Duration::ZERO).await;
        let (status, answer) = place.act(("bob", "owners"), &id, "approve", json!({"rows": 300})).await;
        assert_eq!((status, &answer["state"]), (200, &json!("pending")), "{answer}");
        let (status, answer) = place.act(("bob", "owners"), &id, "approve", json!({})).await;
        assert_eq!(status, 409, "{answer}");
        let (status, answer) = place.act(("cleo", "owners"), &id, "approve", json!({"rows": 400})).await;
        assert_eq!((status, &answer["state"]), (200, &json!("approved")), "{answer}");
        assert_eq!(answer["granted"]["rows"], 300, "of several approvals the narrowest holds");
        place.stop().await;
    });
}

#[test]
fn time_tells_the_second_group_and_then_ends_it() {
    block(async {
        let place = Place::new("").await;
        let id = place.asked(1, &["bulk"], MINUTE).await;
        let over = place.asked(2, &["bulk"], 15 * MINUTE).await;
        let eye = place.token("eye", "eyes");
        for (id, state) in [(&id, "escalated"), (&over, "expired")] {
            while place.get(&eye, &format!("/v1/approvals/{id}")).await.1["state"] != state {
                tokio::task::yield_now().await;
            }
        }
        let (status, answer) = place.act(("eve", "on-call"), &id, "approve", json!({})).await;
        assert_eq!((status, &answer["state"]), (200, &json!("approved")), "{answer}");
        let (status, _) = place.act(("bob", "owners"), &over, "approve", json!({})).await;
        assert_eq!(status, 409);
        let swept = place.recorded(&["approval.escalated", "approval.expired"]);
        let swept: Vec<(&str, &str)> = swept
            .iter()
            .map(|event| (event["type"].as_str().unwrap(), event["body"]["approval"].as_str().unwrap()))
            .collect();
        assert!(
            swept.contains(&("approval.escalated", &id)) && swept.contains(&("approval.expired", &over)),
            "{swept:?}"
        );
        place.stop().await;
    });
}

#[test]
fn the_glass_is_broken_by_one_and_looked_at_by_another() {
    block(async {
        let place = Place::new("").await;
        let id = place.asked(1, &["bulk"], Duration::ZERO).await;
        let zoe = ("zoe", "chiefs");
        let (status, answer) = place.act(zoe, &id, "approve", json!({})).await;
        assert_eq!(status, 403, "{answer}");
        let (status, answer) = place.act(zoe, &id, "break-glass", json!({})).await;
        assert_eq!(status, 400, "{answer}");
        let (status, answer) = place.act(("bob", "owners"), &id, "break-glass", json!({"reason": "x"})).await;
        assert_eq!(status, 403, "{answer}");
        let (status, answer) = place.act(zoe, &id, "break-glass", json!({"reason": "the shop burns"})).await;
        assert_eq!((status, &answer["review"]["state"]), (200, &json!("due")), "{answer}");
        assert_eq!(answer["granted"]["glass_broken"]["reason"], "the shop burns");
        let (_, due) = place.get(&place.token("eye", "eyes"), "/v1/approvals?state=review").await;
        assert_eq!(due["approvals"][0]["id"], id);
        let found = json!({"finding": "justified", "remark": "it did burn"});
        let (status, answer) = place.act(zoe, &id, "review", found.clone()).await;
        assert_eq!(status, 403, "{answer}");
        let (status, answer) = place.act(("bob", "owners"), &id, "review", found).await;
        assert_eq!((status, &answer["review"]["finding"]), (200, &json!("justified")), "{answer}");
        let kinds = ["approval.decided", "approval.reviewed"];
        let said: Vec<Value> = place.recorded(&kinds).iter().map(|event| event["type"].clone()).collect();
        assert_eq!(said, kinds);
        place.stop().await;
    });
}

#[test]
fn a_thousand_requests_are_listed_page_by_page_and_withdrawn_by_an_administrator() {
    block(async {
        let place = Place::new("").await;
        // One human has room for 100 open ones.
        for number in 0..1000_u32 {
            let mut ask = ask_of(&format!("asker-{}", number / 100), 0);
            ask.statement = Digest::new([u8::try_from(number % 100).unwrap(); 32]);
            let terms = Terms {
                asker: ask.asker.clone(),
                demands: vec![Demand { rule: "bulk".to_owned(), quorum: 1, escalates_at: None }],
                asked_at: now(),
                decide_by: now().after(15 * MINUTE),
                widest: Scope { ceiling: Ceiling::default(), uses: 1, lasts: MINUTE },
            };
            let card = vec![b'x'; 1000];
            let new = NewRequest { ask, terms, fingerprint: "f".to_owned(), card, tell: Tell::default() };
            assert!(matches!(place.state.ask(new, now()).await.unwrap(), Opened::Opened(_)), "{number}");
        }
        let eye = place.token("eye", "eyes");
        let (mut seen, mut next) = (std::collections::BTreeSet::new(), String::new());
        loop {
            let before = if next.is_empty() { String::new() } else { format!("&before={next}") };
            let (_, page) = place.get(&eye, &format!("/v1/approvals?state=open&limit=100{before}")).await;
            let lines = page["approvals"].as_array().unwrap();
            assert!(lines.len() <= 100 && page.to_string().len() < 200_000);
            seen.extend(lines.iter().map(|line| line["id"].as_str().unwrap().to_owned()));
            match page["next"].as_str() {
                Some(cursor) => next = cursor.to_owned(),
                None => break,
            }
        }
        assert_eq!(seen.len(), 1000);
        let (status, _) = place.get(&eye, "/v1/approvals?limit=1000").await;
        assert_eq!(status, 400);
        // Nothing of it is a stranger's, however far they look.
        let (_, page) = place.get(&place.token("mallory", "x"), "/v1/approvals?state=open").await;
        assert_eq!(page["approvals"], json!([]));
        let wish = json!({"principal": "asker-3"});
        let (status, _) = place.post(&eye, "/v1/approvals/withdraw", wish.clone()).await;
        assert_eq!(status, 403);
        let (status, gone) = place.post(&place.token("olga", "ops"), "/v1/approvals/withdraw", wish).await;
        assert_eq!((status, gone["withdrawn"].as_array().unwrap().len()), (200, 100));
        assert_eq!(place.recorded(&["approval.withdrawn"]).len(), 100);
        place.stop().await;
    });
}

#[test]
fn freezes_hold_at_the_console_too_and_answers_are_as_described() {
    block(async {
        let place = Place::new("").await;
        let (olga, bob) = (place.token("olga", "ops"), place.token("bob", "owners"));
        let id = place.asked(1, &["bulk"], Duration::ZERO).await;
        let wish = json!({"name": "bob", "reason": "incident 42"});
        assert_eq!(place.post(&bob, "/v1/freezes", wish.clone()).await.0, 403);
        assert_eq!(place.post(&olga, "/v1/freezes", wish.clone()).await.0, 201);
        assert_eq!(place.post(&olga, "/v1/freezes", wish).await.0, 409);
        let (status, answer) = place.act(("bob", "owners"), &id, "approve", json!({})).await;
        assert_eq!((status, answer["error"].as_str().unwrap().contains("frozen")), (403, true), "{answer}");
        let (_, listed) = place.get(&olga, "/v1/freezes").await;
        assert_eq!(listed["freezes"][0]["issuer"], ISSUER);
        let lifted = json!({"name": "bob"});
        assert_eq!(place.post(&olga, "/v1/freezes/lift", lifted.clone()).await.0, 200);
        assert_eq!(place.post(&olga, "/v1/freezes/lift", lifted).await.0, 404);
        let (status, answer) = place.act(("bob", "owners"), &id, "approve", json!({})).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(place.post(&olga, "/v1/limits/show", json!({})).await.0, 200);
        let acting = json!({"sub": "olga", "groups": ["ops"], "act": {"sub": "agent-7"}});
        let (status, answer) = place.post(&place.issuer.token(&acting), "/v1/limits/reset", json!({})).await;
        assert_eq!(status, 403, "an agent has none of its human's roles: {answer}");
        let (status, document) = place.get(&bob, "/v1/openapi.json").await;
        assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
        place.stop().await;
    });
}
