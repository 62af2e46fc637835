//! Which member a backup is taken from, and in which order the others are tried. Pure: from what the members said to a list with reasons.

use etcd_store::id::MemberId;

use crate::failure::{Code, Failure, Outcome};
use crate::limits::MAX_APPLIED_LAG;

/// What is known of one member before a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: MemberId,
    /// Its name; empty for one that never started.
    pub name: String,
    /// The endpoint it was asked at.
    pub endpoint: String,
    /// What it said of itself, or why it said nothing.
    pub state: Result<CandidateState, String>,
}

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidateState {
    /// The leader it knows of.
    pub leader: Option<MemberId>,
    /// Whether it does not vote.
    pub is_learner: bool,
    /// The last raft index it applied.
    pub applied_index: u64,
    /// The size of its database file in bytes.
    pub db_size: u64,
    /// The part of it that is in use.
    pub db_size_in_use: u64,
    /// Errors it reports, alarms among them, in its own words.
    pub errors: Vec<String>,
    /// An alarm CORRUPT names it: etcd's own comparison found that it holds something else than the others.
    pub accused: bool,
    /// Whether it said all this. A Talos node may give its snapshot to a role it tells nothing else: then the rest is empty and no reproach.
    pub is_told: bool,
}

/// What the user asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Only this member: its name, its id in hexadecimal, or its endpoint.
    pub member: Option<String>,
    /// Fail unless every member answers and is healthy.
    pub require_healthy: bool,
    /// Take a member without a leader or with an alarm as well.
    pub degraded: bool,
    /// The member the newest backup came from; another follower is preferred, so that each has its turn.
    pub last: Option<MemberId>,
}

/// One member to be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Index in the list of candidates.
    pub candidate: usize,
    /// Why it stands where it stands, in words.
    pub reason: String,
    /// Whether it is only taken because a degraded member was allowed.
    pub degraded: bool,
}

