//! What a client asks the gateway itself, before it tries: SHOW exeat.policy and its kin, SET exeat.purpose, and
//! SET exeat.explain, after which the next statement says what would become of it (`explain`). Pure; the answers are
//! JSON. Says nothing of relations the client may not read, and never a value.

use exeat_policy::{Access, AccessRequest, Capability, Effect, Policy, Preset};
use exeat_sql::{MessageAnalysis, SessionCommand, StatementKind};
use serde_json::{Value, json};

use crate::evaluate::{SessionFacts, relation_name};
use crate::refusal::{Refusal, RefusalCode};
use crate::settings;

const VERSION: u32 = 1;

/// A purpose is a sentence.
pub const PURPOSE_BYTES_MAX: usize = 1024;

/// Sealed columns listed in one answer.
const COLUMNS_MAX: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Show(Topic),
    /// What the client says it does this for: recorded, never trusted.
    Purpose(String),
    /// The next statement is explained instead of run.
    Explain(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    Policy,
    Limits,
    Session,
    LastRefusal,
    Purpose,
    Explain,
}

/// Set at the server for row-level security, which answers SHOW for them.
const SERVERS: [&str; 2] = ["subject", "actor"];

impl Topic {
    const ALL: [Self; 6] = [Self::Policy, Self::Limits, Self::Session, Self::LastRefusal, Self::Purpose, Self::Explain];

    /// Without the prefix.
    fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Limits => "limits",
            Self::Session => "session",
            Self::LastRefusal => "last_refusal",
            Self::Purpose => "purpose",
            Self::Explain => "explain",
        }
    }

    /// Of the one column of the answer.
    pub fn column(self) -> &'static str {
        match self {
            Self::Policy => "exeat.policy",
            Self::Limits => "exeat.limits",
            Self::Session => "exeat.session",
            Self::LastRefusal => "exeat.last_refusal",
            Self::Purpose => "exeat.purpose",
            Self::Explain => "exeat.explain",
        }
    }
}

/// `None`: the message is none of these. What the gateway answers does not mix with what the server does.
pub fn asked(facts: &SessionFacts, policy: &Policy, analysis: &MessageAnalysis) -> Option<Result<Asked, Refusal>> {
    let found = analysis.statements.iter().find_map(|statement| match &statement.kind {
        StatementKind::Session(command) => of_command(command),
        _ => None,
    })?;
    if analysis.statements.len() > 1 {
        let alone = Refusal::new(RefusalCode::SettingPinned, "what begins with \"exeat.\" is answered by the gateway");
        return Some(Err(alone.suggestion("send it as a message of its own")));
    }
    let request = AccessRequest {
        principal: &facts.principal,
        target: &facts.target,
        accesses: Vec::new(),
        presets: vec![Preset::Session],
    };
    if policy.decide(&request).effect == Effect::Deny {
        // The ordinary evaluation words it.
        return None;
    }
    Some(found)
}

fn of_command(command: &SessionCommand) -> Option<Result<Asked, Refusal>> {
    match command {
        SessionCommand::Show { setting } => {
            let name = own_part(setting)?;
            let topic = Topic::ALL.into_iter().find(|topic| topic.name().eq_ignore_ascii_case(name));
            match topic {
                Some(topic) => Some(Ok(Asked::Show(topic))),
                None if SERVERS.iter().any(|known| known.eq_ignore_ascii_case(name)) => None,
                None => Some(Err(Refusal::new(RefusalCode::SettingPinned, format!("there is no {setting:?} to show"))
                    .suggestion("ask for exeat.policy, exeat.limits, exeat.session or exeat.last_refusal"))),
            }
        }
        SessionCommand::Set { setting, values, local: _ } => set(own_part(setting)?, setting, values.as_deref()),
        SessionCommand::Reset { setting: Some(setting) } => match own_part(setting)?.to_ascii_lowercase().as_str() {
            "purpose" => Some(Ok(Asked::Purpose(String::new()))),
            "explain" => Some(Ok(Asked::Explain(false))),
            _ => None,
        },
        _ => None,
    }
}

fn own_part(setting: &str) -> Option<&str> {
    if !settings::is_own(setting) {
        return None;
    }
    setting.split_once('.').map(|(_, name)| name)
}

