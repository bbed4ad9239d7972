//! Replies in a stream of bytes.

use redis::{ParsingError, RedisResult, Value, parse_redis_value};

/// Room for what comes, at the least, and what is kept between two calls.
const ROOM: usize = 4 << 10;

/// What has come and not been taken. Remembers how far it has looked, so that a long reply is
/// looked at once however it comes.
pub(crate) struct Replies {
    bytes: Vec<u8>,
    /// What has come ends here.
    filled: usize,
    /// Where the next reply begins.
    begin: usize,
    /// All before has been looked at.
    looked: usize,
    /// Values that its reply lacks yet.
    missing: usize,
}

impl Default for Replies {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            filled: 0,
            begin: 0,
            looked: 0,
            missing: 1,
        }
    }
}

impl Replies {
    pub(crate) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Where to put what comes.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.begin > 0 {
            self.bytes.copy_within(self.begin..self.filled, 0);
            self.filled -= self.begin;
            self.looked -= self.begin;
            self.begin = 0;
        }
        if self.bytes.len() - self.filled < ROOM {
            let len = (2 * self.bytes.len()).max(self.filled + ROOM);
            self.bytes.resize(len, 0);
        }
        &mut self.bytes[self.filled..]
    }

    /// So many bytes have been put there.
    pub(crate) fn come(&mut self, bytes: usize) {
        self.filled += bytes;
    }

    /// The next reply, once all of it is there. What a server sends unasked is left out.
    pub(crate) fn next(&mut self) -> RedisResult<Option<Value>> {
        loop {
            if !self.look()? {
                return Ok(None);
            }
            let reply = &self.bytes[self.begin..self.looked];
            let value = match reply {
                [b'>', ..] => None,
                reply => Some(value(reply)?),
            };
            self.take();
            if value.is_some() {
                return Ok(value);
            }
        }
    }

    fn take(&mut self) {
        self.begin = self.looked;
        self.missing = 1;
        if self.begin == self.filled {
            (self.begin, self.looked, self.filled) = (0, 0, 0);
            if self.bytes.len() > 16 * ROOM {
                self.bytes = Vec::new();
            }
        }
    }

    /// Looks on: whether the reply is there as a whole.
    fn look(&mut self) -> Result<bool, ParsingError> {
        while self.missing > 0 {
            let bytes = &self.bytes[self.looked..self.filled];
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                return Ok(false);
            };
            let (line, rest) = bytes.split_at(end + 1);
            let (text, more) = match line[0] {
                b'$' | b'!' | b'=' => (length(line)?.map(|length| length.saturating_add(2)), 0),
                b'*' | b'~' | b'>' => (None, length(line)?.unwrap_or(0)),
                b'%' => (None, length(line)?.unwrap_or(0).saturating_mul(2)),
                // And what it is about.
                b'|' => {
                    let pairs = length(line)?.unwrap_or(0).saturating_mul(2);
                    (None, pairs.saturating_add(1))
                }
                b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => (None, 0),
                _ => return Err(ParsingError::from("no reply begins like that".to_owned())),
            };
            let text = text.unwrap_or(0);
            if rest.len() < text {
                return Ok(false);
            }
            self.looked += line.len() + text;
            self.missing = (self.missing - 1).saturating_add(more);
        }
        Ok(true)
    }
}

/// The number in a line, `None` for that of an absent value.
fn length(line: &[u8]) -> Result<Option<usize>, ParsingError> {
    let number = std::str::from_utf8(&line[1..])?.trim_end();
    if number == "-1" {
        return Ok(None);
    }
    let length = number.parse();
    let length = length.map_err(|_| ParsingError::from("a length that is no number".to_owned()))?;
    Ok(Some(length))
}

/// What a whole reply says. The client's parser copies all that it reads; a string, which may be
/// long, needs none of it.
fn value(reply: &[u8]) -> RedisResult<Value> {
    let line = reply.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    match reply {
        [b'$', digit, ..] if *digit != b'-' => {
            let text = &reply[line + 1..reply.len() - 2];
            Ok(Value::BulkString(text.to_vec()))
        }
        b"+OK\r\n" => Ok(Value::Okay),
        b"$-1\r\n" => Ok(Value::Nil),
        reply => parse_redis_value(reply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of these bytes, so many at a time.
    fn read(bytes: &[u8], step: usize) -> Vec<Value> {
        let mut replies = Replies::default();
        let mut values = Vec::new();
        for part in bytes.chunks(step) {
            replies.room()[..part.len()].copy_from_slice(part);
            replies.come(part.len());
            while let Some(value) = replies.next().unwrap() {
                values.push(value);
            }
        }
        assert!(replies.is_empty());
        values
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn replies_are_the_same_however_they_come() {
        let bytes =
            b"+OK\r\n:-7\r\n$5\r\na\r\nbc\r\n$0\r\n\r\n$-1\r\n*3\r\n:1\r\n*2\r\n$1\r\nx\r\n\
            $-1\r\n*0\r\n*-1\r\n>2\r\n+invalidate\r\n*0\r\n+PONG\r\n%1\r\n$1\r\nk\r\n:2\r\n";
        let nested = Value::Array(vec![text("x"), Value::Nil]);
        let expected = [
            Value::Okay,
            Value::Int(-7),
            text("a\r\nbc"),
            text(""),
            Value::Nil,
            Value::Array(vec![Value::Int(1), nested, Value::Array(vec![])]),
            Value::Nil,
            Value::SimpleString("PONG".to_owned()),
            Value::Map(vec![(text("k"), Value::Int(2))]),
        ];
        for step in 1..=bytes.len() {
            assert_eq!(read(bytes, step), expected, "{step} at a time");
        }
    }

    #[test]
    fn errors_are_values_of_their_own() {
        let values = read(b"-ERR no\r\n*2\r\n-WRONGTYPE x\r\n:1\r\n", 3);
        assert!(matches!(values[0], Value::ServerError(_)));
        assert!(matches!(&values[1], Value::Array(of) if of.len() == 2));
    }

    #[test]
    fn long_replies_find_room_which_is_not_kept() {
        let long = "x".repeat(300_000);
        let mut bytes = format!("${}\r\n", long.len()).into_bytes();
        bytes.extend_from_slice(long.as_bytes());
        bytes.extend_from_slice(b"\r\n");
        assert_eq!(read(&bytes, 4_000), [text(&long)]);
        let mut replies = Replies::default();
        for part in bytes.chunks(4_000) {
            replies.room()[..part.len()].copy_from_slice(part);
            replies.come(part.len());
        }
        replies.next().unwrap();
        assert_eq!(replies.bytes.len(), 0);
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        for bytes in ["HTTP/1.1 400\r\n", "$x\r\n", "*-2\r\n", "\n"] {
            let mut replies = Replies::default();
            replies.room()[..bytes.len()].copy_from_slice(bytes.as_bytes());
            replies.come(bytes.len());
            assert!(replies.next().is_err(), "{bytes:?}");
        }
    }
}
