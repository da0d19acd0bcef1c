//! What every [`Agent`] owes its callers, as code: the same obligations are run against
//! the fake, against the client over a real ttrpc server, and against the agent in a real machine.
//!
//! Each obligation is a function of its own that panics when it is not met; [`all`] runs them in
//! order. They need a sandbox, except those in [`guest`], and leave no container behind.

pub mod containers;
mod fixture;
pub mod guest;
pub mod processes;
pub mod streams;

pub use fixture::{Fixture, Workload};

use crate::Agent;

/// Creates the sandbox, runs every obligation, destroys the sandbox. `met` is told the name of each
/// obligation once it is met.
///
/// # Panics
/// At the first obligation that is not met.
pub async fn all(agent: &impl Agent, fixture: &impl Fixture, mut met: impl FnMut(&'static str)) {
    macro_rules! run {
        ($($obligation:path),+ $(,)?) => {$(
            $obligation(agent, fixture).await;
            met(stringify!($obligation));
        )+};
    }
    run!(
        guest::it_answers,
        guest::the_sandbox_is_created_once,
        containers::nothing_runs_before_the_start,
        containers::a_missing_command_is_told_and_leaves_nothing,
        containers::what_is_no_program_is_told_and_leaves_nothing,
        containers::a_second_create_leaves_the_first_alone,
        containers::an_unknown_container_is_told,
        containers::a_container_starts_once,
        containers::removal_ends_a_running_container,
        containers::a_removed_container_can_be_created_again,
        processes::everyone_who_waits_gets_the_exit_status,
        processes::a_dropped_wait_loses_nothing,
        processes::kill_and_term_end_a_process,
        processes::a_signal_to_all_ends_the_container,
        processes::a_signal_after_the_end_does_no_harm,
        processes::an_unknown_process_is_told,
        streams::stdout_and_stderr_come_apart_and_end,
        streams::a_read_brings_no_more_than_was_asked,
        streams::closing_stdin_ends_input_and_nothing_else,
        streams::a_mebibyte_passes_whole,
        streams::a_write_after_the_end_is_closed,
        streams::a_blocked_write_holds_up_no_signal,
        streams::a_process_without_a_terminal_has_no_size,
        guest::destroying_the_sandbox_ends_it,
    );
}
