//! Calls of functions in SQL: the body is read as a statement of its own, with the call's arguments as its parameters.
//! What it reads, and what decides something in it, counts for the statement that calls; what it gives back goes where
//! the call stands. Every function that may be meant is read, and a body that does anything but select is not followed.
//! Says of a body nothing but that it is not analysed: what stands in it is not the caller's text.

use pg_query::NodeEnum;
use pg_query::protobuf::{FuncCall, Node, ParseResult};

use super::content::Content;
use super::flows::Flows;
use super::scope::Value;
use super::select::Target;
use super::settings::shown_by_view;
use super::{Facts, NOWHERE, Stop, Walk, Walker, construct, inner, strings};
use crate::catalog::bodies::{Names, Place, ResultColumn, SqlFunction, VOID};
use crate::catalog::{ColumnId, Oid};
use crate::parse;
use crate::{OpaqueReason, Origin, ShownSettings, Use};

/// Bodies inside bodies.
const CALL_DEPTH_MAX: usize = 16;

/// Bodies read for one statement: each call reads its own again, for its arguments may carry something else.
const BODIES_MAX: usize = 200;

/// Bodies that are being read, and how many have been.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls {
    open: Vec<Oid>,
    read: usize,
}

/// What stands for the parameters of the body being read.
#[derive(Debug, Clone)]
pub(crate) struct Parameters<'a> {
    function: &'a SqlFunction,
    values: Vec<Value>,
    /// The server may put the arguments into the body, where each is evaluated only if the body comes to it: a client
    /// may then notice.
    noticeable: bool,
}

/// What a call gives back.
#[derive(Debug)]
pub(crate) enum Returned {
    Value(Value),
    /// Rows with these columns.
    Row(Vec<(String, Value)>),
}

impl Parameters<'_> {
    /// `$1`, a name, or the function's name and a name. Only where no column goes by it.
    fn find(&self, names: &[&str]) -> Option<Value> {
        let name = match names {
            [name] => name,
            [function, name] if *function == self.function.name => name,
            _ => return None,
        };
        let place = match name.strip_prefix('$') {
            Some(number) => number.parse::<usize>().ok()?.checked_sub(1)?,
            None if name.is_empty() => return None,
            None => self.function.argument_names.iter().position(|known| known == name)?,
        };
        self.values.get(place).cloned()
    }
}

impl<'a> Walker<'a> {
    /// The parameter of the body being read that these names stand for.
    pub(crate) fn parameter(&self, names: &[&str]) -> Option<Value> {
        self.parameters.as_ref()?.find(names)
    }

    /// The same where it stands in an expression.
    pub(crate) fn parameter_read(&mut self, names: &[&str]) -> Option<Value> {
        let found = self.parameter(names)?;
        self.noticeable += usize::from(self.parameters.as_ref().is_some_and(|parameters| parameters.noticeable));
        Some(found)
    }

    /// A call of a function in SQL; `None`: the call is none, or not one that can be followed.
    pub(crate) fn body_call(&mut self, call: &FuncCall) -> Walk<Option<Returned>> {
        let FuncCall {
            funcname,
            args,
            agg_order,
            agg_filter: None,
            over: None,
            agg_within_group: false,
            agg_star: false,
            agg_distinct: false,
            func_variadic: false,
            funcformat: _,
            location,
        } = call
        else {
            return Ok(None);
        };
        let named = args.iter().any(|arg| matches!(&arg.node, Some(NodeEnum::NamedArgExpr(_))));
        let Some(names) = strings(funcname) else { return Ok(None) };
        let Some((schemas, name)) = self.searched(&names) else { return Ok(None) };
        let snapshot = self.snapshot;
        self.spend(1)?;
        let candidates = snapshot.sql_candidates(&schemas, name, args.len());
        if candidates.is_empty() || named || !agg_order.is_empty() {
            return Ok(None);
        }
        let before = self.noticeable;
        let values = args.iter().map(|arg| self.value(arg)).collect::<Walk<Vec<_>>>()?;
        let noticeable = self.noticeable > before;
        // It may read what takes its time, and fail.
        self.noticeable += 1;
        let mut found = None;
        for function in candidates {
            let parameters = Parameters { function, values: self.passed(function, &values, *location)?, noticeable };
            let returned = self.body(parameters, *location).map_err(|stop| match stop {
                Stop::TooDeep => Stop::TooDeep,
                Stop::Opaque { .. } | Stop::Named { .. } | Stop::Unresolved { .. } => {
                    Stop::Opaque { reason: OpaqueReason::Function { name: names.join(".") }, at: *location }
                }
            })?;
            found = Some(match found {
                None => returned,
                Some(found) => self.either_returned(found, returned)?,
            });
        }
        Ok(found)
    }

