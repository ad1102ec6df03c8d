//! Errors and notices of the server: passed whole where nothing sealed can be in them, rebuilt where it can.
//! Pure. A rebuilt message holds severity, SQLSTATE, a fixed text for that SQLSTATE, the position in the client's own
//! SQL and a correlation id; whatever else the server said (message, detail, hint, names, context) is dropped,
//! because any of it may quote a value. Notices of user code are dropped whole.

mod conditions;

use exeat_wire::Fields;
use exeat_wire::fields::code;

use conditions::CONDITIONS;

/// What a message of the server may carry. Ordered: a transaction, a cursor or a Query carries its worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Taint {
    /// No sealed column and no user code is reachable.
    #[default]
    Clean,
    /// Sealed columns are reachable: texts may quote their values.
    Sealed,
    /// A trigger, rule, policy or opaque function may run: it chooses texts and SQLSTATE itself.
    UserCode,
}

impl Taint {
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        self.max(other)
    }
}

/// What user code raises, whatever it raises: a SQLSTATE of its choice would be five characters of message.
const RAISED: &str = "P0001";

/// A code that the server of our table does not have.
const INTERNAL: &str = "XX000";

const GENERIC_TEXT: &str = "error";
const GENERIC_NOTICE: &str = "notice";

/// Position fields are counts of characters; a statement is at most 1 MiB.
const POSITION_DIGITS_MAX: usize = 7;

/// Conditions of the server itself that clients must be able to act on (retry, reconnect, wait), kept even where
/// user code could raise the same: naming one of these few says next to nothing.
const KEPT_FROM_USER_CODE: &[&str] = &[
    "25P02", "25P03", "25P04", "40001", "40P01", "53100", "53200", "53300", "55P03", "57014", "57P01", "57P02",
    "57P03", "57P05",
];

/// Constraint violations, kept where the server's own constraint code says it raised them: the client has to know
/// that its own row was refused. The source file is a field that user code cannot choose.
const KEPT_WITH_SOURCE: &[(&str, &[&str])] = &[
    ("23502", &["execMain.c"]),
    ("23503", &["ri_triggers.c"]),
    ("23505", &["nbtinsert.c"]),
    ("23514", &["execMain.c"]),
    ("23P01", &["execIndexing.c"]),
];

/// Source file of the report, as the protocol names it.
const SOURCE_FILE: u8 = b'F';

const SEVERITIES: &[&str] = &["ERROR", "FATAL", "PANIC", "WARNING", "NOTICE", "DEBUG", "INFO", "LOG"];

/// An ErrorResponse as the client may see it.
pub fn scrub_error(fields: &Fields, taint: Taint, correlation: &str) -> Fields {
    match taint {
        Taint::Clean => fields.clone(),
        Taint::Sealed | Taint::UserCode => rebuild(fields, taint, correlation, "ERROR", GENERIC_TEXT),
    }
}

/// A NoticeResponse as the client may see it, if it may.
pub fn scrub_notice(fields: &Fields, taint: Taint, correlation: &str) -> Option<Fields> {
    match taint {
        Taint::Clean => Some(fields.clone()),
        Taint::Sealed => Some(rebuild(fields, taint, correlation, "NOTICE", GENERIC_NOTICE)),
        Taint::UserCode => None,
    }
}

fn rebuild(fields: &Fields, taint: Taint, correlation: &str, usual_severity: &str, generic: &str) -> Fields {
    let severity = fields.severity();
    let severity =
        SEVERITIES.iter().copied().find(|known| Some(*known) == severity.as_deref()).unwrap_or(usual_severity);
    let sqlstate = sqlstate(fields, taint, severity);
    let text = text_of(sqlstate).unwrap_or(generic);
    let mut rebuilt = Fields::new(severity, sqlstate, text).with(
        code::DETAIL,
        &format!("the server's own message is withheld, it could quote sealed data; correlation id {correlation}"),
    );
    if let Some(position) = fields.get(code::POSITION).filter(|position| is_position(position)) {
        rebuilt = rebuilt.with(code::POSITION, &position);
    }
    rebuilt
}

