//! Looking round a live cluster: every member found from one, and each asked; over etcd's own API, or over Talos's.

mod talos;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use etcd_api::{Client, ConnectOptions, Endpoint, ErrorClass, Member};
use etcd_store::id::MemberId;
use futures::future::{join_all, select_ok};
use jiff::Timestamp;
use talos_api::Role;

use super::health::Certificates;
use super::view::{ClusterView, MemberAnswer, MemberView, Silence};
use crate::access::Access;
use crate::exclusion::Key;
use crate::failure::{Failure, Outcome};
use crate::limits::MAX_MEMBERS;
use crate::member_link::MemberLink;
use crate::source::{SourceOptions, connect_options};
use crate::source_failure::failure;
use crate::talos::Reached;

/// A view, and the connections it was made through.
#[derive(Clone, Debug)]
pub struct Looked {
    /// What was seen.
    pub view: ClusterView,
    /// A connection to each member that answered.
    pub links: BTreeMap<MemberId, MemberLink>,
    /// The nodes, where the members were asked over Talos's API.
    pub talos: Option<Reached>,
}

impl Looked {
    /// What processes of this host know the cluster by.
    #[must_use]
    pub fn known_by(&self, access: &Access) -> Vec<Key> {
        let members = self.view.members.iter().filter(|member| member.is_listed && access.talos().is_some()).map(|member| member.id);
        Key::of(self.view.cluster_id(), members)
    }

    /// The same way with every member that answered among the endpoints: the one that was named may be the one that goes.
    #[must_use]
    pub fn everywhere(&self, access: &Access) -> Access {
        // Talos's nodes are found anew at every look.
        let Access::Etcd(options) = access else { return access.clone() };
        let mut options = options.clone();
        let found = self.view.answering().map(|(member, _)| member.endpoint.clone());
        let new: Vec<String> = found.filter(|endpoint| !options.endpoints.contains(endpoint)).collect();
        options.endpoints.extend(new);
        options.endpoints.truncate(MAX_MEMBERS);
        Access::Etcd(options)
    }

    /// Until when the certificates are valid that this took: our own, and those the members showed.
    #[must_use]
    pub fn certificates(&self, access: &Access) -> Certificates {
        let mut ends = Vec::new();
        let files = match access {
            Access::Etcd(options) => options.clone(),
            Access::Talos(_) => SourceOptions::default(),
        };
        if let Some(moment) = self.talos.as_ref().and_then(|talos| Timestamp::try_from(talos.certificate_ends?).ok()) {
            ends.push(("our talosconfig".to_owned(), moment));
        }
        for (what, path) in [("our CA", &files.cacert), ("our client certificate", &files.cert)] {
            let Some(path) = path else { continue };
            let moment = std::fs::read(path).ok().and_then(|pem| first_end(&pem));
            ends.extend(moment.map(|moment| (format!("{what} ({})", path.display()), moment)));
        }
        for (id, link) in &self.links {
            let Some(client) = link.etcd() else { continue };
            let moment = client.server_certificate_ends().and_then(|time| Timestamp::try_from(time).ok());
            ends.extend(moment.map(|moment| (self.view.member(*id).map_or_else(|| id.to_string(), MemberView::label), moment)));
        }
        Certificates { ends }
    }

    /// That the role of the talosconfig is enough for a whole defragmentation, with a handover of the leadership or without. Half a plan is worse than none.
    ///
    /// # Errors
    /// It is not. A certificate that names no role (behind a proxy that has roles of its own) and etcd's own API are taken to be enough.
    pub fn may_defragment(&self, hands_over: bool) -> Outcome<()> {
        let Some(talos) = &self.talos else { return Ok(()) };
        let roles = talos.client.roles();
        let (enough, needed, what): (&[Role], _, _) = if hands_over {
            (&[Role::Admin], "os:admin", "to hand the leadership over before the leader's turn")
        } else {
            (&[Role::Operator, Role::Admin], "os:operator", "to defragment a member")
        };
        if roles.as_slice().is_empty() || roles.suffice(enough) {
            return Ok(());
        }
        let words = format!("the role {needed} is needed {what}; this talosconfig has {roles}");
        let failure = Failure::failed("the role is not enough for the whole plan, so nothing was begun")
            .object(format!("context '{}'", talos.context));
        Err(if hands_over && roles.suffice(&[Role::Operator]) {
            let leader = self.view.leader();
            let followers = self.view.members.iter().filter(|member| Some(member.id) != leader).map(MemberView::label);
            let command = ["lifeboat", "etcd", "defrag"].map(str::to_owned).into_iter().chain(followers);
            failure.cause(format!("{words}; the others can have their turn without")).next(command)
        } else {
            failure.cause(words).again()
        })
    }
}

