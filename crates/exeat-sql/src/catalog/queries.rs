//! The SQL that reads a catalog snapshot. Every name and operator is qualified, so that neither search_path nor a
//! planted operator can bend an answer; every column is text, so that the simple protocol carries it unchanged.
//! Works on PostgreSQL 14 to 18. `build` depends on the order of the queries and of their columns.

/// One statement of the snapshot transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogQuery {
    pub name: &'static str,
    pub sql: &'static str,
}

/// The query that reads the definitions of views.
pub const VIEWS: &str = "views";

/// The rows of `VIEWS` for these alone.
pub fn these_views(oids: &[super::Oid]) -> String {
    let list: Vec<String> = oids.iter().map(|oid| oid.0.to_string()).collect();
    format!(
        "SELECT v.oid::pg_catalog.text, pg_catalog.pg_get_viewdef(v.oid) \
        FROM pg_catalog.unnest('{{{}}}'::pg_catalog.oid[]) v(oid)",
        list.join(",")
    )
}

/// The views whose definitions `VIEWS` reads, and one of them: for a reader whom somebody keeps waiting for one of them.
/// A row of `VIEWS` with NULL for a definition says that it could not be read.
pub const VIEW_LIST: &str = "SELECT c.oid::pg_catalog.text FROM pg_catalog.pg_class c \
    WHERE c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['v','m']::pg_catalog.\"char\"[]) \
    AND c.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid";

pub fn one_view(oid: super::Oid) -> String {
    format!("SELECT pg_catalog.pg_get_viewdef('{}'::pg_catalog.oid)", oid.0)
}

