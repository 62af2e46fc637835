//! The cluster a backup is taken from: connecting, looking round, and turning etcd's errors into words.

mod talos;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use etcd_api::{Client, ConnectOptions, Credentials, Endpoint, TlsOptions};
use etcd_store::id::{ClusterId, MemberId};

use crate::access::Access;
use crate::choice::{Candidate, CandidateState};
use crate::exclusion::Key;
use crate::failure::{Code, Failure, Outcome};
use crate::init::here::{is_here, is_here_by_address};
use crate::limits::MAX_MEMBERS;
use crate::member_link::MemberLink;
use crate::seal_pipeline::on_thread;
use crate::source_failure::failure;
use crate::talos::Reached;

/// How etcd is reached over its own client API.
#[derive(Clone, Debug, Default)]
pub struct SourceOptions {
    /// Client URLs. Only these are dialled unless `discover` is set.
    pub endpoints: Vec<String>,
    /// CA certificate file.
    pub cacert: Option<PathBuf>,
    /// Client certificate file.
    pub cert: Option<PathBuf>,
    /// Key file of the client certificate.
    pub key: Option<PathBuf>,
    /// Certificates in memory, in the place of the files.
    pub tls: Option<Arc<TlsOptions>>,
    /// User and password of etcd's own authentication.
    pub credentials: Option<Credentials>,
    /// Name to expect in the server's certificate.
    pub server_name: Option<String>,
    /// Do not check the server's certificate.
    pub insecure_skip_verify: bool,
    /// Follow the member list to members that are not named.
    pub discover: bool,
    /// Time to connect; etcd-api's default when zero.
    pub dial_timeout: Duration,
    /// Time for one answer; etcd-api's default when zero.
    pub request_timeout: Duration,
}

/// One member that was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What is known of it.
    pub candidate: Candidate,
    /// The connection, if it answers.
    pub link: Option<MemberLink>,
    /// Its etcd version, if it answered.
    pub version: Option<String>,
    /// The Talos of its node, where that was asked and told.
    pub talos_version: Option<String>,
    /// The id of the cluster it belongs to, if it answered.
    cluster_id: Option<ClusterId>,
}

/// A cluster that answers: at least one member does.
#[derive(Clone, Debug)]
pub struct Source {
    /// The id every answering member gives; `None` where the source tells none (Talos).
    pub cluster_id: Option<ClusterId>,
    /// The nodes, where the cluster is reached over Talos's API, `direct` or not.
    pub talos: Option<Reached>,
    /// Those that were asked, in the order of the endpoints, each member once.
    pub asked: Vec<Asked>,
    /// The member list, where one could be had.
    pub members: Vec<etcd_api::Member>,
    /// Alarms that are raised.
    pub alarms: Vec<etcd_api::Alarm>,
    /// What was odd on the way, in words.
    pub notes: Vec<String>,
}

fn any_is_here(asked: &[String], listed: &[String]) -> bool {
    asked.iter().any(|url| is_here(url)) || listed.iter().any(|url| is_here_by_address(url))
}

impl Source {
    /// Connects and looks round. Over Talos only the nodes that are named are asked, every control plane node where none is.
    pub async fn connect(access: &Access) -> Outcome<Self> {
        match (access.etcd().await?, access.talos()) {
            (Some(options), None) => Self::connect_to_etcd(&options).await,
            (Some(options), Some(talos)) => {
                let (source, reached) = tokio::try_join!(Self::connect_to_etcd(&options), crate::talos::reach(talos, true))?;
                let notes = [reached.notes.clone(), source.notes.clone()].concat();
                let talos_version = match reached.nodes.first() {
                    Some(node) => node.version().await.ok().map(|version| version.tag),
                    None => None,
                };
                let source = Self { talos: Some(reached), notes, ..source }.of_nodes(&talos.nodes)?;
                let asked = source.asked.into_iter().map(|asked| Asked { talos_version: talos_version.clone(), ..asked }).collect();
                Ok(Self { asked, ..source })
            }
            (None, Some(talos)) => talos::connect(talos).await,
            (None, None) => Err(Failure::usage("no cluster is named").next(["lifeboat", "init"])),
        }
    }

