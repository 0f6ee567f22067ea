//! The last step into a container: find the program and become it, or say in the words users know why not.

use std::ffi::CString;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;

use crate::embedded::record::ProcessRecord;

/// Where programs are looked for when the container's environment does not say.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs `process`; when that fails, the reason goes to `errors`, which closes by itself on success.
#[derive(Clone)]
pub struct Launcher {
    pub process: Rc<ProcessRecord>,
    pub errors: Rc<OwnedFd>,
}

impl Launcher {
    /// Becomes the program. Returns only when it could not.
    pub fn launch(&self) {
        let _ = nix::unistd::write(&*self.errors, launch(&self.process).as_bytes());
    }
}

fn launch(process: &ProcessRecord) -> String {
    if let Err(err) = corten_sys::process::reset_signals() {
        return format!("reset signals: {err}");
    }
    let name = process.args.first().map(String::as_str).unwrap_or_default();
    let path = process.env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let program = match find(name, path) {
        Ok(program) => program,
        Err(reason) => return reason,
    };
    let cstrings =
        |texts: &[String]| -> Option<Vec<CString>> { texts.iter().map(|text| CString::new(text.as_str()).ok()).collect() };
    let (Ok(path), Some(args), Some(env)) =
        (CString::new(program.into_os_string().into_encoded_bytes()), cstrings(&process.args), cstrings(&process.env))
    else {
        return format!("exec: {name:?}: NUL in an argument");
    };
    match nix::unistd::execve(&path, &args, &env) {
        Ok(never) => match never {},
        Err(Errno::ENOEXEC) => format!("exec {:?}: exec format error", path.to_string_lossy()),
        Err(errno) => format!("exec {:?}: {}", path.to_string_lossy(), words(errno)),
    }
}

/// The program `name` stands for, as `execvp` would find it. Errors in the words of Go's `os/exec`, which users of
/// other runtimes know.
pub fn find(name: &str, path: &str) -> Result<PathBuf, String> {
    if name.is_empty() {
        return Err("exec: no command".to_owned());
    }
    if name.contains('/') {
        return match usable(Path::new(name)) {
            Ok(()) => Ok(PathBuf::from(name)),
            Err(Errno::ENOENT) => Err(format!("exec: {name:?}: stat {name}: no such file or directory")),
            Err(errno) => Err(format!("exec: {name:?}: {}", words(errno))),
        };
    }
    let mut refused = None;
    for directory in path.split(':') {
        let candidate = Path::new(if directory.is_empty() { "." } else { directory }).join(name);
        match usable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::EACCES) => refused = Some(Errno::EACCES),
            Err(_) => {}
        }
    }
    match refused {
        Some(errno) => Err(format!("exec: {name:?}: {}", words(errno))),
        None => Err(format!("exec: {name:?}: executable file not found in $PATH")),
    }
}

fn usable(path: &Path) -> Result<(), Errno> {
    let meta = fs::metadata(path).map_err(|err| err.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    match (meta.is_dir(), meta.permissions().mode() & 0o111) {
        (true, _) => Err(Errno::EISDIR),
        (false, 0) => Err(Errno::EACCES),
        _ => Ok(()),
    }
}

fn words(errno: Errno) -> String {
    errno.desc().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_in_known_words() {
        let directory = tempfile::tempdir().unwrap();
        let plain = directory.path().join("plain");
        fs::write(&plain, "").unwrap();
        let path = directory.path().display().to_string();
        assert_eq!(find("sh", "/nowhere:/bin").unwrap(), Path::new("/bin/sh"));
        assert_eq!(find("foo", "/nowhere:/bin").unwrap_err(), "exec: \"foo\": executable file not found in $PATH");
        assert_eq!(find("/foo", "").unwrap_err(), "exec: \"/foo\": stat /foo: no such file or directory");
        assert_eq!(find("plain", &path).unwrap_err(), "exec: \"plain\": permission denied");
        assert_eq!(find("/bin/", "").unwrap_err(), "exec: \"/bin/\": is a directory");
    }
}
