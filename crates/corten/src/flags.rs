//! Flags of the single components. A user brings the command lines of kube-apiserver, kube-scheduler and the others: every
//! flag upstream knows is taken. One that has no effect here yet is named in a warning; an unknown one is an error.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, Command};

/// A component's command line.
pub struct Component {
    /// Subcommand, such as `apiserver`.
    pub name: &'static str,
    /// One line for the help.
    pub about: &'static str,
    /// Upstream's flags, one a line; a trailing `?` marks a boolean.
    pub known: &'static str,
    /// The flags that have an effect here, with their help; ours that upstream does not have are only in this list.
    pub effective: &'static [(&'static str, &'static str)],
    /// Flags that need no effect here: what they tune is not there, or is as they ask for anyway.
    pub harmless: &'static [&'static str],
    /// Flags that must not be ignored, as somebody relies on them, with the reason why they are not served.
    pub refused: &'static [(&'static str, &'static str)],
}

/// Flags as given.
#[derive(Debug)]
pub struct Flags {
    values: BTreeMap<String, Vec<String>>,
}

impl Component {
    /// Parses `args` (without the program's name). Prints help and exits when asked to, as clap does.
    pub fn parse(&self, args: impl IntoIterator<Item = OsString>) -> Result<Flags, clap::Error> {
        let known = self.known.lines().map(|line| (line.trim_end_matches('?'), line.ends_with('?')));
        let ours = self.effective.iter().map(|(name, _)| *name).filter(|name| known.clone().all(|(k, _)| k != *name));
        let mut command = Command::new(self.name).about(self.about).no_binary_name(true);
        for (name, boolean) in known.clone().chain(ours.map(|name| (name, false))) {
            let help = self.effective.iter().find(|(n, _)| *n == name).map(|(_, help)| *help);
            let mut arg = Arg::new(name).long(name).action(ArgAction::Append).allow_hyphen_values(true);
            arg = match help {
                Some(help) => arg.help(help),
                None => arg.hide(true),
            };
            if boolean {
                arg = arg.num_args(0..=1).require_equals(true).default_missing_value("true");
            }
            command = command.arg(arg);
        }
        let matches = command.try_get_matches_from(args)?;
        let mut values = BTreeMap::new();
        for (name, _) in known.chain(self.effective.iter().map(|(name, _)| (*name, false))) {
            if let Some(given) = matches.get_many::<String>(name) {
                values.insert(name.to_owned(), given.cloned().collect());
            }
        }
        Ok(Flags { values })
    }

    /// The names of flags that were given and do nothing here yet.
    pub fn without_effect<'a>(&self, flags: &'a Flags) -> Vec<&'a str> {
        let idle = |name: &&str| self.effective.iter().all(|(n, _)| n != name) && !self.harmless.contains(name);
        flags.values.keys().map(String::as_str).filter(idle).collect()
    }

    /// Fails for flags that must not be ignored and cannot be served, unless they are empty or off; tells of all of them.
    pub fn refuse(&self, flags: &Flags) -> anyhow::Result<()> {
        let wants = |name: &str| flags.text(name).is_some_and(|value| !matches!(value, "" | "false" | "[]"));
        let faults: Vec<String> =
            self.refused.iter().filter(|(name, _)| wants(name)).map(|(name, why)| format!("--{name}: {why}")).collect();
        if faults.is_empty() { Ok(()) } else { bail!("{}", faults.join("; ")) }
    }
}

impl Flags {
    /// The last value given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).and_then(|v| v.last()).map(String::as_str)
    }

    /// Every value given, as it was given.
    pub fn all(&self, name: &str) -> &[String] {
        self.values.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Every value given, split at commas (upstream's list flags may be repeated or comma-separated).
    pub fn list(&self, name: &str) -> Vec<String> {
        self.all(name).iter().flat_map(|v| v.split(',')).map(str::trim).filter(|v| !v.is_empty()).map(str::to_owned).collect()
    }

    /// The last value given, parsed.
    pub fn parsed<T>(&self, name: &str) -> anyhow::Result<Option<T>>
    where
        T: FromStr<Err: Display>,
    {
        match self.text(name) {
            None => Ok(None),
            Some(text) => match text.parse() {
                Ok(value) => Ok(Some(value)),
                Err(err) => bail!("invalid value {text:?} for --{name}: {err}"),
            },
        }
    }

    /// A duration as Go writes it: `1h30m`, `250ms`.
    pub fn duration(&self, name: &str) -> anyhow::Result<Option<Duration>> {
        let invalid = || format!("invalid value {:?} for --{name}", self.text(name).unwrap_or_default());
        let span: Option<jiff::SignedDuration> = self.parsed(name)?;
        span.map(Duration::try_from).transpose().with_context(invalid)
    }

    /// All flags that were given, lists as upstream writes them.
    pub fn given(&self) -> BTreeMap<String, String> {
        let shown = |values: &Vec<String>| match values.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(",")),
        };
        self.values.iter().map(|(name, values)| (name.clone(), shown(values))).collect()
    }

    /// A flag that must be given.
    pub fn required(&self, name: &str) -> anyhow::Result<&str> {
        self.text(name).with_context(|| format!("--{name} is required"))
    }

    /// Whether a boolean flag is on, with a default.
    pub fn enabled(&self, name: &str, default: bool) -> anyhow::Result<bool> {
        Ok(self.parsed(name)?.unwrap_or(default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMO: Component = Component {
        name: "demo",
        about: "",
        known: "alpha\nbeta?\nguard\nno-effect?\nquiet",
        effective: &[("alpha", ""), ("beta", ""), ("data-dir", "")],
        harmless: &["quiet"],
        refused: &[("guard", "there is none")],
    };

    fn parse(args: &[&str]) -> Result<Flags, clap::Error> {
        DEMO.parse(args.iter().map(OsString::from))
    }

    #[test]
    fn upstreams_spellings_are_taken() {
        let flags = parse(&["--alpha", "1,2", "--alpha=3", "--beta", "--no-effect=false", "--data-dir=/x"]).unwrap();
        assert_eq!(flags.list("alpha"), ["1", "2", "3"]);
        assert!(flags.enabled("beta", false).unwrap());
        assert_eq!(flags.text("data-dir"), Some("/x"));
        assert_eq!(DEMO.without_effect(&flags), ["no-effect"]);
    }

    #[test]
    fn an_unknown_flag_is_an_error_that_names_it() {
        let err = parse(&["--gamma=1"]).unwrap_err();
        assert!(err.to_string().contains("--gamma"), "{err}");
    }

    #[test]
    fn a_value_that_does_not_parse_names_its_flag() {
        let flags = parse(&["--alpha=x"]).unwrap();
        let err = flags.parsed::<u16>("alpha").unwrap_err();
        assert!(err.to_string().contains("--alpha"), "{err}");
    }

    #[test]
    fn what_others_rely_on_is_refused_and_what_is_harmless_is_not_spoken_of() {
        let flags = parse(&["--guard=on", "--quiet=1"]).unwrap();
        assert_eq!(DEMO.refuse(&flags).unwrap_err().to_string(), "--guard: there is none");
        assert!(DEMO.refuse(&parse(&["--guard="]).unwrap()).is_ok());
        assert!(!DEMO.without_effect(&flags).contains(&"quiet"));
    }
}
