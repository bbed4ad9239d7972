//! Telling the items of a failed batch apart, by halves.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::after::drop_each;
use crate::engine::{Cause, Isolate, Verdict};
use crate::workers::panicked;

/// A batch that is run in parts until each part has succeeded or is a single item.
///
/// Group testing by binary splitting: of `n` items of which `k` fail it takes about
/// `2 k log2(n / k) + 2 k` calls.
pub(crate) struct Bisection<'a, T, R, E> {
    rule: &'a Isolate<T>,
    items: Vec<T>,
    /// To be run; with why they failed as part of a larger one.
    parts: Vec<(Range<usize>, Option<Cause<E>>)>,
    ends: Vec<Option<Result<R, Cause<E>>>>,
    calls: u32,
}

impl<'a, T, R, E> Bisection<'a, T, R, E> {
    pub(crate) fn new(rule: &'a Isolate<T>, items: Vec<T>) -> Self {
        Self {
            rule,
            parts: vec![(0..items.len(), None)],
            ends: items.iter().map(|_| None).collect(),
            items,
            calls: 0,
        }
    }

    /// The part that is to be run next.
    pub(crate) fn next(&mut self) -> Option<Range<usize>> {
        while self.calls == self.rule.max_calls {
            let (part, cause) = self.parts.pop()?;
            self.fail(part, &cause?);
        }
        let (part, _) = self.parts.last()?;
        Some(part.clone())
    }

    /// Copies of a part's items.
    pub(crate) fn copies(&self, part: Range<usize>) -> Result<Vec<T>, Cause<E>> {
        let copy = || self.items[part].iter().map(self.rule.clone).collect();
        catch_unwind(AssertUnwindSafe(copy)).map_err(panicked)
    }

    /// What the handler returned for the part that [`next`](Self::next) gave.
    pub(crate) fn record(&mut self, returned: Result<Vec<R>, Cause<E>>) {
        let Some((part, _)) = self.parts.pop() else {
            return;
        };
        self.calls += 1;
        let cause = match returned {
            Ok(results) if results.len() == part.len() => {
                for (end, result) in self.ends[part].iter_mut().zip(results) {
                    *end = Some(Ok(result));
                }
                return;
            }
            Ok(results) => {
                let (expected, got) = (part.len(), results.len());
                drop_each(results);
                Cause::WrongResultCount { expected, got }
            }
            Err(cause) => cause,
        };
        if part.len() == 1 {
            return self.fail(part, &cause);
        }
        let middle = part.start + part.len() / 2;
        self.parts.push((middle..part.end, Some(cause.clone())));
        self.parts.push((part.start..middle, Some(cause)));
    }

    fn fail(&mut self, part: Range<usize>, cause: &Cause<E>) {
        for end in &mut self.ends[part] {
            *end = Some(Err(cause.clone()));
        }
    }

    /// Nobody waits for the rest.
    pub(crate) fn given_up(self) -> Verdict<R, E> {
        drop_each(self.items);
        drop_each(self.ends);
        Verdict::Each(Vec::new())
    }

    /// What became of the items; once there is nothing left to run.
    pub(crate) fn verdict(self) -> Verdict<R, E> {
        drop_each(self.items);
        let ends = self.ends.into_iter();
        Verdict::Each(ends.map(|end| end.expect("each part has ended")).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Runs items of which some are bad: what became of them, and how many calls it took.
    fn run(items: usize, bad: &[usize], max_calls: u32) -> (Vec<Result<usize, ()>>, u32) {
        let rule = Isolate {
            max_calls,
            clone: usize::clone,
        };
        let mut calls = 0;
        let mut bisection = Bisection::<_, usize, ()>::new(&rule, (0..items).collect());
        while let Some(part) = bisection.next() {
            calls += 1;
            let copies = bisection.copies(part).unwrap_or_default();
            let failed = copies.iter().any(|item| bad.contains(item));
            let returned = if failed {
                Err(Cause::Batch(Arc::new(())))
            } else {
                Ok(copies)
            };
            bisection.record(returned);
        }
        let Verdict::Each(each) = bisection.verdict() else {
            panic!("to each its own");
        };
        let each = each.into_iter().map(|end| end.map_err(|_| ())).collect();
        (each, calls)
    }

    #[test]
    fn the_bad_fail_and_the_others_do_not() {
        for bad in [&[][..], &[0], &[99], &[50, 51], &[3, 30, 97]] {
            let (each, calls) = run(100, bad, u32::MAX);
            for (item, end) in each.into_iter().enumerate() {
                let expected = if bad.contains(&item) {
                    Err(())
                } else {
                    Ok(item)
                };
                assert_eq!(end, expected);
            }
            let k = bad.len() as f64;
            let most = 1.0 + 2.0 * k * (100.0 / k.max(1.0)).log2().ceil() + 2.0 * k;
            assert!(f64::from(calls) <= most, "{calls} calls for {bad:?}");
        }
    }

    #[test]
    fn when_the_calls_are_used_up_the_rest_fails_as_a_whole() {
        let (each, calls) = run(8, &[7], 3);
        assert_eq!(calls, 3);
        assert_eq!(
            each,
            [
                Ok(0),
                Ok(1),
                Ok(2),
                Ok(3),
                Err(()),
                Err(()),
                Err(()),
                Err(())
            ]
        );
    }
}
