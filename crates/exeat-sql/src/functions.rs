//! Functions of pg_catalog that a statement may call, each read and found to compute from its arguments, the
//! session or the system catalogs alone. What reads data by name or text (`query_to_xml`, `dblink`,
//! `pg_read_file`, `ts_stat`...), writes, or runs SQL is not here and must not come here.

/// What a call of a listed function asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Review {
    /// Nothing: computed from arguments, clock, session or catalog.
    Free,
    /// Reads or writes data by a number: a large object. Needs a capability of its own.
    Reader,
    /// Tells about stored bytes.
    Size,
    /// The setting must be a literal on the readable list.
    CurrentSetting,
    /// The setting must be a literal, its value one or a parameter; enforcement checks them as SET.
    SetConfig,
    /// Channel and payload must be literals or parameters; beside it, nothing but metadata may be read.
    Notify,
    /// An effect on the session or on time: literal arguments, and nothing but metadata read beside it.
    Effect,
}

/// Columns a function has as a FROM item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableShape {
    /// One column, named by the alias or the function.
    Scalar,
    /// OUT columns with names of their own.
    Columns(&'static [&'static str]),
}

pub(crate) fn review(name: &str) -> Option<Review> {
    match name {
        "pg_table_size" => Some(Review::Size),
        "current_setting" => Some(Review::CurrentSetting),
        "set_config" => Some(Review::SetConfig),
        "pg_notify" => Some(Review::Notify),
        _ if LARGE_OBJECTS.contains(&name) => Some(Review::Reader),
        _ if EFFECTS.contains(&name) => Some(Review::Effect),
        _ if LISTS.iter().any(|list| list.contains(&name)) => Some(Review::Free),
        _ => None,
    }
}

const LISTS: &[&[&str]] =
    &[AGGREGATES, WINDOWS, TEXT, NUMBERS, TIMES, COLLECTIONS, SESSION, CATALOG, VISIBILITY, NAMES];

/// Those that read or write files of the server are not among them.
const LARGE_OBJECTS: &[&str] = &[
    "lo_get",
    "lo_put",
    "lo_open",
    "lo_close",
    "loread",
    "lowrite",
    "lo_lseek",
    "lo_lseek64",
    "lo_tell",
    "lo_tell64",
    "lo_truncate",
    "lo_truncate64",
    "lo_create",
    "lo_creat",
    "lo_from_bytea",
    "lo_unlink",
];

const EFFECTS: &[&str] = &[
    "pg_sleep",
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
    "pg_advisory_xact_lock",
    "pg_advisory_xact_lock_shared",
    "pg_try_advisory_xact_lock",
    "pg_try_advisory_xact_lock_shared",
    "pg_advisory_unlock",
    "pg_advisory_unlock_shared",
    "pg_advisory_unlock_all",
];

const AGGREGATES: &[&str] = &[
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "array_agg",
    "string_agg",
    "json_agg",
    "jsonb_agg",
    "json_object_agg",
    "jsonb_object_agg",
    "bool_and",
    "bool_or",
    "every",
    "bit_and",
    "bit_or",
    "bit_xor",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "variance",
    "var_pop",
    "var_samp",
    "corr",
    "covar_pop",
    "covar_samp",
    "regr_slope",
    "regr_intercept",
    "regr_r2",
    "regr_count",
    "regr_avgx",
    "regr_avgy",
    "percentile_cont",
    "percentile_disc",
    "mode",
    "any_value",
];

const WINDOWS: &[&str] = &[
    "row_number",
    "rank",
    "dense_rank",
    "percent_rank",
    "cume_dist",
    "ntile",
    "lag",
    "lead",
    "first_value",
    "last_value",
    "nth_value",
];

const TEXT: &[&str] = &[
    "length",
    "char_length",
    "character_length",
    "octet_length",
    "bit_length",
    "lower",
    "upper",
    "initcap",
    "substring",
    "substr",
    "left",
    "right",
    "btrim",
    "ltrim",
    "rtrim",
    "lpad",
    "rpad",
    "replace",
    "translate",
    "reverse",
    "repeat",
    "split_part",
    "strpos",
    "position",
    "overlay",
    "concat",
    "concat_ws",
    "format",
    "starts_with",
    "ascii",
    "chr",
    "md5",
    "sha256",
    "encode",
    "decode",
    "to_hex",
    "quote_ident",
    "quote_literal",
    "quote_nullable",
    "regexp_replace",
    "regexp_match",
    "regexp_matches",
    "regexp_split_to_array",
    "regexp_split_to_table",
    "regexp_count",
    "regexp_like",
    "regexp_substr",
    "regexp_instr",
    "like_escape",
    "similar_to_escape",
    "string_to_array",
    "string_to_table",
    "normalize",
    "is_normalized",
    "pg_collation_for",
    "pg_client_encoding",
];

