//! Which settings a statement may read by name.

/// Settings that current_setting may read: what SHOW tells every client, and nothing an operator may hide
/// credentials or data in (no custom `app.*` names).
const READABLE_SETTINGS: &[&str] = &[
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "in_hot_standby",
    "integer_datetimes",
    "intervalstyle",
    "is_superuser",
    "jit",
    "lc_collate",
    "lc_ctype",
    "lc_messages",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "lock_timeout",
    "max_identifier_length",
    "max_index_keys",
    "role",
    "row_security",
    "search_path",
    "server_encoding",
    "server_version",
    "server_version_num",
    "session_authorization",
    "standard_conforming_strings",
    "statement_timeout",
    "timezone",
    "transaction_isolation",
    "transaction_read_only",
    "work_mem",
    "idle_in_transaction_session_timeout",
    "block_size",
];

pub(crate) fn is_readable_setting(name: &str) -> bool {
    READABLE_SETTINGS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_custom_setting_is_not_readable() {
        assert!(is_readable_setting("search_path"));
        assert!(!is_readable_setting("app.jwt_secret") && !is_readable_setting("primary_conninfo"));
    }
}
