//! What is particular to a store that several gateways share: who may join, what they hear of each other, and that
//! the server's coming and going harms nobody.

use std::time::{Duration, Instant};

use exeat_policy::baseline::Known;
use exeat_store::secret::SecretSource;
use exeat_store::state::{DatabaseRef, State, StateConfig, StateError, StateSource};
use jiff::Timestamp;

use super::common::{Place, STORE_URL, keys_at, open_state};
use super::server::{run_at, server};
use super::state::block;

const SHOP: DatabaseRef<'static> = DatabaseRef { target: "shop", name: "shop" };

/// What another gateway changes is known within this.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

async fn open_at(url: &str, place: &Place) -> Result<State, StateError> {
    let file = place.base.path().join("another-url");
    std::fs::write(&file, url).unwrap();
    let source = StateSource::Postgres(SecretSource::File(file));
    let config =
        StateConfig { data_dir: &place.data(), source: &source, durability: exeat_store::record::Durability::Os };
    State::open(&config, &keys_at(place.base.path()).unwrap()).await
}

#[test]
fn a_store_made_by_a_newer_gateway_is_refused_by_name() {
    for place in Place::of_each_store() {
        block(async {
            drop(open_state(place.base.path()).await.unwrap());
            place.run_in_store("INSERT INTO schema_version (version) VALUES (1000)");
            let refused = open_state(place.base.path()).await.unwrap_err();
            assert!(matches!(refused, StateError::Newer { found: 1000, .. }), "{refused:?}");
            assert!(!refused.to_string().contains("store@"), "{refused}");
            place.run_in_store("DELETE FROM schema_version WHERE version = 1000");
            open_state(place.base.path()).await.unwrap();
        });
    }
}

#[test]
fn gateways_that_start_at_once_make_the_tables_once() {
    let Some(server) = server() else { return };
    let place = Place::new();
    std::fs::write(place.base.path().join(STORE_URL), server.new_database()).unwrap();
    block(async {
        // The keys are made before: those of a first start are one gateway's affair.
        keys_at(place.base.path()).unwrap();
        let mut starting = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let base = place.base.path().to_owned();
            starting.spawn(async move { open_state(&base).await.unwrap().known(SHOP).await.unwrap() });
        }
        assert_eq!(starting.join_all().await, vec![None; 6]);
    });
}

#[test]
fn a_gateway_with_other_keys_may_not_join() {
    let Some(server) = server() else { return };
    let url = server.new_database();
    let (first, second) = (Place::new(), Place::new());
    block(async {
        open_at(&url, &first).await.unwrap();
        let refused = open_at(&url, &second).await.unwrap_err();
        assert!(matches!(refused, StateError::OtherKey { .. }), "{refused:?}");
        open_at(&url, &first).await.unwrap();
    });
}

#[test]
fn a_database_that_could_not_hold_every_text_is_refused() {
    let Some(server) = server() else { return };
    let (place, url) = (Place::new(), server.url("latin"));
    run_at(&server.url("postgres"), &["CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0"]).unwrap();
    let refused = block(open_at(&url, &place)).unwrap_err();
    assert!(matches!(refused, StateError::Encoding { .. }), "{refused:?}");
}

#[test]
fn a_login_that_may_not_write_is_refused_at_the_start() {
    let Some(server) = server() else { return };
    let (place, url) = (Place::new(), server.new_database());
    block(async { drop(open_at(&url, &place).await.unwrap()) });
    let database = url.rsplit('/').next().unwrap().split('?').next().unwrap().to_owned();
    run_at(&url, &[&format!("ALTER DATABASE {database} SET default_transaction_read_only = on")]).unwrap();
    // Transactions say of themselves that they write, so the default harms nobody; a missing right does.
    block(async { drop(open_at(&url, &place).await.unwrap()) });
    run_at(
        &url.replace("?", "?options=-cdefault_transaction_read_only%3Doff&"),
        &["CREATE ROLE reader LOGIN", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"],
    )
    .unwrap();
    let refused = block(open_at(&url.replace("store@", "reader@"), &place)).unwrap_err();
    assert!(matches!(refused, StateError::Reach { .. }), "{refused:?}");
}

#[test]
fn what_one_gateway_accepts_another_knows_within_a_second() {
    let Some(server) = server() else { return };
    let (place, url) = (Place::new(), server.new_database());
    block(async {
        let states = [open_at(&url, &place).await.unwrap(), open_at(&url, &place).await.unwrap()];
        let mut heard = states[1].changes();
        for round in 0..3 {
            heard.mark_unchanged();
            let before = states[1].revision();
            // Two of three times nobody is told: the connection that listens is cut first.
            if round > 0 {
                run_at(&url, &["SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"])
                    .unwrap();
            }
            let began = Instant::now();
            states[0].accept(SHOP, &Known::default(), Timestamp::UNIX_EPOCH).await.unwrap();
            tokio::time::timeout(HEARD_WITHIN, heard.changed()).await.expect("heard within a second").unwrap();
            assert!(states[1].revision() > before, "{:?}", began.elapsed());
            assert!(states[1].is_current());
        }
    });
}

#[test]
fn cut_connections_are_made_again() {
    let Some(server) = server() else { return };
    let (place, url) = (Place::new(), server.new_database());
    block(async {
        let state = open_at(&url, &place).await.unwrap();
        let mut cuts = 0;
        for _ in 0..20 {
            run_at(
                &url,
                &["SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = current_database() AND pid <> pg_backend_pid()"],
            )
            .unwrap();
            cuts += 1;
            // The access that meets the cut may fail; the store is never left in a transaction of nobody.
            let mut tries = 0;
            while state.accept(SHOP, &Known::default(), Timestamp::UNIX_EPOCH).await.is_err() {
                tries += 1;
                assert!(tries <= 10, "the store does not come back");
            }
        }
        assert_eq!(cuts, 20);
        state.health().await.unwrap();
        assert_eq!(state.known(SHOP).await.unwrap(), Some(Known::default()));
    });
}
