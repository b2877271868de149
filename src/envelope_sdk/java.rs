//! Orders that the SDK takes from Java.

use std::cmp::Ordering;

/// Entries at which a bucket of a `HashMap` may become a tree, whose order cannot be told from its keys.
const TREEIFY_THRESHOLD: usize = 8;

/// `String.compareTo`: by UTF-16 code units.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    a.encode_utf16().cmp(b.encode_utf16())
}

/// `String.hashCode`, spread as in `HashMap.hash`.
fn spread_hash(text: &str) -> u32 {
    let hash = text.encode_utf16().fold(0_u32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(u32::from(unit))
    });
    hash ^ (hash >> 16)
}

/// Buckets of a `HashMap` made by `new HashMap()` with this many entries.
fn table_size(entries: usize) -> usize {
    let mut size = 16;
    while entries > size / 4 * 3 {
        size *= 2;
    }
    size
}

fn bucket(key: &str, table: usize) -> usize {
    spread_hash(key) as usize & (table - 1)
}

/// The place of `key` in the iteration of a `HashMap` with `entries` entries. Keys of the same place keep the
/// order in which they were inserted.
pub(super) fn iteration_place(key: &str, entries: usize) -> usize {
    bucket(key, table_size(entries))
}

/// Whether a `HashMap` into which `keys` are inserted keeps all its buckets as lists, so that
/// [`iteration_place`] holds.
pub(super) fn keeps_lists<'a>(keys: impl Iterator<Item = &'a str>) -> bool {
    let mut inserted: Vec<&str> = Vec::new();
    let mut table = 0;
    let mut sizes: Vec<usize> = Vec::new();
    for key in keys {
        let needed = table_size(inserted.len());
        if needed != table {
            table = needed;
            sizes = vec![0; table];
            inserted
                .iter()
                .for_each(|key| sizes[bucket(key, table)] += 1);
        }
        let size = &mut sizes[bucket(key, table)];
        if *size >= TREEIFY_THRESHOLD {
            return false;
        }
        *size += 1;
        inserted.push(key);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_compare_by_utf16_and_not_by_utf8() {
        // U+FF5E sorts after U+1F600.
        assert_eq!(compare("\u{ff5e}", "\u{1f600}"), Ordering::Greater);
        assert_eq!("\u{ff5e}".cmp("\u{1f600}"), Ordering::Less);
        assert_eq!(compare("a", "ab"), Ordering::Less);
        assert_eq!(compare("", ""), Ordering::Equal);
    }

    #[test]
    fn hashes_are_those_of_java() {
        // `"alpha".hashCode()` and `"zeta".hashCode()` in OpenJDK 17.
        let hash = |text: &str| {
            text.encode_utf16()
                .fold(0_i32, |h, c| h.wrapping_mul(31).wrapping_add(i32::from(c)))
        };
        assert_eq!(hash("alpha"), 92_909_918);
        assert_eq!(hash("zeta"), 3_735_256);
        for (text, hash) in [("alpha", 92_909_918_u32), ("zeta", 3_735_256)] {
            assert_eq!(spread_hash(text), hash ^ (hash >> 16));
        }
        // Java's own order of the two in a HashMap is zeta, alpha.
        assert!(iteration_place("zeta", 2) < iteration_place("alpha", 2));
    }

    #[test]
    fn tables_grow_above_three_quarters() {
        let sizes = [0, 12, 13, 24, 25, 48, 49].map(table_size);
        assert_eq!(sizes, [16, 16, 32, 32, 64, 64, 128]);
    }

    #[test]
    fn nine_keys_of_one_bucket_are_noticed() {
        // "Aa" and "BB" have the same hash, and so have all their combinations.
        let mut keys = vec![String::new()];
        for _ in 0..4 {
            let longer = keys
                .iter()
                .flat_map(|k| [format!("{k}Aa"), format!("{k}BB")]);
            keys = longer.collect();
        }
        assert!(keeps_lists(keys.iter().take(8).map(String::as_str)));
        assert!(!keeps_lists(keys.iter().take(9).map(String::as_str)));
    }
}