    /// Only the members on the nodes that are named; all where none is.
    fn of_nodes(self, nodes: &[String]) -> Outcome<Self> {
        if nodes.is_empty() {
            return Ok(self);
        }
        let means = |asked: &Asked| {
            let at = crate::talos::reach::host_of(&asked.candidate.endpoint).unwrap_or(&asked.candidate.endpoint);
            nodes.iter().any(|node| node == at || *node == asked.candidate.name)
        };
        let (asked, others): (Vec<Asked>, Vec<Asked>) = self.asked.into_iter().partition(means);
        if asked.is_empty() {
            let known: Vec<String> = others.iter().map(|asked| asked.candidate.endpoint.clone()).collect();
            return Err(Failure::usage(format!("no member runs on {}", nodes.join(", ")))
                .cause(format!("the members are at {}", known.join(", ")))
                .again_without("--nodes"));
        }
        Ok(Self { asked, ..self })
    }

    async fn connect_to_etcd(options: &SourceOptions) -> Outcome<Self> {
        if options.endpoints.is_empty() {
            return Err(Failure::usage("no cluster is named")
                .cause("name it by --endpoints (and --cacert, --cert, --key), by ETCDCTL_ENDPOINTS, or in lifeboat.yaml")
                .next(["lifeboat", "init"]));
        }
        let connect = connect_options(options)?;
        let mut asked = ask_all(&options.endpoints, &connect).await?;
        let cluster_id = Some(one_cluster(&asked)?);
        let (mut members, mut notes) = (Vec::new(), Vec::new());
        match member_list(&asked).await {
            Ok(list) => members = list,
            Err(error) => notes.push(format!("the member list cannot be had: {error}")),
        }
        name_silent(&mut asked, &members);
        if options.discover {
            let more = undialled(&asked, &members, &connect);
            if !more.is_empty() {
                asked.extend(ask_all(&more, &connect).await?);
                one_cluster(&asked)?;
                name_silent(&mut asked, &members);
            }
        }
        let mut asked = each_member_once(asked);
        let alarms = alarms(&asked, &mut notes).await;
        accuse(&mut asked, &alarms);
        Ok(Self { cluster_id, talos: None, asked, members, alarms, notes })
    }

    /// Whether members are asked over Talos's API, which passes on no read, no HashKV and no cluster id.
    #[must_use]
    pub fn is_talos_only(&self) -> bool {
        self.talos.is_some() && self.asked.iter().all(|asked| asked.link.as_ref().is_none_or(|link| link.etcd().is_none()))
    }

    /// What processes of this host know the cluster by.
    #[must_use]
    pub fn known_by(&self) -> Vec<Key> {
        let members = self.members.iter().filter(|_| self.talos.is_some()).map(|member| member.id);
        Key::of(self.cluster_id, members)
    }

    /// The candidates alone, for the choice.
    #[must_use]
    pub fn candidates(&self) -> Vec<Candidate> {
        self.asked.iter().map(|asked| asked.candidate.clone()).collect()
    }

    /// Whether a member of the cluster may run on this machine, as far as addresses tell: one that was asked, or one that the member list has at
    /// an address of this machine. In doubt (a forwarded port) it is here.
    pub async fn is_here(&self) -> Outcome<bool> {
        let asked: Vec<String> = self.asked.iter().map(|asked| asked.candidate.endpoint.clone()).collect();
        let listed: Vec<String> = self.members.iter().flat_map(|member| member.client_urls.clone()).collect();
        // Names that were dialled are looked up again; those nobody asked for are not.
        on_thread("look round", move || Ok(any_is_here(&asked, &listed))).await
    }

    /// The leader as the answering members see it, if they agree.
    #[must_use]
    pub fn leader(&self) -> Option<MemberId> {
        let mut leaders: Vec<MemberId> = self.asked.iter().filter_map(|asked| asked.candidate.state.as_ref().ok()?.leader).collect();
        leaders.sort_unstable();
        leaders.dedup();
        if let [leader] = leaders[..] { Some(leader) } else { None }
    }

    /// The members that vote, as far as the member list tells; those asked where there is none.
    #[must_use]
    pub fn voters(&self) -> usize {
        let listed = self.members.iter().filter(|member| !member.is_learner).count();
        if listed > 0 { listed } else { self.asked.len() }
    }
}

