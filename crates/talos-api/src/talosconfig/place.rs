//! Which file it is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::ConfigError;

/// Where Talos mounts a talosconfig into pods that asked for one by a ServiceAccount of `talos.dev/v1alpha1`.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/talos.dev/config";

/// What led to a talosconfig.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `--talosconfig`, or a path in a configuration.
    Named,
    /// `$TALOSCONFIG`.
    Variable,
    /// `$TALOS_HOME/config`, or `~/.talos/config`.
    Home,
    /// The mount of a Kubernetes service account.
    ServiceAccount,
}

/// Where a talosconfig is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// What led there.
    pub origin: Origin,
    /// The file that `$TALOSCONFIG` names and that is not there. talosctl goes on to the next place then, which may be
    /// another cluster's: worth a word.
    pub passed_over: Option<PathBuf>,
}

/// Finds the talosconfig in talosctl's order: the named one; `$TALOSCONFIG`; `$TALOS_HOME/config` (absolute only) or
/// `$HOME/.talos/config`; the service account's mount. The first that exists wins; none is ever created.
///
/// `variable` is the environment.
///
/// # Errors
/// [`ConfigError::Nowhere`]. A named file is taken without a look: reading it says what is wrong.
pub fn locate(named: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>) -> Result<Place, ConfigError> {
    if let Some(path) = named {
        return Ok(Place { path: path.to_owned(), origin: Origin::Named, passed_over: None });
    }
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let by_variable = set("TALOSCONFIG");
    let home = set("TALOS_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| set("HOME").map(|home| home.join(".talos")))
        .map(|directory| directory.join("config"));
    let places =
        [(by_variable.clone(), Origin::Variable), (home, Origin::Home), (Some(PathBuf::from(SERVICE_ACCOUNT)), Origin::ServiceAccount)];
    let places: Vec<(PathBuf, Origin)> = places.into_iter().filter_map(|(path, origin)| Some((path?, origin))).collect();
    match places.iter().find(|(path, _)| path.exists()) {
        Some((path, origin)) => {
            let passed_over = by_variable.filter(|named| named != path);
            Ok(Place { path: path.clone(), origin: *origin, passed_over })
        }
        None => Err(ConfigError::Nowhere(places.into_iter().map(|(path, _)| path).collect())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::collections::BTreeMap;

    use super::*;

    fn find(variables: &[(&str, PathBuf)]) -> Result<Place, ConfigError> {
        let variables: BTreeMap<&str, OsString> = variables.iter().map(|(name, value)| (*name, value.clone().into_os_string())).collect();
        locate(None, |name| variables.get(name).cloned())
    }

    #[test]
    fn the_first_that_exists_wins_in_talosctls_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            path
        };
        let (by_variable, talos_home, home) = (file("named"), file("th/config"), file("home/.talos/config"));
        let home_dir = dir.path().join("home");
        let all = [("TALOSCONFIG", by_variable.clone()), ("TALOS_HOME", dir.path().join("th")), ("HOME", home_dir.clone())];
        let place = find(&all).unwrap();
        assert_eq!((place.path, place.origin, place.passed_over), (by_variable, Origin::Variable, None));
        let place = find(&all[1..]).unwrap();
        assert_eq!((place.path, place.origin), (talos_home, Origin::Home));
        let place = find(&all[2..]).unwrap();
        assert_eq!((place.path, place.origin), (home.clone(), Origin::Home));
        // Relative, so it does not count.
        let place = find(&[("TALOS_HOME", PathBuf::from("th")), ("HOME", home_dir.clone())]).unwrap();
        assert_eq!(place.path, home);
        let gone = dir.path().join("gone");
        let place = find(&[("TALOSCONFIG", gone.clone()), ("HOME", home_dir)]).unwrap();
        assert_eq!((place.path, place.passed_over), (home, Some(gone)));
    }

    #[test]
    fn without_any_every_place_is_named_and_nothing_is_created() {
        let dir = tempfile::tempdir().unwrap();
        let error = find(&[("TALOSCONFIG", dir.path().join("t")), ("HOME", dir.path().to_owned())]).unwrap_err();
        let ConfigError::Nowhere(places) = &error else { panic!("{error}") };
        assert_eq!(*places, [dir.path().join("t"), dir.path().join(".talos/config"), PathBuf::from(SERVICE_ACCOUNT)]);
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
    }

    #[test]
    fn a_named_file_is_taken_as_it_is() {
        let place = locate(Some(Path::new("/nowhere/talosconfig")), |_| None).unwrap();
        assert_eq!(place.origin, Origin::Named);
        assert!(super::super::Talosconfig::read(&place.path).is_err());
    }
}
