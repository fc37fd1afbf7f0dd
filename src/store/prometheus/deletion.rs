//! Deletes series at the engine, where it has an API for it.

use super::PrometheusStore;
use super::engine::failed;
use crate::prometheus_client::{At, Call, ClientError, RawMethod, form, seconds};
use crate::store::StoreError;
use std::time::Duration;

impl PrometheusStore {
    /// Deletes at the engine, by the API that Prometheus and VictoriaMetrics have for it.
    pub(super) async fn delete_at_engine(
        &self,
        selector: String,
        (start_ms, end_ms): (i64, i64),
        timeout: Duration,
    ) -> Result<(), StoreError> {
        let refused = |reason: &str| StoreError::Unavailable(format!("nothing was deleted: {reason}"));
        let method = self.engine().method(timeout).await.map_err(|error| failed(error, timeout))?;
        let is_everything = start_ms <= 0 && end_ms >= self.0.clock.now_ms();
        let mut fields = vec![("match[]", selector)];
        match method {
            RawMethod::Native | RawMethod::Export if !is_everything => {
                return Err(refused(
                    "VictoriaMetrics deletes whole series only: leave out start and end, or let retention do it",
                ));
            }
            RawMethod::Native | RawMethod::Export => {}
            RawMethod::Query => {
                return Err(refused("this engine has no API for it: delete there, by its own means"));
            }
            RawMethod::RemoteRead if is_everything => {}
            RawMethod::RemoteRead => {
                fields.extend([
                    ("start", seconds(start_ms.max(0))),
                    ("end", seconds(end_ms.min(self.newest_ms()))),
                ]);
            }
        }
        let query = Some(form(&fields));
        let path = "/api/v1/admin/tsdb/delete_series";
        let call = Call::post(path, "application/x-www-form-urlencoded", bytes::Bytes::new());
        let call = Call { at: At::Deletes, query, ..call };
        match self.engine().client().stream(call, timeout).await {
            Ok(_) => Ok(()),
            Err(ClientError::Refused { status: 403, .. }) => {
                Err(refused("the engine does not let it: Prometheus needs --web.enable-admin-api"))
            }
            // Mimir, Cortex and what stands before Prometheus have no such path.
            Err(ClientError::Refused { status: 404 | 405 | 501, .. }) => {
                Err(refused("this engine has no API for it: delete there, by its own means"))
            }
            Err(ClientError::Refused { reason, .. }) if reason.contains("admin API") => {
                Err(refused("the engine does not let it: Prometheus needs --web.enable-admin-api"))
            }
            Err(error) => Err(failed(error, timeout)),
        }
    }
}
