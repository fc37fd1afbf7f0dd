//! Requests of remote write 1.0, as a sender makes them.

use super::workload::{SLOT_MS, Source};

/// Makes the requests of some series, round after round.
pub(crate) struct Bodies {
    sources: Vec<(Vec<u8>, Source)>,
    /// How many samples of a series one request has: as many rounds go into it.
    rounds_per_request: i64,
    samples_per_request: usize,
    start_ms: i64,
    slot: i64,
    end_slot: i64,
    next_source: usize,
    message: Vec<u8>,
    encoder: snap::raw::Encoder,
    /// Samples of the rounds at hand, series by series.
    waiting: Vec<Vec<(i64, f64)>>,
}

/// One request.
pub(crate) struct Request {
    /// The round that it begins with.
    pub(crate) slot: i64,
    pub(crate) samples: usize,
    pub(crate) body: Vec<u8>,
}

impl Bodies {
    pub(crate) fn new(sources: Vec<Source>, start_ms: i64) -> Self {
        let sources: Vec<_> = sources.into_iter().map(|source| (labels(&source.labels), source)).collect();
        Self {
            waiting: vec![Vec::new(); sources.len()],
            sources,
            rounds_per_request: 1,
            samples_per_request: 1,
            start_ms,
            slot: 0,
            end_slot: 0,
            next_source: 0,
            message: Vec::new(),
            encoder: snap::raw::Encoder::new(),
        }
    }

    /// Goes on up to a round, so many rounds and at most so many samples a request.
    pub(crate) fn go_on(&mut self, end_slot: i64, rounds_per_request: i64, samples_per_request: usize) {
        (self.end_slot, self.rounds_per_request) = (end_slot, rounds_per_request);
        self.samples_per_request = samples_per_request;
        self.fill();
    }

    fn fill(&mut self) {
        let end = self.end_slot.min(self.slot + self.rounds_per_request);
        for ((_, source), waiting) in self.sources.iter_mut().zip(&mut self.waiting) {
            waiting.clear();
            waiting.extend(
                (self.slot..end).filter_map(|slot| source.sample(slot, self.start_ms + slot * SLOT_MS)),
            );
        }
        self.next_source = 0;
    }
}

impl Iterator for Bodies {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        while self.slot < self.end_slot {
            let (slot, mut samples) = (self.slot, 0);
            self.message.clear();
            while self.next_source < self.sources.len() && samples < self.samples_per_request {
                let of_series = &self.waiting[self.next_source];
                if !of_series.is_empty() {
                    put_series(&mut self.message, &self.sources[self.next_source].0, of_series);
                    samples += of_series.len();
                }
                self.next_source += 1;
            }
            if self.next_source == self.sources.len() {
                self.slot = self.end_slot.min(self.slot + self.rounds_per_request);
                self.fill();
            }
            if samples > 0 {
                let body = self.encoder.compress_vec(&self.message).expect("compressed");
                return Some(Request { slot, samples, body });
            }
        }
        None
    }
}

fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn put_text(bytes: &mut Vec<u8>, tag: u8, text: &[u8]) {
    bytes.push(tag);
    put_varint(bytes, text.len() as u64);
    bytes.extend_from_slice(text);
}

/// The labels of a `TimeSeries`, field 1 each.
fn labels(labels: &[(&str, String)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in labels {
        let mut label = Vec::new();
        put_text(&mut label, 0x0a, name.as_bytes());
        put_text(&mut label, 0x12, value.as_bytes());
        put_text(&mut bytes, 0x0a, &label);
    }
    bytes
}

/// A `TimeSeries` of a `WriteRequest`.
fn put_series(message: &mut Vec<u8>, labels: &[u8], samples: &[(i64, f64)]) {
    let mut sample = Vec::with_capacity(24);
    let mut series = Vec::with_capacity(labels.len() + samples.len() * 20);
    series.extend_from_slice(labels);
    for (time_ms, value) in samples {
        sample.clear();
        sample.push(0x09);
        sample.extend_from_slice(&value.to_le_bytes());
        sample.push(0x10);
        put_varint(&mut sample, time_ms.cast_unsigned());
        put_text(&mut series, 0x12, &sample);
    }
    put_text(message, 0x0a, &series);
}
