//! Real listeners on this host, and what systemd would hand over.

use super::*;
use std::net::TcpStream;

fn fresh(slots: u16) -> Listeners {
    Listeners::bind(&["127.0.0.1:0".parse().unwrap()], slots, Vec::new()).unwrap()
}

/// What systemd has of it, for the next supervisor.
fn stored(listeners: &Listeners) -> Vec<(String, OwnedFd)> {
    let slots = (0..u16::try_from(listeners.slots).unwrap()).map(SlotId::new);
    let named = slots.flat_map(|slot| {
        let (name, sockets) = listeners.storable(slot);
        let copies = sockets.into_iter().map(|socket| socket.try_clone_to_owned().unwrap());
        copies.map(|copy| (name.clone(), copy)).collect::<Vec<_>>()
    });
    named.collect()
}

/// Sockets of a socket unit.
fn unit(sockets: &[Socket]) -> Vec<(String, OwnedFd)> {
    let copies = sockets
        .iter()
        .map(|socket| socket.as_fd().try_clone_to_owned().unwrap());
    copies.map(|copy| ("anyworker.socket".to_owned(), copy)).collect()
}

/// How many of `count` new connections each slot has got.
fn deal(listeners: &Listeners, count: usize) -> Vec<usize> {
    let clients: Vec<TcpStream> = (0..count)
        .map(|_| TcpStream::connect(listeners.addresses()[0]).unwrap())
        .collect();
    let mut dealt = Vec::new();
    for member in &listeners.groups[0].members {
        dealt.push(std::iter::from_fn(|| member.accept().ok()).count());
    }
    drop(clients);
    dealt
}

#[test]
fn connections_go_to_steered_slots_only() {
    let mut listeners = fresh(4);
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
    let first = fresh(1);
    let error = Listeners::bind(&first.addresses(), 1, Vec::new())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(&format!("listen.address: {}: bind: ", first.addresses()[0])),
        "{error}"
    );
    assert!(error.contains("ss -ltnp"), "{error}");
}

#[test]
fn the_next_supervisor_finds_every_waiting_connection() {
    let first = fresh(3);
    let [address] = first.addresses()[..] else {
        panic!("one address")
    };
    let mut found = stored(&first);
    assert_eq!(
        found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["slot-0", "slot-1", "slot-2"]
    );
    // In whatever order.
    found.reverse();
    let waiting: Vec<TcpStream> = (0..30).map(|_| TcpStream::connect(address).unwrap()).collect();
    drop(first);
    let next = Listeners::bind(&[address], 4, found).unwrap();
    assert_eq!(next.groups[0].members.len(), 4, "one more is bound beside");
    let mut served = 0;
    for member in &next.groups[0].members {
        served += std::iter::from_fn(|| member.accept().ok()).count();
    }
    assert_eq!(served, waiting.len());
    next.steer(&[(SlotId::new(3), 16)]);
    assert_eq!(deal(&next, 10), [0, 0, 0, 10], "the order of the kernel is known");
    // Fewer slots than listeners: one of them serves what is left.
    let found = stored(&next);
    drop(next);
    let next = Listeners::bind(&[address], 3, found).unwrap();
    assert_eq!([0, 1, 2].map(|slot| next.of(SlotId::new(slot)).len()), [2, 1, 1]);
    assert_eq!(next.of(SlotId::new(3)).len(), 0);
    assert_eq!(deal(&next, 300)[3], 0, "but gets nothing new");
}

#[test]
fn what_is_no_longer_wanted_is_closed() {
    let first = fresh(2);
    let mut found = stored(&first);
    let [old] = first.addresses()[..] else {
        panic!("one address")
    };
    drop(first);
    // With a gap, the order is unknown from there on.
    found.remove(0);
    let kept = found[0].1.try_clone().unwrap();
    let next = Listeners::bind(&["127.0.0.1:0".parse().unwrap()], 1, found).unwrap();
    assert_ne!(next.addresses(), [old]);
    assert!(TcpStream::connect(old).is_err(), "although another process has it, too");
    drop(kept);
    Listeners::bind(&[old], 1, Vec::new()).unwrap();
}

#[test]
fn sockets_of_a_socket_unit_are_shared_if_they_must_be() {
    // Without SO_REUSEPORT no socket can be beside it, and neither if its user is another.
    let any = "127.0.0.1:0".parse().unwrap();
    let alone = prepare(any, None).unwrap();
    alone.bind(&any.into()).unwrap();
    alone.listen(BACKLOG).unwrap();
    let elsewhere = "127.0.0.1:1".parse().unwrap();
    let mut listeners = Listeners::bind(&[elsewhere], 3, unit(std::slice::from_ref(&alone))).unwrap();
    assert_eq!(
        listeners.addresses(),
        [local_address(&alone).unwrap()],
        "not what is configured"
    );
    for slot in 0..3 {
        assert_eq!(listeners.of(SlotId::new(slot)).len(), 1);
        assert_eq!(
            listeners.storable(SlotId::new(slot)).1.len(),
            0,
            "systemd has it anyway"
        );
    }
    listeners.steer(&[(SlotId::new(2), 16)]);
    assert_eq!(deal(&listeners, 10), [10]);
    for _ in 0..3 {
        listeners.close_last();
    }
    assert_eq!(listeners.groups[0].members.len(), 1, "not ours to close");
    TcpStream::connect(local_address(&alone).unwrap()).unwrap();
}

#[test]
fn sockets_of_a_socket_unit_belong_to_a_slot_each() {
    let first = listen("127.0.0.1:0".parse().unwrap(), None).unwrap();
    let address = local_address(&first).unwrap();
    let sockets = [first, listen(address, None).unwrap(), listen(address, None).unwrap()];
    let mut listeners = Listeners::bind(&[address], 4, unit(&sockets)).unwrap();
    assert_eq!(
        listeners.groups[0].members.len(),
        4,
        "the user is the same here: one is bound beside"
    );
    assert_eq!(stored(&listeners).len(), 1);
    listeners.steer(&[(SlotId::new(1), 16)]);
    assert_eq!(deal(&listeners, 10), [0, 10, 0, 0]);
    listeners.close_last();
    listeners.close_last();
    listeners.steer(&[]);
    let dealt = deal(&listeners, 100);
    assert_eq!((dealt.len(), dealt[2]), (3, 0), "{dealt:?}");
}

#[test]
fn a_socket_unit_of_another_kind_is_named() {
    let fd: OwnedFd = std::os::unix::net::UnixDatagram::unbound().unwrap().into();
    let error = Listeners::bind(&[], 1, vec![("x.socket".to_owned(), fd)]).unwrap_err();
    assert!(error.to_string().starts_with("socket unit: \"x.socket\""), "{error}");
}
