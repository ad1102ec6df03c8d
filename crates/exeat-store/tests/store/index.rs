//! The index of a record: it finds what is there, keeps up with the log, is made anew where the log is another, and says
//! of sealed texts nothing to who has no key.

use std::os::unix::fs::{FileExt, PermissionsExt};

use exeat_store::index::{AccessFilter, CaughtUp, Filter, Index, IndexError, IndexPlace, SessionRow};
use exeat_store::keys::KeySet;
use exeat_store::read::BlobKind;
use exeat_store::record::{
    Decision, HeldChange, HeldEvent, MaskedColumn, Outcome, OutcomeResult, Recorder, SessionRecord, Statement,
};

use super::common::{POLICY, Place, allowed, done, principal, start};

const MASKED: [MaskedColumn<'static>; 1] =
    [MaskedColumn { column: "public.customers.ssn", label: "ssn", mask: "partial" }];

fn read(session: &mut SessionRecord, request: &str, sql: &str, relation: &str, masked: &[MaskedColumn<'_>]) {
    let _receipt = session
        .intent(&Statement {
            relations: &[relation.to_owned()],
            columns: &[format!("{relation}.id"), format!("{relation}.ssn")],
            masked,
            rules: &["readers".to_owned()],
            ..allowed(request, sql)
        })
        .unwrap();
}

/// Three sessions: `one` reads masked values and orders, `two` reads them in clear and fails, `three` is refused.
fn write(recorder: &Recorder) {
    let principal = principal();
    let mut one = recorder.start_session(&start("one", &principal)).unwrap();
    read(&mut one, "r1", "SELECT ssn FROM customers WHERE nick = 'zebrafish'", "public.customers", &MASKED);
    let _outcome = one.outcome(&done("r1")).unwrap();
    read(&mut one, "r2", "SELECT id FROM orders", "public.orders", &[]);
    one.approval(&HeldChange {
        what: HeldEvent::Requested,
        approval: "apr_1",
        request_id: "r2",
        rules: &["bulk"],
        policy: POLICY,
    })
    .unwrap();
    let _outcome = one.outcome(&done("r2")).unwrap();
    one.end("client closed").unwrap();

    let mut other = principal.clone();
    other.subject = "dpo-1".to_owned();
    let mut two = recorder.start_session(&start("two", &other)).unwrap();
    read(&mut two, "r1", "SELECT ssn FROM customers WHERE nick = 'zebrafish'", "public.customers", &[]);
    let failed = Outcome { result: OutcomeResult::Error, sqlstate: Some("57014"), rows: 0, ..done("r1") };
    let _outcome = two.outcome(&failed).unwrap();
    read(&mut two, "r2", "SELECT id FROM public.orders WHERE nick = 'heron'", "public.orders", &[]);
    let _outcome = two.outcome(&done("r2")).unwrap();
    two.end("client closed").unwrap();

    let mut three = recorder.start_session(&start("three", &principal)).unwrap();
    let refused = Statement::new("r1", "SELECT * FROM hr.salaries", Decision::Refuse, POLICY);
    let _receipt = three
        .intent(&Statement {
            code: Some("denied"),
            rules: &["no-payroll".to_owned()],
            relations: &["hr.salaries".to_owned()],
            ..refused
        })
        .unwrap();
    three.end("client closed").unwrap();
}

struct Asked {
    index: Index,
    keys: Option<std::sync::Arc<KeySet>>,
}

impl Asked {
    async fn of(place: &Place, with_keys: bool) -> (Self, CaughtUp) {
        let mut index = Index::open(&IndexPlace::beside(&place.data()), &place.data()).await.unwrap();
        let keys = with_keys.then(|| place.keys());
        let done = index.catch_up(keys.as_deref(), |_| {}).await.unwrap();
        (Self { index, keys }, done)
    }

    async fn rows(&mut self, filter: Filter) -> Vec<SessionRow> {
        let filter = Filter { limit: 100, ..filter };
        self.index.sessions(&filter, self.keys.as_deref()).await.unwrap()
    }

    /// Names, oldest first.
    async fn find(&mut self, filter: Filter) -> Vec<String> {
        self.rows(filter).await.into_iter().rev().map(|row| row.session).collect()
    }

    async fn text(&mut self, text: &str) -> Vec<String> {
        self.find(Filter { text: named(text), ..Filter::default() }).await
    }
}

fn named(name: &str) -> Option<String> {
    Some(name.to_owned())
}

#[tokio::test]
async fn each_filter_finds_what_it_says_and_nothing_else() {
    let place = Place::new();
    write(&place.open());
    let (mut asked, done) = Asked::of(&place, true).await;
    assert!(done.rebuilt && done.texts == 4 && done.texts_left == 0, "{done:?}");
    let none = Filter::default();
    for (filter, expected) in [
        (none.clone(), &["one", "two", "three"][..]),
        (Filter { principal: named("dpo-*"), ..none.clone() }, &["two"]),
        (Filter { principal: named("runner"), ..none.clone() }, &["one", "two", "three"]),
        (Filter { group: named("agents"), ..none.clone() }, &["one", "two", "three"]),
        (Filter { group: named("dpo"), ..none.clone() }, &[]),
        (Filter { target: named("crm"), ..none.clone() }, &[]),
        (Filter { source: named("127.0.0.1"), ..none.clone() }, &["one", "two", "three"]),
        (Filter { label: named("ssn"), relation: named("public.customers"), ..none.clone() }, &["one"]),
        (Filter { label: named("ssn"), relation: named("public.orders"), ..none.clone() }, &[]),
        (Filter { mask: named("partial"), ..none.clone() }, &["one"]),
        (Filter { column: named("public.customers.ssn"), ..none.clone() }, &["one", "two"]),
        (Filter { relation: named("public.*"), ..none.clone() }, &["one", "two"]),
        (Filter { relation: named("public.?ustomers"), ..none.clone() }, &[]),
        (Filter { decision: named("refuse"), ..none.clone() }, &["three"]),
        (Filter { code: named("denied"), rule: named("no-payroll"), ..none.clone() }, &["three"]),
        (Filter { rule: named("no-payroll"), decision: named("allow"), ..none.clone() }, &[]),
        (Filter { sqlstate: named("57014"), ..none.clone() }, &["two"]),
        // One statement failed, and another one read orders.
        (Filter { sqlstate: named("57014"), relation: named("public.orders"), ..none.clone() }, &[]),
        (Filter { sqlstate: named("57014"), relation: named("public.customers"), ..none.clone() }, &["two"]),
        (Filter { approval: named("apr_1"), ..none.clone() }, &["one"]),
        (Filter { text: named("zebrafish"), relation: named("public.customers"), ..none.clone() }, &["one", "two"]),
        (Filter { text: named("zebrafish"), relation: named("public.orders"), ..none.clone() }, &[]),
        (Filter { until: Some(jiff::Timestamp::UNIX_EPOCH), ..none.clone() }, &[]),
        (Filter { since: Some(jiff::Timestamp::UNIX_EPOCH), ..none.clone() }, &["one", "two", "three"]),
    ] {
        assert_eq!(asked.find(filter.clone()).await, expected, "{filter:?}");
    }
    let row = asked.rows(Filter { principal: named("dpo-1"), ..none }).await.remove(0);
    assert_eq!((row.statements, row.refused, row.failed, row.rows), (2, 0, 1, 1));
    assert_eq!((row.ended.as_deref(), row.source.as_str(), row.erased), (Some("client closed"), "127.0.0.1", false));
}

#[tokio::test]
async fn texts_are_found_by_words_and_phrases_and_only_with_the_keys() {
    let place = Place::new();
    write(&place.open());
    let (mut asked, _) = Asked::of(&place, true).await;
    assert_eq!(asked.text("ZebraFish").await, ["one", "two"]);
    assert_eq!(asked.text("heron orders").await, ["two"]);
    assert_eq!(asked.text("\"from orders\"").await, ["one"]);
    assert_eq!(asked.text("\"orders from\"").await, [""; 0]);
    assert_eq!(asked.text("zebra").await, [""; 0]);
    let filter = Filter { text: named("*'"), limit: 1, ..Filter::default() };
    let error = asked.index.sessions(&filter, asked.keys.as_deref()).await.unwrap_err();
    assert!(matches!(error, IndexError::NoWords { .. }), "{error}");
    let filter = Filter { text: named("heron"), limit: 1, ..Filter::default() };
    let error = asked.index.sessions(&filter, None).await.unwrap_err();
    assert!(error.to_string().contains("--keys"), "{error}");
}

#[tokio::test]
async fn the_index_holds_no_word_of_a_text() {
    let place = Place::new();
    write(&place.open());
    drop(Asked::of(&place, true).await);
    let path = place.data().join("index.db");
    let bytes = std::fs::read(&path).unwrap();
    let has = |word: &[u8]| bytes.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
    assert!(has(b"public.customers") && has(b"no-payroll"), "what lines say in clear is there");
    assert!(!has(b"zebrafish") && !has(b"heron") && !has(b"select "), "and nothing of what they seal");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn it_reads_on_where_it_was_and_has_keys_read_what_was_left() {
    let place = Place::new();
    let recorder = place.open();
    write(&recorder);
    let (mut asked, first) = Asked::of(&place, false).await;
    assert!(first.rebuilt && first.texts == 0 && first.texts_left == 4, "{first:?}");
    let principal = principal();
    let mut four = recorder.start_session(&start("four", &principal)).unwrap();
    read(&mut four, "r1", "SELECT 1 AS osprey", "public.customers", &MASKED);
    let _committed = four.commit().unwrap();
    let (mut again, more) = Asked::of(&place, true).await;
    assert!(!more.rebuilt && more.lines == 2 && more.texts == 5 && more.texts_left == 0, "{more:?}");
    assert_eq!(again.text("osprey").await, ["four"]);
    // How a statement ends may be read by another than its beginning, or by one that has been open since.
    let failed = Outcome { result: OutcomeResult::Error, sqlstate: Some("22012"), ..done("r1") };
    let _outcome = four.outcome(&failed).unwrap();
    let _committed = four.commit().unwrap();
    assert_eq!(asked.index.catch_up(None, |_| {}).await.unwrap().lines, 1);
    let filter = || Filter { sqlstate: named("22012"), label: named("ssn"), ..Filter::default() };
    assert_eq!(asked.find(filter()).await, ["four"]);
    assert_eq!(again.index.catch_up(None, |_| {}).await.unwrap().lines, 0);
    let events = again.rows(filter()).await.remove(0);
    let events = again.index.events(&events).await.unwrap();
    let kinds: Vec<&str> = events.events.iter().map(|event| event.kind()).collect();
    assert_eq!(kinds, ["session.start", "statement.intent", "statement.outcome"]);
    let whole: Vec<String> = place.events().into_iter().map(|event| event.line).collect();
    assert!(events.events.iter().all(|event| whole.contains(&event.line)), "as they stand");
}

#[tokio::test]
async fn an_index_of_another_log_or_version_or_of_nothing_is_made_anew() {
    let (place, other) = (Place::new(), Place::new());
    write(&place.open());
    write(&other.open());
    drop(Asked::of(&place, true).await);
    let path = place.data().join("index.db");
    let whole = std::fs::read(&path).unwrap();
    let rebuilt = async |what: &str| {
        let (mut asked, done) = Asked::of(&place, true).await;
        assert_eq!(asked.text("heron").await, ["two"], "{what}");
        done.rebuilt
    };
    assert!(!rebuilt("the same").await);
    let mut cut = whole.clone();
    cut.truncate(5000);
    for (what, bytes) in
        [("empty", Vec::new()), ("no database", b"SQLite format 3 it is not".repeat(400)), ("cut", cut)]
    {
        std::fs::write(&path, bytes).unwrap();
        assert!(rebuilt(what).await, "{what}");
    }
    let stranger = place.base.path().join("stranger.db");
    std::fs::write(&stranger, "").unwrap();
    super::server::run_in_file(&stranger, "CREATE TABLE cursor (version INTEGER)").unwrap();
    let error = Index::open(&IndexPlace::File(stranger), &place.data()).await.unwrap_err();
    assert!(error.to_string().contains("something else"), "{error}");
    drop(Asked::of(&other, true).await);
    std::fs::copy(other.data().join("index.db"), &path).unwrap();
    assert!(rebuilt("of another log").await);
    super::server::run_in_file(&path, "UPDATE cursor SET version = version + 1").unwrap();
    assert!(rebuilt("of another version").await);
}

/// The nth wrapped key as if it had been destroyed.
fn destroy(place: &Place, slot: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(place.data().join("session-keys")).unwrap();
    file.write_all_at(&[0; 60], slot * 60).unwrap();
}

#[tokio::test]
async fn of_an_erased_session_no_word_is_left() {
    for before in [true, false] {
        let place = Place::new();
        write(&place.open());
        if before {
            drop(Asked::of(&place, true).await);
        }
        // `two` said heron alone, and zebrafish as `one` did; `one` said "FROM orders" alone.
        destroy(&place, 1);
        let (mut asked, _) = Asked::of(&place, true).await;
        assert_eq!(asked.text("heron").await, [""; 0]);
        assert_eq!(asked.text("zebrafish").await, ["one"]);
        assert_eq!(asked.text("orders").await, ["one"]);
        let rows = asked.rows(Filter { sqlstate: named("57014"), ..Filter::default() }).await;
        assert!(rows.len() == 1 && rows[0].erased, "what lines say stays: {rows:?}");
    }
}

#[tokio::test]
async fn what_was_erased_is_so_in_a_copy_of_the_archive_too() {
    let place = Place::new();
    write(&place.open());
    destroy(&place, 1);
    // As an archive has them: two pieces.
    let keys = std::fs::read(place.data().join("session-keys")).unwrap();
    std::fs::remove_file(place.data().join("session-keys")).unwrap();
    std::fs::create_dir(place.data().join("keys")).unwrap();
    for (first, bytes) in [(0, &keys[..60]), (1, &keys[60..])] {
        std::fs::write(place.data().join(format!("keys/{first:020}.part")), bytes).unwrap();
    }
    let (mut asked, _) = Asked::of(&place, true).await;
    assert_eq!(asked.text("heron").await, [""; 0]);
    let rows = asked.rows(Filter { sqlstate: named("57014"), ..Filter::default() }).await;
    assert!(rows.len() == 1 && rows[0].erased, "{rows:?}");
}

/// So many relations do not fit a line.
fn many() -> Vec<String> {
    (0..900).map(|number| format!("warehouse.of_quite_a_long_name_indeed.{number:04}")).collect()
}

#[tokio::test]
async fn lists_too_long_for_their_line_are_found_with_the_keys_counted_without_and_gone_with_their_session() {
    let place = Place::new();
    let recorder = place.open();
    let principal = principal();
    let mut wide = recorder.start_session(&start("wide", &principal)).unwrap();
    let columns = many();
    let _receipt = wide.intent(&Statement { columns: &columns, ..allowed("r1", "SELECT 1") }).unwrap();
    let _outcome = wide.outcome(&done("r1")).unwrap();
    wide.end("client closed").unwrap();
    drop(recorder);
    let of_one = Filter { column: named(&columns[870]), ..Filter::default() };
    let (mut asked, found) = Asked::of(&place, false).await;
    assert_eq!((found.lists_left, asked.find(of_one.clone()).await), (1, Vec::new()));
    let (mut asked, found) = Asked::of(&place, true).await;
    assert_eq!((found.lists_left, asked.find(of_one.clone()).await), (0, vec!["wide".to_owned()]));
    destroy(&place, 0);
    let (mut asked, found) = Asked::of(&place, true).await;
    assert_eq!((found.lists_left, asked.find(of_one).await), (0, Vec::new()));
}

#[tokio::test]
async fn a_sealed_text_in_the_place_of_another_is_not_shown_for_it() {
    let place = Place::new();
    let recorder = place.open();
    let mut one = recorder.start_session(&start("one", &principal())).unwrap();
    for (request, sql) in [("r1", "SELECT 'owl'"), ("r2", "SELECT 'elk'")] {
        let _receipt = one.intent(&allowed(request, sql)).unwrap();
        let _outcome = one.outcome(&done(request)).unwrap();
    }
    one.end("client closed").unwrap();
    drop(recorder);
    let blobs: Vec<_> =
        place.of_kind("statement.intent").iter().map(|event| event.blob(BlobKind::Sql).unwrap()).collect();
    assert_eq!(blobs[0].bytes, blobs[1].bytes);
    let path = place.data().join("blobs/00000000000000000000.seg");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = |number: u64| usize::try_from(number).unwrap();
    let (first, second) = (&blobs[0], &blobs[1]);
    bytes.copy_within(at(first.offset)..at(first.offset + first.bytes), at(second.offset));
    std::fs::write(&path, bytes).unwrap();
    let (mut asked, _) = Asked::of(&place, true).await;
    let row = asked.rows(Filter::default()).await.remove(0);
    let texts = place.of_kind("statement.intent");
    let texts = texts.iter().map(|event| asked.index.text(&row, event, &place.keys()).unwrap());
    assert_eq!(texts.collect::<Vec<_>>(), [Some("SELECT 'owl'".to_owned()), None]);
}

#[tokio::test]
async fn words_are_found_in_the_client_s_encoding() {
    let place = Place::new();
    let recorder = place.open();
    let mut one = recorder.start_session(&start("one", &principal())).unwrap();
    let text = b"SELECT 'K\xe4uzchen'";
    let _receipt = one.intent(&Statement { sql: text, encoding: Some("LATIN1"), ..allowed("r1", "") }).unwrap();
    let _outcome = one.outcome(&done("r1")).unwrap();
    one.end("client closed").unwrap();
    drop(recorder);
    assert_eq!(Asked::of(&place, true).await.0.text("käuzchen").await, ["one"]);
}

#[tokio::test]
async fn a_text_that_others_have_is_read_from_them_where_the_first_is_erased() {
    let place = Place::new();
    write(&place.open());
    drop(Asked::of(&place, false).await);
    destroy(&place, 0);
    let (mut asked, _) = Asked::of(&place, true).await;
    assert_eq!(asked.text("zebrafish").await, ["two"]);
}

#[tokio::test]
async fn hashes_of_an_erased_text_are_gone_from_the_file() {
    let place = Place::new();
    write(&place.open());
    drop(Asked::of(&place, true).await);
    let path = place.data().join("index.db");
    let before = hashes(&path);
    destroy(&place, 1);
    drop(Asked::of(&place, true).await);
    let after = hashes(&path);
    // public, heron and where nobody else says; the rest others say too.
    assert!(!before.is_empty() && after.len() < before.len(), "{} of {}", after.len(), before.len());
}

/// What stands in the file as a hash does, in whole or after a common beginning.
fn hashes(path: &std::path::Path) -> std::collections::BTreeSet<Vec<u8>> {
    let bytes = std::fs::read(path).unwrap();
    let digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    bytes.split(|byte| !digit(byte)).filter(|run| (12..=16).contains(&run.len())).map(<[u8]>::to_vec).collect()
}

#[tokio::test]
async fn access_says_who_read_a_column_and_in_what_form() {
    let place = Place::new();
    write(&place.open());
    let (mut asked, _) = Asked::of(&place, false).await;
    let filter = AccessFilter {
        column: "public.customers.ssn".to_owned(),
        target: None,
        database: None,
        since: None,
        until: jiff::Timestamp::now(),
    };
    let found = asked.index.access(&filter).await.unwrap();
    let shown: Vec<_> = found
        .iter()
        .map(|access| (access.principal["sub"].as_str().unwrap(), access.mask.as_deref(), access.statements))
        .collect();
    assert_eq!(shown, [("dpo-1", None, 1), ("agent-7", Some("partial"), 1)]);
    let any = AccessFilter { column: "public.customers.*".to_owned(), ..filter.clone() };
    let counts: Vec<u64> = asked.index.access(&any).await.unwrap().iter().map(|access| access.statements).collect();
    assert_eq!(counts, [1, 1, 1], "one statement is one in each form, however many of its columns are asked for");
    let before = AccessFilter { until: jiff::Timestamp::UNIX_EPOCH, ..filter.clone() };
    assert!(asked.index.access(&before).await.unwrap().is_empty());
    let other = AccessFilter { column: "hr.salaries.pay".to_owned(), ..filter };
    assert!(asked.index.access(&other).await.unwrap().is_empty());
    assert!(asked.index.unanalysed(&other).await.unwrap().is_empty());
}

#[tokio::test]
async fn who_only_wrote_a_column_or_looked_it_up_is_found_by_it_and_has_not_read_it() {
    let place = Place::new();
    let recorder = place.open();
    let mut one = recorder.start_session(&start("one", &principal())).unwrap();
    let insert = Statement {
        relations: &["public.customers".to_owned()],
        touched: &["public.customers.ssn".to_owned()],
        ..allowed("r1", "INSERT INTO customers (ssn) VALUES ('1')")
    };
    let _receipt = one.intent(&insert).unwrap();
    let _outcome = one.outcome(&done("r1")).unwrap();
    one.end("client closed").unwrap();
    drop(recorder);
    let (mut asked, _) = Asked::of(&place, false).await;
    let column = "public.customers.ssn";
    let filter = AccessFilter {
        column: column.to_owned(),
        target: None,
        database: None,
        since: None,
        until: jiff::Timestamp::now(),
    };
    assert!(asked.index.access(&filter).await.unwrap().is_empty());
    assert!(asked.index.unanalysed(&filter).await.unwrap().is_empty());
    for (column, found) in [(column, 1), ("public.customers.id", 0)] {
        assert_eq!(asked.rows(Filter { column: named(column), ..Filter::default() }).await.len(), found, "{column}");
    }
}

#[tokio::test]
async fn what_was_denied_while_it_waited_was_not_read_and_what_nobody_looked_into_may_have_been() {
    let place = Place::new();
    let recorder = place.open();
    let principal = principal();
    let mut one = recorder.start_session(&start("one", &principal)).unwrap();
    read(&mut one, "r1", "SELECT ssn FROM customers", "public.customers", &[]);
    let refused = Outcome { result: OutcomeResult::Refused, rows: 0, ..done("r1") };
    let _outcome = one.outcome(&refused).unwrap();
    one.end("client closed").unwrap();
    let mut two = recorder.start_session(&start("two", &principal)).unwrap();
    let _receipt = two.intent(&Statement::new("r1", "SELECT ssn FROM customers", Decision::Allow, POLICY)).unwrap();
    let _outcome = two.outcome(&done("r1")).unwrap();
    two.end("client closed").unwrap();
    drop(recorder);
    let (mut asked, _) = Asked::of(&place, false).await;
    let filter = AccessFilter {
        column: "public.customers.ssn".to_owned(),
        target: None,
        database: None,
        since: None,
        until: jiff::Timestamp::now(),
    };
    assert!(asked.index.access(&filter).await.unwrap().is_empty());
    let may: Vec<String> = asked.index.unanalysed(&filter).await.unwrap().into_iter().map(|may| may.session).collect();
    assert_eq!(may, ["two"]);
    let rows = asked.rows(Filter::default()).await;
    assert_eq!(rows.iter().map(|row| row.refused).collect::<Vec<_>>(), [0, 1]);
    let refused = Filter { decision: named("refuse"), ..Filter::default() };
    for (filter, expected) in [
        (refused.clone(), &["one"][..]),
        (Filter { decision: named("*"), ..Filter::default() }, &["two", "one"]),
        (Filter { decision: named("allow"), ..Filter::default() }, &["two", "one"]),
        (Filter { relation: named("public.customers"), ..refused.clone() }, &["one"]),
        (Filter { relation: named("public.orders"), ..refused.clone() }, &[]),
        (Filter { since: Some(jiff::Timestamp::UNIX_EPOCH), ..refused.clone() }, &["one"]),
        (Filter { until: Some(jiff::Timestamp::UNIX_EPOCH), ..refused.clone() }, &[]),
        (Filter { code: named("denied"), ..refused }, &[]),
    ] {
        let sessions: Vec<String> = asked.rows(filter).await.into_iter().map(|row| row.session).collect();
        assert_eq!(sessions, expected);
    }
}
