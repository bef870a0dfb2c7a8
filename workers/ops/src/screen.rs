//! A live view on a terminal: drawn on its alternate screen, only what changed, in one write per
//! picture, so that nothing flickers. However it ends, the terminal is as it was before.

use crate::printer::clean;
use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::style::{Color, Stylize};
use crossterm::terminal::{
    self, BeginSynchronizedUpdate, Clear, ClearType, DisableLineWrap, EnableLineWrap, EndSynchronizedUpdate,
    EnterAlternateScreen, LeaveAlternateScreen,
};
use crossterm::{execute, queue};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest time until a signal to end is seen.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How a piece of text looks. Without colours (`NO_COLOR`) all but [`Style::Title`] look alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
    /// Beside the point.
    Dim,
    /// Nothing special.
    Plain,
    /// A heading.
    Title,
}

/// A line of a picture; what does not fit into the width is not shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(Vec<(Style, String)>);

impl Line {
    /// One piece.
    #[must_use]
    pub fn new(style: Style, text: impl Into<String>) -> Self {
        Self(vec![(style, text.into())])
    }

    /// And another piece behind it.
    #[must_use]
    pub fn and(mut self, style: Style, text: impl Into<String>) -> Self {
        self.0.push((style, text.into()));
        self
    }

    /// Without style, for files and pipes.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.iter().map(|(_, text)| clean(text)).collect()
    }

    /// At most `width` characters, with the sequences of a terminal.
    fn rendered(&self, width: usize) -> String {
        let (mut row, mut left) = (String::new(), width);
        for (style, text) in &self.0 {
            let shown: String = clean(text).chars().take(left).collect();
            left -= shown.chars().count();
            let styled = match style {
                Style::Good => shown.with(Color::Green),
                Style::Warn => shown.with(Color::Yellow),
                Style::Bad => shown.with(Color::Red),
                Style::Dim => shown.with(Color::DarkGrey),
                Style::Plain => shown.stylize(),
                Style::Title => shown.bold(),
            };
            // Writing to a string cannot fail.
            write!(row, "{styled}").ok();
        }
        row
    }
}

/// What to draw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// Stays at the top.
    pub head: Vec<Line>,
    /// Can be moved up and down if it is higher than what is left of the screen.
    pub body: Vec<Line>,
    /// Stays at the bottom.
    pub foot: Vec<Line>,
}

impl Picture {
    /// All lines, for output that is no screen.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.head.iter().chain(&self.body).chain(&self.foot)
    }

    /// How far the body can be moved on a screen of this height.
    fn top_max(&self, height: usize) -> usize {
        let room = height.saturating_sub(self.head.len() + self.foot.len());
        self.body.len().saturating_sub(room)
    }

    /// The rows of a screen, the body moved up by `top`.
    fn rows(&self, width: usize, height: usize, top: usize) -> Vec<String> {
        let room = height.saturating_sub(self.head.len() + self.foot.len());
        let body = self.body.iter().skip(top).take(room);
        let lines = self.head.iter().chain(body).chain(&self.foot);
        lines.take(height).map(|line| line.rendered(width)).collect()
    }
}

/// Whether a live view can be shown: standard output is a terminal.
#[must_use]
pub fn is_possible() -> bool {
    io::stdout().is_terminal()
}

/// Why a wait on the screen ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// It is time for the next picture.
    Time,
    /// The user has seen enough: `q`, Ctrl-C, or a signal.
    Quit,
}

