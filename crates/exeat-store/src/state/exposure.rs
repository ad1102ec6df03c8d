//! The exposure ledger: how much each asker has been shown of what, kept in buckets that age out. The arithmetic is
//! `exeat_policy::ledger`'s; here it happens once at a time for each asker, on file before anything is released.
//!
//! Several counters are reserved in one access, all or none: a row needs all of them. A gateway that dies between
//! reserving and giving back leaves counted what it had reserved and never less than it has released.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use exeat_policy::ledger::{Bucket, Budget, Counted, CounterKey, Reservation, Resets, Unit, Want};
use exeat_policy::{Asker, Moment, Person};
use ring::digest::{Context, SHA256};
use sqlx::any::{Any, AnyArguments, AnyRow};
use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::backend::Backend;
use super::error::Fault;
use super::{LimitFilter, State, StateError};
use crate::hex;

/// Counters that one access may reserve: protected relations of one statement, times what is counted of each.
pub const WISHES_MAX: usize = 256;

/// Counters shown at once.
pub const EXPOSURES_SHOWN_MAX: i64 = 10_000;

/// Of one reservation, and of a budget: sums of them fit the database's numbers.
const RESERVED_MAX: u64 = 1 << 40;
const BUDGET_MAX: u64 = 1 << 62;

/// What a statement wants of one counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    pub key: CounterKey,
    pub budget: Budget,
    pub want: Want,
}

/// An amount that is on file. Dropped it stays counted: what is spent is dropped, what is not is given back, once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is not given back stays counted"]
pub struct Reserved {
    counter: String,
    bucket: Moment,
    /// Which row it was added to: one that was reset since has nothing to give back.
    born: i64,
    amount: u64,
    left: u64,
}

impl Reserved {
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// What others could still reserve beside it, when it was reserved.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The end of the bucket that it is counted in: what leaves later has to be counted again.
    pub fn counted_in(&self) -> Moment {
        self.bucket
    }

    /// So much of it, or all there is, apart from the rest.
    pub fn split(&mut self, amount: u64) -> Self {
        let amount = amount.min(self.amount);
        self.amount -= amount;
        Self { counter: self.counter.clone(), amount, ..*self }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum LedgerVerdict {
    /// One for each wish, in their order.
    Reserved(Vec<Reserved>),
    /// Nothing was reserved. `wish`: the first that could not be met.
    Exhausted { wish: usize, used: u64, limit: u64, resets_at: Resets },
}

/// One counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    pub key: CounterKey,
    pub used: u64,
    /// When the oldest bucket ages out.
    pub next_free: Moment,
}

impl State {
    /// Puts the amounts on file, if all of them fit. An error reserves nothing that may be released.
    pub async fn reserve(&self, wishes: &[Wish], now: Moment) -> Result<LedgerVerdict, StateError> {
        if wishes.len() > WISHES_MAX {
            return Err(StateError::TooManyCounters { counters: wishes.len(), limit: WISHES_MAX });
        }
        let wishes = wishes.to_vec();
        let born = self.random_number()?;
        self.access("reserve exposure", move |backend| async move { reserve(&backend, &wishes, (now, born)).await })
            .await
    }

    /// Takes back what was reserved and not released. After an error it stays counted.
    pub async fn give_back(&self, unspent: Vec<Reserved>) -> Result<(), StateError> {
        let unspent: Vec<_> = unspent.into_iter().filter(|part| part.amount > 0).collect();
        if unspent.is_empty() {
            return Ok(());
        }
        self.access("give back exposure", move |backend| async move { Ok(give_back(&backend, &unspent).await?) }).await
    }

