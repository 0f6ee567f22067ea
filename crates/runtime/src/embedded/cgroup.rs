//! Control groups of containers, version 1 and 2. What to write is decided by pure functions ([`v1`], [`v2`]); this
//! file finds the hierarchy, writes, reads and kills. The root is a parameter, so that tests use a tree of plain files.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use corten_sys::devices::Rule;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cri::{ContainerStats, Resources};

pub mod v1;
pub mod v2;

/// One value to write: controller (a directory on version 1), file and text.
pub type Setting = (&'static str, String, String);

/// Where the control groups of this machine are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cgroups {
    /// One tree per controller: controller names of a tree and its directory.
    V1(Vec<(String, PathBuf)>),
    /// One tree.
    V2(PathBuf),
}

impl Cgroups {
    /// Finds the hierarchy below `root`, which is `/sys/fs/cgroup` on every machine of today.
    ///
    /// # Errors
    /// When `root` cannot be read or holds no hierarchy.
    pub fn detect(root: &Path) -> io::Result<Self> {
        if root.join("cgroup.controllers").exists() {
            return Ok(Self::V2(root.to_owned()));
        }
        let mut trees = Vec::new();
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Links such as `cpu -> cpu,cpuacct` name a tree a second time; `unified` is version 2 without controllers.
            let real = entry.file_type()?.is_dir() && name != "unified" && entry.path().join("cgroup.procs").exists();
            if real {
                trees.push((name, entry.path()));
            }
        }
        if trees.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no control groups below {}", root.display())));
        }
        trees.sort();
        Ok(Self::V1(trees))
    }

    /// Whether it is version 2.
    #[must_use]
    pub fn unified(&self) -> bool {
        matches!(self, Self::V2(_))
    }

    /// The directories that make up the group `path`, with the controller's name (empty on version 2).
    #[must_use]
    pub fn directories(&self, path: &str) -> Vec<(String, PathBuf)> {
        let path = path.trim_start_matches('/');
        match self {
            Self::V1(trees) => trees.iter().map(|(name, tree)| (name.clone(), tree.join(path))).collect(),
            Self::V2(root) => vec![(String::new(), root.join(path))],
        }
    }

    /// Makes the group and its parents where absent, ready to take processes.
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub fn create(&self, path: &str) -> io::Result<()> {
        match self {
            Self::V1(trees) => trees.iter().try_for_each(|(name, tree)| v1::create(name, tree, path)),
            Self::V2(root) => v2::create(root, path),
        }
    }

    /// Writes limits. Unset ones are left as they are.
    ///
    /// # Errors
    /// With the file that refused.
    pub fn apply(&self, path: &str, resources: &Resources) -> io::Result<()> {
        match self {
            Self::V1(_) => self.write(path, &v1::settings(resources)),
            Self::V2(_) => self.write(path, &v2::settings(resources)),
        }
    }

    /// Allows the group the devices of `rules` only.
    ///
    /// # Errors
    /// With the file or system call that refused.
    pub fn restrict_devices(&self, path: &str, rules: &[Rule]) -> io::Result<()> {
        match self {
            Self::V1(_) => self.write(path, &v1::devices(rules)),
            Self::V2(root) => {
                let directory = fs::File::open(root.join(path.trim_start_matches('/')))?;
                corten_sys::devices::restrict(directory.as_fd(), rules)
            }
        }
    }

    /// Moves a process into the group.
    ///
    /// # Errors
    /// With the file that refused.
    pub fn join(&self, path: &str, pid: i32) -> io::Result<()> {
        for (_, directory) in self.directories(path) {
            put(&directory.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Processes in the group itself and in groups below it.
    #[must_use]
    pub fn pids(&self, path: &str) -> Vec<i32> {
        fn collect(directory: &Path, pids: &mut Vec<i32>) {
            let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    collect(&entry.path(), pids);
                }
            }
        }
        let mut pids = Vec::new();
        if let Some(directory) = self.main_directory(path) {
            collect(&directory, &mut pids);
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Kills every process of the group, also those that fork at the same time.
    pub fn kill(&self, path: &str) {
        match self {
            Self::V2(root) => {
                let directory = root.join(path.trim_start_matches('/'));
                if put(&directory.join("cgroup.kill"), "1").is_err() {
                    self.kill_each(path);
                }
            }
            Self::V1(trees) => {
                // Frozen processes cannot fork away from the list; the signal acts when they thaw.
                let freezer = trees.iter().find(|(name, _)| name.split(',').any(|part| part == "freezer"));
                let state = freezer.map(|(_, tree)| tree.join(path.trim_start_matches('/')).join("freezer.state"));
                if let Some(state) = &state {
                    let _ = put(state, "FROZEN");
                }
                self.kill_each(path);
                if let Some(state) = &state {
                    let _ = put(state, "THAWED");
                }
            }
        }
    }

    /// Kills every process of the group and waits for their ends, so that the group can be removed. A process in an
    /// uninterruptible call is given up on after some seconds.
    pub fn kill_and_wait(&self, path: &str) {
        const ROUNDS: usize = 3;
        for _ in 0..ROUNDS {
            let pids = self.pids(path);
            if pids.is_empty() {
                return;
            }
            self.kill(path);
            let _ = corten_sys::process::wait_for_end(&pids, Duration::from_secs(5));
        }
    }

    fn kill_each(&self, path: &str) {
        for pid in self.pids(path) {
            // A process that ended meanwhile is what we want.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// Removes the group and what is below it. Processes must be gone. Absent is fine.
    ///
    /// # Errors
    /// With the directory that refused.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        fn remove(directory: &Path) -> io::Result<()> {
            let entries = match fs::read_dir(directory) {
                Ok(entries) => entries,
                Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(err) => return Err(at(directory, err)),
            };
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    remove(&entry.path())?;
                }
            }
            match fs::remove_dir(directory) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => Err(at(directory, err)),
                _ => Ok(()),
            }
        }
        // Every tree is tried, so that one that refuses does not keep the others.
        let results: Vec<_> = self.directories(path).iter().map(|(_, directory)| remove(directory)).collect();
        results.into_iter().collect()
    }

    /// How many processes of the group the kernel has killed for want of memory.
    #[must_use]
    pub fn oom_kills(&self, path: &str) -> u64 {
        let file = match self {
            Self::V1(_) => self.controller(path, "memory").map(|directory| directory.join("memory.oom_control")),
            Self::V2(root) => Some(root.join(path.trim_start_matches('/')).join("memory.events")),
        };
        let text = file.and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        flat(&text, "oom_kill").unwrap_or(0)
    }

    /// Usage of the group. Values that cannot be read are 0.
    #[must_use]
    pub fn stats(&self, path: &str) -> ContainerStats {
        match self {
            Self::V1(_) => v1::stats(|controller, file| {
                let directory = self.controller(path, controller)?;
                fs::read_to_string(directory.join(file)).ok()
            }),
            Self::V2(root) => {
                let directory = root.join(path.trim_start_matches('/'));
                v2::stats(|file| fs::read_to_string(directory.join(file)).ok())
            }
        }
    }

    fn write(&self, path: &str, settings: &[Setting]) -> io::Result<()> {
        for (controller, file, value) in settings {
            let Some(directory) = self.controller(path, controller) else { continue };
            let file = directory.join(file);
            // Swap accounting and huge pages are compiled out or switched off on many machines.
            let optional = ["swap", "memsw", "hugetlb"].iter().any(|word| file.to_string_lossy().contains(word));
            match put(&file, value) {
                Err(_) if optional => {}
                result => result?,
            }
        }
        Ok(())
    }

    fn controller(&self, path: &str, controller: &str) -> Option<PathBuf> {
        let path = path.trim_start_matches('/');
        match self {
            Self::V2(root) => Some(root.join(path)),
            Self::V1(trees) => {
                let tree = trees.iter().find(|(name, _)| name.split(',').any(|part| part == controller));
                tree.map(|(_, tree)| tree.join(path))
            }
        }
    }

    fn main_directory(&self, path: &str) -> Option<PathBuf> {
        ["pids", "memory", "cpu"].iter().find_map(|controller| self.controller(path, controller))
    }
}

/// The value of `key` in a file of `key value` lines.
#[must_use]
pub fn flat(text: &str, key: &str) -> Option<u64> {
    text.lines().filter_map(|line| line.split_once(' ')).find(|(name, _)| *name == key)?.1.trim().parse().ok()
}

fn put(file: &Path, value: &str) -> io::Result<()> {
    fs::write(file, value).map_err(|err| at(file, err))
}

fn at(path: &Path, err: io::Error) -> io::Error {
    io::Error::new(err.kind(), format!("{}: {err}", path.display()))
}

#[cfg(test)]
mod tests;