/// The members to be tried, best first. At least one.
pub fn choose(candidates: &[Candidate], wish: &Wish) -> Outcome<Vec<Choice>> {
    if wish.require_healthy {
        require_healthy(candidates)?;
    }
    let picked = match &wish.member {
        Some(name) => vec![find(candidates, name)?],
        None => (0..candidates.len()).collect(),
    };
    let newest = candidates.iter().filter_map(|c| c.state.as_ref().ok()).map(|state| state.applied_index).max().unwrap_or(0);
    let mut ranked: Vec<(Rank, Choice)> = picked
        .into_iter()
        .filter_map(|at| {
            let candidate = &candidates[at];
            let state = candidate.state.as_ref().ok()?;
            let (rank, reason) = rank(candidate, state, newest, wish);
            Some((rank, Choice { candidate: at, reason, degraded: rank.trouble }))
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    if ranked.is_empty() {
        return Err(unreachable(candidates));
    }
    let all_in_trouble = ranked.iter().all(|(rank, _)| rank.trouble);
    if all_in_trouble && !wish.degraded {
        return Err(trouble(candidates));
    }
    Ok(ranked.into_iter().filter(|(rank, _)| wish.degraded || !rank.trouble).map(|(_, choice)| choice).collect())
}

/// Smaller is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    trouble: bool,
    accused: bool,
    behind: bool,
    leader: bool,
    had_its_turn: bool,
    id: MemberId,
}

fn rank(candidate: &Candidate, state: &CandidateState, newest: u64, wish: &Wish) -> (Rank, String) {
    let lag = newest.saturating_sub(state.applied_index);
    let is_leader = state.leader == Some(candidate.id);
    let trouble = state.is_told && (state.leader.is_none() || !state.errors.is_empty());
    // After the member of the last backup the next higher id has its turn, then around.
    let had_its_turn = wish.last.is_some_and(|last| candidate.id <= last);
    let rank = Rank {
        trouble,
        accused: state.accused,
        behind: state.is_told && lag > MAX_APPLIED_LAG,
        leader: is_leader,
        had_its_turn,
        id: candidate.id,
    };
    let role = match (is_leader, state.is_learner) {
        _ if !state.is_told => "it tells our role nothing but its snapshot",
        (true, _) => "the leader",
        (_, true) => "a learner",
        _ => "a follower",
    };
    let mut reason = if wish.member.is_some() { format!("asked for; {role}") } else { role.to_owned() };
    if state.accused {
        reason.push_str(", in trouble: the alarm CORRUPT names it");
    } else if trouble {
        let words = if state.leader.is_none() { "it has no leader".to_owned() } else { state.errors.join("; ") };
        reason.push_str(&format!(", in trouble: {words}"));
    } else if state.is_told && lag > MAX_APPLIED_LAG {
        reason.push_str(&format!(", {lag} raft entries behind"));
    } else if state.is_told {
        reason.push_str(", healthy and up to date");
    }
    (rank, reason)
}

fn find(candidates: &[Candidate], name: &str) -> Outcome<usize> {
    let id = name.parse::<MemberId>().ok();
    let found = candidates.iter().position(|c| c.name == name || c.endpoint == name || Some(c.id) == id);
    let at = found.ok_or_else(|| {
        let known: Vec<String> = candidates.iter().map(|c| format!("{} ({})", c.name, c.id)).collect();
        Failure::usage(format!("no member is called '{name}'"))
            .cause(format!("the members that were asked are {}", known.join(", ")))
            .again_with([
                "--member",
                candidates.first().map_or("", |c| if c.name.is_empty() { c.endpoint.as_str() } else { c.name.as_str() }),
            ])
    })?;
    match &candidates[at].state {
        Ok(_) => Ok(at),
        Err(error) => Err(Failure::new(Code::SourceUnreachable, format!("member '{name}' does not answer"))
            .object(&candidates[at].endpoint)
            .cause(format!("{error}; without --member one that answers is taken"))
            .again_without("--member")),
    }
}

fn require_healthy(candidates: &[Candidate]) -> Outcome<()> {
    for candidate in candidates {
        let (what, cause) = match &candidate.state {
            Err(error) => ("does not answer", error.clone()),
            Ok(state) if !state.is_told => {
                ("does not tell our role how it is", "this Talos tells os:etcd:backup nothing but the snapshot".to_owned())
            }
            Ok(state) if state.leader.is_none() => ("has no leader", "the cluster may have lost its quorum".to_owned()),
            Ok(state) if !state.errors.is_empty() => ("reports errors", state.errors.join("; ")),
            Ok(_) => continue,
        };
        return Err(Failure::failed(format!("member '{}' {what}, and --require-healthy wants every member healthy", candidate.name))
            .object(&candidate.endpoint)
            .cause(format!("{cause}; without --require-healthy a healthy member is taken"))
            .again_without("--require-healthy"));
    }
    Ok(())
}

fn unreachable(candidates: &[Candidate]) -> Failure {
    let said: Vec<String> = candidates.iter().filter_map(|c| Some(format!("{}: {}", c.endpoint, c.state.as_ref().err()?))).collect();
    Failure::new(Code::SourceUnreachable, "no member of the cluster answers")
        .object(candidates.iter().map(|c| c.endpoint.as_str()).collect::<Vec<_>>().join(", "))
        .cause(format!("{}; check that etcd runs there, or name others with --endpoints", said.join("; ")))
        .again()
}

fn trouble(candidates: &[Candidate]) -> Failure {
    let said: Vec<String> = candidates
        .iter()
        .filter_map(|c| {
            let state = c.state.as_ref().ok()?;
            let words = if state.leader.is_none() { "no leader".to_owned() } else { state.errors.join("; ") };
            Some(format!("{}: {words}", c.endpoint))
        })
        .collect();
    Failure::failed("every member that answers is in trouble")
        .cause(format!(
            "{}; --degraded takes the backup all the same and says so (exit 3), so that the trouble is mended with a backup at hand",
            said.join(", ")
        ))
        .again_with(["--degraded"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(id: u64, leader: u64, applied_index: u64) -> Candidate {
        Candidate {
            id: MemberId(id),
            name: format!("m{id}"),
            endpoint: format!("http://127.0.0.1:{id}"),
            state: Ok(CandidateState {
                leader: (leader != 0).then_some(MemberId(leader)),
                is_learner: false,
                applied_index,
                db_size: 1 << 20,
                db_size_in_use: 1 << 20,
                errors: Vec::new(),
                accused: false,
                is_told: true,
            }),
        }
    }

    fn order(candidates: &[Candidate], wish: &Wish) -> Vec<u64> {
        choose(candidates, wish).unwrap().iter().map(|choice| candidates[choice.candidate].id.0).collect()
    }

    #[test]
    fn followers_come_before_the_leader_and_have_their_turn() {
        let three = [candidate(1, 2, 100), candidate(2, 2, 100), candidate(3, 2, 100)];
        assert_eq!(order(&three, &Wish::default()), [1, 3, 2]);
        assert_eq!(order(&three, &Wish { last: Some(MemberId(1)), ..Wish::default() }), [3, 1, 2]);
        assert_eq!(order(&three, &Wish { last: Some(MemberId(3)), ..Wish::default() }), [1, 3, 2]);
    }

    #[test]
    fn a_follower_far_behind_comes_after_the_leader() {
        let three = [candidate(1, 2, 100), candidate(2, 2, 50_000), candidate(3, 2, 49_900)];
        assert_eq!(order(&three, &Wish::default()), [3, 2, 1]);
    }

    #[test]
    fn trouble_is_refused_unless_degraded_is_allowed() {
        let mut one = [candidate(1, 0, 100)];
        assert_eq!(choose(&one, &Wish::default()).unwrap_err().code, Code::Failed);
        let degraded = Wish { degraded: true, ..Wish::default() };
        assert!(choose(&one, &degraded).unwrap()[0].degraded);
        one[0].state = Err("connection refused".to_owned());
        assert_eq!(choose(&one, &degraded).unwrap_err().code, Code::SourceUnreachable);
    }

    #[test]
    fn a_member_that_the_alarm_corrupt_names_comes_last() {
        let mut three = [candidate(1, 2, 100), candidate(2, 2, 100), candidate(3, 2, 100)];
        for one in &mut three {
            let accused = one.id == MemberId(1);
            let state = one.state.as_mut().unwrap();
            // Every member reports the alarms of all.
            state.errors.push("memberID:1 alarm:CORRUPT".to_owned());
            state.accused = accused;
        }
        assert_eq!(choose(&three, &Wish::default()).unwrap_err().code, Code::Failed);
        let degraded = Wish { degraded: true, ..Wish::default() };
        assert_eq!(order(&three, &degraded), [3, 2, 1]);
        assert!(choose(&three, &degraded).unwrap()[2].reason.contains("CORRUPT names it"));
    }

    #[test]
    fn a_member_is_found_by_name_id_and_endpoint() {
        let three = [candidate(1, 2, 100), candidate(2, 2, 100), candidate(3, 2, 100)];
        for name in ["m3", "3", "0000000000000003", "http://127.0.0.1:3"] {
            let wish = Wish { member: Some(name.to_owned()), ..Wish::default() };
            assert_eq!(order(&three, &wish), [3], "{name}");
        }
        let wish = Wish { member: Some("m9".to_owned()), ..Wish::default() };
        assert_eq!(choose(&three, &wish).unwrap_err().code, Code::Usage);
    }

    #[test]
    fn require_healthy_wants_every_member() {
        let mut three = [candidate(1, 2, 100), candidate(2, 2, 100), candidate(3, 2, 100)];
        let wish = Wish { require_healthy: true, ..Wish::default() };
        assert_eq!(order(&three, &wish).len(), 3);
        three[2].state = Err("connection refused".to_owned());
        let failure = choose(&three, &wish).unwrap_err();
        assert_eq!(failure.code, Code::Failed);
        assert!(failure.what.contains("m3"));
    }
}