/// When the first certificate of a PEM file ends.
fn first_end(pem: &[u8]) -> Option<Timestamp> {
    let chain = etcd_api::certificates(etcd_api::Material::Certificate, pem).ok()?;
    let ends = chain.iter().filter_map(|der| etcd_api::certificate_ends(der));
    ends.min().and_then(|time| Timestamp::try_from(time).ok())
}

/// One endpoint's answer.
struct Heard {
    endpoint: String,
    answer: Result<(MemberLink, MemberAnswer), (Silence, Failure)>,
}

/// Asks the endpoints, and every further member that those who answer know of.
///
/// # Errors
/// A usage failure for endpoints that are none; what the first endpoint failed with when nobody answers at all. Members that do not answer beside others
/// that do are no error: the view shows them.
pub async fn look(access: &Access) -> Outcome<Looked> {
    match (access.etcd().await?, access.talos()) {
        (Some(options), _) => look_at_etcd(&options).await,
        (None, Some(options)) => talos::look(options).await,
        (None, None) => Err(Failure::usage("no cluster is named").next(["lifeboat", "init"])),
    }
}

async fn look_at_etcd(options: &SourceOptions) -> Outcome<Looked> {
    if options.endpoints.is_empty() {
        return Err(Failure::usage("no cluster is named")
            .cause("name it by --endpoints (and --cacert, --cert, --key), by ETCDCTL_ENDPOINTS, or in lifeboat.yaml")
            .next(["lifeboat", "init"]));
    }
    if options.endpoints.len() > MAX_MEMBERS {
        return Err(Failure::usage(format!("{} endpoints are more than an etcd cluster has", options.endpoints.len())).again());
    }
    let connect = connect_options(options)?;
    let taken = Timestamp::now();
    let named: Vec<Outcome<Heard>> = join_all(options.endpoints.iter().map(|text| ask(text, &connect))).await;
    let named: Vec<Heard> = named.into_iter().collect::<Outcome<_>>()?;
    if let Some(nobody) = named.iter().map(|heard| heard.answer.as_ref().err()).collect::<Option<Vec<_>>>() {
        let (_, failure) = nobody[0];
        return Err(failure.clone());
    }
    let mut round = Round::new(taken);
    for heard in named {
        round.hear(heard);
    }
    let more = round.undialled();
    for (id, heard) in join_all(more.into_iter().map(|(id, urls)| ask_member(id, urls, &connect))).await {
        round.hear_of(id, heard);
    }
    let alarms = round.alarms().await;
    Ok(round.finish(alarms, None))
}

async fn ask(text: &str, connect: &ConnectOptions) -> Outcome<Heard> {
    let endpoint = Endpoint::parse(text, connect.tls.is_some()).map_err(|error| {
        Failure::usage(format!("'{text}' is not an endpoint: {error}"))
            .cause("a client URL of etcd is expected, such as https://10.0.0.1:2379")
            .again()
    })?;
    let name = endpoint.to_string();
    let silent = |error: etcd_api::Error| {
        let connected = error.class() != ErrorClass::Unreachable;
        let silence = Silence { reason: error.kind().to_string(), connected, is_denied: false };
        (silence, failure("etcd does not answer as it should", &error))
    };
    Ok(Heard { endpoint: name, answer: answer(endpoint, connect).await.map_err(silent) })
}

