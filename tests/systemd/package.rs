//! The package as `make deb` makes it, of the binary under test: from the same list in `Cargo.toml`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use toml::{Table, Value};

/// Makes `anyworker_VERSION.deb` in a directory. The binary calls itself that, too.
pub(crate) fn build(directory: &Path, version: &str) -> PathBuf {
    let root = directory.join(version);
    let binary = directory.join(format!("anyworker-{version}"));
    fs::write(&binary, binary_of(version)).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    let manual = directory.join("manual");
    let written = Command::new(&binary).arg("manual").arg(&manual).status().unwrap();
    assert!(written.success());
    for (source, to, mode) in assets() {
        let source = match source.strip_prefix("target/manual/") {
            Some(name) => manual.join(name),
            None if source == "target/release/anyworker" => binary.clone(),
            None => repository().join(source),
        };
        let found = matching(&source);
        assert!(!found.is_empty(), "{}: no such file", source.display());
        for file in found {
            let name = file.file_name().unwrap().to_str().unwrap();
            let name = if file == binary { "anyworker" } else { name };
            let to = if to.ends_with('/') {
                format!("{to}{name}")
            } else {
                to.clone()
            };
            copy(&file, &root.join(to), mode);
        }
    }
    let from = |name: &str| repository().join("systemd").join(name);
    for unit in ["anyworker.service", "anyworker.socket"] {
        copy(&from(unit), &root.join("usr/lib/systemd/system").join(unit), 0o644);
    }
    copy(
        &from("anyworker.sysusers"),
        &root.join("usr/lib/sysusers.d/anyworker.conf"),
        0o644,
    );
    let script = fs::read_to_string(from("postinst")).unwrap();
    // What cargo-deb puts there that matters here.
    let script = script.replace("#DEBHELPER#", "systemd-sysusers anyworker.conf");
    let control = format!(
        "Package: anyworker\nVersion: {version}\nArchitecture: all\nMaintainer: tests <root@localhost>\n\
         Description: anyworker under test\n"
    );
    for (name, text, mode) in [
        ("control", control.as_str(), 0o644),
        ("conffiles", "/etc/anyworker/supervisor.toml\n", 0o644),
        ("postinst", script.as_str(), 0o755),
    ] {
        let path = root.join("DEBIAN").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let package = directory.join(format!("anyworker_{version}.deb"));
    let made = Command::new("dpkg-deb")
        .args(["-Znone", "--root-owner-group", "--build"])
        .arg(&root)
        .arg(&package)
        .output();
    let made = made.unwrap();
    assert!(made.status.success(), "{made:?}");
    package
}

/// The binary under test under another version of the same length.
fn binary_of(version: &str) -> Vec<u8> {
    let mut bytes = fs::read(env!("CARGO_BIN_EXE_anyworker")).unwrap();
    let from = boot::VERSION.as_bytes();
    assert_eq!(from.len(), version.len());
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(from.len()).position(|window| window == from) {
        at += found;
        bytes[at..at + from.len()].copy_from_slice(version.as_bytes());
    }
    bytes
}

fn assets() -> Vec<(String, String, u32)> {
    let manifest: Table = fs::read_to_string(repository().join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().unwrap();
    let text = |asset: &Value, at: usize| asset[at].as_str().unwrap().to_owned();
    assets
        .iter()
        .map(|asset| {
            (
                text(asset, 0),
                text(asset, 1),
                u32::from_str_radix(&text(asset, 2), 8).unwrap(),
            )
        })
        .collect()
}

/// The files that a path with at most one `*` in its last part names.
fn matching(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().unwrap().to_str().unwrap();
    let Some((before, after)) = name.split_once('*') else {
        return path.exists().then(|| path.to_owned()).into_iter().collect();
    };
    let files = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let fits = |file: &PathBuf| {
        let name = file.file_name().unwrap().to_str().unwrap();
        name.starts_with(before) && name.ends_with(after)
    };
    files.filter(fits).collect()
}

fn copy(from: &Path, to: &Path, mode: u32) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).unwrap();
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
