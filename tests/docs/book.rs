//! What stands in the documents: commands with what they are shown to print, names in code spans, links.

use std::path::{Path, PathBuf};

/// Programs whose lines are commands.
const PROGRAMS: [&str; 7] = ["anyworker", "apt", "curl", "make", "redis-cli", "sudo", "systemctl"];

/// One command, and what is shown of its output.
#[derive(Debug)]
pub(crate) struct Example {
    /// File and line.
    pub(crate) place: String,
    pub(crate) command: String,
    pub(crate) shown: Vec<String>,
}

/// A document.
pub(crate) struct Page {
    /// Relative to the repository.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// README.md and the pages of docs/: the documents for users.
pub(crate) fn pages() -> Vec<Page> {
    read(&["README.md"], "docs")
}

/// ARCHITECTURE.md, src/LIFECYCLE.md and the pages of docs/design/: the documents for readers of the code.
pub(crate) fn design() -> Vec<Page> {
    read(&["ARCHITECTURE.md", "src/LIFECYCLE.md"], "docs/design")
}

/// The named documents, and those of a directory.
fn read(names: &[&str], directory: &str) -> Vec<Page> {
    let root = root();
    let mut paths: Vec<PathBuf> = names.iter().map(|name| root.join(name)).collect();
    let entries = std::fs::read_dir(root.join(directory)).unwrap();
    paths.extend(entries.map(|entry| entry.unwrap().path()));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    let page = |path: PathBuf| Page {
        path: path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(),
        text: std::fs::read_to_string(&path).unwrap(),
    };
    paths.into_iter().map(page).collect()
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A block of code: the line it begins with (from 1), its language if it has fences, its lines.
#[derive(Debug)]
struct Block<'a> {
    at: usize,
    language: &'a str,
    lines: Vec<&'a str>,
    /// Nothing but blank lines is between it and the block before.
    follows: bool,
}

impl Page {
    /// Its commands: in blocks with a prompt (`$ `), lines after a command are its output; in others each line is a
    /// command or none of ours, and a block that follows at once, in another language, is the output of the last one.
    pub(crate) fn examples(&self) -> Vec<Example> {
        let mut examples: Vec<Example> = Vec::new();
        for block in self.blocks() {
            let shell = ["", "sh", "console"].contains(&block.language);
            if !shell {
                if block.follows
                    && let Some(last) = examples.last_mut()
                    && last.shown.is_empty()
                {
                    last.shown = block.lines.iter().map(|line| (*line).to_owned()).collect();
                }
                continue;
            }
            let prompts = block.lines.iter().any(|line| line.starts_with("$ "));
            let mut open = false;
            let mut lines = block.lines.iter().enumerate();
            while let Some((nth, line)) = lines.next() {
                let words = line.strip_prefix("$ ").unwrap_or(line);
                let is_prompt = words.len() < line.len();
                if prompts && !is_prompt {
                    if open && let Some(last) = examples.last_mut() {
                        last.shown.push((*line).to_owned());
                    }
                    continue;
                }
                let mut command = words.to_owned();
                while let Some(begun) = command.strip_suffix('\\') {
                    let next = lines.next().map_or("", |(_, line)| line.trim_start());
                    command = format!("{begun}{next}");
                }
                let command = without_comment(&command);
                open = PROGRAMS.contains(&command.split(' ').next().unwrap_or_default());
                if open {
                    examples.push(Example {
                        place: format!("{}:{}", self.path, block.at + nth),
                        command: command.to_owned(),
                        shown: Vec::new(),
                    });
                }
            }
        }
        examples
    }

    /// The program that it shows in a language.
    pub(crate) fn program(&self, language: &str) -> String {
        let blocks = self.blocks();
        let mut programs = blocks.iter().filter(|block| block.language == language);
        let program = programs.next().expect("a program");
        assert!(programs.next().is_none(), "more than one in {language}");
        program.lines.join("\n")
    }

    fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks: Vec<Block<'_>> = Vec::new();
        let mut fenced = false;
        let mut follows = false;
        let mut blank = true;
        for (nth, line) in self.text.lines().enumerate() {
            let code = line.strip_prefix("    ");
            if let Some(language) = line.strip_prefix("```") {
                fenced = !fenced;
                if fenced {
                    let (at, lines) = (nth + 2, Vec::new());
                    blocks.push(Block {
                        at,
                        language,
                        lines,
                        follows,
                    });
                }
                follows = true;
            } else if fenced {
                blocks.last_mut().unwrap().lines.push(line);
            } else if let Some(code) = code.filter(|_| blank) {
                blocks.push(Block {
                    at: nth + 1,
                    language: "",
                    lines: vec![code],
                    follows,
                });
                blank = false;
                follows = true;
                continue;
            } else if let (Some(code), false, Some(block)) = (code, blank, blocks.last_mut())
                && block.at + block.lines.len() == nth + 1
            {
                block.lines.push(code);
                continue;
            } else if !line.trim().is_empty() {
                follows = false;
            }
            blank = line.trim().is_empty();
        }
        blocks
    }

    /// What stands between single backticks outside of blocks, with the number of its line.
    pub(crate) fn spans(&self) -> Vec<(usize, &str)> {
        let mut spans = Vec::new();
        for (number, line) in self.prose() {
            spans.extend(line.split('`').skip(1).step_by(2).map(|span| (number, span)));
        }
        spans
    }

    /// Targets of its links, with the number of their line.
    pub(crate) fn links(&self) -> Vec<(usize, &str)> {
        let mut links = Vec::new();
        for (number, line) in self.prose() {
            let targets = line
                .split("](")
                .skip(1)
                .filter_map(|rest| Some(rest.split_once(')')?.0));
            links.extend(targets.map(|target| (number, target)));
        }
        links
    }

    /// Anchors of its headings, as GitHub makes them.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let headings = self.prose().filter_map(|(_, line)| {
            let heading = line.trim_start_matches('#');
            (heading.len() < line.len()).then_some(heading.trim())
        });
        headings
            .map(|heading| {
                let kept = heading.to_lowercase().replace(' ', "-");
                kept.chars()
                    .filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
                    .collect()
            })
            .collect()
    }

    fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut fenced = false;
        self.text.lines().enumerate().filter_map(move |(nth, line)| {
            let fence = line.starts_with("```");
            fenced ^= fence;
            (!fenced && !fence && !line.starts_with("    ")).then_some((nth + 1, line))
        })
    }
}

fn without_comment(command: &str) -> &str {
    command.split("  #").next().unwrap_or(command).trim_end()
}

#[test]
fn commands_and_output_are_told_apart() {
    let text = "a\n\n    $ anyworker x  # why\n    out 1\n\n```sh\ncurl \\\n  -s y\nnpm z\n```\n\n```json\n{}\n```\n\nb\n\n```json\n[]\n```\n";
    let page = Page {
        path: "p".to_owned(),
        text: text.to_owned(),
    };
    let examples: Vec<_> = page
        .examples()
        .into_iter()
        .map(|example| (example.place, example.command, example.shown))
        .collect();
    let owned =
        |place: &str, command: &str, shown: &str| (place.to_owned(), command.to_owned(), vec![shown.to_owned()]);
    let wanted = [owned("p:3", "anyworker x", "out 1"), owned("p:7", "curl -s y", "{}")];
    assert_eq!(examples, wanted);
}
