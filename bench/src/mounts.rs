//! Mount look-ups and whole tables, beside the peers, in one private mount namespace.

use anyhow::Result;

use crate::Options;

mod bare;
mod c_libmount;
mod contenders;
mod hard_cases;
mod measure;
mod world;

/// Prints the tables of results; exits with an error when vc-mountinfo gives a wrong answer.
pub fn run(options: &Options) -> Result<()> {
    for size in &options.sizes {
        let world = world::World::of_size(*size)?;
        let mounts = world.mounts()?;
        println!("\n== {mounts} mounts, mountinfo of {} bytes ==", world.table_length()?);
        println!("\n{} layers among them, times as a ratio to reading mountinfo once", world.layers().len());
        measure::report(&mut contenders::of_layers(&world, mounts)?, options.rounds)?;
        println!("\nthe whole table, times as a ratio to reading mountinfo once");
        measure::report(&mut contenders::of_table(mounts), options.rounds)?;
    }
    hard_cases::run()
}
