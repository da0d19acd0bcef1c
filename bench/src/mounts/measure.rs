//! Interleaved rounds, medians, and ratios to the first contender.

use std::hint::black_box;
use std::time::Duration;

use anyhow::Result;
use nix::time::{ClockId, clock_gettime};

use super::contenders::{C_LIBMOUNT, read_table};
use crate::allocations;

/// One way to do a piece of work.
pub struct Contender<'w> {
    name: &'static str,
    /// The most its ratio to the floor may be, where the project has set itself one.
    reach: Option<f64>,
    /// The most it may have on the heap at a time, in bytes, likewise.
    heap: Option<i64>,
    job: Box<dyn Job + 'w>,
}

trait Job {
    /// Does the work once; how long the processor took for it.
    fn time(&mut self) -> Result<Duration>;
    /// Does the work once; whether the answer is right.
    fn check(&mut self) -> Result<bool>;
}

struct WorkAndCheck<W, C> {
    work: W,
    is_right: C,
}

impl<T, W: FnMut() -> Result<T>, C: Fn(T) -> bool> Job for WorkAndCheck<W, C> {
    fn time(&mut self) -> Result<Duration> {
        let start = processor_time()?;
        // What is wrong with the answer is told once, when all is measured.
        let answer = black_box((self.work)());
        let took = processor_time()?.saturating_sub(start);
        drop(answer);
        Ok(took)
    }

    fn check(&mut self) -> Result<bool> {
        (self.work)().map(&self.is_right)
    }
}

impl<'w> Contender<'w> {
    /// Names a piece of work; `is_right` looks at its answer, and is not timed.
    pub fn new<T>(
        name: &'static str,
        work: impl FnMut() -> Result<T> + 'w,
        is_right: impl Fn(T) -> bool + 'w,
    ) -> Self
    where
        T: 'w,
    {
        Self { name, reach: None, heap: None, job: Box::new(WorkAndCheck { work, is_right }) }
    }

    /// Sets the most its ratio to the floor may be.
    pub fn reaching(mut self, reach: Option<f64>) -> Self {
        self.reach = reach;
        self
    }

    /// Sets the most it may have on the heap at a time, in bytes.
    pub fn within_heap(mut self, bytes: i64) -> Self {
        self.heap = Some(bytes);
        self
    }
}

/// The time this thread had the processor. Nothing here waits for anything, so that is all it takes; by the clock, what
/// runs long would be charged for all other programs that run meanwhile, and what runs short for none.
fn processor_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// What one contender may take in all; slow ones run fewer rounds.
const BUDGET: Duration = Duration::from_secs(3);

/// Runs all contenders in turns and prints a line for each. The first is the floor.
///
/// Each runs twice in a round: cold, after a whole read of the mount table has filled the processor's caches with
/// other things, and warm, right after that. Each round starts with another one, so that nobody always runs after
/// the same one, whose memory is in the caches' place.
pub fn report(contenders: &mut [Contender<'_>], rounds: usize) -> Result<()> {
    let mut times = vec![Times::default(); contenders.len()];
    let mut buffer = vec![0; 1 << 16];
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            let index = (round + turn) % contenders.len();
            let times = &mut times[index];
            if times.cold.iter().sum::<Duration>() < BUDGET || index == 0 {
                read_table(&mut buffer)?;
                times.cold.push(contenders[index].job.time()?);
                times.warm.push(contenders[index].job.time()?);
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

fn print(contender: &mut Contender<'_>, times: &mut Times, floor: (Duration, Duration)) {
    let (cold_time, warm_time) = (median(&mut times.cold), median(&mut times.warm));
    let cold = cold_time.as_secs_f64() / floor.0.as_secs_f64();
    let warm = warm_time.as_secs_f64() / floor.1.as_secs_f64();
    let (answer, allocations) = allocations::count(|| contender.job.check());
    let mut verdict = match answer {
        Ok(true) => "right".to_owned(),
        Ok(false) => "WRONG".to_owned(),
        Err(error) => format!("ERROR: {}", first_line(&format!("{error:#}"))),
    };
    match contender.reach {
        Some(reach) if cold <= reach => verdict += &format!(", within {reach}"),
        Some(reach) if warm <= reach => verdict += &format!(", within {reach} when warm"),
        Some(reach) => verdict += &format!(", MISSES {reach}"),
        None => {}
    }
    match contender.heap {
        Some(heap) if allocations.peak <= heap => verdict += &format!(", within {heap} bytes"),
        Some(heap) => verdict += &format!(", MISSES {heap} bytes"),
        None => {}
    }
    let counted = |number: String| if contender.name == C_LIBMOUNT { "-".to_owned() } else { number };
    println!(
        "{:38} {:>9} {:>9} {:>10} {:>6} {:>8} {:>10}  {verdict}",
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
