//! The dashboard and the alert rules speak of metrics that exist.

use crate::harness::Plan;
use crate::page::Page;
use std::collections::BTreeSet;

const DASHBOARD: &str = include_str!("../../docs/grafana-dashboard.json");
const ALERTS: &str = include_str!("../../docs/alerts.yml");

/// Every `gw_…` in a text.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("gw_")).collect()
}

/// Values of `label="value"` or `label=~"a|b"` that the page would have to have.
fn selections(text: &str) -> Vec<(&str, Vec<&str>)> {
    let mut found = Vec::new();
    for part in text
        .split(['{', ','])
        .filter(|part| part.contains("=\"") || part.contains("=~\""))
    {
        let Some((label, rest)) = part.split_once('=') else {
            continue;
        };
        let values = rest.trim_start_matches('~').trim_start_matches('"');
        let values = values.split('"').next().unwrap_or_default();
        if !values.contains('$') && label.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
            found.push((label, values.split('|').collect()));
        }
    }
    found
}

#[tokio::test]
async fn every_metric_they_name_is_on_the_page() {
    let server = Plan::new().start().await;
    let page = Page::of(&server).await;
    let known: BTreeSet<&str> = page.names().into_iter().collect();
    for (document, text) in [("the dashboard", DASHBOARD), ("the alerts", ALERTS)] {
        let named = metrics(text);
        assert!(named.len() > 10, "{document}: {named:?}");
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "{document} names {unknown:?}");
        // In JSON, quotes are escaped.
        for (label, values) in selections(&text.replace("\\\"", "\"")) {
            for value in values {
                let pair = format!("{label}=\"{value}\"");
                assert!(page.text.contains(&pair), "{document} selects {pair}");
            }
        }
    }
    // And nothing is counted that cannot be seen.
    let shown = metrics(DASHBOARD);
    let part = |name: &str| {
        let ends = ["_bucket", "_count", "_sum"];
        let stem = ends
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .unwrap_or(name)
            .to_owned();
        shown
            .iter()
            .any(|shown| *shown == name || shown.strip_prefix(&stem).is_some_and(|rest| ends.contains(&rest)))
    };
    let hidden: Vec<_> = known.iter().filter(|name| !part(name)).collect();
    assert!(hidden.is_empty(), "not on the dashboard: {hidden:?}");
}

#[test]
fn the_dashboard_is_json_with_a_query_in_each_panel() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        if panel["type"] == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            let expr = target["expr"].as_str().unwrap();
            assert_eq!(expr.matches('(').count(), expr.matches(')').count(), "{expr}");
            assert!(expr.contains("job=\"$job\""), "{expr}");
        }
    }
}

#[test]
fn each_alert_says_what_and_what_to_do() {
    let alerts: Vec<&str> = ALERTS.split("      - alert: ").skip(1).collect();
    assert!(alerts.len() > 15);
    let mut names = BTreeSet::new();
    for alert in alerts {
        let name = alert.lines().next().unwrap();
        assert!(name.starts_with("Anyworker") && names.insert(name), "{name}");
        for part in [
            "        expr: ",
            "        labels: { severity: ",
            "          summary: ",
            "          action: ",
        ] {
            assert_eq!(alert.matches(part).count(), 1, "{name}: {part}");
        }
    }
}
