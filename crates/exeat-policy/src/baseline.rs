//! What a team has accepted of a database: which columns each label was found on, and which relations and columns
//! were there. Labels find columns by name; what is kept here lets a label stay with a column that gets another
//! name, and lets what nobody has looked at be told from what was. Data only: who judges, and against which catalog,
//! is said elsewhere.

/// A column that a label is bound to. The identity is the relation's OID and the attribute number; the names are
/// those it had when the label matched them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Binding {
    pub label: String,
    pub relation: u32,
    pub attribute: i16,
    pub schema_name: String,
    pub relation_name: String,
    pub column_name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AcceptedColumn {
    pub attribute: i16,
    pub name: String,
    pub type_oid: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AcceptedRelation {
    pub oid: u32,
    pub schema_name: String,
    pub name: String,
    /// In attribute order.
    pub columns: Vec<AcceptedColumn>,
}

/// Bindings and baseline of one database, in order of label and OID: equal knowledge is equal data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    pub bindings: Vec<Binding>,
    pub baseline: Vec<AcceptedRelation>,
}
