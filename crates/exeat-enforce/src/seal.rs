//! Which columns are sealed for one principal, on one catalog snapshot, under one policy.
//! Labels match by name here, or by what they are bound to; the result is keyed by OID and attribute number, so
//! nothing after this page looks at a name again to decide whether a value is sensitive.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use exeat_policy::{ColumnMask, Detector, Lookup, Mask, Nulls, Policy, Principal, RelationName, UNCLASSIFIED};
use exeat_sql::{CatalogSnapshot, ColumnId, Flow, Hidden, Oid, Relation, RelationKind, ViewLineage};
use exeat_wire::Format;

use crate::builtin;
use crate::drift::Drift;
use crate::mask::{LabelKeys, MaskEncoder, MaskKeys, TypeKin};

/// Label of a generated column that runs a user's code.
const GENERATED: &str = "generated";

/// Sealed columns by relation. Empty where no label of the target is masked for the principal.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SealPlan {
    relations: HashMap<Oid, RelationSeal>,
    /// Views, and relations with row security, whose rows a sealed column chooses: what they show tells about it.
    telling: HashSet<Oid>,
    /// What makes digests and tokens at this target; without it their columns are redacted.
    keys: Option<TargetKeys>,
    /// What is looked for in columns that no mask covers.
    detectors: Option<Arc<[Detector]>>,
    /// Columns that nobody has accepted and that are not sealed: every detector looks at them.
    watched: HashSet<ColumnId>,
    /// What is to be taken for what does not exist.
    hidden: Arc<Hidden>,
}

#[derive(Debug, Clone)]
struct TargetKeys {
    keys: Arc<MaskKeys>,
    target: Arc<str>,
}

impl PartialEq for TargetKeys {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.keys, &other.keys) && self.target == other.target
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct RelationSeal {
    pub name: RelationName,
    columns: BTreeMap<i16, ColumnMask>,
}

impl SealPlan {
    /// `drift`: what follows from the database's bindings and baseline on this snapshot, under this policy.
    pub fn compute(
        policy: &Policy,
        principal: &Principal,
        target: &str,
        snapshot: &CatalogSnapshot,
        drift: &Drift,
    ) -> Self {
        let detectors: Vec<Detector> = policy.detectors(principal, target).into_iter().collect();
        let detectors = (!detectors.is_empty()).then(|| Arc::from(detectors));
        let asked = Asked { policy, principal, target };
        let mut plan = Self { detectors, ..Self::default() };
        // What stands in statistics are rows that nobody counts.
        if policy.masks_any(principal, target) || policy.holds_or_limits(principal, target) {
            plan.seal(&asked, snapshot, drift);
        }
        plan.hidden = Arc::new(plan.hide(&asked, snapshot));
        plan
    }

    fn seal(&mut self, asked: &Asked<'_>, snapshot: &CatalogSnapshot, drift: &Drift) {
        for relation in snapshot.relations() {
            if matches!(relation.kind, RelationKind::CompositeType) {
                continue;
            }
            let name = RelationName { schema: relation.schema_name.clone(), name: relation.name.clone() };
            let columns = sealed_columns(asked, relation, &name, drift);
            if !columns.is_empty() {
                self.relations.insert(relation.oid, RelationSeal { name, columns });
            }
            let ids =
                relation.columns.iter().map(|column| ColumnId { relation: relation.oid, attribute: column.attribute });
            self.watched.extend(ids.filter(|id| drift.is_watched(*id)));
        }
        if !self.is_empty() || !self.watched.is_empty() {
            self.seal_families(snapshot);
            self.seal_views(snapshot);
        }
    }

    fn hide(&self, asked: &Asked<'_>, snapshot: &CatalogSnapshot) -> Hidden {
        let relations = snapshot.relations().filter(|relation| !relation.is_metadata());
        let relations = relations.filter(|relation| {
            let name = RelationName { schema: relation.schema_name.clone(), name: relation.name.clone() };
            asked.policy.hides(asked.principal, asked.target, &name)
        });
        let columns = self.relations.iter().flat_map(|(oid, seal)| {
            let hidden = seal.columns.iter().filter(|(_, mask)| asked.policy.hides_column(mask));
            hidden.map(|(attribute, _)| ColumnId { relation: *oid, attribute: *attribute })
        });
        Hidden::new(snapshot, relations.map(|relation| relation.oid).collect(), columns.collect())
    }