/// Run in this order on the catalog connection, with `search_path = ''`, in one REPEATABLE READ READ ONLY
/// transaction; hand the rows of each to [`super::CatalogSnapshot::build`] in the same order.
///
/// `'16384'` is FirstNormalObjectId: what `initdb` made is below it, what a user or an extension made is not.
pub const QUERIES: &[CatalogQuery] = &[
    CatalogQuery {
        name: "database",
        sql: "SELECT d.oid::pg_catalog.text, d.datname::pg_catalog.text, \
            pg_catalog.pg_encoding_to_char(d.encoding)::pg_catalog.text, \
            pg_catalog.current_setting('server_version_num'), \
            pg_catalog.current_setting('max_identifier_length') \
            FROM pg_catalog.pg_database d \
            WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()",
    },
    CatalogQuery {
        name: "schemas",
        sql: "SELECT n.oid::pg_catalog.text, n.nspname::pg_catalog.text FROM pg_catalog.pg_namespace n",
    },
    CatalogQuery {
        name: "relations",
        sql: "SELECT c.oid::pg_catalog.text, c.relnamespace::pg_catalog.text, c.relname::pg_catalog.text, \
            c.relkind::pg_catalog.text, c.relrowsecurity::pg_catalog.text FROM pg_catalog.pg_class c \
            WHERE c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r','p','v','m','f','S','c']::pg_catalog.\"char\"[])",
    },
    CatalogQuery {
        name: "columns",
        sql: "SELECT a.attrelid::pg_catalog.text, a.attnum::pg_catalog.text, a.attname::pg_catalog.text, \
            a.atttypid::pg_catalog.text, a.atttypmod::pg_catalog.text FROM pg_catalog.pg_attribute a \
            JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) a.attrelid \
            WHERE c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r','p','v','m','f','S','c']::pg_catalog.\"char\"[]) \
            AND a.attnum OPERATOR(pg_catalog.>) '0'::pg_catalog.int2 AND NOT a.attisdropped \
            ORDER BY a.attrelid, a.attnum",
    },
    CatalogQuery {
        name: "inheritance",
        sql: "SELECT i.inhrelid::pg_catalog.text, i.inhparent::pg_catalog.text FROM pg_catalog.pg_inherits i",
    },
    CatalogQuery {
        // Waits for whoever changes a view or what it stands on.
        name: VIEWS,
        sql: "SELECT c.oid::pg_catalog.text, pg_catalog.pg_get_viewdef(c.oid) FROM pg_catalog.pg_class c \
            WHERE c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['v','m']::pg_catalog.\"char\"[]) \
            AND c.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid",
    },
    CatalogQuery {
        name: "triggers",
        sql: "SELECT t.tgrelid::pg_catalog.text, t.tgtype::pg_catalog.text, t.tgname::pg_catalog.text, \
            t.tgfoid::pg_catalog.oid::pg_catalog.text, coalesce(pg_catalog.md5(pg_catalog.pg_get_triggerdef(t.oid)), ''), \
            t.tgattr::pg_catalog.text FROM pg_catalog.pg_trigger t WHERE NOT t.tgisinternal",
    },
    CatalogQuery {
        // Columns that a unique index, an exclusion constraint, an index on expressions or with a predicate, a CHECK or
        // a partition key looks at, and whether another row's values decide: by columns alone, each as its own type and
        // collation compare it (`plain`), or in another way (`true`).
        name: "checked together",
        sql: "SELECT i.indrelid::pg_catalog.text, CASE WHEN i.indisunique AND NOT i.indisexclusion \
            AND i.indexprs IS NULL AND i.indpred IS NULL AND NOT EXISTS (SELECT FROM ROWS FROM (\
            pg_catalog.unnest(i.indkey::pg_catalog.int2[]), pg_catalog.unnest(i.indcollation::pg_catalog.oid[]), \
            pg_catalog.unnest(i.indclass::pg_catalog.oid[])) k(number, collation_oid, class_oid) LEFT JOIN pg_catalog.pg_attribute a \
            ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid AND a.attnum OPERATOR(pg_catalog.=) k.number \
            LEFT JOIN pg_catalog.pg_opclass o ON o.oid OPERATOR(pg_catalog.=) k.class_oid \
            WHERE k.class_oid IS NOT NULL AND (k.collation_oid OPERATOR(pg_catalog.<>) a.attcollation \
            OR o.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid OR NOT o.opcdefault) IS NOT FALSE) THEN 'plain' \
            ELSE (i.indisunique OR i.indisexclusion)::pg_catalog.text END, ARRAY(\
            SELECT k.number FROM pg_catalog.unnest(i.indkey::pg_catalog.int2[]) k(number) \
            WHERE k.number OPERATOR(pg_catalog.>) '0'::pg_catalog.int2 \
            UNION ALL SELECT p.refobjsubid::pg_catalog.int2 FROM pg_catalog.pg_depend p \
            WHERE p.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass \
            AND p.objid OPERATOR(pg_catalog.=) i.indexrelid \
            AND p.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass \
            AND p.refobjid OPERATOR(pg_catalog.=) i.indrelid \
            AND p.refobjsubid OPERATOR(pg_catalog.>) '0'::pg_catalog.int4)::pg_catalog.text \
            FROM pg_catalog.pg_index i WHERE i.indrelid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid \
            AND (i.indisunique OR i.indisexclusion OR i.indexprs IS NOT NULL OR i.indpred IS NOT NULL) \
            UNION ALL SELECT c.conrelid::pg_catalog.text, 'false', c.conkey::pg_catalog.text \
            FROM pg_catalog.pg_constraint c WHERE c.contype OPERATOR(pg_catalog.=) 'c'::pg_catalog.\"char\" \
            AND c.conrelid OPERATOR(pg_catalog.<>) '0'::pg_catalog.oid AND c.conkey IS NOT NULL \
            UNION ALL SELECT r.partrelid::pg_catalog.text, 'false', ARRAY(\
            SELECT k.number FROM pg_catalog.unnest(r.partattrs::pg_catalog.int2[]) k(number) \
            WHERE k.number OPERATOR(pg_catalog.>) '0'::pg_catalog.int2 \
            UNION ALL SELECT p.refobjsubid::pg_catalog.int2 FROM pg_catalog.pg_depend p \
            WHERE p.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass \
            AND p.objid OPERATOR(pg_catalog.=) r.partrelid \
            AND p.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass \
            AND p.refobjid OPERATOR(pg_catalog.=) r.partrelid \
            AND p.refobjsubid OPERATOR(pg_catalog.>) '0'::pg_catalog.int4)::pg_catalog.text \
            FROM pg_catalog.pg_partitioned_table r",
    },
    CatalogQuery {
        name: "rules",
        sql: "SELECT DISTINCT r.ev_class::pg_catalog.text FROM pg_catalog.pg_rewrite r \
            WHERE r.rulename OPERATOR(pg_catalog.<>) '_RETURN'::pg_catalog.name",
    },
    CatalogQuery {
        // A policy's expressions speak of its relation's columns as a query on it alone would.
        name: "policies",
        sql: "SELECT p.polrelid::pg_catalog.text, p.polname::pg_catalog.text, \
            coalesce(pg_catalog.pg_get_expr(p.polqual, p.polrelid), ''), \
            coalesce(pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid), ''), \
            pg_catalog.concat_ws(' ', p.polcmd, p.polpermissive, p.polroles) FROM pg_catalog.pg_policy p",
    },
    CatalogQuery {
        // Generated columns, stored or virtual, and the columns each is made from. The dependency is the default's;
        // up to PostgreSQL 14 it is the column's own.
        name: "generated",
        sql: "SELECT a.attrelid::pg_catalog.text, a.attnum::pg_catalog.text, ARRAY(\
            SELECT p.refobjsubid FROM pg_catalog.pg_depend p LEFT JOIN pg_catalog.pg_attrdef f \
            ON p.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_attrdef'::pg_catalog.regclass \
            AND p.objid OPERATOR(pg_catalog.=) f.oid \
            WHERE p.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass \
            AND p.refobjid OPERATOR(pg_catalog.=) a.attrelid \
            AND p.refobjsubid OPERATOR(pg_catalog.<>) a.attnum \
            AND p.refobjsubid OPERATOR(pg_catalog.<>) '0'::pg_catalog.int4 \
            AND ((f.adrelid OPERATOR(pg_catalog.=) a.attrelid AND f.adnum OPERATOR(pg_catalog.=) a.attnum) \
            OR (p.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass \
            AND p.objid OPERATOR(pg_catalog.=) a.attrelid \
            AND p.objsubid OPERATOR(pg_catalog.=) a.attnum)) ORDER BY p.refobjsubid)::pg_catalog.text \
            FROM pg_catalog.pg_attribute a WHERE a.attgenerated OPERATOR(pg_catalog.<>) ''::pg_catalog.\"char\" \
            AND a.attnum OPERATOR(pg_catalog.>) '0'::pg_catalog.int2 AND NOT a.attisdropped \
            ORDER BY a.attrelid, a.attnum",
    },
    CatalogQuery {
        // Columns whose collation takes different texts for equal.
        name: "collations",
        sql: "SELECT a.attrelid::pg_catalog.text, a.attnum::pg_catalog.text FROM pg_catalog.pg_attribute a \
            JOIN pg_catalog.pg_collation k ON k.oid OPERATOR(pg_catalog.=) a.attcollation \
            WHERE NOT k.collisdeterministic AND a.attnum OPERATOR(pg_catalog.>) '0'::pg_catalog.int2 \
            AND NOT a.attisdropped",
    },
    CatalogQuery {
        // What a relation's defaults (their column, else 0), generated columns, constraints, index and partition
        // expressions use that did not come with the server: a type or function by its OID, an operator by its
        // function's, an operator class or family by its extension's name, anything else as 0.
        name: "code",
        sql: "SELECT DISTINCT x.rel::pg_catalog.text, x.att::pg_catalog.text, \
            CASE WHEN x.class OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass THEN 't' \
            WHEN x.class OPERATOR(pg_catalog.=) ANY (ARRAY['pg_catalog.pg_proc',\
            'pg_catalog.pg_operator']::pg_catalog.regclass[]::pg_catalog.oid[]) THEN 'f' \
            WHEN x.class OPERATOR(pg_catalog.=) ANY (ARRAY['pg_catalog.pg_opclass',\
            'pg_catalog.pg_opfamily']::pg_catalog.regclass[]::pg_catalog.oid[]) THEN 'e' ELSE 'x' END, \
            CASE WHEN x.class OPERATOR(pg_catalog.=) ANY (ARRAY['pg_catalog.pg_type',\
            'pg_catalog.pg_proc']::pg_catalog.regclass[]::pg_catalog.oid[]) THEN x.used::pg_catalog.text \
            WHEN x.class OPERATOR(pg_catalog.=) 'pg_catalog.pg_operator'::pg_catalog.regclass \
            THEN coalesce((SELECT o.oprcode::pg_catalog.oid::pg_catalog.text FROM pg_catalog.pg_operator o \
            WHERE o.oid OPERATOR(pg_catalog.=) x.used), '0') \
            ELSE coalesce((SELECT e.extname::pg_catalog.text FROM pg_catalog.pg_depend d \
            JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid \
            WHERE d.classid OPERATOR(pg_catalog.=) x.class AND d.objid OPERATOR(pg_catalog.=) x.used \
            AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass \
            AND d.deptype OPERATOR(pg_catalog.=) 'e'::pg_catalog.\"char\" LIMIT 1), '') END FROM (\
            SELECT a.adrelid AS rel, a.adnum AS att, p.refclassid AS class, p.refobjid AS used \
            FROM pg_catalog.pg_attrdef a JOIN pg_catalog.pg_depend p \
            ON p.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_attrdef'::pg_catalog.regclass \
            AND p.objid OPERATOR(pg_catalog.=) a.oid \
            UNION ALL SELECT a.attrelid, a.attnum, p.refclassid, p.refobjid \
            FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_depend p \
            ON p.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass \
            AND p.objid OPERATOR(pg_catalog.=) a.attrelid AND p.objsubid OPERATOR(pg_catalog.=) a.attnum \
            WHERE a.attgenerated OPERATOR(pg_catalog.<>) ''::pg_catalog.\"char\" \
            UNION ALL SELECT a.attrelid, a.attnum, p.refclassid, p.refobjid \
            FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) a.atttypid \
            AND t.typtype OPERATOR(pg_catalog.=) 'd'::pg_catalog.\"char\" AND t.typdefaultbin IS NOT NULL \
            JOIN pg_catalog.pg_depend p \
            ON p.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass \
            AND p.objid OPERATOR(pg_catalog.=) t.oid \
            UNION ALL SELECT k.conrelid, '0'::pg_catalog.int2, p.refclassid, p.refobjid \
            FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_depend p \
            ON p.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass \
            AND p.objid OPERATOR(pg_catalog.=) k.oid \
            WHERE k.conrelid OPERATOR(pg_catalog.<>) '0'::pg_catalog.oid \
            UNION ALL SELECT k.conrelid, '0'::pg_catalog.int2, \
            'pg_catalog.pg_operator'::pg_catalog.regclass, pg_catalog.unnest(k.conexclop) \
            FROM pg_catalog.pg_constraint k \
            UNION ALL SELECT i.indrelid, '0'::pg_catalog.int2, p.refclassid, p.refobjid \
            FROM pg_catalog.pg_index i JOIN pg_catalog.pg_depend p \
            ON p.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass \
            AND p.objid OPERATOR(pg_catalog.=) i.indexrelid \
            UNION ALL SELECT r.partrelid, '0'::pg_catalog.int2, p.refclassid, p.refobjid \
            FROM pg_catalog.pg_partitioned_table r JOIN pg_catalog.pg_depend p \
            ON p.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass \
            AND p.objid OPERATOR(pg_catalog.=) r.partrelid AND p.objsubid OPERATOR(pg_catalog.=) '0'::pg_catalog.int4\
            ) x WHERE x.used OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid \
            AND x.class OPERATOR(pg_catalog.<>) ALL (ARRAY['pg_catalog.pg_class','pg_catalog.pg_constraint',\
            'pg_catalog.pg_collation','pg_catalog.pg_namespace',\
            'pg_catalog.pg_extension']::pg_catalog.regclass[]::pg_catalog.oid[])",
    },
    CatalogQuery {
        name: "foreign keys",
        sql: "SELECT k.conrelid::pg_catalog.text, k.conkey::pg_catalog.text, k.confrelid::pg_catalog.text, \
            k.confkey::pg_catalog.text, k.confupdtype::pg_catalog.text, k.confdeltype::pg_catalog.text \
            FROM pg_catalog.pg_constraint k WHERE k.contype OPERATOR(pg_catalog.=) 'f'::pg_catalog.\"char\"",
    },
    CatalogQuery {
        name: "types",
        sql: "SELECT t.oid::pg_catalog.text, t.typnamespace::pg_catalog.text, t.typname::pg_catalog.text, \
            t.typtype::pg_catalog.text, t.typcategory::pg_catalog.text, t.typelem::pg_catalog.text, \
            t.typbasetype::pg_catalog.text, t.typinput::pg_catalog.oid::pg_catalog.text, \
            t.typoutput::pg_catalog.oid::pg_catalog.text FROM pg_catalog.pg_type t",
    },
    CatalogQuery {
        // What did not come with the server. Of a member of an extension also whose it is and the MD5 of its body, its
        // own schema as `@`; empty for one in C, which only a superuser can have made. An aggregate is as its support
        // functions are. Of one that is no member, the MD5 of its whole definition. LIMIT keeps the planner, which knows
        // no statistics of a fresh database, from comparing every function with every member.
        name: "functions",
        sql: "SELECT p.oid::pg_catalog.text, p.pronamespace::pg_catalog.text, p.proname::pg_catalog.text, \
            p.proargtypes::pg_catalog.text, coalesce(e.extname::pg_catalog.text, ''), \
            CASE WHEN e.oid IS NULL THEN '' \
            WHEN l.lanname OPERATOR(pg_catalog.=) ANY (ARRAY['c','internal']::pg_catalog.name[]) \
            AND p.oid OPERATOR(pg_catalog.<>) ALL (ARRAY(SELECT g.aggfnoid::pg_catalog.oid \
            FROM pg_catalog.pg_aggregate g CROSS JOIN LATERAL pg_catalog.unnest(ARRAY[g.aggtransfn, g.aggfinalfn, \
            g.aggcombinefn, g.aggserialfn, g.aggdeserialfn, g.aggmtransfn, g.aggminvtransfn, \
            g.aggmfinalfn]::pg_catalog.oid[]) AS f(oid) \
            JOIN pg_catalog.pg_proc s ON s.oid OPERATOR(pg_catalog.=) f.oid \
            JOIN pg_catalog.pg_language k ON k.oid OPERATOR(pg_catalog.=) s.prolang \
            WHERE k.lanname OPERATOR(pg_catalog.<>) ALL (ARRAY['c','internal']::pg_catalog.name[]))) THEN '' \
            ELSE pg_catalog.md5(pg_catalog.replace(\
            coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc), \
            pg_catalog.concat(pg_catalog.quote_ident(n.nspname::pg_catalog.text), '.'), '@.')) END, \
            CASE WHEN e.oid IS NULL AND p.prokind OPERATOR(pg_catalog.<>) 'a'::pg_catalog.\"char\" \
            THEN coalesce(pg_catalog.md5(pg_catalog.pg_get_functiondef(p.oid)), '') ELSE '' END \
            FROM pg_catalog.pg_proc p \
            JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) p.prolang \
            JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace \
            LEFT JOIN LATERAL (SELECT x.oid, x.extname FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension x \
            ON x.oid OPERATOR(pg_catalog.=) d.refobjid \
            WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass \
            AND d.objid OPERATOR(pg_catalog.=) p.oid AND d.objsubid OPERATOR(pg_catalog.=) '0'::pg_catalog.int4 \
            AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass \
            AND d.deptype OPERATOR(pg_catalog.=) 'e'::pg_catalog.\"char\" LIMIT 1) e ON true \
            WHERE p.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid \
            OR p.pronamespace OPERATOR(pg_catalog.<>) 'pg_catalog'::pg_catalog.regnamespace",
    },
    CatalogQuery {
        // Functions in SQL that take exactly their arguments, with what their bodies say and resolve against. Items of a
        // list stand apart by a character that no name has.
        name: "sql functions",
        sql: "SELECT p.oid::pg_catalog.text, p.proname::pg_catalog.text, p.proargtypes::pg_catalog.text, \
            p.prorettype::pg_catalog.text, p.proisstrict::pg_catalog.text, p.prosecdef::pg_catalog.text, \
            coalesce(pg_catalog.array_to_string(p.proconfig, pg_catalog.chr(1)), ''), \
            (p.prosqlbody IS NOT NULL)::pg_catalog.text, \
            coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc), \
            coalesce(pg_catalog.array_to_string(p.proargnames, pg_catalog.chr(1)), ''), \
            coalesce(pg_catalog.array_to_string(p.proargmodes, ''), ''), \
            coalesce(pg_catalog.array_to_string(p.proallargtypes, ' '), '') \
            FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) p.prolang \
            WHERE l.lanname OPERATOR(pg_catalog.=) 'sql'::pg_catalog.name \
            AND p.prokind OPERATOR(pg_catalog.=) 'f'::pg_catalog.\"char\" \
            AND p.provariadic OPERATOR(pg_catalog.=) '0'::pg_catalog.oid \
            AND p.pronargdefaults OPERATOR(pg_catalog.=) '0'::pg_catalog.int2 \
            AND p.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid",
    },
    CatalogQuery {
        // Told apart: one we have not reviewed, and one that does not exist.
        name: "built-in functions",
        sql: "SELECT p.proname::pg_catalog.text, p.proargtypes::pg_catalog.text FROM pg_catalog.pg_proc p \
            WHERE p.oid OPERATOR(pg_catalog.<) '16384'::pg_catalog.oid \
            AND p.pronamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace",
    },
    CatalogQuery {
        name: "operators",
        sql: "SELECT o.oprnamespace::pg_catalog.text, o.oprname::pg_catalog.text, o.oprleft::pg_catalog.text, \
            o.oprright::pg_catalog.text, o.oprcode::pg_catalog.oid::pg_catalog.text FROM pg_catalog.pg_operator o \
            WHERE o.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid \
            OR o.oprnamespace OPERATOR(pg_catalog.<>) 'pg_catalog'::pg_catalog.regnamespace",
    },
    CatalogQuery {
        name: "casts",
        sql: "SELECT k.castsource::pg_catalog.text, k.casttarget::pg_catalog.text, k.castfunc::pg_catalog.text, \
            k.castcontext::pg_catalog.text FROM pg_catalog.pg_cast k \
            WHERE k.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid",
    },
    CatalogQuery {
        // A default B-tree or hash class for a built-in type would run behind every ORDER BY, GROUP BY and UNION.
        name: "operator classes",
        sql: "SELECT DISTINCT k.opcintype::pg_catalog.text FROM pg_catalog.pg_opclass k \
            JOIN pg_catalog.pg_am m ON m.oid OPERATOR(pg_catalog.=) k.opcmethod \
            WHERE k.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid AND k.opcdefault \
            AND m.amname OPERATOR(pg_catalog.=) ANY (ARRAY['btree','hash']::pg_catalog.name[])",
    },
    CatalogQuery {
        // Code that runs with definitions, whatever they define.
        name: "event triggers",
        sql: "SELECT e.oid::pg_catalog.text FROM pg_catalog.pg_event_trigger e \
            WHERE e.evtenabled OPERATOR(pg_catalog.<>) 'D'::pg_catalog.\"char\"",
    },
    CatalogQuery {
        // What changes with every change of a relation, schema or function: two equal texts are of one definition. An
        // OID that two of them share only makes them change together.
        name: "versions",
        sql: "SELECT v.rel::pg_catalog.text, pg_catalog.string_agg(v.version, ',' ORDER BY v.version) FROM (\
            SELECT c.oid AS rel, pg_catalog.concat('c', c.xmin::pg_catalog.text) AS version FROM pg_catalog.pg_class c \
            WHERE c.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid \
            UNION ALL SELECT n.oid, pg_catalog.concat('n', n.xmin::pg_catalog.text) FROM pg_catalog.pg_namespace n \
            UNION ALL SELECT f.oid, pg_catalog.concat('f', f.xmin::pg_catalog.text) FROM pg_catalog.pg_proc f \
            WHERE f.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid \
            UNION ALL SELECT x.attrelid, pg_catalog.concat('a', pg_catalog.count(*), '.', \
            pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_attribute x \
            WHERE x.attrelid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid GROUP BY x.attrelid \
            UNION ALL SELECT x.ev_class, pg_catalog.concat('r', pg_catalog.count(*), '.', \
            pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_rewrite x \
            WHERE x.ev_class OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid GROUP BY x.ev_class \
            UNION ALL SELECT x.tgrelid, pg_catalog.concat('t', pg_catalog.count(*), '.', \
            pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_trigger x \
            WHERE x.tgrelid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid GROUP BY x.tgrelid \
            UNION ALL SELECT x.conrelid, pg_catalog.concat('k', pg_catalog.count(*), '.', \
            pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_constraint x \
            WHERE x.conrelid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid GROUP BY x.conrelid \
            UNION ALL SELECT x.polrelid, pg_catalog.concat('p', pg_catalog.count(*), '.', \
            pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_policy x \
            WHERE x.polrelid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid GROUP BY x.polrelid \
            UNION ALL SELECT x.adrelid, pg_catalog.concat('d', pg_catalog.count(*), '.', \
            pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_attrdef x \
            WHERE x.adrelid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid GROUP BY x.adrelid \
            UNION ALL SELECT x.inhrelid, pg_catalog.concat('i', pg_catalog.count(*), '.', \
            pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_inherits x \
            WHERE x.inhrelid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid GROUP BY x.inhrelid \
            UNION ALL SELECT x.inhparent, pg_catalog.concat('j', pg_catalog.count(*), '.', \
            pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_inherits x \
            WHERE x.inhparent OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid GROUP BY x.inhparent \
            UNION ALL SELECT x.indrelid, pg_catalog.concat('x', pg_catalog.count(*), '.', \
            pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_index x \
            WHERE x.indrelid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid GROUP BY x.indrelid \
            ) v GROUP BY v.rel",
    },
];

