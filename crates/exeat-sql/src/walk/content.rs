//! How many rows of each relation one row of a result holds, at most, and which relations are read without anything that
//! chooses among their rows. Counted by what stands in FROM, whatever of it is used in the end: too high is a hold too
//! many, too low would be rows that nobody counted. Says nothing of which columns they are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use pg_query::NodeEnum;
use pg_query::protobuf::{AConst, Node, SelectStmt, a_const};

use super::bound;
use super::scope::{Columns, Found};
use super::{Walk, Walker, inner};
use crate::catalog::{CatalogSnapshot, Oid};
use crate::classes::Kind;
use crate::{Packing, RowContent, Whole};

/// Definitions inside definitions, where one view stands on others.
const DEFINITIONS_DEPTH_MAX: usize = 200;

/// Places in one FROM that are asked whether WHERE chooses among their rows; of more, none is taken to be limited.
const LOOKS_MAX: usize = 64;

/// Expressions nested deeper are taken to make something else of a value.
const KEPT_DEPTH_MAX: usize = 64;

/// Aggregates whose result is one of their values, or far smaller than they are. Sorted, for a binary search.
const REDUCING: &[&str] = &[
    "any_value",
    "avg",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "cume_dist",
    "dense_rank",
    "every",
    "max",
    "min",
    "mode",
    "percent_rank",
    "rank",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "sum",
    "var_pop",
    "var_samp",
    "variance",
];

/// Aggregates whose result has their values as its elements. Sorted.
const ELEMENTS: &[&str] = &[
    "array_agg",
    "json_agg",
    "json_agg_strict",
    "json_object_agg",
    "json_object_agg_strict",
    "json_object_agg_unique",
    "json_object_agg_unique_strict",
    "jsonb_agg",
    "jsonb_agg_strict",
    "jsonb_object_agg",
    "jsonb_object_agg_strict",
    "jsonb_object_agg_unique",
    "jsonb_object_agg_unique_strict",
];

/// Functions that leave elements elements, one by one. Sorted.
const KEEPING: &[&str] = &[
    "array_to_json",
    "json_build_array",
    "json_build_object",
    "jsonb_build_array",
    "jsonb_build_object",
    "row_to_json",
    "to_json",
    "to_jsonb",
];

/// Those of them that, over values made up for it, can hold many of them: `sum(x * 10 ^ (6 * n))`.
const ADDING: &[&str] = &["sum"];

/// Window functions that tell a row's place, and nothing of another row. Sorted.
const RANKING: &[&str] = &["cume_dist", "dense_rank", "ntile", "percent_rank", "rank", "row_number"];

/// What a query's rows hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Held {
    occurrences: BTreeMap<Oid, u32>,
    /// Where each is named, and how many of its rows LIMIT lets through.
    whole: BTreeMap<Oid, (i32, Option<u64>)>,
    packing: Packing,
}

/// A query that is being read.
#[derive(Debug, Default)]
pub(crate) struct Content {
    held: Held,
    /// By what decides over its rows one by one: each row tells of a row of these.
    tested: BTreeMap<Oid, u32>,
    /// What FROM names and WHERE has not been asked about yet.
    open: Vec<Open>,
    /// Something in FROM beside relations brings rows that the text itself lists.
    listed: bool,
    /// Calls that each may pick a row of their own out of those that a group or a window has.
    picks: u32,
    /// Aggregates, or functions over windows, that put many rows into one value.
    packs: bool,
    /// Something other than arrays and documents comes of such a value: what its elements were nobody can count.
    reshapes: bool,
    aggregates: bool,
}

#[derive(Debug)]
struct Open {
    of: OpenOf,
    name: String,
    /// Joined by a condition.
    tied: bool,
}

#[derive(Debug)]
enum OpenOf {
    Relation(Oid, i32),
    /// What a query in FROM or WITH reads whole, and its columns.
    Query(BTreeMap<Oid, (i32, Option<u64>)>, Rc<Columns>),
}

impl Packing {
    fn again(self) -> Self {
        match self {
            Self::None => Self::Once,
            Self::Once | Self::Nested => Self::Nested,
        }
    }
}

impl Held {
    fn add(&mut self, other: &Self) {
        other.occurrences.iter().for_each(|(relation, count)| add(&mut self.occurrences, *relation, *count));
        self.take_whole(&other.whole);
        self.packing = self.packing.max(other.packing);
    }

