//! The threads that run sessions. Each has a runtime of its own, and a session stays on the one it began on: a session
//! waits for its two sockets in turn and does little in between, so handing it from thread to thread would cost more
//! than its work. Sessions of one thread that are ready together share a write of the record.

use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// How many threads, and what each begins with.
#[derive(Debug, Clone, Copy)]
pub struct SessionThreads {
    pub count: usize,
    /// Of address space, not of memory: short statements are parsed on these threads.
    pub stack_bytes: usize,
    /// Called by each thread once.
    pub on_start: fn(),
}

/// Runs until dropped.
#[derive(Debug)]
pub(crate) struct Workers {
    runtimes: Vec<Handle>,
    next: usize,
    _running: watch::Sender<()>,
}

impl Workers {
    pub(crate) fn start(threads: SessionThreads) -> io::Result<Self> {
        let (running, stop) = watch::channel(());
        let mut runtimes = Vec::with_capacity(threads.count);
        for number in 0..threads.count.max(1) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtimes.push(runtime.handle().clone());
            let mut stop = stop.clone();
            thread::Builder::new().name(format!("sessions-{number}")).stack_size(threads.stack_bytes).spawn(
                move || {
                    (threads.on_start)();
                    // Ends when the sender is gone; nothing is ever sent.
                    let _ = runtime.block_on(stop.changed());
                    // A resolver that hangs must not keep the thread.
                    runtime.shutdown_background();
                },
            )?;
        }
        Ok(Self { runtimes, next: 0, _running: running })
    }

    /// In turn: sessions live long, and how busy one will be nobody knows.
    pub(crate) fn next(&mut self) -> Option<&Handle> {
        self.next = self.next.wrapping_add(1);
        self.runtimes.get(self.next % self.runtimes.len().max(1))
    }
}
