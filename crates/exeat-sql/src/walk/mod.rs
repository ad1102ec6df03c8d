//! The walker: one parsed statement against one catalog snapshot. Resolves every name the way the server's own
//! parse analysis does and notes each column use. Two rules hold everywhere: nodes are taken apart field by field
//! (a new field does not compile, an unknown node stops the walk), and whatever the server could resolve in a way
//! we do not model stops the walk too. It never guesses, and never uses pg_query's own table heuristics.

pub(crate) mod array;
pub(crate) mod body;
mod bound;
pub(crate) mod call;
pub(crate) mod cast;
pub(crate) mod column;
pub(crate) mod combine;
pub(crate) mod content;
pub(crate) mod copy;
pub(crate) mod copy_layout;
pub(crate) mod cte;
pub(crate) mod ddl;
pub(crate) mod define;
pub(crate) mod dml;
pub(crate) mod expr;
pub(crate) mod flows;
pub(crate) mod from;
pub(crate) mod given;
pub(crate) mod join;
pub(crate) mod keys;
pub(crate) mod lazy;
pub(crate) mod lookup;
pub(crate) mod merge;
pub(crate) mod naming;
pub(crate) mod scope;
pub(crate) mod select;
pub(crate) mod settings;
pub(crate) mod sight;
pub(crate) mod sqljson;
pub(crate) mod table_function;
pub(crate) mod through;
pub(crate) mod total;
pub(crate) mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use pg_query::NodeEnum;
use pg_query::protobuf::Node;

use crate::catalog::{CatalogSnapshot, Column, ColumnId, Oid, PG_CATALOG, Relation, RelationKind};
use crate::hidden::{Hidden, MARK};
use crate::{Definition, Flow, GivenRow, Lookup, Notification, OpaqueReason, SetList, ShownSettings, Use, Writing};

use scope::{Columns, Level, Value};

/// Nodes below nodes. PostgreSQL's own default stack stops expressions at a few thousand levels; the parser
/// thread's stack holds this many of our frames several times over.
const DEPTH_MAX: usize = 6_000;

/// Steps of one message: nodes visited, names compared, columns expanded. A megabyte that is not built to explode stays
/// below it; one that is would otherwise hold a parser thread for minutes.
pub(crate) const STEPS_MAX: usize = 5_000_000;

/// The server's own limit on target lists (MaxTupleAttributeNumber).
pub(crate) const COLUMNS_MAX: usize = 1_664;

/// Why the walk ended early.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stop {
    Opaque {
        reason: OpaqueReason,
        at: i32,
    },
    /// A construct whose description holds a name, which only the one who sent it may read.
    Named {
        construct: String,
        at: i32,
    },
    Unresolved {
        name: String,
        at: i32,
    },
    TooDeep,
}

pub(crate) type Walk<T> = Result<T, Stop>;

/// No position known.
pub(crate) const NOWHERE: i32 = -1;

pub(crate) fn construct<T>(what: &str, at: i32) -> Walk<T> {
    Err(Stop::Opaque { reason: OpaqueReason::Construct { construct: what.to_owned() }, at })
}

pub(crate) fn named_construct<T>(construct: String, at: i32) -> Walk<T> {
    Err(Stop::Named { construct, at })
}

pub(crate) fn unresolved<T>(name: &str, at: i32) -> Walk<T> {
    Err(Stop::Unresolved { name: name.to_owned(), at })
}

/// What the walk of one statement found; positions are byte offsets in the message.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) reads: BTreeSet<Oid>,
    /// Relations that bodies of called functions name.
    pub(crate) called: BTreeSet<Oid>,
    /// Functions whose bodies were read.
    pub(crate) functions: BTreeSet<Oid>,
    pub(crate) writes: BTreeSet<Oid>,
    pub(crate) reads_aside: bool,
    pub(crate) writes_aside: bool,
    pub(crate) writing: BTreeSet<Writing>,
    pub(crate) sets: BTreeSet<SetList>,
    pub(crate) unbounded: BTreeMap<Oid, i32>,
    pub(crate) stars: BTreeMap<Oid, i32>,
    pub(crate) rewritten: bool,
    pub(crate) positioned: Option<String>,
    pub(crate) reaches: BTreeSet<Oid>,
    pub(crate) changes: BTreeSet<Oid>,
    /// Views named so far, in the order met; their definitions are analysed after the statement.
    pub(crate) views: Vec<Oid>,
    pub(crate) uses: BTreeMap<(ColumnId, Use), i32>,
    pub(crate) lookups: Vec<Lookup>,
    pub(crate) rows: Vec<GivenRow>,
    /// How often each parameter stands anywhere else than in a lookup.
    pub(crate) parameters: BTreeMap<usize, usize>,
    pub(crate) user_code: bool,
    pub(crate) locks_rows: bool,
    pub(crate) settings: Vec<(String, Option<String>)>,
    pub(crate) notifies: Vec<Notification>,
    /// DEFAULT stands for a value to write.
    pub(crate) says_default: bool,
    pub(crate) relation_sizes: bool,
    /// A column is read from within another query level, from LATERAL or in a function: its values may be a cache's keys.
    pub(crate) correlated: bool,
    pub(crate) sized: BTreeSet<Oid>,
    /// By the hidden one.
    pub(crate) hides: BTreeMap<Oid, Oid>,
    pub(crate) large_objects: bool,
    pub(crate) server_files: bool,
    pub(crate) settings_read: settings::SettingsRead,
    /// What views show.
    pub(crate) shown: ShownSettings,
    pub(crate) defines: Option<Definition>,
    /// A call with an effect on the session or on time (pg_sleep, advisory locks): alone or over metadata only.
    pub(crate) session_effect: Option<(String, i32)>,
}

