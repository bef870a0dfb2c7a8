//! Which authorities may vouch for a Redis with TLS.

use crate::options::{Endpoint, RedisOptions};
use redis::{Client, ConnectionInfo, TlsCertificates};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Begins a certificate in PEM (RFC 7468).
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// Has a connection with TLS trust the authorities that are configured.
///
/// # Errors
/// Names the file that cannot be read, or says that there is no certificate.
pub(super) fn trusting(info: ConnectionInfo, options: &RedisOptions) -> Result<ConnectionInfo, String> {
    if !matches!(options.endpoint, Endpoint::Tls { .. }) {
        return Ok(info);
    }
    let Some(certificates) = certificates(options.ca_file.as_deref(), |name| std::env::var_os(name))? else {
        return Ok(info);
    };
    let certificates = TlsCertificates {
        client_tls: None,
        root_cert: Some(certificates),
    };
    let client = Client::build_with_tls(info, certificates).map_err(|error| error.to_string())?;
    Ok(client.get_connection_info().clone())
}

/// Returns the certificates (PEM) of `ca_file`, or else those that the environment names as it does for OpenSSL, instead of the
/// public ones. `None`: the public ones.
///
/// # Errors
/// Names the file that cannot be read, or says that there is no certificate.
fn certificates(
    ca_file: Option<&Path>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<Vec<u8>>, String> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    let files = match (ca_file, set("SSL_CERT_FILE"), set("SSL_CERT_DIR")) {
        (Some(file), ..) => vec![file.to_owned()],
        (None, None, None) => return Ok(None),
        (None, file, directories) => {
            let directories = directories.iter().flat_map(std::env::split_paths);
            let mut files: Vec<PathBuf> = file.map(PathBuf::from).into_iter().collect();
            for directory in directories {
                files.extend(files_in(&directory)?);
            }
            files
        }
    };
    let mut all = String::new();
    for file in &files {
        let bytes = std::fs::read(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
        all.push_str(&String::from_utf8_lossy(&bytes));
        all.push('\n');
    }
    if !all.contains(CERTIFICATE) {
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        let names = names.join(", ");
        return Err(format!(
            "no certificate (PEM) in {names}; correct redis.ca_file, SSL_CERT_FILE or SSL_CERT_DIR"
        ));
    }
    Ok(Some(all.into_bytes()))
}

fn files_in(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |error: std::io::Error| format!("{} cannot be read: {error}", directory.display());
    let entries = std::fs::read_dir(directory).map_err(unreadable)?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let paths: Result<Vec<PathBuf>, _> = paths.collect();
    let mut paths = paths.map_err(unreadable)?;
    paths.retain(|path| path.is_file());
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_source_counts() {
        let place = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = place.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, format!("{CERTIFICATE}{text}")).unwrap();
            path
        };
        let (ca, file) = (write("ca.pem", "ca"), write("file.pem", "file"));
        let (one, two) = (write("one/a", "one"), write("two/b", "two"));
        let both = std::env::join_paths([one.parent().unwrap(), two.parent().unwrap()]).unwrap();
        let nothing = || place.path().join("nothing").into_os_string();
        let file = || file.clone().into_os_string();
        for (ca_file, env_file, env_dir, expect) in [
            (None, None, None, Some(vec![])),
            (None, Some(OsString::new()), Some(OsString::new()), Some(vec![])),
            (Some(&*ca), Some(file()), Some(both.clone()), Some(vec!["ca"])),
            (None, Some(file()), None, Some(vec!["file"])),
            (None, None, Some(both.clone()), Some(vec!["one", "two"])),
            (None, Some(file()), Some(both.clone()), Some(vec!["file", "one", "two"])),
            (None, Some(nothing()), None, None),
            (None, None, Some(nothing()), None),
            (Some(Path::new("/dev/null")), None, None, None),
        ] {
            let variable = |name: &str| {
                if name == "SSL_CERT_FILE" {
                    env_file.clone()
                } else {
                    env_dir.clone()
                }
            };
            let found = certificates(ca_file, variable).ok().map(|found| {
                let text = String::from_utf8(found.unwrap_or_default()).unwrap();
                let texts = text.lines().filter_map(|line| line.strip_prefix(CERTIFICATE));
                texts
                    .filter(|text| !text.is_empty())
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            });
            let expect = expect.map(|texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect());
            assert_eq!(found, expect, "{ca_file:?} {env_file:?} {env_dir:?}");
        }
    }
}