async fn answer(endpoint: Endpoint, connect: &ConnectOptions) -> Result<(MemberLink, MemberAnswer), etcd_api::Error> {
    let client = Client::connect(endpoint, connect).await?;
    let asked = Instant::now();
    let status = client.status().await?;
    let took = asked.elapsed();
    // Its own list, not the quorum's: members that hold different lists are to be found.
    let listed = match client.members(false).await {
        Ok(list) if list.members.len() <= MAX_MEMBERS => Ok(list.members),
        Ok(list) => Err(format!("{} members are more than an etcd cluster has", list.members.len())),
        Err(error) => Err(error.kind().to_string()),
    };
    let cluster_id = Some(status.header.cluster_id);
    Ok((MemberLink::Etcd(client), MemberAnswer { status, cluster_id, listed, took }))
}

/// Asks a listed member at its client URLs, one after the other, until the member itself answers.
async fn ask_member(id: MemberId, urls: Vec<String>, connect: &ConnectOptions) -> (MemberId, Heard) {
    let mut silence =
        Silence { reason: "it has never started: the member list has no client URL of it".to_owned(), connected: false, is_denied: false };
    let mut at = String::new();
    for url in urls {
        // A member's word must not take the certificates off: what is sent there, and what comes back, would be anybody's.
        if connect.tls.is_some() && url.starts_with("http://") {
            silence = Silence {
                reason: format!("its client URL {url} is without TLS, and certificates are given"),
                connected: false,
                is_denied: false,
            };
            at = url;
            continue;
        }
        let heard = match ask(&url, connect).await {
            Ok(heard) => heard,
            Err(failure) => {
                (at, silence) = (url, Silence { reason: failure.what, connected: false, is_denied: false });
                continue;
            }
        };
        match &heard.answer {
            Ok((_, answer)) if answer.status.header.member_id == id => return (id, heard),
            Ok((_, answer)) => {
                let reason = format!("the client URL it advertises leads to member {}", answer.status.header.member_id);
                (at, silence) = (heard.endpoint, Silence { reason, connected: true, is_denied: false });
            }
            Err((said, _)) => {
                silence = said.clone();
                at = heard.endpoint;
            }
        }
    }
    let failure = Failure::failed(silence.reason.clone());
    (id, Heard { endpoint: at, answer: Err((silence, failure)) })
}

/// What is gathered while looking.
struct Round {
    taken: Timestamp,
    answers: BTreeMap<MemberId, (String, MemberAnswer)>,
    silent: BTreeMap<MemberId, (String, Silence)>,
    strangers: Vec<(String, Silence)>,
    links: BTreeMap<MemberId, MemberLink>,
    notes: Vec<String>,
    /// A member list that came from none of those that answered.
    seen: Vec<Member>,
}

impl Round {
    fn new(taken: Timestamp) -> Self {
        Self {
            taken,
            answers: BTreeMap::new(),
            silent: BTreeMap::new(),
            strangers: Vec::new(),
            links: BTreeMap::new(),
            notes: Vec::new(),
            seen: Vec::new(),
        }
    }

    fn hear(&mut self, heard: Heard) {
        let (link, answer) = match heard.answer {
            Ok(answer) => answer,
            Err((silence, _)) => return self.strangers.push((heard.endpoint, silence)),
        };
        let id = answer.status.header.member_id;
        if let Some((endpoint, other)) = self.answers.get(&id) {
            if other.cluster_id != answer.cluster_id {
                self.notes.push(format!("{endpoint} and {} both answer as member {id}, of different clusters", heard.endpoint));
            }
            return;
        }
        self.links.insert(id, link);
        self.answers.insert(id, (heard.endpoint, answer));
    }

    fn hear_of(&mut self, id: MemberId, heard: Heard) {
        match heard.answer {
            Ok(_) => self.hear(heard),
            Err((silence, _)) => drop(self.silent.insert(id, (heard.endpoint, silence))),
        }
    }

