//! Every number of Ringway, in one place, with the relations between them asserted at compile time.
//!
//! Numbers that an operator may change have their default here and their key in `config/file.rs`.

/// Bytes of a request or response head, start line and final empty line included.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Field lines in one head or one trailer section.
pub const FIELDS_MAX: usize = 100;
/// Options in all Connection fields of one head: each is compared with every field name.
pub const CONNECTION_OPTIONS_MAX: usize = 32;
/// Empty lines tolerated before a request line (RFC 9112 section 2.2).
pub const LEADING_EMPTY_LINES_MAX: usize = 4;
/// Bytes of one chunk-size line with its extensions, CRLF included.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Bytes of all chunk extensions of one body: an endless stream of them is an attack (CVE-2023-39326).
pub const CHUNK_EXTENSION_BYTES_MAX: usize = 16 * 1024;
/// Bytes of one trailer section.
pub const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// Interim (1xx) responses that one exchange passes on before the backend is given up.
pub const INTERIM_RESPONSES_MAX: u32 = 16;

/// Free bytes before the first received byte of a pooled buffer: a chunk-size line or a rewritten head is put there.
pub const BUFFER_HEADROOM: usize = 1024;
/// Free bytes behind the last received byte of a pooled buffer: the framing behind a chunk is put there.
pub const BUFFER_TAIL: usize = 64;
/// Capacity of a small buffer: one head, or a 16 KiB body with its head in one read.
pub const BUFFER_SMALL_BYTES: usize = 20 * 1024;
/// Capacity of a large buffer: body relay after the first read.
pub const BUFFER_LARGE_BYTES: usize = 256 * 1024;
/// Large buffers that one core hands out before pumps go on with small ones.
pub const BUFFERS_LARGE_MAX: usize = 256;
/// Free small buffers that one core keeps.
pub const BUFFERS_SMALL_KEPT: usize = 8192;
/// Free large buffers that one core keeps: all there can be.
pub const BUFFERS_LARGE_KEPT: usize = 2 * BUFFERS_LARGE_MAX;
/// Small and large ones that one tick gives back, some 5 and 4 MiB: when a crowd has gone, its 128 MiB in one piece were a
/// turn of 7 ms in which the kernel took them apart.
pub const BUFFERS_SMALL_TRIMMED: usize = 256;
/// Large ones.
pub const BUFFERS_LARGE_TRIMMED: usize = 16;

/// Pipes that one worker has for spliced bodies, if the limit of open files allows as many.
pub const PIPES_MAX: usize = 64;
/// Capacity that a pipe is given: its slots are of a page, and hold a received fragment each, be it short or long.
pub const PIPE_BYTES: usize = 256 * 1024;
/// Capacity below which a pipe is of no use: what the kernel gives to a user with too many pipes.
pub const PIPE_BYTES_MIN: usize = 64 * 1024;
/// Bytes that go into a pipe at once.
pub const PIPE_FILL_MAX: u64 = 1024 * 1024;
/// Bytes of a body still to come from which on they are spliced and not copied.
pub const SPLICE_FROM: u64 = 128 * 1024;

