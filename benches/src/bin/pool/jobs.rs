//! What a scenario does with a pool, whatever pool it is.

use std::hint::black_box;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use overdrive_bench::Contender;
use overdrive_bench::results::Role;
use rtrb::{Consumer, Producer, RingBuffer};
use serde_json::Value;

use crate::json;
#[cfg(feature = "pool-peers")]
use crate::object::Object;
use crate::object::{Payload, Source};
#[cfg(feature = "pool-peers")]
use crate::peers::{OwnedSlab, ShardedSlab};

/// Objects that may be on their way from the producer to the consumer.
const RING: usize = 256;

/// A way of using a pool.
pub(crate) trait Job {
    fn contender<S>(&self, role: Role, name: &str, version: &str, make: fn() -> S) -> Contender
    where
        S: Source,
        S::Held: Send;

    /// `sharded-slab`, whose plain guards stay on their thread.
    #[cfg(feature = "pool-peers")]
    fn slab<T: Object + Sync>(&self, name: &str, version: &str) -> Contender;
}

/// A [`Job`] from its inherent `of`, which does not need guards that can be sent.
macro_rules! stays_on_its_thread {
    ($job:ty) => {
        impl Job for $job {
            fn contender<S: Source>(
                &self,
                role: Role,
                name: &str,
                version: &str,
                make: fn() -> S,
            ) -> Contender {
                self.of(role, name, version, make)
            }

            #[cfg(feature = "pool-peers")]
            fn slab<T: Object + Sync>(&self, name: &str, version: &str) -> Contender {
                self.of(Role::Peer, name, version, ShardedSlab::<T>::new)
            }
        }
    };
}

fn leaked<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// Take, write 8 bytes, return.
pub(crate) struct GetPut;

/// One operation of [`GetPut`].
#[inline(always)]
pub(crate) fn get_put<S: Source>(pool: &'static S, n: u64) -> u64 {
    let mut held = pool.take();
    let payload = S::payload(&mut held);
    payload.write(n);
    let read = black_box(&*payload).read();
    pool.give(held);
    read
}

impl GetPut {
    fn of<S: Source>(&self, role: Role, name: &str, version: &str, make: fn() -> S) -> Contender {
        Contender::time(role, name, version, move |_| {
            let pool = leaked(make());
            move |_| move |ops| (0..ops).fold(0u64, |sum, n| sum.wrapping_add(get_put(pool, n)))
        })
    }
}

stays_on_its_thread!(GetPut);

/// Take so many, write to each, return them all.
pub(crate) struct Burst<const HELD: usize>;

impl<const HELD: usize> Burst<HELD> {
    fn of<S: Source>(&self, role: Role, name: &str, version: &str, make: fn() -> S) -> Contender {
        Contender::time(role, name, version, move |_| {
            let pool = leaked(make());
            move |_| {
                let mut held: Vec<S::Held> = Vec::with_capacity(HELD);
                move |ops| {
                    let mut sum = 0u64;
                    for n in 0..ops {
                        for i in 0..HELD as u64 {
                            let mut one = pool.take();
                            S::payload(&mut one).write(n ^ i);
                            held.push(one);
                        }
                        for mut one in held.drain(..) {
                            let read = black_box(S::payload(&mut one)).read();
                            sum = sum.wrapping_add(read);
                            pool.give(one);
                        }
                    }
                    sum
                }
            }
        })
    }
}

stays_on_its_thread!(Burst<64>);
stays_on_its_thread!(Burst<512>);

/// Encode every package record of `cargo metadata`, each into a taken buffer.
pub(crate) struct Encode {
    /// Read when a contender is first built.
    pub(crate) records: Arc<OnceLock<Vec<Value>>>,
}

impl Encode {
    fn of<S: Source>(&self, role: Role, name: &str, version: &str, make: fn() -> S) -> Contender {
        let records = Arc::clone(&self.records);
        Contender::time(role, name, version, move |setup| {
            let pool = leaked(make());
            records.get_or_init(|| json::packages(&setup.workspace));
            let records = Arc::clone(&records);
            move |_| {
                let records = Arc::clone(&records);
                move |ops| {
                    let records = records.get().map_or(&[][..], Vec::as_slice);
                    let mut sum = 0u64;
                    for record in (0..ops).flat_map(|_| records) {
                        let mut held = pool.take();
                        if let Some(buffer) = S::payload(&mut held).buffer() {
                            json::encode(record, buffer);
                            sum = sum.wrapping_add(black_box(buffer).len() as u64);
                        }
                        pool.give(held);
                    }
                    sum
                }
            }
        })
    }
}

stays_on_its_thread!(Encode);

/// One thread takes and writes, the other reads and returns.
pub(crate) struct CrossThread;

enum End<T> {
    Producer(Producer<T>),
    Consumer(Consumer<T>),
}

impl Job for CrossThread {
    fn contender<S>(&self, role: Role, name: &str, version: &str, make: fn() -> S) -> Contender
    where
        S: Source,
        S::Held: Send,
    {
        Contender::time(role, name, version, move |_| {
            let pool = leaked(make());
            let (producer, consumer) = RingBuffer::<S::Held>::new(RING);
            let ends = Mutex::new([Some(End::Producer(producer)), Some(End::Consumer(consumer))]);
            move |thread| {
                let mut ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
                let mut end = ends[thread].take();
                move |ops| match &mut end {
                    Some(End::Producer(ring)) => produce(pool, ring, ops),
                    Some(End::Consumer(ring)) => consume(pool, ring, ops),
                    None => 0,
                }
            }
        })
    }

    #[cfg(feature = "pool-peers")]
    fn slab<T: Object + Sync>(&self, name: &str, version: &str) -> Contender {
        self.contender(Role::Peer, name, version, OwnedSlab::<T>::new)
            .remark("through owned guards: its plain guards cannot change thread")
    }
}

fn produce<S: Source>(pool: &'static S, ring: &mut Producer<S::Held>, ops: u64) -> u64 {
    for n in 0..ops {
        let mut held = pool.take();
        S::payload(&mut held).write(n);
        while let Err(rtrb::PushError::Full(back)) = ring.push(held) {
            held = back;
            wait();
        }
    }
    0
}

fn consume<S: Source>(pool: &'static S, ring: &mut Consumer<S::Held>, ops: u64) -> u64 {
    (0..ops).fold(0u64, |sum, _| {
        let mut held = loop {
            match ring.pop() {
                Ok(held) => break held,
                Err(_) => wait(),
            }
        };
        let read = black_box(S::payload(&mut held)).read();
        pool.give(held);
        sum.wrapping_add(read)
    })
}

/// The other side needs the core where there are more threads than cores.
fn wait() {
    for _ in 0..64 {
        std::hint::spin_loop();
    }
    std::thread::yield_now();
}