    pub(crate) fn hides_columns_of(&self, relation: Oid) -> bool {
        let attributes = self.relations.get(&relation).into_iter().flat_map(|seal| seal.columns.keys());
        attributes.into_iter().any(|attribute| self.hidden.column(ColumnId { relation, attribute: *attribute }))
    }

    /// What names do not find for this principal.
    pub fn hidden(&self) -> &Arc<Hidden> {
        &self.hidden
    }

    /// With what digests and tokens are made of.
    #[must_use]
    pub fn with_keys(self, keys: &Arc<MaskKeys>, target: &str) -> Self {
        Self { keys: Some(TargetKeys { keys: Arc::clone(keys), target: Arc::from(target) }), ..self }
    }

    /// How the cells of a sealed column are replaced.
    pub fn encoder(&self, mask: &ColumnMask, kin: TypeKin, format: Format) -> MaskEncoder {
        let keys = match mask.mask {
            Mask::Hash | Mask::Token => self.label_keys(&mask.label),
            Mask::Partial { .. } | Mask::Generalize(_) | Mask::Redact | Mask::Nullify | Mask::Refuse => None,
        };
        MaskEncoder::plan(mask.mask, kin, format, keys).with_nulls(mask.nulls)
    }

    /// For a column that no mask covers.
    pub fn tripwire(&self, kin: TypeKin, format: Format, watched: bool) -> Option<MaskEncoder> {
        let all = || Arc::from(Detector::ALL);
        let detectors = if watched { Some(all()) } else { self.detectors.clone() };
        MaskEncoder::tripwire(&detectors?, kin, format)
    }

    /// Whether rows pass without anybody looking at them: nothing is sealed, nothing looked for.
    pub fn checks_nothing(&self) -> bool {
        self.is_empty() && self.detectors.is_none() && self.watched.is_empty()
    }

