//! A minimal blocking Redis client, so that tests can look at a server without the code under
//! test.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK` and the like.
    Status(String),
    /// `-ERR ...`.
    Error(String),
    /// A number.
    Integer(i64),
    /// Bytes.
    Bytes(Vec<u8>),
    /// No value.
    Nil,
    /// Several answers.
    Array(Vec<Self>),
}

impl Reply {
    /// The text of a status or of bytes; `None` for everything else.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Status(text) => Some(text.clone()),
            Self::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        }
    }
}

/// One connection; requests one at a time.
#[derive(Debug)]
pub struct RespClient {
    stream: BufReader<TcpStream>,
}

impl RespClient {
    /// Connects; each read and write may take up to `limit`.
    ///
    /// # Errors
    /// Whatever the connection gives.
    pub fn connect(addr: SocketAddr, limit: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, limit)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// Whatever the connection gives, the time-out included. An error of the *server* is a
    /// [`Reply::Error`].
    pub fn command<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> io::Result<Reply> {
        let mut request = format!("*{}\r\n", arguments.len()).into_bytes();
        for argument in arguments {
            let argument = argument.as_ref();
            write!(request, "${}\r\n", argument.len())?;
            request.extend_from_slice(argument);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&request)?;
        self.reply()
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        let rest = line.get(1..).unwrap_or_default();
        Ok(match line.chars().next() {
            Some('+') => Reply::Status(rest.to_owned()),
            Some('-') => Reply::Error(rest.to_owned()),
            Some(':') => Reply::Integer(number(rest)?),
            Some('$') => match usize::try_from(number(rest)?) {
                Err(_) => Reply::Nil,
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.stream.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Reply::Bytes(bytes)
                }
            },
            Some('*') => match usize::try_from(number(rest)?) {
                Err(_) => Reply::Nil,
                Ok(length) => {
                    let replies = (0..length).map(|_| self.reply());
                    Reply::Array(replies.collect::<io::Result<_>>()?)
                }
            },
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, line)),
        })
    }
}

fn number(text: &str) -> io::Result<i64> {
    let bad = |_| io::Error::new(io::ErrorKind::InvalidData, text);
    text.parse().map_err(bad)
}
