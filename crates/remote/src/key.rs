//! Keys that cannot be mistaken for one another.

/// The prefix and the parts, parted by `:`. In a part, `:` becomes `%3A` and `%` becomes `%25`;
/// an empty part is `%0`. So different lists of parts give different keys.
pub(crate) fn join<P: AsRef<[u8]>>(prefix: &str, parts: &[P]) -> Vec<u8> {
    let mut key = prefix.as_bytes().to_vec();
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            key.push(b':');
        }
        let part = part.as_ref();
        if part.is_empty() {
            key.extend_from_slice(b"%0");
        }
        for &byte in part {
            match byte {
                b':' => key.extend_from_slice(b"%3A"),
                b'%' => key.extend_from_slice(b"%25"),
                _ => key.push(byte),
            }
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn different_parts_give_different_keys() {
        let alphabet = ["", ":", "%", "a", "0", "3A", "25"];
        let mut parts: Vec<String> = alphabet.map(str::to_owned).to_vec();
        parts.extend(
            alphabet
                .iter()
                .flat_map(|a| alphabet.map(|b| format!("{a}{b}"))),
        );
        parts.sort();
        parts.dedup();
        let mut lists: Vec<Vec<String>> = vec![vec![]];
        for a in &parts {
            lists.push(vec![a.clone()]);
            lists.extend(parts.iter().map(|b| vec![a.clone(), b.clone()]));
        }
        lists.push(vec!["a".into(), "b".into(), "c".into()]);
        let mut seen = HashMap::new();
        for list in lists {
            if let Some(other) = seen.insert(join("p:", &list), list.clone()) {
                panic!("{other:?} and {list:?}");
            }
        }
    }

    #[test]
    fn plain_parts_stay_readable() {
        assert_eq!(join("app:v2:", &["user", "17"]), b"app:v2:user:17");
        assert_eq!(join("", &["a", "b:c"]), b"a:b%3Ac");
    }
}
