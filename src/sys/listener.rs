//! Listeners: one SO_REUSEPORT socket per slot and address. They are bound once, or come from systemd, which may
//! also keep them for the next supervisor.

use super::steer::steer;
use crate::fleet::SlotId;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Connections that wait for their worker, per listener; the kernel caps it at
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;
/// How long the address may still be taken at start: workers of a supervisor that was killed let
/// it go when they see its death.
pub(super) const ADDRESS_PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries.
pub(super) const ADDRESS_RETRY: u16 = 50; // ms
/// First part of the name that the listeners of a slot have in systemd's store.
const STORED: &str = "slot-";

/// All listeners.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// One for each address.
    groups: Vec<Group>,
    slots: usize,
}

/// The listeners of one address. The listener at place `n` is that of slot `n`. A slot without one of its own shares
/// that of another slot; a listener beyond the slots is served by one of them.
#[derive(Debug)]
struct Group {
    /// With its real port.
    address: SocketAddr,
    /// In the order of the kernel's group: the steering program counts. They are closed from the end only, because
    /// closing another one would move the last into the hole.
    members: Vec<Socket>,
    /// So many of them belong to a socket unit, which has them still when we are gone: not ours to close.
    given: usize,
}

/// All listeners as they are handed to the next supervisor process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ListenerHandoff {
    groups: Vec<GroupHandoff>,
    slots: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct GroupHandoff {
    address: SocketAddr,
    members: Vec<RawFd>,
    given: usize,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("{key}: {address}: {step}: {source}{}", remedy(.address, .source))]
    Address {
        key: &'static str,
        address: SocketAddr,
        step: &'static str,
        source: io::Error,
    },
    #[error("socket unit: {0:?} is not a listening TCP socket; give it ListenStream=ADDRESS:PORT and Accept=no")]
    NotTcp(String),
}

impl ListenError {
    const fn of(address: SocketAddr, step: &'static str, source: io::Error) -> Self {
        Self::Address {
            key: KEY,
            address,
            step,
            source,
        }
    }
}

const KEY: &str = "listen.address";

fn remedy(address: &SocketAddr, source: &io::Error) -> String {
    let port = address.port();
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRINUSE) => {
            format!("; find who has it with `ss -ltnp 'sport = :{port}'`, stop it or choose another address")
        }
        Some(Errno::EACCES) => format!(
            "; port {port} needs root, CAP_NET_BIND_SERVICE or a socket unit (anyworker.socket), or choose a port \
             from 1024 on"
        ),
        Some(Errno::EADDRNOTAVAIL) => "; this host has no such address (if it comes later: listen.wait_ms)".to_owned(),
        _ => String::new(),
    }
}

impl ListenerHandoff {
    /// Every descriptor in it.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.groups.iter().flat_map(|group| &group.members).copied()
    }
}

impl Listeners {
    /// Takes over the sockets that systemd holds for us, by name, and binds the other addresses for this many slots. A port of
    /// 0 is chosen by the kernel, once. Sockets of a socket unit replace all addresses.
    ///
    /// # Errors
    /// When an address is taken, forbidden, or not of this host, or the socket unit is not of our kind.
    pub(crate) fn bind(
        addresses: &[SocketAddr],
        slots: u16,
        found: Vec<(String, OwnedFd)>,
    ) -> Result<Self, ListenError> {
        let mut listeners = Self {
            groups: adopt(addresses, found)?,
            slots: 0,
        };
        for group in &listeners.groups {
            if group.members.is_empty() {
                await_vacancy(group.address)?;
            }
        }
        for _ in 0..slots {
            listeners.open()?;
        }
        // Whatever a former supervisor thought of its slots.
        listeners.steer(&[]);
        Ok(listeners)
    }

    /// For the next supervisor process.
    pub(crate) fn export(&self) -> ListenerHandoff {
        let group = |group: &Group| GroupHandoff {
            address: group.address,
            members: group.members.iter().map(AsRawFd::as_raw_fd).collect(),
            given: group.given,
        };
        ListenerHandoff {
            groups: self.groups.iter().map(group).collect(),
            slots: self.slots,
        }
    }

    /// What the former supervisor process had; `take` turns a number into the descriptor.
    ///
    /// # Errors
    /// Those of `take`.
    pub(crate) fn import(
        handoff: ListenerHandoff,
        mut take: impl FnMut(RawFd) -> io::Result<OwnedFd>,
    ) -> io::Result<Self> {
        let mut groups = Vec::new();
        for group in handoff.groups {
            let members = group.members.into_iter().map(|number| Ok(take(number)?.into()));
            groups.push(Group {
                address: group.address,
                members: members.collect::<io::Result<_>>()?,
                given: group.given,
            });
        }
        Ok(Self {
            groups,
            slots: handoff.slots,
        })
    }

