//! Names that clients chose to deceive a terminal: no command prints a character that one acts on or does not show.

use crate::harness::{PATIENCE, Plan, Server};
use crate::many::{objects, text, wire};

/// What is left of it in notes, which have blanks for control characters.
const NOTED: &str = "\\u202eb\\u2066\\u200f\\u061c\\u200b\\u2028\\ufeff";
/// An escape sequence, C1, an override, an isolate, a mark, a zero width, a line separator.
const NAME: &str = "a\u{1b}[2J\u{9b}31m\u{7f}\u{202e}b\u{2066}\u{200f}\u{61c}\u{200b}\u{2028}\u{feff}";
const SHOWN: &str = "a\\u001b[2J\\u009b31m\\u007f\\u202eb\\u2066\\u200f\\u061c\\u200b\\u2028\\ufeff";

async fn printed(server: &Server, command: &str, args: &[&str]) -> String {
    let text = text(&server.cli(command, args).await);
    let forbidden = |c: char| c != '\n' && (c.is_control() || (!c.is_ascii() && NAME.contains(c)));
    assert!(!text.contains(forbidden), "{command} {args:?}: {text:?}");
    text
}

#[tokio::test]
async fn no_terminal_acts_on_the_name_of_a_client() {
    let server = Plan::new().with("workers.count = 1").start().await;
    let user = serde_json::to_string(NAME).unwrap();
    let (_wire, sid) = wire(&server, user.trim_matches('"'), NAME).await;
    // Notes are written in batches.
    let noted = async { while !server.cli("trace", &[&sid]).await.status.success() {} };
    tokio::time::timeout(PATIENCE, noted).await.unwrap();
    for (command, args, shown) in [
        ("rooms", &[][..], SHOWN),
        ("sessions", &[], SHOWN),
        ("sessions", &["show", &sid], SHOWN),
        ("trace", &[&sid, "--full"], NOTED),
    ] {
        let lines = printed(&server, command, args).await;
        assert!(lines.contains(shown), "{command} {args:?}: {lines}");
        let args = [args, &["--json"]].concat();
        let lines = printed(&server, command, &args).await;
        assert!(lines.contains(NOTED), "{command} {args:?}: {lines}");
        assert!(
            lines
                .lines()
                .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
        );
    }
    let rooms = objects(&server.cli("rooms", &["--json"]).await);
    assert!(rooms.iter().any(|room| room["room"] == NAME), "{rooms:?}");
}
