//! A page of metrics, as a test looks at it.

use crate::harness::{PATIENCE, Request, Server, ask, ms, pass, soon, until};
use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

/// What scrapers of the format ask for.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0";

/// Series (`name{label="value",…}`) and values.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) text: String,
    series: BTreeMap<String, f64>,
}

impl Page {
    pub(crate) async fn of(server: &Server) -> Self {
        Self::try_of(server).await.expect("a page of metrics")
    }

    pub(crate) async fn try_of(server: &Server) -> io::Result<Self> {
        let reply = soon(
            "a scrape",
            ask(server.admin, Request::get("/metrics").header("Accept", OPEN_METRICS)),
        )
        .await?;
        if reply.status != 200 {
            return Err(io::Error::other(format!("{reply:?}")));
        }
        let kind = reply.header("content-type").unwrap_or_default();
        assert!(
            kind.starts_with("application/openmetrics-text; version=1.0.0"),
            "{kind}"
        );
        Ok(Self::read(reply.text()))
    }

    /// A page that is as wanted; workers tell every second.
    pub(crate) async fn when(server: &Server, what: &str, wanted: impl Fn(&Self) -> bool) -> Self {
        until(what, async || {
            Self::try_of(server).await.ok().filter(|page| wanted(page))
        })
        .await
    }

    /// A page on which each of these metrics with these labels is so much, once all workers have told.
    pub(crate) async fn with(server: &Server, expected: &[(&str, &[&str], f64)]) -> Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let page = Self::of(server).await;
            let is_wrong = |(metric, labels, value): &&(&str, &[&str], f64)| page.sum(metric, labels) != *value;
            let wrong: Vec<_> = expected.iter().filter(is_wrong).collect();
            if wrong.is_empty() {
                return page;
            }
            assert!(Instant::now() < deadline, "not so: {wrong:?} in\n{}", page.text);
            pass(ms(50)).await;
        }
    }

    fn read(text: &str) -> Self {
        assert!(text.ends_with("# EOF\n"), "{text}");
        let mut series = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').expect("a series and its value");
            let value: f64 = value.parse().expect("a number");
            assert!(value.is_finite() && value >= 0.0, "{line}");
            assert_eq!(series.insert(name.to_owned(), value), None, "{name} twice");
        }
        Self {
            text: text.to_owned(),
            series,
        }
    }

    /// The sum of all series of a metric that have these labels (`name="value"`).
    pub(crate) fn sum(&self, metric: &str, labels: &[&str]) -> f64 {
        let of = |series: &str| {
            let (name, all) = series.split_once('{').unwrap_or((series, ""));
            name == metric && labels.iter().all(|label| all.contains(label))
        };
        let mut found = self.series.iter().filter(|(series, _)| of(series)).peekable();
        assert!(found.peek().is_some(), "no {metric} with {labels:?} in\n{}", self.text);
        found.map(|(_, value)| value).sum()
    }

    /// Names of all metrics, as queries have them: with `_total`, and `_bucket`, `_sum`, `_count` of histograms.
    pub(crate) fn names(&self) -> Vec<&str> {
        let names = self
            .series
            .keys()
            .map(|series| series.split_once('{').map_or(series.as_str(), |(name, _)| name));
        let mut names: Vec<&str> = names.collect();
        names.dedup();
        names
    }

    /// Everything that only grows and did not.
    #[track_caller]
    pub(crate) fn assert_not_behind(&self, earlier: &Self) {
        let grows = |series: &str| {
            let name = series.split_once('{').map_or(series, |(name, _)| name);
            ["_total", "_bucket", "_count", "_sum"]
                .iter()
                .any(|end| name.ends_with(end))
        };
        for (series, before) in earlier.series.iter().filter(|(series, _)| grows(series)) {
            let now = self.series.get(series);
            assert!(now.is_some_and(|now| now >= before), "{series}: {before}, then {now:?}");
        }
    }
}
