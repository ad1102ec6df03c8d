//! Settings: which of them a client may change, and to what. The session preset as a closed list.
//! Pure. Pinned settings keep the value that analysis and masking rely on; `exeat.*` carries the principal to the
//! database and is never the client's to set. A setting not listed here is refused: unknown is not harmless.

use exeat_sql::{SessionCommand, ShownSettings};

use crate::refusal::{Refusal, RefusalCode};

/// Names starting with this are the gateway's own: row-level security reads the principal from them.
const OWN_PREFIX: &str = "exeat.";

/// What the client may give a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Any value, also one that comes as a parameter: the server checks it.
    Any,
    /// Any literal: what it says decides what names mean, and analysis has to know.
    AnyLiteral,
    /// One of these, compared as the server compares enum values (case-insensitive).
    OneOf(&'static [&'static str]),
    /// Only the value it already has.
    Pinned(Pin),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pin {
    /// Every spelling of UTF-8 the server knows. Masks and analysis decode text as UTF-8.
    Utf8,
    /// What sits in a string literal decides where it ends: the grammar here and there must agree.
    On,
    /// `safe_encoding`, the server's default, or stricter.
    SafeQuote,
    /// Where statements and values are logged or traced is the operator's; the value is not known here.
    Operator,
}

const ON: &[&str] = &["on", "true", "yes", "1", "t", "tr", "tru", "y", "ye"];

/// DEBUG and LOG would let the server narrate plans and user code to the client.
const MESSAGE_LEVELS: &[&str] = &["notice", "warning", "error"];

/// The session preset. Lower case; looked up without regard to case, as the server does.
const SETTINGS: &[(&str, Rule)] = &[
    ("application_name", Rule::Any),
    ("backslash_quote", Rule::Pinned(Pin::SafeQuote)),
    ("bytea_output", Rule::Any),
    ("check_function_bodies", Rule::Any),
    ("client_encoding", Rule::Pinned(Pin::Utf8)),
    ("client_min_messages", Rule::OneOf(MESSAGE_LEVELS)),
    ("datestyle", Rule::Any),
    ("extra_float_digits", Rule::Any),
    ("intervalstyle", Rule::Any),
    ("jit", Rule::Any),
    ("lock_timeout", Rule::Any),
    ("row_security", Rule::OneOf(ON)),
    ("search_path", Rule::AnyLiteral),
    ("standard_conforming_strings", Rule::Pinned(Pin::On)),
    ("statement_timeout", Rule::Any),
    ("timezone", Rule::Any),
    ("work_mem", Rule::Any),
    ("xmloption", Rule::Any),
];

/// Settings that the server shows to administrators only, of every supported version.
const HIDDEN: &[&str] = &[
    "config_file",
    "data_directory",
    "dynamic_library_path",
    "extension_control_path",
    "extension_destdir",
    "external_pid_file",
    "hba_file",
    "ident_file",
    "jit_provider",
    "krb_server_keyfile",
    "log_directory",
    "log_filename",
    "oauth_validator_libraries",
    "primary_conninfo",
    "session_preload_libraries",
    "shared_preload_libraries",
    "ssl_ciphers",
    "ssl_dh_params_file",
    "ssl_ecdh_curve",
    "ssl_groups",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "ssl_passphrase_command",
    "ssl_tls13_ciphers",
    "unix_socket_directories",
];

/// Families, by prefix.
const FAMILIES: &[(&str, Rule)] = &[
    ("debug_", Rule::Pinned(Pin::Operator)),
    ("enable_", Rule::Any),
    ("idle_", Rule::Any),
    ("log_", Rule::Pinned(Pin::Operator)),
    ("transaction_", Rule::Any),
];

/// A setting that stays as it is, and why. Holds the setting's name, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingRefused {
    #[error("setting \"{name}\" is the gateway's own")]
    Own { name: String },
    #[error("setting \"{name}\" is pinned by the gateway to {pinned}")]
    Pinned { name: String, pinned: &'static str },
    #[error("setting \"{name}\" takes only {allowed} through the gateway")]
    Value { name: String, allowed: String },
    #[error("setting \"{name}\" takes only a literal through the gateway")]
    Computed { name: String },
    #[error("setting \"{name}\" is not one a client may change through the gateway")]
    Unknown { name: String },
}

impl SettingRefused {
    pub fn into_refusal(self) -> Refusal {
        let suggestion = match &self {
            Self::Own { .. } => "leave it alone; SHOW it to read who you are to the database".to_owned(),
            Self::Pinned { pinned, .. } => format!("leave it at {pinned}"),
            Self::Value { allowed, .. } => format!("use {allowed}"),
            Self::Computed { .. } => "write the value as a literal".to_owned(),
            Self::Unknown { .. } => "leave it at the server's default".to_owned(),
        };
        Refusal::new(RefusalCode::SettingPinned, self.to_string()).suggestion(suggestion)
    }
}

