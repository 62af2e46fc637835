//! Consent to what replaces or destroys: the cluster's name, typed or given. Never from the environment. Nothing here is called by work that runs under
//! [`signals::run`] already.

use std::io::{self, BufRead, IsTerminal};

use engine::{Failure, Outcome};

use crate::args::ConsentArgs;
use crate::{output, signals};

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
            typed()?
        }
        None => {
            return Err(without_terminal(what).again_with(["--confirm", cluster]));
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
        return Err(without_terminal(what).again_with(["--yes"]));
    }
    output::say(&format!("{what}\nGo on? [y/N]"));
    if matches!(typed()?.as_str(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::usage("nothing was done").cause("it was not answered with yes").again())
    }
}

fn without_terminal(what: &str) -> Failure {
    Failure::usage("nothing was done: this wants consent, and there is no terminal to ask at").cause(what)
}

/// A line, read on a thread of its own: once signals were listened to, nothing but listening hears Ctrl-C.
fn typed() -> Outcome<String> {
    let (done, read) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = done.send(io::stdin().lock().read_line(&mut line).map(|_| line));
    });
    signals::run(async {
        match read.await {
            Ok(Ok(line)) => Ok(line.trim().to_owned()),
            Ok(Err(error)) => Err(Failure::usage(format!("nothing could be read: {error}")).again()),
            Err(_) => Err(Failure::failed("nothing could be read").again()),
        }
    })
}
