//! Raw samples of many series, handed out as they come, in one of three ways.

use super::error::ClientError;
use super::remote_read::{
    Answered, Frames, Part, RemoteReadError, each_in_frame, each_in_samples, read_request,
};
use super::transport::Call;
use super::{Field, PrometheusClient, Value, export, form, native, seconds, selector};
use bytes::{Bytes, BytesMut};
use lookback_storage::{Labels, Matcher, Pick, Sample};
use std::ops::ControlFlow;
use std::time::Duration;

/// Longest line of an export, in bytes: a series of about ten million samples.
const LINE_BYTES_MAX: usize = 256 << 20;
/// Largest answer of samples that is not streamed, decompressed, in bytes.
const SAMPLES_BYTES_MAX: usize = 256 << 20;

/// A remote read of newest samples over no more than this is answered as one message: of many series it holds few
/// samples each.
const UNSTREAMED_MS: i64 = 30 * 60 * 1_000;

/// How raw samples are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawMethod {
    /// Remote read: bit for bit, in label order. Prometheus, Mimir, Cortex.
    RemoteRead,
    /// The blocks of VictoriaMetrics, in label order: about 12 digits, NaN of all kinds is one. What it
    /// deduplicates in answers is not deduplicated there.
    Native,
    /// The export of VictoriaMetrics as text: likewise, but for the order, which is any, and what is deduplicated.
    Export,
    /// A query of a range selector: staleness markers are not seen. Whatever speaks PromQL: Thanos.
    Query,
}

impl RawMethod {
    /// Whether series come in the order of their labels.
    #[must_use]
    pub fn is_sorted(self) -> bool {
        matches!(self, Self::RemoteRead | Self::Native)
    }

    /// Whether the server is VictoriaMetrics, which keeps values to a number of digits.
    #[must_use]
    pub fn is_victoria_metrics(self) -> bool {
        matches!(self, Self::Native | Self::Export)
    }
}

/// A series and some of its samples in time order. Of one series there may be several parts, one behind the
/// other.
#[derive(Clone, Debug, PartialEq)]
pub struct RawPart {
    /// The series.
    pub labels: Labels,
    /// The samples; some may lie outside of what was asked for.
    pub samples: Vec<Sample>,
}

/// What was left out because Lookback does not keep such.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Parts whose label sets break a bound, or have no name.
    pub series: usize,
    /// Native histograms.
    pub histograms: usize,
}

impl PrometheusClient {
    /// Hands `visit` the raw samples of the matching series in `[start_ms, end_ms]`, until it breaks off. Where
    /// only the newest ones matter, a zero may lose its sign.
    ///
    /// # Errors
    /// When the server does not answer within the time, or with something else.
    pub async fn raw(
        &self,
        method: RawMethod,
        matchers: &[Matcher],
        within_ms: (i64, i64),
        pick: Pick,
        timeout: Duration,
        visit: impl FnMut(RawPart) -> ControlFlow<()>,
    ) -> Result<LeftOut, ClientError> {
        let mut handed = Handed { visit, left_out: LeftOut::default() };
        match method {
            RawMethod::RemoteRead => {
                let span_ms = within_ms.1.saturating_sub(within_ms.0);
                let is_short = pick == Pick::Newest && span_ms <= UNSTREAMED_MS;
                let answered = if is_short { Answered::Samples } else { Answered::Chunks };
                match self.remote_read(matchers, within_ms, answered, timeout, &mut handed).await {
                    // Nothing of it was handed out.
                    Err(ClientError::TooLarge { .. }) if is_short => {
                        self.remote_read(matchers, within_ms, Answered::Chunks, timeout, &mut handed).await?;
                    }
                    read => read?,
                }
            }
            RawMethod::Native => self.native(matchers, within_ms, timeout, &mut handed).await?,
            RawMethod::Export => self.export(matchers, within_ms, timeout, &mut handed).await?,
            RawMethod::Query => self.query_raw(matchers, within_ms, timeout, &mut handed).await?,
        }
        Ok(handed.left_out)
    }

    async fn remote_read(
        &self,
        matchers: &[Matcher],
        within_ms: (i64, i64),
        answered: Answered,
        timeout: Duration,
        handed: &mut Handed<impl FnMut(RawPart) -> ControlFlow<()>>,
    ) -> Result<(), ClientError> {
        const HEADERS: [(&str, &str); 2] =
            [("content-encoding", "snappy"), ("x-prometheus-remote-read-version", "0.1.0")];
        let request = read_request(matchers, within_ms, answered);
        let compressed = snap::raw::Encoder::new().compress_vec(&request);
        let compressed = compressed.map_err(|error| self.malformed(error))?;
        let call = Call::post("/api/v1/read", "application/x-protobuf", compressed.into());
        let mut answer = self.stream(Call { headers: &HEADERS, ..call }, timeout).await?;
        if !answer.content_type.contains("streamed") {
            return self.unstreamed(answer, handed).await;
        }
        let mut frames = Frames::default();
        while let Some(bytes) = answer.next().await? {
            frames.push(&bytes);
            while let Some(frame) = frames.next().map_err(|error| answer.malformed(error))? {
                let flow = each_in_frame(&frame, &mut |part| handed.take(part));
                if flow.map_err(|error| answer.malformed(error))?.is_break() {
                    return Ok(());
                }
            }
        }
        if frames.is_empty() { Ok(()) } else { Err(answer.malformed("it ends within a frame")) }
    }

