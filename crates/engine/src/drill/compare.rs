//! Is what was booted what was backed up? Pure: what is stated, what was answered, and a verdict with a reason for each.

use vault::manifest::{HashKvValue, Manifest};
use vault::mark::Outcome as Ending;

use super::count::Counted;

/// One thing that was compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What: `hashkv`, `live-hashkv`, `revision`, `keys`, `prefixes`, `canary`, `members`, `alarms`. Stable.
    pub what: &'static str,
    /// What it came to.
    pub result: Ending,
    /// In words.
    pub words: String,
}

impl Check {
    pub(super) fn new(what: &'static str, result: Ending, words: impl Into<String>) -> Self {
        Self { what, result, words: words.into() }
    }

    fn of(what: &'static str, passed: bool, words: impl Into<String>) -> Self {
        Self::new(what, if passed { Ending::Passed } else { Ending::Failed }, words)
    }
}

/// What the backup and its restored database say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated {
    /// The backup's revision.
    pub revision: i64,
    /// Live keys, as the manifest says.
    pub keys: u64,
    /// Leases; when one ends, the keys on it go and the revision moves.
    pub leases: u64,
    /// What live members answered when the backup was taken.
    pub answers: Vec<HashKvValue>,
    /// Whether they agreed with the backup, as far as they could be compared then.
    pub agreed: bool,
    /// Live keys, as counted from the restored database.
    pub counted: Counted,
    /// The name of the only member that was restored.
    pub member: String,
}

impl Stated {
    pub(super) fn new(manifest: &Manifest, counted: Counted, member: &str) -> Self {
        let of_ours = |answer: &HashKvValue| answer.revision <= manifest.revision;
        let mut answers: Vec<HashKvValue> = manifest.hashkv.answers.iter().filter_map(|answer| answer.answer).filter(of_ours).collect();
        answers.sort_by_key(|answer| (std::cmp::Reverse(answer.revision), answer.compact_revision, answer.hash));
        Self {
            revision: manifest.revision,
            keys: manifest.counts.live_keys,
            leases: manifest.counts.leases,
            answers,
            agreed: manifest.hashkv.verdict.may_be_latest(),
            counted,
            member: member.to_owned(),
        }
    }
}

/// An answer, or in words why there is none.
pub type Answer<T> = Result<T, String>;

/// A member as the booted etcd lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Whether it has no vote.
    pub learner: bool,
}

/// What the booted etcd answered. Counts and canaries were read at the backup's revision, so that a lease that ended meanwhile changes none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Its revision.
    pub revision: Answer<i64>,
    /// HashKV at each of the revisions in [`Stated::answers`] that it still has.
    pub hashes: Vec<HashKvValue>,
    /// All live keys.
    pub keys: Answer<u64>,
    /// Live keys below each prefix in [`Counted::prefixes`], in that order; as far as was asked.
    pub prefixes: Answer<Vec<(Vec<u8>, u64)>>,
    /// Each canary with the length of its value; none where it is not there.
    pub canaries: Answer<Vec<(String, Option<usize>)>>,
    /// The members.
    pub members: Answer<Vec<Listed>>,
    /// Alarms, in words.
    pub alarms: Answer<Vec<String>>,
}

/// How many prefixes that differ are named.
const NAMED: usize = 5;

/// Compares. The proof by HashKV at the backup's revision is [`crate::try_etcd::Proof`], and not among these.
#[must_use]
pub fn compare(stated: &Stated, answered: &Answered) -> Vec<Check> {
    let mut checks = Vec::new();
    checks.extend(live(stated, &answered.hashes));
    checks.push(asked("revision", &answered.revision, |revision| revisions(stated, *revision)));
    checks.push(asked("keys", &answered.keys, |keys| {
        let all_equal = *keys == stated.keys && stated.counted.keys == stated.keys;
        let words = if all_equal {
            format!("{keys} live keys, as the manifest states")
        } else {
            format!("{keys} live keys; the manifest states {}, the file holds {}", stated.keys, stated.counted.keys)
        };
        Check::of("keys", all_equal, words)
    }));
    if !stated.counted.prefixes.is_empty() {
        checks.push(asked("prefixes", &answered.prefixes, |prefixes| counts(&stated.counted, prefixes)));
    }
    match &answered.canaries {
        Ok(canaries) => checks.extend(canaries.iter().map(|(key, value)| canary(key, *value))),
        Err(why) => checks.push(Check::new("canary", Ending::Inconclusive, why)),
    }
    checks.push(asked("members", &answered.members, |members| {
        let sound = matches!(&members[..], [only] if only.name == stated.member && !only.learner);
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        let words = if sound {
            "the one that was restored, and it votes".to_owned()
        } else {
            format!("'{}' alone was restored, it lists: {}", stated.member, names.join(", "))
        };
        Check::of("members", sound, words)
    }));
    checks.push(asked("alarms", &answered.alarms, |alarms| {
        Check::of("alarms", alarms.is_empty(), if alarms.is_empty() { "none".to_owned() } else { alarms.join(", ") })
    }));
    checks
}

