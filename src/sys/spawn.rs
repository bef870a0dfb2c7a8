//! Fork and exec of a worker: the only `unsafe` of the repository.
//!
//! Everything the child needs is prepared before the fork. Between fork and exec the child makes
//! system calls only: it neither allocates, nor logs, nor takes a lock.
#![expect(unsafe_code, reason = "fork, exec, and taking over inherited descriptors")]

mod error_report;
mod inherited;

pub(crate) use inherited::InheritedDescriptors;

use super::environment;
use super::memory;
use super::user::Identity;
use boot::{Exit, Setup};
use error_report::{ERRNO_PLACE, ErrorReports};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::libc;
use nix::sys::signal::SigSet;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, getsockopt, send, socketpair, sockopt};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, fork, setgroups, setresgid, setresuid};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Signals that reach the whole terminal group, or were meant for the supervisor; a worker obeys
/// its control socket instead.
const IGNORED: [libc::c_int; 9] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGPIPE,
    libc::SIGQUIT,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGXFSZ,
];
/// Signals that stand for an error of write(2), which is answered where it is written: `EPIPE`, and `EFBIG` when a log
/// file has reached the limit of `RLIMIT_FSIZE`.
const WRITE_ERRORS: [libc::c_int; 2] = [libc::SIGPIPE, libc::SIGXFSZ];
/// The first descriptor that is none of the standard streams.
const ABOVE_STANDARD: libc::c_uint = 3;
/// Highest signal number.
const SIGNAL_MAX: libc::c_int = 64;

/// The executable of a generation, held open: a respawn runs the same file even after another one
/// was installed under its name.
#[derive(Debug)]
pub(crate) struct Binary {
    fd: OwnedFd,
}

/// A worker to be started.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    /// What to run.
    pub(crate) binary: &'a Binary,
    /// Its setup, which it reads at its start.
    pub(crate) setup: &'a Setup,
    /// The listeners of its slot.
    pub(crate) listeners: Vec<BorrowedFd<'a>>,
    /// The one that all workers share.
    pub(crate) admin: Option<BorrowedFd<'a>>,
    /// The user that it becomes.
    pub(crate) identity: Option<&'a Identity>,
}

/// A started worker.
#[derive(Debug)]
pub(crate) struct Spawned {
    /// Its process id.
    pub(crate) pid: i32,
    /// Our end of its control socket.
    pub(crate) control: OwnedFd,
}

/// The step of a spawn that failed in the supervisor; what fails in the child comes as
/// [`ToSupervisor::Failed`] and exit code 70.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    /// The control socketpair.
    #[error("control socketpair: {0}")]
    Control(Errno),
    /// Moving descriptors out of the way of the fixed numbers.
    #[error("duplicating descriptors: {0}")]
    Duplicate(Errno),
    /// `fork`.
    #[error("fork: {0}")]
    Fork(Errno),
    /// The memfd with the setup.
    #[error("setup memfd: {0}")]
    Setup(io::Error),
}

/// What a worker inherited.
#[derive(Debug)]
pub struct Inherited {
    /// Its end of the control socket.
    pub control: OwnedFd,
    /// Its setup, which it reads at its start.
    pub setup: Setup,
    /// The listeners of its slot.
    pub listeners: Vec<OwnedFd>,
    /// The admin listener, that all workers share.
    pub admin: Option<OwnedFd>,
}

/// Why this process is no worker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InheritError {
    /// Started by hand, most likely.
    #[error("`anyworker worker` is started by the supervisor only; use `anyworker run`")]
    NotAWorker,
    /// The setup could not be read.
    #[error("setup not readable: {0}")]
    Setup(String),
}

impl Binary {
    /// The executable of this very process.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub(crate) fn running() -> io::Result<Self> {
        Self::open(Path::new("/proc/self/exe"))
    }

    /// The executable that is now at this path.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let fd = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Self { fd })
    }

    /// Its descriptor, for the next supervisor process.
    pub(crate) fn number(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// A binary that the former supervisor process held open.
    pub(crate) const fn inherit(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// A path that leads to this very file, in this process and between fork and exec of a child.
    pub(crate) fn path(&self) -> std::path::PathBuf {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd()).into()
    }
}

