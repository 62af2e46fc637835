//! `completions` and `man`: what packages install beside the binary.

use std::path::PathBuf;

use clap::CommandFactory;
use engine::{Code, Failure, Outcome};

use super::Lifeboat;
use crate::output;

/// Arguments of `lifeboat completions`.
#[derive(clap::Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Arguments of `lifeboat man`.
#[derive(clap::Args, Debug)]
pub(crate) struct ManArgs {
    /// Write one page per verb to this directory instead of printing the main page
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
}

/// Prints a completion script.
pub(crate) fn completions(args: CompletionsArgs) -> Outcome<Code> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Lifeboat::command(), "lifeboat", &mut script);
    output::print(&String::from_utf8_lossy(&script));
    Ok(Code::Ok)
}

/// Prints the manual or writes its pages.
pub(crate) fn man(args: ManArgs) -> Outcome<Code> {
    let cannot = |error: std::io::Error| Failure::failed(format!("the manual cannot be written: {error}")).again();
    match args.out_dir {
        Some(directory) => {
            std::fs::create_dir_all(&directory).map_err(cannot)?;
            clap_mangen::generate_to(Lifeboat::command(), &directory).map_err(cannot)?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Lifeboat::command()).render(&mut page).map_err(cannot)?;
            output::print(&String::from_utf8_lossy(&page));
        }
    }
    Ok(Code::Ok)
}
