//! Connections, each with one call at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use crate::RemoteError;
use crate::connection::Connection;

/// At most so many connections as there are permits; the most recently used idle one goes first,
/// so that the others can grow old and go.
pub(crate) struct Pool {
    turns: Semaphore,
    state: Mutex<State>,
    open: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    /// The one idle the longest is first.
    idle: Vec<(Connection, Instant)>,
    closed: bool,
}

impl Pool {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            turns: Semaphore::new(size),
            state: Mutex::default(),
            open: Arc::default(),
        }
    }

    /// Waits for the right to use one connection.
    pub(crate) async fn turn(&self, limit: Duration) -> Result<SemaphorePermit<'_>, RemoteError> {
        match timeout(limit, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) => Err(RemoteError::Closed),
            Err(_) => Err(RemoteError::PoolTimedOut { after: limit }),
        }
    }

    /// The right to use one connection, if one is free now.
    pub(crate) fn try_turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.try_acquire().ok()
    }

    /// An idle connection that is still good, for one with a turn.
    pub(crate) fn take(&self) -> Option<Connection> {
        let mut ended = Vec::new();
        let mut state = self.lock();
        let found = loop {
            match state.idle.pop() {
                Some((connection, _)) if connection.has_ended() => ended.push(connection),
                other => break other,
            }
        };
        drop(state);
        found.map(|(connection, _)| connection)
    }

    /// Takes a connection back.
    pub(crate) fn put(&self, connection: Connection) {
        let mut state = self.lock();
        if !state.closed {
            state.idle.push((connection, Instant::now()));
        }
    }

    /// Closes what has ended, and what has been idle for so long, down to `keep` open ones.
    pub(crate) fn trim(&self, idle_for: Duration, keep: usize) {
        let mut going = Vec::new();
        let mut state = self.lock();
        let mut surplus = self.open().saturating_sub(keep);
        let idle = std::mem::take(&mut state.idle);
        for (connection, since) in idle {
            if connection.has_ended() {
                surplus = surplus.saturating_sub(1);
                going.push(connection);
            } else if surplus > 0 && since.elapsed() >= idle_for {
                surplus -= 1;
                going.push(connection);
            } else {
                state.idle.push((connection, since));
            }
        }
        drop(state);
    }

    /// Gives no more turns, and closes the idle connections.
    pub(crate) fn close(&self) {
        self.turns.close();
        let mut state = self.lock();
        state.closed = true;
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        drop(idle);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.turns.is_closed()
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    pub(crate) fn open_count(&self) -> &Arc<AtomicUsize> {
        &self.open
    }

    pub(crate) fn idle(&self) -> usize {
        self.lock().idle.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
