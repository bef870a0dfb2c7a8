//! The program that steers new connections to the listeners of a SO_REUSEPORT group.

use nix::libc::{sock_filter, sock_fprog};
use nix::sys::socket::{setsockopt, sockopt::AttachReusePortCbpf};
use socket2::Socket;
use std::collections::BTreeMap;

const LOAD_RANDOM: sock_filter = sock_filter {
    code: 0x20,
    jt: 0,
    jf: 0,
    k: 0xffff_f000 + 56,
}; // SKF_AD_OFF + SKF_AD_RANDOM

/// New connections of the group of `member` go to listeners at random, by these weights; the keys are their places
/// in the group.
///
/// # Errors
/// When the socket is in no such group, or the program is too long.
pub(super) fn steer(member: &Socket, weights: &BTreeMap<u32, u32>) -> nix::Result<()> {
    let mut program = program(weights);
    let len = u16::try_from(program.len()).map_err(|_| nix::Error::EINVAL)?;
    // One call per group: any member speaks for all of them.
    let filter = sock_fprog {
        len,
        filter: program.as_mut_ptr(),
    };
    setsockopt(member, AttachReusePortCbpf, &filter)
}

/// Classic BPF that returns one of these places at random, by their weights; with none, a number
/// outside the group, upon which the kernel hashes over all.
fn program(weights: &BTreeMap<u32, u32>) -> Vec<sock_filter> {
    let give = |number: u32| sock_filter {
        code: 0x06,
        jt: 0,
        jf: 0,
        k: number,
    };
    let Some((last, _)) = weights.last_key_value() else {
        return vec![give(u32::MAX)];
    };
    let modulo = sock_filter {
        code: 0x94,
        jt: 0,
        jf: 0,
        k: weights.values().sum::<u32>().max(1),
    };
    let mut program = vec![LOAD_RANDOM, modulo];
    let mut bound = 0;
    for (place, weight) in weights.iter().filter(|(place, _)| *place != last) {
        bound += weight;
        program.push(sock_filter {
            code: 0x35,
            jt: 1,
            jf: 0,
            k: bound,
        }); // greater or equal: skip the next line
        program.push(give(*place));
    }
    program.push(give(*last));
    program
}
