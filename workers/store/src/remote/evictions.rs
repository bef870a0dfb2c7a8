//! What Redis throws away when it is full.

use super::Remote;
use super::link::ConnectionClass;
use super::reply;
use crate::answer::Evictions;
use crate::error::StoreError;

impl Remote {
    pub(crate) async fn evictions(&self) -> Result<Option<Evictions>, StoreError> {
        let op = "info";
        let mut texts = Vec::new();
        for section in ["memory", "stats"] {
            let mut cmd = redis::cmd("INFO");
            cmd.arg(section);
            texts.push(reply::text(
                op,
                self.shared.link.run(ConnectionClass::Bulk, op, &cmd).await?,
            )?);
        }
        Ok(Some(read(&texts.concat())))
    }
}

fn read(text: &str) -> Evictions {
    let value = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(found, _)| *found == name).map(|(_, value)| value.trim())
    };
    let number = |name| value(name).and_then(|text| text.parse().ok()).unwrap_or(0);
    Evictions {
        policy: value("maxmemory_policy").unwrap_or_default().to_owned(),
        is_bounded: number("maxmemory") > 0,
        keys: number("evicted_keys"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_redis_is_read() {
        let found = read(
            "# Memory\r\nmaxmemory:1000\r\nmaxmemory_human:1K\r\nmaxmemory_policy:allkeys-lru\r\n\r\nevicted_keys:7\r\n",
        );
        assert_eq!(
            (found.policy.as_str(), found.is_bounded, found.keys),
            ("allkeys-lru", true, 7)
        );
        assert!(found.endangers());
        let found = read("maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n");
        assert!(!found.endangers(), "it has no bound");
        let found = read("maxmemory:5\r\nmaxmemory_policy:noeviction\r\n");
        assert!(!found.endangers());
    }
}
