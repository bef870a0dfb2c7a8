//! Listeners: one SO_REUSEPORT socket per slot and address, bound once, and the program that
//! steers new connections to the slots that serve.

use crate::fleet::SlotId;
use nix::errno::Errno;
use nix::libc::{sock_filter, sock_fprog};
use nix::sys::socket::{setsockopt, sockopt::AttachReusePortCbpf};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};
use tracing::warn;

/// Connections that wait for their worker, per listener; the kernel caps it at
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;
/// How long the address may still be taken at start: workers of a supervisor that was killed let
/// it go when they see its death.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries.
const ADDRESS_RETRY: u16 = 50; // ms

/// All listeners, slot by slot. They are closed from the highest slot down only: closing another
/// one would move the last socket of the group into the hole, and the steering program counts.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// With real ports.
    addresses: Vec<SocketAddr>,
    /// By slot, then in the order of `addresses`.
    slots: Vec<Vec<Socket>>,
}

/// All listeners as they are handed to the next supervisor process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Legacy {
    addresses: Vec<SocketAddr>,
    pub(crate) slots: Vec<Vec<RawFd>>,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listen.address: {address}: {step}: {source}{}", remedy(.address, .source))]
pub(crate) struct ListenError {
    address: SocketAddr,
    step: &'static str,
    source: io::Error,
}

fn remedy(address: &SocketAddr, source: &io::Error) -> String {
    let port = address.port();
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRINUSE) => {
            format!("; find who has it with `ss -ltnp 'sport = :{port}'`, stop it or choose another address")
        }
        Some(Errno::EACCES) => {
            format!("; port {port} needs root or CAP_NET_BIND_SERVICE, or choose a port from 1024 on")
        }
        Some(Errno::EADDRNOTAVAIL) => "; this host has no such address".to_owned(),
        _ => String::new(),
    }
}

impl Listeners {
    /// Binds the addresses for so many slots. A port of 0 is chosen by the kernel, once.
    ///
    /// # Errors
    /// When an address is taken, forbidden, or not of this host.
    pub(crate) fn bind(addresses: &[SocketAddr], slots: u16) -> Result<Self, ListenError> {
        let mut listeners = Self {
            addresses: addresses.to_vec(),
            slots: Vec::new(),
        };
        for address in addresses {
            await_vacancy(*address)?;
        }
        for _ in 0..slots {
            listeners.open()?;
        }
        Ok(listeners)
    }

    /// For the next supervisor process.
    pub(crate) fn bequeath(&self) -> Legacy {
        let numbers = |slot: &Vec<Socket>| slot.iter().map(AsRawFd::as_raw_fd).collect();
        Legacy {
            addresses: self.addresses.clone(),
            slots: self.slots.iter().map(numbers).collect(),
        }
    }

    /// What the former supervisor process had; `take` turns a number into the descriptor.
    ///
    /// # Errors
    /// Those of `take`.
    pub(crate) fn inherit(legacy: Legacy, mut take: impl FnMut(RawFd) -> io::Result<OwnedFd>) -> io::Result<Self> {
        let mut slots = Vec::new();
        for numbers in legacy.slots {
            let sockets = numbers.into_iter().map(|number| Ok(take(number)?.into()));
            slots.push(sockets.collect::<io::Result<_>>()?);
        }
        Ok(Self {
            addresses: legacy.addresses,
            slots,
        })
    }

    /// The addresses, with real ports.
    #[must_use]
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The listeners of one slot, in the order of the addresses.
    #[must_use]
    pub(crate) fn of(&self, slot: SlotId) -> Vec<BorrowedFd<'_>> {
        self.slots
            .get(usize::from(slot.number()))
            .into_iter()
            .flatten()
            .map(AsFd::as_fd)
            .collect()
    }

    /// Opens the listeners of the next slot.
    ///
    /// # Errors
    /// As [`Listeners::bind`].
    pub(crate) fn open(&mut self) -> Result<(), ListenError> {
        let mut sockets = Vec::with_capacity(self.addresses.len());
        for address in &mut self.addresses {
            let socket = listen(*address)?;
            if address.port() == 0 {
                let bound = socket.local_addr().ok().and_then(|bound| bound.as_socket());
                *address = bound.unwrap_or(*address);
            }
            sockets.push(socket);
        }
        self.slots.push(sockets);
        Ok(())
    }

    /// Closes the listeners of the highest slot.
    pub(crate) fn close_last(&mut self) {
        for socket in self.slots.pop().into_iter().flatten() {
            // It leaves the group now, whoever still has a duplicate.
            socket.shutdown(std::net::Shutdown::Read).ok();
        }
    }

    /// New connections go to these slots only, by their weights; to all, when none is given.
    pub(crate) fn steer(&self, slots: &[(SlotId, u8)]) {
        let mut program = program(slots);
        let Ok(len) = u16::try_from(program.len()) else { return };
        let Some(first) = self.slots.first() else { return };
        for (socket, address) in first.iter().zip(&self.addresses) {
            // One call per group: any member speaks for all of them.
            let filter = sock_fprog {
                len,
                filter: program.as_mut_ptr(),
            };
            if let Err(errno) = setsockopt(socket, AttachReusePortCbpf, &filter) {
                warn!(%address, %errno, "connections not steered");
            }
        }
    }
}

