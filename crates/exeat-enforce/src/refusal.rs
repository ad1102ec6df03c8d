//! Refusals: the one payload with which the gateway says no, so that a program can act on it.
//! Pure. The codes are a closed, documented list; each maps to one SQLSTATE. A refusal never holds a value,
//! and no name that the client did not send or may not see: whoever builds one guarantees that.

use exeat_policy::RelationName;
use exeat_sql::ParseFailure;
use exeat_wire::fields::Fields;
use serde::Serialize;

/// Version of the payload's schema: members may be added, none change meaning.
const PAYLOAD_VERSION: u8 = 1;

/// Why a statement is refused, for programs. A new code is a line in the documentation first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalCode {
    NoRule,
    Denied,
    CapabilityMissing,
    MaskedColumnInPredicate,
    MaskedColumnInWrite,
    MaskedColumnInExpression,
    MaskedColumnInKey,
    OpaqueStatement,
    OpaqueFunction,
    UnresolvedName,
    UnclassifiedRelation,
    CatalogDrift,
    SelectStar,
    UnboundedRead,
    UnboundedWrite,
    SettingPinned,
    LookupProbes,
    RowLimit,
    ByteLimit,
    CellLimit,
    RefusalLimit,
    ApprovalPending,
    ApprovalDenied,
    ApprovalExpired,
    StatementTooLarge,
    StatementChanged,
    NotEnforceable,
}

impl RefusalCode {
    /// Every code, in the order of the documentation.
    pub const ALL: [Self; 27] = [
        Self::NoRule,
        Self::Denied,
        Self::CapabilityMissing,
        Self::MaskedColumnInPredicate,
        Self::MaskedColumnInWrite,
        Self::MaskedColumnInExpression,
        Self::MaskedColumnInKey,
        Self::OpaqueStatement,
        Self::OpaqueFunction,
        Self::UnresolvedName,
        Self::UnclassifiedRelation,
        Self::CatalogDrift,
        Self::SelectStar,
        Self::UnboundedRead,
        Self::UnboundedWrite,
        Self::SettingPinned,
        Self::LookupProbes,
        Self::RowLimit,
        Self::ByteLimit,
        Self::CellLimit,
        Self::RefusalLimit,
        Self::ApprovalPending,
        Self::ApprovalDenied,
        Self::ApprovalExpired,
        Self::StatementTooLarge,
        Self::StatementChanged,
        Self::NotEnforceable,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRule => "no_rule",
            Self::Denied => "denied",
            Self::CapabilityMissing => "capability_missing",
            Self::MaskedColumnInPredicate => "masked_column_in_predicate",
            Self::MaskedColumnInWrite => "masked_column_in_write",
            Self::MaskedColumnInExpression => "masked_column_in_expression",
            Self::MaskedColumnInKey => "masked_column_in_key",
            Self::OpaqueStatement => "opaque_statement",
            Self::OpaqueFunction => "opaque_function",
            Self::UnresolvedName => "unresolved_name",
            Self::UnclassifiedRelation => "unclassified_relation",
            Self::CatalogDrift => "catalog_drift",
            Self::SelectStar => "select_star",
            Self::UnboundedRead => "unbounded_read",
            Self::UnboundedWrite => "unbounded_write",
            Self::SettingPinned => "setting_pinned",
            Self::LookupProbes => "lookup_probes",
            Self::RowLimit => "row_limit",
            Self::ByteLimit => "byte_limit",
            Self::CellLimit => "cell_limit",
            Self::RefusalLimit => "refusal_limit",
            Self::ApprovalPending => "approval_pending",
            Self::ApprovalDenied => "approval_denied",
            Self::ApprovalExpired => "approval_expired",
            Self::StatementTooLarge => "statement_too_large",
            Self::StatementChanged => "statement_changed",
            Self::NotEnforceable => "not_enforceable",
        }
    }

    /// Never a SQLSTATE on which drivers retry by themselves (40001, 40P01, 57P0x, 08xxx, 55P03).
    pub fn sqlstate(self) -> &'static str {
        match self {
            Self::NoRule
            | Self::Denied
            | Self::CapabilityMissing
            | Self::MaskedColumnInPredicate
            | Self::MaskedColumnInWrite
            | Self::MaskedColumnInExpression
            | Self::MaskedColumnInKey
            | Self::OpaqueStatement
            | Self::OpaqueFunction
            | Self::UnresolvedName
            | Self::UnclassifiedRelation
            | Self::CatalogDrift
            | Self::SelectStar
            | Self::UnboundedRead
            | Self::UnboundedWrite
            | Self::SettingPinned
            | Self::ApprovalDenied
            | Self::ApprovalExpired => "42501",
            Self::LookupProbes | Self::RowLimit | Self::ByteLimit | Self::CellLimit | Self::RefusalLimit => "53400",
            Self::ApprovalPending => "YG001",
            Self::StatementTooLarge => "54000",
            Self::StatementChanged => "26000",
            Self::NotEnforceable => "58030",
        }
    }
}

