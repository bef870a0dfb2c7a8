//! Ids that cannot be guessed.

use session::Sid;
use std::cell::RefCell;

/// A fresh id of an Engine.IO session.
pub(crate) fn new_sid() -> Sid {
    Sid::from_random(random())
}

/// Random bytes of the kernel, fetched in bulk: one system call for many ids. Each byte is used once.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    /// Bytes that one call fetches; up to 256 come without interruption (getrandom(2)).
    const POOL_BYTES: usize = 256;
    thread_local! {
        static POOL: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    POOL.with_borrow_mut(|pool| {
        if pool.len() < N {
            pool.resize(POOL_BYTES.max(N), 0);
            // getrandom(2) fails only on kernels without it; an id that could be guessed is no way out.
            #[expect(
                clippy::expect_used,
                reason = "the worker must not go on without randomness; the supervisor restarts it"
            )]
            getrandom::fill(pool).expect("getrandom(2) works");
        }
        let rest = pool.len() - N;
        let mut bytes = [0; N];
        bytes.copy_from_slice(pool.get(rest..).unwrap_or(&[0; N]));
        pool.truncate(rest);
        bytes
    })
}
