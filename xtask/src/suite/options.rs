//! The arguments of `cargo xtask test`.

use anyhow::{Result, bail};

/// What to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Run the long tests too.
    pub(super) full: bool,
    /// A test that fails once has failed, even if it passes when it is run again.
    pub(super) strict: bool,
    /// etcd versions (`3.5`) without which the run fails.
    pub(super) require_etcd: Vec<String>,
    /// Given to every test binary: names to select.
    pub(super) filter: Vec<String>,
}

impl Options {
    pub(super) fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            match arg.as_str() {
                "--full" => options.full = true,
                "--strict" => options.strict = true,
                "--require-etcd" => match rest.next() {
                    Some(list) => options.require(list)?,
                    None => bail!("--require-etcd wants versions, e.g. 3.5,3.6"),
                },
                "--" => options.filter.extend(rest.by_ref().cloned()),
                other => match other.strip_prefix("--require-etcd=") {
                    Some(list) => options.require(list)?,
                    None => bail!("unknown option {other:?}; a filter goes after --"),
                },
            }
        }
        Ok(options)
    }

    fn require(&mut self, list: &str) -> Result<()> {
        for version in list.split(',').map(str::trim) {
            let minor = version.split_once('.').is_some_and(|(major, minor)| major == "3" && minor.parse::<u8>().is_ok());
            if !minor {
                bail!("--require-etcd: {version:?} is not an etcd version like 3.5");
            }
            self.require_etcd.push(version.to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Options;

    fn parse(args: &[&str]) -> anyhow::Result<Options> {
        Options::parse(&args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_and_filter_are_told_apart() {
        let options = parse(&["--full", "--strict", "--require-etcd", "3.5,3.6", "--", "restore", "--exact"]).unwrap();
        assert!(options.full && options.strict);
        assert_eq!(options.require_etcd, ["3.5", "3.6"]);
        assert_eq!(options.filter, ["restore", "--exact"]);
        assert_eq!(parse(&["--require-etcd=3.7"]).unwrap().require_etcd, ["3.7"]);
    }

    #[test]
    fn mistakes_are_refused() {
        for args in [&["restore"][..], &["--require-etcd"], &["--require-etcd", "3"], &["--require-etcd", "3.x"]] {
            assert!(parse(args).is_err(), "{args:?}");
        }
    }
}
