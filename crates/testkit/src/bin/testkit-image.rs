//! Packs a test image as a tar file in OCI layout, under a name that no registry is asked for: `testkit-image hello FILE.tar`
//! makes `localhost/hello:1`.
#![forbid(unsafe_code)]

use std::path::Path;

use anyhow::bail;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (image, file) = match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["hello", file] => (corten_testkit::hello_image()?.named("localhost/hello:1"), *file),
        ["busybox", file] => (corten_testkit::busybox_image()?.named("localhost/busybox:1"), *file),
        _ => bail!("usage: testkit-image hello|busybox FILE.tar"),
    };
    image.write_oci(Path::new(file))
}
