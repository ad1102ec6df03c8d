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

const CHANGED_IN_PLACE: &[&str] = &["n_tup_hot_upd", "n_tup_newpage_upd", "n_dead_tup", "idx_tup_fetch"];
const ENTRIES: &[&str] = &["idx_tup_read", "idx_tup_fetch"];
const BLOCKS_OF_TABLES: &[&str] = &[
    "heap_blks_read",
    "heap_blks_hit",
    "idx_blks_read",
    "idx_blks_hit",
    "toast_blks_read",
    "toast_blks_hit",
    "tidx_blks_read",
    "tidx_blks_hit",
];
const BLOCKS_OF_INDEXES: &[&str] = &["idx_blks_read", "idx_blks_hit"];

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
    // What a write cost tells how much of a value it changed: whoever may write could guess. Whether a row went on in its
    // page, blocks that indexes were looked at in, entries that they have.
    builtin(CATALOG, "pg_stat_all_tables", CHANGED_IN_PLACE, STATISTICS),
    builtin(CATALOG, "pg_stat_sys_tables", CHANGED_IN_PLACE, STATISTICS),
    builtin(CATALOG, "pg_stat_user_tables", CHANGED_IN_PLACE, STATISTICS),
    builtin(CATALOG, "pg_stat_xact_all_tables", CHANGED_IN_PLACE, STATISTICS),
    builtin(CATALOG, "pg_stat_xact_sys_tables", CHANGED_IN_PLACE, STATISTICS),
    builtin(CATALOG, "pg_stat_xact_user_tables", CHANGED_IN_PLACE, STATISTICS),
    builtin(CATALOG, "pg_stat_all_indexes", ENTRIES, STATISTICS),
    builtin(CATALOG, "pg_stat_sys_indexes", ENTRIES, STATISTICS),
    builtin(CATALOG, "pg_stat_user_indexes", ENTRIES, STATISTICS),
    builtin(CATALOG, "pg_statio_all_tables", BLOCKS_OF_TABLES, STATISTICS),
    builtin(CATALOG, "pg_statio_sys_tables", BLOCKS_OF_TABLES, STATISTICS),
    builtin(CATALOG, "pg_statio_user_tables", BLOCKS_OF_TABLES, STATISTICS),
    builtin(CATALOG, "pg_statio_all_indexes", BLOCKS_OF_INDEXES, STATISTICS),
    builtin(CATALOG, "pg_statio_sys_indexes", BLOCKS_OF_INDEXES, STATISTICS),
    builtin(CATALOG, "pg_statio_user_indexes", BLOCKS_OF_INDEXES, STATISTICS),
    builtin(
        CATALOG,
        "pg_stat_database",
        &["blks_read", "blks_hit", "tup_returned", "tup_fetched", "temp_files", "temp_bytes"],
        STATISTICS,
    ),
    builtin(
        CATALOG,
        "pg_stat_io",
        &[
            "reads",
            "read_bytes",
            "writes",
            "write_bytes",
            "writebacks",
            "extends",
            "extend_bytes",
            "op_bytes",
            "hits",
            "evictions",
            "reuses",
            "fsyncs",
        ],
        STATISTICS,
    ),
    builtin(
        CATALOG,
        "pg_stat_bgwriter",
        &[
            "buffers_checkpoint",
            "buffers_clean",
            "maxwritten_clean",
            "buffers_backend",
            "buffers_backend_fsync",
            "buffers_alloc",
        ],
        STATISTICS,
    ),
    builtin(CATALOG, "pg_stat_checkpointer", &["buffers_written", "slru_written"], STATISTICS),
    builtin(
        CATALOG,
        "pg_stat_slru",
        &["blks_zeroed", "blks_hit", "blks_read", "blks_written", "blks_exists"],
        STATISTICS,
    ),
    // The log leaves out what the old and the new row have in common.
    builtin(
        CATALOG,
        "pg_stat_wal",
        &["wal_records", "wal_fpi", "wal_bytes", "wal_buffers_full", "wal_write", "wal_sync"],
        STATISTICS,
    ),
    builtin(CATALOG, "pg_stat_replication", &["sent_lsn", "write_lsn", "flush_lsn", "replay_lsn"], STATISTICS),
    builtin(CATALOG, "pg_replication_slots", &["restart_lsn", "confirmed_flush_lsn", "safe_wal_size"], STATISTICS),
    builtin(CATALOG, "pg_replication_origin_status", &["remote_lsn", "local_lsn"], STATISTICS),
    builtin(
        CATALOG,
        "pg_stat_replication_slots",
        &[
            "spill_txns",
            "spill_count",
            "spill_bytes",
            "stream_txns",
            "stream_count",
            "stream_bytes",
            "total_txns",
            "total_bytes",
        ],
        STATISTICS,
    ),
    builtin(CATALOG, "pg_stat_subscription", &["received_lsn", "latest_end_lsn"], STATISTICS),
    builtin(
        CATALOG,
        "pg_stat_wal_receiver",
        &["receive_start_lsn", "written_lsn", "flushed_lsn", "latest_end_lsn"],
        STATISTICS,
    ),
    builtin(CATALOG, "pg_subscription", &["subskiplsn"], STATISTICS),
    builtin(CATALOG, "pg_subscription_rel", &["srsublsn"], STATISTICS),
    // How much of something was done, while it is done: in bytes the lengths of what nobody masks on its way there.
    builtin(CATALOG, "pg_stat_progress_copy", &["bytes_processed", "bytes_total"], STATISTICS),
    builtin(CATALOG, "pg_stat_progress_create_index", &["blocks_total", "blocks_done"], STATISTICS),
    builtin(CATALOG, "pg_stat_progress_analyze", &["sample_blks_total", "sample_blks_scanned"], STATISTICS),
    builtin(CATALOG, "pg_stat_progress_cluster", &["heap_blks_total", "heap_blks_scanned"], STATISTICS),
    builtin(
        CATALOG,
        "pg_stat_progress_vacuum",
        &["heap_blks_total", "heap_blks_scanned", "heap_blks_vacuumed", "max_dead_tuple_bytes", "dead_tuple_bytes"],
        STATISTICS,
    ),
    builtin(CATALOG, "pg_stat_progress_basebackup", &["backup_total", "backup_streamed"], STATISTICS),
    // What a statement holds in memory while it runs.
    builtin(
        CATALOG,
        "pg_backend_memory_contexts",
        &["total_bytes", "total_nblocks", "free_bytes", "free_chunks", "used_bytes"],
        STATISTICS,
    ),
    builtin(
        ANY_SCHEMA,
        "pg_stat_statements",
        &[
            "shared_blks_hit",
            "shared_blks_read",
            "shared_blks_dirtied",
            "shared_blks_written",
            "local_blks_hit",
            "local_blks_read",
            "local_blks_dirtied",
            "local_blks_written",
            "temp_blks_read",
            "temp_blks_written",
            "wal_records",
            "wal_fpi",
            "wal_bytes",
            "wal_buffers_full",
        ],
        STATISTICS,
    ),
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
            (CATALOG, "pg_stat_user_tables", "n_tup_hot_upd", "n_tup_upd"),
            (CATALOG, "pg_stat_xact_all_tables", "n_tup_newpage_upd", "n_tup_ins"),
            (CATALOG, "pg_stat_user_indexes", "idx_tup_read", "idx_scan"),
            (CATALOG, "pg_statio_user_indexes", "idx_blks_hit", "indexrelname"),
            (CATALOG, "pg_stat_database", "blks_hit", "xact_commit"),
            (CATALOG, "pg_stat_wal", "wal_bytes", "stats_reset"),
            (CATALOG, "pg_stat_replication", "sent_lsn", "state"),
            (CATALOG, "pg_backend_memory_contexts", "used_bytes", "name"),
            ("extensions", "pg_stat_statements", "wal_bytes", "calls"),
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