    /// Where the server may choose one or the other: a value made from what both give.
    fn either_returned(&mut self, left: Returned, right: Returned) -> Walk<Returned> {
        let (left, right) = (self.returned_value(left)?, self.returned_value(right)?);
        self.all_of(&[left, right]).map(Returned::Value)
    }

    /// What a call gives back, as one value.
    pub(crate) fn returned_value(&mut self, returned: Returned) -> Walk<Value> {
        match returned {
            Returned::Value(value) => Ok(value),
            Returned::Row(columns) => {
                let values: Vec<Value> = columns.into_iter().map(|(_, value)| value).collect();
                self.all_of(&values).map(Value::into_row)
            }
        }
    }

    /// The arguments as the body gets them. One of another type is converted, which may fail.
    fn passed(&mut self, function: &SqlFunction, values: &[Value], at: i32) -> Walk<Vec<Value>> {
        let mut passed = Vec::with_capacity(values.len());
        for (value, declared) in values.iter().zip(&function.arguments) {
            self.operand(value)?;
            // Where a strict function is not called at all, everybody sees that an argument is NULL.
            if function.strict {
                self.consume(value, Use::Predicate, at)?;
            }
            let flows = if value.flows.is_empty() || value.of == Some(*declared) {
                value.flows.clone()
            } else if self.cast_is_total(value.of, *declared) {
                value.flows.total()
            } else {
                self.consume(value, self.place, at)?;
                Flows::default()
            };
            passed.push(Value { flows, of: Some(*declared), parts: value.parts, ..Value::computed() });
        }
        Ok(passed)
    }

    /// Reads the body in a walker of its own: nothing of the calling statement is in sight in it.
    fn body(&mut self, parameters: Parameters<'a>, at: i32) -> Walk<Returned> {
        let function = parameters.function;
        if self.calls.open.contains(&function.oid)
            || self.calls.open.len() >= CALL_DEPTH_MAX
            || self.calls.read >= BODIES_MAX
        {
            return construct("a function that calls itself, or this many functions", at);
        }
        self.spend(function.body.len())?;
        let path = self.body_path(function)?;
        let tree = parse::parse_body(function, self.snapshot)?;
        let mut inside = Walker::new(self.snapshot, &path)?;
        inside.parameters = Some(parameters);
        inside.bound = self.bound || function.names == Names::Bound;
        inside.any_path = match &function.names {
            Names::CallerAsOwner => true,
            Names::Caller => self.any_path,
            Names::Bound | Names::Own(_) => false,
        };
        (inside.depth, inside.steps) = (self.depth, self.steps);
        inside.calls = std::mem::take(&mut self.calls);
        inside.calls.open.push(function.oid);
        inside.calls.read += 1;
        let targets = inside.body_statements(&tree)?;
        let returned = inside.returned(function, &targets, at)?;
        inside.calls.open.pop();
        self.calls = inside.calls;
        self.steps = inside.steps;
        self.holds(&std::mem::take(&mut inside.content).finished())?;
        let shows =
            shown_by_view(&inside.facts) != ShownSettings::default() || inside.facts.shown != ShownSettings::default();
        if function.as_owner && shows {
            return construct("a body that shows its owner's settings", at);
        }
        self.absorb(inside.facts, at)?;
        self.facts.functions.insert(function.oid);
        Ok(returned)
    }

    fn body_path(&self, function: &SqlFunction) -> Walk<Vec<Oid>> {
        // Which temporary objects there are, and behind a definition which path, the session tells that runs it.
        let session_only = || construct("a body whose names depend on the session", NOWHERE);
        match &function.names {
            Names::Bound => Ok(self.snapshot.definition_path().to_vec()),
            Names::Caller | Names::CallerAsOwner | Names::Own(_) if self.bound => session_only(),
            Names::CallerAsOwner => Ok(self.snapshot.schema_oids().collect()),
            Names::Caller => Ok(self.path.to_vec()),
            Names::Own(places) => {
                let temporary = self.schema_named("pg_temp");
                Ok(places
                    .iter()
                    .filter_map(|place| match place {
                        Place::Schema(oid) => Some(*oid),
                        Place::Temporary => temporary,
                    })
                    .collect())
            }
        }
    }

    /// What the last statement puts out.
    fn body_statements(&mut self, tree: &ParseResult) -> Walk<Vec<Target>> {
        let mut last = Vec::new();
        for statement in &tree.stmts {
            let Some(node) = &statement.stmt else { return construct("an empty syntax node", NOWHERE) };
            let NodeEnum::SelectStmt(select) = inner(node)? else {
                return construct("a statement of this kind in a body", NOWHERE);
            };
            // Only the last statement's rows come back.
            self.content = Content::default();
            last = self.select(select)?;
        }
        Ok(last)
    }