    /// Whether a value that is made from these is looked at by every detector.
    pub fn watches<'a>(&self, mut columns: impl Iterator<Item = &'a ColumnId>) -> bool {
        !self.watched.is_empty() && columns.any(|column| self.watched.contains(column))
    }

    /// Whether there is anything that nobody has accepted and that is only looked at.
    pub fn watches_any(&self) -> bool {
        !self.watched.is_empty()
    }

    fn label_keys(&self, label: &str) -> Option<Arc<LabelKeys>> {
        self.keys.as_ref().map(|known| known.keys.label(&known.target, label))
    }

    /// Rows of a child come out of its parent, and those of both under either's label. A generated column tells
    /// about the columns it is made from, whatever it is called: it is sealed as they are.
    fn seal_families(&mut self, snapshot: &CatalogSnapshot) {
        let is_generated = |relation: &Relation| relation.columns.iter().any(|column| column.generated.is_some());
        let mut relations: Vec<&Relation> = snapshot.relations().collect();
        relations.sort_by_key(|relation| relation.oid);
        let mut done = HashSet::new();
        for relation in relations {
            if done.contains(&relation.oid) {
                continue;
            }
            let others = snapshot.family(relation.oid).into_iter().filter_map(|oid| snapshot.relation(oid));
            let family: Vec<&Relation> = std::iter::once(relation).chain(others).collect();
            done.extend(family.iter().map(|member| member.oid));
            if family.len() > 1 || is_generated(relation) {
                self.seal_family(&family);
                self.spread_unclassified(&family, snapshot);
            }
        }
    }

    /// A column of a view is sealed as what it is made from, views that stand on others after these. Row-security
    /// policies choose the rows of a relation as a view's conditions do.
    fn seal_views(&mut self, snapshot: &CatalogSnapshot) {
        let lineage_of = |oid: Oid| snapshot.view_lineage(oid).or_else(|| snapshot.policy_lineage(oid));
        let is_view = |relation: &&Relation| lineage_of(relation.oid).is_some();
        let mut open: Vec<&Relation> = snapshot.relations().filter(is_view).collect();
        open.sort_by_key(|relation| relation.oid);
        let mut done: HashSet<Oid> = HashSet::new();
        while !open.is_empty() {
            let waits = |view: &&Relation| match lineage_of(view.oid) {
                Some(Ok(lineage)) => {
                    // The conditions of a policy stand on the relation itself.
                    let below = |oid: &Oid| *oid != view.oid && lineage_of(*oid).is_some() && !done.contains(oid);
                    lineage.reads.iter().any(below)
                }
                Some(Err(_)) | None => false,
            };
            let (waiting, ready): (Vec<_>, Vec<_>) = open.into_iter().partition(waits);
            if ready.is_empty() {
                // Views in a circle are no work of a server's: nothing of them is shown.
                self.telling.extend(waiting.iter().map(|view| view.oid));
                return;
            }
            for view in ready {
                done.insert(view.oid);
                if let Some(Ok(lineage)) = lineage_of(view.oid) {
                    self.seal_view(view, lineage, snapshot.trusts_view(view.oid));
                }
            }
            open = waiting;
        }
    }

    /// The operator vouches for what a trusted view's own definition tells by its rows, and for nothing below it.
    fn seal_view(&mut self, view: &Relation, lineage: &ViewLineage, trusted: bool) {
        let tells = !trusted && lineage.influences.iter().any(|column| self.column(*column).is_some());
        if tells || lineage.reads.iter().any(|oid| self.telling.contains(oid)) {
            self.telling.insert(view.oid);
        }
        for (attribute, flows) in &lineage.columns {
            if let Some(made) = self.mask_of(flows) {
                self.tighten(view, *attribute, &made);
            }
            if self.watches(flows.keys()) {
                self.watched.insert(ColumnId { relation: view.oid, attribute: *attribute });
            }
        }
    }

    /// By name and as one: rows of a child come out under its parent's columns, while its own expression may be
    /// another.
    fn seal_family(&mut self, family: &[&Relation]) {
        let mut sealed: BTreeMap<&str, ColumnMask> = BTreeMap::new();
        let mut generated: BTreeMap<&str, Origin<'_>> = BTreeMap::new();
        for (member, column) in
            family.iter().flat_map(|member| member.columns.iter().map(move |column| (member, column)))
        {
            let mask = self.column(ColumnId { relation: member.oid, attribute: column.attribute });
            if let Some(mask) = mask.filter(|mask| mask.label != UNCLASSIFIED) {
                keep_strictest(&mut sealed, &column.name, mask);
            }
            if let Some(made) = &column.generated {
                let origin = generated.entry(&column.name).or_default();
                origin.from.extend(made.from.iter().filter_map(|source| name_of(member, *source)));
                origin.user_code |= made.user_code;
            }
        }
        // The server makes no column from another generated one; the rounds do not rely on it, and end because one
        // that seals nothing more strictly is the last.
        let mut changed = true;
        while changed {
            changed = false;
            for (name, origin) in &generated {
                changed |= origin.mask(&sealed).is_some_and(|mask| keep_strictest(&mut sealed, name, &mask));
            }
        }
        for member in family {
            for column in &member.columns {
                if let Some(mask) = sealed.get(column.name.as_str()) {
                    self.tighten(member, column.attribute, mask);
                }
            }
        }
    }

    /// What nobody has accepted of one member says nothing of those beside it: it holds where its rows come out, in the
    /// parents, and for what it brings to the children.
    fn spread_unclassified(&mut self, family: &[&Relation], snapshot: &CatalogSnapshot) {
        let id = |member: &Relation, attribute| ColumnId { relation: member.oid, attribute };
        let (mut sealed, mut watched) = (Vec::new(), Vec::new());
        for member in family {
            for column in &member.columns {
                let mask = self.column(id(member, column.attribute)).filter(|mask| mask.label == UNCLASSIFIED);
                let is_watched = self.watched.contains(&id(member, column.attribute));
                if mask.is_none() && !is_watched {
                    continue;
                }
                let kin = snapshot.ancestors(member.oid).into_iter().chain(snapshot.descendants(member.oid));
                for relative in kin.filter_map(|oid| snapshot.relation(oid)) {
                    let Some(same) = relative.columns.iter().find(|other| other.name == column.name) else { continue };
                    sealed.extend(mask.map(|mask| (relative, same.attribute, mask.clone())));
                    watched.extend(is_watched.then(|| id(relative, same.attribute)));
                }
            }
        }
        for (relative, attribute, mask) in sealed {
            self.tighten(relative, attribute, &mask);
        }
        self.watched.extend(watched);
        for member in family {
            for column in &member.columns {
                let Some(made) = &column.generated else { continue };
                let sources = made.from.iter().filter_map(|source| self.column(id(member, *source)));
                if let Some(mask) = sources.filter(|mask| mask.label == UNCLASSIFIED).max_by_key(|mask| mask.mask) {
                    let mask = ColumnMask { mask: mask.mask.max(Mask::Redact), ..mask.clone() };
                    self.tighten(member, column.attribute, &mask);
                }
            }
        }
    }

    fn tighten(&mut self, relation: &Relation, attribute: i16, mask: &ColumnMask) {
        let name = || RelationName { schema: relation.schema_name.clone(), name: relation.name.clone() };
        let seal = self.relations.entry(relation.oid);
        let seal = seal.or_insert_with(|| RelationSeal { name: name(), columns: BTreeMap::new() });
        keep_strictest(&mut seal.columns, attribute, mask);
    }

    pub fn is_empty(&self) -> bool {
        self.relations.is_empty()
    }

    pub fn column(&self, id: ColumnId) -> Option<&ColumnMask> {
        self.relations.get(&id.relation)?.columns.get(&id.attribute)
    }

    /// Whether a view, or a relation with row security, tells more about sealed columns than its own columns hold.
    pub fn tells(&self, oid: Oid) -> bool {
        self.telling.contains(&oid)
    }

    /// The mask of a value that is made from these columns: whole, and never less than redacted unless it is one
    /// column's own value or one of several that are masked alike. A part that one mask leaves may be what another
    /// hides, and beside a value that the client chose itself a token or hash would tell which one it meets. In a
    /// value that is made over, NULL may be the answer to a comparison: it is hidden.
    pub fn mask_of(&self, flows: &BTreeMap<ColumnId, Flow>) -> Option<ColumnMask> {
        let mut strictest: Option<&ColumnMask> = None;
        let (mut alike, mut nulls) = (true, Nulls::Keep);
        for (column, flow) in flows {
            let Some(mask) = self.column(*column) else {
                alike = false;
                continue;
            };
            // Where NULL is shown as NULL, how many there are is no secret either.
            if *flow == Flow::Presence && mask.nulls == Nulls::Keep {
                alike = false;
                continue;
            }
            if *flow == Flow::Total || mask.nulls == Nulls::Hide {
                nulls = Nulls::Hide;
            }
            alike &= *flow == Flow::Bare;
            alike &= strictest.is_none_or(|known| known.mask == mask.mask && known.label == mask.label);
            if strictest.is_none_or(|known| mask.mask > known.mask) {
                strictest = Some(mask);
            }
        }
        let strictest = strictest?;
        let mask = if alike { strictest.mask } else { strictest.mask.max(Mask::Redact) };
        // What is made from it is not it.
        Some(ColumnMask { mask, nulls, lookup: Lookup::Refused, ..strictest.clone() })
    }

    pub fn relation(&self, oid: Oid) -> Option<&RelationSeal> {
        self.relations.get(&oid)
    }
}

