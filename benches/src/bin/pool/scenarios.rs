//! The scenarios.

use std::hint::black_box;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use overdrive_bench::results::Role;
use overdrive_bench::{Contender, Scenario};
use overdrive_pool::Pool;
use rtrb::{Consumer, Producer, RingBuffer};
use serde_json::Value;

use crate::json;
use crate::object::{BUFFER, Buffer, Object, Payload, Small, Source};
use crate::ours::{self, Build};
use crate::reference::{Fresh, MutexVec, Raw, ThreadLocal};

#[cfg(feature = "pool-peers")]
use crate::peers::{Lockfree, ObjectPool, Opool, OwnedSlab, Queued, ShardedSlab, SpinLock};

/// `lockfree-object-pool` with a spin lock.
#[cfg(feature = "pool-peers")]
const SPIN: &str = "lockfree-object-pool spin";
/// Held at once in the burst scenarios.
const BURST: usize = 64;
/// More than a thread's cache of ours holds.
const LARGE_BURST: usize = 512;
/// Objects that may be on their way from the producer to the consumer.
const RING: usize = 256;

/// The version that the benchmark was built with.
#[cfg(feature = "pool-peers")]
fn version(package: &str) -> String {
    overdrive_bench::locked_version(include_str!("../../../../Cargo.lock"), package)
}

/// What a scenario does with a pool, whatever pool it is.
trait Job {
    fn contender<S: Source>(role: Role, name: &str, version: &str, make: fn() -> S) -> Contender
    where
        S::Held: Send;

    /// `sharded-slab`, whose plain guards stay on their thread.
    #[cfg(feature = "pool-peers")]
    fn slab<T: Object + Sync>(name: &str, version: &str) -> Contender;
}

/// Take, write 8 bytes, return.
struct GetPut;

impl GetPut {
    fn of<S: Source>(role: Role, name: &str, version: &str, make: fn() -> S) -> Contender {
        Contender::time(role, name, version, move |_| {
            let pool: &'static S = Box::leak(Box::new(make()));
            move |_| move |ops| (0..ops).fold(0u64, |sum, n| sum.wrapping_add(get_put(pool, n)))
        })
    }
}

/// Take so many, write to each, return them all.
struct Burst<const HELD: usize>;

