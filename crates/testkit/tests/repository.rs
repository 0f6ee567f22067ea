//! The repository's own rules, checked with every test run: what the architecture page says has to be true of the tree.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn crates() -> BTreeSet<String> {
    let entries = fs::read_dir(root().join("crates")).unwrap();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn the_architecture_page_names_every_crate_and_its_invariant() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for name in crates() {
        assert!(page.contains(&format!("| `crates/{name}` |")), "ARCHITECTURE.md: the code map lacks {name}");
        assert!(page.contains(&format!("- `{name}` Invariant:")), "ARCHITECTURE.md: no invariant for {name}");
    }
}

#[test]
fn every_path_the_pages_name_exists() {
    for page in ["ARCHITECTURE.md", "README.md", "CHANGELOG.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap_or_else(|err| panic!("{page}: {err}"));
        let paths = text.split('`').skip(1).step_by(2).filter(|word| {
            ["crates/", "scripts/", "tools/", "docs/"].iter().any(|p| word.starts_with(p)) && !word.contains([' ', '*', '{'])
        });
        for path in paths {
            assert!(root().join(path).exists(), "{page} names {path}, which does not exist");
        }
    }
}

#[test]
fn only_sys_may_use_unsafe_code() {
    for name in crates().iter().filter(|name| *name != "sys") {
        let sources = root().join("crates").join(name).join("src");
        let entrance = ["lib.rs", "main.rs"].iter().map(|f| sources.join(f)).find(|f| f.exists()).unwrap();
        let text = fs::read_to_string(&entrance).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{} does not forbid unsafe code", entrance.display());
    }
}

#[test]
fn a_crate_imports_only_lower_floors() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let floor = |name: &str| -> Option<u32> {
        let row = page.lines().find(|line| line.contains(&format!("| `crates/{name}` |")))?;
        row.split('|').nth(1)?.trim().parse().ok()
    };
    for name in crates() {
        let manifest = fs::read_to_string(root().join("crates").join(&name).join("Cargo.toml")).unwrap();
        let normal = manifest.split("[dependencies]").nth(1).unwrap_or_default().split("\n[").next().unwrap_or_default();
        let imports = normal.lines().filter_map(|line| line.strip_prefix("corten-")?.split(['.', ' ']).next());
        for import in imports {
            if let (Some(own), Some(theirs)) = (floor(&name), floor(import)) {
                assert!(theirs < own, "{name} (floor {own}) imports {import} (floor {theirs})");
            }
        }
    }
}

#[test]
fn the_replay_does_not_take_another_server_for_its_own() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("oracle.py"), "").unwrap();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port().to_string();
    let mut replay = std::process::Command::new(root().join("scripts/oracle"));
    let replay = replay.env("CORTEN_ORACLE", directory.path()).env("CORTEN_ORACLE_PORT", &port).env("CORTEN_BINARY", "true");
    let outcome = replay.output().unwrap();
    let said = String::from_utf8(outcome.stderr).unwrap();
    assert!(!outcome.status.success() && said.contains(&format!("port {port} is held by another server")), "{said}");
}
