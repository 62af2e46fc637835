//! The care verbs as a test runs them.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::binary::Lifeboat;
use crate::etcd::EtcdCluster;
use crate::run::{Finished, Run};

/// How long an effect may take on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// One who cares for a cluster.
#[derive(Debug)]
pub struct Care {
    /// The user.
    pub lifeboat: Lifeboat,
    /// The flags that lead to the cluster.
    pub flags: Vec<String>,
}

impl Care {
    /// Asks through the member at `index` alone; the others are found.
    #[must_use]
    pub fn through(cluster: &EtcdCluster, index: usize) -> Self {
        Self::with(cluster.member_flags(index))
    }

    /// Asks with these flags.
    #[must_use]
    pub fn with(flags: Vec<String>) -> Self {
        Self { lifeboat: Lifeboat::new(), flags }
    }

    /// `lifeboat etcd …`, as a command to which more can be added.
    #[must_use]
    pub fn cmd(&self, words: &[&str]) -> Run {
        self.lifeboat.cmd(["etcd"].iter().chain(words)).args(&self.flags)
    }

    /// The report of a verb that succeeds.
    #[must_use]
    pub fn json(&self, words: &[&str]) -> Value {
        self.cmd(words).args(["-o", "json"]).run().ok().json()
    }

    /// The error of a verb that ends with this code.
    #[must_use]
    pub fn error(&self, words: &[&str], code: i32) -> Value {
        let done = self.cmd(words).args(["-o", "json"]).run().exit(code);
        assert!(done.out().is_empty(), "a verb that fails reports nothing: {done}");
        error(&done)
    }

    /// The verdict, and check and member of every finding that is not well.
    #[must_use]
    pub fn health(&self) -> Health {
        let done = self.cmd(&["health", "-o", "json"]).run();
        let report = done.json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let findings = report["findings"].as_array().unwrap();
        let odd = findings.iter().filter(|finding| ["advice", "alert"].contains(&finding["verdict"].as_str().unwrap()));
        let odd: Vec<(String, String)> = odd.map(|finding| (text(&finding["check"]), text(&finding["member"]))).collect();
        for finding in findings.iter().filter(|finding| finding["verdict"] == "alert" || finding["verdict"] == "advice") {
            assert!(finding["means"].is_string(), "what is not well says what it means: {finding}");
        }
        let verdict = text(&report["verdict"]);
        let expected = match verdict.as_str() {
            "healthy" | "unknown" => 0,
            "advice" => 4,
            _ => 5,
        };
        Health { verdict, odd, report, done: done.exit(expected) }
    }

    /// Looks until the findings are as they should be: members need a moment to notice what became of the others.
    pub fn health_until(&self, what: &str, good: impl Fn(&Health) -> bool) -> Health {
        let until = Instant::now() + PATIENCE;
        loop {
            let health = self.health();
            if good(&health) {
                return health;
            }
            assert!(Instant::now() < until, "not seen: {what}\n{}", health.done);
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The lines of `members`.
    #[must_use]
    pub fn members(&self) -> Vec<Value> {
        self.json(&["members"])["members"].as_array().unwrap().clone()
    }

    /// The leader's name, as soon as every member that answers names the same.
    #[must_use]
    pub fn leader(&self) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let report = self.json(&["members"]);
            let members = report["members"].as_array().unwrap();
            if let Some(leader) = members.iter().find(|member| member["id"] == report["leader"]) {
                return leader["name"].as_str().unwrap().to_owned();
            }
            assert!(Instant::now() < until, "{report}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The cluster's id, which is its name where nobody gave it another.
    #[must_use]
    pub fn cluster_id(&self) -> String {
        self.json(&["members"])["cluster_id"].as_str().unwrap().to_owned()
    }
}

/// What `etcd health` said.
#[derive(Debug)]
pub struct Health {
    /// In all.
    pub verdict: String,
    /// Check and member of every finding that is not well.
    pub odd: Vec<(String, String)>,
    /// The whole report.
    pub report: Value,
    /// The run.
    pub done: Finished,
}

impl Health {
    /// Whether a check found fault with a member; with the whole cluster where that is empty.
    #[must_use]
    pub fn has(&self, check: &str, member: &str) -> bool {
        self.odd.iter().any(|(odd, of)| odd == check && of == member)
    }

    /// All findings that are not well but for those of `versions`: an old release in the test's own hand.
    #[must_use]
    pub fn own(&self) -> Vec<(&str, &str)> {
        self.odd.iter().map(|(check, member)| (check.as_str(), member.as_str())).filter(|(check, _)| *check != "versions").collect()
    }

    /// What a check says of a member, or of the whole cluster.
    #[must_use]
    pub fn says(&self, check: &str, member: &str) -> String {
        let findings = self.report["findings"].as_array().unwrap();
        let found = findings.iter().find(|finding| finding["check"] == check && finding["member"].as_str().unwrap_or_default() == member);
        found.unwrap_or_else(|| panic!("no finding {check} {member}: {}", self.report))["says"].as_str().unwrap().to_owned()
    }
}

/// The error that a run said in JSON.
#[must_use]
pub fn error(done: &Finished) -> Value {
    let line = done.err().lines().rev().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{done}")).to_owned();
    serde_json::from_str::<Value>(&line).unwrap()["error"].clone()
}
