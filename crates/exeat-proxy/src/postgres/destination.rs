//! Where a connection goes: from what a client names as its database to a target and one database of its server,
//! and what the client may hear of the server's own refusal. Names only: who may go there is the policy's to say.
//!
//! Never guesses: a name that could be meant in two ways has one meaning (a target before a database), and a target
//! that stands for every database of its server must be told which.

use std::collections::HashMap;
use std::sync::Arc;

use exeat_enforce::settings::is_own;

use super::upstream_settings::OPTIONS;
use crate::config::{Databases, Target};
use crate::upstream::Problem;

/// Between the name of a target and the name of a database. No target has it in its name; databases may.
const SEPARATOR: char = '/';
/// PostgreSQL cuts names at this many bytes when it makes a database, so a longer one means the database cut there.
const DATABASE_BYTES_MAX: usize = 63;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotFound {
    #[error("target {0:?} does not exist")]
    Target(String),
    #[error("target {0:?} stands for every database of its server and none is named")]
    WhichDatabase(String),
    #[error("target {target:?} has no database {database:?}")]
    Database { target: String, database: String },
}

/// The target as the session sees it: its `upstream` names the session's own database.
pub(crate) fn find(
    targets: &HashMap<String, Arc<Target>>,
    default_target: Option<&str>,
    wanted: &str,
) -> Result<Arc<Target>, NotFound> {
    if let Some((name, database)) = wanted.split_once(SEPARATOR)
        && let Some(target) = targets.get(name)
    {
        return database_of(target, database);
    }
    let default = default_target.and_then(|name| targets.get(name));
    match (targets.get(wanted), default) {
        (Some(target), _) if target.databases == Databases::One => Ok(Arc::clone(target)),
        // Without a separator the default target's name is that of a database, like every other name.
        (Some(target), Some(default)) if Arc::ptr_eq(target, default) => database_of(default, wanted),
        (Some(target), _) => Err(NotFound::WhichDatabase(target.name.clone())),
        (None, Some(default)) if default.databases == Databases::Every && !wanted.is_empty() => {
            database_of(default, wanted)
        }
        (None, Some(default)) if default.upstream.database() == wanted => Ok(Arc::clone(default)),
        (None, _) => Err(NotFound::Target(wanted.to_owned())),
    }
}

fn database_of(target: &Arc<Target>, database: &str) -> Result<Arc<Target>, NotFound> {
    match target.databases {
        Databases::One if target.upstream.database() == database => Ok(Arc::clone(target)),
        Databases::One => Err(NotFound::Database { target: target.name.clone(), database: database.to_owned() }),
        Databases::Every if database.is_empty() => Err(NotFound::WhichDatabase(target.name.clone())),
        Databases::Every => {
            let (database, _) = database.split_at(database.floor_char_boundary(DATABASE_BYTES_MAX));
            let upstream = target.upstream.with_database(database);
            Ok(Arc::new(Target { upstream, ..Target::clone(target) }))
        }
    }
}

/// A server's refusal of a login in its own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server refused: {message} ({sqlstate})")]
pub(crate) struct ServerWords {
    pub(crate) sqlstate: String,
    pub(crate) message: String,
}

/// What of a server's refusal speaks of nothing but what the client itself named: the database where it chose one,
/// or a setting of its startup packet where it chooses those freely. All else is about the gateway's login.
pub(crate) fn words_for_client(target: &Target, settings: &[(&str, &str)], problem: &Problem) -> Option<ServerWords> {
    let Problem::Refused { sqlstate, message } = problem else { return None };
    let quoted = |name: &str| message.to_ascii_lowercase().contains(&format!("\"{}\"", name.to_ascii_lowercase()));
    let of_database = match target.databases {
        Databases::One => false,
        Databases::Every => {
            matches!(sqlstate.as_str(), "3D000" | "42501" | "55000") && quoted(target.upstream.database())
        }
    };
    let of_setting = match sqlstate.as_str() {
        "42704" | "22023" | "42501" | "55P02" => speaks_of_a_setting(message, settings),
        "42601" => {
            message.starts_with("invalid command-line argument") && settings.iter().any(|(name, _)| *name == OPTIONS)
        }
        _ => false,
    };
    (of_database || of_setting).then(|| ServerWords { sqlstate: sqlstate.clone(), message: message.clone() })
}