pub(crate) fn connect_options(options: &SourceOptions) -> Outcome<ConnectOptions> {
    let read = |path: &Path, what: &str| {
        std::fs::read(path).map_err(|error| Failure::usage(format!("the {what} cannot be read: {error}")).object(path.display()).again())
    };
    let with_tls = options.cacert.is_some() || options.cert.is_some() || options.insecure_skip_verify || options.server_name.is_some();
    let mut connect = ConnectOptions { credentials: options.credentials.clone(), ..ConnectOptions::default() };
    if let Some(tls) = &options.tls {
        connect.tls = Some(tls.as_ref().clone());
    } else if with_tls {
        connect.tls = Some(TlsOptions {
            ca_pem: options.cacert.as_deref().map(|path| read(path, "CA certificate")).transpose()?,
            cert_pem: options.cert.as_deref().map(|path| read(path, "client certificate")).transpose()?,
            key_pem: options.key.as_deref().map(|path| read(path, "client key")).transpose()?.map(Into::into),
            server_name: options.server_name.clone(),
            insecure_skip_verify: options.insecure_skip_verify,
        });
    }
    if !options.dial_timeout.is_zero() {
        connect.dial_timeout = options.dial_timeout;
    }
    if !options.request_timeout.is_zero() {
        connect.request_timeout = options.request_timeout;
    }
    Ok(connect)
}

async fn ask_all(endpoints: &[String], connect: &ConnectOptions) -> Outcome<Vec<Asked>> {
    if endpoints.len() > MAX_MEMBERS {
        return Err(Failure::usage(format!("{} endpoints are more than an etcd cluster has", endpoints.len())));
    }
    let asking = endpoints.iter().map(|text| ask(text, connect));
    let answers: Vec<Outcome<(Asked, Option<Failure>)>> = futures::future::join_all(asking).await;
    let mut asked = Vec::new();
    let mut first_failure = None;
    for answer in answers {
        let (one, failure) = answer?;
        asked.push(one);
        first_failure = first_failure.or(failure);
    }
    if asked.iter().all(|one| one.candidate.state.is_err())
        && let Some(failure) = first_failure
    {
        return Err(failure);
    }
    Ok(asked)
}

async fn ask(text: &str, connect: &ConnectOptions) -> Outcome<(Asked, Option<Failure>)> {
    let endpoint = Endpoint::parse(text, connect.tls.is_some()).map_err(|error| {
        Failure::usage(format!("'{text}' is not an endpoint: {error}"))
            .cause("a client URL of etcd is expected, such as https://10.0.0.1:2379")
            .again()
    })?;
    let silent = |error: etcd_api::Error| {
        let candidate = Candidate { id: MemberId(0), name: String::new(), endpoint: endpoint.to_string(), state: Err(error.to_string()) };
        (
            Asked { candidate, link: None, version: None, talos_version: None, cluster_id: None },
            Some(failure("etcd does not answer as it should", &error)),
        )
    };
    let client = match Client::connect(endpoint.clone(), connect).await {
        Ok(client) => client,
        Err(error) => return Ok(silent(error)),
    };
    let status = match client.status().await {
        Ok(status) => status,
        Err(error) => return Ok(silent(error)),
    };
    let state = CandidateState {
        leader: status.leader,
        is_learner: status.is_learner,
        applied_index: status.raft_applied_index,
        db_size: status.db_size,
        db_size_in_use: status.db_size_in_use,
        errors: status.errors.clone(),
        accused: false,
        is_told: true,
    };
    let candidate = Candidate { id: status.header.member_id, name: String::new(), endpoint: endpoint.to_string(), state: Ok(state) };
    let asked = Asked {
        candidate,
        link: Some(MemberLink::Etcd(client)),
        version: Some(status.version),
        talos_version: None,
        cluster_id: Some(status.header.cluster_id),
    };
    Ok((asked, None))
}

/// The id that every answering member gives; different ones mean that the endpoints lead to different clusters.
fn one_cluster(asked: &[Asked]) -> Outcome<ClusterId> {
    let mut ids = asked.iter().filter_map(|one| Some((one.cluster_id?, &one.candidate.endpoint)));
    let (id, endpoint) = ids.next().ok_or_else(|| Failure::new(Code::SourceUnreachable, "no member of the cluster answers").again())?;
    match ids.find(|(other, _)| *other != id) {
        None => Ok(id),
        Some((other, elsewhere)) => Err(Failure::new(Code::WrongCluster, "the endpoints lead to different clusters")
            .object(format!("{endpoint} belongs to cluster {id}, {elsewhere} to cluster {other}"))
            .cause("endpoints of several clusters were mixed, or a member was restored alone")
            .again()),
    }
}