/// What else begins with the prefix is refused as any setting of the gateway's own.
fn set(name: &str, setting: &str, values: Option<&[String]>) -> Option<Result<Asked, Refusal>> {
    let refused =
        |reason: String, hint: &str| Some(Err(Refusal::new(RefusalCode::SettingPinned, reason).suggestion(hint)));
    match (name.to_ascii_lowercase().as_str(), values) {
        ("purpose", Some([text])) if text.len() <= PURPOSE_BYTES_MAX => Some(Ok(Asked::Purpose(text.clone()))),
        ("purpose", Some([text])) => refused(
            format!("a purpose of {} bytes exceeds the limit of {PURPOSE_BYTES_MAX}", text.len()),
            "say it in a sentence",
        ),
        ("explain", Some([text])) => match text.to_ascii_lowercase().as_str() {
            "on" | "true" | "yes" | "1" => Some(Ok(Asked::Explain(true))),
            "off" | "false" | "no" | "0" => Some(Ok(Asked::Explain(false))),
            _ => refused(format!("setting {setting:?} takes only on or off"), "use on or off"),
        },
        ("purpose" | "explain", _) => {
            refused(format!("setting {setting:?} takes one literal"), "write it as a literal")
        }
        _ => None,
    }
}

/// What policy says of this principal here.
pub fn policy_json(facts: &SessionFacts, policy: &Policy, version: u64) -> String {
    let mut capabilities: Vec<_> =
        policy.capabilities(&facts.principal, &facts.target).iter().map(|capability| capability.name()).collect();
    capabilities.sort_unstable();
    let mut sealed = Vec::new();
    for relation in facts.snapshot.relations() {
        if relation.is_metadata()
            || facts.seals.relation(relation.oid).is_none()
            || !readable(facts, policy, relation.oid)
        {
            continue;
        }
        for column in &relation.columns {
            let id = exeat_sql::ColumnId { relation: relation.oid, attribute: column.attribute };
            let Some(mask) = facts.seals.column(id).filter(|_| !facts.seals.hidden().column(id)) else { continue };
            let name = format!("{}.{}.{}", relation.schema_name, relation.name, column.name);
            sealed.push((name, mask.label.clone(), mask.mask.name()));
        }
    }
    sealed.sort();
    let more = sealed.len() > COLUMNS_MAX;
    sealed.truncate(COLUMNS_MAX);
    let sealed: Vec<Value> = sealed
        .into_iter()
        .map(|(column, label, mask)| json!({"column": column, "label": label, "mask": mask}))
        .collect();
    json!({
        "v": VERSION, "version": version, "target": facts.target, "capabilities": capabilities, "sealed": sealed,
        "more": more,
    })
    .to_string()
}

fn readable(facts: &SessionFacts, policy: &Policy, oid: exeat_sql::Oid) -> bool {
    let request = AccessRequest {
        principal: &facts.principal,
        target: &facts.target,
        accesses: vec![Access { capability: Capability::Read, relation: relation_name(&facts.snapshot, oid) }],
        presets: Vec::new(),
    };
    policy.decide(&request).effect == Effect::Permit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(setting: &str) -> Option<Result<Asked, Refusal>> {
        of_command(&SessionCommand::Show { setting: setting.to_owned() })
    }

    fn set(setting: &str, value: &str) -> Option<Result<Asked, Refusal>> {
        let values = Some(vec![value.to_owned()]);
        of_command(&SessionCommand::Set { setting: setting.to_owned(), values, local: false })
    }

    #[test]
    fn the_gateway_answers_for_its_own_names_and_no_others() {
        assert_eq!(show("exeat.policy"), Some(Ok(Asked::Show(Topic::Policy))));
        assert_eq!(show("EXEAT.Last_Refusal"), Some(Ok(Asked::Show(Topic::LastRefusal))));
        assert!(matches!(show("exeat.nosuch"), Some(Err(_))));
        for other in ["exeat.subject", "work_mem", "exeatx.policy"] {
            assert_eq!(show(other), None, "{other}");
        }
    }

    #[test]
    fn only_purpose_and_explain_can_be_set() {
        assert_eq!(set("exeat.purpose", "ticket 7"), Some(Ok(Asked::Purpose("ticket 7".to_owned()))));
        assert!(matches!(set("exeat.purpose", &"x".repeat(PURPOSE_BYTES_MAX + 1)), Some(Err(_))));
        assert_eq!(set("exeat.explain", "ON"), Some(Ok(Asked::Explain(true))));
        assert!(matches!(set("exeat.explain", "perhaps"), Some(Err(_))));
        for other in ["exeat.subject", "exeat.policy", "work_mem"] {
            assert_eq!(set(other, "x"), None, "{other}");
        }
        let computed = SessionCommand::Set { setting: "exeat.purpose".to_owned(), values: None, local: false };
        assert!(matches!(of_command(&computed), Some(Err(_))));
    }
}