/// The server's code if it is a known one that the server itself can be taken to have chosen.
fn sqlstate(fields: &Fields, taint: Taint, severity: &str) -> &'static str {
    let given = fields.sqlstate();
    let Some((known, _)) = given.as_deref().and_then(condition) else {
        return if taint == Taint::UserCode { RAISED } else { INTERNAL };
    };
    // SQL code cannot end the session: what does is the server's.
    let server_ends = matches!(severity, "FATAL" | "PANIC");
    if taint != Taint::UserCode || server_ends || KEPT_FROM_USER_CODE.contains(&known) {
        return known;
    }
    let source = fields.get(SOURCE_FILE);
    let by_server = KEPT_WITH_SOURCE
        .iter()
        .any(|(code, files)| *code == known && source.as_deref().is_some_and(|file| files.contains(&file)));
    if by_server { known } else { RAISED }
}

fn condition(sqlstate: &str) -> Option<(&'static str, &'static str)> {
    let index = CONDITIONS.binary_search_by(|(code, _)| (*code).cmp(sqlstate)).ok()?;
    CONDITIONS.get(index).copied()
}

/// The fixed text of a SQLSTATE.
pub fn text_of(sqlstate: &str) -> Option<&'static str> {
    condition(sqlstate).map(|(_, text)| text)
}

