//! The rules of the state machine, on examples and on arbitrary histories.

use proptest::prelude::*;

use super::*;

const START: i64 = 1_800_000_000;
const ALL: fn(Event) -> bool = |_| true;
const USUAL: fn(Event) -> bool = |event| event != Event::Warning && event != Event::Health;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(START + second).unwrap()
}

/// Plays a history of (second, situation) for a receiver that is reachable when `is_up` says so; what arrived, in order.
fn play(
    history: &[(i64, Situation)],
    hears: &dyn Fn(Event) -> bool,
    remind: Option<Duration>,
    is_up: impl Fn(i64) -> bool,
) -> (Vec<(i64, Event, bool)>, Line) {
    let mut line = Line::default();
    let mut arrived = Vec::new();
    for (second, situation) in history {
        let decision = decide(&line, situation, &Wishes { hears, remind }, at(*second));
        line = decision.line;
        if let Some(due) = decision.due {
            if is_up(*second) {
                line = delivered(&due, at(*second));
                arrived.push((*second, due.event, due.reminder));
            } else {
                line = not_delivered(&line, at(*second));
            }
        }
    }
    (arrived, line)
}

/// A condition looked at every so many seconds.
fn looks(from: i64, to: i64, every: usize, condition: Condition) -> Vec<(i64, Situation)> {
    (from..to).step_by(every).map(|second| (second, Situation::of(condition))).collect()
}

fn words(arrived: &[(i64, Event, bool)]) -> Vec<(i64, &'static str)> {
    arrived.iter().map(|(second, event, reminder)| (*second, if *reminder { "reminder" } else { event.word() })).collect()
}

#[test]
fn one_message_per_change_and_one_when_it_is_over() {
    let mut history = looks(0, 1_000, 60, Condition::Fine);
    history.extend(looks(1_000, 5_000, 60, Condition::Failed));
    history.extend(looks(5_000, 9_000, 60, Condition::Stale));
    history.extend(looks(9_000, 20_000, 60, Condition::Fine));
    let (arrived, line) = play(&history, &ALL, None, |_| true);
    assert_eq!(words(&arrived), [(1_000, "failed"), (5_000, "stale"), (9_000, "recovered")]);
    assert_eq!(line.told, None);
}

#[test]
fn reminders_come_while_it_lasts() {
    let history = looks(0, 10 * 3600, 60, Condition::Failed);
    let (arrived, _) = play(&history, &ALL, Some(Duration::from_secs(4 * 3600)), |_| true);
    assert_eq!(words(&arrived), [(0, "failed"), (4 * 3600, "reminder"), (8 * 3600, "reminder")]);
}

#[test]
fn what_comes_and_goes_is_told_as_it_is_in_the_end() {
    let flapping = |second: i64| Situation::of(if (second / 30) % 2 == 0 { Condition::Failed } else { Condition::Fine });
    let mut history: Vec<_> = (0..3_000).step_by(30).map(|second| (second, flapping(second))).collect();
    history.extend(looks(3_000, 6_000, 30, Condition::Fine));
    let (arrived, line) = play(&history, &ALL, None, |_| true);
    assert!(arrived.len() <= 3_000 / CHANGES_APART.as_secs() as usize + 2, "{arrived:?}");
    assert_eq!((words(&arrived).first(), line.told), (Some(&(0, "failed")), None));
}

#[test]
fn a_receiver_that_was_down_hears_how_it_is_now() {
    let mut history = looks(0, 3_600, 60, Condition::Failed);
    history.extend(looks(3_600, 7_200, 60, Condition::Stale));
    let (arrived, _) = play(&history, &ALL, None, |second| second > 5_000);
    assert_eq!(arrived.len(), 1);
    assert_eq!(arrived[0].1, Event::Stale);
    // What came and went meanwhile is nobody's news.
    history.extend(looks(7_200, 20_000, 60, Condition::Fine));
    let (arrived, line) = play(&history, &ALL, None, |second| second > 8_000);
    assert!(arrived.is_empty() && line.told.is_none(), "{arrived:?}");
    // A recovery that could not be told is told later.
    let (arrived, _) = play(&history, &ALL, None, |second| !(100..=10_000).contains(&second));
    assert_eq!(arrived.iter().map(|(_, event, _)| *event).collect::<Vec<_>>(), [Event::Failed, Event::Recovered]);
}

#[test]
fn tries_get_rarer() {
    let mut tries = 0;
    let mut line = Line::default();
    for second in 0..86_400 {
        let decision = decide(&line, &Situation::of(Condition::Failed), &Wishes { hears: &ALL, remind: None }, at(second));
        line = decision.line;
        if decision.due.is_some() {
            tries += 1;
            line = not_delivered(&line, at(second));
        }
    }
    assert!((40..60).contains(&tries), "{tries}");
}