/// What the refusal is about, in the client's own words.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Object {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// 1-based character position in the client's own SQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<usize>,
}

impl Object {
    pub fn at(target: &str, at: Option<usize>) -> Self {
        Self { target: Some(target.to_owned()), at, ..Self::default() }
    }

    pub fn relation(target: &str, relation: Option<&RelationName>) -> Self {
        Self { relation: relation.map(qualified), ..Self::at(target, None) }
    }

    pub fn column(target: &str, relation: &RelationName, column: Option<&str>, at: Option<usize>) -> Self {
        Self { relation: Some(qualified(relation)), column: column.map(str::to_owned), ..Self::at(target, at) }
    }
}

fn qualified(relation: &RelationName) -> String {
    format!("{}.{}", relation.schema, relation.name)
}

/// One refusal, ready for any edge: ERROR fields in PostgreSQL, the JSON payload elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: RefusalCode,
    /// The rule that decided, where one did.
    pub rule: Option<String>,
    pub object: Object,
    /// One plain sentence.
    pub reason: String,
    /// What would be allowed instead.
    pub allowed: Vec<String>,
    /// What to do now, one sentence.
    pub suggestion: Option<String>,
    /// When waiting helps.
    retry: Option<Box<Retry>>,
    /// The connection ends with this answer.
    ends_session: bool,
}

/// When the same would be allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Retry {
    /// Of the request for approval: `pending`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    pub after_s: u64,
    /// In RFC 3339, as the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resets_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// The request for approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<String>,
}

#[derive(Serialize)]
struct Payload<'a> {
    v: u8,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    request_id: &'a str,
    object: &'a Object,
    reason: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    allowed: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    suggestion: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<&'a Retry>,
}

impl Refusal {
    pub fn new(code: RefusalCode, reason: impl Into<String>) -> Self {
        Self {
            code,
            rule: None,
            object: Object::default(),
            reason: reason.into(),
            allowed: Vec::new(),
            suggestion: None,
            retry: None,
            ends_session: false,
        }
    }

    #[must_use]
    pub fn rule(mut self, rule: impl Into<String>) -> Self {
        self.rule = Some(rule.into());
        self
    }

    #[must_use]
    pub fn object(mut self, object: Object) -> Self {
        self.object = object;
        self
    }

    /// One more thing that would be allowed instead.
    #[must_use]
    pub fn allowed(mut self, alternative: impl Into<String>) -> Self {
        self.allowed.push(alternative.into());
        self
    }

    #[must_use]
    pub fn suggestion(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// When it would be allowed again: so many seconds from now, at this time.
    #[must_use]
    pub fn retry(self, after_s: u64, resets_at: String) -> Self {
        self.retry_as(Retry { after_s, resets_at: Some(resets_at), ..Retry::default() })
    }

    #[must_use]
    pub fn retry_as(mut self, retry: Retry) -> Self {
        self.retry = Some(Box::new(retry));
        self
    }

    pub fn sqlstate(&self) -> &'static str {
        self.code.sqlstate()
    }

    /// FATAL: the connection ends. Refusals of statements never do; only an outcome that could not be recorded.
    pub fn fatal(&self) -> bool {
        self.ends_session
    }

