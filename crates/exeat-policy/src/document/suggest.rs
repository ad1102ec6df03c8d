//! "did you mean": the closest of a few known names. Never used to accept a name, only to word a refusal.

/// Names longer than this are not compared: nobody mistypes a paragraph, and the table would grow.
const NAME_CHARS_MAX: usize = 64;

/// The candidate a typing mistake away from `name`, if any: one edit in short names, a third of longer ones.
pub fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted: Vec<char> = name.chars().take(NAME_CHARS_MAX + 1).collect();
    if wanted.len() > NAME_CHARS_MAX {
        return None;
    }
    let edits_max = (wanted.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&wanted, &candidate.chars().collect::<Vec<_>>()), candidate))
        .filter(|(edits, _)| *edits <= edits_max)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and replacements between two names, a swap of neighbours counted once.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let at = |cells: &[usize], index: usize| cells.get(index).copied().unwrap_or(usize::MAX - 1);
            let mut best =
                (at(&previous, j) + usize::from(from != to)).min(at(&previous, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(to) && b.get(j - 1) == Some(from);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut previous, row);
    }
    previous.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn a_typing_mistake_finds_its_name() {
        let names = ["allow", "deny", "mask", "relations"];
        for (typed, meant) in [("alow", "allow"), ("dney", "deny"), ("masks", "mask"), ("relation", "relations")] {
            assert_eq!(closest(typed, names), Some(meant), "{typed}");
        }
    }

    #[test]
    fn another_word_finds_nothing() {
        for typed in ["", "permit", "x", "completely_different", &"a".repeat(5000)] {
            assert_eq!(closest(typed, ["allow", "deny", "mask"]), None, "{typed}");
        }
    }
}
