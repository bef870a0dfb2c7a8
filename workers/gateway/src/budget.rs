//! One budget for what clients make a worker keep in memory: messages and bodies that are not complete, attachments that
//! are gathered, and what clients have not read yet. Each of these has a limit of its own; this is the limit of their sum.
//!
//! A holder of such bytes has a [`Share`] and tells it how many there are. When the sum exceeds the budget, some holders are
//! evicted: first those whose client has not joined a namespace yet, then the largest, of equal ones the oldest. An evicted
//! holder finds that out by [`Share::watch`], and its task closes the connection and frees the memory.

use slab::Slab;
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Holders of fewer bytes do not count, so that small messages cost nothing here. With the default of
/// `limits.connections_max` all of them together are below 80 MiB.
const COUNTED_BYTES_MIN: usize = 4 * 1024;
/// An eviction frees this part of the budget, so that the holders are not compared again at once.
const FREED_PART: usize = 8;

/// What a holder is to its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Its client has not joined a namespace yet: evicted first.
    Unsettled,
    /// Its client has joined one.
    Settled,
    /// It is being worked on and is free soon: it counts, and is not evicted.
    Used,
}

/// The budget of a worker.
pub(crate) struct Budget {
    /// `limits.buffers_bytes_max`.
    max: usize,
    /// Bytes of all holders that are not evicted.
    held: Cell<usize>,
    holders: RefCell<Slab<Holder>>,
    /// Holders so far: their order.
    count: Cell<u64>,
}

struct Holder {
    bytes: usize,
    nth: u64,
    standing: Standing,
    is_evicted: bool,
    /// Wakes the task that watches.
    waker: Waker,
}

impl Budget {
    /// A budget of this many bytes.
    pub(crate) fn new(max: usize) -> Rc<Self> {
        Rc::new(Self {
            max,
            held: Cell::new(0),
            holders: RefCell::default(),
            count: Cell::new(0),
        })
    }

    /// Bytes that are held now, without those of evicted holders.
    pub(crate) const fn held(&self) -> usize {
        self.held.get()
    }

    /// A holder that has nothing yet.
    pub(crate) fn share(self: &Rc<Self>, standing: Standing) -> Share {
        Share {
            budget: self.clone(),
            standing: Cell::new(standing),
            place: Cell::new(None),
        }
    }

    /// Evicts holders until there is room again.
    fn relieve(&self) {
        let mut holders = self.holders.borrow_mut();
        let mut candidates: Vec<_> = holders
            .iter()
            .filter(|(_, holder)| !holder.is_evicted && holder.standing != Standing::Used)
            .map(|(place, holder)| (holder.standing, Reverse(holder.bytes), holder.nth, place))
            .collect();
        candidates.sort_unstable();
        let wanted = self.max - self.max / FREED_PART;
        for (.., place) in candidates {
            if self.held.get() <= wanted {
                return;
            }
            if let Some(holder) = holders.get_mut(place) {
                self.held.set(self.held.get() - holder.bytes);
                (holder.bytes, holder.is_evicted) = (0, true);
                holder.waker.wake_by_ref();
            }
        }
    }
}

/// The part of the budget that one holder uses; free when dropped.
pub(crate) struct Share {
    budget: Rc<Budget>,
    standing: Cell<Standing>,
    /// Among the holders, once it counts.
    place: Cell<Option<usize>>,
}

impl Share {
    /// Notes how many bytes the holder has now.
    pub(crate) fn set(&self, bytes: usize) {
        if let Some(place) = self.place.get() {
            self.adjust(place, bytes);
        } else if bytes >= COUNTED_BYTES_MIN {
            self.begin(bytes);
        }
    }

    fn begin(&self, bytes: usize) {
        let budget = &self.budget;
        let nth = budget.count.get();
        budget.count.set(nth + 1);
        let place = budget.holders.borrow_mut().insert(Holder {
            bytes: 0,
            nth,
            standing: self.standing.get(),
            is_evicted: false,
            waker: Waker::noop().clone(),
        });
        self.place.set(Some(place));
        self.adjust(place, bytes);
    }

    fn adjust(&self, place: usize, bytes: usize) {
        let budget = &self.budget;
        let mut holders = budget.holders.borrow_mut();
        let Some(holder) = holders.get_mut(place).filter(|holder| !holder.is_evicted) else {
            return;
        };
        let more = bytes > holder.bytes;
        budget.held.set(budget.held.get() - holder.bytes + bytes);
        holder.bytes = bytes;
        if bytes < COUNTED_BYTES_MIN {
            budget.held.set(budget.held.get() - bytes);
            holders.try_remove(place);
            self.place.set(None);
        } else if more && budget.held.get() > budget.max {
            drop(holders);
            budget.relieve();
        }
    }

    /// Notes what the holder is to its client from now on.
    pub(crate) fn stand(&self, standing: Standing) {
        self.standing.set(standing);
        if let Some(place) = self.place.get()
            && let Some(holder) = self.budget.holders.borrow_mut().get_mut(place)
        {
            holder.standing = standing;
        }
    }

