//! What can be sent.

use std::future::Future;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisResult, ScriptInvocation, Value};

/// What a [`Remote`](crate::Remote) sends: a [`Cmd`], a [`Pipeline`] (atomic or not), or the
/// [`ScriptInvocation`] of a Lua script, which is loaded when the server does not know it.
pub trait Request: Sync + sealed::Sealed {
    /// Sends it and waits for the reply.
    #[doc(hidden)]
    fn send(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> impl Future<Output = RedisResult<Value>> + Send;
}

impl Request for Cmd {
    async fn send(&self, connection: &mut MultiplexedConnection) -> RedisResult<Value> {
        self.query_async(connection).await
    }
}

impl Request for Pipeline {
    async fn send(&self, connection: &mut MultiplexedConnection) -> RedisResult<Value> {
        self.query_async(connection).await
    }
}

impl Request for ScriptInvocation<'_> {
    async fn send(&self, connection: &mut MultiplexedConnection) -> RedisResult<Value> {
        self.invoke_async(connection).await
    }
}

mod sealed {
    #[expect(unnameable_types, reason = "nobody else is to implement it")]
    pub trait Sealed {}
    impl Sealed for redis::Cmd {}
    impl Sealed for redis::Pipeline {}
    impl Sealed for redis::ScriptInvocation<'_> {}
}
