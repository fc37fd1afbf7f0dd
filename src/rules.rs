//! The rules of prometheus-adapter: which series are which metric of which objects, and the query that answers for it.
//!
//! The file format is that of prometheus-adapter (its `docs/config.md`), and so is what a rule means: series are
//! listed by `seriesQuery`, filtered, named by `name`, associated with resources by their labels' names, and a
//! question for a metric is answered by the rule's `metricsQuery`, a template, asked as PromQL. What is asked is the
//! store of this server or a server that speaks Prometheus' HTTP API: the rules do not know which ([`source`]).
//!
//! Differences from prometheus-adapter, all on purpose: a rule that can't be used disables itself and no other; NaN and
//! infinite values are missing ones; the time of a value is that of the samples behind it; values that go into a
//! query are escaped; a metric stays for one more relist when its series are gone; the file is read again.
//!
//! # Map
//!
//! | file | what |
//! |---|---|
//! | `located`, `config` | the file: YAML with places, rules as they are written |
//! | `template` | Go's templates, as far as rules use them |
//! | `naming`, `association` | a series' name to a metric's; labels to resources |
//! | `matchers` | what is asked to label matchers |
//! | `rule` | a rule that can be used |
//! | `defaults` | the rules where no file is given |
//! | `listing`, `relist` | which metrics there are now |
//! | `source`, `own_store`, `prometheus_server` | PromQL asked, of whom ever |
//! | `question`, `usage` | a question answered; what pods and nodes use |
//! | `telemetry` | what is told of all that |

pub mod association;
pub mod config;
pub mod defaults;
pub mod listing;
mod located;
pub mod matchers;
pub mod naming;
mod own_store;
mod prometheus_server;
pub mod question;
mod relist;
pub mod rule;
pub mod source;
mod telemetry;
pub mod template;
pub mod usage;

pub use own_store::OwnStore;
pub use prometheus_server::PrometheusServer;
pub use relist::{Rules, RulesSettings, Status, check};
pub use telemetry::RulesMetrics;
