//! What other crates may be: `deny.toml`, and no newer compiler than ours.

use crate::{complain, root};
use serde_json::Value;
use spdx::{Expression, ParseMode};
use std::process::Command;

/// All packages that are built on this machine, as cargo knows them.
fn packages() -> Vec<Value> {
    let cargo = env!("CARGO");
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--offline",
            "--filter-platform",
        ])
        .arg(host())
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let is_built = |package: &Value| nodes.iter().any(|node| node["id"] == package["id"]);
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages.filter(|package| is_built(package)).cloned().collect()
}

/// The target that this test was built for.
fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("a host").to_owned()
}

fn texts(table: &toml::Value, key: &str) -> Vec<String> {
    let list = table[key].as_array().unwrap().iter();
    let text = |value: &toml::Value| {
        let value = value.get("crate").unwrap_or(value);
        value.as_str().unwrap().to_owned()
    };
    list.map(text).collect()
}

#[test]
fn dependencies_are_allowed() {
    let rules: toml::Table = std::fs::read_to_string(root().join("deny.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let licenses: Vec<Expression> = texts(&rules["licenses"], "allow")
        .iter()
        .map(|text| Expression::parse(text).unwrap())
        .collect();
    let allowed: Vec<_> = licenses
        .iter()
        .flat_map(Expression::requirements)
        .map(|one| &one.req)
        .collect();
    let banned = texts(&rules["bans"], "deny");
    let sources = texts(&rules["sources"], "allow-registry");
    let mut complaints = String::new();
    let packages = packages();
    assert!(packages.len() > 100, "{} packages", packages.len());
    for package in &packages {
        let name = package["name"].as_str().unwrap();
        let license = package["license"].as_str().unwrap_or_default();
        let is_allowed = Expression::parse_mode(license, ParseMode::LAX)
            .is_ok_and(|expression| expression.evaluate(|wanted| allowed.contains(&wanted)));
        if !is_allowed {
            complain(
                &mut complaints,
                name,
                &format!("the license `{license}` is not in deny.toml"),
            );
        }
        if banned.iter().any(|banned| banned == name) {
            complain(&mut complaints, name, "is banned by deny.toml");
        }
        // Crates of this workspace have no source.
        if let Some(source) = package["source"].as_str()
            && !sources.iter().any(|known| source == format!("registry+{known}"))
        {
            complain(&mut complaints, name, &format!("comes from {source}"));
        }
    }
    assert!(complaints.is_empty(), "\n{complaints}");
}

/// `rust-version` promises that our own code, and all of others', compiles with it. Clippy looks after ours.
#[test]
fn dependencies_need_no_newer_compiler() {
    let manifest: toml::Table = std::fs::read_to_string(root().join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let ours = version(manifest["workspace"]["package"]["rust-version"].as_str().unwrap());
    let mut complaints = String::new();
    for package in &packages() {
        if let Some(needed) = package["rust_version"].as_str()
            && version(needed) > ours
        {
            complain(
                &mut complaints,
                package["name"].as_str().unwrap(),
                &format!("needs Rust {needed}"),
            );
        }
    }
    assert!(complaints.is_empty(), "\n{complaints}");
}

fn version(text: &str) -> Vec<u64> {
    text.split('.').map(|part| part.parse().unwrap()).collect()
}