/// What a generated column is made from, by name, over a whole family.
#[derive(Debug, Default)]
struct Origin<'a> {
    from: BTreeSet<&'a str>,
    user_code: bool,
}

impl Origin<'_> {
    /// Never less than redacted: the part of a value that a mask keeps is another part once the value is made over.
    fn mask(&self, sealed: &BTreeMap<&str, ColumnMask>) -> Option<ColumnMask> {
        let sources = self.from.iter().filter_map(|source| sealed.get(source));
        let strictest = sources.fold(None, |found: Option<&ColumnMask>, source| match found {
            Some(found) if found.mask >= source.mask => Some(found),
            Some(_) | None => Some(source),
        });
        match strictest {
            Some(source) => {
                let (mask, lookup) = (source.mask.max(Mask::Redact), Lookup::Refused);
                Some(ColumnMask { mask, lookup, ..source.clone() })
            }
            // A user's code may read any column of the database, and nothing is looked at here where none is sealed.
            None if self.user_code => Some(ColumnMask::built_in(GENERATED)),
            None => None,
        }
    }
}

/// Whether it is sealed more strictly than before.
fn keep_strictest<K: Ord>(sealed: &mut BTreeMap<K, ColumnMask>, key: K, mask: &ColumnMask) -> bool {
    let Some(known) = sealed.get_mut(&key) else {
        sealed.insert(key, mask.clone());
        return true;
    };
    let lookup = known.lookup.max(mask.lookup);
    let (stricter, closed) = (mask.mask > known.mask, lookup > known.lookup);
    if stricter {
        *known = mask.clone();
    }
    known.lookup = lookup;
    stricter || closed
}

