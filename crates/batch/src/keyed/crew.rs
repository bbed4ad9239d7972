//! The real workers: threads, or tasks of tokio.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use overdrive_core::park::Parker;

use super::hub::{Hub, Turn};
use crate::after::After;
use crate::engine::{Next, Ready};
use crate::observe::Observed;
use crate::workers::{caught, employ};

/// A real worker's place. Left in whatever way the worker ends.
pub(super) struct Place<K, T, R, E> {
    pub(super) hub: Arc<Hub<K, T, R, E>>,
    pub(super) worker: usize,
}

impl<K, T, R, E> Drop for Place<K, T, R, E> {
    fn drop(&mut self) {
        self.hub.worker_gone(self.worker);
    }
}

/// Starts a worker thread, which ends when the batcher is closed and has nothing left.
pub(super) fn spawn_thread<K, T, R, E, F>(
    place: Place<K, T, R, E>,
    handler: Arc<F>,
) -> std::io::Result<JoinHandle<()>>
where
    K: Send + Sync + 'static,
    T: Send + 'static,
    R: Send + 'static,
    E: Send + Sync + 'static,
    F: Fn(&K, Vec<T>) -> Result<Vec<R>, E> + Send + Sync + 'static,
{
    let name = format!("overdrive-batch-{}", place.worker);
    thread::Builder::new()
        .name(name)
        .spawn(move || work(&place, &*handler))
}

fn work<K, T, R, E, F>(place: &Place<K, T, R, E>, handler: &F)
where
    F: Fn(&K, Vec<T>) -> Result<Vec<R>, E>,
{
    let Place { hub, worker } = place;
    employ(hub);
    let (parker, waker) = Parker::new();
    hub.enlist(*worker, &waker);
    let mut after = After::new();
    loop {
        let mut duty = match hub.turn(*worker) {
            Turn::Serve(duty) => duty,
            Turn::Park => {
                parker.park(Duration::MAX);
                continue;
            }
            Turn::End => return,
        };
        let mut next = duty.next(Ready::Called, &mut after);
        while let Next::Tick = next {
            thread::yield_now();
            next = duty.next(Ready::Ticked, &mut after);
        }
        if let Next::Batch(items, origins) = next {
            let returned = caught(|| {
                let observed = Observed::begin(&hub.rules.name, items.len(), origins);
                observed.run(|| handler(duty.key(), items))
            });
            duty.deliver(returned.into(), &mut after);
        }
    }
}

/// What a worker task does until the batcher is closed and has nothing left.
#[cfg(feature = "tokio")]
pub(super) async fn work_async<K, T, R, E, F, Fut>(place: Place<K, T, R, E>, handler: Arc<F>)
where
    K: Clone,
    F: Fn(K, Vec<T>) -> Fut,
    Fut: Future<Output = Result<Vec<R>, E>>,
{
    let Place { hub, worker } = &place;
    let mut after = After::new();
    let mut unbroken = 0_u32;
    loop {
        // A worker that never waits would keep its thread for itself.
        unbroken = unbroken.wrapping_add(1);
        if unbroken % crate::tasks::UNBROKEN == 0 {
            crate::tasks::tick().await;
        }
        let turn = std::future::poll_fn(|cx| {
            hub.enlist(*worker, cx.waker());
            match hub.turn(*worker) {
                Turn::Serve(duty) => std::task::Poll::Ready(Some(duty)),
                Turn::Park => std::task::Poll::Pending,
                Turn::End => std::task::Poll::Ready(None),
            }
        });
        let Some(mut duty) = turn.await else {
            return;
        };
        let mut next = duty.next(Ready::Called, &mut after);
        while let Next::Tick = next {
            crate::tasks::tick().await;
            next = duty.next(Ready::Ticked, &mut after);
        }
        if let Next::Batch(items, origins) = next {
            let (name, size) = (&*hub.rules.name, items.len());
            let call = || handler(duty.key().clone(), items);
            let call = || crate::observe::observed(name, size, origins, call);
            let returned = crate::tasks::caught_for(hub, call).await;
            duty.deliver(returned.into(), &mut after);
        }
    }
}
