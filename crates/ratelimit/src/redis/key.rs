//! Keys of limits.

use overdrive_remote::Remote;

/// `PREFIX ratelimit:NAME:{KEY}`. The braces make the caller's key alone decide on the slot in a
/// cluster; those in it and in the name are escaped, so that nobody who can choose a key can choose
/// the slot of others. Braces in the prefix are the operator's own choice of a slot.
pub(crate) fn of(remote: &Remote, name: &str, key: &[u8]) -> Vec<u8> {
    let mut tag = Vec::with_capacity(key.len() + 2);
    tag.push(b'{');
    escape(key, &mut tag);
    tag.push(b'}');
    let mut escaped = Vec::with_capacity(name.len());
    escape(name.as_bytes(), &mut escaped);
    remote.key(&[b"ratelimit".as_slice(), &escaped, &tag])
}

fn escape(text: &[u8], into: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'{' => into.extend_from_slice(b"%7B"),
            b'}' => into.extend_from_slice(b"%7D"),
            b'%' => into.extend_from_slice(b"%25"),
            _ => into.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use overdrive_remote::RedisSettings;

    #[test]
    fn a_key_cannot_choose_its_slot_or_be_another() {
        let mut settings = RedisSettings::default();
        settings.prefix = "p:".to_owned();
        let remote = Remote::lazy(settings).unwrap();
        let key = |key: &str| String::from_utf8(of(&remote, "api", key.as_bytes())).unwrap();
        assert_eq!(key("17"), "p:ratelimit:api:{17}");
        assert_eq!(key("a}{b").matches(['{', '}']).count(), 2);
        assert_ne!(key("}"), key("%7D"));
    }

    #[test]
    fn braces_of_a_name_do_not_decide_on_the_slot() {
        let remote = Remote::lazy(RedisSettings::default()).unwrap();
        let key = String::from_utf8(of(&remote, "per {route}", b"x")).unwrap();
        assert!(key.ends_with(":{x}"), "{key}");
        assert_eq!(key.matches(['{', '}']).count(), 2, "{key}");
    }
}
