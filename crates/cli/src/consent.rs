//! Consent to what replaces or destroys: the cluster's name, typed or given. Never from the environment.

use std::io::{self, BufRead, IsTerminal};

use engine::{Failure, Outcome};

use crate::args::ConsentArgs;
use crate::output;

/// Wants the cluster's name: from `--confirm`, else typed at a terminal. Without either, nothing is done (exit 2).
pub(crate) fn by_name(args: &ConsentArgs, cluster: Option<&str>, what: &str) -> Outcome<()> {
    let Some(cluster) = cluster else {
        return Err(Failure::usage("the cluster must be named before anything of it is replaced")
            .cause("give --cluster NAME and --confirm NAME")
            .again());
    };
    let given = match &args.confirm {
        Some(given) => given.clone(),
        None if io::stdin().is_terminal() => {
            output::say(&format!("{what}\nType the cluster's name ({cluster}) to go on:"));
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line).map_err(|error| Failure::usage(format!("nothing could be read: {error}")))?;
            line.trim().to_owned()
        }
        None => {
            return Err(Failure::usage(what)
                .cause("this wants consent, and there is no terminal to ask at")
                .again_with(["--confirm", cluster]));
        }
    };
    if given == cluster {
        return Ok(());
    }
    Err(Failure::usage(format!("'{given}' is not the cluster's name, so nothing was done"))
        .cause(format!("the cluster is called {cluster}"))
        .again())
}

/// Wants a yes: from `--yes`, else typed at a terminal. Without either, nothing is done (exit 2).
pub(crate) fn by_yes(given: bool, what: &str) -> Outcome<()> {
    if given {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(what).cause("this wants consent, and there is no terminal to ask at").again_with(["--yes"]));
    }
    output::say(&format!("{what}\nGo on? [y/N]"));
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(|error| Failure::usage(format!("nothing could be read: {error}")))?;
    if matches!(line.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::usage("nothing was done").cause("it was not answered with yes").again())
    }
}
