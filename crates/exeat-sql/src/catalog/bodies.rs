//! Functions in SQL whose bodies can be read: what they take and give back, and what names in the body resolve
//! against. One that bends what a call means (defaults, VARIADIC, settings of its own beside the search path) or whose
//! names depend on a role other than the session's is not among them: a call of it stays opaque.

use super::types::TypeClass;
use super::{CatalogSnapshot, Column, Oid, PG_CATALOG};

/// A function in SQL, as far as its catalog row tells what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SqlFunction {
    pub(crate) oid: Oid,
    pub(crate) name: String,
    pub(crate) arguments: Vec<Oid>,
    /// Of the arguments in their order; empty where one has none.
    pub(crate) argument_names: Vec<String>,
    /// OUT and TABLE columns.
    pub(crate) columns: Vec<(String, Oid)>,
    pub(crate) result: Oid,
    pub(crate) strict: bool,
    pub(crate) body: String,
    pub(crate) names: Names,
    /// SECURITY DEFINER: the server shows its body what it shows the owner.
    pub(crate) as_owner: bool,
}

/// What names in a body resolve against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Names {
    /// The server resolved them when the function was made, and prints them so that no path bends them.
    Bound,
    /// The path of whoever calls.
    Caller,
    /// The path of whoever calls, as it is for the owner: with other schemas for `$user`, and without those that the owner
    /// may not use.
    CallerAsOwner,
    /// A path of the function's own.
    Own(Vec<Place>),
}

/// One place of a search path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Schema(Oid),
    /// The session's own temporary objects.
    Temporary,
}

/// A row of the catalog as text.
pub(super) struct Source<'r> {
    pub(super) oid: Oid,
    pub(super) name: &'r str,
    pub(super) arguments: Vec<Oid>,
    pub(super) result: Oid,
    pub(super) strict: bool,
    pub(super) security_definer: bool,
    /// Its settings, one after the other; empty for none.
    pub(super) settings: &'r str,
    pub(super) bound: bool,
    pub(super) body: &'r str,
    /// Names, modes and types of all its parameters; empty where the server keeps none.
    pub(super) parameters: (&'r str, &'r str, Vec<Oid>),
}

/// Stands between the items of a list in one text. A name that holds it makes the counts differ.
const SEPARATOR: char = '\u{1}';

/// The type of functions that give back nothing.
pub(crate) const VOID: Oid = Oid(2278);

/// Rows whose columns only the call says.
const RECORD: Oid = Oid(2249);

impl CatalogSnapshot {
    /// What is to be known of this function, if a call of it can be followed into its body.
    pub(super) fn sql_function(&self, source: Source<'_>) -> Option<SqlFunction> {
        let names = match (source.bound, source.settings) {
            (true, "") => Names::Bound,
            (false, "") if source.security_definer => Names::CallerAsOwner,
            (false, "") => Names::Caller,
            (true, settings) => {
                self.own_path(settings)?;
                Names::Bound
            }
            (false, settings) => Names::Own(self.own_path(settings)?),
        };
        let (argument_names, columns) = signature(&source)?;
        Some(SqlFunction {
            oid: source.oid,
            name: source.name.to_owned(),
            arguments: source.arguments,
            argument_names,
            columns,
            result: source.result,
            strict: source.strict,
            body: source.body.to_owned(),
            names,
            as_owner: source.security_definer,
        })
    }

    /// The path that a function sets. The server leaves out schemas which the role that runs the body may not use: with
    /// one schema beside pg_catalog, in front of which nothing stands, names then resolve to nothing, and not elsewhere.
    fn own_path(&self, settings: &str) -> Option<Vec<Place>> {
        let listed = settings.strip_prefix("search_path=")?;
        if !listed.is_ascii() || settings.contains(SEPARATOR) {
            return None;
        }
        let items: Vec<String> = listed.split(',').map(|item| item.trim().to_ascii_lowercase()).collect();
        let mut places = Vec::new();
        let mut user_schemas = 0;
        for item in &items {
            match item.as_str() {
                // No schema at all.
                "\"\"" | "" => {}
                "pg_temp" => places.push(Place::Temporary),
                "pg_catalog" if user_schemas == 0 => places.push(Place::Schema(PG_CATALOG)),
                quoted if quoted.contains('"') || quoted == "pg_catalog" => return None,
                name => {
                    user_schemas += 1;
                    places.extend(self.schema_by_name(name).map(Place::Schema));
                }
            }
        }
        if !places.contains(&Place::Schema(PG_CATALOG)) {
            places.insert(0, Place::Schema(PG_CATALOG));
        }
        if !places.contains(&Place::Temporary) {
            places.insert(0, Place::Temporary);
        }
        (user_schemas <= 1).then_some(places)
    }