    fn note_whole(&mut self, of: &OpenOf) {
        match of {
            OpenOf::Relation(relation, at) => self.whole.insert(*relation, (*at, None)).map_or((), drop),
            OpenOf::Query(whole, _) => self.take_whole(whole),
        }
    }

    fn take_whole(&mut self, whole: &BTreeMap<Oid, (i32, Option<u64>)>) {
        for (relation, (at, limit)) in whole {
            let known = self.whole.entry(*relation).or_insert((*at, *limit));
            // What one place does not limit is not limited.
            known.1 = known.1.zip(*limit).map(|(one, another)| one.max(another));
        }
    }

    /// Where a row is one's or the other's.
    fn either(&mut self, other: &Self) {
        for (relation, count) in &other.occurrences {
            let most = self.occurrences.entry(*relation).or_default();
            *most = (*most).max(*count);
        }
        self.take_whole(&other.whole);
        self.packing = self.packing.max(other.packing);
    }

    /// All its rows in one value.
    fn packed(mut self) -> Self {
        self.packing = self.packing.again();
        self
    }

    /// Steps that telling it takes.
    pub(crate) fn weight(&self) -> usize {
        self.occurrences.len() + self.whole.len()
    }

    /// With what stands behind views.
    pub(crate) fn row_content(&self, snapshot: &CatalogSnapshot, place: impl Fn(i32) -> Option<usize>) -> RowContent {
        let mut behind = Behind { snapshot, known: HashMap::new() };
        let (mut occurrences, mut all_whole, mut packing) = (BTreeMap::new(), BTreeMap::new(), self.packing);
        for (relation, count) in &self.occurrences {
            let whole = self.whole.get(relation).map(|(at, limit)| Whole { at: place(*at), limit: *limit });
            add(&mut occurrences, *relation, *count);
            if let Some(whole) = whole {
                note_whole(&mut all_whole, *relation, whole);
            }
            let Some(inside) = behind.view(*relation, 0) else { continue };
            packing = packing.max(inside.packing);
            for (relation, times) in &inside.occurrences {
                add(&mut occurrences, *relation, count.saturating_mul(*times));
            }
            if let Some(whole) = whole {
                inside.whole.iter().for_each(|relation| note_whole(&mut all_whole, *relation, whole));
            }
        }
        let (occurrences, whole) = (occurrences.into_iter().collect(), all_whole.into_iter().collect());
        RowContent { occurrences, packing, whole }
    }
}

impl Content {
    /// What its rows hold for whoever reads them.
    pub(crate) fn finished(self) -> Held {
        let mut held = self.held;
        self.tested.iter().for_each(|(relation, count)| add(&mut held.occurrences, *relation, *count));
        if self.picks > 1 {
            held.occurrences.values_mut().for_each(|count| *count = count.saturating_mul(self.picks));
        }
        if self.packs {
            held.packing = held.packing.again();
        }
        if self.reshapes && held.packing != Packing::None {
            held.packing = Packing::Nested;
        }
        held
    }
}

/// What stands behind views, each read once.
struct Behind<'a> {
    snapshot: &'a CatalogSnapshot,
    known: HashMap<Oid, Rc<Expanded>>,
}

#[derive(Debug, Default)]
struct Expanded {
    occurrences: BTreeMap<Oid, u32>,
    /// Read whole where the view is.
    whole: BTreeSet<Oid>,
    packing: Packing,
}

impl Behind<'_> {
    fn view(&mut self, view: Oid, depth: usize) -> Option<Rc<Expanded>> {
        let Some(Ok(lineage)) = self.snapshot.view_lineage(view) else { return None };
        if let Some(known) = self.known.get(&view) {
            return Some(Rc::clone(known));
        }
        let own = &lineage.content;
        let mut expanded = Expanded { packing: own.packing, ..Expanded::default() };
        for (relation, count) in &own.occurrences {
            // Deeper than anybody builds them: as many rows as can be counted.
            let count = if depth < DEFINITIONS_DEPTH_MAX { *count } else { u32::MAX };
            let is_whole = own.whole.contains_key(relation);
            add(&mut expanded.occurrences, *relation, count);
            expanded.whole.extend(is_whole.then_some(*relation));
            if depth >= DEFINITIONS_DEPTH_MAX {
                continue;
            }
            let Some(inside) = self.view(*relation, depth + 1) else { continue };
            expanded.packing = expanded.packing.max(inside.packing);
            for (relation, times) in &inside.occurrences {
                add(&mut expanded.occurrences, *relation, count.saturating_mul(*times));
            }
            expanded.whole.extend(inside.whole.iter().filter(|_| is_whole));
        }
        let expanded = Rc::new(expanded);
        self.known.insert(view, Rc::clone(&expanded));
        Some(expanded)
    }
}

