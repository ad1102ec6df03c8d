//! What of a server's answer reaches the client: the description held against the plan, rows masked in the stream,
//! and every other message by what it may carry. The server here is hostile: it says what was not predicted.

// The lint wall exempts test functions, not the helpers they share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use exeat_enforce::evaluate::{Evaluation, SessionFacts, evaluate};
use exeat_enforce::plan::{CopyStream, Outputs, StatementPlan};
use exeat_enforce::release::{
    BoundMask, Counts, MaskMismatch, Outbox, ReleaseError, bind, release, release_copy, release_function_result,
    release_row,
};
use exeat_enforce::scrub::Taint;
use exeat_policy::Policy;
use exeat_sql::{CatalogSnapshot, ColumnId, Oid};
use exeat_wire::{BackendMessage, DataRow, Fields, Format, RowDescription, TransactionStatus, encode};

const SECRET: &str = "123-45-6789";
const MASKED: &[u8] = b"[redacted by exeat]";

const INT4: u32 = 23;
const TEXT: u32 = 25;
const VARCHAR: u32 = 1043;

const POLICY: &str = r#"
version: 1
labels:
  shop:
    email: ["public.customers.email"]
    ssn: ["public.customers.ssn"]
    city: ["public.customers.city"]
    created: ["public.customers.created"]
rules:
  - id: read
    target: shop
    allow: [read, opaque]
  - id: mask
    target: shop
    mask:
      email: {with: redact}
      ssn: {with: partial, last: 4}
      city: {with: nullify}
      created: {with: redact}
"#;

struct Shop {
    snapshot: Arc<CatalogSnapshot>,
    policy: Policy,
    session: SessionFacts,
}

impl Shop {
    fn new() -> Self {
        let snapshot = Arc::new(support::shop());
        let policy = support::policy(POLICY);
        let session = support::session(&snapshot, &policy, support::principal("agent-7"));
        Self { snapshot, policy, session }
    }

    /// The plan of a statement that policy permits.
    fn plan(&self, sql: &str) -> StatementPlan {
        let analysis = support::on_parser_stack(|| support::analyse(sql, &self.snapshot)).expect("it parses");
        match evaluate(&self.session, &self.policy, sql, &analysis) {
            Evaluation::Permit(permit) => permit.plans[0].clone(),
            other => panic!("{sql}: {other:?}"),
        }
    }

    /// A column as the server announces it: name, its origin in `public`, type.
    fn field<'a>(&self, name: &'a str, origin: Option<(&str, &str)>, type_oid: u32) -> Announced<'a> {
        let id = origin.map(|(table, column)| {
            let relation = self.snapshot.relation_by_name("public", table).expect("a table of the fixture");
            let column = relation.columns.iter().find(|known| known.name == column).expect("a column of the fixture");
            (relation.oid.0, column.attribute)
        });
        Announced { name, id: id.unwrap_or_default(), type_oid, format: Format::Text }
    }

    fn customer<'a>(&self, column: &'a str, type_oid: u32) -> Announced<'a> {
        self.field(column, Some(("customers", column)), type_oid)
    }

    fn bind(&self, plan: &StatementPlan, fields: &[Announced<'_>]) -> Result<BoundMask, MaskMismatch> {
        let described = description(fields);
        bind(plan, &described, &self.session.seals, &self.snapshot, |index| fields[index].format)
    }

    /// The row as the client gets it.
    fn row(&self, plan: &StatementPlan, fields: &[Announced<'_>], cells: Cells<'_>) -> (Vec<Option<Vec<u8>>>, Counts) {
        let bound = self.bind(plan, fields).expect("the description is the predicted one");
        let (mut counts, mut out) = (Counts::default(), Outbox::default());
        release_row(&data_row(cells), &bound, &mut counts, &mut out).expect("the row is released");
        assert_eq!(counts.bytes, out.len() as u64);
        let BackendMessage::DataRow(row) = decode(out.chunk()) else { panic!("not a row") };
        (row.cells().map(|cell| cell.unwrap().map(<[u8]>::to_vec)).collect(), counts)
    }
}

type Cells<'a> = &'a [Option<&'a [u8]>];

#[derive(Clone, Copy)]
struct Announced<'a> {
    name: &'a str,
    id: (u32, i16),
    type_oid: u32,
    format: Format,
}

impl Announced<'_> {
    fn binary(mut self) -> Self {
        self.format = Format::Binary;
        self
    }
}