/// Connections taken from one listener in one turn.
pub const ACCEPT_BATCH: usize = 64;
/// Descriptors for which there is room in the process's table from the start, if the limit of open files allows so many: 8 MiB.
pub const DESCRIPTOR_TABLE_MAX: u64 = 1 << 20;
/// Bytes that the kernel queues for a peer beyond what it has room for.
pub const UNSENT_BYTES: i32 = 512 * 1024;
/// Bytes at the front of a session's memory that most exchanges use, as rustc 1.95 lays it out (`-Zprint-type-sizes`): what
/// contains others stands before them.
pub const SESSION_HOT_BYTES: usize = 2048;
/// Length of a listener's queue of completed handshakes; the kernel caps it at net.core.somaxconn.
pub const LISTEN_BACKLOG: i32 = 4096;
/// Submission entries of one ring.
pub const RING_ENTRIES: u32 = 1024;
/// Completion entries of one ring: many connections may complete in one turn.
pub const RING_COMPLETIONS: u32 = 16 * 1024;
/// What one turn of the event loop may cost before other tasks wait for the next one: about its microseconds.
pub const TURN_BUDGET: i32 = 600;
/// Microseconds after which the same holds, whatever it has cost.
pub const TURN_US: u64 = 750;
/// What an operation costs, the request that is parsed or the answer that is written because of it included.
pub const TURN_OPERATION: i32 = 8;
/// Bytes that an operation copies for one unit more, out of memory that is in no cache.
pub const TURN_BYTES_PER_UNIT: usize = 1024;
/// So many times cheaper than a copied byte is one that is spliced.
pub const SPLICE_CHEAPER: usize = 4;
/// Bytes from which on an operation that waits for a turn stands in the line of the heavy ones.
pub const TURN_HEAVY: usize = 32 * 1024;
/// Receives and sends of one connection in a turn.
pub const TURN_SHARE: u8 = 2;
/// The same where a pipe is filled or poured: a head and 256 KiB go out within one turn.
pub const TURN_SHARE_SPLICED: u8 = 5;
/// Bytes of chunks from which on it counts that they are tiny.
pub const TURN_HARD: usize = 4 * 1024;
/// Tasks that are called in a turn because they waited for it.
pub const TURN_CALLED: usize = (TURN_BUDGET / TURN_OPERATION) as usize;
/// Of these, as many go before all others, so that no heavy one has a turn alone.
pub const TURN_LIGHT_FIRST: usize = 8;
/// Slow ones that go before the rest of them, as one heavy one does, so that they always get on: 5,000 a second in the longest
/// turns.
pub const TURN_SLOW_FIRST: usize = 8;
/// Heavy ones that go behind them, while the turn has not lasted [`TURN_HEAVY_US`]: another turn costs 1 us.
pub const TURN_HEAVY_LAST: usize = 6;
/// Microseconds.
pub const TURN_HEAVY_US: u64 = 200;
/// Slow ones that go behind all others.
pub const TURN_SLOW_LAST: usize = 64;
/// Watches that the clock fires, and clients it asks about, in one turn.
pub const TURN_FIRED: usize = 128;
/// Sessions whose memory is given back in one turn.
pub const TURN_FREED: usize = 128;
/// Microseconds within which turns are not told apart.
pub const TURN_RESOLUTION_US: u64 = 250;
/// Milliseconds between two ticks of a worker's clock; the resolution of every deadline.
pub const TICK_MS: u64 = 1000;

/// Load of a core, in thousandths, from which on it may give work away: below, nobody waits long enough to gain by it.
pub const EVEN_FROM_LOAD: u32 = 600;
/// Thousandths by which its load is above another core's then. Less comes and goes by itself from one second to the next.
pub const EVEN_FROM_GAP: u32 = 200;
/// Load from which on a core may have any number of requests waiting; two such are told apart by how long their turns are.
pub const EVEN_FULL_LOAD: u32 = 800;
/// Thousandths by which the turns of one of them are longer then, of its own.
pub const EVEN_FROM_TURNS: u32 = 333;
/// Looks in a row, a second each, at which that has to be so: one burst is over before anything has moved.
pub const EVEN_LOOKS: u32 = 2;
/// Looks for which two cores are left alone after a move: one in which it happens, two whole ones in which it is seen.
pub const EVEN_RESTS: u32 = 4;
/// Looks for which a core that has received gives nothing.
pub const EVEN_KEEPS: u32 = 12;
/// The most newcomers, in thousandths, that are given away: some stay, so that it is seen how they do.
pub const EVEN_NEWCOMERS_MAX: u32 = 900;
/// What remains of that with each look at which the core is not hot any more, in thousandths.
pub const EVEN_NEWCOMERS_KEPT: u32 = 950;
/// Connections that are moved by one order; the heaviest ones are, so that more would change little.
pub const EVEN_MOVES_MAX: usize = 256;
/// Ticks after which an order holds no more, should control stand still, and after which one that was chosen to move stays
/// if it never was between two requests.
pub const EVEN_LASTS_TICKS: u32 = 4;
/// Connections that one core may have been given and not taken up yet.
pub const EVEN_WAITING_MAX: usize = 256;
/// Thousandths of the connections that a core may have from which on nobody is sent to it.
pub const EVEN_FULL: u64 = 900;
/// Microseconds for which connections are weighed at least before some are chosen.
pub const WEIGH_US_MIN: u64 = 400_000;
/// Microseconds that a call of a connection's task costs beside those it takes: what the kernel does for it later.
pub const WEIGH_CALL_US: u64 = 4;
/// Connections that are weighed at a time; where there are more, the light ones are forgotten.
pub const WEIGHED_MAX: usize = 8 * 1024;
/// Connections of each core that are named where somebody asks what makes it slow.
pub const WEIGHED_SHOWN: usize = 5;
/// Milliseconds for which connections are weighed where it is asked what makes a core slow, and the most of that.
pub const WEIGH_MS: u64 = 1000;
/// See [`WEIGH_MS`].
pub const WEIGH_MS_MAX: u64 = 60_000;