    /// What counts at this moment, in order.
    pub async fn exposures(&self, filter: &LimitFilter, now: Moment) -> Result<Vec<Exposure>, StateError> {
        let filter = filter.clone();
        self.access("list exposure", move |backend| async move {
            let rows = filtered(
                sqlx::query(
                    "SELECT issuer, subject, actor, target, counted, unit, CAST(sum(used) AS BIGINT) AS used, \
                     min(forget_at) AS next_free FROM exposure \
                     WHERE ($1 = '' OR subject = $1 OR actor = $1) AND ($2 = '' OR target = $2) \
                       AND ($3 = '' OR label = $3) AND forget_at > $4 AND used > 0 \
                     GROUP BY counter, issuer, subject, actor, target, counted, unit ORDER BY counter LIMIT $5",
                ),
                &filter,
            )
            .bind(now.unix_millis())
            .bind(EXPOSURES_SHOWN_MAX)
            .fetch_all(&backend.pool)
            .await?;
            let mut found =
                rows.iter().map(|row| exposure(row).ok_or(Fault::Shape("a counter"))).collect::<Result<Vec<_>, _>>()?;
            found.sort_by(|a, b| a.key.cmp(&b.key));
            Ok(found)
        })
        .await
    }

    /// Forgets what was counted. Says how many counters there were.
    pub async fn reset_exposures(&self, filter: &LimitFilter) -> Result<u64, StateError> {
        let filter = filter.clone();
        self.access("reset exposure", move |backend| async move {
            let rows = filtered(
                sqlx::query(
                    "DELETE FROM exposure WHERE ($1 = '' OR subject = $1 OR actor = $1) AND ($2 = '' OR target = $2) \
                     AND ($3 = '' OR label = $3) RETURNING counter",
                ),
                &filter,
            )
            .fetch_all(&backend.pool)
            .await?;
            let counters =
                rows.iter().map(|row| row.try_get::<String, _>("counter")).collect::<Result<BTreeSet<_>, _>>()?;
            Ok(u64::try_from(counters.len()).unwrap_or(u64::MAX))
        })
        .await
    }

    /// Removes what counts no more. Says how many rows that were.
    pub async fn forget_exposures(&self, now: Moment) -> Result<u64, StateError> {
        self.access("forget exposure", move |backend| async move {
            let done = sqlx::query("DELETE FROM exposure WHERE forget_at <= $1")
                .bind(now.unix_millis())
                .execute(&backend.pool)
                .await?;
            Ok(done.rows_affected())
        })
        .await
    }
}

/// Buckets by counter, as on file and with what this access adds.
type Buckets = BTreeMap<String, Vec<Bucket>>;

/// What is added: the amount, when it is forgotten, and whose it is.
struct Addition<'a> {
    amount: u64,
    forget_at: Moment,
    key: &'a CounterKey,
}

async fn reserve(backend: &Backend, wishes: &[Wish], (now, born): (Moment, i64)) -> Result<LedgerVerdict, Fault> {
    let counters: Vec<String> = wishes.iter().map(|wish| counter(&wish.key)).collect();
    if counters.is_empty() {
        return Ok(LedgerVerdict::Reserved(Vec::new()));
    }
    let subjects: BTreeSet<String> = wishes.iter().map(|wish| format!("exposure {:?}", wish.key.asker)).collect();
    let mut transaction = backend.write_about(&subjects).await?;
    let mut buckets = read(&mut transaction, &counters).await?;
    let mut additions: BTreeMap<(&str, Moment), Addition<'_>> = BTreeMap::new();
    let mut amounts = Vec::with_capacity(wishes.len());
    for (number, (wish, counter)) in wishes.iter().zip(&counters).enumerate() {
        let known = buckets.entry(counter.clone()).or_default();
        let (amount, bucket, left) = match decide(wish, known, now) {
            Reservation::Reserved { amount, bucket, left } => (amount, bucket, left),
            Reservation::Exhausted { used, limit, resets_at } => {
                return Ok(LedgerVerdict::Exhausted { wish: number, used, limit, resets_at });
            }
        };
        // A counter wished for twice is counted twice.
        known.push(Bucket { ends_at: bucket, used: amount });
        let forget_at = wish.budget.forgotten_at(bucket);
        let addition = additions.entry((counter, bucket)).or_insert(Addition { amount: 0, forget_at, key: &wish.key });
        addition.amount = addition.amount.saturating_add(amount);
        addition.forget_at = addition.forget_at.max(forget_at);
        amounts.push((counter, bucket, (amount, left)));
    }
    let births = add(&mut transaction, &additions, born).await?;
    let reserved = amounts.into_iter().map(|(counter, bucket, (amount, left))| {
        let born = births.get(&(counter.clone(), bucket)).copied().ok_or(Fault::Shape("a counter"))?;
        Ok(Reserved { counter: counter.clone(), bucket, born, amount, left })
    });
    let reserved = reserved.collect::<Result<Vec<_>, Fault>>()?;
    transaction.commit().await?;
    Ok(LedgerVerdict::Reserved(reserved))
}

