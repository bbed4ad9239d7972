//! What is inserted.

use std::collections::HashSet;

/// An order, known by a number that its customer chose: submitted twice it is one order.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) number: i64,
    pub(crate) customer: String,
    pub(crate) cents: i64,
}

impl Order {
    pub(crate) fn new(number: i64) -> Self {
        Self {
            number,
            customer: format!("customer {}", number % 97),
            cents: 100 + number % 1_000,
        }
    }
}

/// Each number once, since no statement can write the same row twice.
pub(crate) fn once(orders: &[Order]) -> Vec<&Order> {
    let mut numbers = HashSet::with_capacity(orders.len());
    let first = orders.iter().filter(|order| numbers.insert(order.number));
    first.collect()
}
