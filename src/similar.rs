//! Names like one that is unknown, for error messages.

/// Most names that one search looks at.
const NAMES_MAX: usize = 10_000;

/// Longest name that is compared, in characters.
const NAME_CHARS_MAX: usize = 128;

/// Most names in an answer.
const ANSWERS_MAX: usize = 3;

/// The names most like `wanted`, the likest first: a few letters apart, or one containing the other.
#[must_use]
pub fn similar<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted: Vec<char> = wanted.chars().take(NAME_CHARS_MAX + 1).flat_map(char::to_lowercase).collect();
    if wanted.len() > NAME_CHARS_MAX {
        return Vec::new();
    }
    let mut found: Vec<(usize, &str)> = names
        .take(NAMES_MAX)
        .filter(|name| name.len() <= NAME_CHARS_MAX)
        .filter_map(|name| unlikeness(&wanted, name).map(|unlikeness| (unlikeness, name)))
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().take(ANSWERS_MAX).map(|(_, name)| name).collect()
}

/// How much a name differs; `None`: too much.
fn unlikeness(wanted: &[char], name: &str) -> Option<usize> {
    let name: Vec<char> = name.chars().flat_map(char::to_lowercase).collect();
    let apart_max = (wanted.len() / 3).clamp(1, 3);
    let apart = if wanted.len().abs_diff(name.len()) <= apart_max {
        Some(edits(wanted, &name)).filter(|apart| *apart <= apart_max)
    } else {
        None
    };
    let (shorter, longer) =
        if wanted.len() < name.len() { (wanted, name.as_slice()) } else { (name.as_slice(), wanted) };
    let contains = shorter.len() >= 3 && longer.windows(shorter.len()).any(|part| part == shorter);
    apart.or_else(|| contains.then(|| longer.len() - shorter.len()))
}

/// How many letters must be added, dropped or exchanged to make one of the other (Levenshtein).
fn edits(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (to, &above) in b.iter().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(from != to)).min(above + 1).min(left + 1);
            diagonal = above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        let count = |a: &str, b: &str| edits(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        for (a, b, apart) in [
            ("", "", 0),
            ("", "abc", 3),
            ("memory", "memroy", 2),
            ("kitten", "sitting", 3),
            ("cpu", "cpu", 0),
        ] {
            assert_eq!(count(a, b), apart, "{a} {b}");
            assert_eq!(count(b, a), apart, "{b} {a}");
        }
    }

    #[test]
    fn the_likest_names_come_first_and_unlike_ones_not_at_all() {
        let names = ["cpu", "memory", "http_requests_total", "queue_length", "requests"];
        let like = |wanted| similar(wanted, names.into_iter());
        assert_eq!(like("CPU"), ["cpu"]);
        assert_eq!(like("memry"), ["memory"]);
        assert_eq!(like("http_requests"), ["requests", "http_requests_total"]);
        assert_eq!(like("zzz"), Vec::<&str>::new());
        assert_eq!(like(&"x".repeat(100_000)), Vec::<&str>::new());
    }
}
