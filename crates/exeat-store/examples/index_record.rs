//! Indexes a record that `make_record` wrote, and says how long that and some searches took.

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use exeat_store::index::{Filter, Index, IndexPlace};
use exeat_store::keys::{KeySet, KeySource};

fn main() -> Result<(), Box<dyn Error>> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("index_record FOLDER")?);
    let data_dir = folder.join("data");
    let keys = KeySet::open(&KeySource::Folder(folder.join("keys")), &data_dir)?;
    let mut index = Index::open(&IndexPlace::beside(&data_dir), &data_dir).await?;
    for (what, keys) in [("lines", None), ("words of texts", Some(&keys)), ("nothing new", Some(&keys))] {
        let begun = Instant::now();
        let done = index.catch_up(keys, |_| {}).await?;
        report(&format!("{what}: {done:?}"), begun)?;
    }
    let name = |name: &str| Some(name.to_owned());
    let all = Filter { limit: 50, ..Filter::default() };
    let newest = index.sessions(&all, None).await?;
    let middle = newest.last().map(|session| session.first_at);
    for (what, filter) in [
        ("newest", all.clone()),
        ("principal", Filter { principal: name("agent-17"), ..all.clone() }),
        ("label of relation", Filter { label: name("ssn"), relation: name("public.payments"), ..all.clone() }),
        ("refused by rule", Filter { rule: name("no-payroll"), decision: name("refuse"), ..all.clone() }),
        ("sqlstate and relation", Filter { sqlstate: name("57014"), relation: name("public.tickets"), ..all.clone() }),
        ("word of one text", Filter { text: name("n12340"), ..all.clone() }),
        ("phrase of many", Filter { text: name("\"ssn from public payments\""), ..all.clone() }),
        ("group and time", Filter { group: name("team-3"), since: middle, ..all.clone() }),
        ("relation and time", Filter { relation: name("public.orders"), until: middle, ..all.clone() }),
        ("nothing", Filter { column: name("public.orders.none"), ..all }),
    ] {
        let begun = Instant::now();
        let found = index.sessions(&filter, Some(&keys)).await?;
        report(&format!("{what}: {} sessions", found.len()), begun)?;
        if let Some(session) = found.first() {
            let begun = Instant::now();
            let events = index.events(session).await?;
            report(&format!("  its {} lines", events.events.len()), begun)?;
        }
    }
    Ok(())
}

fn report(what: &str, begun: Instant) -> std::io::Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout().lock(), "{:>9.3} s  {what}", begun.elapsed().as_secs_f64())
}
