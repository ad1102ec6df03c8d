//! How many connections there may be: unauthenticated ones in the lobby, sessions in all, per principal and per
//! source, and how often a source may fail to log in.
//!
//! The lobby and the sessions are counted apart, so that whoever cannot prove who he is never takes the place of
//! somebody who can. Everything counted is counted by a guard and given back when the guard goes, however that
//! happens. Never waits and never speaks: the listener decides what a limit means to a client.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use exeat_policy::Principal;
use tokio::sync::Notify;

use crate::config::ConnectionLimits;

/// Whom connections and failures are counted for: an IPv4 address, or the /64 that one holder of IPv6 addresses
/// has at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        })
    }
}

/// A login takes milliseconds. A connection that has not proved who it is by then makes way when there is no room.
const STALLED_AFTER: Duration = Duration::from_secs(2);

/// Connections that have not proved yet who they are.
#[derive(Debug)]
pub(crate) struct Lobby {
    limit: usize,
    per_source: usize,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    /// In order of arrival.
    waiting: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    source: Source,
    since: Instant,
    /// What it does now depends on us and not on the client.
    proving: bool,
    leave: Arc<Notify>,
}

/// A place in the lobby for as long as it lives.
#[derive(Debug)]
pub(crate) struct LobbyPlace {
    number: u64,
    leave: Arc<Notify>,
    inside: Arc<Mutex<Inside>>,
}

impl Lobby {
    pub(crate) fn new(limit: usize) -> Self {
        // One source alone cannot fill it.
        Self { limit, per_source: limit.div_ceil(2), inside: Arc::default() }
    }

    /// A place, at the cost of one that has stalled where there is no other. `None`: there is no room.
    pub(crate) fn enter(&self, source: Source, now: Instant) -> Option<LobbyPlace> {
        let mut inside = lock(&self.inside);
        let own = inside.waiting.values().filter(|waiting| waiting.source == source).count();
        if own >= self.per_source {
            inside.evict(now, |waiting| waiting.source == source)?;
        } else if inside.waiting.len() >= self.limit {
            inside.evict(now, |_| true)?;
        }
        let number = inside.next;
        inside.next += 1;
        let leave = Arc::new(Notify::new());
        inside.waiting.insert(number, Waiting { source, since: now, proving: false, leave: Arc::clone(&leave) });
        drop(inside);
        Some(LobbyPlace { number, leave, inside: Arc::clone(&self.inside) })
    }
}

impl Inside {
    fn evict(&mut self, now: Instant, whom: impl Fn(&Waiting) -> bool) -> Option<()> {
        let stalled = |waiting: &Waiting| !waiting.proving && now.duration_since(waiting.since) >= STALLED_AFTER;
        let (number, _) = self.waiting.iter().find(|(_, waiting)| whom(waiting) && stalled(waiting))?;
        let number = *number;
        self.waiting.remove(&number)?.leave.notify_one();
        Some(())
    }
}

impl LobbyPlace {
    /// Returns when somebody else needs the place. Cancel safe.
    pub(crate) async fn given_away(&self) {
        self.leave.notified().await;
    }

    /// The client has said all it has to say: from now on it is not the one who stalls.
    pub(crate) fn proving(&self) {
        if let Some(waiting) = lock(&self.inside).waiting.get_mut(&self.number) {
            waiting.proving = true;
        }
    }
}

impl Drop for LobbyPlace {
    fn drop(&mut self) {
        lock(&self.inside).waiting.remove(&self.number);
    }
}

/// The limit that leaves no room for another session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("the gateway has {0} sessions, the most allowed")]
    Gateway(usize),
    #[error("your address has {0} sessions, the most allowed")]
    Source(usize),
    #[error("you have {0} sessions, the most allowed")]
    Principal(usize),
}

/// Principals are counted by who they are, not by token: a second token is no second allowance.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Person {
    issuer: String,
    subject: String,
    actor: Option<String>,
}

/// Sessions of principals that have proved who they are.
#[derive(Debug)]
pub(crate) struct Sessions {
    limits: ConnectionLimits,
    all: Counted<()>,
    sources: Counted<Source>,
    people: Counted<Person>,
}

/// One session, counted for as long as it lives.
#[derive(Debug)]
pub(crate) struct SessionGuard {
    _all: CountGuard<()>,
    _source: CountGuard<Source>,
    _person: CountGuard<Person>,
}

impl Sessions {
    pub(crate) fn new(limits: ConnectionLimits) -> Self {
        Self { limits, all: Counted::default(), sources: Counted::default(), people: Counted::default() }
    }

    pub(crate) fn enter(&self, principal: &Principal, source: Source) -> Result<SessionGuard, Full> {
        let ConnectionLimits { connections, per_principal, per_source, .. } = self.limits;
        let person = Person {
            issuer: principal.issuer.clone(),
            subject: principal.subject.clone(),
            actor: principal.actor.clone(),
        };
        Ok(SessionGuard {
            _all: self.all.enter((), connections).ok_or(Full::Gateway(connections))?,
            _source: self.sources.enter(source, per_source).ok_or(Full::Source(per_source))?,
            _person: self.people.enter(person, per_principal).ok_or(Full::Principal(per_principal))?,
        })
    }
}

