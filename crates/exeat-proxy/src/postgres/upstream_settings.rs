//! The settings a session starts with at the server: the client's, as far as the session preset lets it choose
//! them, and the gateway's own, which the client cannot set.

use std::time::Duration;

use exeat_enforce::settings::{self, SettingRefused};
use exeat_policy::Principal;
use exeat_wire::{Fields, Startup};

/// Startup parameters that are no settings, or are answered by the gateway itself.
const NOT_SETTINGS: &[&str] = &["user", "database", "replication", OPTIONS];
pub(crate) const OPTIONS: &str = "options";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error(transparent)]
    Refused(#[from] SettingRefused),
    #[error("startup options hold {0:?}, which is not of the form -c name=value")]
    Options(String),
}

impl SettingsError {
    pub(crate) fn fields(&self) -> Fields {
        match self {
            Self::Refused(refused) => refused.clone().into_refusal().to_fatal_fields("login"),
            Self::Options(_) => {
                Fields::new("FATAL", "42501", &self.to_string()).with(b'H', "give settings as options='-c name=value'")
            }
        }
    }
}

/// In the order in which the server must see them: the gateway's come last and win.
pub(crate) fn upstream_settings(
    startup: &Startup,
    principal: &Principal,
    session: &str,
    unrestricted: bool,
    read_only: bool,
) -> Result<Vec<(String, String)>, SettingsError> {
    let mut chosen: Vec<(String, String)> = Vec::new();
    for (name, value) in &startup.parameters {
        if NOT_SETTINGS.contains(&name.as_str()) || name.starts_with(exeat_wire::startup::PROTOCOL_OPTION_PREFIX) {
            continue;
        }
        chosen.push((name.clone(), value.clone()));
    }
    let options = startup.parameter(OPTIONS);
    let mut given = match options.map(parse_options) {
        None => Vec::new(),
        Some(Ok(given)) => given,
        // The server understands more forms, and what it does not understand it refuses in its own words.
        Some(Err(_)) if unrestricted => Vec::new(),
        Some(Err(problem)) => return Err(problem),
    };
    // Pinned to UTF8 where results are looked at, whatever the client asked for; ParameterStatus says so.
    for settings in [&mut chosen, &mut given] {
        settings.retain(|(name, _)| unrestricted || !name.eq_ignore_ascii_case("client_encoding"));
    }
    for (name, value) in chosen.iter().chain(&given) {
        let checked = !unrestricted || settings::is_own(name);
        if checked && let Some(refused) = settings::refuse_setting(name, Some(std::slice::from_ref(value))) {
            return Err(refused.into());
        }
    }
    match options {
        // Applied before the settings that stand by name in the packet: the gateway's own win.
        Some(options) if unrestricted => chosen.push((OPTIONS.to_owned(), options.to_owned())),
        Some(_) | None => chosen.extend(given),
    }
    let mut own = vec![
        ("exeat.session", session.to_owned()),
        ("exeat.subject", principal.subject.clone()),
        ("exeat.actor", principal.actor.clone().unwrap_or_default()),
    ];
    if !unrestricted {
        own.push(("client_encoding", "UTF8".to_owned()));
        own.push(("standard_conforming_strings", "on".to_owned()));
        if read_only {
            own.push(("default_transaction_read_only", "on".to_owned()));
        }
    }
    chosen.retain(|(name, _)| !own.iter().any(|(ours, _)| name.eq_ignore_ascii_case(ours)));
    chosen.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value)));
    Ok(chosen)
}

/// The target's statement time-out, where the client asks for none or a longer one. A session may still SET its own:
/// this is what it starts with, as if its role had been given it. A setting by name wins over `options`.
pub(crate) fn limit_statements(settings: &mut Vec<(String, String)>, limit: Duration) {
    const NAME: &str = "statement_timeout";
    let limit = limit.as_millis();
    let is_shorter = |value: &str| milliseconds(value).is_some_and(|chosen| (1..=limit).contains(&chosen));
    let by_option = || {
        let (_, options) = settings.iter().find(|(name, _)| name == OPTIONS)?;
        last_of(&parse_options(options).ok()?, NAME)
    };
    if last_of(settings, NAME).or_else(by_option).is_some_and(|value| is_shorter(&value)) {
        return;
    }
    settings.retain(|(name, _)| !name.eq_ignore_ascii_case(NAME));
    settings.push((NAME.to_owned(), limit.to_string()));
}