fn decode(bytes: &[u8]) -> BackendMessage {
    let mut buffer = BytesMut::from(bytes);
    let frame = exeat_wire::split_backend(&mut buffer).unwrap().expect("a whole message");
    assert!(buffer.is_empty(), "one message");
    exeat_wire::backend::decode(frame).unwrap()
}

fn message(tag: u8, payload: &[u8]) -> BackendMessage {
    let mut bytes = BytesMut::new();
    bytes.put_u8(tag);
    bytes.put_u32(u32::try_from(payload.len() + 4).unwrap());
    bytes.put_slice(payload);
    decode(&bytes)
}

fn description(fields: &[Announced<'_>]) -> RowDescription {
    let mut payload = BytesMut::new();
    payload.put_u16(u16::try_from(fields.len()).unwrap());
    for field in fields {
        payload.put_slice(field.name.as_bytes());
        payload.put_u8(0);
        payload.put_u32(field.id.0);
        payload.put_i16(field.id.1);
        payload.put_u32(field.type_oid);
        payload.put_i16(-1);
        payload.put_i32(-1);
        payload.put_i16(field.format.code());
    }
    match message(b'T', &payload) {
        BackendMessage::RowDescription(described) => described,
        other => panic!("{other:?}"),
    }
}

fn data_row(cells: Cells<'_>) -> DataRow {
    let mut bytes = BytesMut::new();
    encode::data_row(&mut bytes, cells).unwrap();
    match decode(&bytes) {
        BackendMessage::DataRow(row) => row,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_predicted_description_binds_and_every_other_is_refused() {
    let shop = Shop::new();
    let plan = shop.plan("select id, email, 1 as one from customers");
    let (id, email) = (shop.customer("id", INT4), shop.customer("email", VARCHAR));
    let one = shop.field("one", None, INT4);
    assert!(shop.bind(&plan, &[id, email, one]).is_ok());
    let renamed = |field: Announced<'static>| Announced { name: SECRET, ..field };
    for (fields, mismatch) in [
        (vec![], MaskMismatch::Count { described: 0, predicted: 3 }),
        (vec![id, email], MaskMismatch::Count { described: 2, predicted: 3 }),
        (vec![id, email, one, email], MaskMismatch::Count { described: 4, predicted: 3 }),
        (vec![email, id, one], MaskMismatch::Origin { index: 0 }),
        (vec![id, shop.customer("ssn", TEXT), one], MaskMismatch::Origin { index: 1 }),
        (vec![id, shop.field("email", Some(("codes", "email")), VARCHAR), one], MaskMismatch::Origin { index: 1 }),
        // A sealed value that went through an expression has no origin, and an unsealed one may not get one.
        (vec![id, shop.field("email", None, VARCHAR), one], MaskMismatch::Origin { index: 1 }),
        (vec![id, email, shop.field("one", Some(("customers", "ssn")), TEXT)], MaskMismatch::Origin { index: 2 }),
        (vec![renamed(shop.customer("id", INT4)), email, one], MaskMismatch::Name { index: 0 }),
        (vec![id, email, renamed(shop.field("one", None, INT4))], MaskMismatch::Name { index: 2 }),
        (vec![id, Announced { type_oid: INT4, ..email }, one], MaskMismatch::Type { index: 1 }),
        (vec![id, Announced { id: (0, email.id.1), ..email }, one], MaskMismatch::Origin { index: 1 }),
    ] {
        assert_eq!(shop.bind(&plan, &fields).unwrap_err(), mismatch);
    }
}

#[test]
fn a_statement_that_returns_no_rows_binds_to_no_description() {
    let shop = Shop::new();
    let plan = shop.plan("begin");
    assert!(matches!(plan.outputs, Outputs::None));
    assert_eq!(shop.bind(&plan, &[]).unwrap_err(), MaskMismatch::Rows);
    assert_eq!(shop.bind(&plan, &[shop.customer("email", VARCHAR)]).unwrap_err(), MaskMismatch::Rows);
}

#[test]
fn a_mismatch_says_nothing_of_the_server() {
    let shop = Shop::new();
    let plan = shop.plan("select email from customers");
    let lie = Announced { name: SECRET, ..shop.customer("email", VARCHAR) };
    assert!(!shop.bind(&plan, &[lie]).unwrap_err().to_string().contains(SECRET));
}

#[test]
fn sealed_cells_are_masked_in_text_and_binary_and_their_neighbours_pass() {
    let shop = Shop::new();
    let plan = shop.plan("select c.id, email, ssn, city, c.created, note from customers c, orders");
    let fields = [
        shop.customer("id", INT4),
        shop.customer("email", VARCHAR),
        shop.customer("ssn", TEXT),
        shop.customer("city", TEXT),
        shop.customer("created", 1184),
        shop.field("note", Some(("orders", "note")), TEXT),
    ];
    let cells: Cells<'_> = &[
        Some(b"\0\0\0\x07"),
        Some(b"a@b.c"),
        Some(SECRET.as_bytes()),
        Some(b"Bern"),
        Some(b"\0\0\0\0\0\0\0\x01"),
        Some(b"plain"),
    ];
    for fields in [fields, fields.map(Announced::binary)] {
        let (row, counts) = shop.row(&plan, &fields, cells);
        let text = |cell: &Option<Vec<u8>>| cell.clone().map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(row[0].as_deref(), Some(&b"\0\0\0\x07"[..]));
        assert_eq!(row[1].as_deref(), Some(MASKED));
        assert_eq!(text(&row[2]).as_deref(), Some("*******6789"));
        assert_eq!(row[3], None);
        assert_eq!(row[4], None, "no text is a timestamp");
        assert_eq!(row[5].as_deref(), Some(&b"plain"[..]));
        assert_eq!((counts.rows, counts.cells_masked), (1, 4));
    }
}

#[test]
fn null_stays_null_and_counts_as_nothing_masked() {
    let shop = Shop::new();
    let plan = shop.plan("select email, ssn from customers");
    let fields = [shop.customer("email", VARCHAR), shop.customer("ssn", TEXT)];
    let (row, counts) = shop.row(&plan, &fields, &[None, None]);
    assert_eq!(row, [None, None]);
    assert_eq!((counts.rows, counts.cells_masked), (1, 0));
    let (row, counts) = shop.row(&plan, &fields, &[Some(b""), None]);
    assert_eq!(row, [Some(MASKED.to_vec()), None]);
    assert_eq!(counts.cells_masked, 1);
}

#[test]
fn rows_add_up() {
    let shop = Shop::new();
    let bound = shop
        .bind(&shop.plan("select email from customers"), &[shop.customer("email", VARCHAR)])
        .expect("the predicted description");
    let (mut counts, mut out) = (Counts::default(), Outbox::default());
    for _ in 0..3 {
        release_row(&data_row(&[Some(b"a@b.c")]), &bound, &mut counts, &mut out).unwrap();
    }
    assert_eq!((counts.rows, counts.cells_masked, counts.bytes), (3, 3, out.len() as u64));
}

#[test]
fn a_row_of_another_shape_leaves_nothing_behind() {
    let shop = Shop::new();
    let masked = (shop.plan("select email from customers"), [shop.customer("email", VARCHAR)]);
    let plain = (shop.plan("select id from customers"), [shop.customer("id", INT4)]);
    for (plan, fields) in [masked, plain] {
        let bound = shop.bind(&plan, &fields).unwrap();
        let two: Cells<'_> = &[Some(SECRET.as_bytes()), Some(SECRET.as_bytes())];
        for cells in [&[][..], two] {
            let (mut counts, mut out) = (Counts::default(), Outbox::default());
            let released = release_row(&data_row(cells), &bound, &mut counts, &mut out);
            assert_eq!(released, Err(ReleaseError::RowShape));
            assert!(out.is_empty() && counts == Counts::default());
        }
    }
}

#[test]
fn a_broken_row_leaves_nothing_behind() {
    let shop = Shop::new();
    let bound = shop
        .bind(
            &shop.plan("select email, ssn from customers"),
            &[shop.customer("email", VARCHAR), shop.customer("ssn", TEXT)],
        )
        .unwrap();
    // Two cells announced, the second one cut short; then one too many bytes.
    let cut = [&b"\0\x02\0\0\0\x01a\0\0\0\x09"[..], SECRET.as_bytes().get(..3).unwrap()].concat();
    let long = [&b"\0\x02\0\0\0\x01a\0\0\0\x01b"[..], SECRET.as_bytes()].concat();
    for payload in [cut, long] {
        let BackendMessage::DataRow(row) = message(b'D', &payload) else { panic!("not a row") };
        let (mut counts, mut out) = (Counts::default(), Outbox::default());
        assert!(matches!(release_row(&row, &bound, &mut counts, &mut out), Err(ReleaseError::Decode(_))));
        assert!(out.is_empty() && counts == Counts::default());
    }
}

#[test]
fn named_opaque_masks_what_the_server_announces_as_sealed() {
    let shop = Shop::new();
    let plan = shop.plan("select hr.unread(1), id, ssn from customers");
    assert!(matches!(plan.outputs, Outputs::ByOrigin));
    let fields = [shop.field("unread", None, INT4), shop.customer("id", INT4), shop.customer("ssn", TEXT)];
    let (row, counts) = shop.row(&plan, &fields, &[Some(b"1"), Some(b"2"), Some(SECRET.as_bytes())]);
    assert_eq!(row, [Some(b"1".to_vec()), Some(b"2".to_vec()), Some(b"*******6789".to_vec())]);
    assert_eq!(counts.cells_masked, 1);
    let short = data_row(&[Some(b"1"), Some(b"2")]);
    let bound = shop.bind(&plan, &fields).unwrap();
    let released = release_row(&short, &bound, &mut Counts::default(), &mut Outbox::default());
    assert_eq!(released, Err(ReleaseError::RowShape));
}

fn unchecked() -> StatementPlan {
    StatementPlan { outputs: Outputs::Unchecked, ..StatementPlan::quiet(Taint::Clean) }
}

#[test]
fn unchecked_passes_rows_as_they_are() {
    let plan = unchecked();
    let shop = Shop::new();
    let bound = shop.bind(&plan, &[shop.customer("ssn", TEXT)]).unwrap();
    for cells in [&[Some(&b"a"[..])][..], &[Some(&b"a"[..]), None][..]] {
        let (mut counts, mut out) = (Counts::default(), Outbox::default());
        let row = data_row(cells);
        release_row(&row, &bound, &mut counts, &mut out).unwrap();
        assert_eq!(out.chunk(), row.frame.bytes());
        assert_eq!((counts.rows, counts.cells_masked), (1, 0));
    }
}

/// One message of every kind a server can send, and what becomes of it under each taint.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    AsItIs,
    Rebuilt,
    Dropped,
    NotAllowed,
}

fn every_kind() -> Vec<(BackendMessage, [Fate; 3])> {
    use Fate::{AsItIs, Dropped, NotAllowed, Rebuilt};
    let fields = Fields::new("ERROR", "22P02", SECRET).with(b'D', SECRET).with(b'H', SECRET).with(b'W', SECRET);
    let (mut error, mut notice) = (BytesMut::new(), BytesMut::new());
    fields.encode_error(&mut error);
    fields.encode_notice(&mut notice);
    let built = |write: fn(&mut BytesMut)| {
        let mut out = BytesMut::new();
        write(&mut out);
        decode(&out)
    };
    let described = description(&[]);
    let passes = [AsItIs; 3];
    let never = [NotAllowed; 3];
    vec![
        (decode(&error), [AsItIs, Rebuilt, Rebuilt]),
        (decode(&notice), [AsItIs, Rebuilt, Dropped]),
        (BackendMessage::RowDescription(described), passes),
        // User code may have set it.
        (message(b'S', b"TimeZone\0UTC\0"), [AsItIs, AsItIs, Dropped]),
        (message(b't', b"\0\x01\0\0\0\x17"), passes),
        (message(b'C', b"SELECT 1\0"), passes),
        (built(encode::empty_query_response), passes),
        (built(encode::parse_complete), passes),
        (built(encode::bind_complete), passes),
        (built(encode::close_complete), passes),
        (built(encode::no_data), passes),
        (built(encode::portal_suspended), passes),
        (built(|out| encode::ready_for_query(out, TransactionStatus::InTransaction)), passes),
        (message(b'A', &[&b"\0\0\0\x01news\0"[..], SECRET.as_bytes(), b"\0"].concat()), passes),
        (message(b'A', &[&b"\0\0\0\x01other\0"[..], SECRET.as_bytes(), b"\0"].concat()), [Dropped; 3]),
        // A row without its mask.
        (BackendMessage::DataRow(data_row(&[Some(SECRET.as_bytes())])), never),
        (message(b'R', b"\0\0\0\0"), never),
        (message(b'K', b"\0\0\0\x01\0\0\0\x02"), never),
        (message(b'G', b"\0\0\0"), never),
        (message(b'H', b"\0\0\0"), never),
        (message(b'W', b"\0\0\0"), never),
        (message(b'd', SECRET.as_bytes()), never),
        (message(b'c', b""), never),
        (message(b'V', &[&b"\0\0\0\x0b"[..], SECRET.as_bytes()].concat()), never),
        (message(b'v', b"\0\x03\0\0\0\0\0\0"), never),
    ]
}

#[test]
fn every_kind_of_message_has_one_fate_under_each_taint() {
    for (message, fates) in every_kind() {
        for (taint, fate) in [Taint::Clean, Taint::Sealed, Taint::UserCode].into_iter().zip(fates) {
            let mut out = Outbox::default();
            let released = release(&message, taint, "c-1", &mut |it| it.channel == "news", &mut out);
            let name = message.name();
            assert_eq!(released.is_err(), fate == Fate::NotAllowed, "{name} {taint:?}: {released:?}");
            match fate {
                Fate::AsItIs => {
                    assert_eq!(Some(out.chunk()), message.frame().map(|frame| &frame.bytes()[..]), "{name} {taint:?}");
                }
                Fate::Rebuilt => {
                    assert!(!contains(out.chunk(), SECRET.as_bytes()), "{name} {taint:?}");
                    assert!(
                        contains(out.chunk(), b"22P02") && contains(out.chunk(), b"c-1") || taint == Taint::UserCode
                    );
                }
                Fate::Dropped | Fate::NotAllowed => assert!(out.is_empty(), "{name} {taint:?}"),
            }
        }
    }
}

#[test]
fn copy_data_passes_only_the_way_it_was_admitted_for() {
    for (message, _) in every_kind() {
        for copy in [CopyStream::None, CopyStream::In, CopyStream::Out] {
            let (mut counts, mut out) = (Counts::default(), Outbox::default());
            let released = release_copy(&message, copy, &mut counts, &mut out);
            let passes = match copy {
                CopyStream::None => false,
                CopyStream::In => message.name() == "CopyInResponse",
                CopyStream::Out => ["CopyOutResponse", "CopyData", "CopyDone"].contains(&message.name()),
            };
            assert_eq!(released.is_ok(), passes, "{} {copy:?}", message.name());
            assert_eq!(out.is_empty(), !passes, "{} {copy:?}", message.name());
            assert_eq!(counts.rows == 1, passes && message.name() == "CopyData");
        }
    }
}

#[test]
fn every_kind_of_message_is_in_the_table() {
    let mut names: Vec<&str> = every_kind().iter().map(|(message, _)| message.name()).collect();
    names.dedup();
    // The match in `release` has no wildcard; this number moves with it.
    assert_eq!(names.len(), 24, "{names:?}");
}

#[test]
fn an_error_of_user_code_keeps_neither_its_words_nor_its_code() {
    let fields = Fields::new("ERROR", "S3CR1", SECRET).with(b'D', SECRET).with(b'n', SECRET).with(b'F', SECRET);
    let mut bytes = BytesMut::new();
    fields.encode_error(&mut bytes);
    let mut out = Outbox::default();
    release(&decode(&bytes), Taint::UserCode, "c-1", &mut |_| false, &mut out).unwrap();
    assert!(!contains(out.chunk(), SECRET.as_bytes()) && !contains(out.chunk(), b"S3CR1"));
    assert!(contains(out.chunk(), b"P0001") && contains(out.chunk(), b"c-1"));
}

#[test]
fn written_bytes_leave_the_outbox_and_no_others() {
    let mut out = Outbox::default();
    out.ready_for_query(TransactionStatus::Idle);
    let whole = Bytes::copy_from_slice(out.chunk());
    out.advance(2);
    assert_eq!(out.chunk(), &whole[2..]);
    out.advance(usize::MAX);
    assert!(out.is_empty() && out.chunk().is_empty());
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn the_origin_of_a_masked_column_is_the_relation_and_attribute() {
    let shop = Shop::new();
    let customers = shop.snapshot.relation_by_name("public", "customers").unwrap();
    let sealed: Vec<&str> = customers
        .columns
        .iter()
        .filter(|column| {
            shop.session.seals.column(ColumnId { relation: customers.oid, attribute: column.attribute }).is_some()
        })
        .map(|column| column.name.as_str())
        .collect();
    assert_eq!(sealed, ["email", "ssn", "city", "created"]);
    assert!(shop.session.seals.relation(Oid(0)).is_none());
}

#[test]
fn a_functions_result_passes_only_where_a_call_was_admitted() {
    for (message, _) in every_kind() {
        for outputs in [Outputs::FunctionResult, Outputs::None, Outputs::Unchecked, Outputs::ByOrigin] {
            let passes = message.name() == "FunctionCallResponse" && matches!(outputs, Outputs::FunctionResult);
            let plan = StatementPlan { outputs, ..unchecked() };
            let (mut counts, mut out) = (Counts::default(), Outbox::default());
            assert_eq!(release_function_result(&message, &plan, &mut counts, &mut out).is_ok(), passes);
            assert_eq!((out.is_empty(), counts.rows), (!passes, u64::from(passes)));
        }
    }
}