/// Bytes read and thrown away after an answer that left request bytes unread (RFC 9112 section 9.6).
pub const LINGER_BYTES_MAX: usize = 256 * 1024;
/// Ticks that the above may take.
pub const LINGER_TICKS: u32 = 2;
/// Age in ticks from which an exchange is looked at for a client that has gone.
pub const CLIENT_GONE_AGE_TICKS: u32 = 1;
/// Bytes per second below which a client's body counts as stalled, time in which nobody reads not counted.
pub const CLIENT_RATE_MIN: u64 = 240;
/// Seconds of grace before that rate is asked for.
pub const CLIENT_RATE_GRACE_SECONDS: u64 = 5;

/// Bytes of a host name that is looked up (RFC 1035 section 2.3.4); a longer one matches only the default.
pub const HOST_BYTES_MAX: usize = 255;

/// Default failures in a row that mark a backend down.
pub const FAILURES_TO_DOWN: u32 = 3;
/// Default seconds a backend stays down before it is probed.
pub const HOLD_DOWN_SECONDS: u32 = 30;
/// Default seconds that a hold-down doubles to, at most.
pub const HOLD_DOWN_MAX_SECONDS: u32 = 300;
/// Steps in which a backend's share grows after a good probe.
pub const SLOW_START_STEPS: u32 = 10;
/// Default percent of failures that mark a backend down, where a rate is asked for.
pub const FAILURE_PERCENT: u32 = 50;
/// Default requests that must have ended for that.
pub const FAILURE_REQUESTS: u32 = 20;
/// Default seconds within which they must have.
pub const FAILURE_WITHIN_SECONDS: u32 = 10;
/// Default seconds between two active checks.
pub const CHECK_SECONDS: u32 = 30;
/// Default good checks in a row that bring a backend up.
pub const CHECK_RISE: u32 = 1;
/// Default bad checks in a row that mark a backend down.
pub const CHECK_FALL: u32 = 3;
/// Default seconds one probe may take.
pub const PROBE_SECONDS: u32 = 5;
/// Bytes of an answer's body in which a probe looks for its text.
pub const PROBE_BODY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the text that a probe looks for.
pub const PROBE_TEXT_BYTES_MAX: usize = 1024;
/// Probes under way at one time; more wait for the next tick.
pub const PROBES_MAX: usize = 256;
/// Milliseconds after its timeout at which a probe counts as failed whose verdict never came.
pub const PROBE_LOST_MS: u64 = 5_000;
/// Ticks by which the clocks of two cores may differ: one for their different beginnings, one for rounding.
pub const CORE_SKEW_TICKS: u32 = 2;
/// Addresses of one backend's name that are used, in ascending order.
pub const ADDRESSES_PER_NAME_MAX: usize = 64;
/// Milliseconds after a stop signal in which another one counts as the same.
pub const STOP_AGAIN_MS: u64 = 300;
/// Seconds that a core may stay silent after its drain should have ended, before control stops without it.
pub const DRAIN_GRACE_SECONDS: u64 = 2;
/// Backends of one cluster that one exchange remembers as tried.
pub const TRIED_MAX: usize = 16;
/// What a weight of 1 is in published states, so that a part of it can be said.
pub const WEIGHT_ONE: u32 = 256;
/// Exchanges of one core that a backend may have before bounded load passes it over: below that, a key keeps its backend,
/// whatever the others have. As many as a browser has connections, and two.
pub const HASH_LOAD_FREE: u32 = 8;
/// Percent of its share that a backend may have where a cluster hashes.
pub const BOUNDED_LOAD_PERCENT: u32 = 125;
/// Largest such percentage.
pub const BOUNDED_LOAD_PERCENT_MAX: u32 = 10_000;

