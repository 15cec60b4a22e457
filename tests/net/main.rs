//! The contract of `ringway::worker::net`, proved on its three implementations: the ring, epoll and memory.
//!
//! `contract` holds the tests, written once over a `Fixture`; `os` and `mem` hold what only one of them can show.

mod contract;
mod fixture;
mod mem;
mod os;

/// Each test of the contract, on each implementation.
macro_rules! on_all {
    ($($name:ident),* $(,)?) => {
        mod ring {
            $(#[test] fn $name() { crate::fixture::on_ring(|f| crate::contract::$name(f)); })*
        }
        mod epoll {
            $(#[test] fn $name() { crate::fixture::on_epoll(|f| crate::contract::$name(f)); })*
        }
        mod memory {
            $(#[test] fn $name() { crate::fixture::on_mem(|f| crate::contract::$name(f)); })*
        }
    };
}

on_all!(
    bytes_arrive_whole_and_in_order,
    a_close_is_the_end_after_the_last_byte,
    a_reset_is_an_error,
    received_bytes_outlive_a_reset,
    a_half_closed_stream_still_sends,
    shutdown_wakes_a_recv,
    shutdown_wakes_a_readable,
    shutdown_read_loses_nothing_received,
    shutdown_write_sends_the_end,
    a_blocked_send_is_ended_by_shutdown,
    a_blocked_send_goes_on_when_there_is_room,
    a_send_to_a_closed_peer_fails_in_the_end,
    recv_and_send_run_at_once,
    a_refused_connect_is_an_error,
    an_unanswered_connect_is_ended_by_shutdown,
    a_unix_connect_needs_a_listener,
    a_full_unix_queue_says_would_block,
    a_storm_of_connections_is_accepted,
    a_closed_listener_gives_what_is_queued,
    closing_a_listener_wakes_its_accept,
    accept_without_descriptors_gives_what_it_got,
    quiet_and_gone_tell_what_the_peer_did,
    the_doorbell_is_heard,
    ticks_are_of_time_and_not_of_calls,
    a_dropped_operation_leaks_no_stream,
    spawned_tasks_run,
);
