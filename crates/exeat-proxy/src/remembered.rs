//! What was found out about texts that may come again: analyses, which all sessions of a database share, and
//! evaluations, which are one session's own. One budget of bytes for each, over all databases and sessions: texts that
//! never come again, each with a literal of its own, may not fill the memory, whoever sends how many of them. What
//! comes again stays, because the cache tells it from what came once.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use exeat_enforce::evaluate::Evaluation;
use exeat_sql::{MessageAnalysis, Scope};
use quick_cache::sync::Cache;
use quick_cache::{Equivalent, OptionsBuilder, Weighter};

/// Of analyses: some ten thousand ordinary ones.
const ANALYSES_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Of evaluations: those of a hundred statements in each of some two hundred sessions.
const EVALUATIONS_BYTES_MAX: u64 = 48 * 1024 * 1024;
/// Longer texts (bulk INSERTs, generated lists) are analysed anew each time: they do not come back.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// A short text may mean much (`*` of wide tables, many times): such a one is not kept either.
const ONE_BYTES_MAX: u64 = 256 * 1024;
/// About, for the cache's own tables.
const ONE_BYTES_USUAL: u64 = 2 * 1024;
/// Enough that sessions do not wait for each other, few enough that each holds what `ONE_BYTES_MAX` allows.
const SHARDS: usize = 16;
/// What the cache keeps beside a key and a value.
const ENTRY_BYTES: usize = 128;

#[derive(Debug)]
pub struct Remembered {
    analyses: Kept<AnalysisKey, Arc<MessageAnalysis>>,
    evaluations: Kept<EvaluationKey, Evaluated>,
}

pub type Evaluated = (Arc<MessageAnalysis>, Evaluation);

/// One reading of one database's catalog, or one state of a session's picture: nothing that was found out under another
/// number counts. Never the same twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Generation(u64);

impl Generation {
    #[expect(clippy::new_without_default, reason = "a new one is never like another")]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AnalysisKey {
    /// Of the database: versions of its snapshots begin anew with each.
    pub database: Generation,
    pub version: u64,
    pub scope: Arc<Scope>,
    pub sql: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct EvaluationKey {
    picture: Generation,
    sql: Arc<str>,
}

/// The same without a text of its own. Hashes as the key does, field by field.
#[derive(Hash)]
struct Wanted<'a> {
    picture: Generation,
    sql: &'a str,
}

impl Equivalent<EvaluationKey> for Wanted<'_> {
    fn equivalent(&self, key: &EvaluationKey) -> bool {
        self.picture == key.picture && *self.sql == *key.sql
    }
}

impl Default for Remembered {
    fn default() -> Self {
        Self { analyses: Kept::new(ANALYSES_BYTES_MAX), evaluations: Kept::new(EVALUATIONS_BYTES_MAX) }
    }
}

impl Remembered {
    pub fn analysis(&self, key: &AnalysisKey) -> Option<Arc<MessageAnalysis>> {
        self.analyses.cache.get(key).map(|kept| kept.value)
    }

    pub fn keep_analysis(&self, key: AnalysisKey, analysis: &Arc<MessageAnalysis>) {
        let bytes = key.sql.len() + analysis.bytes();
        if key.sql.len() <= TEXT_BYTES_MAX {
            self.analyses.keep(key, Arc::clone(analysis), bytes);
        }
    }

    pub fn evaluation(&self, picture: Generation, sql: &str) -> Option<Evaluated> {
        self.evaluations.cache.get(&Wanted { picture, sql }).map(|kept| kept.value)
    }

    pub fn keep_evaluation(&self, picture: Generation, sql: &str, evaluated: &Evaluated) {
        if sql.len() <= TEXT_BYTES_MAX {
            let (analysis, evaluation) = evaluated;
            // The analysis is counted here as well: it may be gone from the others.
            let bytes = sql.len() + analysis.bytes() + evaluation.bytes();
            self.evaluations.keep(EvaluationKey { picture, sql: Arc::from(sql) }, evaluated.clone(), bytes);
        }
    }
}

struct Kept<K, V> {
    cache: Cache<K, Weighed<V>, ByBytes>,
}

impl<K, V> fmt::Debug for Kept<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept(..)")
    }
}

