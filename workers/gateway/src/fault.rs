//! Faults on demand, for tests of what must survive them. Without the feature `faults` every function
//! here is empty; with it, the variable `FAULT_POINTS` of the environment says what happens where, such
//! as `kill@appended=200,double@delivered=1000`: once in 200 times, once in 1000 times.

/// A place in the protocol where a worker can die, or stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// A publish is in the log, its ack is not on its way.
    Appended,
    /// The answer of a poll is complete and has not left.
    PollAnswered,
    /// A poll has arrived: the one before was answered.
    PollAsked,
    /// The probe of an upgrade is answered, the upgrade not done.
    Probed,
    /// A session that comes back was found, and is not moved.
    Resuming,
    /// It was moved, and its client knows nothing of it.
    Resumed,
}

/// How often an event of the log reaches a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copies {
    /// As it should be.
    One,
    /// It is lost on its way.
    #[cfg(feature = "faults")]
    None,
    /// It comes twice.
    #[cfg(feature = "faults")]
    Two,
}

#[cfg(not(feature = "faults"))]
mod points {
    use super::{Copies, Point};

    #[inline(always)]
    pub(crate) fn at(_: Point) {}

    #[inline(always)]
    pub(crate) fn delivery() -> Copies {
        Copies::One
    }

    #[inline(always)]
    pub(crate) fn clock_ahead_ms() -> u64 {
        0
    }
}

#[cfg(feature = "faults")]
mod points {
    use super::{Copies, Point};
    use rustix::process::{Signal, getpid, kill_process};
    use std::sync::OnceLock;

    /// What the environment asks for: the fault, where, and once in how many times.
    struct Planned {
        what: String,
        place: String,
        once_in: u64,
    }

    fn plan() -> &'static [Planned] {
        static PLAN: OnceLock<Vec<Planned>> = OnceLock::new();
        PLAN.get_or_init(|| {
            let text = std::env::var("FAULT_POINTS").unwrap_or_default();
            let parts = text.split(',').filter(|part| !part.is_empty());
            parts.filter_map(parse).collect()
        })
    }

    fn parse(part: &str) -> Option<Planned> {
        let (what, rest) = part.split_once('@')?;
        let (place, once_in) = rest.split_once('=')?;
        Some(Planned {
            what: what.to_owned(),
            place: place.to_owned(),
            once_in: once_in.parse().ok()?,
        })
    }

    /// Dies or sleeps here, if it is planned and its turn.
    pub(crate) fn at(point: Point) {
        if strikes("kill", &format!("{point:?}")) {
            // As sudden as it gets: no destructor runs, nothing is flushed.
            kill_process(getpid(), Signal::KILL).ok();
        }
        if strikes("stop", &format!("{point:?}")) {
            // Until it is woken from outside.
            kill_process(getpid(), Signal::STOP).ok();
        }
    }

    /// How often the event at hand is to be delivered.
    pub(crate) fn delivery() -> Copies {
        if strikes("drop", "delivered") {
            Copies::None
        } else if strikes("double", "delivered") {
            Copies::Two
        } else {
            Copies::One
        }
    }

    /// How far this worker's clock is ahead: with `jump@clock=3` one in three looks at it sees tomorrow.
    pub(crate) fn clock_ahead_ms() -> u64 {
        if strikes("jump", "clock") { 86_400_000 } else { 0 }
    }

    fn strikes(what: &str, place: &str) -> bool {
        let planned = plan()
            .iter()
            .find(|planned| planned.what == what && planned.place.eq_ignore_ascii_case(place));
        planned
            .is_some_and(|planned| getrandom::u64().is_ok_and(|number| number.is_multiple_of(planned.once_in.max(1))))
    }
}

pub(crate) use points::{at, clock_ahead_ms, delivery};
