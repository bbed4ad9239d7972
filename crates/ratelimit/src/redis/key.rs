//! Keys of limits.

use overdrive_remote::Remote;

/// `PREFIX ratelimit:NAME:{KEY}`. The braces make the caller's key alone decide on the slot in a
/// cluster; those in it are escaped, so that nobody who can choose a key can choose the slot of
/// others.
pub(crate) fn of(remote: &Remote, name: &str, key: &[u8]) -> Vec<u8> {
    let mut tag = Vec::with_capacity(key.len() + 2);
    tag.push(b'{');
    for &byte in key {
        match byte {
            b'{' => tag.extend_from_slice(b"%7B"),
            b'}' => tag.extend_from_slice(b"%7D"),
            b'%' => tag.extend_from_slice(b"%25"),
            _ => tag.push(byte),
        }
    }
    tag.push(b'}');
    remote.key(&[b"ratelimit".as_slice(), name.as_bytes(), &tag])
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
}
