//! The limit.

use std::hint::black_box;

use crate::jobs::{ForkJoin, Node};
use crate::programs::Joins;

/// The same calls, without a pool.
pub(crate) struct Sequential;

impl ForkJoin for Sequential {
    fn new(_: usize) -> Self {
        Self
    }

    fn fib(&mut self, n: u64) -> u64 {
        sequential(n)
    }

    fn sum(&mut self, tree: &'static Node) -> u64 {
        sum(tree)
    }
}

fn sequential(n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    sequential(black_box(n - 1)) + sequential(black_box(n - 2))
}

fn sum(node: &Node) -> u64 {
    let Some(children) = &node.children else {
        return node.value;
    };
    node.value + sum(&children.0) + sum(&children.1)
}

impl Joins for Sequential {
    fn new(_: usize) -> Self {
        Self
    }

    fn enter(&mut self, f: impl FnOnce() -> u64 + Send + 'static) -> u64 {
        f()
    }

    fn join<A, B, RA, RB>(a: A, b: B) -> (RA, RB)
    where
        A: FnOnce() -> RA + Send,
        B: FnOnce() -> RB + Send,
        RA: Send,
        RB: Send,
    {
        (a(), b())
    }
}

/// The same, but the right subtree first: the order in which the tree lies in memory, backwards.
pub(crate) struct RightFirst;

impl ForkJoin for RightFirst {
    fn new(_: usize) -> Self {
        Self
    }

    fn fib(&mut self, n: u64) -> u64 {
        sequential(n)
    }

    fn sum(&mut self, tree: &'static Node) -> u64 {
        right_first(tree)
    }
}

fn right_first(node: &Node) -> u64 {
    let Some(children) = &node.children else {
        return node.value;
    };
    let right = right_first(&children.1);
    node.value + right + right_first(&children.0)
}
