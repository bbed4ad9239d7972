//! What a recorder and a subscriber get to see.
#![cfg(all(feature = "metrics", feature = "tracing", feature = "tokio"))]

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use overdrive_batch::{Batcher, Gather, KeyedBatcher};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Numbers spans, and keeps which was opened, linked to which, and is entered by whom.
#[derive(Default)]
struct Spans {
    next: AtomicU64,
    log: Mutex<Vec<String>>,
    current: Mutex<Vec<(std::thread::ThreadId, Id)>>,
    names: Mutex<Vec<&'static Metadata<'static>>>,
}

#[derive(Clone, Default)]
struct Watcher(Arc<Spans>);

impl Watcher {
    fn log(&self) -> Vec<String> {
        self.0.log.lock().unwrap().clone()
    }

    fn name(&self, id: &Id) -> &'static Metadata<'static> {
        self.0.names.lock().unwrap()[id.into_u64() as usize - 1]
    }
}

impl Subscriber for Watcher {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.0.names.lock().unwrap().push(span.metadata());
        let name = span.metadata().name();
        self.0.log.lock().unwrap().push(format!(
            "{name}{}",
            if span.is_root() { ", a root" } else { "" }
        ));
        Id::from_u64(self.0.next.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        let line = format!(
            "{} follows {}",
            self.name(span).name(),
            self.name(follows).name()
        );
        self.0.log.lock().unwrap().push(line);
    }

    fn event(&self, _: &Event<'_>) {
        let here = std::thread::current().id();
        let current = self.0.current.lock().unwrap();
        let within = current.iter().rev().find(|(thread, _)| *thread == here);
        let within = within.map_or("nowhere", |(_, id)| self.name(id).name());
        self.0
            .log
            .lock()
            .unwrap()
            .push(format!("an event within {within}"));
    }

    fn enter(&self, span: &Id) {
        let here = std::thread::current().id();
        self.0.current.lock().unwrap().push((here, span.clone()));
    }

    fn exit(&self, span: &Id) {
        let mut current = self.0.current.lock().unwrap();
        let last = current.iter().rposition(|(_, id)| id == span).unwrap();
        current.remove(last);
    }

    fn current_span(&self) -> tracing_core::span::Current {
        let here = std::thread::current().id();
        let current = self.0.current.lock().unwrap();
        match current.iter().rev().find(|(thread, _)| *thread == here) {
            Some((_, id)) => tracing_core::span::Current::new(id.clone(), self.name(id)),
            None => tracing_core::span::Current::none(),
        }
    }
}

#[test]
fn a_batch_has_a_span_of_its_own_with_links_to_those_of_its_items() {
    let watcher = Watcher::default();
    tracing::subscriber::with_default(watcher.clone(), || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let batcher = Batcher::builder()
                .gather(Gather::Linger { min_size: 3 })
                .build(|items: Vec<u8>| async move {
                    tokio::task::yield_now().await;
                    tracing::info!("in the handler");
                    Ok::<_, Infallible>(items)
                })
                .unwrap();
            let first = tracing::info_span!("first").in_scope(|| batcher.try_submit(1).unwrap());
            let second = tracing::info_span!("second").in_scope(|| batcher.try_submit(2).unwrap());
            let third = batcher.try_submit(3).unwrap();
            for ticket in [first, second, third] {
                ticket.await.unwrap();
            }
        });
    });
    let log = watcher.log();
    let expected = [
        "first",
        "second",
        "batch, a root",
        "batch follows first",
        "batch follows second",
        "an event within batch",
    ];
    assert_eq!(log, expected);
}

#[test]
fn a_handler_that_submitters_run_is_in_the_span_of_its_batch_and_not_in_theirs() {
    let watcher = Watcher::default();
    tracing::subscriber::with_default(watcher.clone(), || {
        let batcher = Batcher::builder()
            .build_inline(|items: Vec<u8>| {
                tracing::info!("in the handler");
                Ok::<_, Infallible>(items)
            })
            .unwrap();
        tracing::info_span!("request").in_scope(|| batcher.submit_blocking(1).unwrap());
        tracing::info!("after it");
    });
    let expected = [
        "request",
        "batch, a root",
        "batch follows request",
        "an event within batch",
        "an event within nowhere",
    ];
    assert_eq!(watcher.log(), expected);
}

