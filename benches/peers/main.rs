//! Lookback beside Debian's VictoriaMetrics and Prometheus: the same workload loaded into each, the same
//! questions asked, on one machine, right after one another.
//!
//! ```text
//! cargo bench --bench peers                       # a day; minutes
//! cargo bench --bench peers -- --days 7           # the week by which README's figures were measured
//! cargo bench --bench peers -- --series 1000000   # memory of a million live series
//! cargo bench --bench peers -- --recommender      # what the VPA's recommender asks: 2,000 series, 8 days
//! cargo bench --bench peers -- --peers lookback   # one of them only
//! ```
//!
//! Senders, readers and servers share the machine: what is told are ratios, and CPU seconds of the
//! servers. A server that this machine does not have is skipped. Ports are free ones of loopback, data
//! lies in a temporary directory below `TMPDIR`.

mod ask;
mod bodies;
mod http;
mod load;
mod recommender;
mod server;
mod workload;

use ask::Question;
use load::Loaded;
use server::{Peer, Server};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use workload::{DAY_MS, SLOT_MS};

/// Rounds that are sent one sample of a series a request, 12.7 million samples; of a short time a third at most.
const LIVE_SLOTS: i64 = 4_608;
/// Rounds that are sent 20 samples of a series a request, made before the clock runs.
const BACK_FILL_SLOTS: i64 = 1_440;
const BACK_FILL_SAMPLES: i64 = 20;
/// How long a server is left alone before it counts as being at rest, and the longest that is waited.
const QUIET: Duration = Duration::from_secs(40);
const QUIET_AT_MOST: Duration = Duration::from_secs(240);
/// How long a question is asked, and how often.
const ASK: Duration = Duration::from_secs(4);
const ASK_ROUNDS: usize = 3;

struct Arguments {
    days: f64,
    series: Option<usize>,
    recommender: bool,
    peers: Vec<Peer>,
}

/// `None`: it is only to be seen that it starts, as by `cargo test --benches`.
fn arguments() -> Option<Arguments> {
    let mut read = Arguments { days: 1.0, series: None, recommender: false, peers: Peer::ALL.into() };
    let mut is_bench = false;
    let mut all = std::env::args().skip(1);
    while let Some(argument) = all.next() {
        let mut value = || all.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--bench" => is_bench = true,
            "--recommender" => read.recommender = true,
            "--days" => read.days = value().parse().expect("--days: a number"),
            "--series" => read.series = Some(value().parse().expect("--series: a number")),
            "--peers" => {
                let names = value();
                read.peers.retain(|peer| names.split(',').any(|name| name == peer.name()));
            }
            other => panic!("{other} is not known: see the head of benches/peers/main.rs"),
        }
    }
    is_bench.then_some(read)
}

fn main() {
    let Some(arguments) = arguments() else { return };
    match arguments.series {
        None if arguments.recommender => recommender::recommender(&arguments.peers),
        Some(series) => live_series(&arguments.peers, series),
        None => history(&arguments),
    }
}

fn start(peer: Peer, dir: &tempfile::TempDir, more: &[&str]) -> Option<Server> {
    let server = Server::start(peer, dir.path(), more);
    if server.is_none() {
        println!("SKIPPED: {}: this machine has no such command", peer.name());
    }
    server
}

/// Midnight before now, by which everything that was loaded is over.
fn end_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let now_ms = i64::try_from(now.as_millis()).expect("a time");
    (now_ms - 4_200_000).div_euclid(DAY_MS) * DAY_MS
}

/// What was measured of one server.
struct Measured {
    server: Server,
    dir: tempfile::TempDir,
    live: Loaded,
    back_fill: Loaded,
    rest: Loaded,
    bytes_per_sample: f64,
}

fn history(arguments: &Arguments) {
    let end_ms = end_ms();
    let start_ms = end_ms - (arguments.days * DAY_MS as f64) as i64;
    let mut all: Vec<Measured> = Vec::new();
    for peer in &arguments.peers {
        let dir = tempfile::tempdir().expect("a directory");
        let Some(server) = start(*peer, &dir, &[]) else { continue };
        all.push(load(server, dir, start_ms, end_ms));
    }
    tell_loading(&all);
    for question in Question::ALL {
        ask_all(&all, question, arguments.days, end_ms);
    }
    println!("\nmemory after the questions");
    for one in &all {
        println!(
            "  {:<18} {:>6.0} MB, peak {:.0} MB",
            name(&one.server),
            one.server.rss_mb(),
            one.server.peak_mb()
        );
    }
    println!("\nready after kill -9");
    for one in all {
        let peer = one.server.peer;
        let Some(server) = one.server.kill_and_start(&[]) else { continue };
        println!("  {:<18} {:>6.2} s", peer.name(), server.ready_s);
        if peer == Peer::Lookback {
            from_rollups(server, arguments.days, end_ms);
        }
        drop(one.dir);
    }
}

fn name(server: &Server) -> &'static str {
    server.peer.name()
}