/// How many of each key there are now.
#[derive(Debug)]
struct Counted<K> {
    counts: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K> Default for Counted<K> {
    fn default() -> Self {
        Self { counts: Arc::default() }
    }
}

#[derive(Debug)]
struct CountGuard<K: Eq + Hash> {
    key: K,
    counts: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Eq + Hash + Clone> Counted<K> {
    fn enter(&self, key: K, limit: usize) -> Option<CountGuard<K>> {
        let mut counts = lock(&self.counts);
        let count = counts.get(&key).copied().unwrap_or(0);
        if count >= limit {
            return None;
        }
        counts.insert(key.clone(), count + 1);
        drop(counts);
        Some(CountGuard { key, counts: Arc::clone(&self.counts) })
    }
}

impl<K: Eq + Hash> Drop for CountGuard<K> {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

/// Failed logins by source in the last minute.
#[derive(Debug)]
pub(crate) struct Failures {
    per_minute: u32,
    seen: Mutex<HashMap<Source, (Instant, u32)>>,
}

/// Sources remembered. Past it all are forgotten: the memory is bounded, and whoever has that many addresses is not
/// held up by a count of each.
const FAILURE_SOURCES_MAX: usize = 10_000;
const MINUTE: Duration = Duration::from_secs(60);

impl Failures {
    pub(crate) fn new(per_minute: u32) -> Self {
        Self { per_minute, seen: Mutex::default() }
    }

    pub(crate) fn too_many(&self, address: IpAddr) -> bool {
        let seen = lock(&self.seen);
        seen.get(&address.into()).is_some_and(|(since, count)| since.elapsed() < MINUTE && *count >= self.per_minute)
    }

    pub(crate) fn note(&self, address: IpAddr) {
        let mut seen = lock(&self.seen);
        if seen.len() >= FAILURE_SOURCES_MAX {
            seen.retain(|_, (since, _)| since.elapsed() < MINUTE);
        }
        if seen.len() >= FAILURE_SOURCES_MAX {
            seen.clear();
        }
        let entry = seen.entry(address.into()).or_insert((Instant::now(), 0));
        if entry.0.elapsed() >= MINUTE {
            *entry = (Instant::now(), 0);
        }
        entry.1 = entry.1.saturating_add(1);
    }
}

/// What is counted stays true whatever panicked elsewhere.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap as Map;

    use super::*;

    fn source(text: &str) -> Source {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn principal(subject: &str, actor: Option<&str>) -> Principal {
        Principal {
            issuer: "https://idp.example.com".to_owned(),
            subject: subject.to_owned(),
            groups: Vec::new(),
            claims: serde_json::Map::new(),
            actor: actor.map(str::to_owned),
            kind: exeat_policy::PrincipalKind::Human,
            token_id: None,
            instance: Map::new(),
        }
    }

    #[test]
    fn a_holder_of_many_addresses_is_one_source() {
        assert_eq!(source("192.0.2.1"), source("::ffff:192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
    }

    #[test]
    fn the_lobby_gives_away_the_place_of_who_stalls_and_of_nobody_else() {
        let (lobby, start) = (Lobby::new(4), Instant::now());
        let later = start + STALLED_AFTER;
        let [a, b, c] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(source);
        let places = [lobby.enter(a, start), lobby.enter(a, start), lobby.enter(b, start), lobby.enter(b, start)];
        let places = places.map(Option::unwrap);
        assert!(lobby.enter(c, start).is_none(), "nobody has stalled yet");
        places[0].proving();
        let newcomer = lobby.enter(c, later).unwrap();
        assert_eq!(lock(&lobby.inside).waiting.len(), 4);
        assert!(!lock(&lobby.inside).waiting.contains_key(&places[1].number), "the oldest that the client holds up");
        // Its guard gives back nothing twice.
        drop(places);
        assert_eq!(lock(&lobby.inside).waiting.len(), 1);
        drop(newcomer);
        assert!(lock(&lobby.inside).waiting.is_empty());
    }

    #[test]
    fn one_source_has_half_of_the_lobby_and_then_only_its_own_stalled_places() {
        let (lobby, start) = (Lobby::new(4), Instant::now());
        let (flood, other) = (source("192.0.2.1"), source("192.0.2.2"));
        let _held = [lobby.enter(other, start), lobby.enter(flood, start), lobby.enter(flood, start)];
        assert!(lobby.enter(flood, start).is_none());
        let place = lobby.enter(flood, start + STALLED_AFTER);
        assert!(place.is_some());
        assert!(lock(&lobby.inside).waiting.values().any(|waiting| waiting.source == other));
    }

    #[test]
    fn each_limit_of_sessions_is_named_and_what_was_counted_comes_back() {
        let limits =
            ConnectionLimits { connections: 3, per_principal: 1, per_source: 2, ..ConnectionLimits::default() };
        let sessions = Sessions::new(limits);
        let [a, b] = ["192.0.2.1", "192.0.2.2"].map(source);
        let one = sessions.enter(&principal("one", None), a).unwrap();
        assert_eq!(sessions.enter(&principal("one", None), b).unwrap_err(), Full::Principal(1));
        let agent = sessions.enter(&principal("one", Some("agent")), a).unwrap();
        assert_eq!(sessions.enter(&principal("two", None), a).unwrap_err(), Full::Source(2));
        let two = sessions.enter(&principal("two", None), b).unwrap();
        assert_eq!(sessions.enter(&principal("three", None), b).unwrap_err(), Full::Gateway(3));
        drop((one, agent, two));
        // Refusals have left nothing behind either.
        assert!(lock(&sessions.all.counts).is_empty());
        assert!(lock(&sessions.sources.counts).is_empty());
        assert!(lock(&sessions.people.counts).is_empty());
    }

    #[test]
    fn failures_are_remembered_within_bounds() {
        let failures = Failures::new(2);
        let address = "192.0.2.1".parse().unwrap();
        failures.note(address);
        assert!(!failures.too_many(address));
        failures.note(address);
        assert!(failures.too_many(address));
        for number in 0..20_000u32 {
            failures.note(IpAddr::V4(number.into()));
        }
        assert!(lock(&failures.seen).len() <= FAILURE_SOURCES_MAX);
    }
}