/// One row, one text value: equal as long as no user-level catalog row that names resolve against was added,
/// changed or removed. A new row's xmin is younger than every other, so (count, sum of xmin) cannot stay the same.
pub const FINGERPRINT_QUERY: &str = "SELECT pg_catalog.concat_ws(';', \
    (SELECT pg_catalog.concat_ws(',', pg_catalog.count(*), pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) \
    FROM pg_catalog.pg_class x WHERE x.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid), \
    (SELECT pg_catalog.concat_ws(',', pg_catalog.count(*), pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) \
    FROM pg_catalog.pg_attribute x WHERE x.attrelid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid), \
    (SELECT pg_catalog.concat_ws(',', pg_catalog.count(*), pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) \
    FROM pg_catalog.pg_proc x WHERE x.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid), \
    (SELECT pg_catalog.concat_ws(',', pg_catalog.count(*), pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) \
    FROM pg_catalog.pg_operator x WHERE x.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid), \
    (SELECT pg_catalog.concat_ws(',', pg_catalog.count(*), pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) \
    FROM pg_catalog.pg_cast x WHERE x.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid), \
    (SELECT pg_catalog.concat_ws(',', pg_catalog.count(*), pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) \
    FROM pg_catalog.pg_type x WHERE x.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid), \
    (SELECT pg_catalog.concat_ws(',', pg_catalog.count(*), pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) \
    FROM pg_catalog.pg_rewrite x WHERE x.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid), \
    (SELECT pg_catalog.concat_ws(',', pg_catalog.count(*), pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) \
    FROM pg_catalog.pg_trigger x WHERE x.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid), \
    (SELECT pg_catalog.concat_ws(',', pg_catalog.count(*), pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) \
    FROM pg_catalog.pg_policy x), \
    (SELECT pg_catalog.concat_ws(',', pg_catalog.count(*), pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) \
    FROM pg_catalog.pg_inherits x), \
    (SELECT pg_catalog.concat_ws(',', pg_catalog.count(*), pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) \
    FROM pg_catalog.pg_namespace x), \
    (SELECT pg_catalog.concat_ws(',', pg_catalog.count(*), pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) \
    FROM pg_catalog.pg_constraint x WHERE x.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid), \
    (SELECT pg_catalog.concat_ws(',', pg_catalog.count(*), pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) \
    FROM pg_catalog.pg_opclass x WHERE x.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid), \
    (SELECT pg_catalog.concat_ws(',', pg_catalog.count(*), pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) \
    FROM pg_catalog.pg_attrdef x), \
    (SELECT pg_catalog.concat_ws(',', pg_catalog.count(*), pg_catalog.sum(x.xmin::pg_catalog.text::pg_catalog.int8)) \
    FROM pg_catalog.pg_event_trigger x))";

