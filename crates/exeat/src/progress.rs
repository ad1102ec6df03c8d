//! How far long work is: one line on a terminal, written over as it goes and taken away at its end. Nothing where stderr
//! is none, for a file or a pipe would keep every step.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Work that is done sooner says nothing, and no line is written more often.
const BETWEEN: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Progress {
    is_terminal: bool,
    last: Instant,
    /// Characters that stand there.
    shown: usize,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { is_terminal: io::stderr().is_terminal(), last: Instant::now(), shown: 0 }
    }

    /// Some of all there is, in words; these are made only where they are shown.
    pub(crate) fn tell(&mut self, (some, all): (u64, u64), words: impl FnOnce() -> String) {
        if !self.is_terminal || self.last.elapsed() < BETWEEN {
            return;
        }
        self.last = Instant::now();
        self.write(&format!("{:>3} %  {}", percent(some, all), words()));
    }

    fn write(&mut self, line: &str) {
        let length = line.chars().count();
        let rest = self.shown.saturating_sub(length);
        // Nobody may be listening.
        let _ = write!(io::stderr().lock(), "\r{line}{:rest$}", "");
        self.shown = length;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown > 0 {
            let _ = write!(io::stderr().lock(), "\r{:width$}\r", "", width = self.shown);
        }
    }
}

fn percent(some: u64, all: u64) -> u64 {
    some.saturating_mul(100).checked_div(all).unwrap_or(100).min(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_all_is_never_more_than_all() {
        assert_eq!([percent(0, 0), percent(1, 3), percent(3, 3), percent(4, 3)], [100, 33, 100, 100]);
        assert_eq!(percent(u64::MAX / 200, u64::MAX / 100), 50);
    }
}