impl<const HELD: usize> Burst<HELD> {
    fn of<S: Source>(role: Role, name: &str, version: &str, make: fn() -> S) -> Contender {
        Contender::time(role, name, version, move |_| {
            let pool: &'static S = Box::leak(Box::new(make()));
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

macro_rules! stays_on_its_thread {
    ($job:ty) => {
        impl Job for $job {
            fn contender<S: Source>(
                role: Role,
                name: &str,
                version: &str,
                make: fn() -> S,
            ) -> Contender {
                Self::of(role, name, version, make)
            }

            #[cfg(feature = "pool-peers")]
            fn slab<T: Object + Sync>(name: &str, version: &str) -> Contender {
                Self::of(Role::Peer, name, version, ShardedSlab::<T>::new)
            }
        }
    };
}

stays_on_its_thread!(GetPut);
stays_on_its_thread!(Burst<BURST>);
stays_on_its_thread!(Burst<LARGE_BURST>);

/// One thread takes and writes, the other reads and returns.
struct CrossThread;

enum End<T> {
    Producer(Producer<T>),
    Consumer(Consumer<T>),
}

impl Job for CrossThread {
    fn contender<S: Source>(role: Role, name: &str, version: &str, make: fn() -> S) -> Contender
    where
        S::Held: Send,
    {
        Contender::time(role, name, version, move |_| {
            let pool: &'static S = Box::leak(Box::new(make()));
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
    fn slab<T: Object + Sync>(name: &str, version: &str) -> Contender {
        Self::contender(Role::Peer, name, version, OwnedSlab::<T>::new)
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

/// Encodes every record into a taken buffer.
fn encode<S>(role: Role, name: &str, version: &str, records: &Records, make: fn() -> S) -> Contender
where
    S: Source<Payload = Vec<u8>>,
{
    let records = Arc::clone(records);
    Contender::time(role, name, version, move |setup| {
        records.get_or_init(|| json::packages(&setup.workspace));
        let pool: &'static S = Box::leak(Box::new(make()));
        let records = Arc::clone(&records);
        move |_| {
            let records = Arc::clone(&records);
            move |ops| {
                let mut sum = 0u64;
                for record in (0..ops).flat_map(|_| records.get().into_iter().flatten()) {
                    let mut held = pool.take();
                    let buffer = S::payload(&mut held);
                    json::encode(record, buffer);
                    sum = sum.wrapping_add(black_box(buffer).len() as u64);
                    pool.give(held);
                }
                sum
            }
        }
    })
}

/// Adds the peers that pool any object.
fn against<J: Job, T: Build + Sync, M: Object + Sync>(scenario: Scenario) -> Scenario {
    let scenario = scenario
        .with(J::contender(
            Role::Ours,
            "overdrive-pool",
            ours::VERSION,
            T::pool,
        ))
        .with(J::contender(
            Role::Peer,
            "mutex-vec",
            "std",
            MutexVec::<M>::new,
        ));
    #[cfg(feature = "pool-peers")]
    let scenario = {
        use crossbeam_queue::{ArrayQueue, SegQueue};
        let queue = version("crossbeam-queue");
        let named = |name: &'static str| (name, version(name));
        let (object, lockfree) = (named("object-pool"), named("lockfree-object-pool"));
        let (opool, slab) = (named("opool"), named("sharded-slab"));
        scenario
            .with(J::contender(
                Role::Peer,
                object.0,
                &object.1,
                ObjectPool::<M>::new,
            ))
            .with(J::contender(
                Role::Peer,
                lockfree.0,
                &lockfree.1,
                Lockfree::<T>::new,
            ))
            .with(J::contender(
                Role::Peer,
                SPIN,
                &lockfree.1,
                SpinLock::<T>::new,
            ))
            .with(J::contender(Role::Peer, opool.0, &opool.1, Opool::<M>::new))
            .with(J::slab::<T>(slab.0, &slab.1))
            .with(J::contender(
                Role::Peer,
                "ArrayQueue",
                &queue,
                Queued::<ArrayQueue<M>>::new,
            ))
            .with(J::contender(
                Role::Peer,
                "SegQueue",
                &queue,
                Queued::<SegQueue<M>>::new,
            ))
    };
    scenario
}

/// The records of [`json::packages`], read when a contender is first built.
type Records = Arc<OnceLock<Vec<Value>>>;

/// The floor of what stays on one thread.
fn limit<J: Job, T: Object>() -> Contender {
    J::contender(
        Role::Limit,
        "thread-local list",
        "std",
        ThreadLocal::<T>::new,
    )
}

/// The allocators, for blocks of the object's size.
fn allocators<J: Job, const SIZE: usize>(scenario: Scenario) -> Scenario {
    #[cfg(feature = "pool-peers")]
    let scenario = scenario.with(
        J::contender(Role::Peer, "mimalloc", &version("mimalloc"), || {
            Raw::<_, SIZE>::new(mimalloc::MiMalloc)
        })
        .uncounted(),
    );
    scenario
        .with(J::contender(Role::Peer, "system malloc", "libc", Raw::<_, SIZE>::system).uncounted())
}

fn buffers<J: Job>(scenario: Scenario) -> Scenario {
    let scenario = scenario.input("4 KiB buffers; allocators: uninitialised blocks of 4 KiB");
    allocators::<J, BUFFER>(against::<J, Buffer, Buffer>(scenario))
}

fn small<J: Job>(scenario: Scenario) -> Scenario {
    let scenario = scenario
        .input("64-byte objects, boxed in pools that move; allocators: uninitialised 64 bytes");
    allocators::<J, 64>(against::<J, Small, Box<Small>>(scenario))
}

/// Take, write 8 bytes, return.
#[inline(always)]
fn get_put<S: Source>(pool: &'static S, n: u64) -> u64 {
    let mut held = pool.take();
    let payload = S::payload(&mut held);
    payload.write(n);
    let read = black_box(&*payload).read();
    pool.give(held);
    read
}

/// The pools of one row of [`two_pools`].
type Pair = [&'static Pool<Buffer>; 2];

fn two_pools() -> Scenario {
    let contender = |role, name: &str, make: fn() -> Pair| {
        Contender::time(role, name, ours::VERSION, move |_| {
            let [one, other] = make();
            move |_| {
                move |ops| {
                    (0..ops).fold(0u64, |sum, n| {
                        sum.wrapping_add(get_put(one, n))
                            .wrapping_add(get_put(other, n))
                    })
                }
            }
        })
    };
    Scenario::time(
        "pool/two_pools",
        "take and return, in turn from two pools of buffers with resets of their own",
    )
    .input("4 KiB buffers; the second pool discards what has grown beyond 64 KiB")
    .per_op(2)
    .with(contender(Role::Ours, "overdrive-pool", || {
        [leaked(Buffer::pool()), leaked(ours::bounded_buffers())]
    }))
    .with(contender(Role::Context, "one-pool", || {
        [leaked(Buffer::pool()); 2]
    }))
    .with(
        contender(Role::Context, "two-of-one-kind", || {
            [leaked(Buffer::pool()), leaked(Buffer::pool())]
        })
        .remark("both built by one function, so that both return through the same code"),
    )
}

fn leaked(pool: Pool<Buffer>) -> &'static Pool<Buffer> {
    Box::leak(Box::new(pool))
}

fn json_encode() -> Scenario {
    let records: Records = Arc::new(OnceLock::new());
    let scenario = Scenario::time(
        "pool/json_encode",
        "encode every package record of `cargo metadata` to JSON, each into a taken buffer",
    )
    .input("this workspace's dependency graph; one operation is all records")
    .check_ops(1)
    // Where a buffer lies moves its speed by half a percent, which is more than
    // the pools differ by.
    .instances(12)
    .with(encode(
        Role::Ours,
        "overdrive-pool",
        ours::VERSION,
        &records,
        Buffer::pool,
    ))
    .with(encode(
        Role::Limit,
        "thread-local list",
        "std",
        &records,
        ThreadLocal::<Buffer>::new,
    ))
    .with(encode(
        Role::Reference,
        "fresh-vec",
        "std",
        &records,
        Fresh::<Buffer>::new,
    ))
    .with(encode(
        Role::Peer,
        "mutex-vec",
        "std",
        &records,
        MutexVec::<Buffer>::new,
    ));
    #[cfg(feature = "pool-peers")]
    let scenario = {
        use crossbeam_queue::{ArrayQueue, SegQueue};
        let queue = version("crossbeam-queue");
        let named = |name: &'static str| (name, version(name));
        let (object, lockfree) = (named("object-pool"), named("lockfree-object-pool"));
        let (opool, slab) = (named("opool"), named("sharded-slab"));
        scenario
            .with(encode(
                Role::Peer,
                object.0,
                &object.1,
                &records,
                ObjectPool::<Buffer>::new,
            ))
            .with(encode(
                Role::Peer,
                lockfree.0,
                &lockfree.1,
                &records,
                Lockfree::<Buffer>::new,
            ))
            .with(encode(
                Role::Peer,
                SPIN,
                &lockfree.1,
                &records,
                SpinLock::<Buffer>::new,
            ))
            .with(encode(
                Role::Peer,
                opool.0,
                &opool.1,
                &records,
                Opool::<Buffer>::new,
            ))
            .with(encode(
                Role::Peer,
                slab.0,
                &slab.1,
                &records,
                ShardedSlab::<Buffer>::new,
            ))
            .with(encode(
                Role::Peer,
                "ArrayQueue",
                &queue,
                &records,
                Queued::<ArrayQueue<Buffer>>::new,
            ))
            .with(encode(
                Role::Peer,
                "SegQueue",
                &queue,
                &records,
                Queued::<SegQueue<Buffer>>::new,
            ))
    };
    scenario
}

/// All scenarios of object pools.
pub(crate) fn suite() -> Vec<Scenario> {
    let get_put =
        |id| Scenario::time(id, "take an object, write 8 bytes, return it").threads(&[1, 2, 4]);
    let burst = |id| {
        Scenario::time(id, "take 64 objects, write to each, return them all")
            .per_op(BURST as u64)
            .check_ops(100)
    };
    let large_burst = Scenario::time(
        "pool/burst_512_64b",
        "take 512 objects, write to each, return them all: more than a thread's cache holds",
    )
    .per_op(LARGE_BURST as u64)
    .check_ops(20)
    .slow();
    let cross = Scenario::time(
        "pool/cross_thread_4k",
        "one thread takes and writes, another reads and returns, over an SPSC ring of 256",
    )
    .threads(&[2])
    .relay();
    vec![
        buffers::<GetPut>(get_put("pool/get_put_4k"))
            .with(limit::<GetPut, Buffer>())
            .with(owned::<GetPut>())
            .with(shared::<GetPut>()),
        small::<GetPut>(get_put("pool/get_put_64b")).with(limit::<GetPut, Small>()),
        buffers::<Burst<BURST>>(burst("pool/burst_64_4k"))
            .with(limit::<Burst<BURST>, Buffer>())
            .with(shared::<Burst<BURST>>()),
        small::<Burst<BURST>>(burst("pool/burst_64_64b")).with(limit::<Burst<BURST>, Small>()),
        small::<Burst<LARGE_BURST>>(large_burst).with(limit::<Burst<LARGE_BURST>, Small>()),
        buffers::<CrossThread>(cross)
            .with(owned::<CrossThread>())
            .with(shared::<CrossThread>()),
        two_pools(),
        json_encode(),
    ]
}

/// Ours through guards that may be stored.
fn owned<J: Job>() -> Contender {
    let make = ours::Owned::<Buffer>::new;
    J::contender(Role::Context, "owned guards", ours::VERSION, make)
}

/// Ours without thread caches.
fn shared<J: Job>() -> Contender {
    let make = ours::shared_buffers;
    J::contender(Role::Context, "shared mode", ours::VERSION, make)
}
