//! One answer on its way, counted: what each row takes of which counter, what has to be reserved before it may leave, and
//! where a rule holds it. Pure: reserving is the store's, keeping and releasing the session's. Nothing is taken of any
//! counter before all of them have it.

use std::collections::BTreeSet;

use exeat_policy::counting::{Counting, Passage, WithinThreshold};
use exeat_policy::grant::Covered;
use exeat_policy::ledger::{self, Budget, Counted, CounterKey, Purse, Unit, Want};
use exeat_policy::ruling::AppliedBudget;
use exeat_policy::{Asker, Moment, RelationName};
use exeat_sql::Packing;
use exeat_wire::{DataRow, DecodeError};

use crate::bulk::Bulk;
use crate::permit::Permit;
use crate::plan::{Outputs, StatementPlan};
use crate::weigh::{Scale, by_length};

/// Bytes are reserved in chunks of as many rows of this size: by the byte every row would be a question to the store.
const BYTES_A_ROW: u64 = 256;

/// Whose answer it is, for the counters.
#[derive(Debug, Clone)]
pub struct Whose<'a> {
    pub asker: Asker,
    pub target: &'a str,
}

/// The counters of one answer, or of a portal's over all its fetches.
#[derive(Debug)]
pub struct Tally {
    counting: Counting,
    packing: Packing,
    scale: Option<Scale>,
    spending: Vec<Spending>,
    /// What humans agreed to.
    covered: Option<Covered>,
    /// Rows of each duty's relation that had left when somebody asked last; and that have left.
    told: Vec<u64>,
    left: Vec<u64>,
}

/// What is taken of one counter.
#[derive(Debug)]
struct Spending {
    key: CounterKey,
    applied: AppliedBudget,
    takes: Takes,
    purse: Purse,
    /// What is in it is spent before this and not later: it is counted in the bucket that ends here.
    until: Moment,
    /// Spent on what is kept and has not left.
    kept: u64,
    /// An approval has taken its place.
    lifted: bool,
}

#[derive(Debug, Clone, Copy)]
enum Takes {
    /// So many for each row that the values of a row hold.
    Rows(u64),
    Bytes,
    /// So many for each row that the server sends.
    Cells(u64),
}

/// A row, as it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight {
    /// How many rows its values hold for one.
    pub rows: u64,
    pub bytes: u64,
}

/// What follows for a row that has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// It goes where `keeps` says.
    Go,
    /// First more has to be reserved; nothing of it is counted yet.
    Reserve,
    /// It stays, with all that is kept: these rules hold the statement.
    Past(BTreeSet<String>),
    /// It stays: what was approved is used up.
    Ended,
}

/// What is missing of one counter for the next row.
#[derive(Debug, PartialEq, Eq)]
pub struct Missing {
    pub spending: usize,
    pub key: CounterKey,
    pub budget: Budget,
    at_least: u64,
    /// Of this answer.
    spent: u64,
    /// What chunks are multiples of.
    many: u64,
}

impl Missing {
    /// `before`: what statements before this one have spent of it, as those may that follow.
    pub fn want(&self, before: u64) -> Want {
        let chunk = |spent: u64| ledger::chunk(spent / self.many).saturating_mul(self.many);
        let ahead = if before == 0 { 0 } else { chunk(self.spent.saturating_add(before)) };
        Want { at_least: self.at_least, at_most: chunk(self.spent).max(self.at_least), ahead }
    }
}

/// What one counter has left at the end of a fetch.
#[derive(Debug, PartialEq, Eq)]
pub struct LeftOver {
    pub spending: usize,
    pub unspent: u64,
    /// Spent on rows that did not leave.
    pub kept: u64,
    /// What left.
    pub spent: u64,
}

impl Tally {
    /// `None`: nothing of the statement is counted.
    pub fn of(permit: &Permit, plan: &StatementPlan, whose: &Whose<'_>) -> Option<Self> {
        let Bulk { counted, packing, ceiling, .. } = &plan.bulk;
        if counted.is_empty() {
            return None;
        }
        let duties = counted.iter().map(|counted| (counted.duty.clone(), counted.times));
        let flowing = counted.iter().filter(|counted| counted.times > 0);
        let spending = flowing.flat_map(|counted| {
            let budgets = counted.duty.budgets.iter();
            budgets.flat_map(|applied| spendings(permit, plan, (counted, applied), whose))
        });
        Some(Self {
            counting: Counting::new(duties, *ceiling),
            packing: *packing,
            scale: None,
            spending: spending.collect(),
            covered: None,
            told: Vec::new(),
            left: Vec::new(),
        })
    }