/// `None` if the command changes no setting it may not. `SHOW` is metadata and passes.
pub fn refuse_command(command: &SessionCommand) -> Option<SettingRefused> {
    match command {
        SessionCommand::Set { setting, values, .. } => refuse_setting(setting, values.as_deref()),
        SessionCommand::Reset { setting: Some(setting) } => refuse_reset(setting),
        // A setting with a dot in its name is an application's own, and may hold what it likes.
        SessionCommand::Show { setting } if setting.contains('.') && !is_own(setting) => {
            Some(SettingRefused::Unknown { name: setting.clone() })
        }
        // Back to the values of login, which the gateway gave; the session's picture is read again after it.
        SessionCommand::Reset { setting: None } | SessionCommand::Discard { .. } => None,
        SessionCommand::Transaction(_)
        | SessionCommand::Show { .. }
        | SessionCommand::SetTransaction
        | SessionCommand::SetConstraints
        | SessionCommand::Deallocate { .. }
        | SessionCommand::CloseCursor { .. }
        | SessionCommand::Listen { .. }
        | SessionCommand::Unlisten { .. }
        | SessionCommand::Notify { .. } => None,
    }
}

/// Whether an ordinary role would not be shown all of this.
pub fn shows_hidden(shown: &ShownSettings) -> bool {
    shown.others || shown.named.iter().any(|name| HIDDEN.contains(&name.as_str()))
}

/// Whether the gateway alone says this setting's value, in every session.
pub fn is_own(name: &str) -> bool {
    name.get(..OWN_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(OWN_PREFIX))
}

/// For SET, set_config and startup options. `values` is `None` where a value is not a plain literal but a parameter
/// or of another type.
pub fn refuse_setting(name: &str, values: Option<&[String]>) -> Option<SettingRefused> {
    let rule = match rule_of(name) {
        Ok(rule) => rule,
        Err(refused) => return Some(refused),
    };
    let owned = || name.to_owned();
    match (rule, values) {
        (Rule::Any, _) | (Rule::AnyLiteral, Some(_)) => None,
        (Rule::AnyLiteral | Rule::OneOf(_) | Rule::Pinned(_), None) => Some(SettingRefused::Computed { name: owned() }),
        (Rule::OneOf(allowed), Some([value])) if is_one_of(value, allowed) => None,
        (Rule::OneOf(allowed), Some(_)) => Some(SettingRefused::Value { name: owned(), allowed: list(allowed) }),
        (Rule::Pinned(pin), Some([value])) if pin.holds(value) => None,
        (Rule::Pinned(pin), Some(_)) => Some(SettingRefused::Pinned { name: owned(), pinned: pin.describe() }),
    }
}

/// RESET x and SET x TO DEFAULT: back to the value of login, which the gateway gave or admitted.
fn refuse_reset(name: &str) -> Option<SettingRefused> {
    rule_of(name).err()
}

fn rule_of(name: &str) -> Result<Rule, SettingRefused> {
    let folded = name.to_ascii_lowercase();
    if folded.starts_with(OWN_PREFIX) {
        return Err(SettingRefused::Own { name: name.to_owned() });
    }
    let exact = SETTINGS.iter().find(|(known, _)| *known == folded);
    let family = || FAMILIES.iter().find(|(prefix, _)| folded.starts_with(prefix));
    exact.or_else(family).map(|(_, rule)| *rule).ok_or_else(|| SettingRefused::Unknown { name: name.to_owned() })
}

impl Pin {
    fn holds(self, value: &str) -> bool {
        match self {
            Self::Utf8 => is_utf8(value),
            Self::On => is_one_of(value, ON),
            Self::SafeQuote => value.eq_ignore_ascii_case("safe_encoding"),
            Self::Operator => false,
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF8",
            Self::On => "on",
            Self::SafeQuote => "safe_encoding",
            Self::Operator => "the operator's value",
        }
    }
}

/// The server compares encoding names without case and without anything but letters and digits; `unicode` is its
/// old name for UTF-8.
pub fn is_utf8(encoding: &str) -> bool {
    let plain: String =
        encoding.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    plain == "utf8" || plain == "unicode"
}

fn is_one_of(value: &str, allowed: &[&str]) -> bool {
    allowed.iter().any(|known| value.eq_ignore_ascii_case(known))
}