mod recorded {
    use std::collections::BTreeMap;

    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;

    /// What is recorded, by metric and labels but for the batcher's name.
    fn recorded(name: &str, f: impl FnOnce()) -> BTreeMap<String, DebugValue> {
        let recorder = DebuggingRecorder::new();
        metrics::with_local_recorder(&recorder, f);
        let snapshot = recorder.snapshotter().snapshot().into_vec();
        let entry = |(key, _, _, value): (metrics_util::CompositeKey, _, _, _)| {
            let (metric, labels) = key.key().clone().into_parts();
            let (named, labels): (Vec<_>, Vec<_>) = labels
                .into_iter()
                .partition(|label| label.key() == "batcher");
            assert!(
                named.iter().all(|label| label.value() == name),
                "{metric:?} of {named:?}"
            );
            let labels: Vec<_> = labels.iter().map(metrics::Label::value).collect();
            let metric = metric.as_str().trim_start_matches("overdrive_");
            (format!("{metric} {}", labels.join(" ")), value)
        };
        snapshot.into_iter().map(entry).collect()
    }

    #[test]
    fn the_figures_of_a_batcher_are_reported() {
        let seen = recorded("orders", || {
            let batcher = Batcher::builder()
                .name("orders")
                .build_inline(|items: Vec<u8>| {
                    if items.contains(&3) {
                        Err("three")
                    } else {
                        Ok(items)
                    }
                })
                .unwrap();
            let _results = batcher.submit_all([1, 2]).wait_blocking();
            assert!(batcher.submit_blocking(3).is_err());
            batcher.close();
            assert!(batcher.submit_blocking(4).is_err());
            batcher.report_metrics();
        });
        let DebugValue::Histogram(sizes) = &seen["batch_size "] else {
            panic!("{seen:?}");
        };
        let sizes: Vec<f64> = sizes.iter().map(|size| size.into_inner()).collect();
        assert_eq!(sizes, [2.0, 1.0]);
        assert!(
            matches!(&seen["batch_handler_seconds "], DebugValue::Histogram(times) if times.len() == 2)
        );
        assert_eq!(seen["batches_total idle"], DebugValue::Counter(2));
        assert_eq!(seen["batch_items_total completed"], DebugValue::Counter(2));
        assert_eq!(seen["batch_items_total failed"], DebugValue::Counter(1));
        assert_eq!(seen["batch_items_total rejected"], DebugValue::Counter(1));
        assert_eq!(seen["batch_items queued"], DebugValue::Gauge(0.0.into()));
    }

    #[test]
    fn the_figures_of_all_keys_are_reported_together() {
        let seen = recorded("accounts", || {
            let batcher = KeyedBatcher::builder()
                .name("accounts")
                .build_sync(|_: &u8, items: Vec<u8>| Ok::<_, Infallible>(items))
                .unwrap();
            for key in 0..3 {
                batcher.submit_blocking(key, 7).unwrap();
            }
            batcher.report_metrics();
        });
        assert_eq!(seen["batch_items_total completed"], DebugValue::Counter(3));
    }
}

mod panicking {
    use std::sync::OnceLock;
    use std::sync::atomic::AtomicBool;

    use overdrive_batch::SubmitError;

    use super::*;

