//! Sets of completion indexes, written as `0,3-5,7`.

use std::collections::BTreeSet;

pub(crate) type Indexes = BTreeSet<u32>;

/// Reads a list; what is not a number or not below `limit` is left out.
pub(crate) fn parse(text: &str, limit: u32) -> Indexes {
    let mut indexes = Indexes::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.trim().parse::<u32>(), last.trim().parse::<u32>()) {
            indexes.extend(first..=last.min(limit.saturating_sub(1)));
        }
    }
    indexes
}

/// Writes a list, with a dash for three and more in a row and a comma for two, as upstream does.
pub(crate) fn format(indexes: &Indexes) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for &index in indexes {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => parts.push((index, index)),
        }
    }
    let text = |(first, last): (u32, u32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    parts.into_iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written() {
        for text in ["", "0", "0,1", "0-2", "0,2,4-6,9"] {
            assert_eq!(format(&parse(text, 100)), text);
        }
        assert_eq!(format(&parse("0-9", 3)), "0-2");
        assert_eq!(format(&parse("x,2", 100)), "2");
    }
}