/// A terminal that shows pictures until this is dropped.
#[derive(Debug)]
pub struct Screen {
    width: usize,
    height: usize,
    /// What is on the screen.
    shown: Vec<String>,
    picture: Picture,
    /// Lines by which the body is moved up.
    top: usize,
    /// A signal to end has come.
    ending: Arc<AtomicBool>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// If there is none, or it does not do what is asked.
    pub fn open() -> io::Result<Self> {
        let ending = Arc::new(AtomicBool::new(false));
        // Not SIGHUP, which ends the program at once: the terminal is gone, there is nothing to give back, and the library would
        // read its end for ever.
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, ending.clone())?;
        }
        let (width, height) = terminal::size()?;
        terminal::enable_raw_mode()?;
        // From here on the terminal is restored, whatever happens.
        let screen = Self {
            width: width.into(),
            height: height.into(),
            shown: Vec::new(),
            picture: Picture::default(),
            top: 0,
            ending,
        };
        execute!(
            io::stdout(),
            EnterAlternateScreen,
            Hide,
            DisableLineWrap,
            Clear(ClearType::All)
        )?;
        Ok(screen)
    }

    /// Shows a picture: what differs from the one before is written, in one piece.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn draw(&mut self, picture: Picture) -> io::Result<()> {
        self.picture = picture;
        self.redraw()
    }

    fn redraw(&mut self) -> io::Result<()> {
        self.top = self.top.min(self.picture.top_max(self.height));
        let rows = self.picture.rows(self.width, self.height, self.top);
        let bytes = difference(&self.shown, &rows)?;
        if !bytes.is_empty() {
            let mut out = io::stdout().lock();
            out.write_all(&bytes)?;
            out.flush()?;
        }
        self.shown = rows;
        Ok(())
    }

    /// Waits for the time of the next picture, or for the user's wish to leave. Meanwhile the picture
    /// follows the size of the terminal and the keys that move it.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn wait(&mut self, until: Instant) -> io::Result<Wake> {
        loop {
            if self.ending.load(Ordering::Relaxed) {
                return Ok(Wake::Quit);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Wake::Time);
            }
            match event::poll(left.min(LOOK_EVERY)) {
                Ok(true) => {
                    if self.obey(&event::read()?)? == Some(Wake::Quit) {
                        return Ok(Wake::Quit);
                    }
                }
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn obey(&mut self, event: &Event) -> io::Result<Option<Wake>> {
        match event {
            Event::Key(KeyEvent {
                code, modifiers, kind, ..
            }) if *kind != KeyEventKind::Release => {
                let (code, page) = (*code, self.height.saturating_sub(4).max(1));
                let interrupt = code == KeyCode::Char('c') && modifiers.contains(KeyModifiers::CONTROL);
                if interrupt || matches!(code, KeyCode::Char('q') | KeyCode::Esc) {
                    return Ok(Some(Wake::Quit));
                } else if matches!(code, KeyCode::Up | KeyCode::Char('k')) {
                    self.top = self.top.saturating_sub(1);
                } else if matches!(code, KeyCode::Down | KeyCode::Char('j')) {
                    self.top += 1;
                } else if code == KeyCode::PageUp {
                    self.top = self.top.saturating_sub(page);
                } else if code == KeyCode::PageDown {
                    self.top += page;
                } else if code == KeyCode::Home {
                    self.top = 0;
                }
                self.redraw()?;
            }
            Event::Resize(width, height) => {
                (self.width, self.height) = (usize::from(*width), usize::from(*height));
                self.shown.clear();
                execute!(io::stdout(), Clear(ClearType::All))?;
                self.redraw()?;
            }
            Event::Key(_) | Event::FocusGained | Event::FocusLost | Event::Mouse(_) => {}
        }
        Ok(None)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        execute!(io::stdout(), EnableLineWrap, Show, LeaveAlternateScreen).ok();
        terminal::disable_raw_mode().ok();
    }
}

/// What makes `new` of a screen that shows `old`.
fn difference(old: &[String], new: &[String]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for (row, (before, after)) in (0_u16..).zip(old.iter().map(Some).chain(std::iter::repeat(None)).zip(new)) {
        if before != Some(after) {
            queue!(bytes, MoveTo(0, row))?;
            bytes.extend_from_slice(after.as_bytes());
            queue!(bytes, Clear(ClearType::UntilNewLine))?;
        }
    }
    if old.len() > new.len() {
        queue!(
            bytes,
            MoveTo(0, u16::try_from(new.len()).unwrap_or(u16::MAX)),
            Clear(ClearType::FromCursorDown)
        )?;
    }
    if bytes.is_empty() {
        return Ok(bytes);
    }
    // The terminal shows it in one step, if it can.
    let mut whole = Vec::with_capacity(bytes.len() + 32);
    queue!(whole, BeginSynchronizedUpdate)?;
    whole.append(&mut bytes);
    queue!(whole, EndSynchronizedUpdate)?;
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Line {
        Line::new(Style::Plain, text)
    }

    #[test]
    fn only_what_changed_is_written() {
        let old = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
        assert!(difference(&old, &old).unwrap().is_empty());
        let new = ["a".to_owned(), "B".to_owned()];
        let bytes = String::from_utf8(difference(&old, &new).unwrap()).unwrap();
        assert_eq!(
            bytes,
            "\u{1b}[?2026h\u{1b}[2;1HB\u{1b}[K\u{1b}[3;1H\u{1b}[J\u{1b}[?2026l"
        );
    }

    #[test]
    fn head_and_foot_stay_when_the_body_is_moved() {
        let picture = Picture {
            head: vec![plain("head")],
            body: (0..9).map(|nth| plain(&nth.to_string())).collect(),
            foot: vec![plain("foot")],
        };
        assert_eq!(picture.rows(80, 5, 0), ["head", "0", "1", "2", "foot"]);
        assert_eq!(picture.top_max(5), 6);
        assert_eq!(picture.rows(80, 5, 6), ["head", "6", "7", "8", "foot"]);
        assert_eq!(picture.rows(2, 1, 0), ["he"]);
        assert_eq!(picture.top_max(50), 0);
    }

    #[test]
    fn the_terminal_is_not_at_the_mercy_of_names() {
        assert_eq!(plain("x\ty").text(), "x\\u0009y");
    }
}