    /// How rows are weighed, once the server has described them.
    pub fn weighed_by(&mut self, scale: Scale) {
        self.scale = Some(scale);
    }

    pub fn weigh(&self, row: &DataRow) -> Result<Weight, DecodeError> {
        let bytes = u64::try_from(row.frame.bytes().len()).unwrap_or(u64::MAX);
        let rows = match (&self.packing, &self.scale) {
            (Packing::None, _) => 1,
            (Packing::Once | Packing::Nested, Some(scale)) => scale.weigh(row)?,
            (Packing::Once | Packing::Nested, None) => by_length(bytes).max(1),
        };
        Ok(Weight { rows, bytes })
    }

    /// Of a row of which only its length is known.
    pub fn weigh_length(&self, bytes: usize) -> Weight {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let rows = if self.packing == Packing::None { 1 } else { by_length(bytes).max(1) };
        Weight { rows, bytes }
    }

    /// One more row.
    pub fn row(&mut self, weight: Weight, now: Moment) -> Next {
        if self.spending.iter().any(|spending| spending.lacks(weight, now) > 0) {
            return Next::Reserve;
        }
        let keeps = self.counting.keeps();
        for spending in &mut self.spending {
            spending.spend(weight, keeps);
        }
        next(self.counting.row(weight.rows, weight.bytes))
    }

    /// Rows that a write has changed, as the server says at its end.
    pub fn affected(&mut self, rows: u64) -> Next {
        next(self.counting.affected(rows))
    }

    /// What has to be reserved before such a row may count.
    pub fn missing(&self, weight: Weight, now: Moment) -> Vec<Missing> {
        let lacking = self.spending.iter().enumerate().filter(|(_, spending)| spending.lacks(weight, now) > 0);
        lacking.map(|(number, spending)| spending.missing(number, spending.lacks(weight, now))).collect()
    }

    /// So much more is on the ledger for it, counted in the bucket that ends then.
    pub fn reserved(&mut self, spending: usize, amount: u64, counted_in: Moment) {
        if let Some(spending) = self.spending.get_mut(spending) {
            let is_empty = spending.purse.unspent() == 0;
            spending.until = if is_empty { counted_in } else { spending.until.min(counted_in) };
            spending.purse.add(amount);
        }
    }

    /// What was reserved and may not be spent any more: what leaves now counts for later than its bucket does.
    pub fn expired(&mut self, now: Moment) -> Vec<(usize, u64)> {
        let expired = self.spending.iter_mut().enumerate().filter(|(_, spending)| spending.until <= now);
        expired.map(|(number, spending)| (number, spending.purse.empty())).filter(|(_, amount)| *amount > 0).collect()
    }

    /// The budget that one of the counters has.
    pub fn budget(&self, spending: usize) -> Option<&AppliedBudget> {
        self.spending.get(spending).map(|spending| &spending.applied)
    }

    pub fn key(&self, spending: usize) -> Option<&CounterKey> {
        self.spending.get(spending).map(|spending| &spending.key)
    }

    /// Do rows stay until more is known?
    pub fn keeps(&self) -> bool {
        self.counting.keeps()
    }

    /// More cannot be kept: whatever is in force holds it.
    pub fn full(&mut self) -> Next {
        next(self.counting.full())
    }

    /// A budget of these is used up, and its rule holds what is past it.
    pub fn used_up(&mut self, rule: &str) -> BTreeSet<String> {
        self.counting.full();
        BTreeSet::from([rule.to_owned()])
    }

    /// May what is kept leave?
    pub fn within(&self) -> Option<WithinThreshold> {
        self.counting.within()
    }

    /// What was kept has left.
    pub fn released(&mut self) {
        self.left = self.counting.rows().map(|(_, rows)| rows).collect();
        // What left with a human's word does not count as left without one: it is given back.
        for spending in self.spending.iter_mut().filter(|spending| !spending.lifted) {
            spending.kept = 0;
        }
    }

    /// The next statement of the same Query goes on counting where this one ended.
    pub fn follow(&mut self, previous: &Self) {
        self.counting.follow(&previous.counting);
        if let Some(covered) = &previous.covered {
            // Where it has ended the first row says so.
            let _ended = self.agreed(covered);
        }
    }

    /// Humans have agreed. `false`: to less than was counted before they were asked, so nothing of it leaves.
    #[must_use]
    pub fn agreed(&mut self, covered: &Covered) -> bool {
        let counting = std::mem::replace(&mut self.counting, Counting::new([], None));
        self.covered = Some(covered.clone());
        self.counting = counting.under(covered);
        for spending in self.spending.iter_mut().filter(|spending| spending.key.unit == Unit::UnapprovedRows) {
            spending.lifted = true;
        }
        !self.counting.has_ended()
    }