/// Reason codes that have a counter; at least as many as `exchange::Reason` has.
pub const REASONS_MAX: usize = 32;

/// Clients of the status listener at one time.
pub const STATUS_CLIENTS_MAX: usize = 64;
/// Bytes of one request head on the status listener.
pub const STATUS_HEAD_BYTES_MAX: usize = 8 * 1024;
/// Seconds a client of the status listener may take for a request head, or take no bytes of its answer.
pub const STATUS_STALL_SECONDS: u64 = 10;
/// Seconds it may take for a whole answer.
pub const STATUS_ANSWER_SECONDS: u64 = 60;
/// Seconds between two requests of one client: more than the usual interval of scrapes.
pub const STATUS_IDLE_SECONDS: u64 = 75;
/// Bytes sent to one client of the status listener before the control loop looks at everything else.
pub const STATUS_BYTES_PER_TURN: usize = 256 * 1024;
/// The metrics are written anew only after so many times the time that it took to write them: so this costs at most a
/// share of one core, whoever asks how often.
pub const METRICS_REST: u32 = 10;
/// Clusters on one status page, those in trouble first, and backends of each.
pub const PAGE_CLUSTERS: usize = 100;
/// See [`PAGE_CLUSTERS`].
pub const PAGE_BACKENDS: usize = 50;
/// Events on it.
pub const PAGE_EVENTS: usize = 50;
/// Seconds that it plots.
pub const PAGE_SAMPLES: usize = 300;
/// Places (backends and clusters, by core) that control looks at once a second for its plots; with more, some are left out.
pub const PAGE_CELLS_MAX: usize = 16 * 1024;
/// The next page is written only after so many times the time that the latest took: so pages cost control at most this
/// share of its time, whoever asks how often.
pub const PAGE_REST: u32 = 10;
/// Seconds without a tick after which a core counts as stuck.
pub const CORE_SILENT_SECONDS: u64 = 5;

