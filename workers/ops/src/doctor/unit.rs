//! A systemd unit as it is in effect: its file, and what drop-ins change.

use super::root::Root;
use std::collections::BTreeMap;
use std::time::Duration;

/// Where units are, the strongest first.
const DIRECTORIES: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// `[Service]` of a unit.
#[derive(Debug)]
pub(super) struct Unit {
    /// The file of the unit.
    pub(super) path: String,
    /// Each with its latest value.
    service: BTreeMap<String, String>,
}

impl Unit {
    /// The unit of a name, if there is one.
    ///
    /// # Errors
    /// When a file of it cannot be read.
    pub(super) fn find(name: &str, root: &Root) -> Result<Option<Self>, String> {
        let mut paths = DIRECTORIES.iter().map(|directory| format!("{directory}/{name}"));
        let Some(path) = paths.find(|path| root.has(path)) else {
            return Ok(None);
        };
        let mut unit = Self {
            service: BTreeMap::new(),
            path: path.clone(),
        };
        unit.add(&root.read(&path)?);
        // By name, whichever directory they are in; of the same name the strongest counts.
        let mut drop_ins: BTreeMap<String, String> = BTreeMap::new();
        for directory in DIRECTORIES.iter().rev() {
            let directory = format!("{directory}/{name}.d");
            let names = root
                .names(&directory)
                .into_iter()
                .filter(|name| name.ends_with(".conf"));
            drop_ins.extend(names.map(|name| (name.clone(), format!("{directory}/{name}"))));
        }
        for path in drop_ins.values() {
            unit.add(&root.read(path)?);
        }
        Ok(Some(unit))
    }

    fn add(&mut self, text: &str) {
        let mut section = String::new();
        let text = text.replace("\\\n", " ");
        for line in text.lines().map(str::trim) {
            if line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                name.clone_into(&mut section);
            } else if section == "Service"
                && let Some((name, value)) = line.split_once('=')
            {
                self.service.insert(name.trim().to_owned(), value.trim().to_owned());
            }
        }
    }

    /// A setting; an empty one is none.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.service
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }
}

/// `45`, `1min 30s`, `500ms`, `infinity`, as in units.
pub(super) fn parse_span(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text == "infinity" {
        return Some(Duration::MAX);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let number: u32 = number.parse().ok()?;
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let one = match unit {
            "us" | "usec" => Duration::from_micros(1),
            "ms" | "msec" => Duration::from_millis(1),
            "" | "s" | "sec" | "second" | "seconds" => Duration::from_secs(1),
            "m" | "min" | "minute" | "minutes" => Duration::from_secs(60),
            "h" | "hr" | "hour" | "hours" => Duration::from_secs(3_600),
            "d" | "day" | "days" => Duration::from_secs(86_400),
            _ => return None,
        };
        total += one.checked_mul(number)?;
        rest = after.trim_start();
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_systemd_are_read() {
        assert_eq!(parse_span("45"), Some(Duration::from_secs(45)));
        assert_eq!(parse_span("1min 30s"), Some(Duration::from_secs(90)));
        assert_eq!(parse_span("2m500ms"), Some(Duration::from_millis(120_500)));
        assert_eq!(parse_span("infinity"), Some(Duration::MAX));
        assert_eq!(parse_span("soon"), None);
        assert_eq!(parse_span(""), None);
    }

    #[test]
    fn drop_ins_change_a_unit() {
        let directory = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "usr/lib/systemd/system/a.service",
            "[Unit]\nType=x\n[Service]\nType=notify\nTimeoutStopSec=9\n# no\n",
        );
        write(
            "usr/lib/systemd/system/a.service.d/10.conf",
            "[Service]\nTimeoutStopSec=10\n",
        );
        write(
            "etc/systemd/system/a.service.d/20.conf",
            "[Service]\nTimeoutStopSec=20\nType=\n",
        );
        let root = Root::new(directory.path().to_owned());
        let unit = Unit::find("a.service", &root).unwrap().unwrap();
        assert_eq!(unit.path, "/usr/lib/systemd/system/a.service");
        assert_eq!((unit.get("TimeoutStopSec"), unit.get("Type")), (Some("20"), None));
        assert!(Unit::find("b.service", &root).unwrap().is_none());
    }
}