pub(crate) struct Walker<'a> {
    pub(crate) snapshot: &'a CatalogSnapshot,
    pub(crate) path: Rc<[Oid]>,
    /// What the statement's names do not find. What definitions and bodies name was there before.
    pub(crate) hidden: Option<&'a Hidden>,
    /// Reads a definition: its names are bound, and nothing is known of the session that will run it.
    pub(crate) bound: bool,
    /// The path may be any: in it stand all schemas there are, of functions every one that may be meant counts, and of
    /// relations and types only names that go by one of them alone.
    pub(crate) any_path: bool,
    /// The definition is a row-security policy's, whose values reach nobody.
    pub(crate) of_policy: bool,
    /// In the body of a function, what it was called with.
    pub(crate) parameters: Option<body::Parameters<'a>>,
    pub(crate) calls: body::Calls,
    pub(crate) facts: Facts,
    /// What the rows of the query being read hold.
    pub(crate) content: content::Content,
    pub(crate) levels: Vec<Level>,
    /// Items outside any query level: no lookup reads them.
    outside: Vec<scope::Item>,
    pub(crate) link_names: naming::SubLinkNames,
    /// What the expression being read is for: the use made of columns that go through something that may fail.
    pub(crate) place: Use,
    /// The next query level is that of the statement itself, a SELECT.
    pub(crate) outermost: bool,
    /// The view of the server's settings.
    pub(crate) settings_view: Option<Oid>,
    columns: HashMap<Oid, Rc<Columns>>,
    /// Parts of expressions read so far that a client may notice, should they be evaluated.
    pub(crate) noticeable: usize,
    /// What was found out about operators so far: a statement has few, and most of them often.
    pub(crate) operators: Vec<expr::OperatorAsked>,
    depth: usize,
    /// Taken so far, by earlier statements of the message too.
    pub(crate) steps: usize,
}

impl<'a> Walker<'a> {
    /// Refuses right away where the catalog itself makes every statement opaque.
    pub(crate) fn new(snapshot: &'a CatalogSnapshot, path: &[Oid]) -> Walk<Self> {
        if !path.contains(&PG_CATALOG) || path.iter().any(|schema| snapshot.schema_name(*schema).is_none()) {
            return construct("a search path with a schema the catalog snapshot does not have", NOWHERE);
        }
        if snapshot.has_hidden_casts() {
            return construct("a database with a user-defined implicit cast between built-in types", NOWHERE);
        }
        Ok(Self {
            snapshot,
            path: Rc::from(path),
            hidden: None,
            bound: false,
            any_path: false,
            of_policy: false,
            parameters: None,
            calls: body::Calls::default(),
            facts: Facts::default(),
            content: content::Content::default(),
            levels: Vec::new(),
            outside: Vec::new(),
            link_names: HashMap::new(),
            place: Use::Expression,
            outermost: false,
            settings_view: settings::view_of(snapshot),
            columns: HashMap::new(),
            noticeable: 0,
            operators: Vec::new(),
            depth: 0,
            steps: 0,
        })
    }

    /// Every recursion goes through here. The depth is not restored on failure: failure ends the walk.
    pub(crate) fn deeper<T>(&mut self, walk: impl FnOnce(&mut Self) -> Walk<T>) -> Walk<T> {
        if self.depth >= DEPTH_MAX {
            return Err(Stop::TooDeep);
        }
        self.depth += 1;
        self.spend(1)?;
        let outcome = walk(self)?;
        self.depth -= 1;
        Ok(outcome)
    }

