//! `amate`: batches on threads, which answer whatever way they are told to; here through a channel
//! that each submitter has for itself.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use amate::{Batching, Config, Engine, Queued};

use crate::sync::{Blocking, MAX_SIZE, write};

struct Handler;

impl Batching for Handler {
    type Item = (u64, Sender<u64>);

    fn weight(&self, _: &Self::Item) -> usize {
        1
    }

    fn window(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn run(&self, batch: Vec<Queued<Self::Item>>) {
        let (items, replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|queued| queued.item).unzip();
        for (result, reply) in write(items).into_iter().zip(replies) {
            // A submitter that has gone wants no reply.
            let _gone = reply.send(result);
        }
    }
}

pub(crate) struct Amate(Arc<Engine<(u64, Sender<u64>)>>);

impl Amate {
    pub(crate) fn new() -> Self {
        let config = Config {
            max_batch: MAX_SIZE,
            workers: 1,
            capacity: Some(1024),
            waits_unannounced: false,
        };
        let engine = Engine::start(Handler, config, |n| format!("amate-{n}"));
        Self(Arc::new(engine))
    }
}

impl Blocking for Amate {
    fn client(&self) -> impl FnMut(u64) -> u64 + Send + 'static {
        let (engine, (reply, replies)) = (Arc::clone(&self.0), channel());
        move |n| {
            let arrival = engine.arrival();
            let sent = engine.submit(Some(arrival), (n, reply.clone()));
            assert!(sent.is_ok(), "there is room");
            replies.recv().expect("the worker replies")
        }
    }
}