    /// An answer that is one block: from servers that can't stream.
    async fn unstreamed(
        &self,
        mut answer: super::Streaming,
        handed: &mut Handed<impl FnMut(RawPart) -> ControlFlow<()>>,
    ) -> Result<(), ClientError> {
        let bytes_max = self.transport.settings().body_bytes_max;
        let mut block = BytesMut::new();
        while let Some(bytes) = answer.next().await? {
            if bytes.len() > bytes_max - block.len() {
                return Err(self.too_large(bytes_max));
            }
            block.extend_from_slice(&bytes);
        }
        match snap::raw::decompress_len(&block) {
            Ok(bytes) if bytes <= SAMPLES_BYTES_MAX => {}
            Ok(_) => return Err(self.too_large(SAMPLES_BYTES_MAX)),
            Err(error) => return Err(answer.malformed(error)),
        }
        let block = snap::raw::Decoder::new().decompress_vec(&block);
        let block = block.map_err(|error| answer.malformed(error))?;
        match each_in_samples(&block, &mut |part| handed.take(part)) {
            // Whether it breaks off makes no difference any more.
            Ok(_) => Ok(()),
            Err(RemoteReadError::TooManySeries) => Err(self.too_large(SAMPLES_BYTES_MAX)),
            Err(error) => Err(answer.malformed(error)),
        }
    }

    /// Begins an export of VictoriaMetrics.
    async fn exported(
        &self,
        path: &str,
        matchers: &[Matcher],
        (start_ms, end_ms): (i64, i64),
        timeout: Duration,
    ) -> Result<super::Streaming, ClientError> {
        // One more: VictoriaMetrics 1.79 does not look into the day that begins with the last millisecond.
        let fields: [Field<'_>; 3] = [
            ("match[]", selector(matchers)),
            ("start", seconds(start_ms)),
            ("end", seconds(end_ms.saturating_add(1))),
        ];
        let body = Bytes::from(form(&fields));
        self.stream(Call::post(path, "application/x-www-form-urlencoded", body), timeout).await
    }

    /// Holds the blocks of all series as they are, and hands one series after another out.
    async fn native(
        &self,
        matchers: &[Matcher],
        within_ms: (i64, i64),
        timeout: Duration,
        handed: &mut Handed<impl FnMut(RawPart) -> ControlFlow<()>>,
    ) -> Result<(), ClientError> {
        let mut answer = self.exported("/api/v1/export/native", matchers, within_ms, timeout).await?;
        let mut blocks = native::Blocks::default();
        while let Some(bytes) = answer.next().await? {
            blocks.push(&bytes).map_err(|error| answer.malformed(error))?;
            if blocks.held_bytes() > native::HELD_BYTES_MAX {
                return Err(self.too_large(native::HELD_BYTES_MAX));
            }
        }
        let mut decoder = native::Decoder::default();
        for (labels, blocks) in blocks.finish().map_err(|error| answer.malformed(error))? {
            let flow = decoder.each_part(&blocks, |samples| handed.part(labels.clone(), samples));
            if flow.map_err(|error| answer.malformed(error))?.is_break() {
                break;
            }
        }
        Ok(())
    }

    async fn export(
        &self,
        matchers: &[Matcher],
        within_ms: (i64, i64),
        timeout: Duration,
        handed: &mut Handed<impl FnMut(RawPart) -> ControlFlow<()>>,
    ) -> Result<(), ClientError> {
        let mut answer = self.exported("/api/v1/export", matchers, within_ms, timeout).await?;
        let mut lines = export::Lines::default();
        while let Some(bytes) = answer.next().await? {
            lines.push(&bytes);
            while let Some(line) = lines.next() {
                let line = export::decode_line(&line).map_err(|error| answer.malformed(error))?;
                if handed.part(line.0, line.1).is_break() {
                    return Ok(());
                }
            }
            if lines.begun_bytes() > LINE_BYTES_MAX {
                return Err(self.too_large(LINE_BYTES_MAX));
            }
        }
        let rest = lines.rest();
        if !rest.is_empty() {
            let line = export::decode_line(&rest).map_err(|error| answer.malformed(error))?;
            let _ = handed.part(line.0, line.1);
        }
        Ok(())
    }

    async fn query_raw(
        &self,
        matchers: &[Matcher],
        (start_ms, end_ms): (i64, i64),
        timeout: Duration,
        handed: &mut Handed<impl FnMut(RawPart) -> ControlFlow<()>>,
    ) -> Result<(), ClientError> {
        // A window may be open at its left, or not: what is too much does not matter.
        let window_ms = end_ms.saturating_sub(start_ms).saturating_add(1);
        let query = format!("{}[{window_ms}ms]", selector(matchers));
        let answer = self.query(&query, Some(end_ms), timeout).await?;
        if let Some(warning) = answer.warnings.first() {
            return Err(self.malformed(format!("a part of the samples is missing: {warning}")));
        }
        let Value::Matrix(matrix) = answer.data else {
            return Err(self.malformed("a range selector gives no matrix"));
        };
        for series in matrix {
            if handed.part(Labels::new(series.metric).ok(), series.values).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn malformed(&self, reason: impl ToString) -> ClientError {
        ClientError::Malformed { server: self.server().to_owned(), reason: reason.to_string() }
    }

    fn too_large(&self, bytes_max: usize) -> ClientError {
        ClientError::TooLarge { server: self.server().to_owned(), bytes_max }
    }
}

struct Handed<V> {
    visit: V,
    left_out: LeftOut,
}

impl<V: FnMut(RawPart) -> ControlFlow<()>> Handed<V> {
    fn take(&mut self, part: Part) -> ControlFlow<()> {
        self.left_out.histograms += part.histograms;
        self.part(part.labels, part.samples)
    }

    fn part(&mut self, labels: Option<Labels>, samples: Vec<Sample>) -> ControlFlow<()> {
        let Some(labels) = labels else {
            self.left_out.series += 1;
            return ControlFlow::Continue(());
        };
        if samples.is_empty() {
            return ControlFlow::Continue(());
        }
        (self.visit)(RawPart { labels, samples })
    }
}