fn list(allowed: &[&str]) -> String {
    allowed.iter().take(3).copied().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> Option<SettingRefused> {
        refuse_setting(name, Some(&[value.to_owned()]))
    }

    #[test]
    fn preset_settings_take_literals_in_any_case() {
        for name in [
            "DateStyle",
            "IntervalStyle",
            "TimeZone",
            "extra_float_digits",
            "bytea_output",
            "application_name",
            "statement_timeout",
            "lock_timeout",
            "idle_in_transaction_session_timeout",
            "transaction_isolation",
            "transaction_timeout",
            "xmloption",
            "check_function_bodies",
            "jit",
            "enable_seqscan",
            "work_mem",
        ] {
            assert_eq!(set(name, "x"), None, "{name}");
            assert_eq!(refuse_setting(name, None), None, "{name}");
        }
    }

    #[test]
    fn what_the_gateway_has_to_know_is_never_computed() {
        assert_eq!(set("SEARCH_PATH", "x"), None);
        for name in ["SEARCH_PATH", "row_security", "client_min_messages", "client_encoding", "log_statement"] {
            assert_eq!(refuse_setting(name, None), Some(SettingRefused::Computed { name: name.to_owned() }));
        }
    }

    #[test]
    fn lists_of_values_pass_where_the_server_takes_lists() {
        assert_eq!(refuse_setting("search_path", Some(&["a".to_owned(), "b".to_owned()])), None);
        assert!(refuse_setting("row_security", Some(&["on".to_owned(), "off".to_owned()])).is_some());
        assert!(refuse_setting("client_encoding", Some(&[])).is_some());
    }

    #[test]
    fn pinned_settings_take_only_themselves() {
        for (name, holds, breaks) in [
            ("client_encoding", &["UTF8", "utf8", "utf-8", "UTF_8", "unicode"][..], &["SQL_ASCII", "LATIN1", ""][..]),
            ("standard_conforming_strings", &["on", "ON", "true", "1"], &["off", "false", "0", "o"]),
            ("Standard_Conforming_Strings", &["on"], &["off"]),
            ("backslash_quote", &["safe_encoding"], &["on", "off"]),
            ("row_security", &["on", "yes"], &["off", "force", "o"]),
            ("client_min_messages", &["notice", "WARNING", "error"], &["debug1", "log", "info", "debug5", "Debug"]),
        ] {
            for value in holds {
                assert_eq!(set(name, value), None, "{name} = {value}");
            }
            for value in breaks {
                assert!(set(name, value).is_some(), "{name} = {value}");
            }
        }
    }

    #[test]
    fn what_the_operator_logs_is_not_the_clients() {
        for name in ["log_statement", "log_min_duration_statement", "debug_print_plan", "LOG_LINE_PREFIX"] {
            assert!(matches!(set(name, "on"), Some(SettingRefused::Pinned { .. })), "{name}");
        }
    }

    #[test]
    fn the_gateways_own_and_unknown_settings_are_refused() {
        for name in ["exeat.subject", "EXEAT.session", "Exeat.purpose"] {
            assert!(matches!(set(name, "x"), Some(SettingRefused::Own { .. })), "{name}");
            let reset = SessionCommand::Reset { setting: Some(name.to_owned()) };
            assert!(matches!(refuse_command(&reset), Some(SettingRefused::Own { .. })), "{name}");
        }
        for name in [
            "role",
            "session_authorization",
            "session_preload_libraries",
            "local_preload_libraries",
            "default_tablespace",
            "dynamic_library_path",
            "session_replication_role",
            "app.user",
            "",
        ] {
            assert!(matches!(set(name, "x"), Some(SettingRefused::Unknown { .. })), "{name}");
            let reset = SessionCommand::Reset { setting: Some(name.to_owned()) };
            assert!(matches!(refuse_command(&reset), Some(SettingRefused::Unknown { .. })), "{name}");
        }
    }

    #[test]
    fn commands_that_change_no_setting_pass_and_computed_values_do_not() {
        for command in [
            SessionCommand::Show { setting: "log_statement".to_owned() },
            SessionCommand::Reset { setting: None },
            SessionCommand::Reset { setting: Some("work_mem".to_owned()) },
            SessionCommand::Discard { all: true },
            SessionCommand::SetTransaction,
        ] {
            assert_eq!(refuse_command(&command), None, "{command:?}");
        }
        let computed = SessionCommand::Set { setting: "search_path".to_owned(), values: None, local: true };
        assert!(matches!(refuse_command(&computed), Some(SettingRefused::Computed { .. })));
    }

    #[test]
    fn refusal_names_the_setting_and_what_to_do() {
        let refusal = set("client_encoding", "LATIN1").map(SettingRefused::into_refusal).unwrap();
        assert_eq!(refusal.code, RefusalCode::SettingPinned);
        assert_eq!(refusal.reason, "setting \"client_encoding\" is pinned by the gateway to UTF8");
        assert!(!refusal.reason.contains("LATIN1"), "values stay out");
        assert_eq!(refusal.suggestion.as_deref(), Some("leave it at UTF8"));
    }
}
