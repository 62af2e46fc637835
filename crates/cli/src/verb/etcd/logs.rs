//! `lifeboat etcd logs`.

use std::io::Write;

use engine::care::change::meant;
use engine::talos::TalosOptions;
use engine::talos::failure::failure;
use engine::{Access, Code, Failure, Outcome};

use super::ClusterArgs;
use crate::args::GlobalArgs;
use crate::{output, signals};

/// Arguments of `lifeboat etcd logs`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Name, id or node of the member [default: the only node named, else the leader's]
    #[arg(value_name = "MEMBER")]
    member: Option<String>,
    /// Only so many lines from the end
    #[arg(long, value_name = "LINES", env = "LIFEBOAT_TAIL")]
    tail: Option<u32>,
    /// Go on as it is written, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs `lifeboat etcd logs`.
pub(crate) fn run(global: &GlobalArgs, args: &Args) -> Outcome<Code> {
    match args.cluster.access(global)? {
        // Talos's own log, also where etcd could be asked directly.
        Access::Talos(options) => signals::run(show(global, TalosOptions { direct: false, ..options }, args)),
        Access::Etcd(_) => {
            output::print(&elsewhere());
            Ok(Code::Ok)
        }
    }
}

async fn show(global: &GlobalArgs, options: TalosOptions, args: &Args) -> Outcome<Code> {
    let access = Access::Talos(options);
    let looked = super::seen(global, &access).await?;
    let only = args.member.as_deref().or(access.only_member());
    let member = match only {
        Some(text) => meant(&looked.view, text)?,
        None => {
            let leader = looked.view.leader().and_then(|id| looked.view.member(id));
            leader
                .or_else(|| looked.view.answering().next().map(|(member, _)| member))
                .ok_or_else(|| Failure::failed("no member answers").again())?
        }
    };
    // A node whose etcd is silent is the one whose log is wanted most: it is found by its address.
    let node =
        looked.talos.as_ref().and_then(|talos| talos.nodes.iter().find(|node| node.to_string() == member.endpoint)).ok_or_else(|| {
            Failure::failed(format!("it is not known on which node {} runs", member.label())).next(["lifeboat", "etcd", "members"])
        })?;
    output::say(&format!("etcd on {node} ({}):", member.label()));
    let cannot = |error: talos_api::Error| failure("the log cannot be read", &error);
    let mut log = node.logs("etcd", args.tail, args.follow).await.map_err(cannot)?;
    let mut out = std::io::stdout().lock();
    while let Some(bytes) = log.next().await.map_err(cannot)? {
        let written = out.write_all(&tamed(&bytes)).and_then(|()| out.flush());
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
            Err(error) => return Err(Failure::failed(format!("the log cannot be written: {error}")).object("standard output")),
        }
    }
    Ok(Code::Ok)
}

/// A log is text from outside: what would drive a terminal is taken out.
fn tamed(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|&byte| if byte < 0x20 && byte != b'\n' && byte != b'\t' || byte == 0x7f { b' ' } else { byte }).collect()
}

/// Where the log is when etcd does not run under Talos; what is found on this machine first.
fn elsewhere() -> String {
    let mut text = String::from("etcd's API does not pass its log on. It is on the member's own machine:\n");
    let here = |path: &str| if std::path::Path::new(path).exists() { "  (there is one on this machine)" } else { "" };
    let pods = std::fs::read_dir("/var/log/pods").into_iter().flatten().flatten();
    let pod = pods
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kube-system_etcd-")));
    text.push_str(&format!(
        "  kubeadm    /var/log/pods/kube-system_etcd-*/etcd/*.log, or: crictl logs $(crictl ps -q --name etcd){}\n",
        pod.map(|path| format!("  (here: {})", vault::manifest::plain_text(&path.to_string_lossy()))).unwrap_or_default()
    ));
    text.push_str(&format!("  systemd    journalctl -u etcd{}\n", here("/etc/systemd/system/etcd.service")));
    text.push_str("  k3s, RKE2  journalctl -u k3s (or rke2-server; etcd runs inside)\n");
    text.push_str(
        "  container  docker logs NAME, or podman logs NAME\n  otherwise  where its standard error goes, or --log-outputs names\n",
    );
    text
}
