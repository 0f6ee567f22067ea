//! Users and groups of an image: what a name or number in a pod or image comes to, by the image's own `/etc/passwd` and
//! `/etc/group`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Largest passwd or group file read, in bytes.
const MOST: u64 = 4 << 20;

/// The two files, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    passwd: String,
    group: String,
}

/// Whom a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Groups of the image that the user is a member of.
    pub groups: Vec<u32>,
    /// Home directory, `/` when unknown.
    pub home: String,
}

impl Users {
    /// From the two files.
    #[must_use]
    pub fn new(passwd: &str, group: &str) -> Self {
        Self { passwd: passwd.to_owned(), group: group.to_owned() }
    }

    /// From an image's layers, topmost first, as a container would see them.
    ///
    /// # Errors
    /// When the layers cannot be mounted.
    pub fn of_layers(layers: &[impl AsRef<Path>]) -> io::Result<Self> {
        let root: OwnedFd = match layers {
            [] => return Ok(Self::default()),
            [layer] => File::open(layer)?.into(),
            layers => {
                let paths: Vec<&Path> = layers.iter().map(AsRef::as_ref).collect();
                corten_sys::mount::overlay(&paths, None, &[])?
            }
        };
        let read = |path: &str| {
            let how = OpenHow::new()
                .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
                .resolve(ResolveFlag::RESOLVE_IN_ROOT);
            let mut text = String::new();
            // An image without the file has no users; one with a broken file as good as none.
            if let Ok(file) = openat2(&root, path, how) {
                let _ = File::from(file).take(MOST).read_to_string(&mut text);
            }
            text
        };
        Ok(Self { passwd: read("etc/passwd"), group: read("etc/group") })
    }

    /// Resolves `user` (`uid`, `name`, each with an optional `:gid` or `:group`), as an image's configuration has it.
    ///
    /// # Errors
    /// In the words that other runtimes use.
    pub fn resolve(&self, user: &str) -> Result<Identity, String> {
        let (user, group) = match user.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
            None => (user, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        let entry = self.passwd().find(|entry| entry.name == user || (user.parse() == Ok(entry.uid)));
        let (uid, mut gid, home, name) = match (&entry, user.parse::<u32>()) {
            (Some(entry), _) => (entry.uid, entry.gid, entry.home, entry.name),
            (None, Ok(uid)) => (uid, 0, "/", ""),
            (None, Err(_)) => return Err(format!("unable to find user {user}: no matching entries in passwd file")),
        };
        if let Some(group) = group {
            let found = self.groups().find(|entry| entry.name == group || group.parse() == Ok(entry.gid));
            gid = match (found, group.parse::<u32>()) {
                (Some(entry), _) => entry.gid,
                (None, Ok(gid)) => gid,
                (None, Err(_)) => return Err(format!("unable to find group {group}: no matching entries in group file")),
            };
        }
        let member = |entry: &Group<'_>| !name.is_empty() && entry.members.split(',').any(|member| member.trim() == name);
        let groups: BTreeSet<u32> = self.groups().filter(member).map(|entry| entry.gid).collect();
        let home = if home.is_empty() { "/" } else { home };
        Ok(Identity { uid, gid, groups: groups.into_iter().collect(), home: home.to_owned() })
    }

    fn passwd(&self) -> impl Iterator<Item = User<'_>> {
        self.passwd.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let (uid, gid) = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
            Some(User { name: fields[0], uid, gid, home: fields.get(5).copied().unwrap_or("/") })
        })
    }

    fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.group.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let gid = fields.get(2)?.parse().ok()?;
            Some(Group { name: fields[0], gid, members: fields.get(3).copied().unwrap_or("") })
        })
    }
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn users_are_resolved_by_the_image() {
        check("",            Ok((0, 0, &[4], "/root")));
        check("root",        Ok((0, 0, &[4], "/root")));
        check("www",         Ok((33, 34, &[44, 50], "/var/www")));
        check("33",          Ok((33, 34, &[44, 50], "/var/www")));
        check("www:video",   Ok((33, 44, &[44, 50], "/var/www")));
        check("www:7",       Ok((33, 7, &[44, 50], "/var/www")));
        check("1000",        Ok((1000, 0, &[], "/")));
        check("1000:video",  Ok((1000, 44, &[], "/")));
        check("nobody",      Err("unable to find user nobody: no matching entries in passwd file"));
        check("0:nogroup",   Err("unable to find group nogroup: no matching entries in group file"));
        #[track_caller]
        fn check(user: &str, expected: Result<(u32, u32, &[u32], &str), &str>) {
            let users = Users::new(
                "root:x:0:0:root:/root:/bin/sh\nbroken\nwww:x:33:34:w:/var/www:/bin/false\n",
                "root:x:0:\nadm:x:4:root\nvideo:x:44:www\nstaff:x:50:x,www\n",
            );
            let expected = expected.map(|(uid, gid, groups, home)| Identity { uid, gid, groups: groups.to_vec(), home: home.to_owned() });
            assert_eq!(users.resolve(user), expected.map_err(str::to_owned));
        }
    }
}