    /// At the end of a fetch: what of each counter was reserved and has not left. Nothing is reserved from here on.
    pub fn left_over(&mut self) -> Vec<LeftOver> {
        let left = self.spending.iter_mut().enumerate().map(|(spending, of)| {
            let kept = std::mem::take(&mut of.kept);
            let purse = std::mem::replace(&mut of.purse, Purse::EMPTY);
            LeftOver { spending, unspent: purse.unspent(), kept, spent: purse.spent().saturating_sub(kept) }
        });
        left.collect()
    }

    /// Rows of each relation so far, for whoever is asked.
    pub fn rows(&self) -> impl Iterator<Item = (&RelationName, u64)> {
        self.counting.rows().map(|(duty, rows)| (&duty.relation, rows))
    }

    pub fn bytes(&self) -> u64 {
        self.counting.bytes()
    }

    /// Rows of each relation that have left since this was asked last.
    pub fn newly_released(&mut self) -> Vec<(RelationName, u64)> {
        // Without anything to keep rows leave as they come.
        if !self.counting.keeps() {
            self.left = self.counting.rows().map(|(_, rows)| rows).collect();
        }
        let relations = self.counting.rows().map(|(duty, _)| duty.relation.clone());
        let told = self.told.iter().copied().chain(std::iter::repeat(0));
        let since = self.left.iter().zip(told).map(|(left, told)| left.saturating_sub(told));
        let since = relations.zip(since).filter(|(_, rows)| *rows > 0).collect();
        self.told.clone_from(&self.left);
        since
    }
}

impl Spending {
    fn takes(&self, weight: Weight) -> u64 {
        if self.lifted {
            return 0;
        }
        match self.takes {
            Takes::Rows(times) => times.saturating_mul(weight.rows),
            Takes::Bytes => weight.bytes,
            Takes::Cells(cells) => cells,
        }
    }

    fn lacks(&self, weight: Weight, now: Moment) -> u64 {
        let there = if now < self.until { self.purse.unspent() } else { 0 };
        self.takes(weight).saturating_sub(there)
    }

    fn spend(&mut self, weight: Weight, keeps: bool) {
        let takes = self.takes(weight);
        let spent = self.purse.spend(takes);
        debug_assert!(spent.is_ok(), "asked before");
        if keeps {
            self.kept = self.kept.saturating_add(takes);
        }
    }

    fn missing(&self, number: usize, at_least: u64) -> Missing {
        let many = match self.takes {
            Takes::Rows(_) | Takes::Cells(_) => 1,
            Takes::Bytes => BYTES_A_ROW,
        };
        let (key, budget) = (self.key.clone(), self.applied.budget);
        Missing { spending: number, key, budget, at_least, spent: self.purse.spent(), many }
    }
}

fn next(passage: Passage) -> Next {
    match passage {
        Passage::Within => Next::Go,
        Passage::Past { rules } => Next::Past(rules),
        Passage::Ended => Next::Ended,
    }
}

fn spendings(
    permit: &Permit,
    plan: &StatementPlan,
    (counted, applied): (&crate::bulk::Counted, &AppliedBudget),
    whose: &Whose<'_>,
) -> Vec<Spending> {
    let relation = &counted.duty.relation;
    let spending = |of: Counted, takes: Takes| Spending {
        key: CounterKey {
            asker: whose.asker.clone(),
            target: whose.target.to_owned(),
            counted: of,
            unit: applied.unit,
        },
        applied: applied.clone(),
        takes,
        purse: Purse::EMPTY,
        until: Moment::from_unix_millis(0),
        kept: 0,
        lifted: false,
    };
    match applied.unit {
        Unit::Rows | Unit::UnapprovedRows => {
            vec![spending(Counted::Relation(relation.clone()), Takes::Rows(u64::from(counted.times)))]
        }
        Unit::Bytes => vec![spending(Counted::Relation(relation.clone()), Takes::Bytes)],
        Unit::Cells => cells(permit, plan, relation)
            .into_iter()
            .map(|(label, cells)| {
                let of = Counted::Label { label: label.to_owned(), relation: relation.clone() };
                spending(of, Takes::Cells(cells))
            })
            .collect(),
        // Counted where they are tried, and where they are refused.
        Unit::Probes | Unit::Refusals => Vec::new(),
    }
}

