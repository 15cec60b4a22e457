//! The contract of `ringway::worker::net`, proved on its three implementations: the ring, epoll and memory.
//!
//! `contract`, `park` and `splice` hold the tests, written once over a `Fixture`; `os` and `mem` hold what only one of them can show.

mod contract;
mod fixture;
mod mem;
mod os;
mod park;
mod splice;

/// Each test of the contract, on each implementation.
macro_rules! on_all {
    ($($room:ident::$name:ident),* $(,)?) => {
        mod ring {
            $(#[test] fn $name() { crate::fixture::on_ring(|f| crate::$room::$name(f)); })*
        }
        mod epoll {
            $(#[test] fn $name() { crate::fixture::on_epoll(|f| crate::$room::$name(f)); })*
        }
        mod memory {
            $(#[test] fn $name() { crate::fixture::on_mem(|f| crate::$room::$name(f)); })*
        }
    };
}

on_all!(
    contract::bytes_arrive_whole_and_in_order,
    contract::a_close_is_the_end_after_the_last_byte,
    contract::a_reset_is_an_error,
    contract::received_bytes_outlive_a_reset,
    contract::a_half_closed_stream_still_sends,
    contract::shutdown_wakes_a_recv,
    contract::shutdown_wakes_a_readable,
    contract::shutdown_read_loses_nothing_received,
    contract::recv_now_waits_for_nothing,
    contract::what_more_should_have_followed_goes_out_with_the_end,
    contract::shutdown_write_sends_the_end,
    contract::a_blocked_send_is_ended_by_shutdown,
    contract::a_blocked_send_goes_on_when_there_is_room,
    contract::a_send_to_a_closed_peer_fails_in_the_end,
    contract::recv_and_send_run_at_once,
    contract::a_refused_connect_is_an_error,
    contract::an_unanswered_connect_is_ended_by_shutdown,
    contract::a_unix_connect_needs_a_listener,
    contract::a_full_unix_queue_says_would_block,
    contract::a_storm_of_connections_is_accepted,
    contract::a_closed_listener_gives_what_is_queued,
    contract::closing_a_listener_wakes_its_accept,
    contract::accept_without_descriptors_gives_what_it_got,
    contract::quiet_and_gone_tell_what_the_peer_did,
    contract::the_doorbell_is_heard,
    contract::ticks_are_of_time_and_not_of_calls,
    contract::a_dropped_operation_leaks_no_stream,
    contract::spawned_tasks_run,
    splice::spliced_bytes_are_the_streams_bytes,
    splice::a_fill_takes_no_more_than_it_may,
    splice::bytes_before_others_go_first_and_also_alone,
    splice::a_fill_finds_the_end_after_the_last_byte,
    splice::a_fill_tells_of_a_reset_after_what_had_come,
    splice::shutdown_wakes_a_fill,
    splice::a_blocked_pour_is_ended_by_shutdown,
    splice::a_blocked_pour_goes_on_when_there_is_room,
    splice::a_stream_is_spliced_one_way_and_copied_the_other,
    park::a_parked_stream_stirs_once_for_bytes_an_end_or_a_reset,
    park::many_stir_at_once_and_each_is_told_once,
    park::a_parked_stream_that_is_closed_is_not_told,
    park::a_stream_need_not_stir_to_be_taken_up,
    park::a_detached_stream_goes_on_where_it_is_attached,
);
