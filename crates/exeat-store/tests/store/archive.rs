//! What an archive of a record is made of: pieces under their names that read and verify like the record they are of.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use exeat_store::archive::{self, Lines};
use exeat_store::follow::Follower;
use exeat_store::read::{BlobKind, open_log};
use exeat_store::verify::{Against, verify};

use super::common::{Place, allowed, done, principal, start};

/// So many statements in a session of that name.
fn write(place: &Place, session: &str, statements: usize) {
    let recorder = place.open();
    let principal = principal();
    let mut record = recorder.start_session(&start(session, &principal)).unwrap();
    for number in 0..statements {
        let request = format!("req_{session}_{number}");
        let _ = record.intent(&allowed(&request, &format!("select {number} from customers"))).unwrap();
        let _ = record.outcome(&done(&request)).unwrap();
    }
    record.end("terminated").unwrap();
}

fn put(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    assert!(!path.exists() || name == archive::CHECKPOINT, "{name} is written twice");
    fs::write(path, bytes).unwrap();
}

/// An archive in a folder, and how far it goes.
#[derive(Default)]
struct Shipped {
    lines: u64,
    keys: u64,
    blobs: BTreeMap<u64, u64>,
}

impl Shipped {
    /// A round.
    fn ship(&mut self, data: &Path, to: &Path) {
        let signed = archive::signed(data).unwrap().unwrap();
        let mut follower = Follower::new(data, self.lines);
        while let Some(lines) = Lines::next(&mut follower, signed.size).unwrap() {
            for (segment, end) in &lines.named.blobs {
                let from = self.blobs.entry(*segment).or_default();
                put(
                    to,
                    &archive::blob_name(*segment, *from),
                    &archive::blob_piece(data, *segment, *from, *end).unwrap(),
                );
                *from = *end;
            }
            if lines.named.slots > self.keys {
                let piece = archive::keys_piece(data, self.keys, lines.named.slots).unwrap();
                put(to, &archive::keys_name(self.keys), &piece);
                self.keys = lines.named.slots;
            }
            put(to, &lines.name(), &lines.bytes);
        }
        for path in archive::new_tiles(self.lines, signed.size) {
            put(to, &archive::tile_name(&path), &archive::tile(data, &path).unwrap());
        }
        put(to, &signed.name(), &signed.note);
        put(to, archive::CHECKPOINT, &signed.note);
        self.lines = signed.size;
    }
}

#[test]
fn an_archive_verifies_and_reads_like_the_record() {
    let place = Place::new();
    let (data, to) = (place.data(), tempfile::tempdir().unwrap());
    let mut shipped = Shipped::default();
    for (session, statements) in [("s1", 200), ("s2", 3), ("s3", 90)] {
        write(&place, session, statements);
        shipped.ship(&data, to.path());
    }
    let found = verify(to.path(), &Against::default()).unwrap();
    assert!(found.is_clean(), "{:?}", found.findings());
    assert_eq!(found.signed.unwrap().size(), shipped.lines);
    assert_eq!((found.lines, found.unsigned), (shipped.lines, 0));
    let (mut log, mut own) = (open_log(to.path()).unwrap(), open_log(&data).unwrap());
    let keys = place.keys();
    let mut texts = 0;
    let events: Vec<_> = log.events().unwrap().map(Result::unwrap).collect();
    for (event, other) in events.iter().zip(own.events().unwrap()) {
        assert_eq!(event.line, other.unwrap().line);
        let Some((session, blob)) = event.session().zip(event.blob(BlobKind::Sql)) else { continue };
        assert_eq!(log.unseal(session, &blob, &keys).unwrap(), own.unseal(session, &blob, &keys).unwrap());
        texts += 1;
    }
    assert_eq!(texts, 293);
    // Without one of its pieces it does not.
    fs::remove_file(to.path().join(archive::blob_name(0, 0))).unwrap();
    assert!(!verify(to.path(), &Against::default()).unwrap().is_clean());
}

#[test]
fn another_log_is_not_the_beginning_of_this_one() {
    let (place, other) = (Place::new(), Place::new());
    write(&place, "s1", 300);
    let before = archive::signed(&place.data()).unwrap().unwrap();
    write(&place, "s2", 300);
    write(&other, "s1", 300);
    archive::extends(&place.data(), &before).unwrap();
    let newer = archive::signed(&place.data()).unwrap().unwrap();
    archive::extends(&place.data(), &newer).unwrap();
    assert!(newer.says_as(&newer) && !newer.says_as(&before));
    let foreign = archive::signed(&other.data()).unwrap().unwrap();
    let problem = archive::extends(&place.data(), &foreign).unwrap_err();
    assert!(problem.to_string().contains("another gateway has this name"), "{problem}");
}