/// Masked cells of each label of the relation in a row: every masked column of the label counts, wherever its values are
/// from, and one at least where the columns are not known one by one.
fn cells<'a>(permit: &'a Permit, plan: &StatementPlan, relation: &RelationName) -> Vec<(&'a str, u64)> {
    let prefix = format!("{}.{}.", relation.schema, relation.name);
    let masked = permit.facts.masked.iter().filter(|masked| masked.column.starts_with(&prefix));
    let labels: BTreeSet<&str> = masked.map(|masked| masked.label.as_str()).collect();
    let of = |label: &str| {
        let is = |mask: &Option<exeat_policy::ColumnMask>| mask.as_ref().is_some_and(|mask| mask.label == label);
        let many = match &plan.outputs {
            Outputs::Columns(columns) => columns.iter().filter(|column| is(&column.mask)).count(),
            Outputs::Copied(copied) => copied.columns.iter().filter(|column| is(&column.mask)).count(),
            Outputs::None | Outputs::ByOrigin | Outputs::FunctionResult | Outputs::Unchecked => 0,
        };
        u64::try_from(many).unwrap_or(u64::MAX).max(1)
    };
    labels.into_iter().map(|label| (label, of(label))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use exeat_policy::Person;
    use exeat_policy::approval::{
        Approval, Ceiling, Demand, Granted, GrantedBy, Progress, Review, Scope, State, Terms,
    };
    use exeat_policy::grant::{Ask, Digest, Grant};
    use exeat_policy::ruling::{Duty, Measure, Reached, Threshold};

    use super::*;
    use crate::bulk;
    use crate::record::RecordFacts;
    use crate::scrub::Taint;

    fn people() -> RelationName {
        RelationName { schema: "held".to_owned(), name: "people".to_owned() }
    }

    fn asker() -> Asker {
        Asker { human: Person { issuer: "i".to_owned(), subject: "ann".to_owned() }, actor: None }
    }

    /// Of a statement whose rows hold `times` people each, held past `threshold_at`, with a budget of `amount`.
    fn tally(times: u32, threshold_at: Option<u64>, (unit, amount): (Unit, u64)) -> Tally {
        let budget = Budget { amount, window: Duration::from_secs(60) };
        let applied = AppliedBudget { unit, budget, rule: "bulk".to_owned(), reached: Reached::Held };
        let threshold = |amount| Threshold { measure: Measure::Rows, amount, rule: "bulk".to_owned() };
        let thresholds = threshold_at.map(threshold).into_iter().collect();
        let duty = Duty { relation: people(), thresholds, budgets: vec![applied] };
        let bulk = Bulk { counted: vec![bulk::Counted { duty, times }], ..Bulk::default() };
        let plan = StatementPlan { bulk, ..StatementPlan::quiet(Taint::Clean) };
        let permit = Permit::of_one("", plan.clone(), RecordFacts::default());
        Tally::of(&permit, &plan, &Whose { asker: asker(), target: "shop" }).unwrap()
    }

    fn covered(rows: Option<u64>) -> Covered {
        let digest = Digest::new([0; 32]);
        let scope = Scope { ceiling: Ceiling { rows, ..Ceiling::default() }, uses: 1, lasts: Duration::from_secs(60) };
        let now = Moment::from_unix_millis(0);
        let terms = Terms {
            asker: asker(),
            demands: vec![Demand { rule: "bulk".to_owned(), quorum: 1, escalates_at: None }],
            asked_at: now,
            decide_by: now.after(Duration::from_secs(60)),
            widest: scope,
        };
        let granted = Granted {
            by: GrantedBy::Quorum(Vec::<Approval>::new()),
            at: now,
            until: now.after(Duration::from_secs(60)),
            ceiling: scope.ceiling,
            uses_left: 1,
        };
        let progress = Progress { state: State::Approved(granted), review: Review::NotDemanded };
        let text = String::new;
        let ask = Ask {
            asker: asker(),
            target: text(),
            database: text(),
            role: text(),
            statement: digest,
            parameters: digest,
            objects: digest,
            masks: digest,
            policy: digest,
        };
        Grant::of(&terms, &progress, ask.clone()).unwrap().covers(&ask, now).unwrap()
    }

    const ROW: Weight = Weight { rows: 1, bytes: 100 };
    const NOW: Moment = Moment::from_unix_millis(1000);
    /// The end of the bucket.
    const THEN: Moment = Moment::from_unix_millis(2000);

    /// Rows until something else than going on follows; what is missing is reserved, as long as there is any.
    fn flow(tally: &mut Tally, mut left: u64) -> (u64, Next) {
        let mut gone = 0;
        loop {
            match tally.row(ROW, NOW) {
                Next::Go => gone += 1,
                Next::Reserve => {
                    let missing = tally.missing(ROW, NOW);
                    let want = missing[0].want(0);
                    if want.at_least > left {
                        return (gone, Next::Reserve);
                    }
                    let amount = want.at_most.min(left);
                    left -= amount;
                    tally.reserved(missing[0].spending, amount, THEN);
                }
                next @ (Next::Past(_) | Next::Ended) => return (gone, next),
            }
        }
    }

    fn past() -> Next {
        Next::Past(BTreeSet::from(["bulk".to_owned()]))
    }

    #[test]
    fn nothing_goes_that_is_not_reserved_and_nothing_past_the_threshold() {
        let mut free = tally(1, Some(100), (Unit::Rows, 1000));
        assert_eq!(free.row(ROW, NOW), Next::Reserve);
        assert_eq!(flow(&mut free, 1000), (100, past()));
        assert!(free.within().is_none());
        assert_eq!(flow(&mut tally(4, Some(100), (Unit::Rows, 1000)), 1000), (25, past()), "four in each row");
        assert_eq!(flow(&mut tally(1, None, (Unit::Rows, 30)), 30), (30, Next::Reserve));
        assert_eq!(flow(&mut tally(1, None, (Unit::Bytes, 1000)), 1000), (10, Next::Reserve), "of 100 bytes each");
    }

    #[test]
    fn what_did_not_leave_goes_back_and_no_more() {
        let mut kept = tally(1, Some(100), (Unit::Rows, 1000));
        let (gone, _) = flow(&mut kept, 1000);
        let back = kept.left_over();
        assert_eq!((back[0].kept, back[0].spent), (gone + 1, 0), "all that was kept, and nothing left");
        let mut left = tally(1, Some(100), (Unit::Rows, 1000));
        for _ in 0..16 {
            if left.row(ROW, NOW) == Next::Reserve {
                left.reserved(0, 20, THEN);
                assert_eq!(left.row(ROW, NOW), Next::Go);
            }
        }
        left.released();
        let rest = |unspent, spent| [LeftOver { spending: 0, unspent, kept: 0, spent }];
        assert_eq!(left.left_over(), rest(4, 16), "twenty less sixteen that left");
        assert_eq!(left.left_over(), rest(0, 0), "once");
        assert_eq!(left.row(ROW, NOW), Next::Reserve, "and then there is nothing to spend");
    }

    #[test]
    fn what_was_reserved_is_spent_before_its_bucket_ends_and_not_later() {
        let mut late = tally(1, None, (Unit::Rows, 1000));
        late.reserved(0, 20, THEN);
        assert_eq!((late.row(ROW, NOW), late.expired(NOW)), (Next::Go, vec![]));
        assert_eq!(late.row(ROW, THEN), Next::Reserve);
        assert_eq!(late.missing(ROW, THEN)[0].want(0).at_least, 1);
        assert_eq!(late.expired(THEN), [(0, 19)]);
        late.reserved(0, 5, THEN.after(Duration::from_secs(1)));
        assert_eq!(late.row(ROW, THEN), Next::Go);
        assert_eq!((late.left_over()[0].unspent, late.expired(THEN)), (4, vec![]));
    }

    #[test]
    fn under_an_approval_rows_go_up_to_its_ceiling_and_not_on_the_day_s_allowance() {
        let mut held = tally(1, Some(100), (Unit::UnapprovedRows, 100));
        assert_eq!(flow(&mut held, 100), (100, Next::Reserve));
        assert!(held.agreed(&covered(Some(300))) && !held.keeps());
        held.released();
        assert_eq!(flow(&mut held, 0), (200, Next::Ended));
        let back = held.left_over();
        assert_eq!((back[0].kept, back[0].spent), (100, 0), "what left with a human's word is given back");
        let mut narrow = tally(1, Some(100), (Unit::Rows, 1000));
        flow(&mut narrow, 1000);
        assert!(!narrow.agreed(&covered(Some(100))), "a hundred and one were counted");
    }

    #[test]
    fn the_next_statement_of_a_query_counts_on() {
        let mut first = tally(1, Some(100), (Unit::Rows, 1000));
        first.reserved(0, 60, THEN);
        for _ in 0..60 {
            assert_eq!(first.row(ROW, NOW), Next::Go);
        }
        let mut second = tally(1, Some(100), (Unit::Rows, 1000));
        second.follow(&first);
        assert_eq!(flow(&mut second, 1000), (40, past()));
    }
}