    /// The addresses, with real ports.
    #[must_use]
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.groups.iter().map(|group| group.address).collect()
    }

    /// The slots that were opened.
    pub(crate) fn slots(&self) -> impl Iterator<Item = SlotId> + use<> {
        (0..u16::try_from(self.slots).unwrap_or(u16::MAX)).map(SlotId::new)
    }

    /// What the worker of a slot accepts from, address by address.
    #[must_use]
    pub(crate) fn of(&self, slot: SlotId) -> Vec<BorrowedFd<'_>> {
        let slot = usize::from(slot.number());
        if slot >= self.slots {
            return Vec::new();
        }
        let sockets = self.groups.iter().flat_map(|group| group.of(slot, self.slots));
        sockets.map(AsFd::as_fd).collect()
    }

    /// What systemd should keep of a slot, and under which name; nothing, if all is of a socket unit.
    #[must_use]
    pub(crate) fn storable(&self, slot: SlotId) -> (String, Vec<BorrowedFd<'_>>) {
        let own = |group: &'_ Group| usize::from(slot.number()) >= group.given;
        let own = self.groups.iter().filter(|group| own(group));
        let sockets = own.filter_map(|group| group.members.get(usize::from(slot.number())));
        (format!("{STORED}{}", slot.number()), sockets.map(AsFd::as_fd).collect())
    }

    /// Opens the listeners of the next slot.
    ///
    /// # Errors
    /// As [`Listeners::bind`].
    pub(crate) fn open(&mut self) -> Result<(), ListenError> {
        let slots = self.slots;
        if let Err(error) = self.groups.iter_mut().try_for_each(|group| group.grow(slots)) {
            self.shrink();
            return Err(error);
        }
        self.slots += 1;
        Ok(())
    }

    /// Closes the listeners of the highest slot.
    pub(crate) fn close_last(&mut self) {
        self.slots = self.slots.saturating_sub(1);
        self.shrink();
    }

    fn shrink(&mut self) {
        for group in &mut self.groups {
            while group.members.len() > self.slots.max(group.given) {
                close(group.members.pop());
            }
        }
    }

    /// New connections go to these slots only, by their weights; to all, when none is given.
    pub(crate) fn steer(&self, slots: &[(SlotId, u8)]) {
        let all = || (0..self.slots).map(|slot| (slot, 1));
        let chosen = slots
            .iter()
            .map(|(slot, weight)| (usize::from(slot.number()), u32::from(*weight)));
        let weighed: Vec<(usize, u32)> = if slots.is_empty() {
            all().collect()
        } else {
            chosen.collect()
        };
        for group in &self.groups {
            // There is no choice.
            if group.members.len() < 2 {
                continue;
            }
            let mut weights = BTreeMap::new();
            for (slot, weight) in &weighed {
                let place = u32::try_from(slot % group.members.len()).unwrap_or(u32::MAX);
                *weights.entry(place).or_default() += weight;
            }
            if let Some(Err(errno)) = group.members.first().map(|member| steer(member, &weights)) {
                warn!(address = %group.address, %errno, "connections not steered");
            }
        }
    }
}

impl Group {
    /// The listener of its own, or a shared one; and every `slots`-th of those that no slot has.
    fn of(&self, slot: usize, slots: usize) -> impl Iterator<Item = &Socket> {
        let count = self.members.len();
        let own = self.members.get(slot.checked_rem(count).unwrap_or_default());
        let spare = (slots..count).filter(move |place| place % slots == slot);
        own.into_iter().chain(spare.filter_map(|place| self.members.get(place)))
    }

