//! Which of two formats of metrics a scraper wants: content negotiation (RFC 9110, section 12.5.1).

/// The format that has to be asked for by name.
const OPEN_METRICS: (&str, &str) = ("application", "openmetrics-text");
/// Its versions that a page of ours satisfies.
const VERSIONS: [&str; 2] = ["0.0.1", "1.0.0"];

/// Whether the values of `Accept` ask for OpenMetrics: by name, and for nothing that is plain text rather than for it.
/// Without a word about it the answer is plain text, as that of Prometheus' own libraries.
pub(crate) fn wants_open_metrics<'a>(values: impl Iterator<Item = &'a str>) -> bool {
    let (mut open, mut plain) = (None, None);
    // The most specific range that fits decides for plain text: 1 `*/*`, 2 `text/*`, 3 `text/plain`.
    let mut specific = 0;
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let parameters: Vec<(String, &str)> = parts.filter_map(parameter).collect();
        let value = |name: &str| {
            parameters
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| *value)
        };
        let quality = quality(value("q"));
        let fits = match kind.split_once('/') {
            Some(kind) if kind == OPEN_METRICS => {
                if value("version").is_none_or(|version| VERSIONS.contains(&version)) {
                    open = open.max(Some(quality));
                }
                0
            }
            Some(("text", "plain")) => 3,
            Some(("text", "*")) => 2,
            Some(("*", "*")) => 1,
            _ => 0,
        };
        if fits > specific {
            (specific, plain) = (fits, None);
        }
        if fits > 0 && fits == specific {
            plain = plain.max(Some(quality));
        }
    }
    open.is_some_and(|open| open > 0 && plain.is_none_or(|plain| open >= plain))
}

fn parameter(text: &str) -> Option<(String, &str)> {
    let (name, value) = text.split_once('=')?;
    Some((name.trim().to_ascii_lowercase(), value.trim().trim_matches('"')))
}

/// In thousandths; 1 if there is none, or none that can be read.
fn quality(text: Option<&str>) -> u16 {
    let Some((whole, part)) = text.map(|text| text.split_once('.').unwrap_or((text, ""))) else {
        return 1_000;
    };
    match (whole, part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit())) {
        ("0", true) => format!("{part:0<3}").parse().unwrap_or(1_000),
        _ => 1_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_negotiated() {
        for (accept, open) in [
            (&[][..], false),
            (&[""], false),
            (&["*/*"], false),
            (&["text/plain"], false),
            (
                &["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"],
                false,
            ),
            (&["application/openmetrics-text"], true),
            (&["application/openmetrics-text; version=1.0.0; charset=utf-8"], true),
            (&["APPLICATION/OpenMetrics-Text; Version=\"1.0.0\""], true),
            (&["application/openmetrics-text;version=2.0.0"], false),
            (&["application/openmetrics-text;q=0"], false),
            (&["application/openmetrics-text;q=0.0,*/*;q=0.1"], false),
            // Prometheus 2.x.
            (
                &[
                    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                   text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                ],
                true,
            ),
            // Prometheus 3 with escaping, protobuf first.
            (
                &[
                    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
                   application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                   text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,*/*;q=0.1",
                ],
                true,
            ),
            // One that is set to the text protocol.
            (
                &["text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"],
                false,
            ),
            // VictoriaMetrics.
            (&["text/plain;version=0.0.4;q=1,*/*;q=0.1"], false),
            (&["application/openmetrics-text;q=0.5, */*"], false),
            (&["application/openmetrics-text;q=0.5, */*, text/plain;q=0.2"], true),
            (&["text/*;q=0.3", "application/openmetrics-text;q=0.4"], true),
            (&["text/plain", "application/openmetrics-text"], true),
            (&["application/*"], false),
            (&["application/openmetrics-text;q=high"], true),
            (&["application/openmetrics-text;q=0.12345"], true),
            (&[";;,,/,=;q="], false),
        ] {
            assert_eq!(wants_open_metrics(accept.iter().copied()), open, "{accept:?}");
        }
    }
}
