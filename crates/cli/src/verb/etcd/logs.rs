//! `lifeboat etcd logs`.

use std::io::Write;

use engine::talos::failure::failure;
use engine::talos::{Reached, TalosOptions};
use engine::{Access, Code, Failure, Outcome};
use talos_api::{Node, NodeName};

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
    let talos = looked.talos.as_ref().ok_or_else(|| Failure::failed("no Talos node was reached").again())?;
    let text = args.member.as_deref().or(access.only_member());
    let leader = || looked.view.leader().and_then(|id| looked.view.member(id));
    let member = match text {
        Some(text) => looked.view.find(text),
        None => leader().or_else(|| looked.view.answering().next().map(|(member, _)| member)),
    };
    let of_member = member.and_then(|member| talos.nodes.iter().find(|node| node.to_string() == member.endpoint));
    // The log that is wanted most is that of a node whose etcd does not run, or is no member any more.
    let node = match (of_member, text) {
        (Some(node), _) => node.clone(),
        (None, Some(text)) => named(talos, text).await?,
        (None, None) => return Err(Failure::failed("no member answers; name a node").next(["lifeboat", "etcd", "members"])),
    };
    let label = member.map_or_else(|| "no member of etcd".to_owned(), |member| member.label());
    output::say(&format!("etcd on {node} ({label}):"));
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

/// A node by its host name or address, whether etcd is on it or not.
async fn named(talos: &Reached, text: &str) -> Outcome<Node> {
    let known = talos
        .everyone()
        .await
        .into_iter()
        .find(|known| known.name == text || known.addresses.iter().any(|address| address.to_string() == text));
    match (known, NodeName::parse(text)) {
        (Some(known), _) => Ok(known.node),
        (None, Ok(name)) => Ok(talos.client.node(&name)),
        (None, Err(error)) => Err(Failure::usage(error.to_string()).next(["lifeboat", "etcd", "members"])),
    }
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
