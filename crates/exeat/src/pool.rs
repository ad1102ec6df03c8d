//! The parser pool: threads with stacks deep enough for PostgreSQL's grammar, fed by a bounded queue.
//!
//! Parsing and walking a statement recurse as deep as the statement nests, deeper than an async worker's stack
//! allows; and they take CPU time that must not hold up other sessions' bytes. A full queue, a dead thread or a
//! panic while parsing all look the same to the session: no answer, and the statement is refused.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use exeat_proxy::SessionThreads;
use exeat_proxy::config::{AnalyseRequest, AnalyseResult, Analyser};
use exeat_sql::PARSER_STACK_BYTES;
use tokio::sync::oneshot;

/// Statements waiting for a parser: as many as sessions may be open by default. More are refused, not queued.
const PARSER_QUEUE_MAX: usize = 1024;

/// Threads, at most: each reserves [`PARSER_STACK_BYTES`] of address space, and parsing is a small part of the work.
const PARSER_THREADS_MAX: usize = 8;

#[derive(Debug, thiserror::Error)]
pub(crate) enum PoolError {
    #[error(
        "could not start a parser thread with a stack of {PARSER_STACK_BYTES} bytes; raise the memory limit of the process"
    )]
    Thread(#[source] std::io::Error),
}

/// Texts up to this length are parsed where they are, on a runtime thread with a deep stack: handing one over costs
/// more than parsing it. Half a millisecond at most, and at two bytes a level too short to exhaust the stack.
const INLINE_BYTES_MAX: usize = 4 * 1024;

thread_local! {
    static DEEP_STACK: Cell<bool> = const { Cell::new(false) };
}

/// Threads that run sessions and parse their short statements. Half the cores unless told otherwise: parsing of longer
/// statements, logins of others and the kernel's part of the work want some too.
pub(crate) fn session_threads(configured: Option<NonZeroUsize>) -> SessionThreads {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let count = configured.map_or((cores / 2).max(1), NonZeroUsize::get);
    SessionThreads { count, stack_bytes: PARSER_STACK_BYTES, on_start: mark_deep_stack }
}

/// Called by each thread that was made with [`PARSER_STACK_BYTES`] of stack.
pub(crate) fn mark_deep_stack() {
    DEEP_STACK.set(true);
}

struct Job {
    request: AnalyseRequest,
    reply: oneshot::Sender<AnalyseResult>,
}

/// Starts the threads and returns the pool as a function value. They end when the last clone of it is dropped.
pub(crate) fn start() -> Result<Analyser, PoolError> {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    start_sized(cores.clamp(1, PARSER_THREADS_MAX), PARSER_QUEUE_MAX)
}

fn start_sized(threads: usize, queue: usize) -> Result<Analyser, PoolError> {
    let (sender, receiver) = sync_channel::<Job>(queue);
    let receiver = Arc::new(Mutex::new(receiver));
    for number in 0..threads {
        let jobs = Arc::clone(&receiver);
        std::thread::Builder::new()
            .name(format!("parser-{number}"))
            .stack_size(PARSER_STACK_BYTES)
            .spawn(move || work(&jobs))
            .map_err(PoolError::Thread)?;
    }
    Ok(Arc::new(move |request| submit(&sender, request)))
}

fn submit(queue: &SyncSender<Job>, request: AnalyseRequest) -> oneshot::Receiver<AnalyseResult> {
    let (reply, answer) = oneshot::channel();
    if request.sql.len() <= INLINE_BYTES_MAX && DEEP_STACK.get() {
        answer_here(Job { request, reply });
        return answer;
    }
    if queue.try_send(Job { request, reply }).is_err() {
        // The job is dropped with its reply, and a closed channel is how the session learns of it.
        tracing::warn!(queue = PARSER_QUEUE_MAX, "the parser queue is full: a statement is refused");
    }
    answer
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { request, reply }) = next else { return };
        if !reply.is_closed() {
            answer_here(Job { request, reply });
        }
    }
}

fn answer_here(Job { request, reply }: Job) {
    let analysed = catch_unwind(AssertUnwindSafe(|| {
        exeat_sql::parse_and_analyse(&request.sql, &request.snapshot, &request.scope).map(Arc::new)
    }));
    match analysed {
        // A session that went away meanwhile needs no answer.
        Ok(result) => drop(reply.send(result)),
        Err(_panic) => tracing::error!("a parser panicked: the statement is refused"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exeat_sql::{CatalogSnapshot, Scope};

    fn request(sql: &str) -> AnalyseRequest {
        AnalyseRequest {
            sql: sql.to_owned(),
            snapshot: Arc::new(CatalogSnapshot::default()),
            scope: Arc::new(Scope::default()),
        }
    }

    #[test]
    fn a_full_queue_gives_no_answer_and_a_free_one_waits_for_it() {
        let (sender, _jobs) = sync_channel(1);
        let mut waiting = submit(&sender, request("SELECT 1"));
        assert_eq!(waiting.try_recv().unwrap_err(), oneshot::error::TryRecvError::Empty);
        let mut refused = submit(&sender, request("SELECT 1"));
        assert_eq!(refused.try_recv().unwrap_err(), oneshot::error::TryRecvError::Closed);
    }

    #[test]
    fn a_statement_as_deep_as_the_limit_on_length_allows_is_answered() {
        let analyse = start_sized(1, 4).unwrap();
        let deep = format!("SELECT {}1{}", "(".repeat(200_000), ")".repeat(200_000));
        // Refused or understood, but answered: the thread is alive and takes the next one.
        let _deep = analyse(request(&deep)).blocking_recv().unwrap();
        assert!(analyse(request("SELECT 1")).blocking_recv().unwrap().is_ok());
    }

    #[test]
    fn a_short_statement_of_the_deepest_nesting_fits_a_deep_stack() {
        let (sender, _jobs) = sync_channel(1);
        let answered = std::thread::Builder::new().stack_size(PARSER_STACK_BYTES).spawn(move || {
            mark_deep_stack();
            ["- ", "NOT ", "(", "ARRAY[", "1+", "(SELECT "].map(|level| {
                let deep = format!("SELECT {}1", level.repeat((INLINE_BYTES_MAX - 8) / level.len()));
                // Refused or understood, but answered at once and on this thread.
                submit(&sender, request(&deep)).try_recv().is_ok()
            })
        });
        assert_eq!(answered.unwrap().join().unwrap(), [true; 6]);
    }

    #[test]
    fn an_answer_nobody_waits_for_stops_nothing() {
        let analyse = start_sized(1, 4).unwrap();
        drop(analyse(request("SELECT 1")));
        assert!(analyse(request("SELECT 2")).blocking_recv().unwrap().is_ok());
    }
}
