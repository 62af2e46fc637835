//! Carrying a plan out.

use super::file::{Journal, Standing};
use super::{Event, Facts, Plan, Step};
use crate::failure::{Failure, Outcome};
use crate::limits::MAX_RETURNS;
use crate::progress::Progress;

/// What carrying a step out came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It has had its effect, and left this behind.
    Done(Facts),
    /// An earlier step, or this one, has lost its effect and is to be done again, with all after it.
    BackTo {
        /// The place of that step in the plan.
        step: usize,
        /// Why.
        reason: String,
    },
}

/// What knows how to do the steps of a plan.
pub trait Driver<P: Plan> {
    /// Whether a step that an earlier run began has had its effect already, going by the world as it is; then what it left behind. Changes nothing.
    fn already(&mut self, step: usize, journal: &Journal<P>) -> impl Future<Output = Outcome<Option<Facts>>>;

    /// Carries a step out. It may have been begun, and cut off anywhere, before.
    fn carry_out(&mut self, step: usize, notebook: &mut Notebook<'_, P>) -> impl Future<Output = Outcome<Turn>>;
}

/// The journal as a step sees it while it is carried out.
#[derive(Debug)]
pub struct Notebook<'a, P> {
    journal: &'a mut Journal<P>,
    step: usize,
}

impl<P: Plan> Notebook<'_, P> {
    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &P {
        self.journal.plan()
    }

    /// What the last step of this name left behind.
    #[must_use]
    pub fn facts(&self, name: &str) -> Option<&Facts> {
        self.journal.facts(name)
    }

    /// How often the plan went back to an earlier step.
    #[must_use]
    pub fn returns(&self) -> usize {
        self.journal.returns()
    }

    /// What every step of this name that is done left behind, in their order.
    #[must_use]
    pub fn all_facts(&self, name: &str) -> Vec<&Facts> {
        self.journal.all_facts(name)
    }

    /// What this step wanted remembered so far, in this run and in those before it.
    #[must_use]
    pub fn notes(&self) -> &[Facts] {
        self.journal.notes(self.step)
    }

    /// Remembers something. It is durable when this returns, so what it speaks of may be done then.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn note(&mut self, facts: Facts) -> Outcome<()> {
        self.journal.write(Event::Noted { step: self.step, facts })
    }
}

/// Carries out what is left of a plan. Dropped at any await, or killed anywhere, the next call goes on from there.
///
/// # Errors
/// What the first step that fails fails with; it is on record then, and the same call tries it again. A journal that cannot be written.
pub async fn run<P: Plan, D: Driver<P>>(journal: &mut Journal<P>, driver: &mut D, progress: &dyn Progress) -> Outcome<()> {
    run_before(journal, driver, progress, usize::MAX).await
}

/// As [`run`], and stops before the step at this place: something is asked first.
///
/// # Errors
/// As [`run`].
pub async fn run_before<P: Plan, D: Driver<P>>(
    journal: &mut Journal<P>,
    driver: &mut D,
    progress: &dyn Progress,
    end: usize,
) -> Outcome<()> {
    while let Some(step) = journal.next_step() {
        if step >= end {
            return Ok(());
        }
        let (name, words) = journal.plan().steps().get(step).map(|step| (step.name(), step.words())).unwrap_or_default();
        let of = journal.plan().steps().len();
        let before = journal.standing(step).clone();
        if before != Standing::Waiting {
            let already = driver.already(step, journal).await?;
            if let Some(facts) = already {
                progress.say(&format!("step {} of {of}: {words}: was done already", step + 1));
                // A step that failed in words and had its effect all the same is begun again for the record.
                if before != Standing::Begun {
                    journal.write(Event::Begun { step, name: name.to_owned() })?;
                }
                journal.write(Event::Done { step, facts })?;
                continue;
            }
        }
        progress.say(&format!("step {} of {of}: {words}", step + 1));
        journal.write(Event::Begun { step, name: name.to_owned() })?;
        match driver.carry_out(step, &mut Notebook { journal, step }).await {
            Ok(Turn::Done(facts)) => journal.write(Event::Done { step, facts })?,
            Ok(Turn::BackTo { step: back, reason }) => go_back(journal, back, reason, progress)?,
            Err(failure) => {
                // The failure is what matters; that it could not be recorded costs nothing, for the step counts as begun then.
                let _ = journal.write(Event::Failed { step, reason: reason(&failure) });
                return Err(failure);
            }
        }
    }
    if journal.is_open() { journal.write(Event::Finished) } else { Ok(()) }
}

fn go_back<P: Plan>(journal: &mut Journal<P>, step: usize, reason: String, progress: &dyn Progress) -> Outcome<()> {
    if journal.returns() >= MAX_RETURNS {
        return Err(Failure::failed(format!("the plan went back {MAX_RETURNS} times and does not come to its end"))
            .object(journal.path().display())
            .cause(reason)
            .again());
    }
    progress.say(&format!("back to step {}: {reason}", step + 1));
    journal.write(Event::Undone { step, reason })
}

fn reason(failure: &Failure) -> String {
    match &failure.cause {
        Some(cause) => format!("{}: {cause}", failure.what),
        None => failure.what.clone(),
    }
}