/// One row, read on the session's own connection: [`super::SessionState::from_row`] takes it.
pub const SESSION_STATE_QUERY: &str = "SELECT \
    (SELECT d.oid::pg_catalog.text FROM pg_catalog.pg_database d \
    WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()), \
    (SELECT pg_catalog.string_agg(n.oid::pg_catalog.text, ',' ORDER BY s.place) \
    FROM pg_catalog.unnest(pg_catalog.current_schemas(true)) WITH ORDINALITY AS s(name, place) \
    JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) s.name), \
    (SELECT pg_catalog.string_agg(n.oid::pg_catalog.text, ',' ORDER BY n.oid) FROM pg_catalog.pg_namespace n \
    WHERE pg_catalog.has_schema_privilege(n.oid, 'USAGE')), \
    CURRENT_USER::pg_catalog.text, SESSION_USER::pg_catalog.text, \
    pg_catalog.current_setting('client_encoding'), \
    pg_catalog.current_setting('standard_conforming_strings'), \
    pg_catalog.current_setting('transaction_isolation'), \
    pg_catalog.pg_has_role('pg_read_all_settings', 'USAGE')::pg_catalog.text, \
    pg_catalog.pg_is_in_recovery()::pg_catalog.text, \
    pg_catalog.current_setting('statement_timeout'), \
    pg_catalog.current_setting('transaction_timeout', true), \
    pg_catalog.current_setting('idle_in_transaction_session_timeout')";
