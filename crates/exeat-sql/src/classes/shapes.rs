//! How a built-in function looks in FROM: the columns that its catalog entry gives it, where no type decides.

/// Columns a function has as a FROM item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableShape {
    /// One column, named by the alias or the function.
    Scalar,
    /// OUT columns with names of their own.
    Columns(&'static [&'static str]),
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classes::{Class, built_in};

    #[test]
    fn every_from_function_is_reviewed_and_returns_a_set_or_a_value() {
        for name in ["generate_series", "unnest", "json_each", "aclexplode", "pg_partition_tree", "json_array_elements"]
        {
            assert!(table_shape(name).is_some(), "{name}");
            assert!(built_in(name).iter().all(|entry| entry.class <= Class::Metadata), "{name}");
        }
        assert_eq!(table_shape("pg_ls_dir"), None);
        assert_eq!(table_shape("json_to_recordset"), None);
    }
}