    /// The next slot gets a listener of its own, if it has none and can have one.
    fn grow(&mut self, slots: usize) -> Result<(), ListenError> {
        // There is one; or slots share already, and the others are not to change places.
        if self.members.len() != slots {
            return Ok(());
        }
        match listen(self.address, self.members.first()) {
            Ok(socket) => {
                if self.address.port() == 0 {
                    self.address = local_address(&socket).unwrap_or(self.address);
                }
                self.members.push(socket);
                Ok(())
            }
            // Its sockets belong to another user, or have no SO_REUSEPORT: no socket can be beside them.
            Err(ListenError::Address { source, .. }) if self.given > 0 && source.kind() == io::ErrorKind::AddrInUse => {
                let (address, sockets) = (self.address, self.members.len());
                info!(%address, sockets, "slots share the sockets of the socket unit");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Sorts what systemd has for us. What is no longer wanted is closed.
fn adopt(addresses: &[SocketAddr], found: Vec<(String, OwnedFd)>) -> Result<Vec<Group>, ListenError> {
    let (mut given, mut stored) = (Vec::new(), BTreeMap::new());
    for (name, fd) in found {
        let socket = Socket::from(fd);
        let address = local_address(&socket).filter(|_| is_listener(&socket));
        let slot = name.strip_prefix(STORED).and_then(|number| number.parse().ok());
        match (slot, address) {
            (Some(slot), Some(address)) => {
                stored.insert((slot, address), socket);
            }
            (Some(_), None) => {}
            (None, Some(address)) => {
                equip(&socket).map_err(|source| ListenError::of(address, "options", source))?;
                given.push((address, socket));
            }
            (None, None) => return Err(ListenError::NotTcp(name)),
        }
    }
    let mut wanted = Vec::new();
    for (address, _) in &given {
        if !wanted.contains(address) {
            wanted.push(*address);
        }
    }
    if wanted.is_empty() {
        wanted.extend(addresses);
    } else if wanted != addresses {
        info!(configured = ?addresses, sockets = ?wanted, "socket unit sets the addresses");
    }
    let (count, mut groups) = (stored.len(), Vec::new());
    for address in wanted {
        let own = given.extract_if(.., |(other, _)| *other == address);
        let mut members: Vec<Socket> = own.map(|(_, socket)| socket).collect();
        let given = members.len();
        // A port of 0 is a new one each time.
        while let Some(socket) = stored.remove(&(members.len(), address)) {
            members.push(socket);
        }
        groups.push(Group {
            address,
            members,
            given,
        });
    }
    if count > 0 {
        let closed = stored.len();
        info!(
            kept = count - closed,
            closed, "listeners of the previous supervisor taken over"
        );
    }
    stored.into_values().rev().for_each(|socket| close(Some(socket)));
    Ok(groups)
}

/// It leaves its group now, even if another process still has a duplicate.
fn close(socket: Option<Socket>) {
    if let Some(socket) = socket {
        socket.shutdown(std::net::Shutdown::Read).ok();
    }
}

fn is_listener(socket: &Socket) -> bool {
    socket.r#type().is_ok_and(|kind| kind == Type::STREAM) && socket.is_listener().unwrap_or(false)
}

fn local_address(socket: &Socket) -> Option<SocketAddr> {
    socket.local_addr().ok()?.as_socket()
}

/// Waits until the host has these addresses, or `pause` says that it has been long enough. What else is wrong with them is
/// found when they are bound.
pub(crate) fn await_addresses<E>(
    addresses: &[SocketAddr],
    mut pause: impl FnMut(SocketAddr) -> Result<bool, E>,
) -> Result<(), E> {
    for address in addresses {
        while !is_there(*address) && pause(*address)? {}
    }
    Ok(())
}

/// Whether the host has the address. It is bound with port 0, which is always free.
fn is_there(mut address: SocketAddr) -> bool {
    address.set_port(0);
    let bound = prepare(address, None).and_then(|socket| socket.bind(&address.into()));
    !matches!(bound, Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// Waits until no socket listens there. With SO_REUSEPORT a second supervisor of the same user would
/// silently share the port; a bind without it fails as long as another process listens.
fn await_vacancy(address: SocketAddr) -> Result<(), ListenError> {
    if address.port() == 0 {
        return Ok(());
    }
    let give_up = Instant::now() + ADDRESS_PATIENCE;
    loop {
        match prepare(address, None).and_then(|socket| socket.bind(&address.into())) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < give_up => {
                // Interrupted or not, the next try tells.
                nix::poll::poll(&mut [], ADDRESS_RETRY).ok();
            }
            Err(source) => return Err(ListenError::of(address, "bind", source)),
        }
    }
}

/// A stream socket (closed at exec) with the options that both kinds of bind need.
pub(super) fn prepare(address: SocketAddr, beside: Option<&Socket>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a former run in TIME_WAIT do not matter.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // A socket unit's may be for IPv4, too; in one group all are alike.
        socket.set_only_v6(beside.map_or(Ok(true), Socket::only_v6)?)?;
    }
    Ok(socket)
}

fn listen(address: SocketAddr, beside: Option<&Socket>) -> Result<Socket, ListenError> {
    let failed = |step| move |source| ListenError::of(address, step, source);
    let socket = prepare(address, beside).map_err(failed("socket"))?;
    socket.set_reuse_port(true).map_err(failed("SO_REUSEPORT"))?;
    equip(&socket).map_err(failed("options"))?;
    socket.bind(&address.into()).map_err(failed("bind"))?;
    socket.listen(BACKLOG).map_err(failed("listen"))?;
    Ok(socket)
}

/// The options of every listener.
fn equip(socket: &Socket) -> io::Result<()> {
    // Accepted connections inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)
}

#[cfg(test)]
mod tests;