/// Waits until nobody listens there. With SO_REUSEPORT a second supervisor of the same user would
/// silently share the port; a bind without it fails as long as anybody listens.
fn await_vacancy(address: SocketAddr) -> Result<(), ListenError> {
    if address.port() == 0 {
        return Ok(());
    }
    let give_up = Instant::now() + ADDRESS_PATIENCE;
    loop {
        match prepare(address).and_then(|socket| socket.bind(&address.into())) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < give_up => {
                // Interrupted or not, the next try tells.
                nix::poll::poll(&mut [], ADDRESS_RETRY).ok();
            }
            Err(source) => {
                return Err(ListenError {
                    address,
                    step: "bind",
                    source,
                });
            }
        }
    }
}

/// A stream socket (closed at exec) with the options that both kinds of bind need.
fn prepare(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a former run in TIME_WAIT do not matter.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn listen(address: SocketAddr) -> Result<Socket, ListenError> {
    let failed = |step| move |source| ListenError { address, step, source };
    let socket = prepare(address).map_err(failed("socket"))?;
    socket.set_reuse_port(true).map_err(failed("SO_REUSEPORT"))?;
    // Accepted connections inherit it.
    socket.set_tcp_nodelay(true).map_err(failed("TCP_NODELAY"))?;
    socket.set_nonblocking(true).map_err(failed("O_NONBLOCK"))?;
    socket.bind(&address.into()).map_err(failed("bind"))?;
    socket.listen(BACKLOG).map_err(failed("listen"))?;
    Ok(socket)
}

const LOAD_RANDOM: sock_filter = sock_filter {
    code: 0x20,
    jt: 0,
    jf: 0,
    k: 0xffff_f000 + 56,
}; // SKF_AD_OFF + SKF_AD_RANDOM

/// Classic BPF that returns one of these slots at random, by their weights; with none, a number
/// outside the group, upon which the kernel hashes over all.
fn program(slots: &[(SlotId, u8)]) -> Vec<sock_filter> {
    let give = |number: u32| sock_filter {
        code: 0x06,
        jt: 0,
        jf: 0,
        k: number,
    };
    let Some(((last, _), others)) = slots.split_last() else {
        return vec![give(u32::MAX)];
    };
    let modulo = sock_filter {
        code: 0x94,
        jt: 0,
        jf: 0,
        k: slots.iter().map(|(_, weight)| u32::from(*weight)).sum::<u32>().max(1),
    };
    let mut program = vec![LOAD_RANDOM, modulo];
    let mut bound = 0;
    for (slot, weight) in others {
        bound += u32::from(*weight);
        program.push(sock_filter {
            code: 0x35,
            jt: 1,
            jf: 0,
            k: bound,
        }); // greater or equal: skip the next line
        program.push(give(u32::from(slot.number())));
    }
    program.push(give(u32::from(last.number())));
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    /// How many of `count` new connections each slot has got.
    fn deal(listeners: &Listeners, count: usize) -> Vec<usize> {
        let clients: Vec<TcpStream> = (0..count)
            .map(|_| TcpStream::connect(listeners.addresses()[0]).unwrap())
            .collect();
        let mut dealt = Vec::new();
        for slot in &listeners.slots {
            dealt.push(std::iter::from_fn(|| slot[0].accept().ok()).count());
        }
        drop(clients);
        dealt
    }

    #[test]
    fn connections_go_to_steered_slots_only() {
        let mut listeners = Listeners::bind(&["127.0.0.1:0".parse().unwrap()], 4).unwrap();
        assert_ne!(listeners.addresses()[0].port(), 0);
        let slots = |numbers: &[u16]| {
            let weighed = numbers.iter().map(|number| (SlotId::new(*number), 16));
            weighed.collect::<Vec<_>>()
        };
        for (steered, expected) in [
            (slots(&[2]), [false, false, true, false]),
            (slots(&[0, 3]), [true, false, false, true]),
            (slots(&[0, 1, 2, 3]), [true, true, true, true]),
            (slots(&[]), [true, true, true, true]),
        ] {
            listeners.steer(&steered);
            let dealt = deal(&listeners, 80);
            assert_eq!(
                dealt.iter().map(|count| *count > 0).collect::<Vec<_>>(),
                expected,
                "{dealt:?}"
            );
            assert_eq!(dealt.iter().sum::<usize>(), 80);
        }
        listeners.steer(&[(SlotId::new(1), 4), (SlotId::new(2), 32)]);
        let dealt = deal(&listeners, 900);
        assert!((50..=150).contains(&dealt[1]), "one ninth of 900, by chance: {dealt:?}");
        listeners.close_last();
        listeners.open().unwrap();
        listeners.steer(&slots(&[3]));
        assert_eq!(deal(&listeners, 10), [0, 0, 0, 10]);
    }

    #[test]
    fn a_taken_port_is_named_with_a_remedy() {
        let first = Listeners::bind(&["127.0.0.1:0".parse().unwrap()], 1).unwrap();
        let error = Listeners::bind(first.addresses(), 1).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("listen.address: {}: bind: ", first.addresses()[0])),
            "{error}"
        );
        assert!(error.contains("ss -ltnp"), "{error}");
    }
}