/// What holds where both do.
fn both(one: ColumnMask, other: ColumnMask) -> ColumnMask {
    let (mask, nulls) = (one.mask.and(other.mask), one.nulls.max(other.nulls));
    let lookup = one.lookup.max(other.lookup);
    let named = if other.mask > one.mask { other } else { one };
    ColumnMask { mask, nulls, lookup, ..named }
}

fn name_of(relation: &Relation, attribute: i16) -> Option<&str> {
    relation.columns.iter().find(|column| column.attribute == attribute).map(|column| column.name.as_str())
}

/// For whom, where and by which rules.
struct Asked<'a> {
    policy: &'a Policy,
    principal: &'a Principal,
    target: &'a str,
}

impl Asked<'_> {
    fn mask(&self, relation: &RelationName, labels: &[String]) -> Option<ColumnMask> {
        self.policy.column_mask(self.principal, self.target, relation, labels)
    }
}

fn sealed_columns(
    asked: &Asked<'_>,
    relation: &Relation,
    name: &RelationName,
    drift: &Drift,
) -> BTreeMap<i16, ColumnMask> {
    let mut sealed = BTreeMap::new();
    for column in &relation.columns {
        let id = ColumnId { relation: relation.oid, attribute: column.attribute };
        let labels = asked.policy.labels(asked.target).iter();
        let mut labels: Vec<String> = labels
            .filter(|label| label.matches(&name.schema, &name.name, &column.name))
            .map(|label| label.name().to_owned())
            .collect();
        labels.extend(drift.bound(id).iter().map(|bound| bound.label.clone()));
        if drift.is_unclassified(id) {
            labels.push(UNCLASSIFIED.to_owned());
        }
        let by_name = if labels.is_empty() { None } else { asked.mask(name, &labels) };
        let by_binding =
            drift.bound(id).iter().filter_map(|bound| asked.mask(&bound.relation, std::slice::from_ref(&bound.label)));
        let unclassified = drift.is_unclassified(id).then(|| ColumnMask::built_in(UNCLASSIFIED));
        // A value-bearing system column is sealed whatever the rules say, as long as anything is sealed at all:
        // statistics and statement texts carry values of the columns that are.
        let built_in = builtin::label(&name.schema, &name.name, &column.name).map(ColumnMask::built_in);
        // Of equally strict ones the first is named.
        let masks = by_name.into_iter().chain(by_binding).chain(unclassified).chain(built_in);
        if let Some(mask) = masks.reduce(both) {
            sealed.insert(column.attribute, mask);
        }
    }
    sealed
}

#[cfg(test)]
mod tests {
    use exeat_policy::{PolicyContext, PrincipalKind};
    use exeat_sql::QUERIES;

    use super::*;

    const POLICY: &str = "
version: 1
labels: {shop: {ssn: [public.parent.ssn], far: [public.far.ssn]}}
rules:
  - {id: mask, target: shop, mask: {ssn: {with: partial, last: 4}}}
  - {id: far, target: shop, mask: {far: {with: nullify}}}
";

