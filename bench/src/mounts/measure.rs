//! Interleaved rounds, medians, and ratios to the first contender.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::contenders::C_LIBMOUNT;
use crate::allocations;

/// One way to do a piece of work.
pub struct Contender<'w> {
    name: &'static str,
    /// The most its ratio to the floor may be, where the project has set itself one.
    reach: Option<f64>,
    /// Does the work once; whether the answer is right.
    work: Box<dyn FnMut() -> Result<bool> + 'w>,
}

impl<'w> Contender<'w> {
    /// Names a piece of work.
    pub fn new(name: &'static str, work: impl FnMut() -> Result<bool> + 'w) -> Self {
        Self { name, reach: None, work: Box::new(work) }
    }

    /// Sets the most its ratio to the floor may be.
    pub fn reaching(mut self, reach: Option<f64>) -> Self {
        self.reach = reach;
        self
    }
}

/// What one contender may take in all; slow ones run fewer rounds.
const BUDGET: Duration = Duration::from_secs(6);

/// Runs all contenders in turns and prints a line for each. The first is the floor.
///
/// Each runs twice in a round: cold, after a whole read of the mount table has filled the processor's caches with
/// other things, and warm, right after that.
pub fn report(contenders: &mut [Contender<'_>], rounds: usize) -> Result<()> {
    let mut times = vec![Times::default(); contenders.len()];
    let mut buffer = vec![0; 1 << 16];
    for _ in 0..rounds {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            if times.cold.iter().sum::<Duration>() < BUDGET {
                super::contenders::read_table(&mut buffer)?;
                times.cold.push(time(&mut contender.work));
                times.warm.push(time(&mut contender.work));
            }
        }
    }
    println!(
        "{:38} {:>9} {:>9} {:>10} {:>6} {:>8} {:>10}  answer",
        "", "cold", "warm", "cold time", "rounds", "allocs", "peak bytes"
    );
    let floor = (median(&mut times[0].cold), median(&mut times[0].warm));
    for (contender, times) in contenders.iter_mut().zip(&mut times) {
        print(contender, times, floor);
    }
    Ok(())
}

#[derive(Clone, Default)]
struct Times {
    cold: Vec<Duration>,
    warm: Vec<Duration>,
}

fn time(work: &mut dyn FnMut() -> Result<bool>) -> Duration {
    let start = Instant::now();
    // What is wrong with the answer is told once, when all is measured.
    let _ = black_box(work());
    start.elapsed()
}

fn print(contender: &mut Contender<'_>, times: &mut Times, floor: (Duration, Duration)) {
    let (cold_time, warm_time) = (median(&mut times.cold), median(&mut times.warm));
    let cold = cold_time.as_secs_f64() / floor.0.as_secs_f64();
    let warm = warm_time.as_secs_f64() / floor.1.as_secs_f64();
    let (answer, allocations) = allocations::count(|| (contender.work)());
    let answer = match answer {
        Ok(true) => "right".to_owned(),
        Ok(false) => "WRONG".to_owned(),
        Err(error) => format!("ERROR: {}", first_line(&format!("{error:#}"))),
    };
    let reach = match contender.reach {
        Some(reach) if cold <= reach => format!(", within {reach}"),
        Some(reach) if warm <= reach => format!(", within {reach} when warm"),
        Some(reach) => format!(", MISSES {reach}"),
        None => String::new(),
    };
    let counted = |number: String| if contender.name == C_LIBMOUNT { "-".to_owned() } else { number };
    println!(
        "{:38} {:>9} {:>9} {:>10} {:>6} {:>8} {:>10}  {answer}{reach}",
        contender.name,
        digits(cold),
        digits(warm),
        format!("{cold_time:.1?}"),
        times.cold.len(),
        counted(allocations.count.to_string()),
        counted(allocations.peak.to_string()),
    );
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Three digits that count.
fn digits(ratio: f64) -> String {
    match ratio {
        large if large >= 10.0 => format!("{large:.1}"),
        middle if middle >= 0.1 => format!("{middle:.3}"),
        small => format!("{small:.5}"),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(60).collect()
}