const NUMBERS: &[&str] = &[
    "abs",
    "ceil",
    "ceiling",
    "floor",
    "round",
    "trunc",
    "sign",
    "mod",
    "div",
    "power",
    "pow",
    "sqrt",
    "cbrt",
    "exp",
    "ln",
    "log",
    "log10",
    "degrees",
    "radians",
    "pi",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "atan2",
    "gcd",
    "lcm",
    "factorial",
    "width_bucket",
    "random",
    "scale",
    "min_scale",
    "trim_scale",
    "to_number",
    "generate_series",
    "num_nulls",
    "num_nonnulls",
    "hashtext",
    "gen_random_uuid",
];

const TIMES: &[&str] = &[
    "now",
    "clock_timestamp",
    "statement_timestamp",
    "transaction_timestamp",
    "timeofday",
    "age",
    "date_part",
    "date_trunc",
    "date_bin",
    "extract",
    "timezone",
    "to_char",
    "to_date",
    "to_timestamp",
    "make_date",
    "make_time",
    "make_timestamp",
    "make_timestamptz",
    "make_interval",
    "justify_days",
    "justify_hours",
    "justify_interval",
    "isfinite",
    "overlaps",
    "date",
];

const COLLECTIONS: &[&str] = &[
    "unnest",
    "array_length",
    "array_upper",
    "array_lower",
    "array_ndims",
    "array_dims",
    "array_position",
    "array_positions",
    "array_append",
    "array_prepend",
    "array_cat",
    "array_remove",
    "array_replace",
    "array_to_string",
    "cardinality",
    "generate_subscripts",
    "array_to_json",
    "row_to_json",
    "to_json",
    "to_jsonb",
    "json_build_object",
    "jsonb_build_object",
    "json_build_array",
    "jsonb_build_array",
    "json_array_length",
    "jsonb_array_length",
    "json_array_elements",
    "jsonb_array_elements",
    "json_array_elements_text",
    "jsonb_array_elements_text",
    "json_each",
    "jsonb_each",
    "json_each_text",
    "jsonb_each_text",
    "json_object_keys",
    "jsonb_object_keys",
    "json_extract_path",
    "jsonb_extract_path",
    "json_extract_path_text",
    "jsonb_extract_path_text",
    "json_typeof",
    "jsonb_typeof",
    "jsonb_pretty",
    "jsonb_set",
    "jsonb_strip_nulls",
    "json_strip_nulls",
    "isempty",
    "lower_inc",
    "upper_inc",
    "lower_inf",
    "upper_inf",
    "network",
    "host",
    "masklen",
    "family",
];

const SESSION: &[&str] = &[
    "version",
    "current_database",
    "current_schema",
    "current_schemas",
    "current_catalog",
    "pg_backend_pid",
    "pg_is_in_recovery",
    "pg_postmaster_start_time",
    "pg_my_temp_schema",
    "pg_is_other_temp_schema",
    "pg_listening_channels",
    "getdatabaseencoding",
    "pg_typeof",
    "pg_get_keywords",
    "pg_timezone_names",
    "pg_timezone_abbrevs",
];

/// The system catalogs in words: definitions, descriptions, owners. They take OIDs and print what is in pg_catalog.
const CATALOG: &[&str] = &[
    "format_type",
    "pg_get_expr",
    "pg_get_indexdef",
    "pg_get_constraintdef",
    "pg_get_viewdef",
    "pg_get_ruledef",
    "pg_get_triggerdef",
    "pg_get_functiondef",
    "pg_get_function_arguments",
    "pg_get_function_identity_arguments",
    "pg_get_function_result",
    "pg_get_function_arg_default",
    "pg_get_partkeydef",
    "pg_get_partition_constraintdef",
    "pg_get_statisticsobjdef",
    "pg_get_statisticsobjdef_columns",
    "pg_get_statisticsobjdef_expressions",
    "pg_get_serial_sequence",
    "pg_get_userbyid",
    "pg_get_function_sqlbody",
    "obj_description",
    "col_description",
    "shobj_description",
    "pg_encoding_to_char",
    "pg_char_to_encoding",
    "pg_describe_object",
    "pg_identify_object",
    "pg_index_column_has_property",
    "pg_index_has_property",
    "pg_indexam_has_property",
    "pg_relation_is_publishable",
    "pg_relation_is_updatable",
    "pg_column_is_updatable",
    "pg_partition_ancestors",
    "pg_partition_root",
    "pg_partition_tree",
    "pg_options_to_table",
    "aclexplode",
    "acldefault",
    "pg_size_pretty",
    "pg_tablespace_location",
];

