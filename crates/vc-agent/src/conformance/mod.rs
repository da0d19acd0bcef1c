//! What every [`Agent`] owes its callers, as code: the same obligations are run against
//! the fake, against the client over a real ttrpc server, and against the agent in a real machine.
//!
//! Each obligation is a function of its own that panics when it is not met; [`all`] runs them in
//! order. They need a sandbox, except the first two and the last in [`guest`], and leave no container
//! behind.

pub mod containers;
pub mod exec;
mod fixture;
pub mod guest;
pub mod network;
pub mod processes;
pub mod streams;
pub mod system;
pub mod volumes;

pub use fixture::{Fixture, Workload};

use crate::Agent;

/// How many obligations there are.
pub const COUNT: usize = 57;

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
        guest::it_tells_what_it_can,
        guest::the_sandbox_is_created_once,
        guest::containers_can_bind_the_name_servers,
        guest::metrics_are_prometheus_text,
        guest::diagnostics_of_an_unknown_container_are_refused,
        guest::a_kill_for_want_of_memory_is_told,
        system::the_clock_can_be_set,
        system::entropy_is_taken,
        system::nothing_to_take_into_use_is_fine,
        system::a_memory_probe_needs_a_kernel_that_has_it,
        system::swap_that_is_not_there_is_refused,
        network::the_loopback_is_there,
        network::an_unknown_interface_is_refused,
        network::routes_are_set_and_listed,
        network::neighbors_are_taken,
        network::the_packet_filter_is_there_or_told_missing,
        volumes::a_file_arrives_whole,
        volumes::a_copied_file_replaces_another,
        volumes::files_are_taken_below_run_only,
        volumes::no_file_is_written_through_a_link,
        volumes::an_ephemeral_mount_can_be_resized,
        volumes::an_unknown_volume_is_refused,
        volumes::stale_shares_are_removed,
        containers::nothing_runs_before_the_start,
        containers::a_missing_command_is_told_and_leaves_nothing,
        containers::what_is_no_program_is_told_and_leaves_nothing,
        containers::a_second_create_leaves_the_first_alone,
        containers::an_unknown_container_is_told,
        containers::a_container_starts_once,
        containers::removal_ends_a_running_container,
        containers::a_removed_container_can_be_created_again,
        containers::a_paused_container_does_nothing,
        containers::a_paused_container_can_be_removed,
        containers::limits_can_be_changed,
        containers::figures_tell_what_is_used,
        processes::everyone_who_waits_gets_the_exit_status,
        processes::a_dropped_wait_loses_nothing,
        processes::kill_and_term_end_a_process,
        processes::a_signal_to_all_ends_the_container,
        processes::a_signal_after_the_end_does_no_harm,
        processes::an_unknown_process_is_told,
        exec::another_process_runs_beside_the_first,
        exec::a_bad_command_is_told_and_leaves_nothing,
        exec::a_process_needs_a_running_container,
        exec::a_name_is_free_once_its_process_was_waited_for,
        exec::signals_reach_whom_they_are_for,
        exec::no_process_outlives_its_container,
        exec::twenty_processes_at_once_lose_no_byte,
        exec::a_terminal_has_the_size_it_was_told,
        streams::stdout_and_stderr_come_apart_and_end,
        streams::a_read_brings_no_more_than_was_asked,
        streams::closing_stdin_ends_input_and_nothing_else,
        streams::a_mebibyte_passes_whole,
        streams::a_write_after_the_end_is_closed,
        streams::a_blocked_write_holds_up_no_signal,
        guest::destroying_the_sandbox_ends_it,
    );
}