    thread_local!(static CURRENT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) });
    static META: OnceLock<&'static Metadata<'static>> = OnceLock::new();

    #[derive(Clone, Default)]
    struct Bad {
        next: Arc<AtomicU64>,
        panics: Arc<AtomicBool>,
    }

    impl Subscriber for Bad {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, span: &Attributes<'_>) -> Id {
            META.get_or_init(|| span.metadata());
            Id::from_u64(self.next.fetch_add(1, Ordering::SeqCst) + 1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {}
        fn enter(&self, id: &Id) {
            CURRENT.set(id.into_u64());
        }
        fn exit(&self, _: &Id) {
            CURRENT.set(0);
        }
        fn current_span(&self) -> tracing_core::span::Current {
            match CURRENT.get() {
                0 => tracing_core::span::Current::none(),
                id => tracing_core::span::Current::new(Id::from_u64(id), META.get().unwrap()),
            }
        }
        fn try_close(&self, _: Id) -> bool {
            assert!(!self.panics.load(Ordering::SeqCst), "in try_close");
            true
        }
    }

    /// Two spans of a batch whose closing panics end the process.
    #[test]
    fn a_subscriber_that_panics_on_closing_fails_a_batch_and_not_the_process() {
        let bad = Bad::default();
        tracing::subscriber::with_default(bad.clone(), || {
            let spans: Vec<_> = (0..2).map(|n| tracing::info_span!("item", n)).collect();
            let tickets = Mutex::new(Vec::new());
            let (go_on, gate) = std::sync::mpsc::channel::<()>();
            let gate = Mutex::new(gate);
            let (entered, is_entered) = std::sync::mpsc::channel::<()>();
            let entered = Mutex::new(entered);
            let held = Batcher::builder()
                .workers(1)
                .build_inline(move |items: Vec<u8>| {
                    if items == [0] {
                        entered.lock().unwrap().send(()).unwrap();
                        let _ = gate.lock().unwrap().recv();
                    }
                    Ok::<_, Infallible>(items)
                })
                .unwrap();
            let runner = held.clone();
            let dispatch = tracing::dispatcher::get_default(Clone::clone);
            let runner = std::thread::spawn(move || {
                tracing::dispatcher::with_default(&dispatch, || runner.submit_blocking(0).unwrap())
            });
            is_entered.recv().unwrap();
            for span in &spans {
                span.in_scope(|| tickets.lock().unwrap().push(held.try_submit(1).unwrap()));
            }
            bad.panics.store(true, Ordering::SeqCst);
            drop(go_on);
            let _ = runner.join();
            bad.panics.store(false, Ordering::SeqCst);
            drop(spans);
        });
    }

    /// A lease that cannot be had, and a span whose closing panics.
    #[test]
    fn a_subscriber_that_panics_where_a_lease_fails_does_not_end_the_worker() {
        let bad = Bad::default();
        tracing::subscriber::with_default(bad.clone(), || {
            let fails = Arc::new(AtomicBool::new(true));
            let once = Arc::clone(&fails);
            let batcher = Batcher::builder()
                .workers(1)
                .build_sync_with(
                    move || {
                        if once.load(Ordering::SeqCst) {
                            Err("no")
                        } else {
                            Ok(())
                        }
                    },
                    |(), items: Vec<u8>| Ok(items),
                )
                .unwrap();
            bad.panics.store(true, Ordering::SeqCst);
            let span = tracing::info_span!("item");
            let ticket = span.in_scope(|| batcher.try_submit(1).unwrap());
            let error = ticket.wait_blocking().unwrap_err();
            bad.panics.store(false, Ordering::SeqCst);
            assert!(matches!(error, SubmitError::Batch(_)), "{error:?}");
            fails.store(false, Ordering::SeqCst);
            assert_eq!(batcher.submit_blocking(2).unwrap(), 2);
            std::mem::forget(span);
        });
    }

    /// As `tracing-opentelemetry` panics on a link to a span that its layer does not know.
    #[derive(Clone, Default)]
    struct Unlinked(Bad);

    impl Subscriber for Unlinked {
        fn enabled(&self, m: &Metadata<'_>) -> bool {
            self.0.enabled(m)
        }
        fn new_span(&self, span: &Attributes<'_>) -> Id {
            self.0.new_span(span)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {
            panic!("a link to a span that it does not know");
        }
        fn event(&self, _: &Event<'_>) {}
        fn enter(&self, id: &Id) {
            self.0.enter(id);
        }
        fn exit(&self, id: &Id) {
            self.0.exit(id);
        }
        fn current_span(&self) -> tracing_core::span::Current {
            self.0.current_span()
        }
    }

    #[test]
    fn a_link_that_cannot_be_made_does_not_fail_the_batch() {
        tracing::subscriber::with_default(Unlinked::default(), || {
            let batcher = Batcher::builder()
                .build_inline(|items: Vec<u8>| Ok::<_, Infallible>(items))
                .unwrap();
            let span = tracing::info_span!("item");
            let result = span.in_scope(|| batcher.submit_blocking(1));
            assert_eq!(result.unwrap(), 1);
        });
    }
}
