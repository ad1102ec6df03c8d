//! How far a log's beginning is gone by lines that say so. A line that takes files away behind a gap vouches for the gap: the
//! lines that said so may be in those files.

use std::collections::BTreeSet;

/// From one record to before another: gone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Covered {
    spans: BTreeSet<(u64, u64)>,
}

impl Covered {
    /// The files of one line, in order.
    pub(crate) fn add(&mut self, files: impl IntoIterator<Item = (u64, u64)>) {
        let files = files.into_iter().filter(|(first, next)| first < next);
        for (at, (first, next)) in files.enumerate() {
            if at == 0 && first > 0 {
                self.spans.insert((0, first));
            }
            self.spans.insert((first, next));
        }
    }

    /// Whether all before this record is gone, file by file and to its end. Else how far it is.
    pub(crate) fn reaches(&self, first: u64) -> Result<(), u64> {
        let mut reached = BTreeSet::from([0]);
        for (from, to) in &self.spans {
            if reached.contains(from) {
                reached.insert(*to);
            }
        }
        match reached.range(..=first).next_back() {
            Some(at) if *at == first => Ok(()),
            at => Err(at.copied().unwrap_or(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_gone_file_by_file_and_a_later_line_vouches_for_what_was_gone_before() {
        let mut covered = Covered::default();
        assert_eq!((covered.reaches(0), covered.reaches(5)), (Ok(()), Err(0)));
        covered.add([(0, 5), (5, 9)]);
        let reached = [4, 5, 6, 9, 12].map(|first| covered.reaches(first));
        assert_eq!(reached, [Err(0), Ok(()), Err(5), Ok(()), Err(9)]);
        let mut later = Covered::default();
        later.add([(9, 12)]);
        assert_eq!([5, 9, 12].map(|first| later.reaches(first)), [Err(0), Ok(()), Ok(())]);
        later.add([(3, 3), (20, 4)]);
        assert_eq!(later.reaches(3), Err(0));
    }
}