    /// Every function that a call of `name` with so many arguments may mean. Empty unless the bodies of all of them can
    /// be read, and nothing but users' functions goes by the name.
    pub(crate) fn sql_candidates(&self, schemas: &[Oid], name: &str, arguments: usize) -> Vec<&SqlFunction> {
        let built_in = schemas.contains(&PG_CATALOG) && self.built_in_functions.contains_key(name);
        if built_in || schemas.iter().any(|schema| self.type_in(*schema, name).is_some()) {
            return Vec::new();
        }
        let named = self.functions.get(name).into_iter().flatten();
        let mut found = Vec::new();
        for function in named.filter(|function| schemas.contains(&function.schema)) {
            if self.trusts_function(function.oid) {
                return Vec::new();
            }
            let known = self.sql_functions.get(&function.oid).filter(|_| function.reviewed.is_none());
            match known {
                None => return Vec::new(),
                Some(known) if known.arguments.len() != arguments => {}
                Some(known) if !known.arguments.iter().all(|oid| self.is_plain(*oid)) => return Vec::new(),
                Some(known) => found.push(known),
            }
        }
        found
    }

    /// A value, or a list of values, that runs no code of its own to be made or read.
    fn is_plain(&self, oid: Oid) -> bool {
        (self.is_scalar(oid) || self.is_scalar_array(oid)) && !self.type_runs_code(oid) && !self.cast_runs_code(oid)
    }

    /// The columns of what a function gives back; `None` for a single value. The error says that they are not known.
    pub(crate) fn result_columns(&self, function: &SqlFunction) -> Result<Option<Vec<ResultColumn>>, NotKnown> {
        let column = |(name, oid): &(String, Oid)| ResultColumn { name: name.clone(), of: *oid, modifier: -1 };
        match function.columns.as_slice() {
            [] => {}
            [_] if function.result != RECORD && self.is_plain(function.result) => return Ok(None),
            columns if columns.iter().any(|(name, _)| name.is_empty()) => return Err(NotKnown),
            columns => return Ok(Some(columns.iter().map(column).collect())),
        }
        match self.types.get(&function.result).map(|known| known.class) {
            Some(TypeClass::Composite) => {
                let relation = self.relation_of_type(function.result).ok_or(NotKnown)?;
                let stored = |column: &Column| ResultColumn {
                    name: column.name.clone(),
                    of: column.type_oid,
                    modifier: self
                        .type_modifier(super::ColumnId { relation: relation.oid, attribute: column.attribute }),
                };
                Ok(Some(relation.columns.iter().map(stored).collect()))
            }
            Some(TypeClass::Pseudo) if function.result == VOID => Ok(None),
            Some(_) if self.is_plain(function.result) => Ok(None),
            Some(_) | None => Err(NotKnown),
        }
    }

    /// The type of a field of a composite type.
    pub(crate) fn field(&self, oid: Oid, name: &str) -> Option<Oid> {
        if self.types.get(&oid).map(|known| known.class) != Some(TypeClass::Composite) {
            return None;
        }
        let relation = self.relation_of_type(oid)?;
        relation.columns.iter().find(|column| column.name == name).map(|column| column.type_oid)
    }

    /// The types of the columns of a composite type.
    pub(crate) fn fields(&self, oid: Oid) -> Option<impl Iterator<Item = Oid>> {
        Some(self.relation_of_type(oid)?.columns.iter().map(|column| column.type_oid))
    }

    /// The relation whose rows are of this type: it has the type's name and schema.
    fn relation_of_type(&self, oid: Oid) -> Option<&super::Relation> {
        let name = self.type_name(oid)?;
        let mut schemas = self.type_oids.iter().filter(|(_, names)| names.get(name) == Some(&oid));
        self.relation_in(*schemas.next()?.0, name)
    }
}

/// One column of what a function gives back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResultColumn {
    pub(crate) name: String,
    pub(crate) of: Oid,
    /// atttypmod of the column whose type it is.
    pub(crate) modifier: i32,
}

/// What a function gives back cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotKnown;

