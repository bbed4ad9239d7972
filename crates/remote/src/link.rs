//! A connection that carries one call at a time: whoever calls writes the request and reads the
//! reply, with no task in between.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::{Cmd, Pipeline, RedisFuture, RedisResult, Value};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::reply::Replies;

/// A stream, and what it has brought. A call that ends before its replies have come leaves them to
/// the next one: then it is to be dropped.
#[expect(unnameable_types, reason = "it is in the signature of a sealed trait")]
pub struct Link {
    stream: TcpStream,
    /// How long it may take no bytes while there are some to take.
    write_timeout: Duration,
    replies: Replies,
    database: i64,
}

impl Link {
    pub(crate) fn new(stream: TcpStream, write_timeout: Duration, database: i64) -> Self {
        Self {
            stream,
            write_timeout,
            replies: Replies::default(),
            database,
        }
    }

    /// Whether the other side has closed it, or its runtime has ended, as far as is known; or it
    /// brought what nobody asked for.
    pub(crate) fn has_ended(&self) -> bool {
        if !self.replies.is_empty() {
            return true;
        }
        let mut context = Context::from_waker(Waker::noop());
        match self.stream.poll_read_ready(&mut context) {
            Poll::Pending => false,
            Poll::Ready(Err(_)) => true,
            // What the runtime knows may be of before the last reply.
            Poll::Ready(Ok(())) => match self.stream.try_read(&mut [0]) {
                Err(error) => error.kind() != io::ErrorKind::WouldBlock,
                Ok(_) => true,
            },
        }
    }

    pub(crate) async fn call(&mut self, command: &Cmd) -> RedisResult<Value> {
        self.write(&command.get_packed_command()).await?;
        self.read().await
    }

    async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let limit = self.write_timeout;
        while !bytes.is_empty() {
            let write = poll_fn(|context| {
                let written = Pin::new(&mut self.stream).poll_write(context, bytes);
                if written.is_pending() {
                    // The other side may want to be heard before it takes the rest.
                    while self.poll_receive(context)?.is_ready() {}
                }
                written
            });
            let taken = match timeout(limit, write).await {
                Ok(taken) => taken?,
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            };
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    async fn read(&mut self) -> RedisResult<Value> {
        loop {
            if let Some(value) = self.replies.next()? {
                return Ok(value);
            }
            poll_fn(|context| self.poll_receive(context)).await?;
        }
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = ReadBuf::new(self.replies.room());
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        let come = buffer.filled().len();
        if come == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.replies.come(come);
        Poll::Ready(Ok(()))
    }
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(self.call(command))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            self.write(&pipeline.get_packed_pipeline()).await?;
            // Of a transaction: if one of these is an error, so is what follows them.
            for _ in 0..offset {
                self.read().await?;
            }
            let mut values = Vec::with_capacity(count);
            for _ in 0..count {
                values.push(self.read().await?);
            }
            Ok(values)
        })
    }

    fn get_db(&self) -> i64 {
        self.database
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Replies may be secrets.
        f.debug_struct("Link").finish_non_exhaustive()
    }
}