impl AsFd for Binary {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Everything the child uses, made before the fork.
struct Plan {
    /// From where to which fixed number; no source is a target.
    moves: Vec<(RawFd, RawFd)>,
    /// The first number that must not stay open.
    close_from: libc::c_uint,
    binary: RawFd,
    identity: Option<Identity>,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    reports: ErrorReports,
}

/// Starts a worker.
///
/// # Errors
/// When the supervisor's part fails; then there is no process.
pub(crate) fn spawn(order: &Order<'_>) -> Result<Spawned, SpawnError> {
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
    )
    .map_err(SpawnError::Control)?;
    let setup = memory::file(c"anyworker-setup", order.setup).map_err(SpawnError::Setup)?;
    let listeners = || order.listeners.iter().chain(&order.admin);
    let count = i32::try_from(listeners().count()).unwrap_or(i32::MAX - boot::fd::LISTENERS);
    let above = boot::fd::LISTENERS + count;
    let lift = |fd: BorrowedFd<'_>| -> Result<OwnedFd, SpawnError> {
        let raw = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(above)).map_err(SpawnError::Duplicate)?;
        // SAFETY: the kernel has just made this descriptor for us; it has no other owner.
        Ok(unsafe { OwnedFd::from_raw_fd(raw) })
    };
    let mut lifted = vec![
        (lift(theirs.as_fd())?, boot::fd::CONTROL),
        (lift(setup.as_fd())?, boot::fd::SETUP),
    ];
    for (listener, target) in listeners().zip(boot::fd::LISTENERS..) {
        lifted.push((lift(*listener)?, target));
    }
    let binary = lift(order.binary.fd.as_fd())?;
    let arguments = arguments(order.setup);
    let environment = environment::of_a_worker();
    let plan = Plan {
        moves: lifted.iter().map(|(fd, target)| (fd.as_raw_fd(), *target)).collect(),
        close_from: libc::c_uint::try_from(above).unwrap_or(libc::c_uint::MAX),
        binary: binary.as_raw_fd(),
        identity: order.identity.cloned(),
        argv: pointers(&arguments),
        envp: pointers(&environment),
        reports: ErrorReports::prepare(),
    };
    // SAFETY: the child only makes system calls until exec. The only other thread, the log's, is not in the child, and no
    // lock that it may hold is taken there.
    match unsafe { fork() }.map_err(SpawnError::Fork)? {
        ForkResult::Parent { child } => Ok(Spawned {
            pid: child.as_raw(),
            control: ours,
        }),
        ForkResult::Child => become_worker(&plan),
    }
}

/// `anyworker worker --slot 2 --generation 1`: the numbers are for readers of `ps`.
fn arguments(setup: &Setup) -> Vec<CString> {
    let words = format!(
        "anyworker\nworker\n--slot\n{}\n--generation\n{}",
        setup.slot, setup.generation
    );
    words.lines().filter_map(|word| CString::new(word).ok()).collect()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// The child's side, up to exec.
fn become_worker(plan: &Plan) -> ! {
    for &(source, target) in &plan.moves {
        // SAFETY: plain numbers; the targets are free or become ours, the sources stay open.
        if unsafe { libc::dup2(source, target) } < 0 {
            give_up(plan, &plan.reports.descriptors);
        }
    }
    close_at_exec(plan.close_from);
    if let Some(identity) = &plan.identity {
        let changed = setgroups(&identity.groups)
            .and_then(|()| setresgid(identity.gid, identity.gid, identity.gid))
            .and_then(|()| setresuid(identity.uid, identity.uid, identity.uid));
        if changed.is_err() {
            give_up(plan, &plan.reports.identity);
        }
    }
    if nix::sys::prctl::set_no_new_privs().is_err() {
        give_up(plan, &plan.reports.identity);
    }
    reset_signals();
    // SAFETY: both arrays end with a null pointer and their strings outlive the call, which
    // returns only on failure.
    unsafe { libc::fexecve(plan.binary, plan.argv.as_ptr(), plan.envp.as_ptr()) };
    give_up(plan, &plan.reports.exec)
}

/// Default dispositions, the ignored set, nothing blocked.
fn reset_signals() {
    for signal in 1..=SIGNAL_MAX {
        let disposition = if IGNORED.contains(&signal) {
            libc::SIG_IGN
        } else {
            libc::SIG_DFL
        };
        // SAFETY: no handler of ours is installed; numbers that cannot be changed are refused.
        unsafe { libc::signal(signal, disposition) };
    }
    // Only an invalid argument could make it fail.
    SigSet::empty().thread_set_mask().ok();
}

/// Says why on the control socket and ends, without running anything of the parent's.
fn give_up(plan: &Plan, report: &[u8]) -> ! {
    let mut errno = Errno::last_raw();
    let mut message = [0_u8; 256];
    let length = report.len().min(message.len());
    for (to, from) in message.iter_mut().zip(report) {
        *to = *from;
    }
    let place = report
        .windows(ERRNO_PLACE.len())
        .position(|window| window == ERRNO_PLACE.as_bytes());
    if let Some(digits) = place.and_then(|at| message.get_mut(at..at + ERRNO_PLACE.len())) {
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(errno.rem_euclid(10)).unwrap_or(0);
            errno /= 10;
        }
    }
    let control = plan.moves.first().map_or(boot::fd::CONTROL, |(source, _)| *source);
    // If the supervisor does not read it, the exit code has to do.
    send(
        control,
        message.get(..length).unwrap_or_default(),
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
    )
    .ok();
    // SAFETY: ends this process at once; the parent's exit handlers are not ours to run.
    unsafe { libc::_exit(i32::from(Exit::Internal.code())) }
}