fn speaks_of_a_setting(message: &str, settings: &[(&str, &str)]) -> bool {
    let Some((named, _)) = message.split_once("parameter \"").and_then(|(_, rest)| rest.split_once('"')) else {
        return false;
    };
    // In `options` a dash stands for an underscore.
    let in_options =
        |options: &str| options.to_ascii_lowercase().replace('-', "_").contains(&named.to_ascii_lowercase());
    !is_own(named)
        && settings.iter().any(|(name, value)| match *name == OPTIONS {
            true => in_options(value),
            false => name.eq_ignore_ascii_case(named),
        })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::upstream::{TlsMode, UpstreamConfig};

    fn targets(entries: &[(&str, &str, Databases)]) -> HashMap<String, Arc<Target>> {
        let target = |&(name, database, databases): &(&str, &str, Databases)| Target {
            name: name.to_owned(),
            upstream: UpstreamConfig::new("localhost", 5432, database, TlsMode::Off, None).unwrap(),
            databases,
            logins: Vec::new(),
            catalog_bound: Duration::from_secs(1),
            catalog_strict: false,
            statement_timeout: None,
            allow_newer_server: false,
            allow_privileged_login: false,
            held_max: 10,
            unclassified: Default::default(),
            trust: Default::default(),
            channels: Vec::new(),
        };
        entries.iter().map(|entry| (entry.0.to_owned(), Arc::new(target(entry)))).collect()
    }

    fn found(default: Option<&str>, wanted: &str) -> Result<(String, String), NotFound> {
        let entries =
            [("shop", "shopdb", Databases::One), ("all", "postgres", Databases::Every), ("crm", "crm", Databases::One)];
        let target = find(&targets(&entries), default, wanted)?;
        Ok((target.name.clone(), target.upstream.database().to_owned()))
    }

    fn at(target: &str, database: &str) -> Result<(String, String), NotFound> {
        Ok((target.to_owned(), database.to_owned()))
    }

    #[test]
    fn a_target_of_one_database_goes_by_its_name_alone_or_with_the_database() {
        assert_eq!(found(None, "shop"), at("shop", "shopdb"));
        assert_eq!(found(None, "shop/shopdb"), at("shop", "shopdb"));
        assert_eq!(found(Some("shop"), "shopdb"), at("shop", "shopdb"));
        let other = NotFound::Database { target: "shop".to_owned(), database: "postgres".to_owned() };
        assert_eq!(found(None, "shop/postgres"), Err(other));
        assert_eq!(found(None, "shopdb"), Err(NotFound::Target("shopdb".to_owned())));
        assert_eq!(found(Some("shop"), "postgres"), Err(NotFound::Target("postgres".to_owned())));
    }

    #[test]
    fn a_target_of_every_database_must_be_told_which() {
        assert_eq!(found(None, "all/reports"), at("all", "reports"));
        assert_eq!(found(None, "all/a/b c'\"%*"), at("all", "a/b c'\"%*"));
        for wanted in ["all", "all/"] {
            assert_eq!(found(None, wanted), Err(NotFound::WhichDatabase("all".to_owned())), "{wanted}");
        }
        for wanted in ["", "reports", "al/reports", "/reports", "all.reports", "ALL/reports"] {
            assert_eq!(found(None, wanted), Err(NotFound::Target(wanted.to_owned())), "{wanted}");
        }
    }

    #[test]
    fn through_the_default_target_a_database_goes_by_its_own_name_unless_a_target_has_it() {
        assert_eq!(found(Some("all"), "reports"), at("all", "reports"));
        assert_eq!(found(Some("all"), "all"), at("all", "all"));
        assert_eq!(found(Some("all"), "all/all"), at("all", "all"));
        assert_eq!(found(Some("all"), "a/b"), at("all", "a/b"));
        assert_eq!(found(Some("all"), "crm"), at("crm", "crm"));
        assert_eq!(found(Some("all"), "all/crm"), at("all", "crm"));
        assert_eq!(found(Some("all"), ""), Err(NotFound::Target(String::new())));
    }

    #[test]
    fn a_name_is_cut_where_the_server_cuts_it() {
        let long = "é".repeat(40);
        assert_eq!(found(None, &format!("all/{long}")), at("all", &"é".repeat(31)));
        assert_eq!(found(None, &format!("all/{}", "x".repeat(70))), at("all", &"x".repeat(63)));
    }

    #[test]
    fn of_a_refusal_the_client_hears_what_speaks_of_its_own_words() {
        let entries = [("one", "one", Databases::One), ("all", "reports", Databases::Every)];
        let targets = targets(&entries);
        let heard = |target: &str, sqlstate: &str, message: &str| {
            let problem = Problem::Refused { sqlstate: sqlstate.to_owned(), message: message.to_owned() };
            let settings = [("DateStyle", "x"), ("exeat.subject", "s"), ("options", "-c no-such=1 -x")];
            words_for_client(&targets[target], &settings, &problem).is_some()
        };
        assert!(heard("all", "3D000", "database \"reports\" does not exist"));
        assert!(heard("all", "55000", "database \"reports\" is not currently accepting connections"));
        assert!(heard("one", "22023", "invalid value for parameter \"datestyle\": \"x\""));
        assert!(!heard("one", "22023", "invalid value for parameter \"exeat.subject\": \"s\""));
        assert!(heard("one", "42704", "unrecognized configuration parameter \"no_such\""));
        assert!(heard("one", "42601", "invalid command-line argument for server process: -x"));
        assert!(!heard("one", "42704", "unrecognized configuration parameter \"another\""));
        assert!(!heard("one", "3D000", "database \"one\" does not exist"));
        assert!(!heard("all", "28P01", "password authentication failed for user \"reports\""));
        assert!(!heard("all", "22023", "role \"DateStyle\" does not exist"));
        assert!(!heard("one", "22023", "invalid value for parameter \"role\": \"payments_ro\""));
    }
}
