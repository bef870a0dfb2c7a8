//! A terminal of the test's own: a program runs in it, and the test sees the screen that a user would see.

use super::until;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use vt100::Parser;

/// A screen, and the program that draws on it.
pub struct Terminal {
    master: OwnedFd,
    slave: OwnedFd,
    /// As it was before the program.
    before: Termios,
    screen: Parser,
    /// What the program has written.
    written: Vec<u8>,
    child: Child,
}

impl Terminal {
    /// Runs `command` on a screen of this size.
    pub fn run(mut command: Command, rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("a terminal");
        unlockpt(&master).expect("a terminal");
        let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("its other end");
        tcsetwinsize(&slave, size(rows, columns)).expect("a size");
        fcntl_setfl(&master, OFlags::NONBLOCK).expect("a terminal that does not block");
        let before = tcgetattr(&slave).expect("its settings");
        let end = || slave.try_clone().expect("its other end");
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn();
        Self {
            master,
            slave,
            before,
            screen: Parser::new(rows, columns, 0),
            written: Vec::new(),
            child: child.expect("a program"),
        }
    }

    /// The process of the program.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the program has written so far, with the sequences of a terminal.
    pub fn written(&mut self) -> String {
        self.look();
        String::from_utf8_lossy(&self.written).into_owned()
    }

    fn look(&mut self) {
        let mut bytes = [0_u8; 4_096];
        while let Ok(count) = rustix::io::read(&self.master, &mut bytes[..])
            && count > 0
        {
            self.written.extend_from_slice(&bytes[..count]);
            self.screen.process(&bytes[..count]);
        }
    }

    /// What is on the screen.
    pub fn text(&mut self) -> String {
        self.look();
        self.screen.screen().contents()
    }

    /// What is on the screen once it is as wanted.
    #[track_caller]
    pub fn shows(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> impl Future<Output = String> {
        until(what, async move || Some(self.text()).filter(|text| wanted(text)))
    }

    /// The user types.
    pub fn types(&self, keys: &str) {
        rustix::io::write(&self.master, keys.as_bytes()).expect("type");
    }

    /// The user changes the size of the window.
    pub fn resize(&mut self, rows: u16, columns: u16) {
        self.look();
        tcsetwinsize(&self.slave, size(rows, columns)).expect("a size");
        self.screen.screen_mut().set_size(rows, columns);
        // It has no controlling terminal, so the kernel does not tell it.
        super::signal(self.pid(), nix::sys::signal::Signal::SIGWINCH);
    }

    /// How the program ends.
    pub async fn ends(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the end of the program", async || child.try_wait().expect("wait")).await
    }

    /// The terminal is as it was: its settings, its screen, its cursor.
    pub fn assert_restored(&mut self) {
        self.look();
        let now = tcgetattr(&self.slave).expect("its settings");
        assert_eq!(
            (now.input_modes, now.output_modes, now.local_modes),
            (
                self.before.input_modes,
                self.before.output_modes,
                self.before.local_modes
            )
        );
        let screen = self.screen.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended already where a test came to its end.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
