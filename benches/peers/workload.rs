//! What a cluster of 500 pods tells, made up and the same in each run: cpu and memory of two containers a
//! pod every 15 s, and requests, a queue and a latency of the pod every 30 s. 3,500 series, 15.8 million
//! samples a day. Every second pod's times jitter by up to 20 ms; values have the digits that such metrics
//! have: cores to the nano, memory in pages, counts over the interval, seconds to the micro.

pub(crate) const DAY_MS: i64 = 86_400_000;
/// The time between two rounds; every second one has the metrics of the pods as well.
pub(crate) const SLOT_MS: i64 = 15_000;
/// A workload has so many pods.
pub(crate) const PODS_PER_WORKLOAD: usize = 10;
const KINDS: [&str; 5] = ["checkout", "catalog", "auth", "billing", "search"];

/// Numbers without a pattern: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// About normal, with mean 0 and deviation 1: four even ones added up.
    fn normal(&mut self) -> f64 {
        let sum: f64 = (0..4).map(|_| self.unit()).sum();
        (sum - 2.0) * 3f64.sqrt()
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }

    fn below(&mut self, n: u64) -> i64 {
        i64::try_from(self.next() % n).unwrap_or_default()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cpu,
    Memory,
    Requests,
    Queue,
    Latency,
}

/// One series, and its samples as they come.
pub(crate) struct Source {
    pub(crate) labels: Vec<(&'static str, String)>,
    kind: Kind,
    jitters: bool,
    /// Of this pod's times within its interval.
    offset_ms: i64,
    random: Random,
    /// Jitter has numbers of its own, shared by the series of a pod: they are scraped together.
    clock: Random,
    base: f64,
    phase: f64,
    /// A load that drifts.
    drift: f64,
    pages: f64,
    queued: i64,
    burst: i64,
}

impl Source {
    /// The name of its metric.
    pub(crate) fn metric(&self) -> &str {
        self.labels.iter().find(|(name, _)| *name == "__name__").map_or("", |(_, value)| value)
    }

    /// Whether it has a sample in this round.
    fn has(&self, slot: i64) -> bool {
        matches!(self.kind, Kind::Cpu | Kind::Memory) || slot % 2 == 0
    }

    /// Its sample of a round that begins at `slot_ms`, Unix milliseconds. Rounds come one after another.
    pub(crate) fn sample(&mut self, slot: i64, slot_ms: i64) -> Option<(i64, f64)> {
        let jitter_ms = if self.jitters { self.clock.below(21) } else { 0 };
        if !self.has(slot) {
            return None;
        }
        let hour = slot_ms.rem_euclid(DAY_MS) as f64 / DAY_MS as f64 * std::f64::consts::TAU;
        let daily = 1.0 + 0.45 * (hour + self.phase).sin();
        self.drift = 0.92 * self.drift + 0.09 * self.random.normal();
        let load = self.base * daily * (1.0 + self.drift).max(0.05);
        let value = match self.kind {
            Kind::Cpu => {
                let peak = if self.random.one_in(700) { 2.5 } else { 1.0 };
                let noise = 1.0 + 0.02 * self.random.normal();
                (load * peak * noise).max(1e-5).mul_add(1e9, 0.0).round() / 1e9
            }
            Kind::Memory => self.memory(),
            Kind::Requests => {
                let expected = load * 400.0 * 30.0 + 0.3;
                (expected + expected.sqrt() * self.random.normal()).round().max(0.0) / 30.0
            }
            Kind::Queue => self.queue(),
            Kind::Latency => {
                let spread = (0.35 * self.random.normal()).exp();
                ((0.08 * load * spread + 0.002) * 1e6).round() / 1e6
            }
        };
        Some((slot_ms + self.offset_ms + jitter_ms, value))
    }

    fn memory(&mut self) -> f64 {
        match self.random.below(1_000) {
            0..350 => {}
            998 => self.pages *= 1.0 + 0.25 * self.random.unit(),
            999 => self.pages *= 1.0 - 0.2 * self.random.unit(),
            _ => self.pages += 35.0 * self.random.normal(),
        }
        self.pages = self.pages.round().clamp(2e3, 2e6);
        self.pages * 4_096.0
    }

    fn queue(&mut self) -> f64 {
        if self.burst == 0 && self.random.one_in(400) {
            self.burst = 5 + self.random.below(40);
        }
        if self.burst > 0 {
            self.burst -= 1;
            self.queued += self.random.below(30);
        } else {
            self.queued -= self.random.below(25);
        }
        self.queued = self.queued.max(0) + i64::from(self.random.one_in(9));
        self.queued as f64
    }
}

/// The name of a workload.
pub(crate) fn workload(number: usize) -> String {
    format!("svc-{number:02}-{}", KINDS[number % KINDS.len()])
}

fn letters(random: &mut Random, count: usize) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..count).map(|_| char::from(LETTERS[random.below(LETTERS.len() as u64) as usize])).collect()
}

/// The series of one pod.
pub(crate) fn pod(number: usize) -> Vec<Source> {
    let of_workload = number / PODS_PER_WORKLOAD;
    let workload = workload(of_workload);
    let template = letters(&mut Random(98 ^ (of_workload as u64) << 20), 10);
    let name = format!("{workload}-{template}-{}", letters(&mut Random(99 ^ (number as u64) << 20), 5));
    let mut sources = Vec::new();
    let mut push = |metric: &str, kind: Kind, container: Option<&str>| {
        let seed = (number as u64) << 8 | sources.len() as u64;
        let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let mut labels = vec![("__name__", metric.to_owned())];
        labels.extend(container.map(|container| ("container", container.to_owned())));
        labels.push(("namespace", "prod".to_owned()));
        labels.push(("node", format!("node-{:02}", number % 25)));
        labels.push(("pod", name.clone()));
        labels.push(("workload", workload.clone()));
        let interval_ms = if container.is_some() { SLOT_MS } else { 2 * SLOT_MS };
        sources.push(Source {
            labels,
            kind,
            jitters: number % 2 == 1,
            offset_ms: (number as i64 * 7_919) % SLOT_MS.min(interval_ms),
            base: (1.1 * random.normal() - 1.8).exp(),
            phase: random.unit() * std::f64::consts::TAU,
            pages: (2e4 * (0.8 * random.normal()).exp()).floor(),
            random,
            clock: Random(number as u64 ^ 0x75),
            drift: 0.0,
            queued: 0,
            burst: 0,
        });
    };
    for container in ["app", "sidecar"] {
        push("container_cpu_usage_cores", Kind::Cpu, Some(container));
        push("container_memory_working_set_bytes", Kind::Memory, Some(container));
    }
    push("http_requests_per_second", Kind::Requests, None);
    push("queue_depth", Kind::Queue, None);
    push("request_latency_p99_seconds", Kind::Latency, None);
    sources
}
