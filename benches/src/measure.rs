//! Several programs measured in turns, so that all of them meet the machine in the same state.

use std::time::{Duration, Instant};

use anyhow::Result;

/// How long a turn is to take: long against a timer's resolution, short against the machine's moods.
const BURST: Duration = Duration::from_millis(100);
/// Turns of each participant, whatever they take, unless they take very long.
const MIN_ROUNDS: usize = 5;
const FEWEST_ROUNDS: usize = 2;
/// How far the minimum of rounds may stretch the planned time.
const STRETCH: f64 = 3.;

/// Does `steps` steps and tells the seconds of each.
pub type Burst<'a> = Box<dyn FnMut(usize) -> Result<Vec<f64>> + 'a>;

/// A program that is measured.
pub struct Participant<'a> {
    /// What the report calls it.
    pub name: String,
    burst: Burst<'a>,
    /// Rests when it has had its share of the time: for what is there for orientation only.
    may_rest: bool,
    steps: usize,
    spent: f64,
    times: Vec<f64>,
    error: Option<String>,
}

impl<'a> Participant<'a> {
    /// A program that takes turns.
    pub fn new(name: impl Into<String>, may_rest: bool, burst: Burst<'a>) -> Self {
        let name = name.into();
        Self { name, burst, may_rest, steps: 1, spent: 0., times: Vec::new(), error: None }
    }

    /// The last step says how many make a turn. One is enough for what is there for orientation only: it may be slow.
    fn prepare(&mut self) {
        let steps = if self.may_rest { 1 } else { 2 };
        if let Some(times) = self.run(steps) {
            let step = times.last().copied().unwrap_or(BURST.as_secs_f64());
            self.steps = steps_of_a_burst(step);
        }
    }

    fn run(&mut self, steps: usize) -> Option<Vec<f64>> {
        if self.error.is_some() {
            return None;
        }
        match (self.burst)(steps) {
            Ok(times) => Some(times),
            Err(error) => {
                self.error = Some(format!("{error:#}"));
                None
            }
        }
    }
}

/// What a participant took.
#[derive(Debug, Clone, PartialEq)]
pub struct Times {
    /// Whose they are.
    pub name: String,
    /// Seconds of the median step; `None` where it failed.
    pub median: Option<f64>,
    /// The quartiles of the steps.
    pub quartiles: Option<(f64, f64)>,
    /// How many were timed.
    pub steps: usize,
    /// Why it failed.
    pub error: Option<String>,
}

/// Measures all in turns for about `seconds`; also the number of rounds.
pub fn interleave(mut all: Vec<Participant<'_>>, seconds: f64) -> (Vec<Times>, usize) {
    all.iter_mut().for_each(Participant::prepare);
    let share = seconds / all.len().max(1) as f64;
    let start = Instant::now();
    let mut rounds = 0;
    while goes_on(rounds, start.elapsed().as_secs_f64(), seconds) {
        let count = all.len();
        for turn in 0..count {
            // Another one begins each round: none always follows the same one.
            let one = &mut all[(rounds + turn) % count];
            if one.may_rest && rounds >= FEWEST_ROUNDS && one.spent > share {
                continue;
            }
            let begun = Instant::now();
            if let Some(times) = one.run(one.steps) {
                one.times.extend(times);
            }
            one.spent += begun.elapsed().as_secs_f64();
        }
        rounds += 1;
    }
    (all.into_iter().map(finish).collect(), rounds)
}

fn goes_on(rounds: usize, elapsed: f64, seconds: f64) -> bool {
    let wanted = if elapsed < seconds * STRETCH { MIN_ROUNDS } else { FEWEST_ROUNDS };
    rounds < wanted || elapsed < seconds
}

fn steps_of_a_burst(step: f64) -> usize {
    ((BURST.as_secs_f64() / step.max(1e-9)) as usize).clamp(1, 1000)
}

fn finish(one: Participant<'_>) -> Times {
    let mut times = one.times;
    times.sort_by(f64::total_cmp);
    let failed = one.error.is_some();
    Times {
        name: one.name,
        median: quantile(&times, 0.5).filter(|_| !failed),
        quartiles: quantile(&times, 0.25).zip(quantile(&times, 0.75)).filter(|_| !failed),
        steps: times.len(),
        error: one.error,
    }
}

/// The quantile of sorted numbers, between two of them where it falls there.
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let place = q * sorted.len().checked_sub(1)? as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(low + (high - low) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_few_numbers() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[3.], 0.5), Some(3.));
        assert_eq!(quantile(&[1., 2.], 0.5), Some(1.5));
        assert_eq!(quantile(&[1., 2., 9.], 0.5), Some(2.));
        assert_eq!(quantile(&[0., 4., 8., 12.], 0.25), Some(3.));
    }

    #[test]
    fn all_take_turns_and_the_warm_up_does_not_count() {
        let calls = std::cell::RefCell::new(Vec::new());
        let one = |name: &'static str, step: f64| {
            let calls = &calls;
            let burst = move |n: usize| {
                calls.borrow_mut().push(name);
                Ok(vec![step; n])
            };
            Participant::new(name, false, Box::new(burst))
        };
        let (times, rounds) = interleave(vec![one("a", 0.06), one("b", 0.02)], 1e-9);
        assert_eq!(rounds, FEWEST_ROUNDS);
        assert_eq!(*calls.borrow(), ["a", "b", "a", "b", "b", "a"]);
        assert_eq!((times[0].steps, times[0].median), (2, Some(0.06)));
        assert_eq!((times[1].steps, times[1].median), (10, Some(0.02)));
    }

    #[test]
    fn a_failure_is_recorded_and_stops_nobody_else() {
        let bad = Participant::new("bad", false, Box::new(|_| anyhow::bail!("no such thing")));
        let good = Participant::new("good", false, Box::new(|n| Ok(vec![1.; n])));
        let (times, _) = interleave(vec![bad, good], 1e-9);
        assert_eq!(times[0].error.as_deref(), Some("no such thing"));
        assert_eq!((times[0].median, times[1].median), (None, Some(1.)));
    }

    #[test]
    fn rounds_end_by_time_but_not_before_there_are_enough() {
        assert!(goes_on(0, 0., 10.) && goes_on(4, 12., 10.) && goes_on(100, 9., 10.));
        assert!(!goes_on(5, 10., 10.) && !goes_on(2, 31., 10.));
        assert!(goes_on(1, 100., 10.));
    }

    #[test]
    fn a_turn_has_at_least_one_step() {
        assert_eq!(steps_of_a_burst(1.), 1);
        assert_eq!(steps_of_a_burst(0.0099), 10);
        assert_eq!(steps_of_a_burst(0.), 1000);
    }
}