/// What the supervisor begins with: a signal that its starter had ignored does what it does by default, and errors of
/// write(2) are no signals.
pub(crate) fn reset_dispositions() {
    for number in (1..=SIGNAL_MAX).filter(|number| !WRITE_ERRORS.contains(number)) {
        heed(number);
    }
    ignore_write_errors();
}

/// What a command begins with. An ignored `SIGCHLD` would hide the end of every child (wait(2)). All else that its starter
/// had ignored stays so: `nohup anyworker tail` continues without its terminal.
pub(crate) fn reset_for_command() {
    heed(libc::SIGCHLD);
    ignore_write_errors();
}

/// Gives an ignored signal its default action. Handlers stay: those of the runtime tell of a stack overflow.
fn heed(number: libc::c_int) {
    let mut present = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks only, into a structure that is large enough; a number without a signal is refused.
    let asked = unsafe { libc::sigaction(number, ptr::null(), present.as_mut_ptr()) };
    // SAFETY: all zeros are a valid value of this plain structure, whether or not the call has filled it.
    let present = unsafe { present.assume_init() };
    // A correct disposition is left alone: setting it again would discard a pending `SIGCHLD`.
    if asked == 0 && present.sa_sigaction == libc::SIG_IGN {
        // SAFETY: no handler is installed for it.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

/// Errors of write(2) are answered where it is called.
pub(crate) fn ignore_write_errors() {
    for number in WRITE_ERRORS {
        // SAFETY: no handler is installed for it.
        unsafe { libc::signal(number, libc::SIG_IGN) };
    }
}

/// What every child other than a worker starts with, whatever this process was started with: no signal is blocked or
/// ignored (a Redis with `SIGCHLD` ignored could not wait for its own children), no descriptor but the standard ones is
/// open, and what it creates is for its user alone.
pub(crate) fn detach(command: &mut Command) -> &mut Command {
    let arrange = || {
        for signal in 1..=SIGNAL_MAX {
            // SAFETY: no handler of ours is installed; numbers that cannot be changed are refused.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        umask(Mode::S_IRWXG | Mode::S_IRWXO);
        close_at_exec(ABOVE_STANDARD);
        SigSet::empty().thread_set_mask().map_err(io::Error::from)
    };
    // SAFETY: between fork and exec it makes system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(arrange) }
}

/// Marks all descriptors from a number on as closed at exec. Ours are marked already; this is for what this process
/// inherited unmarked. An old kernel without the call, or the flag, leaves those open.
fn close_at_exec(from: libc::c_uint) {
    // SAFETY: marks descriptors, closes none.
    let _unmarked = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            from,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
}

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes over what the supervisor handed down. Once per process.
///
/// # Errors
/// When this process was not started by a supervisor, or is asked twice.
pub(crate) fn inherited() -> Result<Inherited, InheritError> {
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(InheritError::NotAWorker);
    }
    let control = adopt(boot::fd::CONTROL)?;
    if getsockopt(&control, sockopt::SockType) != Ok(SockType::SeqPacket) {
        return Err(disown(control));
    }
    let mut text = Vec::new();
    File::from(adopt(boot::fd::SETUP)?)
        .read_to_end(&mut text)
        .map_err(|error| InheritError::Setup(error.to_string()))?;
    let setup: Setup = boot::decode(&text).map_err(|error| InheritError::Setup(error.to_string()))?;
    let mut numbers = boot::fd::LISTENERS..;
    let listeners = numbers.by_ref().take(usize::from(setup.listeners)).map(adopt);
    let listeners = listeners.collect::<Result<_, _>>()?;
    let admin = numbers.next().filter(|_| setup.admin).map(adopt).transpose()?;
    // The kernel would show the number of the descriptor; only looks suffer when it fails.
    nix::sys::prctl::set_name(c"anyworker").ok();
    Ok(Inherited {
        control,
        setup,
        listeners,
        admin,
    })
}

/// Whether a descriptor stays open at exec.
///
/// # Errors
/// When it is not open.
pub(crate) fn keep_at_exec(number: RawFd, keep: bool) -> io::Result<()> {
    // SAFETY: lent for one call; a number that is not open is answered with EBADF.
    let lent = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = if keep { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
    fcntl(lent, FcntlArg::F_SETFD(flags))?;
    Ok(())
}

/// A descriptor that turned out not to be ours stays open: someone else may hold it.
fn disown(fd: OwnedFd) -> InheritError {
    let _number = fd.into_raw_fd();
    InheritError::NotAWorker
}

/// An inherited descriptor, from now on closed at exec.
fn adopt(number: RawFd) -> Result<OwnedFd, InheritError> {
    // SAFETY: lent for one query; a number that is not open is answered with EBADF.
    let lent = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(lent, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|_| InheritError::NotAWorker)?;
    // SAFETY: open (just asked), and `inherited` runs once per process, before anything else
    // could have opened a descriptor at this number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