fn asked<T>(what: &'static str, answer: &Answer<T>, judge: impl FnOnce(&T) -> Check) -> Check {
    match answer {
        Ok(answer) => judge(answer),
        Err(why) => Check::new(what, Ending::Inconclusive, why),
    }
}

/// What live members answered when the backup was taken, held against what the booted etcd answers now. None where nothing can be compared: that is no
/// fault of the backup, and the manifest's own value is compared in any case.
fn live(stated: &Stated, hashes: &[HashKvValue]) -> Option<Check> {
    let same_state = |answer: &HashKvValue, hash: &HashKvValue| {
        hash.revision == answer.revision && hash.compact_revision.max(0) == answer.compact_revision.max(0)
    };
    let compared: Vec<bool> = stated
        .answers
        .iter()
        .filter_map(|answer| hashes.iter().find(|hash| same_state(answer, hash)).map(|hash| hash.hash == answer.hash))
        .collect();
    let equal = compared.iter().filter(|equal| **equal).count();
    let all = compared.len();
    match (all, equal) {
        (0, _) => None,
        (_, 0) if stated.agreed => {
            Some(Check::of("live-hashkv", false, format!("none of {all} answers of live members is what it answers now")))
        }
        // The members were not of one mind then, and the manifest says so.
        (_, 0) => Some(Check::new("live-hashkv", Ending::Inconclusive, "the live members disputed the content when it was taken")),
        _ => Some(Check::of("live-hashkv", true, format!("as {equal} of {all} live members answered when it was taken"))),
    }
}

fn revisions(stated: &Stated, revision: i64) -> Check {
    let leases = format!("{revision}, {} after the backup's: leases ended since it was booted", revision - stated.revision);
    match revision.cmp(&stated.revision) {
        std::cmp::Ordering::Equal => Check::of("revision", true, format!("{revision}, the backup's")),
        std::cmp::Ordering::Greater if stated.leases > 0 => Check::of("revision", true, leases),
        _ => Check::of("revision", false, format!("{revision}, the backup's is {}", stated.revision)),
    }
}

fn counts(counted: &Counted, prefixes: &[(Vec<u8>, u64)]) -> Check {
    let wrong: Vec<String> = prefixes
        .iter()
        .filter_map(|(prefix, keys)| {
            let expected = counted.prefixes.get(prefix).copied().unwrap_or(0);
            (*keys != expected).then(|| format!("{}: {keys} keys, counted {expected}", prefix.escape_ascii()))
        })
        .collect();
    let all = counted.prefixes.len();
    if !wrong.is_empty() {
        let more = if wrong.len() > NAMED { format!("; {} more", wrong.len() - NAMED) } else { String::new() };
        return Check::of("prefixes", false, format!("{}{more}", wrong[..wrong.len().min(NAMED)].join("; ")));
    }
    if prefixes.len() < all {
        return Check::new("prefixes", Ending::Inconclusive, format!("{} of {all} prefixes were counted", prefixes.len()));
    }
    Check::of("prefixes", true, format!("{all} prefixes hold as many keys as counted in the file"))
}

fn canary(key: &str, value: Option<usize>) -> Check {
    match value {
        Some(0) => Check::of("canary", false, format!("{key} is there and empty")),
        Some(_) => Check::of("canary", true, format!("{key} is there")),
        None => Check::of("canary", false, format!("{key} is not there")),
    }
}