/// Names of the arguments, and the columns.
type Signature = (Vec<String>, Vec<(String, Oid)>);

fn signature(source: &Source<'_>) -> Option<Signature> {
    let (names, modes, types) = &source.parameters;
    let count = if modes.is_empty() { source.arguments.len() } else { modes.len() };
    let names: Vec<String> = match *names {
        "" => vec![String::new(); count],
        names => names.split(SEPARATOR).map(str::to_owned).collect(),
    };
    if names.len() != count {
        return None;
    }
    if modes.is_empty() {
        return Some((names, Vec::new()));
    }
    if types.len() != count {
        return None;
    }
    let (mut arguments, mut columns) = (Vec::new(), Vec::new());
    for ((mode, name), oid) in modes.chars().zip(names).zip(types) {
        match mode {
            'i' => arguments.push(name),
            'o' | 't' => columns.push((name, *oid)),
            'b' => {
                columns.push((name.clone(), *oid));
                arguments.push(name);
            }
            _ => return None,
        }
    }
    (arguments.len() == source.arguments.len()).then_some((arguments, columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(settings: &'static str) -> Source<'static> {
        Source {
            oid: Oid(20_000),
            name: "f",
            arguments: vec![Oid(23)],
            result: Oid(25),
            strict: false,
            security_definer: false,
            settings,
            bound: false,
            body: "SELECT 'x'",
            parameters: ("", "", Vec::new()),
        }
    }

    fn names(source: Source<'static>) -> Option<Names> {
        let mut snapshot = CatalogSnapshot::default();
        for (oid, name) in [(11, "pg_catalog"), (2200, "public"), (2201, "hr")] {
            snapshot.schema_oids.insert(name.to_owned(), Oid(oid));
        }
        snapshot.sql_function(source).map(|function| function.names)
    }

    #[test]
    fn a_body_resolves_where_the_function_says_and_else_where_its_caller_does() {
        assert_eq!(names(source("")), Some(Names::Caller));
        assert_eq!(names(Source { bound: true, ..source("") }), Some(Names::Bound));
        let [catalog, public] = [Place::Schema(PG_CATALOG), Place::Schema(Oid(2200))];
        for (settings, places) in [
            ("search_path=public", vec![Place::Temporary, catalog, public]),
            ("search_path=public, pg_temp", vec![catalog, public, Place::Temporary]),
            ("search_path=pg_catalog, Public", vec![Place::Temporary, catalog, public]),
            ("search_path=\"\"", vec![Place::Temporary, catalog]),
            ("search_path=gone", vec![Place::Temporary, catalog]),
        ] {
            assert_eq!(names(source(settings)), Some(Names::Own(places)), "{settings}");
        }
    }

    #[test]
    fn a_path_that_another_role_or_another_schema_could_bend_is_not_read() {
        for settings in [
            "search_path=\"$user\", public",
            "search_path=public, hr",
            "search_path=public, pg_catalog",
            "search_path=\"Odd\"",
            "work_mem=4MB",
            "search_path=public\u{1}work_mem=4MB",
        ] {
            assert_eq!(names(source(settings)), None, "{settings}");
        }
        assert_eq!(names(Source { security_definer: true, ..source("") }), Some(Names::CallerAsOwner));
        assert!(names(Source { security_definer: true, ..source("search_path=public") }).is_some());
    }

    #[test]
    fn parameters_are_told_from_columns_by_their_mode() {
        let with = |names, modes, types: &[u32]| Source {
            parameters: (names, modes, types.iter().copied().map(Oid).collect()),
            ..source("")
        };
        assert_eq!(signature(&source("")), Some((vec![String::new()], Vec::new())));
        assert_eq!(signature(&with("id", "", &[])), Some((vec!["id".to_owned()], Vec::new())));
        let table = signature(&with("id\u{1}a\u{1}b", "itt", &[23, 25, 25]));
        let columns = vec![("a".to_owned(), Oid(25)), ("b".to_owned(), Oid(25))];
        assert_eq!(table, Some((vec!["id".to_owned()], columns)));
        let both = signature(&with("id", "b", &[23]));
        assert_eq!(both, Some((vec!["id".to_owned()], vec![("id".to_owned(), Oid(23))])));
        for twisted in
            [with("a\u{1}b", "", &[]), with("a", "v", &[23]), with("a\u{1}b", "it", &[23]), with("", "o", &[25])]
        {
            assert_eq!(signature(&twisted), None);
        }
    }
}
