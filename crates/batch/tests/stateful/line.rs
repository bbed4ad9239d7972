//! The specification of the queue: batches that gather, by urgency.

use std::collections::VecDeque;

use overdrive_batch::Priority;

/// Every so many batches begins with what has waited longest.
const AGING: u32 = 8;

#[derive(Clone, Copy)]
pub(crate) struct Queued {
    pub id: u64,
    /// In milliseconds.
    pub deadline: Option<u64>,
}

struct Gathering {
    number: u64,
    /// Items that ever came.
    used: usize,
    weight: usize,
    sealed: bool,
    items: Vec<Queued>,
}

#[derive(Default)]
pub(crate) struct Line {
    lanes: [VecDeque<Gathering>; 3],
    next_number: u64,
    picks: u32,
}

/// What a worker takes.
#[derive(Default)]
pub(crate) struct Taken {
    pub ids: Vec<u64>,
    pub number: u64,
    pub expired: Vec<u64>,
}

fn lane(priority: Priority) -> usize {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

impl Queued {
    pub(crate) fn new(id: u64, deadline: Option<u64>) -> Self {
        Self { id, deadline }
    }
}

impl Line {
    fn all(&self) -> impl Iterator<Item = &Gathering> {
        self.lanes.iter().flatten()
    }

    pub(crate) fn live(&self) -> usize {
        self.all().map(|batch| batch.items.len()).sum()
    }

    pub(crate) fn oldest(&self) -> Option<u64> {
        self.all().map(|batch| batch.number).min()
    }

    /// Whether a batch waits that gathers no more.
    pub(crate) fn has_complete(&self, max_weight: usize) -> bool {
        let complete = |batch: &Gathering| batch.sealed || batch.weight >= max_weight;
        let mut lanes = self.lanes.iter();
        lanes.any(|lane| lane.len() > 1 || lane.front().is_some_and(complete))
    }

    pub(crate) fn push(
        &mut self,
        queued: Queued,
        priority: Priority,
        weight: usize,
        max: (usize, usize),
    ) {
        let lane = &mut self.lanes[lane(priority)];
        let fits = lane.back().is_some_and(|batch| {
            !batch.sealed && batch.used < max.0 && batch.weight + weight <= max.1
        });
        if !fits {
            lane.push_back(Gathering {
                number: self.next_number,
                used: 0,
                weight: 0,
                sealed: false,
                items: Vec::new(),
            });
            self.next_number += 1;
        }
        let batch = lane.back_mut().unwrap();
        batch.used += 1;
        batch.weight += weight;
        batch.items.push(queued);
    }

    pub(crate) fn get(&mut self, id: u64) -> Option<&mut Queued> {
        let mut items = self.lanes.iter_mut().flatten().flat_map(|b| &mut b.items);
        items.find(|queued| queued.id == id)
    }

    pub(crate) fn remove(&mut self, id: u64) -> bool {
        let before = self.live();
        self.retain(|queued| queued.id != id);
        self.live() < before
    }

    fn retain(&mut self, mut keep: impl FnMut(&Queued) -> bool) {
        for lane in &mut self.lanes {
            for batch in lane.iter_mut() {
                batch.items.retain(&mut keep);
            }
            lane.retain(|batch| !batch.items.is_empty());
        }
    }

    /// All but so many that came first leave.
    pub(crate) fn truncate(&mut self, keep: usize) -> Vec<Queued> {
        let mut ids: Vec<u64> = self
            .all()
            .flat_map(|b| &b.items)
            .map(|one| one.id)
            .collect();
        ids.sort_unstable();
        let stay: Vec<u64> = ids.into_iter().take(keep).collect();
        let mut gone = Vec::new();
        self.retain(|queued| {
            let stays = stay.contains(&queued.id);
            if !stays {
                gone.push(*queued);
            }
            stays
        });
        gone
    }

    /// The item that gives way to one of that priority.
    pub(crate) fn shed(&mut self, priority: Priority) -> Option<Queued> {
        let mut lanes = self.lanes[lane(priority)..].iter().rev();
        let oldest = lanes.find_map(|lane| Some(lane.front()?.items[0]))?;
        self.remove(oldest.id);
        Some(oldest)
    }

    pub(crate) fn seal(&mut self) -> u64 {
        for lane in &mut self.lanes {
            if let Some(batch) = lane.back_mut() {
                batch.sealed = true;
            }
        }
        self.next_number
    }

    pub(crate) fn take(&mut self, now: u64, max: (usize, usize)) -> Taken {
        let mut taken = Taken {
            number: u64::MAX,
            ..Taken::default()
        };
        let mut weight = 0;
        loop {
            let first = taken.ids.is_empty();
            let mut urgent = (0..3).filter(|&lane| !self.lanes[lane].is_empty());
            let lane = if first && self.picks >= AGING {
                self.picks = 0;
                urgent.min_by_key(|&lane| self.lanes[lane][0].number)
            } else {
                urgent.next()
            };
            let Some(lane) = lane else {
                return taken;
            };
            let next = &self.lanes[lane][0];
            let fits = taken.ids.len() + next.items.len() <= max.0 && weight + next.weight <= max.1;
            if !first && !fits {
                return taken;
            }
            self.picks += u32::from(first);
            let batch = self.lanes[lane].pop_front().unwrap();
            let late = |queued: &Queued| queued.deadline.is_some_and(|at| at <= now);
            let (late, ready): (Vec<_>, Vec<_>) = batch.items.into_iter().partition(late);
            taken.expired.extend(late.iter().map(|queued| queued.id));
            if !ready.is_empty() {
                weight += batch.weight;
                taken.number = taken.number.min(batch.number);
                taken.ids.extend(ready.iter().map(|queued| queued.id));
            }
        }
    }
}