    /// The members, as the leader lists them: it is the one whose list changes first. Where it does not answer, or several claim to lead, every member
    /// that some list holds.
    fn listed(&self) -> BTreeMap<MemberId, Member> {
        let leaders: BTreeSet<MemberId> = self.answers.values().filter_map(|(_, answer)| answer.status.leader).collect();
        let clusters: BTreeSet<_> = self.answers.values().map(|(_, answer)| answer.cluster_id).collect();
        if let (1, 1, Some((_, leader))) = (leaders.len(), clusters.len(), leaders.first().and_then(|id| self.answers.get(id)))
            && let Ok(list) = &leader.listed
        {
            return list.iter().map(|member| (member.id, member.clone())).collect();
        }
        let mut lists: Vec<(bool, &Vec<Member>)> = self
            .answers
            .iter()
            .filter_map(|(id, (_, answer))| Some((answer.status.leader != Some(*id), answer.listed.as_ref().ok()?)))
            .collect();
        lists.sort_by_key(|(follower, _)| *follower);
        let mut all = BTreeMap::new();
        for member in lists.into_iter().flat_map(|(_, list)| list).chain(&self.seen) {
            all.entry(member.id).or_insert_with(|| member.clone());
        }
        all
    }

    /// Members that nobody answered for, with their client URLs. Endpoints that were already tried in vain are given to their members.
    fn undialled(&mut self) -> Vec<(MemberId, Vec<String>)> {
        let mut more = Vec::new();
        for (id, member) in self.listed() {
            if self.answers.contains_key(&id) {
                continue;
            }
            let own = |endpoint: &str| member.client_urls.iter().any(|url| url.trim_end_matches('/') == endpoint);
            match self.strangers.iter().position(|(endpoint, _)| own(endpoint)) {
                Some(at) => drop(self.silent.insert(id, self.strangers.remove(at))),
                None => more.push((id, member.client_urls.clone())),
            }
        }
        more
    }

    /// Asks everybody who follows a leader at once: listing alarms goes through the log, and nothing comes back from a member that is cut off.
    async fn alarms(&mut self) -> Option<Vec<etcd_api::Alarm>> {
        let follows = |id: &MemberId| self.answers.get(id).is_some_and(|(_, answer)| answer.status.leader.is_some());
        let asking: Vec<_> = self.links.iter().filter(|(id, _)| follows(id)).map(|(_, link)| Box::pin(alarms_of(link))).collect();
        let said = if asking.is_empty() {
            "no member that answers knows of a leader".to_owned()
        } else {
            match select_ok(asking).await {
                Ok((alarms, _)) => return Some(alarms),
                Err(error) => error,
            }
        };
        self.notes.push(format!("the alarms cannot be listed: {said}"));
        None
    }

    fn finish(mut self, alarms: Option<Vec<etcd_api::Alarm>>, talos: Option<Reached>) -> Looked {
        let mut listed = self.listed();
        let mut members = Vec::new();
        for (id, (endpoint, answer)) in std::mem::take(&mut self.answers) {
            let known = listed.remove(&id);
            let is_listed = known.is_some();
            let is_learner = known.as_ref().map_or(answer.status.is_learner, |member| member.is_learner);
            members.push(member_view(id, known, is_learner, is_listed, endpoint, Ok(answer)));
        }
        for (id, member) in listed {
            let (endpoint, silence) = self
                .silent
                .remove(&id)
                .unwrap_or_else(|| (String::new(), Silence { reason: "it was not asked".to_owned(), connected: false, is_denied: false }));
            let is_learner = member.is_learner;
            members.push(member_view(id, Some(member), is_learner, true, endpoint, Err(silence)));
        }
        members.sort_by_key(|member| member.id);
        let view =
            ClusterView { taken: self.taken, members, strangers: self.strangers, over_talos: talos.is_some(), alarms, notes: self.notes };
        Looked { view, links: self.links, talos }
    }
}

async fn alarms_of(link: &MemberLink) -> Result<Vec<etcd_api::Alarm>, String> {
    match link {
        MemberLink::Etcd(client) => client.alarms().await.map_err(|error| error.to_string()),
        MemberLink::Talos(node) => node.etcd_alarms().await.map_err(|error| error.to_string()),
    }
}

fn member_view(
    id: MemberId,
    known: Option<Member>,
    is_learner: bool,
    is_listed: bool,
    endpoint: String,
    answer: Result<MemberAnswer, Silence>,
) -> MemberView {
    let (name, peer_urls, client_urls) = known.map_or_else(Default::default, |member| (member.name, member.peer_urls, member.client_urls));
    MemberView { id, name, peer_urls, client_urls, is_learner, is_listed, endpoint, answer }
}
