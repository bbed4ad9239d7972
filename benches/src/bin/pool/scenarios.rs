//! The scenarios.

use std::sync::Arc;

use overdrive_bench::results::Role;
use overdrive_bench::{Contender, Scenario};
use overdrive_pool::Pool;

use crate::jobs::{Burst, CrossThread, Encode, GetPut, Job, get_put};
use crate::object::{BUFFER, Buffer, Object, Small};
use crate::ours::{self, Build};
use crate::reference::{Fresh, MutexVec, Raw, ThreadLocal};

#[cfg(feature = "pool-peers")]
use crate::peers::{Lockfree, ObjectPool, Opool, Queued, SpinLock};

/// All scenarios of object pools.
pub(crate) fn suite() -> Vec<Scenario> {
    let get_put =
        |id| Scenario::time(id, "take an object, write 8 bytes, return it").threads(&[1, 2, 4]);
    let burst = |id| {
        Scenario::time(id, "take 64 objects, write to each, return them all")
            .per_op(64)
            .check_ops(100)
    };
    let large_burst = Scenario::time(
        "pool/burst_512_64b",
        "take 512 objects, write to each, return them all: more than a thread's cache holds",
    )
    .per_op(512)
    .check_ops(20)
    .slow();
    let cross = Scenario::time(
        "pool/cross_thread_4k",
        "one thread takes and writes, another reads and returns, over an SPSC ring of 256",
    )
    .threads(&[2])
    .relay();
    vec![
        buffers(get_put("pool/get_put_4k"), &GetPut)
            .with(limit::<Buffer>(&GetPut))
            .with(owned(&GetPut))
            .with(shared(&GetPut)),
        small(get_put("pool/get_put_64b"), &GetPut).with(limit::<Small>(&GetPut)),
        buffers(burst("pool/burst_64_4k"), &Burst::<64>)
            .with(limit::<Buffer>(&Burst::<64>))
            .with(shared(&Burst::<64>)),
        small(burst("pool/burst_64_64b"), &Burst::<64>).with(limit::<Small>(&Burst::<64>)),
        small(large_burst, &Burst::<512>).with(limit::<Small>(&Burst::<512>)),
        buffers(cross, &CrossThread)
            .with(owned(&CrossThread))
            .with(shared(&CrossThread)),
        two_pools(),
        json_encode(),
    ]
}

/// Ours, and every peer that pools objects. `M` is what the pools are given that
/// move what they hold.
fn against<T: Build + Sync, M: Object + Sync>(scenario: Scenario, job: &impl Job) -> Scenario {
    let ours = job.contender(Role::Ours, "overdrive-pool", ours::VERSION, T::pool);
    let mutex = job.contender(Role::Peer, "mutex-vec", "std", MutexVec::<M>::new);
    let scenario = scenario.with(ours).with(mutex);
    #[cfg(feature = "pool-peers")]
    let scenario = {
        use crossbeam_queue::{ArrayQueue, SegQueue};
        const PEER: Role = Role::Peer;
        let (object, opool) = ("object-pool", "opool");
        let (linear, spin) = ("lockfree-object-pool", "lockfree-object-pool spin");
        let lockfree = version(linear);
        let queue = version("crossbeam-queue");
        scenario
            .with(job.contender(PEER, object, &version(object), ObjectPool::<M>::new))
            .with(job.contender(PEER, linear, &lockfree, Lockfree::<T>::new))
            .with(job.contender(PEER, spin, &lockfree, SpinLock::<T>::new))
            .with(job.contender(PEER, opool, &version(opool), Opool::<M>::new))
            .with(job.slab::<T>("sharded-slab", &version("sharded-slab")))
            .with(job.contender(PEER, "ArrayQueue", &queue, Queued::<ArrayQueue<M>>::new))
            .with(job.contender(PEER, "SegQueue", &queue, Queued::<SegQueue<M>>::new))
    };
    scenario
}

/// The version that the benchmark was built with.
#[cfg(feature = "pool-peers")]
fn version(package: &str) -> String {
    overdrive_bench::locked_version(include_str!("../../../../Cargo.lock"), package)
}

/// The floor of what stays on one thread.
fn limit<T: Object>(job: &impl Job) -> Contender {
    job.contender(
        Role::Limit,
        "thread-local list",
        "std",
        ThreadLocal::<T>::new,
    )
}

/// The allocators, for blocks of the object's size.
fn allocators<const SIZE: usize>(scenario: Scenario, job: &impl Job) -> Scenario {
    #[cfg(feature = "pool-peers")]
    let scenario = {
        let make = || Raw::<_, SIZE>::new(mimalloc::MiMalloc);
        let row = job.contender(Role::Peer, "mimalloc", &version("mimalloc"), make);
        scenario.with(row.uncounted())
    };
    let system = job.contender(Role::Peer, "system malloc", "libc", Raw::<_, SIZE>::system);
    scenario.with(system.uncounted())
}

fn buffers(scenario: Scenario, job: &impl Job) -> Scenario {
    let scenario = scenario.input("4 KiB buffers; allocators: uninitialised blocks of 4 KiB");
    allocators::<BUFFER>(against::<Buffer, Buffer>(scenario, job), job)
}

fn small(scenario: Scenario, job: &impl Job) -> Scenario {
    let scenario = scenario
        .input("64-byte objects, boxed in pools that move; allocators: uninitialised 64 bytes");
    allocators::<64>(against::<Small, Box<Small>>(scenario, job), job)
}

/// Ours through guards that may be stored.
fn owned(job: &impl Job) -> Contender {
    let make = ours::Owned::<Buffer>::new;
    job.contender(Role::Context, "owned guards", ours::VERSION, make)
}

/// Ours without thread caches.
fn shared(job: &impl Job) -> Contender {
    let make = ours::shared_buffers;
    job.contender(Role::Context, "shared mode", ours::VERSION, make)
}

fn two_pools() -> Scenario {
    let contender = |name: &str, role, make: fn() -> [Pool<Buffer>; 2], same: bool| {
        Contender::time(role, name, ours::VERSION, move |_| {
            let [one, other]: [&'static _; 2] = make().map(|pool| &*Box::leak(Box::new(pool)));
            let other = if same { one } else { other };
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
    let two = || [Buffer::pool(), ours::bounded_buffers()];
    let of_one_kind = || [Buffer::pool(), Buffer::pool()];
    Scenario::time(
        "pool/two_pools",
        "take and return, in turn from two pools of buffers with resets of their own",
    )
    .input("4 KiB buffers; the second pool discards what has grown beyond 64 KiB")
    .per_op(2)
    .with(contender("overdrive-pool", Role::Ours, two, false))
    .with(contender("one-pool", Role::Context, of_one_kind, true))
    .with(
        contender("two-of-one-kind", Role::Context, of_one_kind, false)
            .remark("both built by one function, so that both return through the same code"),
    )
}

fn json_encode() -> Scenario {
    let job = Encode {
        records: Arc::default(),
    };
    let scenario = Scenario::time(
        "pool/json_encode",
        "encode every package record of `cargo metadata` to JSON, each into a taken buffer",
    )
    .input("this workspace's dependency graph; one operation is all records")
    .check_ops(1)
    // Where a buffer lies moves its speed by half a percent, which is more than
    // the pools differ by.
    .instances(12);
    let fresh = job.contender(Role::Reference, "fresh-vec", "std", Fresh::<Buffer>::new);
    against::<Buffer, Buffer>(scenario, &job)
        .with(limit::<Buffer>(&job))
        .with(fresh)
}