/// The member list, from the first member that gives it; a linearizable one where there is a quorum.
async fn member_list(asked: &[Asked]) -> Result<Vec<etcd_api::Member>, String> {
    let mut said = "nobody answers".to_owned();
    for linearizable in [true, false] {
        for client in asked.iter().filter_map(|one| one.link.as_ref()?.etcd()) {
            match client.members(linearizable).await {
                Ok(list) if list.members.len() <= MAX_MEMBERS => return Ok(list.members),
                Ok(list) => said = format!("{} members are more than an etcd cluster has", list.members.len()),
                Err(error) => said = error.to_string(),
            }
        }
    }
    Err(said)
}

/// Gives names from the member list to those that answered, and ids to those that did not, by their client URL.
fn name_silent(asked: &mut [Asked], members: &[etcd_api::Member]) {
    for one in asked {
        let by_id = members.iter().find(|member| one.link.is_some() && member.id == one.candidate.id);
        let by_url =
            || members.iter().find(|member| member.client_urls.iter().any(|url| url.trim_end_matches('/') == one.candidate.endpoint));
        if let Some(member) = by_id.or_else(by_url) {
            one.candidate.id = member.id;
            one.candidate.name.clone_from(&member.name);
        }
    }
}

/// A client URL of each listed member that was not asked yet.
fn undialled(asked: &[Asked], members: &[etcd_api::Member], connect: &ConnectOptions) -> Vec<String> {
    members
        .iter()
        .filter(|member| !asked.iter().any(|one| one.candidate.id == member.id))
        .filter_map(|member| member.client_urls.first().cloned())
        // A member's word must not take the certificates off.
        .filter(|url| connect.tls.is_none() || !url.starts_with("http://"))
        .collect()
}

/// Two endpoints may lead to one member (a name and an address); the first that answered stands.
fn each_member_once(asked: Vec<Asked>) -> Vec<Asked> {
    let mut once: Vec<Asked> = Vec::new();
    for one in asked {
        let known = once.iter_mut().find(|other| other.candidate.id == one.candidate.id && one.candidate.id != MemberId(0));
        match known {
            Some(other) if other.link.is_none() => *other = one,
            Some(_) => {}
            None => once.push(one),
        }
    }
    once
}

/// Marks the members that an alarm CORRUPT names.
fn accuse(asked: &mut [Asked], alarms: &[etcd_api::Alarm]) {
    for one in asked {
        let accused = alarms.iter().any(|alarm| alarm.kind == etcd_api::AlarmKind::Corrupt && alarm.member == one.candidate.id);
        if let Ok(state) = &mut one.candidate.state {
            state.accused = accused;
        }
    }
}

async fn alarms(asked: &[Asked], notes: &mut Vec<String>) -> Vec<etcd_api::Alarm> {
    let Some(client) = asked.iter().find_map(|one| one.link.as_ref()?.etcd()) else { return Vec::new() };
    match client.alarms().await {
        Ok(alarms) => alarms,
        Err(error) => {
            notes.push(format!("the alarms cannot be listed: {error}"));
            Vec::new()
        }
    }
}

/// etcd's word for a kind of alarm.
#[must_use]
pub fn alarm_name(kind: etcd_api::AlarmKind) -> String {
    match kind {
        etcd_api::AlarmKind::NoSpace => "NOSPACE".to_owned(),
        etcd_api::AlarmKind::Corrupt => "CORRUPT".to_owned(),
        etcd_api::AlarmKind::Other(number) => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etcd_is_here_by_what_was_asked_or_by_where_the_list_has_it() {
        let urls = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>();
        let elsewhere = urls(&["https://198.51.100.1:2379", "https://203.0.113.2:2379"]);
        assert!(any_is_here(&urls(&["https://198.51.100.1:2379", "https://127.0.0.1:2379"]), &elsewhere));
        assert!(any_is_here(&urls(&["http://localhost:2379"]), &[]), "a name that was dialled is looked up");
        assert!(any_is_here(&elsewhere, &urls(&["https://[::1]:2379"])), "asked elsewhere, and a member is here all the same");
        assert!(!any_is_here(&elsewhere, &elsewhere));
        assert!(!any_is_here(&elsewhere, &urls(&["http://localhost:2379"])), "a name that nobody dialled is not looked up");
        assert!(!any_is_here(&[], &[]));
    }
}