    fn returned(&mut self, function: &SqlFunction, targets: &[Target], at: i32) -> Walk<Returned> {
        let Ok(columns) = self.snapshot.result_columns(function) else {
            return construct("a result of this type", NOWHERE);
        };
        match (columns, targets) {
            (None, _) if function.result == VOID => Ok(Returned::Value(Value::computed())),
            (None, [target]) => {
                let column = ResultColumn { name: String::new(), of: function.result, modifier: -1 };
                self.given_back(&column, target, at).map(Returned::Value)
            }
            (Some(columns), targets) if columns.len() == targets.len() => {
                let values = columns.iter().zip(targets).map(|(column, target)| {
                    let value = self.given_back(column, target, at)?;
                    Ok((column.name.clone(), value))
                });
                values.collect::<Walk<Vec<_>>>().map(Returned::Row)
            }
            // One row as a value, or no rows at all.
            (_, _) => construct("a body that gives back something else than the function says", NOWHERE),
        }
    }

    /// A column of the body's last statement as the function gives it back: converted to the type declared, which may
    /// fail where it is not of that type already.
    fn given_back(&mut self, column: &ResultColumn, target: &Target, at: i32) -> Walk<Value> {
        let value = &target.value;
        let given = |flows: Flows| Value { flows, of: Some(column.of), parts: value.parts, ..Value::computed() };
        if value.of == Some(column.of) && (column.modifier == -1 || self.has_modifier(value, column.modifier)) {
            return Ok(given(value.flows.placed(at)));
        }
        self.operand(value)?;
        if self.snapshot.cast_runs_code(column.of) {
            return construct("a result of a type that runs code of its own", NOWHERE);
        }
        if value.flows.is_empty() || (column.modifier == -1 && self.cast_is_total(value.of, column.of)) {
            return Ok(given(value.flows.total().placed(at)));
        }
        self.consume(value, Use::Expression, NOWHERE)?;
        Ok(Value { of: Some(column.of), ..Value::computed() })
    }

    fn has_modifier(&self, value: &Value, modifier: i32) -> bool {
        let of = |id: ColumnId| self.snapshot.type_modifier(id) == modifier;
        matches!(value.origin, Origin::Column(id) if of(id))
    }

    /// What a body reads counts for the statement, at the place of the call.
    fn absorb(&mut self, facts: Facts, at: i32) -> Walk<()> {
        let shown_here = shown_by_view(&facts);
        let Facts {
            reads,
            called,
            functions,
            writes,
            reads_aside: _,
            writes_aside: _,
            writing,
            sets,
            unbounded: _,
            stars: _,
            // Its own parameters are the call's arguments, which the caller's text is read for.
            lookups: _,
            parameters: _,
            rows,
            positioned,
            rewritten,
            reaches,
            changes,
            views,
            uses,
            user_code: _,
            locks_rows,
            settings,
            notifies,
            says_default: _,
            relation_sizes,
            correlated: _,
            sized,
            hides,
            large_objects,
            server_files,
            settings_read: _,
            shown,
            session_effect,
            defines,
        } = facts;
        let writes =
            defines.is_some() || !writes.is_empty() || !writing.is_empty() || !sets.is_empty() || !changes.is_empty();
        let effects = !settings.is_empty() || !notifies.is_empty() || large_objects || session_effect.is_some();
        let writes = writes || !rows.is_empty() || positioned.is_some();
        if writes || rewritten || locks_rows || effects {
            return construct("a body that does more than select", NOWHERE);
        }
        self.spend(uses.len() + reads.len())?;
        self.facts.called.extend(reads);
        self.facts.called.extend(called);
        self.facts.functions.extend(functions);
        self.facts.reaches.extend(reaches);
        self.facts.views.extend(views);
        self.facts.correlated = true;
        self.facts.hides.extend(hides);
        self.facts.relation_sizes |= relation_sizes || !sized.is_empty();
        self.facts.server_files |= server_files;
        self.facts.shown.add(&shown);
        self.facts.shown.add(&shown_here);
        self.facts.user_code = true;
        for (column, how) in uses.into_keys() {
            // A body's own condition is no value that the client tries: what may be looked up is not what it compares.
            let how = if how == Use::Lookup { Use::Predicate } else { how };
            self.facts.uses.entry((column, how)).or_insert(at);
        }
        Ok(())
    }
}

/// Is this node a call, and of what?
pub(crate) fn as_call(node: &Node) -> Option<&FuncCall> {
    match &node.node {
        Some(NodeEnum::FuncCall(call)) => Some(call),
        _ => None,
    }
}
