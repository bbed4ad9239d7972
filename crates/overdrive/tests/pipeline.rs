//! The re-export of the pipeline crate works from outside.

use std::error::Error;

use overdrive::pipeline::{
    BoxError, ConfigError, DeadLetter, ErrorPolicy, Ingress, Monitor, Pipeline, PipelineError,
    PipelineStats, SendError, TrySendError,
};

#[test]
fn a_pipeline_through_the_facade() -> Result<(), Box<dyn Error>> {
    let (ingress, source) = Pipeline::from_channel(4);
    let ingress: Ingress<u32> = ingress;
    let sent: Result<(), TrySendError<u32>> = ingress.try_send(1);
    sent?;
    ingress.try_send(2)?;
    ingress.close();
    let late: Result<(), SendError<u32>> = ingress.send_blocking(3);
    assert_eq!(late, Err(SendError::Closed(3)));
    let run = source.map(|n| n * 10).parallel(2).name("facade");
    let monitor: Monitor = run.monitor();
    assert_eq!(run.collect::<Vec<_>>()?, [10, 20]);
    let stats: PipelineStats = monitor.stats();
    assert_eq!((monitor.name(), stats.delivered), ("facade", 2));
    Ok(())
}

#[test]
fn errors_of_a_pipeline_through_the_facade() {
    let mut letters: Vec<DeadLetter> = Vec::new();
    let refuse = |n: u32| if n == 1 { Err("refused") } else { Ok(n) };
    let run = Pipeline::from_iter(0..3).try_map(refuse);
    let kept: Result<Vec<u32>, PipelineError> = run.dead_letter(|l| letters.push(l)).collect();
    assert_eq!(kept.ok(), Some(vec![0, 2]));
    let error: BoxError = letters.remove(0).error;
    assert_eq!(error.to_string(), "refused");
    let run = Pipeline::from_iter(0..3)
        .batch(0)
        .on_error(ErrorPolicy::Skip);
    let refused = run.run(drop).unwrap_err();
    assert!(matches!(
        refused,
        PipelineError::Config(ConfigError::Zero { field: "batch" })
    ));
}
