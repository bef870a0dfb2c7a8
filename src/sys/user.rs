//! The user that the workers run as.

use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};
use serde::{Deserialize, Serialize};
use std::ffi::CString;

/// The identity of the workers, resolved once per generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Numbers", into = "Numbers")]
pub(crate) struct Identity {
    /// User id.
    pub(crate) uid: Uid,
    /// Primary group.
    pub(crate) gid: Gid,
    /// All groups.
    pub(crate) groups: Vec<Gid>,
}

/// An identity as it is handed to the next supervisor process: user, group, all groups.
#[derive(Serialize, Deserialize)]
struct Numbers(u32, u32, Vec<u32>);

impl From<Numbers> for Identity {
    fn from(Numbers(uid, gid, groups): Numbers) -> Self {
        Self {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            groups: groups.into_iter().map(Gid::from_raw).collect(),
        }
    }
}

impl From<Identity> for Numbers {
    fn from(Identity { uid, gid, groups }: Identity) -> Self {
        let groups = groups.into_iter().map(Gid::as_raw).collect();
        Self(uid.as_raw(), gid.as_raw(), groups)
    }
}

/// Why `[workers] user` cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    /// The user database could not be read.
    #[error("workers.user: looking up `{0}`: {1}")]
    Lookup(String, nix::Error),
    /// Only root may become someone else.
    #[error("workers.user: only root can start workers as `{0}`; remove the key, or run this as root or as `{0}`")]
    NotRoot(String),
    /// No user of this name.
    #[error("workers.user: there is no user `{0}`; create it with: useradd --system --no-create-home {0}")]
    Unknown(String),
}

/// The identity behind a user name; `None` when nothing has to change.
///
/// # Errors
/// When there is no such user, or this process may not become it.
pub(crate) fn resolve(name: Option<&str>) -> Result<Option<Identity>, UserError> {
    let Some(name) = name else { return Ok(None) };
    let user = User::from_name(name)
        .map_err(|error| UserError::Lookup(name.to_owned(), error))?
        .ok_or_else(|| UserError::Unknown(name.to_owned()))?;
    if user.uid == geteuid() {
        return Ok(None);
    }
    if !geteuid().is_root() {
        return Err(UserError::NotRoot(name.to_owned()));
    }
    let c_name = CString::new(name).map_err(|_| UserError::Unknown(name.to_owned()))?;
    let groups = getgrouplist(&c_name, user.gid).map_err(|error| UserError::Lookup(name.to_owned(), error))?;
    Ok(Some(Identity {
        uid: user.uid,
        gid: user.gid,
        groups,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_changes_without_a_name_or_for_oneself() {
        assert_eq!(resolve(None).unwrap(), None);
        let own = User::from_uid(geteuid()).unwrap().unwrap().name;
        assert_eq!(resolve(Some(&own)).unwrap(), None);
    }

    #[test]
    fn an_unknown_user_is_named() {
        let error = resolve(Some("no-such-user-here")).unwrap_err();
        assert!(
            error.to_string().starts_with("workers.user: there is no user"),
            "{error}"
        );
    }
}
