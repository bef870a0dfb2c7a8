//! Whether another worker lives, known at once if it is on this machine.
//!
//! A worker answers on a Unix socket in the abstract namespace that is named after its incarnation. The kernel takes the
//! name away with the process, and no file is left behind. That something listens is not enough: a process that is being
//! killed closes its connections before its other sockets, or after them. So the worker has to say a byte, which takes a
//! living event loop.
//!
//! Only a yes means something. A no may be a dead worker, one on another host or in another network namespace (a
//! container), one of a build that does not answer, or one that hangs: then time has to tell ([`HOLDER_GRACE`]).
//!
//! [`HOLDER_GRACE`]: crate::limits::HOLDER_GRACE

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

/// What a living worker says.
const ALIVE: u8 = b'+';
/// After a failed accept (no descriptors left).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The name of a worker's socket; the kernel allows 107 bytes, and an incarnation has about 20.
fn name(incarnation: &str) -> String {
    format!("anyworker/{incarnation}")
}

/// Answers for this worker until it is dropped.
#[derive(Debug)]
pub(crate) struct Presence(JoinHandle<()>);

impl Presence {
    /// Begins to answer; `None` if the machine does not let us: then others wait, as for a worker far away.
    pub(crate) fn announce(me: &str) -> Option<Self> {
        match listen(me) {
            Ok(listener) => Some(Self(tokio::task::spawn_local(answer(listener)))),
            Err(error) => {
                debug!(%error, "presence socket not opened");
                None
            }
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn listen(me: &str) -> io::Result<UnixListener> {
    let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(name(me))?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

async fn answer(listener: UnixListener) {
    loop {
        match listener.accept().await {
            // Its buffer is empty, so there is room; one that has gone again needs no answer.
            Ok((stream, _)) => drop(stream.try_write(&[ALIVE])),
            Err(error) => {
                debug!(%error, "presence question not answered");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Whether the worker of this incarnation says by `deadline` that it lives. A socket of the same name that belongs to
/// another user is not believed: any process on the machine may take a free name.
pub(crate) async fn is_alive(incarnation: &str, deadline: Instant) -> bool {
    let ask = async {
        let mut stream = UnixStream::connect(format!("\0{}", name(incarnation))).await?;
        if stream.peer_cred()?.uid() != nix::unistd::geteuid().as_raw() {
            return Ok(false);
        }
        io::Result::Ok(stream.read_u8().await? == ALIVE)
    };
    matches!(timeout_at(deadline, ask).await, Ok(Ok(true)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::task::LocalSet;

    /// Longer than any answer takes.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn unique(what: &str) -> String {
        format!("test-{what}-{:016x}", fastrand::u64(..))
    }

    async fn asked(incarnation: &str) -> bool {
        is_alive(incarnation, Instant::now() + PATIENCE).await
    }

    #[tokio::test]
    async fn a_worker_is_alive_until_it_has_gone() {
        LocalSet::new()
            .run_until(async {
                let me = unique("alive");
                assert!(!asked(&me).await, "nothing has that name yet");
                let presence = Presence::announce(&me);
                assert!(presence.is_some());
                for _ in 0..3 {
                    assert!(asked(&me).await);
                }
                assert!(!asked(&format!("{me}0")).await, "a longer name is another one");
                assert!(Presence::announce(&me).is_none(), "a name is had by one");
                drop(presence);
                tokio::task::yield_now().await;
                assert!(!asked(&me).await);
            })
            .await;
    }

    #[tokio::test]
    async fn one_that_listens_and_says_nothing_is_not_known_to_be_alive() {
        let me = unique("stuck");
        let listener = listen(&me).expect("a socket");
        assert!(!is_alive(&me, Instant::now() + Duration::from_millis(50)).await);
        // It dies while it is being asked.
        let ask = asked(&me);
        let die = async {
            let accepted = listener.accept().await.expect("a question");
            drop((accepted, listener));
        };
        assert!(!tokio::join!(ask, die).0);
    }

    #[tokio::test]
    async fn a_name_that_is_too_long_is_no_panic() {
        LocalSet::new()
            .run_until(async {
                let me = "x".repeat(200);
                assert!(Presence::announce(&me).is_none());
                assert!(!asked(&me).await);
            })
            .await;
    }
}