fn decide(wish: &Wish, known: &[Bucket], now: Moment) -> Reservation {
    let budget = Budget { amount: wish.budget.amount.min(BUDGET_MAX), ..wish.budget };
    if wish.want.at_least > RESERVED_MAX {
        let used = budget.used(known, now);
        return Reservation::Exhausted { used, limit: budget.amount, resets_at: Resets::Never };
    }
    let want =
        Want { at_most: wish.want.at_most.min(RESERVED_MAX), ahead: wish.want.ahead.min(RESERVED_MAX), ..wish.want };
    budget.reserve(known, want, now)
}

async fn read(transaction: &mut AnyConnection, counters: &[String]) -> Result<Buckets, Fault> {
    let places = places(1, counters.len());
    let text = format!("SELECT counter, ends_at, used FROM exposure WHERE counter IN ({places})");
    let query = counters.iter().fold(sqlx::query(AssertSqlSafe(text)), |query, counter| query.bind(counter.as_str()));
    let mut buckets = Buckets::new();
    for row in query.fetch_all(transaction).await? {
        let used: i64 = row.try_get("used")?;
        let bucket = Bucket {
            ends_at: Moment::from_unix_millis(row.try_get("ends_at")?),
            used: u64::try_from(used).map_err(|_| Fault::Shape("a counter"))?,
        };
        buckets.entry(row.try_get("counter")?).or_default().push(bucket);
    }
    Ok(buckets)
}

const COLUMNS: usize = 12;

/// Says for each row when it was made.
async fn add(
    transaction: &mut AnyConnection,
    additions: &BTreeMap<(&str, Moment), Addition<'_>>,
    born: i64,
) -> Result<BTreeMap<(String, Moment), i64>, Fault> {
    let rows: Vec<String> =
        (0..additions.len()).map(|number| format!("({})", places(number * COLUMNS + 1, COLUMNS))).collect();
    let text = format!(
        "INSERT INTO exposure (counter, ends_at, born, used, forget_at, issuer, subject, actor, target, label, counted, \
         unit) VALUES {} ON CONFLICT (counter, ends_at) DO UPDATE SET used = exposure.used + excluded.used, \
         forget_at = CASE WHEN excluded.forget_at > exposure.forget_at THEN excluded.forget_at \
         ELSE exposure.forget_at END RETURNING counter, ends_at, born",
        rows.join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(text));
    for ((counter, bucket), addition) in additions {
        query = described(query.bind(*counter).bind(bucket.unix_millis()).bind(born), addition)?;
    }
    let mut births = BTreeMap::new();
    for row in query.fetch_all(transaction).await? {
        let bucket = Moment::from_unix_millis(row.try_get("ends_at")?);
        births.insert((row.try_get("counter")?, bucket), row.try_get("born")?);
    }
    Ok(births)
}

type Query<'q> = sqlx::query::Query<'q, Any, AnyArguments>;