/// Bytes of one request line on the control socket (a whole config file travels in one).
pub const CONTROL_LINE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes that all clients of the control socket together may have in unfinished lines.
pub const CONTROL_INPUT_BYTES_MAX: usize = 2 * CONTROL_LINE_BYTES_MAX;
/// Seconds a client of the control socket may take for the rest of a line, or to read its answer.
pub const CONTROL_STALL_SECONDS: u64 = 30;
/// Clients of the control socket at one time.
pub const CONTROL_CLIENTS_MAX: usize = 64;
/// Events that are kept for readers that come later or take them slowly.
pub const EVENTS_KEPT: usize = 4096;
/// Clients that may read the stream of events at once; the other places are for commands.
pub const EVENTS_READERS_MAX: usize = 16;
/// Bytes of events handed to one reader before everything else gets its turn.
pub const EVENTS_BYTES_PER_TURN: usize = 64 * 1024;
/// Exchanges that each core remembers because something went wrong in them, and bytes of each text in one.
pub const STORIES_KEPT: usize = 256;
/// See [`STORIES_KEPT`].
pub const STORY_TEXT_BYTES_MAX: usize = 128;
/// Most other exchanges that the config may have each core remember: some KiB each.
pub const RECENT_MAX: u32 = 16_384;
/// Stories in one answer to `why`.
pub const STORIES_ANSWERED: usize = 20;
/// Attempts that one story tells of.
pub const STORY_ATTEMPTS_MAX: usize = 16;
/// Refused messages that each core keeps of one kind (reason and side).
pub const MALFORMED_PER_KIND: usize = 4;
/// Bytes of all of them together.
pub const MALFORMED_BYTES_MAX: usize = 256 * 1024;
/// Bytes that are kept behind the fault of a message in which no end of a head was found: up to the end of the line, and no
/// more than this.
pub const MALFORMED_CONTEXT_BYTES: usize = 128;
/// Bytes of each name that is kept with one.
pub const MALFORMED_TEXT_BYTES_MAX: usize = 128;
/// Bytes of refused messages in one answer on the control socket; of those beyond it, only the place is told.
pub const MALFORMED_ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest weight of a backend.
pub const WEIGHT_MAX: u32 = 65_535;
/// Patches over the config file that are remembered one by one; the older half of more is taken together.
pub const PATCHES_MAX: usize = 64;
/// Overrides of backends at one time.
pub const OVERRIDES_MAX: usize = 10_000;
/// Seconds that workers get to take over a change before its receipt says who has not.
pub const ACKNOWLEDGE_SECONDS: u64 = 5;
/// Seconds that an answer may be held back until nothing remains on what was taken away.
pub const WAIT_SECONDS_MAX: u64 = 24 * 3600;
/// The same where the client does not say.
pub const WAIT_SECONDS: u64 = 60;
/// Default seconds of a pause, and the most that may be asked for.
pub const PAUSE_SECONDS: u64 = 30;
/// See [`PAUSE_SECONDS`].
pub const PAUSE_SECONDS_MAX: u64 = 600;
/// Lines a core may have queued at the log writer before lines are dropped and counted, in batches of `LOG_BATCH_BYTES`.
pub const LOG_BATCHES_MAX: usize = 32;
/// Bytes of log lines that one core collects before they are handed to the writer.
pub const LOG_BATCH_BYTES: usize = 64 * 1024;
/// Connections of one core from which on its idle ones are parked in an epoll set; below, each waits in a task of its own,
/// which costs some 1.1 KiB and up to a twentieth less CPU time per request.
pub const PARK_FROM: usize = 512;
/// Parked connections that are taken up at a time, before those that came to wait for a turn meanwhile.
pub const UNPARK_BATCH: usize = 64;
/// Parked connections whose deadlines are looked at before other tasks may run.
pub const PARKED_TICK_BATCH: usize = 16 * 1024;
/// Seconds between two resolutions of a name.
pub const RESOLVE_SECONDS: u64 = 30;
/// Seconds that the start and a reload wait for names; what has not resolved by then has no endpoints until it does.
pub const RESOLVE_PATIENCE_SECONDS: u64 = 5;
/// Milliseconds that the start waits for an address in use to become free, and between two tries.
pub const ADDRESS_PATIENCE_MS: u64 = 1000;
/// See [`ADDRESS_PATIENCE_MS`].
pub const ADDRESS_RETRY_MS: u64 = 20;
/// Threads that resolve names: so many may hang before the others wait.
pub const RESOLVE_THREADS: usize = 4;
/// Bytes of a request target that a log line shows; longer ones are cut.
pub const LOG_PATH_BYTES_MAX: usize = 4096;
/// Lines of the operational log that may wait for its writer before lines are dropped and counted.
pub const SAY_LINES_MAX: usize = 1024;
/// Bytes of a config file.
pub const CONFIG_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of a file that is imported; it is read as a whole.
pub const IMPORT_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Bytes of a line in the protocol of Redis.
pub const IMPORT_LINE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one reply of a Redis that is imported from.
pub const IMPORT_REPLY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Keys of a Redis that is imported from.
pub const IMPORT_KEYS_MAX: usize = 1_000_000;
/// Seconds that a Redis may be silent, and that all of an import from it may take.
pub const IMPORT_SILENCE_SECONDS: u64 = 10;
/// See [`IMPORT_SILENCE_SECONDS`].
pub const IMPORT_SECONDS_MAX: u64 = 300;
/// Bytes of one page file; it is part of an answer that is written in one piece.
pub const PAGE_BYTES_MAX: u64 = 64 * 1024;
/// Workers that may be configured.
pub const WORKERS_MAX: usize = 1024;
/// Client connections that may be configured, all workers together.
pub const CONNECTIONS_MAX: u32 = 16_000_000;

