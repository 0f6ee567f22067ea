//! What a container said when it ended: its termination message file, or the tail of its log.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

use corten_runtime::Container;

use crate::pod::PodExt;

const MAX_MESSAGE: u64 = 4096;
const MAX_LOG: usize = 2048;
const MAX_LOG_LINES: usize = 80;

/// The message of an exited container; empty when there is none.
pub fn message(pod: &Pod, container: &Container) -> String {
    let Some((_, spec)) = pod.container(&container.name) else { return String::new() };
    let target = spec.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    let mount = container.mounts.iter().find(|mount| mount.container_path == Path::new("/").join(target));
    let text = mount.map(|mount| read(&mount.host_path)).unwrap_or_default();
    let from_log = spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    if text.is_empty() && from_log && container.exit_code != 0 {
        return log_tail(&container.log_path);
    }
    text
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    // The container can make anything of its file; only a plain one is read, and only so much.
    if !std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file()) {
        return String::new();
    }
    match std::fs::File::open(path).and_then(|file| file.take(MAX_MESSAGE).read_to_end(&mut bytes)) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(err) => format!("Error on reading termination log {}: {err}", path.display()),
    }
}

fn log_tail(path: &Path) -> String {
    // A line has its time and stream in front, so that more is read than is kept.
    const READ: u64 = 16 << 10;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|mut file| {
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(end.saturating_sub(READ)))?;
        file.read_to_end(&mut bytes)
    });
    if read.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let mut out = String::new();
    let lines: Vec<&str> = text.lines().collect();
    for line in lines.iter().skip(lines.len().saturating_sub(MAX_LOG_LINES)) {
        let mut fields = line.splitn(4, ' ');
        let (tag, content) = (fields.nth(2), fields.next());
        if let (Some(tag), Some(content)) = (tag, content) {
            out.push_str(content);
            if tag == "F" {
                out.push('\n');
            }
        }
    }
    let start = out.len().saturating_sub(MAX_LOG);
    let start = (start..=out.len()).find(|at| out.is_char_boundary(*at)).unwrap_or(0);
    out.split_off(start)
}

#[cfg(test)]
mod tests {
    use corten_runtime::{ContainerState, Mount};

    use super::*;
    use crate::test::{container, pod};

    #[test]
    fn the_file_comes_before_the_log() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, log) = (dir.path().join("message"), dir.path().join("log"));
        std::fs::write(
            &log,
            "2026-01-01T00:00:00Z stdout P par\n2026-01-01T00:00:00Z stdout F tial\n2026-01-01T00:00:00Z stderr F bad\n",
        )
        .expect("writable");
        std::fs::write(&file, "").expect("writable");
        let pod = pod("{containers: [{name: a, terminationMessagePath: /t, terminationMessagePolicy: FallbackToLogsOnError}]}");
        let mut ended = container("a", 0, ContainerState::Exited);
        ended.log_path = log;
        ended.mounts = vec![Mount { host_path: file.clone(), container_path: "/t".into(), ..Mount::default() }];
        assert_eq!(message(&pod, &ended), "");
        ended.exit_code = 1;
        assert_eq!(message(&pod, &ended), "partial\nbad\n");
        std::fs::write(&file, "the reason").expect("writable");
        assert_eq!(message(&pod, &ended), "the reason");
    }
}