    /// Ready once the holder is evicted: it frees what it has and ends.
    pub(crate) fn watch(&self, cx: &Context<'_>) -> Poll<()> {
        let Some(place) = self.place.get() else {
            return Poll::Pending;
        };
        let mut holders = self.budget.holders.borrow_mut();
        match holders.get_mut(place) {
            Some(holder) if holder.is_evicted => Poll::Ready(()),
            Some(holder) => {
                if !holder.waker.will_wake(cx.waker()) {
                    holder.waker = cx.waker().clone();
                }
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(place) = self.place.get()
            && let Some(holder) = self.budget.holders.borrow_mut().try_remove(place)
        {
            self.budget.held.set(self.budget.held.get() - holder.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    const KIB: usize = 1024;

    fn is_evicted(share: &Share) -> bool {
        share.watch(&Context::from_waker(Waker::noop())).is_ready()
    }

    fn holding(budget: &Rc<Budget>, standing: Standing, kib: usize) -> Share {
        let share = budget.share(standing);
        share.set(kib * KIB);
        share
    }

    #[test]
    fn what_is_small_does_not_count() {
        let budget = Budget::new(8 * KIB);
        let shares: Vec<_> = (0..100).map(|_| holding(&budget, Standing::Settled, 3)).collect();
        assert_eq!((budget.held(), budget.holders.borrow().len()), (0, 0));
        shares[0].set(4 * KIB);
        assert_eq!(budget.held(), 4 * KIB);
        shares[0].set(KIB);
        assert_eq!((budget.held(), budget.holders.borrow().len()), (0, 0));
        assert!(!shares.iter().any(is_evicted));
    }

    #[test]
    fn the_sum_follows_every_change() {
        let budget = Budget::new(1000 * KIB);
        let one = holding(&budget, Standing::Settled, 10);
        let other = holding(&budget, Standing::Unsettled, 20);
        one.set(50 * KIB);
        assert_eq!(budget.held(), 70 * KIB);
        other.set(5 * KIB);
        assert_eq!(budget.held(), 55 * KIB);
        drop(one);
        assert_eq!(budget.held(), 5 * KIB);
        drop(other);
        assert_eq!((budget.held(), budget.holders.borrow().len()), (0, 0));
    }

    #[test]
    fn the_largest_go_first_and_of_equal_ones_the_oldest() {
        let budget = Budget::new(80 * KIB);
        let shares: Vec<_> = [10, 20, 10, 20, 10]
            .map(|kib| holding(&budget, Standing::Settled, kib))
            .into();
        assert!(!shares.iter().any(is_evicted), "70 of 80");
        shares[0].set(21 * KIB);
        // 81 of 80. Without the largest it is 60, and an eighth is free.
        let evicted: Vec<_> = shares.iter().map(is_evicted).collect();
        assert_eq!(evicted, [true, false, false, false, false]);
        shares[4].set(31 * KIB);
        assert_eq!(budget.held(), 50 * KIB);
        let evicted: Vec<_> = shares.iter().map(is_evicted).collect();
        assert_eq!(evicted, [true, false, false, false, true]);
    }

    #[test]
    fn of_equal_ones_the_oldest_goes() {
        let budget = Budget::new(80 * KIB);
        let shares: Vec<_> = (0..9).map(|_| holding(&budget, Standing::Settled, 10)).collect();
        let evicted: Vec<_> = shares.iter().map(is_evicted).collect();
        assert_eq!(&evicted[..3], [true, true, false]);
        assert_eq!(budget.held(), 70 * KIB);
    }

    #[test]
    fn clients_without_a_namespace_go_before_all_others() {
        let budget = Budget::new(80 * KIB);
        let settled = holding(&budget, Standing::Settled, 60);
        let small = holding(&budget, Standing::Unsettled, 5);
        let joins = holding(&budget, Standing::Unsettled, 5);
        joins.stand(Standing::Settled);
        let large = holding(&budget, Standing::Unsettled, 12);
        assert!(is_evicted(&large), "82 of 80, and 70 without it");
        assert!(!is_evicted(&small) && !is_evicted(&joins) && !is_evicted(&settled));
    }

    #[test]
    fn what_is_used_counts_and_stays() {
        let budget = Budget::new(80 * KIB);
        let used = holding(&budget, Standing::Settled, 79);
        used.stand(Standing::Used);
        let late = holding(&budget, Standing::Settled, 5);
        assert!(is_evicted(&late) && !is_evicted(&used));
        assert_eq!(budget.held(), 79 * KIB);
    }

    #[test]
    fn an_evicted_one_no_longer_counts() {
        let budget = Budget::new(80 * KIB);
        let evicted = holding(&budget, Standing::Settled, 81);
        assert!(is_evicted(&evicted));
        evicted.set(500 * KIB);
        assert_eq!(budget.held(), 0);
        evicted.set(0);
        assert!(is_evicted(&evicted), "until it is gone");
        drop(evicted);
        assert_eq!((budget.held(), budget.holders.borrow().len()), (0, 0));
    }

    #[test]
    fn a_task_that_watches_is_woken() {
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let budget = Budget::new(80 * KIB);
        let large = holding(&budget, Standing::Settled, 60);
        assert!(large.watch(&Context::from_waker(&waker)).is_pending());
        let small = holding(&budget, Standing::Settled, 30);
        assert!(is_evicted(&large) && !is_evicted(&small));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }
}
