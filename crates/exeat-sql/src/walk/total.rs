//! What cannot fail whatever its arguments are, says nothing but its result, and grows by nothing but the sum of
//! its arguments. Everything else counts as used where it stands.

use crate::catalog::Kinds;

/// Comparisons, and `||`.
const OPERATORS: &[&str] = &["<", "<=", "<>", "=", ">", ">=", "||"];

/// Sorted, for a binary search.
const FUNCTIONS: &[&str] = &[
    "any_value",
    "array_agg",
    "array_to_json",
    "bit_length",
    "bool_and",
    "bool_or",
    "btrim",
    "char_length",
    "character_length",
    "concat",
    "count",
    "every",
    "first_value",
    "initcap",
    "json_agg",
    "json_build_array",
    "jsonb_agg",
    "jsonb_build_array",
    "lag",
    "last_value",
    "lead",
    "left",
    "length",
    "lower",
    "ltrim",
    "max",
    "md5",
    "min",
    "octet_length",
    "reverse",
    "right",
    "row_to_json",
    "rtrim",
    "string_agg",
    "to_json",
    "to_jsonb",
    "upper",
];

pub(crate) fn operator(name: &str) -> bool {
    OPERATORS.binary_search(&name).is_ok()
}

/// What may fail over values of which only this is known, whatever the name alone promises.
pub(crate) fn fails_over(name: &str, kinds: Kinds) -> bool {
    let compares = matches!(name, "max" | "min");
    let prints = name == "concat" || makes_json(name);
    let takes_apart = name == "jsonb_agg" || name.starts_with("jsonb_build") || name == "to_jsonb";
    (compares && kinds.rows)
        || (name == "array_agg" && kinds.lists)
        || (prints && kinds.odd)
        || (takes_apart && kinds.json)
}

/// Whether every other argument is a key, of which a null one raises.
pub(crate) fn takes_keys(name: &str) -> bool {
    matches!(name, "json_build_object" | "jsonb_build_object")
}

/// Whether a function's result may be an array.
pub(crate) fn makes_list(name: &str) -> bool {
    name.contains("array")
}

/// Whether a function's result may be of type json.
pub(crate) fn makes_json(name: &str) -> bool {
    name.contains("json")
}

pub(crate) fn function(name: &str) -> bool {
    FUNCTIONS.binary_search(&name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_so_that_the_search_finds_every_name() {
        assert!([OPERATORS, FUNCTIONS].iter().all(|list| list.windows(2).all(|pair| pair[0] < pair[1])));
        assert!(function("lower") && operator("||"));
    }

    #[test]
    fn what_may_fail_or_outgrow_the_server_is_not_among_them() {
        for name in ["substring", "repeat", "lpad", "replace", "to_date", "sum", "unnest", "regexp_replace", "format"] {
            assert!(!function(name), "{name}");
        }
        assert!(!operator("+") && !operator("/") && !operator("~"));
    }
}
