//! Built-in labels: columns of the system catalogs that carry values of user data, statement texts or credentials.
//! Pure. Metadata passes to every session with an `allow`; these columns do not, or a sealed value would leave as
//! "statistics". Definitions (views, defaults, checks) are metadata by design, and settings that hold credentials
//! are shown by the server to its own administrators only.

/// Samples of column values, how often they occur, how many there are and how they lie in stored order. What remains
/// open (widths, share of NULLs) a client may see in masked rows as well; of an expression it may not.
pub const STATISTICS: &str = "builtin_statistics";
/// SQL of this or other sessions, literals included.
pub const STATEMENTS: &str = "builtin_statements";
/// Password hashes, connection strings, options of user mappings.
pub const CREDENTIALS: &str = "builtin_credentials";
/// Contents of large objects and stored column values.
pub const CONTENTS: &str = "builtin_contents";

/// Where a relation of an extension may be installed.
const ANY_SCHEMA: &str = "*";

const CATALOG: &str = "pg_catalog";
const INFORMATION: &str = "information_schema";

/// One relation's value-bearing columns.
#[derive(Debug, Clone, Copy)]
pub struct Builtin {
    /// `*` where the schema is the installer's choice.
    pub schema: &'static str,
    pub relation: &'static str,
    pub columns: &'static [&'static str],
    pub label: &'static str,
}

const fn builtin(
    schema: &'static str,
    relation: &'static str,
    columns: &'static [&'static str],
    label: &'static str,
) -> Builtin {
    Builtin { schema, relation, columns, label }
}

/// As of PostgreSQL 18; columns that an older server lacks match nothing there.
pub const COLUMNS: &[Builtin] = &[
    builtin(
        CATALOG,
        "pg_stats",
        &[
            "n_distinct",
            "correlation",
            "most_common_vals",
            "most_common_freqs",
            "histogram_bounds",
            "most_common_elems",
            "most_common_elem_freqs",
            "elem_count_histogram",
            "range_length_histogram",
            "range_bounds_histogram",
        ],
        STATISTICS,
    ),
    builtin(
        CATALOG,
        "pg_statistic",
        &[
            "stadistinct",
            "stakind1",
            "stakind2",
            "stakind3",
            "stakind4",
            "stakind5",
            "stavalues1",
            "stavalues2",
            "stavalues3",
            "stavalues4",
            "stavalues5",
            "stanumbers1",
            "stanumbers2",
            "stanumbers3",
            "stanumbers4",
            "stanumbers5",
        ],
        STATISTICS,
    ),
    builtin(
        CATALOG,
        "pg_stats_ext",
        &[
            "n_distinct",
            "dependencies",
            "most_common_vals",
            "most_common_val_nulls",
            "most_common_freqs",
            "most_common_base_freqs",
        ],
        STATISTICS,
    ),
    builtin(
        CATALOG,
        "pg_stats_ext_exprs",
        &[
            "null_frac",
            "avg_width",
            "n_distinct",
            "correlation",
            "most_common_vals",
            "most_common_freqs",
            "histogram_bounds",
            "most_common_elems",
            "most_common_elem_freqs",
            "elem_count_histogram",
            "range_length_histogram",
            "range_bounds_histogram",
        ],
        STATISTICS,
    ),
    builtin(
        CATALOG,
        "pg_statistic_ext_data",
        &["stxdndistinct", "stxddependencies", "stxdmcv", "stxdexpr"],
        STATISTICS,
    ),
    // Sizes, as those that functions tell: an index on a sealed column grows with what is in it. Numbers of rows too: of an
    // index that takes values apart (GIN) it is the number of parts, of a partial one of the rows its condition holds for.
    builtin(CATALOG, "pg_class", &["relpages", "reltuples", "relallvisible", "relallfrozen"], STATISTICS),
    builtin(CATALOG, "pg_stat_activity", &["query"], STATEMENTS),
    builtin(ANY_SCHEMA, "pg_stat_statements", &["query"], STATEMENTS),
    builtin(CATALOG, "pg_prepared_statements", &["statement"], STATEMENTS),
    builtin(CATALOG, "pg_cursors", &["statement"], STATEMENTS),
    // Names memory contexts after the statement text of cached plans and functions.
    builtin(CATALOG, "pg_backend_memory_contexts", &["ident"], STATEMENTS),
    builtin(CATALOG, "pg_authid", &["rolpassword"], CREDENTIALS),
    builtin(CATALOG, "pg_shadow", &["passwd"], CREDENTIALS),
    builtin(CATALOG, "pg_user_mapping", &["umoptions"], CREDENTIALS),
    builtin(CATALOG, "pg_user_mappings", &["umoptions"], CREDENTIALS),
    builtin(INFORMATION, "_pg_user_mappings", &["umoptions"], CREDENTIALS),
    builtin(INFORMATION, "user_mapping_options", &["option_value"], CREDENTIALS),
    builtin(CATALOG, "pg_subscription", &["subconninfo"], CREDENTIALS),
    builtin(CATALOG, "pg_stat_wal_receiver", &["conninfo"], CREDENTIALS),
    builtin(CATALOG, "pg_file_settings", &["setting"], CREDENTIALS),
    builtin(CATALOG, "pg_hba_file_rules", &["options"], CREDENTIALS),
    builtin(CATALOG, "pg_db_role_setting", &["setconfig"], CREDENTIALS),
    builtin(CATALOG, "pg_user", &["useconfig"], CREDENTIALS),
    builtin(CATALOG, "pg_shadow", &["useconfig"], CREDENTIALS),
    builtin(CATALOG, "pg_roles", &["rolconfig"], CREDENTIALS),
    builtin(CATALOG, "pg_largeobject", &["data"], CONTENTS),
    // The value every old row has in a column added later.
    builtin(CATALOG, "pg_attribute", &["attmissingval"], CONTENTS),
];