    pub(crate) fn spend(&mut self, steps: usize) -> Walk<()> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > STEPS_MAX { construct("a statement with this many names to resolve", NOWHERE) } else { Ok(()) }
    }

    /// Notes the use of a column's value. Anything but passing it through unchanged runs code of its type.
    pub(crate) fn record(&mut self, column: ColumnId, how: Use, at: i32) -> Walk<()> {
        // What comes out of a called function stands on a relation that only its body names.
        if !self.facts.called.contains(&column.relation) {
            self.facts.reads.insert(column.relation);
        }
        if self.tells_a_setting(column) {
            self.facts.settings_read.used();
        }
        let first = self.facts.uses.entry((column, how)).or_insert(at);
        if *first < 0 || (0..*first).contains(&at) {
            *first = at;
        }
        if matches!(how, Use::Projected | Use::Derived) {
            return Ok(());
        }
        match self.snapshot.column(column) {
            Some(known) if self.snapshot.type_runs_code(known.type_oid) => {
                let name = self.snapshot.type_name(known.type_oid).unwrap_or("of a column").to_owned();
                Err(Stop::Opaque { reason: OpaqueReason::Type { name }, at })
            }
            Some(_) => Ok(()),
            None if column.attribute < 0 => Ok(()),
            None => construct("a column the catalog snapshot does not have", at),
        }
    }

    /// Notes the use of whatever a value is made of. `at` is for columns without a place of their own.
    pub(crate) fn consume(&mut self, value: &Value, how: Use, at: i32) -> Walk<()> {
        let streams = value.flows.list();
        self.spend(streams.len())?;
        streams.iter().try_for_each(|stream| {
            let how = if stream.how == Flow::Presence { Use::Presence } else { how };
            self.record(stream.column, how, if stream.at < 0 { at } else { stream.at })
        })
    }

    /// A relation stands in the statement as something to read from.
    pub(crate) fn touch_read(&mut self, relation: &Relation, at: i32) -> Walk<()> {
        self.facts.reads.insert(relation.oid);
        if relation.schema == PG_CATALOG {
            self.facts.server_files |= settings::reads_files(&relation.name);
        }
        if Some(relation.oid) == self.settings_view {
            self.facts.settings_read.again();
        }
        self.touch(relation, at)
    }

    /// What holds for reading and writing alike: row security, relatives, views.
    pub(crate) fn touch(&mut self, relation: &Relation, at: i32) -> Walk<()> {
        if relation.is_metadata() {
            // The one system catalog that holds nothing but users' data.
            return match (relation.schema, relation.name.as_str()) {
                (PG_CATALOG, "pg_largeobject") => relation_property(relation, "holds the bytes of large objects", at),
                _ => Ok(()),
            };
        }
        let facts = self.snapshot.facts(relation.oid);
        // The server adds the conditions of its policies, as if the relation were a view.
        if facts.row_security && facts.policies {
            self.facts.views.push(relation.oid);
        }
        match relation.kind {
            RelationKind::ForeignTable => return relation_property(relation, "is a foreign table", at),
            RelationKind::CompositeType => return unresolved(&relation.name, at),
            RelationKind::View | RelationKind::MaterializedView => self.facts.views.push(relation.oid),
            RelationKind::Table | RelationKind::PartitionedTable | RelationKind::Sequence => {}
        }
        for relative in self.snapshot.family(relation.oid) {
            self.spend(1)?;
            let foreign = self.snapshot.relation(relative).filter(|known| known.kind == RelationKind::ForeignTable);
            if foreign.is_some() {
                return relation_property(relation, "has a foreign table as partition or child", at);
            }
            self.facts.reaches.insert(relative);
        }
        Ok(())
    }

    /// Columns of a stored relation, under their own names.
    pub(crate) fn relation_columns(&mut self, relation: &Relation) -> Rc<Columns> {
        let build = || {
            let bare = |column: &Column| {
                let id = ColumnId { relation: relation.oid, attribute: column.attribute };
                Value::column(id, Some(column.type_oid), NOWHERE)
            };
            let hidden = self.hidden;
            let name = |column: &Column| match hidden {
                Some(hidden) if hidden.column(ColumnId { relation: relation.oid, attribute: column.attribute }) => {
                    Rc::from(format!("{MARK}{}", column.name))
                }
                Some(_) | None => Rc::from(&*column.name),
            };
            let columns = relation.columns.iter().map(|column| (name(column), bare(column)));
            Rc::new(Columns::new(columns.collect()))
        };
        self.columns.entry(relation.oid).or_insert_with(build).clone()
    }
}

pub(crate) fn relation_property<T>(relation: &Relation, property: &str, at: i32) -> Walk<T> {
    let name = format!("{}.{}", relation.schema_name, relation.name);
    Err(Stop::Opaque { reason: OpaqueReason::Relation { relation: name, property: property.to_owned() }, at })
}

/// The node inside its envelope; an empty envelope is a node newer than our grammar's bindings, or a null.
pub(crate) fn inner(node: &Node) -> Walk<&NodeEnum> {
    match &node.node {
        Some(inner) => Ok(inner),
        None => construct("an empty syntax node", NOWHERE),
    }
}

pub(crate) fn string(node: &Node) -> Option<&str> {
    match &node.node {
        Some(NodeEnum::String(text)) => Some(&text.sval),
        _ => None,
    }
}

/// A dotted name as its parts; anything but plain strings is not a name.
pub(crate) fn strings(nodes: &[Node]) -> Option<Vec<&str>> {
    nodes.iter().map(string).collect()
}