/// Default seconds for a whole request head.
pub const CLIENT_HEAD_SECONDS: u32 = 10;
/// Default seconds between two requests of one connection.
pub const CLIENT_IDLE_SECONDS: u32 = 60;
/// Default seconds of silence in a body, on either side.
pub const BODY_SECONDS: u32 = 30;
/// Default seconds to connect to a backend.
pub const CONNECT_SECONDS: u32 = 3;
/// Default seconds from the request sent to the response head.
pub const BACKEND_HEAD_SECONDS: u32 = 30;
/// Default seconds of silence in a tunnel.
pub const TUNNEL_SECONDS: u32 = 3600;
/// Default seconds that a pooled connection may idle: below the 5 s of common application servers.
pub const POOL_IDLE_SECONDS: u32 = 4;
/// Default idle connections that a worker keeps per backend. With 1,000 busy clients and 64 of them, every 20th request found
/// none: of 300 under way at once many end in one turn.
pub const POOL_DEFAULT: u32 = 256;
/// Idle connections per backend and worker that may be configured.
pub const POOL_MAX: u32 = 65_535;
/// Microseconds for which a connection has to idle until its backend is known to be one that keeps them: those that close
/// behind each answer and do not say so do it at once.
pub const POOL_KEPT_US: u64 = 50_000;
/// What it costs to close one, in looks at one that stays.
pub const POOL_CLOSE_CALLS: usize = 8;
/// Default attempts after the first.
pub const RETRIES: u32 = 3;
/// Attempts after the first that may be configured: all of them are remembered.
pub const RETRIES_MAX: u32 = TRIED_MAX as u32 - 1;
/// Default requests of one cluster that may wait for their turn, all workers together.
pub const QUEUE_MAX: u32 = 1024;
/// The most of those that may be configured.
pub const QUEUE_MAX_MAX: u32 = 1_000_000;
/// Default seconds that one of them may wait.
pub const QUEUE_SECONDS: u32 = 30;
/// Default retries of a cluster per hundred of its requests.
pub const RETRY_PERCENT: u32 = 20;
/// The most of those that may be configured.
pub const RETRY_PERCENT_MAX: u32 = 1000;
/// Default retries a second that a cluster affords whatever its requests are.
pub const RETRY_MIN_PER_SECOND: u32 = 10;
/// The most of those that may be configured.
pub const RETRY_MIN_PER_SECOND_MAX: u32 = 1_000_000;
/// Seconds over which a retry budget is kept: what was not spent for longer is lost.
pub const RETRY_BUDGET_SECONDS: u64 = 10;
/// Exchanges of one backend at once that may be configured.
pub const MAX_CONNS_MAX: u32 = 1_000_000;
/// Permits of a backend with `max_conns` that one core may have in store.
pub const PERMITS_SPARE_MAX: u32 = 16;
/// Default seconds of a drain.
pub const DRAIN_SECONDS: u32 = 30;
/// Default value of Retry-After when no backend is up.
pub const RETRY_AFTER_SECONDS: u32 = 10;

/// Descriptors that the process needs beside its workers: standard streams, log, control socket and status listener with
/// their clients, lock, signals, probes and name resolution, and what libraries open for a moment.
pub const DESCRIPTORS_PROCESS: u64 = 3 + (CONTROL_CLIENTS_MAX + STATUS_CLIENTS_MAX) as u64 + 61;
/// Descriptors that one worker needs beside listeners and connections: ring or epoll, timer, doorbells, spare.
pub const DESCRIPTORS_WORKER: u64 = 16;

const _: () = {
    // Offsets into a head are 16 bits wide (`http::Span`).
    assert!(HEAD_BYTES_MAX <= u16::MAX as usize);
    // A head fits the buffer it is received into, behind the headroom, with room for a read.
    assert!(BUFFER_HEADROOM + HEAD_BYTES_MAX + BUFFER_TAIL < BUFFER_SMALL_BYTES);
    // The benchmark's 16 KiB body and its head come in one read.
    assert!(BUFFER_HEADROOM + 16 * 1024 + 512 + BUFFER_TAIL <= BUFFER_SMALL_BYTES);
    assert!(BUFFER_SMALL_BYTES < BUFFER_LARGE_BYTES);
    assert!(CHUNK_LINE_BYTES_MAX < BUFFER_HEADROOM);
    assert!(TRAILER_BYTES_MAX + CHUNK_LINE_BYTES_MAX < BUFFER_SMALL_BYTES - BUFFER_HEADROOM);
    assert!(RING_ENTRIES < RING_COMPLETIONS);
    assert!(STATUS_HEAD_BYTES_MAX <= HEAD_BYTES_MAX);
    assert!(STATUS_STALL_SECONDS < STATUS_IDLE_SECONDS);
    assert!(TICK_MS == 1000);
    // Who is in a pause of the usual length is not sent away meanwhile.
    assert!(QUEUE_SECONDS as u64 >= PAUSE_SECONDS);
    assert!(HOLD_DOWN_SECONDS <= HOLD_DOWN_MAX_SECONDS);
    assert!(PROBE_TEXT_BYTES_MAX < PROBE_BODY_BYTES_MAX);
};
