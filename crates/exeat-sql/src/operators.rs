//! Operator names of pg_catalog, reviewed: all stand for functions of their operands alone.

/// Sorted, for a binary search.
const REVIEWED: &[&str] = &[
    "!~", "!~*", "!~~", "!~~*", "#", "##", "#-", "#>", "#>>", "%", "&", "&&", "&<", "&<|", "&>", "*", "*<", "*<=",
    "*<>", "*=", "*>", "*>=", "+", "-", "->", "->>", "-|-", "/", "<", "<->", "<<", "<<=", "<<|", "<=", "<>", "<@",
    "<^", "=", ">", ">=", ">>", ">>=", ">^", "?", "?#", "?&", "?-", "?-|", "?|", "?||", "@", "@-@", "@>", "@?", "@@",
    "@@@", "^", "^@", "|", "|&>", "|/", "|>>", "||", "||/", "~", "~*", "~<=~", "~<~", "~=", "~>=~", "~>~", "~~", "~~*",
];

pub(crate) fn is_reviewed(name: &str) -> bool {
    REVIEWED.binary_search(&name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_so_that_the_search_finds_every_name() {
        assert!(REVIEWED.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(is_reviewed("=") && is_reviewed("~~*"));
        assert!(!is_reviewed("===") && !is_reviewed(""));
    }
}