/// Told once, when it comes: the cache asks often.
#[derive(Debug, Clone)]
struct Weighed<V> {
    value: V,
    bytes: u64,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl<K, V> Weighter<K, Weighed<V>> for ByBytes {
    fn weight(&self, _key: &K, kept: &Weighed<V>) -> u64 {
        kept.bytes
    }
}

impl<K: Eq + std::hash::Hash, V: Clone> Kept<K, V> {
    fn new(bytes_max: u64) -> Self {
        let items = usize::try_from(bytes_max / ONE_BYTES_USUAL).unwrap_or(usize::MAX);
        let options =
            OptionsBuilder::new().estimated_items_capacity(items).weight_capacity(bytes_max).shards(SHARDS).build();
        let cache = match options {
            Ok(options) => Cache::with_options(options, ByBytes, Default::default(), Default::default()),
            Err(_incomplete) => Cache::with_weighter(items, bytes_max, ByBytes),
        };
        Self { cache }
    }

    fn keep(&self, key: K, value: V, bytes: usize) {
        let bytes = u64::try_from(bytes + ENTRY_BYTES).unwrap_or(u64::MAX);
        if bytes <= ONE_BYTES_MAX {
            self.cache.insert(key, Weighed { value, bytes });
        }
    }
}

#[cfg(test)]
mod tests {
    use exeat_enforce::record::RecordFacts;
    use exeat_enforce::refusal::Refusal;
    use exeat_sql::{Analysis, Lineage, Output, StatementAnalysis, StatementKind};

    use super::*;

    /// Of so many output columns.
    fn analysis(columns: usize) -> Arc<MessageAnalysis> {
        let outputs = (0..columns).map(|_| Output::computed(Some("column"))).collect();
        let lineage = Lineage { outputs: Some(outputs), ..Lineage::default() };
        let known = Analysis::Known(Arc::new(lineage));
        let statement = StatementAnalysis { text: 0..20, kind: StatementKind::Select, analysis: known };
        Arc::new(MessageAnalysis { statements: vec![statement], fingerprint: None, steps: 0 })
    }

    fn key(database: Generation, sql: &str) -> AnalysisKey {
        let scope = Arc::new(Scope::default());
        AnalysisKey { database, version: 1, scope, sql: Arc::from(sql) }
    }

    fn evaluated() -> Evaluated {
        let refusal = Refusal::statement_changed();
        (analysis(3), Evaluation::Refuse { refusal, facts: RecordFacts::default() })
    }

    #[test]
    fn texts_that_never_come_again_take_no_more_than_the_budget_and_what_comes_again_stays() {
        let remembered = Remembered::default();
        let (database, hot) = (Generation::new(), analysis(5));
        for number in 0..200_000 {
            let once = format!("SELECT id, city, email FROM customers WHERE id = {number}");
            remembered.keep_analysis(key(database, &once), &analysis(number % 40));
            let again = key(database, "SELECT 1");
            if remembered.analysis(&again).is_none() {
                assert!(number < 1000, "what comes again was forgotten after {number} others");
                remembered.keep_analysis(again, &hot);
            }
            remembered.keep_evaluation(Generation::new(), &once, &evaluated());
        }
        let (analyses, evaluations) = (&remembered.analyses.cache, &remembered.evaluations.cache);
        assert!(analyses.weight() <= ANALYSES_BYTES_MAX && evaluations.weight() <= EVALUATIONS_BYTES_MAX);
        // Full, or the loop has shown nothing.
        assert!(analyses.weight() > ANALYSES_BYTES_MAX / 2 && evaluations.weight() > EVALUATIONS_BYTES_MAX / 2);
    }

    #[test]
    fn a_long_text_and_one_that_means_much_are_not_kept() {
        let remembered = Remembered::default();
        let database = Generation::new();
        for (sql, columns, kept) in [
            ("SELECT 1".to_owned(), 3, true),
            ("x".repeat(TEXT_BYTES_MAX + 1), 3, false),
            ("y".to_owned(), 5_000, false),
        ] {
            remembered.keep_analysis(key(database, &sql), &analysis(columns));
            assert_eq!(remembered.analysis(&key(database, &sql)).is_some(), kept, "{sql:.20}");
        }
    }

    #[test]
    fn nothing_found_out_under_another_generation_counts() {
        let remembered = Remembered::default();
        let (mine, other) = (Generation::new(), Generation::new());
        remembered.keep_analysis(key(mine, "SELECT 1"), &analysis(1));
        assert!(remembered.analysis(&key(mine, "SELECT 1")).is_some());
        assert!(remembered.analysis(&key(other, "SELECT 1")).is_none());
        remembered.keep_evaluation(mine, "SELECT 1", &evaluated());
        assert!(remembered.evaluation(mine, "SELECT 1").is_some());
        assert!(
            remembered.evaluation(other, "SELECT 1").is_none() && remembered.evaluation(mine, "SELECT 2").is_none()
        );
    }
}
