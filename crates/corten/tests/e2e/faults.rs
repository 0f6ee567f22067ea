//! Bad input to the binary itself: one clear message that says what to do, a failure, and everything as it was.

use std::fs;
use std::process::Command;

use crate::Test;
use crate::cluster::{CORTEN, Cluster};

/// Name and function of each test.
pub const TESTS: &[(&str, Test)] = &[
    ("faults::a_second_cluster_on_the_same_data_is_refused", a_second_cluster_on_the_same_data_is_refused),
    ("faults::a_port_in_use_is_named", a_port_in_use_is_named),
    ("faults::a_newer_data_directory_is_left_alone", a_newer_data_directory_is_left_alone),
    ("faults::not_root", not_root),
    ("faults::flags", flags),
    ("faults::images", images),
];

/// Runs the binary inside the cluster's namespaces, expects it to fail, and returns what it said.
#[track_caller]
fn refused(cluster: &Cluster, args: &[&str]) -> String {
    match cluster.succeed(CORTEN, args) {
        Ok(_) => panic!("corten {} succeeded", args.join(" ")),
        Err(said) => said,
    }
}

fn a_second_cluster_on_the_same_data_is_refused(cluster: &Cluster, _: &str) {
    let data = cluster.data().to_str().unwrap();
    let said = refused(cluster, &["up", "--data-dir", data, "--secure-port", "7443", "--node-ip", "192.168.77.1"]);
    assert!(said.contains("in use by another process"), "{said}");
}

fn a_port_in_use_is_named(cluster: &Cluster, _: &str) {
    let data = cluster.scratch().join("port-in-use");
    let said = refused(cluster, &["up", "--data-dir", data.to_str().unwrap(), "--node-ip", "192.168.77.1"]);
    assert!(said.contains("6443") && said.contains("in use"), "{said}");
}

fn a_newer_data_directory_is_left_alone(cluster: &Cluster, _: &str) {
    let data = cluster.scratch().join("newer");
    let store = data.join("store");
    fs::create_dir_all(&store).unwrap();
    let database = store.join("store.db");
    let made = Command::new("python3")
        .args(["-c", "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('pragma user_version = 999')"])
        .arg(&database)
        .status()
        .unwrap();
    assert!(made.success());
    let before = fs::read(&database).unwrap();
    let said =
        refused(cluster, &["up", "--data-dir", data.to_str().unwrap(), "--secure-port", "7443", "--node-ip", "192.168.77.1"]);
    assert!(said.contains("999") && said.contains("newer"), "{said}");
    assert_eq!(fs::read(&database).unwrap(), before);
}

fn not_root(cluster: &Cluster, _: &str) {
    let output = cluster
        .command("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", CORTEN, "up", "--data-dir", "/tmp/never"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("root"), "{said}");
}

fn flags(cluster: &Cluster, _: &str) {
    assert!(refused(cluster, &["up", "--no-such-flag"]).contains("--no-such-flag"));
    assert!(refused(cluster, &["apiserver", "--no-such-flag"]).contains("--no-such-flag"));
    assert!(refused(cluster, &["up", "--pod-cidr", "nonsense"]).contains("nonsense"));
    assert!(refused(cluster, &["apiserver", "--secure-port", "many"]).contains("--secure-port"));
    assert!(refused(cluster, &["scheduler"]).contains("--kubeconfig"));
}

fn images(cluster: &Cluster, _: &str) {
    let data = cluster.data().to_str().unwrap();
    let image = |args: &[&str]| refused(cluster, &[&["image", "--data-dir", data], args].concat());
    let file = cluster.scratch().join("no-image.tar");
    fs::write(&file, "this is no archive").unwrap();
    let said = image(&["import", file.to_str().unwrap()]);
    assert!(said.contains("no-image.tar"), "{said}");
    assert!(image(&["import", "/absent.tar"]).contains("/absent.tar"));
    assert!(image(&["pull", "localhost:1/none:1"]).contains("localhost:1/none:1"));
    assert!(image(&["rm", "localhost/never:1"]).contains("not found"));
    let listed = cluster.succeed(CORTEN, &["image", "--data-dir", data, "ls"]).unwrap();
    assert!(listed.contains("localhost/hello") && listed.contains("localhost/busybox"), "{listed}");
}
