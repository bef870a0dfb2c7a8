//! What is counted, and how the counts of many processes become one page of metrics.
//!
//! An instrument is a cell: counting is an addition and nothing else. A set of them is declared with
//! [`instruments!`], in which the doc comment of a field is the metric's help. Now and then a process
//! reads its set into a [`Snapshot`], which others can add up without knowing what is in it, so that
//! builds that count different things understand each other. A [`Report`] is what became of the
//! snapshots of a fleet, and [`page`] writes it down in the OpenMetrics text format.
//!
//! ```
//! meter::labels! {
//!     /// How a request ended.
//!     enum Outcome { Good = "outcome=good", Bad = "outcome=bad" }
//! }
//! meter::instruments! {
//!     /// What a server counts.
//!     struct Counts {
//!         /// Requests that were answered.
//!         requests: meter::Counters<Outcome> = "requests_total";
//!     }
//! }
//! let counts = Counts::new();
//! counts.requests.one(Outcome::Good);
//! let mut snapshot = meter::Snapshot::default();
//! counts.read(&mut snapshot);
//! assert_eq!(snapshot.counter("requests_total{outcome=good}"), 1);
//! ```
//!
//! Pure: no clock, no socket.

mod instrument;
mod page;
mod snapshot;

pub use instrument::{
    Counter, Counters, Family, Gauge, Gauges, Histogram, Histograms, Info, Instrument, Kind, Labels, Rule, Time,
    text_of,
};
pub use page::{CONTENT_TYPE, PLAIN_CONTENT_TYPE, page, plain};
pub use snapshot::{Distribution, Reading, Report, Snapshot};

/// Declares label values: each variant with the labels that it stands for, `name=value`, several with
/// commas between them.
#[macro_export]
macro_rules! labels {
    ($(#[$doc:meta])* $vis:vis enum $name:ident { $($(#[$why:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name { $($(#[$why])* $variant),+ }

        impl $crate::Labels for $name {
            const ALL: &'static [&'static str] = &[$($text),+];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

/// Declares a set of instruments: `/// Help.`, then `field: Type = "name_of_the_metric", parameter;`.
#[macro_export]
macro_rules! instruments {
    (
        $(#[$doc:meta])*
        $vis:vis struct $set:ident {
            $(#[doc = $help:literal] $fvis:vis $field:ident: $type:ty = $name:literal $(, $with:expr)*;)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug)]
        $vis struct $set {
            $(#[doc = $help] $fvis $field: $type),+
        }

        impl $set {
            /// All at zero.
            #[must_use]
            $vis fn new() -> Self {
                Self {
                    $($field: <$type>::new($($with),*)),+
                }
            }

            /// What is in this set.
            #[must_use]
            $vis fn families(&self) -> Vec<$crate::Family> {
                vec![
                    $($crate::Family {
                        name: $name,
                        help: $help.trim_ascii(),
                        kind: $crate::Instrument::kind(&self.$field),
                    }),+
                ]
            }

            /// Adds what has been counted.
            $vis fn read(&self, into: &mut $crate::Snapshot) {
                $($crate::Instrument::read(&self.$field, $name, into);)+
            }
        }

        impl Default for $set {
            fn default() -> Self {
                Self::new()
            }
        }
    };
}
