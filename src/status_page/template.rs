//! The page's HTML. maud escapes whatever is put in; only the style and the script go in as they are.

use super::history::Sample;
use super::{Asked, History, SCRIPT, STYLE, View};
use crate::access_log::rfc3339;
use crate::config::answer::{BackendStatus, ClusterStatus, StateWord, Worker};
use crate::config::events::Event;
use crate::config::orders::Wish;
use crate::config::state::Override;
use crate::explain::{self, Explanation};
use crate::limits;
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Height of a plot, in units of its own.
const HEIGHT: f64 = 40.0;

/// The whole page. Its parts with an id are what the script replaces.
pub fn write(view: &View) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Ringway" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (summary(view))
                main {
                    (plots(view.history))
                    (clusters(view))
                    (explain_box(view.asked, view.explained.as_ref()))
                    (events(view))
                    (cores(&view.status.workers))
                    (listeners(view))
                }
                footer {
                    a href="metrics" { "metrics" } " " a href="ready" { "ready" } " " a href="live" { "live" }
                    span id="beat" { "Times are those of " (view.now) " s since 1970 UTC." }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

fn summary(view: &View) -> Markup {
    let status = &view.status;
    let connections: u64 = status.workers.iter().map(|worker| worker.connections).sum();
    let [up, down, drain, maint] = view.endpoints;
    html! {
        header id="summary" {
            h1 { "Ringway " small { (status.version) } }
            p .flags {
                @if status.draining { strong .bad { "draining" } }
                @else if view.ready { strong .good { "ready" } }
                @else { strong .bad { "told not to be ready" } }
                @if view.refused { strong .bad { "the latest reload was rejected: the file is not what runs" } }
                @match view.troubled {
                    0 => strong .good { "no cluster in trouble" },
                    1 => strong .bad { "1 cluster in trouble" },
                    n => strong .bad { (n) " clusters in trouble" },
                }
            }
            dl {
                (fact("up for", span(status.uptime)))
                (fact("generation", status.generation))
                (fact("epoch", status.epoch))
                (fact("driver", &status.driver))
                (fact("clusters", view.clusters.0))
                (fact("backends up", up))
                @for (name, n) in [("down", down), ("draining", drain), ("in maintenance", maint)] {
                    @if n > 0 { (fact(name, n)) }
                }
                (fact("connections", connections))
            }
        }
    }
}

fn fact(name: &str, value: impl maud::Render) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// A line of a plot: its name and where its values are.
type Line = (&'static str, fn(&Sample) -> Option<f64>);

fn plots(history: &History) -> Markup {
    let errors = if history.has_heads() { "5xx" } else { "own 5xx" };
    let rate: [Line; 1] = [("requests", |s| Some(s.requests))];
    let fails: [Line; 1] = [(errors, |s| Some(s.errors))];
    let heads: [Line; 2] = [("mean", |s| s.mean_us.map(ms)), ("99 %", |s| s.p99_us.map(ms))];
    let load: [Line; 1] = [("busiest core", |s| Some(s.load))];
    html! {
        section id="plots" {
            (plot("Requests", "/s", &rate, history))
            (plot("Answered with 5xx", "/s", &fails, history))
            @if history.has_heads() {
                (plot("Response heads", " ms", &heads, history))
            } @else {
                figure { figcaption { "Response heads" }
                    p {
                        "Not plotted: there are too many backends to look at each once a second. "
                        a href="metrics" { "metrics" } " has them."
                    }
                }
            }
            (plot("Load", " %", &load, history))
        }
    }
}

fn ms(us: f64) -> f64 {
    us / 1000.0
}

fn plot(title: &str, unit: &str, lines: &[Line], history: &History) -> Markup {
    let most = lines.iter().map(|(_, of)| history.most(*of)).fold(0.0, f64::max);
    let latest = history.latest();
    html! {
        figure {
            figcaption {
                (title)
                @for (nth, (name, of)) in lines.iter().enumerate() {
                    span class=(if nth == 0 { "one" } else { "two" }) {
                        @if lines.len() > 1 || *name == "busiest core" { (name) " " }
                        b { @match of(&latest) { Some(value) => { (short(value)) (unit) }, None => "none" } }
                    }
                }
            }
            svg viewBox={ "0 -1 " (history.width()) " " (HEIGHT + 2.0) } preserveAspectRatio="none" role="img"
                aria-label={ (title) ", the latest " (span(history.width() as u64)) ", at most " (short(most)) (unit) } {
                @for (nth, (_, of)) in lines.iter().enumerate() {
                    path class=(if nth == 0 { "one" } else { "two" }) d=(history.line(*of, most, HEIGHT)) {}
                }
            }
            p .scale { span { (span(history.width() as u64)) } span { "at most " (short(most)) (unit) } }
        }
    }
}

/// A value with three figures or so.
fn short(value: f64) -> String {
    match value {
        v if v >= 100.0 || v == 0.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

fn clusters(view: &View) -> Markup {
    let (all, fitting) = view.clusters;
    let shown = view.order.len();
    html! {
        section id="clusters" {
            h2 { "Clusters" }
            form method="get" action="./" role="search" {
                label { "Name contains " input type="search" name="find" value=(view.asked.find); }
                button { "Find" }
            }
            @if shown < all {
                p { (shown) " of " (all) " are shown"
                    @if fitting < all { ", " (fitting) " fit" }
                    "; those in trouble come first." }
            }
            @for name in &view.order {
                @if let Some(cluster) = view.status.clusters.get(name) { (of_cluster(name, cluster, view.now)) }
            }
        }
    }
}

fn of_cluster(name: &str, cluster: &ClusterStatus, now: u64) -> Markup {
    let mut backends: Vec<_> = cluster.backends.iter().collect();
    // Stable: by name within each.
    backends.sort_by_key(|(_, backend)| (backend.state == StateWord::Up, backend.overrides.is_empty()));
    let rest = backends.len().saturating_sub(limits::PAGE_BACKENDS);
    html! {
        article {
            h3 { (name) }
            @if let Some(pause) = &cluster.paused {
                p .bad {
                    "Paused for " (span(now.saturating_sub(pause.since))) ", at most until "
                    (span(pause.until.saturating_sub(now))) " from now, by " (pause.who)
                    @if let Some(why) = &pause.why { ": " (why) }
                }
            }
            @if cluster.queued > 0 || cluster.queue_full > 0 || cluster.queue_timeouts > 0 {
                p {
                    (cluster.queued) " requests wait; so far " (cluster.waited) " had to, " (cluster.queue_full)
                    " found the queue full, " (cluster.queue_timeouts) " waited too long"
                }
            }
            @for (backend, why) in &cluster.unresolved {
                p .bad { (backend) " has no address: " (why) }
            }
            @if backends.is_empty() { p .bad { "It has no backend with an address." } }
            @else {
                table .backends {
                    (heads(&["Backend", "State", "Address"], &["Weight", "Now", "Requests", "4xx", "5xx", "Failed"]))
                    tbody {
                        @for (id, backend) in backends.iter().take(limits::PAGE_BACKENDS) {
                            (of_backend(name, id, backend, now))
                        }
                    }
                }
                @if rest > 0 { p { "and " (rest) " more; " code { "ringway ctl status" } " tells of all" } }
            }
        }
    }
}

fn of_backend(cluster: &str, id: &str, backend: &BackendStatus, now: u64) -> Markup {
    let (word, class) = state(backend.state);
    let failed = backend.connect_errors + backend.resets + backend.timeouts;
    html! {
        tr data-key={ (cluster) "/" (id) } {
            th scope="row" { (id) }
            td data-label="State" {
                strong class=(class) { (word) }
                @if backend.observed != backend.state { " (found " (state(backend.observed).0) ")" }
                " for " (span(now.saturating_sub(backend.since)))
                @if let Some(why) = &backend.why { p { (why) } }
                @if backend.state != StateWord::Up || backend.observed != StateWord::Up {
                    @if let Some(probe) = &backend.probe { p { "latest probe: " (probe) } }
                    @if let Some(at) = backend.next_probe { p { "next probe in " (span(at.saturating_sub(now))) } }
                }
                @for word in &backend.overrides { p { (of_override(word, now)) } }
            }
            td data-label="Address" { (backend.endpoint) }
            td .n data-label="Weight" { (backend.weight) }
            td .n data-label="Now" { (backend.in_flight) @if let Some(most) = backend.max_conns { " of " (most) } }
            td .n data-label="Requests" data-count=(backend.requests) { (backend.requests) }
            td .n data-label="4xx" data-count=(backend.statuses[3]) { (backend.statuses[3]) }
            td .n data-label="5xx" data-count=(backend.statuses[4]) { (backend.statuses[4]) }
            td .n data-label="Failed" data-count=(failed) { (failed) }
        }
    }
}

fn state(of: StateWord) -> (&'static str, &'static str) {
    match of {
        StateWord::Up => ("up", "good"),
        StateWord::Down => ("down", "bad"),
        StateWord::Drain => ("drain", "meant"),
        StateWord::Maint => ("maint", "meant"),
        StateWord::Other => ("unknown", "bad"),
    }
}

fn of_override(word: &Override, now: u64) -> Markup {
    html! {
        @match word.set {
            Wish::Drain => "drained",
            Wish::Maint => "put into maintenance",
            Wish::Up => "up",
            Wish::Weight(weight) => { "given weight " (weight) },
        }
        " by " (word.who) ", " (span(now.saturating_sub(word.since))) " ago"
        @if let Some(until) = word.until { ", for another " (span(until.saturating_sub(now))) }
        @if let Some(why) = &word.why { ": " (why) }
    }
}

fn explain_box(asked: &Asked, told: Option<&Result<Explanation, String>>) -> Markup {
    let method = if asked.method.is_empty() { "GET" } else { &asked.method };
    html! {
        section id="explain" {
            h2 { "Where would a request go?" }
            // The fragment brings the answer into view.
            form method="get" action="./#explain" {
                label .short { "Method " input name="method" value=(method) size="7"; }
                label { "URL " input name="url" value=(asked.url) placeholder="http://host/path" required; }
                label .short { "From " input name="from" value=(asked.from) placeholder="127.0.0.1" size="16"; }
                label { "Fields, one a line " textarea name="fields" rows="2" placeholder="Cookie: id=7" { (asked.fields) } }
                button { "Explain" }
            }
            p { "Nothing is sent anywhere: the functions that serve traffic are asked, with the states of now." }
            @match told {
                Some(Ok(told)) => pre id="told" { (explain::text(told)) },
                Some(Err(why)) => p id="told" .bad { (why) },
                None => {}
            }
        }
    }
}

fn events(view: &View) -> Markup {
    html! {
        section id="events" {
            h2 { "Events" }
            @if view.events.is_empty() { p { "Nothing has happened yet." } }
            ol {
                @for event in &view.events { (of_event(event, view.now)) }
            }
        }
    }
}

fn of_event(event: &Event, now: u64) -> Markup {
    let at = event.at_us / 1_000_000;
    html! {
        li .bad[event.what.is_bad()] {
            time datetime=(rfc3339(at)) title=(rfc3339(at)) { (span(now.saturating_sub(at))) " ago" }
            span { (event.text) }
        }
    }
}

/// The numbers of a core.
const CORE: &[&str] =
    &["Load", "Ran", "Late", "Connections", "Idle", "Requests", "To backends, idle", "Gave, took", "Longest turn"];

fn cores(workers: &[Worker]) -> Markup {
    let percent = |permille: u32| format!("{}.{} %", permille / 10, permille % 10);
    html! {
        section id="cores" {
            h2 { "Cores" }
            table {
                (heads(&["Core"], CORE))
                tbody {
                    @for worker in workers {
                        tr data-key={ "core/" (worker.core) } {
                            th scope="row" { (worker.core) }
                            td .n data-label="Load" { meter min="0" max="1000" value=(worker.load_permille) {} " " (percent(worker.load_permille)) }
                            td .n data-label="Ran" { (percent(worker.busy_permille)) }
                            td .n data-label="Late" { (short(ms(worker.lag_us as f64))) " ms" }
                            td .n data-label="Connections" { (worker.connections) }
                            td .n data-label="Idle" { (worker.idle) }
                            td .n data-label="Requests" data-count=(worker.exchanges) { (worker.exchanges) }
                            td .n data-label="To backends, idle" { (worker.pooled) }
                            td .n data-label="Gave, took" {
                                (worker.handed_out + worker.moved_out) ", " (worker.handed_in + worker.moved_in)
                            }
                            td .n data-label="Longest turn" { (short(ms(worker.longest_turn_us as f64))) " ms" }
                        }
                    }
                }
            }
        }
    }
}

/// The first line of a table: columns of words, then of numbers.
fn heads(words: &[&str], numbers: &[&str]) -> Markup {
    html! {
        thead {
            tr {
                @for name in words { th { (name) } }
                @for name in numbers { th .n { (name) } }
            }
        }
    }
}

fn listeners(view: &View) -> Markup {
    html! {
        section id="listeners" {
            h2 { "Listeners" }
            dl { @for (name, listener) in &view.status.listeners { (fact(name, &listener.address)) } }
        }
    }
}

/// A time in its two largest units.
pub fn span(seconds: u64) -> String {
    let parts = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let first = parts.iter().position(|(n, _)| *n > 0).unwrap_or(3);
    let shown: Vec<String> = parts[first..].iter().take(2).map(|(n, unit)| format!("{n}{unit}")).collect();
    shown.join(" ")
}