#[test]
fn what_a_receiver_does_not_hear_of_is_no_recovery() {
    let only_failed = |event: Event| matches!(event, Event::Failed | Event::Recovered);
    let mut history = looks(0, 1_000, 60, Condition::Failed);
    history.extend(looks(1_000, 2_000, 60, Condition::Stale));
    history.extend(looks(2_000, 3_000, 60, Condition::Failed));
    let (arrived, _) = play(&history, &only_failed, None, |_| true);
    assert_eq!(words(&arrived), [(0, "failed")]);
    history.extend(looks(3_000, 4_000, 60, Condition::Warning));
    let (arrived, _) = play(&history, &only_failed, None, |_| true);
    assert_eq!(words(&arrived), [(0, "failed"), (3_000, "recovered")], "a backup with warnings is a backup");
    // Who does not hear of recoveries still hears of the next failure.
    history.extend(looks(4_000, 5_000, 60, Condition::Failed));
    let (arrived, _) = play(&history, &|event| event == Event::Failed, None, |_| true);
    assert_eq!(words(&arrived), [(0, "failed"), (4_000, "failed")]);
}

#[test]
fn another_case_of_the_same_is_news() {
    let history =
        [(0, "a"), (600, "a"), (1_200, "a b"), (1_800, "a b")].map(|(second, about)| (second, Situation::about(Condition::Damaged, about)));
    let (arrived, _) = play(&history, &ALL, None, |_| true);
    assert_eq!(words(&arrived), [(0, "damaged"), (1_200, "damaged")]);
}

#[test]
fn a_clock_that_goes_back_mutes_nobody() {
    let mut line = Line { at: Some(at(1_000_000)), missed: Some(at(1_000_000)), misses: 9, ..Line::default() };
    let wishes = Wishes { hears: &ALL, remind: None };
    let mut told = None;
    for second in (0..7_200).step_by(60) {
        let decision = decide(&line, &Situation::of(Condition::Failed), &wishes, at(second));
        line = decision.line;
        told = told.or(decision.due.map(|_| second));
    }
    assert!(told.is_some_and(|second| second <= TOLD_AGAIN_AFTER_MOST.as_secs() as i64 + 60), "{told:?}");
}

#[test]
fn the_lines_survive_as_json() {
    let mut lines = Lines::default();
    let line = Line { told: Some(Situation::about(Condition::Damaged, "x")), at: Some(at(1)), missed: Some(at(2)), misses: 3 };
    lines.set("prod", "slack", Topic::Content, line.clone());
    lines.set("prod", "gone", Topic::Health, Line::default());
    lines.set("gone", "slack", Topic::Drills, Line::default());
    let mut back: Lines = serde_json::from_str(&serde_json::to_string(&lines).unwrap()).unwrap();
    assert_eq!(back, lines);
    back.retain(|cluster| cluster == "prod", |receiver| receiver == "slack");
    assert_eq!((back.get("prod", "slack", Topic::Content), back.get("prod", "gone", Topic::Health)), (line, Line::default()));
    assert_eq!(serde_json::to_value(&back).unwrap().as_object().unwrap().len(), 1);
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        4 => Just(Condition::Fine),
        1 => Just(Condition::Warning),
        3 => Just(Condition::Failed),
        2 => Just(Condition::Stale),
        1 => Just(Condition::NeverRan),
    ]
}

proptest! {
    /// Whatever happens: the news alternate as they must, are apart, and the last one is true in the end.
    #[test]
    fn any_history_is_told_truly(
        steps in prop::collection::vec((1_i64..900, condition(), prop::bool::weighted(0.7)), 1..200),
        hears_all: bool,
        remind in prop::option::of(60_u64..7_200),
    ) {
        let hears: fn(Event) -> bool = if hears_all { ALL } else { USUAL };
        let mut second = 0;
        let mut history = Vec::new();
        let mut downs = std::collections::BTreeSet::new();
        for (pause, condition, is_up) in &steps {
            second += pause;
            history.push((second, Situation::of(*condition)));
            if !is_up {
                downs.insert(second);
            }
        }
        // At last it stays as it is, and the receiver is there.
        let last = steps[steps.len() - 1].1;
        history.extend(looks(second + 60, second + 3 * 3600, 60, last));
        let (arrived, line) = play(&history, &hears, remind.map(Duration::from_secs), |second| !downs.contains(&second));

        let end = if last == Condition::Fine || (last == Condition::Warning && !hears_all) { None } else { Some(Situation::of(last)) };
        prop_assert_eq!(&line.told, &end);
        let mut known: Option<Event> = None;
        let mut change_at = i64::MIN / 2;
        for (second, event, reminder) in &arrived {
            prop_assert!(hears(*event));
            if *reminder {
                prop_assert_eq!(known, Some(*event));
            } else {
                prop_assert!(second - change_at >= CHANGES_APART.as_secs() as i64, "{:?}", arrived);
                let expected_known = if *event == Event::Recovered { None } else { Some(*event) };
                prop_assert_ne!(known, expected_known, "nothing is told twice, and no recovery from nothing");
                known = expected_known;
            }
            change_at = *second;
            // What was told was so at that second.
            let so = history.iter().find(|(at, _)| at == second).unwrap().1.condition;
            let told = if *event == Event::Recovered { matches!(so, Condition::Fine | Condition::Warning) } else { so.event() == Some(*event) };
            prop_assert!(told);
        }
    }
}