fn add(occurrences: &mut BTreeMap<Oid, u32>, relation: Oid, count: u32) {
    let sum = occurrences.entry(relation).or_default();
    *sum = sum.saturating_add(count);
}

/// What one place does not limit is not limited.
fn note_whole(known: &mut BTreeMap<Oid, Whole>, relation: Oid, whole: Whole) {
    let first = known.entry(relation).or_insert(whole);
    first.limit = first.limit.zip(whole.limit).map(|(one, another)| one.max(another));
}

impl Walker<'_> {
    /// Reads something whose rows go into those of the query around it.
    pub(crate) fn counting<T>(&mut self, walk: impl FnOnce(&mut Self) -> Walk<T>) -> Walk<T> {
        let (outcome, inside) = self.counting_apart(walk)?;
        self.holds(&inside)?;
        Ok(outcome)
    }

    /// Reads something and says what its rows hold.
    pub(crate) fn counting_apart<T>(&mut self, walk: impl FnOnce(&mut Self) -> Walk<T>) -> Walk<(T, Held)> {
        let outside = std::mem::take(&mut self.content);
        let outcome = walk(self)?;
        let inside = std::mem::replace(&mut self.content, outside);
        Ok((outcome, inside.finished()))
    }

    /// Reads what chooses among rows and brings none. Whether a row of another relation is there, each row that is chosen
    /// tells all the same: `x IN (SELECT id …)` over made-up rows reads one of the others out.
    pub(crate) fn uncounted<T>(&mut self, walk: impl FnOnce(&mut Self) -> Walk<T>) -> Walk<T> {
        let (outside, aside) = (std::mem::take(&mut self.content), self.facts.reads_aside);
        let outcome = walk(self)?;
        let inside = std::mem::replace(&mut self.content, outside);
        self.facts.reads_aside = aside;
        self.spend(inside.tested.len())?;
        inside.tested.iter().for_each(|(relation, count)| add(&mut self.content.tested, *relation, *count));
        Ok(outcome)
    }

    /// Reads a query of which a row only tells whether one is there.
    pub(crate) fn counting_tested<T>(&mut self, walk: impl FnOnce(&mut Self) -> Walk<T>) -> Walk<T> {
        let aside = self.facts.reads_aside;
        let (outcome, inside) = self.counting_apart(walk)?;
        self.facts.reads_aside = aside;
        self.spend(inside.occurrences.len())?;
        inside.occurrences.iter().for_each(|(relation, count)| add(&mut self.content.tested, *relation, *count));
        Ok(outcome)
    }

    /// Reads a query all of whose rows become one value.
    pub(crate) fn counting_packed<T>(&mut self, walk: impl FnOnce(&mut Self) -> Walk<T>) -> Walk<T> {
        let (outcome, inside) = self.counting_apart(walk)?;
        self.holds(&inside.packed())?;
        Ok(outcome)
    }

    pub(crate) fn holds(&mut self, inside: &Held) -> Walk<()> {
        self.spend(inside.occurrences.len() + inside.whole.len())?;
        self.content.held.add(inside);
        Ok(())
    }

    /// A branch of a set operation beside another.
    pub(crate) fn holds_either(&mut self, left: Held, right: &Held) -> Walk<()> {
        self.spend(left.occurrences.len() + right.occurrences.len())?;
        let mut both = left;
        both.either(right);
        self.holds(&both)
    }

    /// A relation stands in FROM, or is written to.
    pub(crate) fn holds_relation(&mut self, relation: Oid, name: &str, at: i32) {
        if self.snapshot.relation(relation).is_none_or(|known| known.is_metadata()) {
            return;
        }
        let count = self.content.held.occurrences.entry(relation).or_default();
        *count = count.saturating_add(1);
        self.content.open.push(Open { of: OpenOf::Relation(relation, at), name: name.to_owned(), tied: false });
    }

    /// A query stands in FROM, itself or by its name.
    pub(crate) fn holds_query(&mut self, inside: &Held, name: &str, columns: &Rc<Columns>) -> Walk<()> {
        let mut inside = inside.clone();
        let whole = std::mem::take(&mut inside.whole);
        self.spend(whole.len())?;
        if whole.is_empty() {
            self.content.listed = true;
        } else {
            let of = OpenOf::Query(whole, Rc::clone(columns));
            self.content.open.push(Open { of, name: name.to_owned(), tied: false });
        }
        self.spend(inside.occurrences.len())?;
        self.content.held.add(&inside);
        Ok(())
    }

    /// How many relations FROM has named so far.
    pub(crate) fn relations_named(&self) -> usize {
        self.content.open.len()
    }

    /// Those named since are joined by a condition.
    pub(crate) fn tied_since(&mut self, before: usize) {
        self.content.open.iter_mut().skip(before).for_each(|open| open.tied = true);
    }

    /// A call in the query being read, by the kind of its function.
    pub(crate) fn holds_call(&mut self, name: &str, kind: Kind, form: CallForm) {
        let aggregate = match kind {
            Kind::Function | Kind::Procedure => return,
            Kind::Aggregate | Kind::OrderedSet => true,
            Kind::Window => false,
        };
        let content = &mut self.content;
        content.aggregates |= aggregate && !form.over_window;
        // Only how many rows there are, or where one stands.
        let tells_no_value = form.without_arguments || name == "count" || RANKING.binary_search(&name).is_ok();
        if form.over_window || form.filtered || !form.plain {
            content.picks = content.picks.saturating_add(u32::from(!tells_no_value));
        }
        let elements = ELEMENTS.binary_search(&name).is_ok();
        let reduces = REDUCING.binary_search(&name).is_ok();
        let adds = ADDING.contains(&name) && !form.plain;
        content.packs |= aggregate && !reduces || adds || kind == Kind::OrderedSet && !form.plain;
        content.reshapes |= aggregate && !reduces && !elements || adds;
    }

    /// Reads an output column.
    pub(crate) fn holds_target<T>(&mut self, node: &Node, walk: impl FnOnce(&mut Self) -> Walk<T>) -> Walk<T> {
        let packed_in_from = self.content.held.packing != Packing::None;
        let others_pack = std::mem::take(&mut self.content.packs);
        let others_held = std::mem::take(&mut self.content.held.packing);
        let outcome = walk(self)?;
        let content = &mut self.content;
        let packs = content.packs || content.held.packing != Packing::None || packed_in_from;
        content.reshapes |= packs && !keeps_elements(node, KEPT_DEPTH_MAX);
        content.packs |= others_pack;
        content.held.packing = content.held.packing.max(others_held);
        Ok(outcome)
    }

    /// An aggregate that the grammar has a node of its own for.
    pub(crate) fn holds_packing(&mut self) {
        (self.content.packs, self.content.aggregates) = (true, true);
    }

    /// The level's FROM is read whole where WHERE does not choose; an aggregate over it, unless its groups are single
    /// rows, brings none of them; LIMIT says how many at most.
    pub(crate) fn settle_whole(&mut self, stmt: &SelectStmt) -> Walk<()> {
        let condition = stmt.where_clause.as_deref();
        let open = std::mem::take(&mut self.content.open);
        self.spend(open.len())?;
        // Each looks through the whole condition.
        let looks = open.len() <= LOOKS_MAX;
        let limited: Vec<bool> = open.iter().map(|open| looks && self.is_limited(open, condition)).collect();
        let anchored = self.content.listed || limited.contains(&true);
        for (open, limited) in open.iter().zip(limited) {
            if !(limited || open.tied && anchored) {
                self.content.held.note_whole(&open.of);
            }
        }
        let grouped = self.content.aggregates || !stmt.group_clause.is_empty();
        if grouped && !self.content.packs && !self.groups_are_rows(&open, &stmt.group_clause) {
            self.content.held.whole.clear();
        }
        if let Some(limit) = row_limit(stmt)? {
            for (_, known) in self.content.held.whole.values_mut() {
                *known = Some(known.map_or(limit, |before| before.min(limit)));
            }
        }
        Ok(())
    }

    /// COPY of a relation, which nothing limits.
    pub(crate) fn all_whole(&mut self) {
        for open in std::mem::take(&mut self.content.open) {
            self.content.held.note_whole(&open.of);
        }
    }

    fn is_limited(&self, open: &Open, condition: Option<&Node>) -> bool {
        match &open.of {
            OpenOf::Relation(relation, _) => {
                self.snapshot.relation(*relation).is_some_and(|known| bound::is_limited(known, &open.name, condition))
            }
            OpenOf::Query(_, columns) => {
                let has = |name: &str| columns.find(name) != Found::None;
                bound::is_chosen_from(&open.name, &has, condition)
            }
        }
    }

    /// GROUP BY names every column of a key: each group is one row.
    fn groups_are_rows(&self, open: &[Open], group: &[Node]) -> bool {
        let names: Vec<&str> = group.iter().filter_map(last_name).collect();
        // A place in the target list, an expression: it may be a key.
        if names.len() < group.len() {
            return true;
        }
        let relation = |open: &Open| match &open.of {
            OpenOf::Relation(relation, _) => self.snapshot.relation(*relation),
            OpenOf::Query(..) => None,
        };
        // Whether a query's columns are a key nobody says.
        if open.iter().any(|open| matches!(open.of, OpenOf::Query(..))) {
            return true;
        }
        open.iter().filter_map(relation).any(|relation| {
            let attribute = |name: &&str| relation.columns.iter().find(|column| column.name == **name);
            let grouped: Vec<i16> = names.iter().filter_map(attribute).map(|column| column.attribute).collect();
            let keys = self.snapshot.checked_together(relation.oid).iter().filter(|key| key.unique);
            keys.into_iter().any(|key| key.columns.iter().all(|column| grouped.contains(column)))
        })
    }
}

