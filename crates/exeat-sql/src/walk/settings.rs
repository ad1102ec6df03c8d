//! Settings that a statement shows by the view pg_settings. The server hides some of them, and the files they were read
//! from, from ordinary roles; behind a login that is an administrator's they are hidden by nobody but us. What is named
//! by literals in a condition that every row must meet is known by name; every other reading may show them all.

use std::collections::BTreeSet;

use pg_query::NodeEnum;
use pg_query::protobuf::{AArrayExpr, AConst, AExpr, AExprKind, BoolExpr, BoolExprType, List, Node, a_const};

use super::column::Resolved;
use super::{Facts, Walk, Walker, inner, strings};
use crate::catalog::{CatalogSnapshot, ColumnId, Oid, PG_CATALOG};
use crate::{Origin, ShownSettings};

const VIEW: &str = "pg_settings";
const NAME: &str = "name";
/// What the settings are set to, which the server hides row by row.
const VALUES: [&str; 3] = ["setting", "boot_val", "reset_val"];
/// Where they were set, which it hides in every row.
const PLACES: [&str; 2] = ["sourcefile", "sourceline"];
/// Views of the catalog that read the server's files and folders when they are asked.
const FILE_VIEWS: [&str; 4] = ["pg_hba_file_rules", "pg_ident_file_mappings", "pg_file_settings", "pg_config"];

/// How a statement reads the view, so far.
#[derive(Debug, Default)]
pub(crate) struct SettingsRead {
    /// Times it is named.
    times: usize,
    /// Those of them at a query level that knows the names of the rows it takes.
    bounded: usize,
    /// Uses of columns that say what a setting is set to, or where.
    uses: usize,
    named: BTreeSet<String>,
}

pub(crate) fn view_of(snapshot: &CatalogSnapshot) -> Option<Oid> {
    snapshot.relation_in(PG_CATALOG, VIEW).map(|view| view.oid)
}

pub(crate) fn reads_files(relation: &str) -> bool {
    FILE_VIEWS.contains(&relation)
}

impl SettingsRead {
    pub(crate) fn again(&mut self) {
        self.times += 1;
    }

    pub(crate) fn used(&mut self) {
        self.uses += 1;
    }
}

/// What the whole statement shows, by the columns it uses.
pub(crate) fn shown(facts: &Facts, snapshot: &CatalogSnapshot) -> ShownSettings {
    let read = &facts.settings_read;
    let mut shown = facts.shown.clone();
    if read.times == 0 {
        return shown;
    }
    let view = view_of(snapshot);
    let uses = |wanted: &[&str]| {
        let mut columns = facts.uses.keys().map(|(column, _)| *column).filter(|column| Some(column.relation) == view);
        columns.any(|column| says(snapshot, column, &[wanted]))
    };
    shown.others |= uses(&PLACES) || (uses(&VALUES) && read.bounded < read.times);
    if uses(&VALUES) {
        shown.named.extend(read.named.iter().cloned());
    }
    shown
}

/// A column that the snapshot has no name for may be any.
fn says(snapshot: &CatalogSnapshot, column: ColumnId, wanted: &[&[&str]]) -> bool {
    snapshot.column_name(column).is_none_or(|name| wanted.iter().any(|names| names.contains(&name)))
}

/// What a view's definition shows, whichever of its columns a statement uses.
pub(crate) fn shown_by_view(facts: &Facts) -> ShownSettings {
    let read = &facts.settings_read;
    ShownSettings { named: read.named.clone(), others: read.bounded < read.times }
}

impl Walker<'_> {
    /// Whether the column says what a setting is set to, or where.
    pub(crate) fn tells_a_setting(&self, column: ColumnId) -> bool {
        Some(column.relation) == self.settings_view && says(self.snapshot, column, &[&VALUES[..], &PLACES[..]])
    }

    pub(crate) fn settings_uses(&self) -> usize {
        self.facts.settings_read.uses
    }

    /// After FROM and WHERE of one level. `before`: the uses when the level began: a value that is computed with before
    /// the rows are chosen may be told by an error.
    pub(crate) fn settings_bounded(&mut self, condition: Option<&Node>, used: bool) -> Walk<()> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        let [alias] = level.settings.as_slice() else { return Ok(()) };
        let (alias, alone) = (alias.clone(), level.items.len() == 1);
        if used {
            return Ok(());
        }
        if let Some(names) = condition.map_or(Ok(None), |condition| self.names_asked(condition, &alias, alone))? {
            self.facts.settings_read.bounded += 1;
            self.facts.settings_read.named.extend(names);
        }
        Ok(())
    }

    /// The names that every row of the view meeting this has one of.
    fn names_asked(&mut self, node: &Node, alias: &str, alone: bool) -> Walk<Option<Vec<String>>> {
        self.deeper(|walker| match inner(node)? {
            NodeEnum::BoolExpr(expr) if BoolExprType::try_from(expr.boolop) == Ok(BoolExprType::AndExpr) => {
                let BoolExpr { xpr: _, boolop: _, args, location: _ } = expr.as_ref();
                for part in args {
                    if let Some(names) = walker.names_asked(part, alias, alone)? {
                        return Ok(Some(names));
                    }
                }
                Ok(None)
            }
            NodeEnum::AExpr(expr) => match compared(expr) {
                Some((column, values)) if walker.is_name(column, alias, alone)? => Ok(values),
                Some(_) | None => Ok(None),
            },
            _ => Ok(None),
        })
    }

    /// `name` where there is no other table, or `alias.name`.
    fn is_name(&mut self, node: &Node, alias: &str, alone: bool) -> Walk<bool> {
        let NodeEnum::ColumnRef(reference) = inner(node)? else { return Ok(false) };
        let of_the_view = match strings(&reference.fields).as_deref() {
            Some([_]) => alone,
            Some([table, _]) => *table == alias,
            Some(_) | None => false,
        };
        if !of_the_view {
            return Ok(false);
        }
        let Resolved::Column(value) = self.resolve(reference)? else { return Ok(false) };
        let Origin::Column(column) = value.origin else { return Ok(false) };
        Ok(Some(column.relation) == self.settings_view && self.snapshot.column_name(column) == Some(NAME))
    }
}

/// `column = literal`, `column IN (literals)` or `column = ANY (ARRAY[literals])`; `None` for values: not all literals.
fn compared(expr: &AExpr) -> Option<(&Node, Option<Vec<String>>)> {
    let AExpr { kind, name, lexpr, rexpr, rexpr_list_start: _, rexpr_list_end: _, location: _ } = expr;
    if !matches!(strings(name)?.as_slice(), ["="] | ["pg_catalog", "="]) {
        return None;
    }
    let (left, right) = (lexpr.as_deref()?, rexpr.as_deref()?);
    let values = match (AExprKind::try_from(*kind), right.node.as_ref()?) {
        (Ok(AExprKind::AexprOp), _) => std::slice::from_ref(right),
        (Ok(AExprKind::AexprIn), NodeEnum::List(List { items })) => items.as_slice(),
        (Ok(AExprKind::AexprOpAny), NodeEnum::AArrayExpr(array)) => {
            let AArrayExpr { elements, list_start: _, list_end: _, location: _ } = array;
            elements.as_slice()
        }
        _ => return None,
    };
    Some((left, values.iter().map(literal).collect()))
}

fn literal(node: &Node) -> Option<String> {
    match node.node.as_ref()? {
        NodeEnum::AConst(AConst { isnull: false, val: Some(a_const::Val::Sval(text)), location: _ }) => {
            Some(text.sval.to_ascii_lowercase())
        }
        _ => None,
    }
}