const VISIBILITY: &[&str] = &[
    "pg_table_is_visible",
    "pg_type_is_visible",
    "pg_function_is_visible",
    "pg_operator_is_visible",
    "pg_opclass_is_visible",
    "pg_opfamily_is_visible",
    "pg_collation_is_visible",
    "pg_conversion_is_visible",
    "pg_statistics_obj_is_visible",
    "pg_ts_config_is_visible",
    "pg_ts_dict_is_visible",
    "pg_ts_parser_is_visible",
    "pg_ts_template_is_visible",
    "has_table_privilege",
    "has_column_privilege",
    "has_any_column_privilege",
    "has_schema_privilege",
    "has_database_privilege",
    "has_function_privilege",
    "has_sequence_privilege",
    "has_type_privilege",
    "has_language_privilege",
    "has_tablespace_privilege",
    "has_server_privilege",
    "has_foreign_data_wrapper_privilege",
    "has_parameter_privilege",
    "pg_has_role",
    "row_security_active",
];

const NAMES: &[&str] = &[
    "to_regclass",
    "to_regtype",
    "to_regproc",
    "to_regprocedure",
    "to_regoper",
    "to_regoperator",
    "to_regnamespace",
    "to_regrole",
    "to_regcollation",
    "parse_ident",
];

/// How a listed function looks in FROM; `None` for one that is not set-returning or whose columns depend on types.
pub(crate) fn table_shape(name: &str) -> Option<TableShape> {
    const VALUE: TableShape = TableShape::Columns(&["value"]);
    const KEY_VALUE: TableShape = TableShape::Columns(&["key", "value"]);
    Some(match name {
        "generate_series"
        | "generate_subscripts"
        | "unnest"
        | "regexp_split_to_table"
        | "regexp_matches"
        | "string_to_table"
        | "json_object_keys"
        | "jsonb_object_keys"
        | "pg_listening_channels"
        | "now"
        | "version"
        | "current_database"
        | "current_schemas" => TableShape::Scalar,
        "json_array_elements" | "jsonb_array_elements" | "json_array_elements_text" | "jsonb_array_elements_text" => {
            VALUE
        }
        "json_each" | "jsonb_each" | "json_each_text" | "jsonb_each_text" => KEY_VALUE,
        "pg_options_to_table" => TableShape::Columns(&["option_name", "option_value"]),
        "aclexplode" => TableShape::Columns(&["grantor", "grantee", "privilege_type", "is_grantable"]),
        "pg_partition_ancestors" => TableShape::Columns(&["relid"]),
        "pg_partition_tree" => TableShape::Columns(&["relid", "parentrelid", "isleaf", "level"]),
        _ => return None,
    })
}

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
    fn readers_and_writers_are_not_on_the_list() {
        for name in [
            "pg_read_file",
            "pg_read_binary_file",
            "pg_ls_dir",
            "pg_stat_file",
            "lo_import",
            "lo_export",
            "query_to_xml",
            "table_to_xml",
            "database_to_xml",
            "schema_to_xml",
            "cursor_to_xml",
            "dblink",
            "ts_stat",
            "nextval",
            "setval",
            "currval",
            "lastval",
            "pg_terminate_backend",
            "pg_cancel_backend",
            "pg_reload_conf",
            "pg_logical_emit_message",
            "pg_logical_slot_get_changes",
            "pg_relation_size",
            "pg_total_relation_size",
            "pg_database_size",
            "pg_stat_get_activity",
            "json_populate_record",
            "pg_export_snapshot",
            "txid_current",
            "setseed",
            "pg_switch_wal",
            "brin_summarize_new_values",
        ] {
            assert_eq!(review(name), None, "{name}");
        }
        assert_eq!(review("lower"), Some(Review::Free));
        assert_eq!(review("pg_sleep"), Some(Review::Effect));
        assert_eq!(review("pg_notify"), Some(Review::Notify));
        assert_eq!(review("lo_get"), Some(Review::Reader));
    }

    #[test]
    fn no_name_stands_in_two_lists() {
        let mut names: Vec<_> = LISTS.iter().chain([&EFFECTS]).flat_map(|list| list.iter()).collect();
        let listed = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), listed);
    }

    #[test]
    fn every_from_function_is_reviewed() {
        for name in ["generate_series", "unnest", "json_each", "aclexplode", "pg_partition_tree", "json_array_elements"]
        {
            assert!(table_shape(name).is_some() && review(name) == Some(Review::Free), "{name}");
        }
        assert_eq!(table_shape("pg_ls_dir"), None);
        assert_eq!(table_shape("json_to_recordset"), None);
    }

    #[test]
    fn a_custom_setting_is_not_readable() {
        assert!(is_readable_setting("search_path"));
        assert!(!is_readable_setting("app.jwt_secret") && !is_readable_setting("primary_conninfo"));
    }
}