    /// The payload as JSON on one line.
    pub fn payload_json(&self, request_id: &str) -> String {
        let payload = Payload {
            v: PAYLOAD_VERSION,
            code: self.code.as_str(),
            rule: self.rule.as_deref(),
            request_id,
            object: &self.object,
            reason: &self.reason,
            allowed: &self.allowed,
            suggestion: self.suggestion.as_deref(),
            retry: self.retry.as_deref(),
        };
        // Strings and numbers always serialise; should that ever change, the code alone is still an answer.
        serde_json::to_string(&payload)
            .unwrap_or_else(|_| format!(r#"{{"v":{PAYLOAD_VERSION},"code":"{}"}}"#, self.code.as_str()))
    }

    /// The ErrorResponse a PostgreSQL client gets.
    pub fn to_fields(&self, request_id: &str) -> Fields {
        self.fields(if self.fatal() { "FATAL" } else { "ERROR" }, request_id)
    }

    /// The same for a connection that is refused before its session began.
    pub fn to_fatal_fields(&self, request_id: &str) -> Fields {
        self.fields("FATAL", request_id)
    }

    fn fields(&self, severity: &str, request_id: &str) -> Fields {
        let mut fields =
            Fields::new(severity, self.sqlstate(), &one_line(&self.reason)).with(b'D', &self.payload_json(request_id));
        if let Some(suggestion) = &self.suggestion {
            fields = fields.with(b'H', &one_line(suggestion));
        }
        if let Some(at) = self.object.at {
            fields = fields.with(b'P', &at.to_string());
        }
        fields
    }
}

/// Refusals that several steps have in common.
impl Refusal {
    /// The text never reached analysis. `Syntax` is for the parse probe; refused here only where none is possible.
    pub fn parse_failure(failure: &ParseFailure) -> Self {
        match failure {
            // The parser's own message quotes the client's text, literals included: it stays out of the payload.
            ParseFailure::Syntax { .. } => {
                Self::new(RefusalCode::OpaqueStatement, "the statement does not parse").suggestion("check its syntax")
            }
            ParseFailure::TooLong { .. } => Self::new(RefusalCode::StatementTooLarge, failure.to_string())
                .suggestion("send it in parts, or its values as parameters"),
            ParseFailure::TooDeep => Self::new(RefusalCode::StatementTooLarge, failure.to_string())
                .suggestion("nest it less deeply, or send it in parts"),
            ParseFailure::NotAnalysed { .. } => Self::new(RefusalCode::OpaqueStatement, failure.to_string())
                .suggestion("write it without that construct"),
        }
    }

    /// What the statement was prepared against has changed; drivers prepare again on this SQLSTATE.
    pub fn statement_changed() -> Self {
        Self::new(RefusalCode::StatementChanged, "what this statement was prepared against has changed")
            .suggestion("prepare it again")
    }

    /// The server's answer has another shape than the analysis said: nothing of it was released.
    pub fn catalog_drift() -> Self {
        Self::new(RefusalCode::CatalogDrift, "the server answered with other columns than the catalog promised")
            .suggestion("send the statement again")
    }

    /// Something the gateway needs in order to enforce is broken; `what` names it without inner detail.
    pub fn not_enforceable(what: &str) -> Self {
        Self::new(RefusalCode::NotEnforceable, format!("the gateway cannot enforce policy now: {what}"))
            .suggestion("try again later; the operator finds the cause in the gateway's log and in /readyz")
    }

    /// The statement may have committed, but its outcome is not on record: the one refusal that ends the session.
    pub fn outcome_not_recorded() -> Self {
        let mut refusal = Self::new(RefusalCode::NotEnforceable, "outcome not recorded, may have committed")
            .suggestion("reconnect and check whether the change is there before you repeat it");
        refusal.ends_session = true;
        refusal
    }
}

/// Names may hold line breaks; a MESSAGE or HINT is one line, so that nobody forges log lines with a table name.
fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn relation(schema: &str, name: &str) -> RelationName {
        RelationName { schema: schema.to_owned(), name: name.to_owned() }
    }

    fn example() -> Refusal {
        let object = Object::column("shop", &relation("public", "customers"), Some("ssn"), Some(47));
        Refusal::new(RefusalCode::MaskedColumnInPredicate, "ssn is sealed for you; it may not be compared")
            .rule("mask-pii")
            .object(object)
            .allowed("select ssn (masked)")
            .suggestion("remove ssn from WHERE")
    }

    #[test]
    fn payload_has_the_documented_members() {
        let json = example().payload_json("req_1");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        let expected = serde_json::json!({
            "v": 1, "code": "masked_column_in_predicate", "rule": "mask-pii", "request_id": "req_1",
            "object": {"target": "shop", "relation": "public.customers", "column": "ssn", "at": 47},
            "reason": "ssn is sealed for you; it may not be compared",
            "allowed": ["select ssn (masked)"], "suggestion": "remove ssn from WHERE"
        });
        assert_eq!(value, expected);
        let limited = Refusal::new(RefusalCode::LookupProbes, "x").retry(60, "2026-11-20T22:41:00Z".to_owned());
        let json = limited.payload_json("r");
        assert!(json.ends_with(r#""retry":{"after_s":60,"resets_at":"2026-11-20T22:41:00Z"}}"#), "{json}");
        let bare = Refusal::new(RefusalCode::NoRule, "no rule").payload_json("r");
        assert_eq!(bare, r#"{"v":1,"code":"no_rule","request_id":"r","object":{},"reason":"no rule"}"#);
    }

    #[test]
    fn fields_carry_the_payload_and_where_it_is() {
        let fields = example().to_fields("req_1");
        let get = |code| fields.get(code).map(std::borrow::Cow::into_owned);
        assert_eq!(get(b'S').as_deref(), Some("ERROR"));
        assert_eq!(get(b'C').as_deref(), Some("42501"));
        assert_eq!(get(b'M').as_deref(), Some("ssn is sealed for you; it may not be compared"));
        assert_eq!(get(b'D'), Some(example().payload_json("req_1")));
        assert_eq!(get(b'H').as_deref(), Some("remove ssn from WHERE"));
        assert_eq!(get(b'P').as_deref(), Some("47"));
        let bare = Refusal::new(RefusalCode::NoRule, "no rule").to_fields("r");
        assert!(bare.get(b'P').is_none() && bare.get(b'H').is_none());
    }

    #[test]
    fn names_with_line_breaks_stay_on_one_line() {
        let object = Object::relation("shop", Some(&relation("public", "a\nLOG: forged\u{1b}[2J")));
        let fields =
            Refusal::new(RefusalCode::Denied, "a\nb\u{1b}").object(object).suggestion("c\r\nd").to_fields("req_1");
        for (_, value) in fields.iter() {
            assert!(!value.iter().any(u8::is_ascii_control), "{}", String::from_utf8_lossy(value));
        }
    }

    #[test]
    fn codes_are_distinct_and_none_is_retried_by_drivers() {
        let names: BTreeSet<_> = RefusalCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), RefusalCode::ALL.len());
        for code in RefusalCode::ALL {
            let sqlstate = code.sqlstate();
            assert_eq!(sqlstate.len(), 5);
            assert!(!["40001", "40P01", "55P03"].contains(&sqlstate), "{code:?}");
            assert!(!sqlstate.starts_with("08") && !sqlstate.starts_with("57P0"), "{code:?}");
        }
    }

    #[test]
    fn outcomes_have_the_documented_sqlstate() {
        for (code, sqlstate) in [
            (RefusalCode::Denied, "42501"),
            (RefusalCode::UnresolvedName, "42501"),
            (RefusalCode::ApprovalPending, "YG001"),
            (RefusalCode::RowLimit, "53400"),
            (RefusalCode::StatementChanged, "26000"),
            (RefusalCode::NotEnforceable, "58030"),
            (RefusalCode::StatementTooLarge, "54000"),
        ] {
            assert_eq!(code.sqlstate(), sqlstate, "{code:?}");
        }
    }

    #[test]
    fn only_an_unrecorded_outcome_ends_the_session() {
        let fields = Refusal::outcome_not_recorded().to_fields("req_1");
        assert_eq!(fields.severity().as_deref(), Some("FATAL"));
        assert_eq!(fields.sqlstate().as_deref(), Some("58030"));
        assert_eq!(fields.message().as_deref(), Some("outcome not recorded, may have committed"));
        for refusal in [
            Refusal::not_enforceable("the record cannot be written"),
            Refusal::statement_changed(),
            Refusal::catalog_drift(),
            example(),
        ] {
            assert!(!refusal.fatal());
            assert_eq!(refusal.to_fields("r").severity().as_deref(), Some("ERROR"));
        }
    }

    #[test]
    fn a_syntax_error_does_not_quote_the_statement() {
        let failure = ParseFailure::Syntax { message: "syntax error at or near \"4111111111111111\"".to_owned() };
        assert!(!Refusal::parse_failure(&failure).payload_json("r").contains("4111"));
        assert_eq!(Refusal::parse_failure(&ParseFailure::TooDeep).sqlstate(), "54000");
        assert_eq!(Refusal::parse_failure(&ParseFailure::TooLong { bytes: 1 }).sqlstate(), "54000");
        let construct = ParseFailure::NotAnalysed { construct: "X".to_owned() };
        assert_eq!(Refusal::parse_failure(&construct).sqlstate(), "42501");
    }
}