/// The built-in label of a column, by the names the catalog has for it.
pub fn label(schema: &str, relation: &str, column: &str) -> Option<&'static str> {
    COLUMNS
        .iter()
        .find(|builtin| {
            builtin.relation == relation
                && (builtin.schema == schema || builtin.schema == ANY_SCHEMA)
                && builtin.columns.contains(&column)
        })
        .map(|builtin| builtin.label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn value_bearing_columns_have_a_label_and_their_neighbours_none() {
        for (schema, relation, sealed, open) in [
            (CATALOG, "pg_stats", "n_distinct", "avg_width"),
            (CATALOG, "pg_stats", "correlation", "null_frac"),
            (CATALOG, "pg_statistic", "stadistinct", "stawidth"),
            (CATALOG, "pg_stats_ext", "dependencies", "exprs"),
            (CATALOG, "pg_statistic_ext_data", "stxdndistinct", "stxdinherit"),
            (CATALOG, "pg_statistic", "stavalues5", "starelid"),
            (CATALOG, "pg_stats_ext", "most_common_vals", "attnames"),
            (CATALOG, "pg_stats_ext_exprs", "histogram_bounds", "expr"),
            (CATALOG, "pg_statistic_ext_data", "stxdmcv", "stxoid"),
            (CATALOG, "pg_class", "relpages", "relname"),
            (CATALOG, "pg_stat_activity", "query", "state"),
            ("extensions", "pg_stat_statements", "query", "calls"),
            (CATALOG, "pg_authid", "rolpassword", "rolname"),
            (CATALOG, "pg_shadow", "passwd", "usename"),
            (CATALOG, "pg_user_mappings", "umoptions", "usename"),
            (INFORMATION, "user_mapping_options", "option_value", "option_name"),
            (CATALOG, "pg_subscription", "subconninfo", "subname"),
            (CATALOG, "pg_prepared_statements", "statement", "name"),
            (CATALOG, "pg_cursors", "statement", "name"),
            (CATALOG, "pg_largeobject", "data", "loid"),
            (CATALOG, "pg_attribute", "attmissingval", "attname"),
        ] {
            assert!(label(schema, relation, sealed).is_some(), "{relation}.{sealed}");
            assert_eq!(label(schema, relation, open), None, "{relation}.{open}");
            if schema != "extensions" {
                assert_eq!(label("public", relation, sealed), None, "a user's own {relation}");
            }
        }
    }

    #[test]
    fn no_column_is_listed_twice() {
        let all: Vec<_> = COLUMNS
            .iter()
            .flat_map(|builtin| builtin.columns.iter().map(move |column| (builtin.schema, builtin.relation, *column)))
            .collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }
}