/// Loads all history into a server, and waits until its background work is done.
fn load(server: Server, dir: tempfile::TempDir, start_ms: i64, end_ms: i64) -> Measured {
    let mut senders = load::senders(500, start_ms);
    let end_slot = (end_ms - start_ms) / SLOT_MS;
    let live_slots = LIVE_SLOTS.min(end_slot / 3);
    senders.iter_mut().for_each(|bodies| bodies.go_on(live_slots, 1, 2_000));
    let live = load::load_made(&server, &mut senders, 0);
    let until = (live_slots + BACK_FILL_SLOTS).min(end_slot);
    senders.iter_mut().for_each(|bodies| bodies.go_on(until, BACK_FILL_SAMPLES, 10_000));
    let back_fill = load::load_made(&server, &mut senders, live.samples);
    senders.iter_mut().for_each(|bodies| bodies.go_on(end_slot, BACK_FILL_SAMPLES, 10_000));
    let rest = load::load(&server, senders, live.samples + back_fill.samples);
    let samples = live.samples + back_fill.samples + rest.samples;
    let rested = server.wait_for_rest(QUIET, QUIET_AT_MOST);
    let bytes_per_sample = server.disk_bytes().0 as f64 / samples as f64;
    println!(
        "{}: {:.1} M samples loaded, {} at rest",
        name(&server),
        samples as f64 / 1e6,
        if rested { "and is" } else { "but is NOT" }
    );
    Measured { server, dir, live, back_fill, rest, bytes_per_sample }
}

fn tell_loading(all: &[Measured]) {
    let tell = |what: &str, pick: &dyn Fn(&Measured) -> &Loaded| {
        println!("\n{what}, {} connections", load::CONNECTIONS);
        for one in all {
            let loaded = pick(one);
            println!(
                "  {:<18} {:>5.2} M samples/s, {:.2} CPU s/M, peak {:.0} MB",
                name(&one.server),
                loaded.samples_per_s() / 1e6,
                loaded.cpu_s_per_million(),
                loaded.peak_mb
            );
        }
    };
    tell("remote write, a sample a series a request", &|one| &one.live);
    tell("remote write, 20 samples a series a request", &|one| &one.back_fill);
    tell("the same, for the rest of the time, made on the way", &|one| &one.rest);
    println!("\non disk, everything, at rest");
    for one in all {
        let dense = one.rest.dense.max(one.back_fill.dense) / one.bytes_per_sample;
        println!(
            "  {:<18} {:.2} B/sample; while loading at most {dense:.2} times that, without the log",
            name(&one.server),
            one.bytes_per_sample
        );
    }
}

/// Asks all servers in turn, and tells the middle round of each.
fn ask_all(all: &[Measured], question: Question, days: f64, end_ms: i64) {
    println!("\n{}, {} connections, {:.0} days", question.name(), ask::CONNECTIONS, days.min(7.0));
    let servers: Vec<&Server> =
        all.iter().map(|one| &one.server).filter(|server| question.is_for(server.peer)).collect();
    let mut rounds: Vec<Vec<ask::Asked>> = servers.iter().map(|_| Vec::new()).collect();
    for _ in 0..ASK_ROUNDS {
        for (server, asked) in servers.iter().zip(&mut rounds) {
            asked.push(ask::ask(server, question, days, end_ms, ASK));
        }
    }
    for (server, asked) in servers.iter().zip(&mut rounds) {
        tell_asked(name(server), asked);
    }
}

fn tell_asked(name: &str, rounds: &mut [ask::Asked]) {
    rounds.sort_by(|a, b| a.per_s.total_cmp(&b.per_s));
    if let Some(middle) = rounds.get(rounds.len() / 2) {
        println!(
            "  {name:<18} {:>7.1}/s, p50 {:.1} ms, p99 {:.1} ms, {:.2} CPU ms each, {:.2} MB",
            middle.per_s,
            middle.p50_ms,
            middle.p99_ms,
            middle.cpu_ms,
            middle.answer_bytes as f64 / 1e6
        );
    }
}

/// Rolls Lookback's history up, and asks again what rollups can answer.
fn from_rollups(server: Server, days: f64, end_ms: i64) {
    let Some(server) = server.kill_and_start(&["--rollups", "5m=90d"]) else { return };
    server.wait_for_rest(QUIET, QUIET_AT_MOST);
    for question in [Question::Workload, Question::Average] {
        println!("\n{}, from rollups of 5 min", question.name());
        let mut rounds: Vec<_> =
            (0..ASK_ROUNDS).map(|_| ask::ask(&server, question, days, end_ms, ASK)).collect();
        tell_asked(name(&server), &mut rounds);
    }
}

/// What a live series takes in memory: three samples each.
fn live_series(peers: &[Peer], series: usize) {
    let pods = series.div_ceil(7);
    for peer in peers {
        let dir = tempfile::tempdir().expect("a directory");
        let Some(server) = start(*peer, &dir, &[]) else { continue };
        let before_mb = server.rss_mb();
        // Four rounds, in two of which everything has a sample.
        let mut senders = load::senders(pods, end_ms() - 4 * SLOT_MS);
        senders.iter_mut().for_each(|bodies| bodies.go_on(4, 1, 10_000));
        let loaded = load::load(&server, senders, 0);
        let at_once_mb = server.rss_mb();
        server.wait_for_rest(QUIET, QUIET_AT_MOST);
        let bytes = |mb: f64| (mb - before_mb) * 1_048_576.0 / (pods * 7) as f64;
        println!(
            "{}: {} series, {:.1} M samples: {:.0} B a series at once, {:.0} B at rest, {:.0} B at the peak; \
             {:.2} M samples/s, {:.2} CPU s/M",
            name(&server),
            pods * 7,
            loaded.samples as f64 / 1e6,
            bytes(at_once_mb),
            bytes(server.rss_mb()),
            bytes(loaded.peak_mb),
            loaded.samples_per_s() / 1e6,
            loaded.cpu_s_per_million()
        );
        if let Some(server) = server.kill_and_start(&[]) {
            println!(
                "{}: ready after kill -9 in {:.1} s, {:.0} MB",
                name(&server),
                server.ready_s,
                server.rss_mb()
            );
        }
    }
}