/// A WITH RECURSIVE query: what a round adds to a value, the next may add to.
pub(crate) fn accumulated(first: &Held, second: &Held) -> Held {
    let mut both = first.clone();
    both.either(second);
    both.packing = Packing::Nested;
    both
}

/// How a call is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallForm {
    pub(crate) over_window: bool,
    pub(crate) filtered: bool,
    /// Its arguments are columns as they are.
    pub(crate) plain: bool,
    pub(crate) without_arguments: bool,
}

/// The most rows that LIMIT lets through: what it says, or none known where it is an expression. A parameter is taken
/// for a small number, for the rows that come are counted.
fn row_limit(stmt: &SelectStmt) -> Walk<Option<u64>> {
    let Some(count) = stmt.limit_count.as_deref() else { return Ok(None) };
    Ok(match inner(count)? {
        NodeEnum::AConst(AConst { isnull: false, val: Some(a_const::Val::Ival(number)), .. }) => {
            u64::try_from(number.ival).ok()
        }
        NodeEnum::ParamRef(_) => Some(0),
        _ => None,
    })
}

/// Whether packed values in it stay what they are, or become members of a document.
fn keeps_elements(node: &Node, depth: usize) -> bool {
    let (Some(node), Some(depth)) = (&node.node, depth.checked_sub(1)) else { return false };
    let all = |nodes: &[Node]| nodes.iter().all(|node| keeps_elements(node, depth));
    match node {
        NodeEnum::ColumnRef(_) | NodeEnum::AConst(_) | NodeEnum::ParamRef(_) | NodeEnum::SubLink(_) => true,
        NodeEnum::TypeCast(cast) => {
            let of = cast.type_name.as_ref().and_then(|of| of.names.last()).and_then(super::string);
            // An array as text is no array.
            of.is_some_and(|of| matches!(of, "json" | "jsonb"))
                && cast.arg.as_deref().is_some_and(|arg| keeps_elements(arg, depth))
        }
        NodeEnum::CoalesceExpr(expr) => all(&expr.args),
        NodeEnum::FuncCall(call) => {
            let name = call.funcname.last().and_then(super::string).unwrap_or_default();
            let own = |list: &[&str]| list.binary_search(&name).is_ok();
            own(ELEMENTS) || own(REDUCING) || own(KEEPING) && all(&call.args)
        }
        NodeEnum::JsonObjectAgg(_) | NodeEnum::JsonArrayAgg(_) => true,
        _ => false,
    }
}

fn last_name(node: &Node) -> Option<&str> {
    match &node.node {
        Some(NodeEnum::ColumnRef(reference)) => reference.fields.last().and_then(super::string),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted() {
        assert!([REDUCING, RANKING, ADDING, ELEMENTS, KEEPING].iter().all(|list| list.is_sorted()));
    }
}