    /// A parent (1 id, 2 ssn, 3 city, 4 shown) and a child with the same columns in another order (4 id, 3 ssn,
    /// 2 city, 1 shown), and a relation apart from them; `shown` of each is there to be generated.
    fn plan(generated: &[&str], code: &[&str]) -> SealPlan {
        let columns = |oid: &str, order: [&str; 4]| {
            order
                .map(|at| at.to_owned())
                .into_iter()
                .zip(["id", "ssn", "city", "shown"])
                .map(move |(at, name)| vec![oid.to_owned(), at, name.to_owned(), "25".to_owned(), "-1".to_owned()])
                .collect::<Vec<_>>()
        };
        let words =
            |rows: &[&str]| rows.iter().map(|row| row.split(' ').map(str::to_owned).collect()).collect::<Vec<_>>();
        let rows: HashMap<&str, Vec<Vec<String>>> = HashMap::from([
            ("database", words(&["5 shop UTF8 150018 63"])),
            ("schemas", words(&["11 pg_catalog", "2200 public"])),
            ("relations", words(&["16390 2200 parent r f", "16391 2200 child r f", "16392 2200 far r f"])),
            (
                "columns",
                [
                    columns("16390", ["1", "2", "3", "4"]),
                    columns("16391", ["4", "3", "2", "1"]),
                    columns("16392", ["1", "2", "3", "4"]),
                ]
                .concat(),
            ),
            ("inheritance", words(&["16391 16390"])),
            ("generated", words(generated)),
            ("code", words(code)),
        ]);
        let results: Vec<Vec<Vec<Option<String>>>> = QUERIES
            .iter()
            .map(|query| {
                rows.get(query.name).into_iter().flatten().map(|row| row.iter().cloned().map(Some).collect()).collect()
            })
            .collect();
        let snapshot = CatalogSnapshot::build(1, &results).unwrap();
        let context =
            PolicyContext { default_issuer: Some("https://idp".to_owned()), targets: Some(vec!["shop".to_owned()]) };
        let policy = Policy::load(&[("policy.yaml".to_owned(), POLICY.to_owned())], &context)
            .unwrap_or_else(|faults| panic!("{faults}"));
        let principal = Principal {
            issuer: "https://idp".to_owned(),
            subject: "a".to_owned(),
            groups: Default::default(),
            claims: Default::default(),
            actor: None,
            kind: PrincipalKind::Workload,
            token_id: None,
            instance: Default::default(),
        };
        SealPlan::compute(&policy, &principal, "shop", &snapshot, &Drift::default())
    }

    fn sealed(plan: &SealPlan, relation: u32, attribute: i16) -> Option<(&str, Mask, &str)> {
        plan.column(ColumnId { relation: Oid(relation), attribute }).map(|mask| (&*mask.label, mask.mask, &*mask.rule))
    }

    const PARENT: (u32, i16) = (16390, 4);
    const CHILD: (u32, i16) = (16391, 1);
    const FAR: (u32, i16) = (16392, 4);

    #[test]
    fn a_generated_column_is_sealed_as_its_sources_here_and_in_the_family() {
        for (parent_from, child_from, shown_sealed) in [
            ("{3}", "{2}", false),
            ("{2}", "{2}", true),
            ("{3}", "{3}", true),
            ("{2,3}", "{2}", true),
            ("{}", "{}", false),
            ("{1}", "{4,2,3}", true),
        ] {
            let plan = plan(&[&format!("16390 4 {parent_from}"), &format!("16391 1 {child_from}"), "16392 4 {3}"], &[]);
            let expected = shown_sealed.then_some(("ssn", Mask::Redact, "mask"));
            for (relation, attribute) in [PARENT, CHILD] {
                assert_eq!(sealed(&plan, relation, attribute), expected, "{parent_from} {child_from} {relation}");
            }
            assert_eq!(sealed(&plan, FAR.0, FAR.1), None, "another relation's generated column stays as it is");
        }
    }

    #[test]
    fn a_generated_column_made_from_another_is_sealed_too() {
        let itself = plan(&["16392 4 {4,3}"], &[]);
        assert_eq!(sealed(&itself, FAR.0, FAR.1), None, "made from itself and from nothing sealed");
        let chained = plan(&["16392 3 {4}", "16392 4 {2}"], &[]);
        for attribute in [3, 4] {
            assert_eq!(sealed(&chained, FAR.0, attribute), Some(("far", Mask::Nullify, "far")));
        }
    }

    #[test]
    fn users_code_seals_what_it_generates_and_nothing_else() {
        let generated = ["16390 4 {3}", "16391 1 {2}", "16392 4 {3}"];
        let plan = plan(&generated, &["16392 4 0", "16390 3 0", "16391 0 0"]);
        assert_eq!(sealed(&plan, FAR.0, FAR.1), Some((GENERATED, Mask::Redact, "built-in")));
        assert_eq!(sealed(&plan, PARENT.0, PARENT.1), None);
        assert_eq!(sealed(&plan, PARENT.0, 3), None, "a default is no generated column");
    }
}
