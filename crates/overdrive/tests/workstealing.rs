//! The re-export of the thread pool crate works from outside.

use std::error::Error;
use std::time::Duration;

use overdrive::workstealing::{
    Deadline, DrainReport, Health, Overload, Priority, TaskError, TaskHandle, ThreadPool,
    ThreadPoolSettings, ThreadPoolStats, join, scope,
};

#[test]
fn a_thread_pool_through_the_facade() -> Result<(), Box<dyn Error>> {
    let mut settings = ThreadPoolSettings::api();
    settings.workers = Some(2);
    let pool = ThreadPool::builder()
        .name("facade")
        .settings(settings)
        .overload(Overload::CallerRuns)
        .build()?;
    let task: TaskHandle<u32> = pool
        .task()
        .priority(Priority::High)
        .deadline(Duration::from_secs(3600))
        .submit(|| 6 * 7)?;
    let result: Result<u32, TaskError> = task.join();
    assert_eq!(result?, 42);
    let mut parts = [0; 2];
    let (a, b) = parts.split_at_mut(1);
    pool.install(|| {
        join(|| a[0] = 1, || b[0] = 2);
        scope(|s| s.spawn(|_| ()));
    });
    assert_eq!(parts, [1, 2]);
    assert_eq!(pool.health(), Health::Healthy);
    let report: DrainReport = pool.shutdown(Deadline::NEVER);
    assert!(report.is_complete());
    let stats: ThreadPoolStats = pool.stats();
    assert_eq!(stats.completed, 2);
    Ok(())
}
