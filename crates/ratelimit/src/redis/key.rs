//! Keys of limits.

use overdrive_remote::Remote;

/// `PREFIX ratelimit:NAME:{KEY}`. The braces make the caller's key alone decide on the slot in a
/// cluster; those in it and in the name are escaped, so that nobody who can choose a key can choose
/// the slot of others. Braces in the prefix are the operator's own choice of a slot.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    /// Up to and with the opening brace.
    head: Vec<u8>,
}

impl Keys {
    pub(crate) fn new(remote: &Remote, name: &str) -> Self {
        let mut escaped = Vec::with_capacity(name.len());
        for &byte in name.as_bytes() {
            match byte {
                b'{' => escaped.extend_from_slice(b"%7B"),
                b'}' => escaped.extend_from_slice(b"%7D"),
                b'%' => escaped.extend_from_slice(b"%25"),
                _ => escaped.push(byte),
            }
        }
        let mut head = remote.key(&[b"ratelimit".as_slice(), &escaped]);
        head.extend_from_slice(b":{");
        Self { head }
    }

    pub(crate) fn of(&self, key: &[u8]) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.head.len() + key.len() + 1);
        all.extend_from_slice(&self.head);
        for &byte in key {
            match byte {
                b'{' => all.extend_from_slice(b"%7B"),
                b'}' => all.extend_from_slice(b"%7D"),
                b':' => all.extend_from_slice(b"%3A"),
                b'%' => all.extend_from_slice(b"%25"),
                _ => all.push(byte),
            }
        }
        all.push(b'}');
        all
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
        let keys = Keys::new(&remote, "api");
        let key = |key: &str| String::from_utf8(keys.of(key.as_bytes())).unwrap();
        assert_eq!(key("17"), "p:ratelimit:api:{17}");
        assert_eq!(key("a}{b").matches(['{', '}']).count(), 2);
        assert_ne!(key("}"), key("%7D"));
    }

    #[test]
    fn braces_of_a_name_do_not_decide_on_the_slot() {
        let remote = Remote::lazy(RedisSettings::default()).unwrap();
        let key = String::from_utf8(Keys::new(&remote, "per {route}").of(b"x")).unwrap();
        assert!(key.ends_with(":{x}"), "{key}");
        assert_eq!(key.matches(['{', '}']).count(), 2, "{key}");
    }
}
