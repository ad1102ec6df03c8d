//! The classes of built-in functions, operators and casts, and of common extensions' functions: what each may do
//! beside computing a value. Read from `classes/*.tsv`, which `scripts/classify` writes from the catalogs of every
//! supported server and from `classes/reviewed.tsv`. A name or signature that is not here has no class: it is opaque.
//! Never decides what a class is allowed to do; that is the walker's part.

mod settings;
mod shapes;
mod tables;

pub(crate) use settings::is_readable_setting;
pub(crate) use shapes::{TableShape, table_shape};
pub(crate) use tables::{
    Entry, Kind, Parameter, built_in, cast, extension_member, implicit_from, implicit_to, knows_extension, operator,
    takes,
};

/// What a call may do, from harmless to unknown. The order is the badness: of several candidates the worst counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Cannot fail for any argument of its types, tells nothing but its arguments, and its result is no longer than
    /// content times a constant: the only class that may work on a sealed value, whose result is then masked whole.
    Total,
    /// Computed from its arguments, but may raise: whether it does says something about them.
    Partial,
    /// Clock, chance, session.
    Ambient,
    /// What the system catalogs say.
    Metadata,
    /// Data by name, number or text: no argument shows what is read.
    Reader,
    /// Changes something: a setting, a sequence, a lock, a file.
    Effect,
    /// Not reviewed, or not for statements.
    Opaque,
}

/// How a function makes one value out of several: by what the types of its arguments print, with their failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Printing {
    Text,
    Json,
    Jsonb,
}