fn described<'q>(query: Query<'q>, addition: &Addition<'q>) -> Result<Query<'q>, Fault> {
    let key = addition.key;
    let counted = serde_json::to_string(&key.counted).map_err(|_| Fault::Shape("a counter"))?;
    Ok(query
        .bind(number(addition.amount))
        .bind(addition.forget_at.unix_millis())
        .bind(key.asker.human.issuer.as_str())
        .bind(key.asker.human.subject.as_str())
        .bind(key.asker.actor.as_deref())
        .bind(key.target.as_str())
        .bind(label(&key.counted))
        .bind(counted)
        .bind(key.unit.name()))
}

fn label(counted: &Counted) -> &str {
    match counted {
        Counted::Target | Counted::Relation(_) => "",
        Counted::Label { label, relation: _ } => label,
    }
}

async fn give_back(backend: &Backend, unspent: &[Reserved]) -> Result<(), sqlx::Error> {
    let mut merged: BTreeMap<(&str, Moment, i64), u64> = BTreeMap::new();
    for Reserved { counter, bucket, born, amount, left: _ } in unspent {
        let sum = merged.entry((counter, *bucket, *born)).or_default();
        *sum = sum.saturating_add(*amount);
    }
    // In the same order everywhere: two who give back at once wait for each other, and never in a circle.
    let mut transaction = backend.write_about(&BTreeSet::new()).await?;
    for ((counter, bucket, born), amount) in merged {
        sqlx::query(
            "UPDATE exposure SET used = CASE WHEN used > $1 THEN used - $1 ELSE 0 END \
             WHERE counter = $2 AND ends_at = $3 AND born = $4",
        )
        .bind(number(amount))
        .bind(counter)
        .bind(bucket.unix_millis())
        .bind(born)
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await
}

/// `$first, $first+1, …`
fn places(first: usize, count: usize) -> String {
    let mut text = String::new();
    for number in first..first + count {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(text, "{comma}${number}");
    }
    text
}

fn number(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// The same counter has the same name at every gateway; each part has its length before it.
fn counter(key: &CounterKey) -> String {
    let CounterKey { asker: Asker { human: Person { issuer, subject }, actor }, target, counted, unit } = key;
    let mut context = Context::new(&SHA256);
    let kind = if actor.is_some() { "acts" } else { "alone" };
    let counted: Vec<&str> = match counted {
        Counted::Target => vec!["target"],
        Counted::Relation(relation) => vec!["relation", &relation.schema, &relation.name],
        Counted::Label { label, relation } => vec!["label", label, &relation.schema, &relation.name],
    };
    let whose = [issuer.as_str(), subject, kind, actor.as_deref().unwrap_or_default(), target, unit.name()];
    for part in whose.into_iter().chain(counted) {
        context.update(&part.len().to_le_bytes());
        context.update(part.as_bytes());
    }
    hex::text(context.finish().as_ref())
}

/// $1 to $3.
fn filtered<'q>(query: Query<'q>, filter: &'q LimitFilter) -> Query<'q> {
    [&filter.principal, &filter.target, &filter.label]
        .into_iter()
        .fold(query, |query, wanted| query.bind(wanted.as_deref().unwrap_or_default()))
}

fn exposure(row: &AnyRow) -> Option<Exposure> {
    let unit: String = row.try_get("unit").ok()?;
    let counted: String = row.try_get("counted").ok()?;
    let human = Person { issuer: row.try_get("issuer").ok()?, subject: row.try_get("subject").ok()? };
    let key = CounterKey {
        asker: Asker { human, actor: row.try_get("actor").ok()? },
        target: row.try_get("target").ok()?,
        counted: serde_json::from_str(&counted).ok()?,
        unit: *Unit::ALL.iter().find(|one| one.name() == unit)?,
    };
    let used = u64::try_from(row.try_get::<i64, _>("used").ok()?).ok()?;
    Some(Exposure { key, used, next_free: Moment::from_unix_millis(row.try_get("next_free").ok()?) })
}