fn is_position(text: &str) -> bool {
    !text.is_empty() && text.len() <= POSITION_DIGITS_MAX && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    const SECRET: &str = "123-45-6789";

    /// An error of the server with the secret in every field that could hold it.
    fn error(severity: &str, sqlstate: &str) -> Fields {
        let mut fields = Fields::new(severity, sqlstate, &format!("message {SECRET}")).with(b'P', "17");
        for code in b"DHpqWstcdnRL" {
            fields = fields.with(*code, SECRET);
        }
        fields.with(SOURCE_FILE, "float.c")
    }

    fn bytes(fields: &Fields) -> Vec<u8> {
        let mut out = BytesMut::new();
        fields.encode_error(&mut out);
        out.to_vec()
    }

    fn holds(fields: &Fields, text: &str) -> bool {
        bytes(fields).windows(text.len()).any(|window| window == text.as_bytes())
    }

    fn code_of(fields: &Fields) -> String {
        fields.sqlstate().unwrap().into_owned()
    }

    #[test]
    fn clean_messages_pass_as_they_are() {
        let original = error("ERROR", "22P02");
        assert_eq!(bytes(&scrub_error(&original, Taint::Clean, "c1")), bytes(&original));
        assert_eq!(bytes(&scrub_notice(&original, Taint::Clean, "c1").unwrap()), bytes(&original));
    }

    #[test]
    fn tainted_messages_hold_nothing_but_the_allow_list() {
        for taint in [Taint::Sealed, Taint::UserCode] {
            for (sqlstate, _) in CONDITIONS.iter().copied().chain([("ZZZ99", ""), (SECRET, ""), ("", "")]) {
                for severity in ["ERROR", "FATAL", "PANIC", SECRET] {
                    let scrubbed = scrub_error(&error(severity, sqlstate), taint, "c1");
                    assert!(!holds(&scrubbed, SECRET), "{taint:?} {severity} {sqlstate}");
                    assert!(holds(&scrubbed, "c1"));
                    let codes: Vec<u8> = scrubbed.iter().map(|(code, _)| code).collect();
                    assert_eq!(codes, b"SVCMDP");
                    assert!(condition(&code_of(&scrubbed)).is_some());
                }
            }
        }
    }

    #[test]
    fn two_values_give_one_message() {
        for taint in [Taint::Sealed, Taint::UserCode] {
            let one = Fields::new("ERROR", "22P02", "wrong input \"a\"").with(b'D', "a").with(b'P', "3");
            let other = Fields::new("ERROR", "22P02", "wrong input \"bcd\"").with(b'W', "bcd").with(b'P', "3");
            assert_eq!(bytes(&scrub_error(&one, taint, "c")), bytes(&scrub_error(&other, taint, "c")));
        }
    }

    #[test]
    fn sealed_keeps_the_servers_code_and_says_what_it_means() {
        let scrubbed = scrub_error(&error("ERROR", "22P02"), Taint::Sealed, "c1");
        assert_eq!(code_of(&scrubbed), "22P02");
        assert_eq!(scrubbed.message().as_deref(), Some("invalid text representation"));
        assert_eq!(scrubbed.get(b'P').as_deref(), Some("17"));
        assert_eq!(code_of(&scrub_error(&error("ERROR", "ABCDE"), Taint::Sealed, "c1")), INTERNAL);
    }

    #[test]
    fn what_user_code_raises_is_one_code() {
        for (sqlstate, _) in CONDITIONS {
            let kept = KEPT_FROM_USER_CODE.contains(sqlstate);
            let scrubbed = scrub_error(&error("ERROR", sqlstate), Taint::UserCode, "c1");
            assert_eq!(code_of(&scrubbed), if kept { sqlstate } else { RAISED }, "{sqlstate}");
            // Only the server can end the session.
            assert_eq!(code_of(&scrub_error(&error("FATAL", sqlstate), Taint::UserCode, "c1")), *sqlstate);
        }
        assert_eq!(code_of(&scrub_error(&error("ERROR", "S0ME1"), Taint::UserCode, "c1")), RAISED);
    }

    #[test]
    fn constraint_violations_are_kept_from_the_servers_own_files_only() {
        for (sqlstate, files) in KEPT_WITH_SOURCE {
            for file in *files {
                let own = error("ERROR", sqlstate).with(SOURCE_FILE, file);
                assert_eq!(code_of(&scrub_error(&own, Taint::UserCode, "c1")), *sqlstate);
            }
            let raised = error("ERROR", sqlstate).with(SOURCE_FILE, "pl_exec.c");
            assert_eq!(code_of(&scrub_error(&raised, Taint::UserCode, "c1")), RAISED);
        }
    }

    #[test]
    fn notices_of_user_code_are_dropped_and_others_rebuilt() {
        let notice = error("NOTICE", "00000");
        assert_eq!(scrub_notice(&notice, Taint::UserCode, "c1"), None);
        let scrubbed = scrub_notice(&notice, Taint::Sealed, "c1").unwrap();
        assert!(!holds(&scrubbed, SECRET));
        assert_eq!(scrubbed.severity().as_deref(), Some("NOTICE"));
        let odd = scrub_notice(&error("ZZ", "Z"), Taint::Sealed, "c1").unwrap();
        assert_eq!(odd.severity().as_deref(), Some("NOTICE"));
    }

    #[test]
    fn a_position_is_a_number_or_nothing() {
        for position in ["", "x", "-1", "1 2", "12345678", "१"] {
            let scrubbed = scrub_error(&error("ERROR", "42601").with(b'P', position), Taint::Sealed, "c1");
            assert_eq!(scrubbed.get(b'P'), None, "{position}");
        }
    }

    #[test]
    fn taint_is_sticky() {
        let all = [Taint::Clean, Taint::Sealed, Taint::UserCode];
        for (rank, one) in all.into_iter().enumerate() {
            for (other_rank, other) in all.into_iter().enumerate() {
                assert_eq!(one.worst(other), all[rank.max(other_rank)]);
            }
        }
    }

    #[test]
    fn conditions_are_sorted_whole_and_hold_what_the_lists_name() {
        assert!(CONDITIONS.is_sorted_by(|one, next| one.0 < next.0));
        for (code, text) in CONDITIONS {
            assert!(code.len() == 5 && !text.is_empty(), "{code}");
        }
        for code in KEPT_FROM_USER_CODE.iter().chain(KEPT_WITH_SOURCE.iter().map(|(code, _)| code)) {
            assert!(condition(code).is_some(), "{code}");
        }
        assert!(condition(RAISED).is_some() && condition(INTERNAL).is_some());
    }
}