/// What a drill came to: failed if anything did, else inconclusive if anything was, and passed only if everything passed. Nothing at all proves nothing.
#[must_use]
pub fn verdict(checks: &[Check]) -> Ending {
    let any = |result: Ending| checks.iter().any(|check| check.result == result);
    if any(Ending::Failed) {
        Ending::Failed
    } else if any(Ending::Inconclusive) || checks.is_empty() {
        Ending::Inconclusive
    } else {
        Ending::Passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: HashKvValue = HashKvValue { hash: 7, revision: 30, compact_revision: 10 };

    fn sound() -> (Stated, Answered) {
        let prefixes = vec![(b"/r/a/".to_vec(), 2), (b"/r/b/".to_vec(), 3)];
        let stated = Stated {
            revision: 30,
            keys: 5,
            leases: 0,
            answers: vec![HASH],
            agreed: true,
            counted: Counted { keys: 5, prefixes: prefixes.iter().cloned().collect(), many: false },
            member: "m".to_owned(),
        };
        let answered = Answered {
            revision: Ok(30),
            hashes: vec![HASH],
            keys: Ok(5),
            prefixes: Ok(prefixes),
            canaries: Ok(vec![("/r/a/1".to_owned(), Some(3))]),
            members: Ok(vec![Listed { name: "m".to_owned(), learner: false }]),
            alarms: Ok(Vec::new()),
        };
        (stated, answered)
    }

    fn wrong(change: impl FnOnce(&mut Stated, &mut Answered)) -> (Ending, Vec<&'static str>) {
        let (mut stated, mut answered) = sound();
        change(&mut stated, &mut answered);
        let checks = compare(&stated, &answered);
        (verdict(&checks), checks.iter().filter(|check| check.result != Ending::Passed).map(|check| check.what).collect())
    }

    #[test]
    fn what_was_backed_up_passes() {
        let (stated, answered) = sound();
        let checks = compare(&stated, &answered);
        assert_eq!(verdict(&checks), Ending::Passed, "{checks:?}");
        let what: Vec<&str> = checks.iter().map(|check| check.what).collect();
        assert_eq!(what, ["live-hashkv", "revision", "keys", "prefixes", "canary", "members", "alarms"]);
        assert_eq!(verdict(&[]), Ending::Inconclusive);
    }

    #[test]
    fn each_difference_fails_and_is_named() {
        type Change = fn(&mut Stated, &mut Answered);
        let cases: [(&str, Change); 11] = [
            ("live-hashkv", |_, answered| answered.hashes[0].hash = 8),
            ("revision", |_, answered| answered.revision = Ok(29)),
            ("revision", |_, answered| answered.revision = Ok(31)),
            ("keys", |_, answered| answered.keys = Ok(4)),
            ("keys", |stated, _| stated.counted.keys = 4),
            ("prefixes", |_, answered| answered.prefixes = Ok(vec![(b"/r/a/".to_vec(), 1), (b"/r/b/".to_vec(), 4)])),
            ("canary", |_, answered| answered.canaries = Ok(vec![("x".to_owned(), None)])),
            ("canary", |_, answered| answered.canaries = Ok(vec![("x".to_owned(), Some(0))])),
            ("members", |_, answered| answered.members = Ok(vec![Listed { name: "m".to_owned(), learner: true }])),
            ("members", |_, answered| answered.members = Ok(Vec::new())),
            ("alarms", |_, answered| answered.alarms = Ok(vec!["NOSPACE".to_owned()])),
        ];
        for (what, change) in cases {
            assert_eq!(wrong(change), (Ending::Failed, vec![what]));
        }
    }

    #[test]
    fn what_was_not_answered_is_inconclusive_and_a_failure_beats_it() {
        let silent = |_: &mut Stated, answered: &mut Answered| answered.keys = Err("no answer".to_owned());
        assert_eq!(wrong(silent), (Ending::Inconclusive, vec!["keys"]));
        let both = |stated: &mut Stated, answered: &mut Answered| {
            silent(stated, answered);
            answered.alarms = Ok(vec!["CORRUPT".to_owned()]);
        };
        assert_eq!(wrong(both), (Ending::Failed, vec!["keys", "alarms"]));
        let few = |_: &mut Stated, answered: &mut Answered| answered.prefixes = Ok(vec![(b"/r/a/".to_vec(), 2)]);
        assert_eq!(wrong(few), (Ending::Inconclusive, vec!["prefixes"]));
    }

    #[test]
    fn leases_that_ended_move_the_revision_and_are_no_fault() {
        let ended = |stated: &mut Stated, answered: &mut Answered| (stated.leases, answered.revision) = (1, Ok(32));
        assert_eq!(wrong(ended), (Ending::Passed, Vec::new()));
        let back = |stated: &mut Stated, answered: &mut Answered| (stated.leases, answered.revision) = (1, Ok(29));
        assert_eq!(wrong(back), (Ending::Failed, vec!["revision"]));
    }

    #[test]
    fn live_answers_count_only_from_one_compact_revision() {
        let never = HashKvValue { compact_revision: 0, ..HASH };
        let minus = HashKvValue { compact_revision: -1, ..HASH };
        let with = |answers: Vec<HashKvValue>, agreed, hashes: Vec<HashKvValue>| {
            let (stated, _) = sound();
            live(&Stated { answers, agreed, ..stated }, &hashes).map(|check| check.result)
        };
        let other = HashKvValue { hash: 9, ..HASH };
        assert_eq!(with(vec![HASH], true, vec![never]), None);
        assert_eq!(with(vec![never], true, vec![minus]), Some(Ending::Passed));
        assert_eq!(with(vec![other, HASH], true, vec![HASH]), Some(Ending::Passed), "one member was another opinion");
        assert_eq!(with(vec![other], false, vec![HASH]), Some(Ending::Inconclusive));
        assert_eq!(with(Vec::new(), true, vec![HASH]), None);
    }
}