/// What a caller must look at beside the class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Facet {
    /// A builder: total as far as the types of its arguments are, and over sealed columns only with plain columns and
    /// literals of at most 64 KiB beside them. `keys`: its odd arguments are keys, and a null one raises.
    Prints {
        form: Printing,
        keys: bool,
    },
    /// Reads or writes data by a number: a large object. Needs a capability of its own.
    LargeObject,
    /// Tells about stored bytes.
    Size,
    /// The setting must be a literal on the readable list.
    CurrentSetting,
    /// The setting must be a literal, its value one or a parameter; enforcement checks them as SET.
    SetConfig,
    /// Channel and payload must be literals or parameters; beside it, nothing but metadata may be read.
    Notify,
    Sleep,
    AdvisoryLock,
    /// Moves or reads a sequence of the session.
    Sequence,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, signature: &str) -> Class {
        let entries = built_in(name).iter().filter(|entry| entry.signature() == signature);
        let classes: Vec<_> = entries.map(|entry| entry.class).collect();
        assert_eq!(classes.len(), 1, "{name}({signature}) stands in the table once");
        classes[0]
    }

    #[test]
    fn total_is_what_cannot_fail() {
        for (name, signature) in [
            ("lower", "text"),
            ("upper", "anyrange"),
            ("length", "text"),
            ("left", "text,int4"),
            ("substr", "text,int4"),
            ("md5", "text"),
            ("sha256", "bytea"),
            ("texteq", "text,text"),
            ("text_lt", "text,text"),
            ("numeric_eq", "numeric,numeric"),
            ("timestamptz_lt", "timestamptz,timestamptz"),
            ("to_jsonb", "anyelement"),
            ("row_to_json", "record"),
            ("concat", "any"),
            ("min", "text"),
            ("max", "numeric"),
            ("array_agg", "anynonarray"),
            ("string_agg", "text,text"),
            ("jsonb_agg", "anyelement"),
            ("count", "any"),
            ("int8", "int4"),
            ("unnest", "anyarray"),
        ] {
            assert_eq!(class(name, signature), Class::Total, "{name}({signature})");
        }
    }

    #[test]
    fn what_may_raise_or_grow_is_not_total() {
        for (name, signature) in [
            ("replace", "text,text,text"),
            ("repeat", "text,int4"),
            ("lpad", "text,int4,text"),
            ("rpad", "text,int4"),
            ("format", "text,any"),
            ("translate", "text,text,text"),
            ("regexp_replace", "text,text,text"),
            ("substr", "text,int4,int4"),
            ("substring", "text,int4,int4"),
            ("textlike", "text,text"),
            ("int4pl", "int4,int4"),
            ("int4um", "int4"),
            ("numeric_add", "numeric,numeric"),
            ("int4", "int8"),
            ("float8", "numeric"),
            ("to_number", "text,text"),
            ("jsonb_object_agg", "any,any"),
            ("array_agg", "anyarray"),
            ("array_to_string", "anyarray,text"),
            ("max", "anyarray"),
            ("sum", "int4"),
            ("avg", "numeric"),
            ("split_part", "text,text,int4"),
            ("encode", "bytea,text"),
            ("int4in", "cstring"),
            ("date_trunc", "text,timestamptz"),
            ("circle_eq", "circle,circle"),
            ("nth_value", "anyelement,int4"),
            ("json_object_field_text", "json,text"),
        ] {
            assert_eq!(class(name, signature), Class::Partial, "{name}({signature})");
        }
    }

    #[test]
    fn clock_chance_and_catalog_have_classes_of_their_own() {
        for (name, signature) in [("now", "()"), ("random", "()"), ("gen_random_uuid", "()"), ("version", "()")] {
            assert_eq!(class(name, signature), Class::Ambient, "{name}");
        }
        for (name, signature) in [
            ("pg_get_viewdef", "oid"),
            ("format_type", "oid,int4"),
            ("has_table_privilege", "text,text"),
            ("to_regclass", "text"),
            ("regclassout", "regclass"),
            ("pg_relation_size", "regclass"),
        ] {
            assert_eq!(class(name, signature), Class::Metadata, "{name}");
        }
    }

    #[test]
    fn readers_and_effects_are_named() {
        for (name, signature) in [
            ("pg_read_file", "text"),
            ("pg_read_binary_file", "text"),
            ("pg_ls_dir", "text"),
            ("pg_stat_file", "text"),
            ("lo_import", "text"),
            ("lo_get", "oid"),
            ("query_to_xml", "text,bool,bool,text"),
            ("table_to_xml", "regclass,bool,bool,text"),
            ("cursor_to_xml", "refcursor,int4,bool,bool,text"),
            ("ts_stat", "text"),
            ("ts_rewrite", "tsquery,text"),
            ("pg_stat_get_activity", "int4"),
            ("pg_mcv_list_items", "pg_mcv_list"),
        ] {
            assert_eq!(class(name, signature), Class::Reader, "{name}");
        }
        for (name, signature) in [
            ("nextval", "regclass"),
            ("setval", "regclass,int8"),
            ("pg_sleep", "float8"),
            ("set_config", "text,text,bool"),
            ("pg_advisory_lock", "int8"),
            ("txid_current", "()"),
        ] {
            assert_eq!(class(name, signature), Class::Effect, "{name}");
        }
        for (name, signature) in [
            ("pg_terminate_backend", "int4,int8"),
            ("pg_reload_conf", "()"),
            ("pg_logical_emit_message", "bool,text,text"),
            ("json_populate_record", "anyelement,json,bool"),
            ("pg_export_snapshot", "()"),
            ("setseed", "float8"),
            ("brin_summarize_new_values", "regclass"),
            ("domain_in", "cstring,oid,int4"),
            ("textrecv", "internal"),
        ] {
            assert_eq!(class(name, signature), Class::Opaque, "{name}");
        }
    }

    #[test]
    fn facets_say_what_else_to_look_at() {
        let facet = |name: &str| built_in(name).first().and_then(|entry| entry.facet);
        assert_eq!(facet("lo_get"), Some(Facet::LargeObject));
        assert_eq!(facet("lo_import"), None);
        assert_eq!(facet("pg_table_size"), Some(Facet::Size));
        assert_eq!(facet("current_setting"), Some(Facet::CurrentSetting));
        assert_eq!(facet("set_config"), Some(Facet::SetConfig));
        assert_eq!(facet("pg_notify"), Some(Facet::Notify));
        assert_eq!(facet("pg_sleep"), Some(Facet::Sleep));
        assert_eq!(facet("pg_try_advisory_xact_lock"), Some(Facet::AdvisoryLock));
        assert_eq!(facet("nextval"), Some(Facet::Sequence));
        assert_eq!(facet("concat"), Some(Facet::Prints { form: Printing::Text, keys: false }));
        assert_eq!(facet("jsonb_build_object"), Some(Facet::Prints { form: Printing::Jsonb, keys: true }));
        assert_eq!(facet("lower"), None);
    }

    #[test]
    fn kinds_are_told_apart() {
        let kind = |name: &str| built_in(name).first().map(|entry| (entry.kind, entry.returns_set));
        assert_eq!(kind("lower"), Some((Kind::Function, false)));
        assert_eq!(kind("unnest"), Some((Kind::Function, true)));
        assert_eq!(kind("sum"), Some((Kind::Aggregate, false)));
        assert_eq!(kind("percentile_cont"), Some((Kind::OrderedSet, false)));
        assert_eq!(kind("row_number"), Some((Kind::Window, false)));
    }

    #[test]
    fn extensions_members_are_known_by_extension_name_and_types() {
        let of =
            |extension, name, types: &[&str]| extension_member(extension, name, types, "").map(|entry| entry.class);
        assert_eq!(of("citext", "citext_eq", &["citext", "citext"]), Some(Class::Total));
        assert_eq!(of("vector", "cosine_distance", &["vector", "vector"]), Some(Class::Partial));
        assert_eq!(of("postgis", "st_area", &["geometry"]), Some(Class::Partial));
        assert_eq!(of("dblink", "dblink", &["text", "text"]), Some(Class::Reader));
        assert_eq!(of("pgcrypto", "gen_salt", &["text"]), Some(Class::Ambient));
        assert_eq!(of("tablefunc", "crosstab", &["text"]), Some(Class::Reader));
        assert_eq!(of("citext", "citext_eq", &["citext", "text"]), None);
        assert_eq!(of("mine", "citext_eq", &["citext", "citext"]), None);
    }

    #[test]
    fn casts_that_cannot_fail_are_total() {
        for (source, target) in
            [("int4", "int8"), ("varchar", "text"), ("text", "varchar"), ("int4", "text"), ("jsonb", "text")]
        {
            assert_eq!(cast(source, target).map(|found| found.class), Some(Class::Total), "{source} to {target}");
        }
        for (source, target) in [("int8", "int4"), ("numeric", "float8"), ("date", "timestamp"), ("xml", "text")] {
            assert_eq!(cast(source, target).map(|found| found.class), Some(Class::Partial), "{source} to {target}");
        }
        assert_eq!(cast("regclass", "text").map(|found| found.class), Some(Class::Metadata));
        assert_eq!(cast("text", "int4"), None, "through input: not in the table");
    }

    #[test]
    fn operators_are_classed_by_their_operands() {
        let class = |name: &str, left: &str, right: &str| {
            let found = operator(name).iter().find(|known| known.left == left && known.right == right);
            found.map(|known| known.class)
        };
        assert_eq!(class("=", "text", "text"), Some(Class::Total));
        assert_eq!(class("=", "anyarray", "anyarray"), Some(Class::Partial));
        assert_eq!(class("||", "text", "text"), Some(Class::Total));
        assert_eq!(class("+", "int4", "int4"), Some(Class::Partial));
        assert_eq!(class("-", "-", "int4"), Some(Class::Partial));
        assert_eq!(class("->>", "jsonb", "text"), Some(Class::Total));
        assert_eq!(class("~~", "text", "text"), Some(Class::Partial));
        assert_eq!(class("===", "text", "text"), None);
    }
}