/// The last value of a name is the one that counts.
fn last_of(settings: &[(String, String)], wanted: &str) -> Option<String> {
    settings.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.clone())
}

/// A decimal time as the server reads it, without a unit of milliseconds. Half of one is none, as it is there.
fn milliseconds(value: &str) -> Option<u128> {
    const UNITS: [(&str, f64); 6] =
        [("ms", 1e6), ("us", 1e3), ("min", 6e10), ("s", 1e9), ("h", 3.6e12), ("d", 8.64e13)];
    let value = value.trim();
    let (number, nanoseconds) = UNITS
        .iter()
        .find_map(|(unit, nanoseconds)| Some((value.strip_suffix(unit)?, *nanoseconds)))
        .unwrap_or((value, 1e6));
    let duration = Duration::try_from_secs_f64(number.trim().parse::<f64>().ok()? * nanoseconds / 1e9).ok()?;
    Some((duration.as_nanos() + 499_999) / 1_000_000)
}

/// `-c name=value`, `-cname=value` and `--name=value`, split at white space with backslash escapes, as the server
/// splits them.
fn parse_options(options: &str) -> Result<Vec<(String, String)>, SettingsError> {
    let mut settings = Vec::new();
    let mut words = split_words(options).into_iter();
    while let Some(word) = words.next() {
        let assignment = if word == "-c" {
            words.next().ok_or_else(|| SettingsError::Options(word.clone()))?
        } else if let Some(rest) = word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            rest.to_owned()
        } else {
            return Err(SettingsError::Options(word));
        };
        let Some((name, value)) = assignment.split_once('=') else { return Err(SettingsError::Options(assignment)) };
        // The server reads a dash in a name given this way as an underscore.
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut inside = false;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                inside = true;
                word.extend(characters.next());
            }
            space if space.is_ascii_whitespace() => {
                if std::mem::take(&mut inside) {
                    words.push(std::mem::take(&mut word));
                }
            }
            other => {
                inside = true;
                word.push(other);
            }
        }
    }
    if inside {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split_as_the_server_splits_them() {
        let settings = parse_options(r"-c search_path=a\ b --statement-timeout=5s -cjit=off").unwrap();
        let expected = [("search_path", "a b"), ("statement_timeout", "5s"), ("jit", "off")];
        assert_eq!(settings, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_session_starts_with_the_targets_statement_timeout_or_a_shorter_one_of_its_own() {
        let started = |asked: &[&str]| {
            let mut settings: Vec<_> =
                asked.iter().map(|value| ("Statement_Timeout".to_owned(), (*value).to_owned())).collect();
            limit_statements(&mut settings, Duration::from_secs(30));
            settings.last().unwrap().1.clone()
        };
        assert_eq!(started(&[]), "30000");
        for shorter in ["30s", "29999", "1ms", "5000us", "0.4 min", " 10 s ", "1.5", "501us"] {
            assert_eq!(started(&[shorter]), shorter);
        }
        for longer in
            ["0", "31s", "30001", "1min", "1h", "1d", "0.6 min", "0ms", "500us", "0x0", "-1", "inf", "soon", ""]
        {
            assert_eq!(started(&[longer]), "30000", "{longer}");
        }
        assert_eq!(started(&["1s", "0"]), "30000");
        for (options, by_name) in [
            ("-c statement-timeout=5s", None),
            ("-c statement_timeout=5s -c statement_timeout=0", Some("30000")),
            ("-c statement_timeout=1h", Some("30000")),
            ("-B 64", Some("30000")),
        ] {
            let mut settings = vec![("options".to_owned(), options.to_owned())];
            limit_statements(&mut settings, Duration::from_secs(30));
            assert_eq!(last_of(&settings, "statement_timeout").as_deref(), by_name, "{options}");
        }
    }

    #[test]
    fn options_of_another_form_are_refused() {
        for options in ["-d 5", "-c", "-c search_path", "search_path=a"] {
            assert!(matches!(parse_options(options), Err(SettingsError::Options(_))), "{options}");
        }
    }
}
